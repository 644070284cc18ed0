"""The configuration of a benchmark run: a YAML file, checked field by field before anything runs.

A run has one model, a list of judges and a list of *studies*. A study names the source of its data (the bundled model's
world, a file of preferences, or a reward-hacking benchmark made from either) and the settings under which judges are
fitted: numbers of examples, shares of flipped labels, example samples, seeds of the judges. A setting that a study
leaves out is that of the run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from arm_lens.engine import ModelClass
from arm_lens.evaluation.hacking import MAPPINGS
from arm_lens.judge_model import CRITERIA
from arm_lens.preferences.biases import BIASES
from arm_lens.preferences.verdicts import Verdicts
from arm_lens.registry import JUDGES, JudgeSpec, OptionsError, UnknownNameError

VERDICTS = " verdicts"
"""Ends the name of a benchmark in which the responses of pairs are judged one by one."""


def _one_of(kind: str, known: Iterable[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}")
        return name

    return AfterValidator(check)


def _file_path(path: str, info: Any) -> str:
    """A file's path from the folder of the configuration, the context of pydantic's ``ValidationInfo``."""
    return path if info.context is None or "://" in path else str((info.context / path).resolve())


def _model_path(name: str, info: Any) -> str:
    """A model's folder next to the configuration if there is one; otherwise a name on the hub."""
    folder = None if info.context is None else info.context / name
    return str(folder.resolve()) if folder is not None and folder.is_dir() else name


Count = Annotated[int, Field(ge=1)]
Noise = Annotated[float, Field(ge=0, le=0.5)]
Name = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, AfterValidator(_file_path)]
Unit: TypeAlias = Literal["pair", "response"]
"""Whether preferences are pairs or single responses with a label."""
Some = Field(min_length=1)
"""A list that must not be empty."""


class BenchmarkConfigError(ValueError):
    """A configuration that cannot be run; the message names every field that is wrong."""


class UnconfirmedKeyError(ValueError):
    """A configuration would send an environment variable to a host, and the user has not said that it may."""


class Strict(BaseModel):
    """A misspelt field is an error, and no field changes after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeChoice(BaseModel):
    """A judge: its name alone, or these fields and any options of the judge next to them."""

    model_config = ConfigDict(extra="allow", frozen=True)
    judge: str
    """One of `arm_lens.registry.JUDGES`."""
    name: str = ""
    """Its name in the results; by default that of the judge. Two entries need two names."""
    seeds: Count | None = None
    """How many seeds, if the judge is random; by default as many as the study has."""

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, value: Any, info: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("reference"), str):
            return {**value, "reference": _model_path(value["reference"], info)}
        return {"judge": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """Its name in the results."""
        return self.name or self.judge

    @property
    def options(self) -> dict[str, Any]:
        """The judge's options, as they were given."""
        return dict(self.model_extra or {})

    @property
    def spec(self) -> JudgeSpec:
        """The judge's entry in the registry; an UnknownNameError lists the known judges."""
        return JUDGES[self.judge]

    @property
    def parsed(self) -> Any:
        """The options as the judge takes them; an OptionsError names what is wrong."""
        return self.spec.parse(self.options)


class Settings(Strict):
    """The settings under which judges are fitted and tested; None stands for the setting of the run."""

    judges: Annotated[tuple[JudgeChoice, ...], Some] | None = None
    n_examples: Annotated[tuple[Count, ...], Some] | None = None
    """How many examples (pairs, unless the data has single responses) the judges are given."""
    noise: Annotated[tuple[Noise, ...], Some] | None = None
    """The share of the examples whose label is flipped."""
    samples: Count | None = None
    """How many example samples."""
    seeds: Count | Literal["sample"] | None = None
    """How many seeds (0, 1, ...) a random judge is fitted with on the same examples; or ``sample``: one, the number of the
    example sample, so that sample and seed change together."""
    test_items: Count | None = None
    """The most test items of a subset, chosen at random; None in both places for all items."""


class WorldStudy(Settings):
    """Replies from the bundled judge model's world, one subset per criterion."""

    kind: Literal["world"]
    name: Name = "world"
    criteria: Annotated[tuple[Annotated[str, _one_of("criterion", CRITERIA)], ...], Some] = tuple(CRITERIA)
    unit: Unit = "pair"
    """``pair`` for two replies, one of which meets the criterion; ``response`` for single replies with a label."""


class Source(Settings):
    """How a study's preferences are read; see `arm_lens.preferences.read_preferences`."""

    format: str | None = None
    split: str | None = None
    columns: dict[str, str | int] = {}
    """From our names to the file's, or to positions in a file without a header row."""
    labels: dict[str | int, bool | str] | str | None = None
    """What labels mean, e.g. ``{joy: yes, anger: no}``, or a threshold for ratings, e.g. ``">= 4"``."""
    winner: dict[str | int, str] | None = None
    """What the column winner means, e.g. ``{"A>B": A, "B>A": B, "A=B": tie}``."""
    on_error: Literal["raise", "skip"] = "raise"
    """With ``skip``, rows that cannot be read are named and left out."""
    limit: Count | None = None
    """How many rows to read, from the first; by default all."""

    @model_validator(mode="after")
    def _declared(self) -> Source:
        Verdicts(self.labels, self.winner)
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `read_preferences`, except the source and its split."""
        names = ("format", "columns", "labels", "winner", "on_error", "limit")
        return {name: getattr(self, name) for name in names}


class HackingStudy(Source):
    """Counterbalanced reward hacking (`arm_lens.evaluation.hacking`), made from the world or from pairs at a path."""

    kind: Literal["hacking"]
    name: Name = "hacking"
    biases: Annotated[tuple[Annotated[str, _one_of("bias", BIASES)], ...], Some] = BIASES
    mappings: Annotated[tuple[Annotated[str, _one_of("mapping", MAPPINGS)], ...], Some] = MAPPINGS
    path: FilePath | None = None
    """Pairs whose chosen response is correct and whose rejected one is not: a file, or ``hf://`` and a hub name."""
    criterion_text: str = ""
    pool: Count = 100
    """How many of the pairs at ``path`` are set aside for examples and not tested on."""


class PreferenceStudy(Source):
    """Preferences from a file or the hub, in any format that `read_preferences` knows."""

    kind: Literal["preferences"]
    name: Name
    path: FilePath
    criterion_text: str = ""
    """The criterion in words, part of every prompt."""
    examples: FilePath | None = None
    """Preferences to sample examples from, except those whose prompt is tested; by default ``pool`` of those at ``path``
    are set aside for examples."""
    examples_split: str | None = None
    pool: Count = 100


Study = Annotated[WorldStudy | HackingStudy | PreferenceStudy, Field(discriminator="kind")]


class BenchmarkConfig(Strict):
    """A benchmark run."""

    title: str = "Few-shot judges, side by side"
    model: Annotated[str, AfterValidator(_model_path)] | None = None
    """Hub name or local folder; by default the bundled judge model."""
    model_class: ModelClass = "TransformerBridge"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str | None = None
    batch_size: Count = 16
    """Prompts per pass."""
    demonstrations: Annotated[int, Field(ge=0)] = 8
    """Demonstrations (single responses) in a few-shot prompt, and in each prompt that is read for means."""
    readings: Count = 64
    """Prompts that are read for means."""
    judges: Annotated[tuple[JudgeChoice, ...], Some]
    lead: str = "arm_reinforce"
    """The name of the judge that all others are compared with."""
    n_examples: Annotated[tuple[Count, ...], Some] = (20,)
    noise: Annotated[tuple[Noise, ...], Some] = (0.0,)
    samples: Count = 1
    seeds: Count | Literal["sample"] = 1
    test_items: Count | None = None
    keep_reward_models: bool = False
    """Save every reward model of the lead judge, one per subset, setting, sample and seed, in ``reward_models/``."""
    workers: Count | Literal["cores"] = 1
    """Processes that work at the same time, each with its own model, or ``cores`` for one per core; results do not depend
    on it."""
    threads: Count = 1
    """Threads of each process; sums of floating-point numbers may depend on it."""
    memory_gib: Annotated[float, Field(gt=0)] = 2.0
    """Memory of each process for prompts that are read and tried on, in addition to the model."""
    studies: Annotated[tuple[Study, ...], Some]

    @model_validator(mode="after")
    def _unique(self) -> BenchmarkConfig:
        names = [study.name for study in self.studies]
        if twice := _repeated(names):
            raise ValueError(f"two studies are called {twice!r}; give each a name of its own")
        for name in sorted(names):
            if name + VERDICTS in names:
                raise ValueError(f"no study may be called {name + VERDICTS!r}: so are the verdicts of {name!r}")
        for where, judges in (("the run", self.judges), *((one.name, one.judges or ()) for one in self.studies)):
            if twice := _repeated(choice.label for choice in judges):
                raise ValueError(f"two judges of {where} are called {twice!r}; give one a name")
        kinds: dict[str, str] = {}
        for choice in self.choices:
            if (kind := kinds.setdefault(choice.label, choice.judge)) != choice.judge:
                raise ValueError(f"{choice.label!r} is {kind} in one study, {choice.judge} in another")
        if "lead" in self.model_fields_set and self.lead not in kinds:
            raise ValueError(f"lead is {self.lead!r}, but no judge is called that; there are {', '.join(kinds)}")
        return self

    @property
    def choices(self) -> Iterator[JudgeChoice]:
        """The judges of the run, then those of each study."""
        yield from self.judges
        for study in self.studies:
            yield from study.judges or ()

    @property
    def n_workers(self) -> int:
        """How many processes work at the same time on this machine."""
        from loky import cpu_count  # which knows how many cores this process may use

        return int(cpu_count()) if self.workers == "cores" else self.workers

    def settings(self, study: Settings) -> Settings:
        """A study's settings, each replaced by the run's if the study has none."""
        own = {name: getattr(study, name) for name in Settings.model_fields}
        return Settings(**{name: getattr(self, name) if value is None else value for name, value in own.items()})


def read_config(path: str | Path, *, allow_keys: Collection[str] = ()) -> BenchmarkConfig:
    """Read a run's YAML file; the paths in it start from its folder, and so does a model if there is such a folder.

    A file may come from somebody else, and could name any environment variable as the key for a host of theirs. So a key is
    sent only if ``allow_keys`` names both, ``NAME=HOST``; but ``OPENAI_API_KEY`` may be sent to OpenAI, and to the host in
    the environment's own ``OPENAI_BASE_URL``.

    Raises:
        FileNotFoundError: if there is no such file.
        BenchmarkConfigError: naming every field that is wrong, or if the file is not YAML.
        UnconfirmedKeyError: naming variable and host, if the file would send a key that is not allowed.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except IsADirectoryError as error:
        raise BenchmarkConfigError(f"{path} is a folder, not a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchmarkConfigError(f"{path} is not YAML: {error}") from error
    try:
        config = BenchmarkConfig.model_validate(values, context=path.parent)
    except ValidationError as error:
        found = {one["loc"]: one for one in error.errors()}
        # If every entry of a list is wrong, pydantic also reports that the list is empty.
        entries = {loc[:end] for loc in found for end in range(len(loc))}
        wrong = [one for loc, one in found.items() if one["type"] != "too_short" or loc not in entries]
        fields = ((".".join(map(str, one["loc"])) or "the file", one["msg"]) for one in wrong)
        lines = [f"  {field}: {message.removeprefix('Value error, ')}" for field, message in fields]
        count = "one field is" if len(lines) == 1 else f"{len(lines)} fields are"
        raise BenchmarkConfigError("\n".join([f"{path}: {count} wrong", *lines])) from error
    _check_keys(path, config, allow_keys)
    return config


def _check_keys(path: Path, config: BenchmarkConfig, allowed: Collection[str]) -> None:
    wrong = next((one for one in allowed if not re.fullmatch(r"[^=\s]+=[^=\s]+", one)), None)
    if wrong is not None:
        raise BenchmarkConfigError(f"a key is allowed as NAME=HOST, such as MY_KEY=api.example.org; not as {wrong!r}")
    for choice in config.choices:
        try:
            keys = choice.spec.keys(choice.parsed)
        except (UnknownNameError, OptionsError):  # is refused before the run, with the other judges
            continue
        for name, host in keys.items():
            if f"{name}={host}" not in allowed:
                raise UnconfirmedKeyError(
                    f"{path}: the judge {choice.label!r} would send the environment variable {name} to {host}; if you want "
                    f"that, allow it: --allow-key {name}={host} (in Python, allow_keys); for an endpoint without keys, set "
                    "api_key_env: null"
                )


def _repeated(names: Iterable[str]) -> str | None:
    """The first in the alphabet of the names that occur twice."""
    return min((name for name, count in Counter(names).items() if count > 1), default=None)
