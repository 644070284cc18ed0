"""Reading the YAML file of a configuration: errors name line and key of everything that is wrong, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from arm_lens.benchmark.config import (
    BenchmarkConfig,
    BenchmarkConfigError,
    Folders,
    HackingStudy,
    PictureStudy,
    PreferenceStudy,
    UnconfirmedKeyError,
    WorldStudy,
)
from arm_lens.benchmark.strict_yaml import Place, YamlError, YamlFile, listed, meant, read_yaml
from arm_lens.registry import JUDGES, OptionsError, UnknownNameError

ConfigType = TypeVar("ConfigType", bound=BenchmarkConfig)


def read_config(
    path: str | Path, *, allow_keys: Collection[str] = (), data: str | Path | None = None
) -> BenchmarkConfig:
    """Read a run's YAML file; the paths in it start from its folder, and so does a model if there is such a folder.

    If ``data`` is given, the paths of data start from that folder instead.

    A file may come from somebody else, and could name any environment variable as the key for a host of theirs. So a key is
    sent only if ``allow_keys`` names both, ``NAME=HOST``; but ``OPENAI_API_KEY`` may be sent to OpenAI, and to the host in
    the environment's own ``OPENAI_BASE_URL``.

    Raises:
        FileNotFoundError: if there is no such file.
        BenchmarkConfigError: naming line and key of everything that is wrong, judges' options included; or if the file is not
            YAML, or YAML reads it otherwise than it looks (`arm_lens.benchmark.strict_yaml`).
        UnconfirmedKeyError: naming variable and host, if the file would send a key that is not allowed.
    """
    return read_as(BenchmarkConfig, path, allow_keys=allow_keys, data=data)


def read_as(
    kind: type[ConfigType], path: str | Path, *, allow_keys: Collection[str] = (), data: str | Path | None = None
) -> ConfigType:
    """`read_config` of a class of configurations."""
    path = Path(path)
    try:
        file = read_yaml(path)
    except YamlError as error:
        raise BenchmarkConfigError(str(error)) from error
    try:
        folders = Folders(path.parent, path.parent if data is None else Path(data))
        config = kind.model_validate(file.values, context=folders)
    except ValidationError as error:
        raise BenchmarkConfigError(listed(path, _problems(file, error, kind))) from error
    if problems := list(_wrong_options(file, config)) or list(_wrong_kinds(file, config)):
        raise BenchmarkConfigError(listed(path, problems))
    _check_keys(path, config, allow_keys)
    return config


def _problems(file: YamlFile, error: ValidationError, kind: type[BaseModel]) -> list[tuple[int, Place, str]]:
    """Line, key and reason of each of pydantic's errors."""
    found = {one["loc"]: one for one in error.errors()}
    # If every entry of a list is wrong, pydantic also reports that the list is empty.
    entries = {loc[:end] for loc in found for end in range(len(loc))}
    problems = []
    for loc, one in found.items():
        if one["type"] == "too_short" and loc in entries:
            continue
        place, what = one.get("ctx", {}).get("place", loc), one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            what = f"there is no such field; {meant(str(loc[-1]), _fields(loc[:-1], kind))}"
        problems.append((file.line(place), place, what))
    return problems


def _fields(loc: Place, root: type[BaseModel]) -> Iterable[str]:
    """The fields that are known at a place of pydantic's, in which a study's kind stands behind its index."""
    kinds: dict[Any, type[BaseModel]] = {
        "world": WorldStudy, "pictures": PictureStudy, "hacking": HackingStudy, "preferences": PreferenceStudy,
    }  # fmt: skip
    if len(loc) > 2 and loc[2] in kinds:
        return kinds[loc[2]].model_fields
    annotation = root.model_fields[str(loc[0])].annotation if loc and loc[0] in root.model_fields else root
    own = next(
        (one for one in (annotation, *_inner(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)), root
    )
    return own.model_fields


def _inner(annotation: Any) -> Iterator[Any]:
    """The types within a generic one."""
    for one in get_args(annotation):
        yield one
        yield from _inner(one)


def _wrong_options(file: YamlFile, config: BenchmarkConfig) -> Iterator[tuple[int, Place, str]]:
    """Line, key and reason of each judge that is unknown, or has an option that it cannot have."""
    for where, _, judges in config._lists:
        for index, choice in enumerate(judges):
            place: Place = (*where, index)
            try:
                _ = choice.parsed
            except UnknownNameError as error:
                near = meant(choice.judge, JUDGES)
                yield file.line(place), place, f"{error}; {near}" if near.startswith("did") else str(error)
            except OptionsError as error:
                named = next((one for one in choice.options if repr(one) in str(error)), None)
                place = place if named is None else (*place, named)
                yield file.line(place), place, str(error)


def _wrong_kinds(file: YamlFile, config: BenchmarkConfig) -> Iterator[tuple[int, Place, str]]:
    """Line, key and reason of each kind of score that a judge does not give."""
    for number, study in enumerate(config.studies):
        own: Place = () if study.judges is None else ("studies", number)
        given = config.settings(study).judges or ()
        for index, (choice, resolved) in enumerate(zip(given, config.judges_of(study), strict=True)):
            try:
                resolved.check_score_kind()
            except ValueError as error:
                of_study: Place = () if study.score_kind is None else ("studies", number)
                place = (*(of_study if choice.score_kind is None else (*own, "judges", index)), "score_kind")
                yield file.line(place), place, str(error)


def _check_keys(path: Path, config: BenchmarkConfig, allowed: Collection[str]) -> None:
    wrong = next((one for one in allowed if not re.fullmatch(r"[^=\s]+=[^=\s]+", one)), None)
    if wrong is not None:
        raise BenchmarkConfigError(f"a key is allowed as NAME=HOST, such as MY_KEY=api.example.org; not as {wrong!r}")
    for choice in config.choices:
        for name, host in choice.spec.keys(choice.parsed).items():
            if f"{name}={host}" not in allowed:
                raise UnconfirmedKeyError(
                    f"{path}: the judge {choice.label!r} would send the environment variable {name} to {host}; if you want "
                    f"that, allow it: --allow-key {name}={host} (in Python, allow_keys); for an endpoint without keys, set "
                    "api_key_env: null"
                )
