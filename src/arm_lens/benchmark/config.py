"""What a benchmark run is told: a YAML file, checked field by field before anything runs.

A run has one model, a list of judges and a list of *studies*. A study says where its data comes from (the bundled
model's world, a file of preferences, or a reward-hacking benchmark made from either) and under which settings the judges
are fitted: numbers of examples, shares of flipped labels, draws of the examples, seeds of the judges. What a study does not
say is taken from the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from arm_lens.engine import ModelClass
from arm_lens.evaluation.hacking import MAPPINGS
from arm_lens.judge_model import CRITERIA
from arm_lens.preferences.biases import BIASES
from arm_lens.registry import JUDGES, JudgeSpec

VERDICTS = " verdicts"
"""After a benchmark's name, where its responses are judged one by one."""

Count = Annotated[int, Field(ge=1)]
Noise = Annotated[float, Field(ge=0, le=0.5)]
Name = Annotated[str, Field(min_length=1)]
Unit: TypeAlias = Literal["pair", "response"]
"""Whether preferences are pairs or single responses with a label."""
Some = Field(min_length=1)
"""A list that must not be empty."""


class BenchmarkConfigError(ValueError):
    """A configuration that cannot be run, with every field that is wrong."""


class Strict(BaseModel):
    """A misspelt field is an error; nothing is changed after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeChoice(BaseModel):
    """A judge, by itself or with options of its own: every key beside these fields is one."""

    model_config = ConfigDict(extra="allow", frozen=True)
    judge: str
    """One of `arm_lens.registry.JUDGES`."""
    name: str = ""
    """What it is called in the results; by default as the judge. Two entries need two names."""
    seeds: Count | None = None
    """How many seeds, if the judge is random; by default as the study says."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"judge": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What it is called in the results."""
        return self.name or self.judge

    @property
    def options(self) -> dict[str, Any]:
        """The judge's options, as they were given."""
        return dict(self.model_extra or {})

    @property
    def spec(self) -> JudgeSpec:
        """The judge's entry in the registry.

        Raises:
            UnknownNameError: if there is none; the message lists those that are.
        """
        return JUDGES[self.judge]

    @property
    def parsed(self) -> Any:
        """The options as the judge takes them.

        Raises:
            OptionsError: naming what is wrong, and the options there are.
        """
        return self.spec.parse(self.options)


class Settings(Strict):
    """Under which settings judges are fitted and tested; None leaves it to the run."""

    judges: Annotated[tuple[JudgeChoice, ...], Some] | None = None
    n_examples: Annotated[tuple[Count, ...], Some] | None = None
    """How many labelled preferences (pairs, unless the data has single responses) the judges are given."""
    noise: Annotated[tuple[Noise, ...], Some] | None = None
    """The share of them whose label is flipped."""
    samples: Count | None = None
    """How often other examples are drawn."""
    seeds: Count | Literal["sample"] | None = None
    """How often a judge that is random is fitted to the same examples, with the seeds 0, 1, ...; or ``sample``: once, with
    the number of the example sample for its seed, so that sample and seed change together."""
    test_items: Count | None = None
    """Test items in a subset, at most, drawn at random; None in both places for all there are."""


class WorldStudy(Settings):
    """Replies from the bundled judge model's world, one subset per criterion."""

    kind: Literal["world"]
    name: Name = "world"
    criteria: Annotated[tuple[str, ...], Some] = tuple(CRITERIA)
    unit: Unit = "pair"
    """Whether replies come in pairs of which one meets the criterion, or one by one, each with its label."""

    @field_validator("criteria")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _all_in(names, tuple(CRITERIA), "criterion")


class HackingStudy(Settings):
    """Counterbalanced reward hacking, see `arm_lens.evaluation.hacking`; from the world unless there is a path."""

    kind: Literal["hacking"]
    name: Name = "hacking"
    biases: Annotated[tuple[str, ...], Some] = BIASES
    mappings: Annotated[tuple[str, ...], Some] = MAPPINGS
    path: str | None = None
    """Pairs whose chosen response is correct and whose rejected one is not: a file, or ``hf://`` and a hub name."""
    format: str | None = None
    split: str | None = None
    criterion_text: str = ""
    pool: Count = 100
    """How many of the pairs at ``path`` are kept to draw examples from, and not tested on."""

    @field_validator("biases")
    @classmethod
    def _biases(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _all_in(names, BIASES, "bias")

    @field_validator("mappings")
    @classmethod
    def _mappings(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _all_in(names, MAPPINGS, "mapping")


class PreferenceStudy(Settings):
    """Preferences from a file or the hub, in any format that `read_preferences` knows."""

    kind: Literal["preferences"]
    name: Name
    path: str
    format: str | None = None
    split: str | None = None
    columns: dict[str, str] = {}
    on_error: Literal["raise", "warn"] = "raise"
    """With ``warn``, rows that cannot be read are named and left out."""
    criterion_text: str = ""
    """The criterion in words, put into every prompt."""
    examples: str | None = None
    """Preferences to draw examples from, save those whose prompt is tested; by default ``pool`` of those at ``path`` are
    kept for that."""
    examples_split: str | None = None
    pool: Count = 100


Study = Annotated[WorldStudy | HackingStudy | PreferenceStudy, Field(discriminator="kind")]


class BenchmarkConfig(Strict):
    """A benchmark run."""

    title: str = "Few-shot judges, side by side"
    model: str | None = None
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
    """What the judge is called that all others are compared with."""
    n_examples: Annotated[tuple[Count, ...], Some] = (20,)
    noise: Annotated[tuple[Noise, ...], Some] = (0.0,)
    samples: Count = 1
    seeds: Count | Literal["sample"] = 1
    test_items: Count | None = None
    keep_reward_models: bool = False
    """Save every reward model of the lead judge, one per subset, setting, sample and seed, in ``reward_models/``."""
    workers: Count | Literal["cores"] = 1
    """Processes at work at the same time, or ``cores`` for one per core; each loads the model. No result depends on it."""
    threads: Count = 1
    """Of each process. Sums of floating-point numbers may depend on it."""
    memory_gib: Annotated[float, Field(gt=0)] = 2.0
    """Memory for prompts that are read and tried on, beside the model, in each process."""
    studies: Annotated[tuple[Study, ...], Some]

    @model_validator(mode="after")
    def _unique(self) -> BenchmarkConfig:
        names = [study.name for study in self.studies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two studies are called {twice[0]!r}; give each a name of its own")
        clash = sorted(name for name in names if name + VERDICTS in names)
        if clash:
            raise ValueError(f"no study may be called {clash[0] + VERDICTS!r}: so are the verdicts of {clash[0]!r}")
        kinds: dict[str, str] = {}
        for where, judges in (("the run", self.judges), *((one.name, one.judges or ()) for one in self.studies)):
            labels = [choice.label for choice in judges]
            twice = sorted({label for label in labels if labels.count(label) > 1})
            if twice:
                raise ValueError(f"two judges of {where} are called {twice[0]!r}; give one a name")
            for choice in judges:
                if kinds.setdefault(choice.label, choice.judge) != choice.judge:
                    raise ValueError(
                        f"{choice.label!r} is {kinds[choice.label]} in one study, {choice.judge} in another"
                    )
        if "lead" in self.model_fields_set and self.lead not in kinds:
            raise ValueError(f"lead is {self.lead!r}, but no judge is called that; there are {', '.join(kinds)}")
        return self

    @property
    def n_workers(self) -> int:
        """How many processes work at the same time on this machine."""
        from loky import cpu_count  # which knows how many cores this process may use

        return int(cpu_count()) if self.workers == "cores" else self.workers

    def settings(self, study: Settings) -> Settings:
        """A study's settings, with the run's where it has none."""
        own = {name: getattr(study, name) for name in Settings.model_fields}
        return Settings(**{name: getattr(self, name) if value is None else value for name, value in own.items()})


def read_config(path: str | Path) -> BenchmarkConfig:
    """Read a run's YAML file; paths in it are relative to the file, and so are models, where there is such a folder.

    Raises:
        FileNotFoundError: if there is no such file.
        BenchmarkConfigError: naming every field that is wrong, or if the file is no YAML.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except IsADirectoryError as error:
        raise BenchmarkConfigError(f"{path} is a folder, not a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchmarkConfigError(f"{path} is not YAML: {error}") from error
    try:
        config = BenchmarkConfig.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()
        # A list all of whose entries are wrong would be told to be empty too.
        wrong = [one for one in wrong if one["type"] != "too_short" or not any(_within(one, other) for other in wrong)]
        lines = [f"  {_place(one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in wrong]
        count = "one field is" if len(lines) == 1 else f"{len(lines)} fields are"
        raise BenchmarkConfigError("\n".join([f"{path}: {count} wrong", *lines])) from error
    return _with_absolute_paths(config, path.parent)


def _with_absolute_paths(config: BenchmarkConfig, folder: Path) -> BenchmarkConfig:
    """The config with its paths made independent of where it is read from."""
    studies: list[Study] = []
    for study in config.studies:
        found = {}
        for field in ("path", "examples"):
            value = getattr(study, field, None)
            if value is not None and "://" not in value:
                found[field] = str((folder / value).resolve())
        judges = study.judges and tuple(_with_reference(choice, folder) for choice in study.judges)
        studies.append(study.model_copy(update={**found, "judges": judges}))
    judges = tuple(_with_reference(choice, folder) for choice in config.judges)
    model = config.model and _model_at(config.model, folder)
    return config.model_copy(update={"studies": tuple(studies), "judges": judges, "model": model})


def _with_reference(choice: JudgeChoice, folder: Path) -> JudgeChoice:
    reference = choice.options.get("reference")
    if not isinstance(reference, str):
        return choice
    return choice.model_copy(update={"reference": _model_at(reference, folder)})


def _model_at(name: str, folder: Path) -> str:
    """A model's folder beside the file, if there is one; else the name is left as it is, for the hub."""
    return str((folder / name).resolve()) if (folder / name).is_dir() else name


def _within(one: Any, other: Any) -> bool:
    """Whether the other error lies within the field of the one."""
    outer, inner = one["loc"], other["loc"]
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(map(str, parts)) or "the file"


def _all_in(names: tuple[str, ...], known: tuple[str, ...], kind: str) -> tuple[str, ...]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {unknown[0]!r}; there are {', '.join(known)}")
    return names
