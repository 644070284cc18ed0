"""The configuration of a benchmark run, checked field by field before anything runs.

A run has one model, a list of judges and a list of *studies*. A study names the source of its data (the bundled model's
world, a file of preferences, or a reward-hacking benchmark made from either) and the settings under which judges are
fitted: numbers of examples, shares of flipped labels, example samples, seeds of the judges. A setting that a study
leaves out is that of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from arm_lens.benchmark.strict_yaml import Place, meant
from arm_lens.engine import ModelClass
from arm_lens.evaluation.hacking import MAPPINGS
from arm_lens.evaluation.main_setting import VERDICTS
from arm_lens.judge_model import CRITERIA, PICTURE_ATTRIBUTES
from arm_lens.judges.base import Judge, ScoreKind
from arm_lens.judges.checks import check_kind
from arm_lens.preferences.biases import BIASES
from arm_lens.preferences.verdicts import Verdicts
from arm_lens.registry import JUDGES, JudgeSpec


def _one_of(kind: str, known: Iterable[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}")
        return name

    return AfterValidator(check)


@dataclass(frozen=True)
class Folders:
    """Where the paths in a configuration start: the context of pydantic's ``ValidationInfo``."""

    own: Path
    data: Path


def _file_path(path: str, info: Any) -> str:
    """A file's path from the folder of the data."""
    return path if info.context is None or "://" in path else str((info.context.data / path).resolve())


def model_path(name: str, info: Any) -> str:
    """A model's folder or file next to the configuration if there is one; otherwise a name on the hub."""
    folder = None if info.context is None else info.context.own / name
    return str(folder.resolve()) if folder is not None and (folder.is_dir() or folder.is_file()) else name


Count = Annotated[int, Field(ge=1, strict=True)]
Noise = Annotated[float, Field(ge=0, le=0.5, strict=True)]
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
    score_kind: ScoreKind | None = None
    """By which of its scores it is judged; by default that of the study."""

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, value: Any, info: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("reference"), str):
            return {**value, "reference": model_path(value["reference"], info)}
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

    @property
    def ranked(self) -> bool:
        """Whether it only compares two responses."""
        question = getattr(self.parsed, "question", None)
        return question is not None and question.layout == "ranked"

    def check_score_kind(self) -> None:
        """Raise a ValueError that names the judge, unless it gives scores of the kind that it is judged by."""
        check_score_kind(self.label, self.spec.judge, self.score_kind, ranked=self.ranked)


def check_score_kind(name: str, judge: type[Judge], kind: ScoreKind | None, *, ranked: bool) -> None:
    """Raise a ValueError that names the judge, unless it gives scores of the kind; one that only compares has gaps alone."""
    if kind is not None:
        check_kind(kind, ("gap",) if ranked else judge.score_kinds, f"the judge {name!r}")


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
    score_kind: ScoreKind | None = None
    """By which scores pairs are compared and single responses judged (`arm_lens.benchmark.judging.graded`); None in both
    places for each judge's own: gaps for pairs, rewards for single responses."""


class WorldStudy(Settings):
    """Replies from the bundled judge model's world, one subset per criterion."""

    kind: Literal["world"]
    name: Name = "world"
    criteria: Annotated[tuple[Annotated[str, _one_of("criterion", CRITERIA)], ...], Some] = tuple(CRITERIA)
    unit: Unit = "pair"
    """``pair`` for two replies, one of which meets the criterion; ``response`` for single replies with a label."""


class PictureStudy(Settings):
    """Replies about pictures from the world of the bundled judge that sees, one subset per criterion."""

    kind: Literal["pictures"]
    name: Name = "pictures"
    criteria: Annotated[tuple[Annotated[str, _one_of("criterion", PICTURE_ATTRIBUTES)], ...], Some] = PICTURE_ATTRIBUTES
    unit: Unit = "pair"
    """As in a `WorldStudy`."""


class Source(Settings):
    """How a study's preferences are read; see `arm_lens.preferences.read_preferences`."""

    format: str | None = None
    split: str | None = None
    columns: dict[str, str | int | list[str | int]] = {}
    """From our names to the file's, or to positions in a file without a header row; ``metadata`` may have a list."""
    labels: dict[bool | int | str, bool | str] | str | None = None
    """What labels mean, e.g. ``{joy: yes, anger: no}``, or a threshold for ratings, e.g. ``">= 4"``."""
    winner: dict[bool | int | str, str] | None = None
    """What the column winner means, e.g. ``{"A>B": A, "B>A": B, "A=B": tie}``."""
    on_error: Literal["raise", "skip"] = "raise"
    """With ``skip``, rows that cannot be read are named and left out."""
    limit: Count | None = None
    """How many rows to read, from the first; by default all."""
    allow_urls: bool = False
    """Whether web addresses of images are opened."""
    allow_any_path: bool = False
    """Whether images are read from outside the folder of the data."""
    source: str = ""
    """Where the data can be got, in words: said if a file is missing, and on the page."""

    @model_validator(mode="after")
    def _declared(self) -> Source:
        Verdicts(self.labels, self.winner)
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `read_preferences`, except the source and its split."""
        declared = Verdicts(self.labels, self.winner)
        rest = {
            name: getattr(self, name)
            for name in ("format", "columns", "on_error", "limit", "allow_urls", "allow_any_path")
        }
        return rest | {"labels": declared.labels, "winner": declared.winner}


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

    @model_validator(mode="after")
    def _about_the_path(self) -> HackingStudy:
        about = self.model_fields_set & ({"pool", *Source.model_fields} - {"source", *Settings.model_fields})
        if self.path is None and about:
            raise ValueError(
                f"{min(about)!r} is about data at a path, and without one the study is made from the world"
            )
        return self


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

    @model_validator(mode="after")
    def _examples(self) -> PreferenceStudy:
        if self.examples is None and self.examples_split is not None:
            raise ValueError("examples_split is a split of examples, which are not given; they may be those of path")
        if self.examples is not None and "pool" in self.model_fields_set:
            raise ValueError("pool is set aside from path where no examples are given: leave pool or examples out")
        return self


Study = Annotated[WorldStudy | PictureStudy | HackingStudy | PreferenceStudy, Field(discriminator="kind")]


class Resources(Strict):
    """What each worker on a Ray cluster is given; see `arm_lens.benchmark.ray_cluster`."""

    num_cpus: Annotated[float, Field(gt=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    """A share below 1 lets several workers use one GPU."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of the node that is reserved for it; None reserves none."""


class BenchmarkConfig(Strict):
    """A benchmark run."""

    title: str = "Few-shot judges, side by side"
    model: Annotated[str, AfterValidator(model_path)] | None = None
    """Hub name, local folder or GGUF file; by default the bundled judge model."""
    model_class: ModelClass = "TransformerBridge"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """By default what the weights and the machine are good at; see `arm_lens.engine.precision`."""
    device: str | None = None
    batch_size: Count = 16
    """Prompts per pass."""
    demonstrations: Annotated[int, Field(ge=0, strict=True)] = 8
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
    score_kind: ScoreKind | None = None
    keep_reward_models: Annotated[bool, Field(strict=True)] = False
    """Save every reward model of the lead judge, one per subset, setting, sample and seed, in ``reward_models/``."""
    workers: Count | Literal["cores"] = 1
    """Processes that work at the same time, each with its own model, or ``cores`` for one per core; results do not depend
    on it."""
    threads: Count = 1
    """Threads of each process; sums of floating-point numbers may depend on it."""
    memory_gib: Annotated[float, Field(gt=0, strict=True)] = 2.0
    """Memory of each process for prompts that are read and tried on, in addition to the model."""
    retries: Annotated[int, Field(ge=0, strict=True)] = 2
    """How often a part is tried again after a worker that ran it was lost."""
    on_failure: Literal["continue", "stop"] = "continue"
    """Whether a judge that fails on a task ends the run, or is recorded while the rest goes on."""
    resources: Resources = Resources()
    studies: Annotated[tuple[Study, ...], Some]

    @model_validator(mode="after")
    def _unique(self) -> BenchmarkConfig:
        names = [study.name for study in self.studies]
        for index in _repeated(names):
            raise inconsistent(
                f"two studies are called {names[index]!r}; give each a name of its own", "studies", index, "name"
            )
        for index, name in enumerate(names):
            if name.endswith(VERDICTS) and (of := name.removesuffix(VERDICTS)) in names:
                raise inconsistent(
                    f"no study may be called {name!r}: so are the verdicts of {of!r}", "studies", index, "name"
                )
        kinds: dict[str, str] = {}
        for where, of, judges in self._lists:
            labels = [choice.label for choice in judges]
            for index in _repeated(labels):
                raise inconsistent(f"two judges of {of} are called {labels[index]!r}; give one a name", *where, index)
            for index, choice in enumerate(judges):
                if (kind := kinds.setdefault(choice.label, choice.judge)) != choice.judge:
                    raise inconsistent(
                        f"{choice.label!r} is {kind} in one study, {choice.judge} in another", *where, index
                    )
        if self.keep_reward_models and "lead" not in self.model_fields_set and self.lead not in kinds:
            raise inconsistent(
                f"keep_reward_models keeps those of the lead judge, and no judge is called {self.lead!r}: name the lead",
                "keep_reward_models",
            )
        if "lead" in self.model_fields_set and self.lead not in kinds:
            raise inconsistent(f"lead is {self.lead!r}, but no judge is called that; {meant(self.lead, kinds)}", "lead")
        return self

    @property
    def _lists(self) -> Iterator[tuple[Place, str, tuple[JudgeChoice, ...]]]:
        """The lists of judges: where they stand, whose they are."""
        yield ("judges",), "the run", self.judges
        for index, study in enumerate(self.studies):
            yield ("studies", index, "judges"), study.name, study.judges or ()

    @property
    def choices(self) -> Iterator[JudgeChoice]:
        """The judges of the run, then those of each study."""
        for _, _, judges in self._lists:
            yield from judges

    @property
    def n_workers(self) -> int:
        """How many processes work at the same time on this machine."""
        from loky import cpu_count  # which knows how many cores this process may use

        return int(cpu_count()) if self.workers == "cores" else self.workers

    def settings(self, study: Settings) -> Settings:
        """A study's settings, each replaced by the run's if the study has none."""
        own = {name: getattr(study, name) for name in Settings.model_fields}
        values = {name: getattr(self, name) if value is None else value for name, value in own.items()}
        return Settings.model_construct(**values)  # which was validated where it stands

    def judges_of(self, study: Settings) -> tuple[JudgeChoice, ...]:
        """A study's judges, each with the kind of score that it is judged by there."""
        settings = self.settings(study)
        return tuple(
            choice.model_copy(update={"score_kind": choice.score_kind or settings.score_kind})
            for choice in settings.judges or ()
        )


def inconsistent(message: str, *place: str | int) -> PydanticCustomError:
    """An error about a place in the configuration, for a validator to raise."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "place": place})


def _repeated(names: list[str]) -> list[int]:
    """The indices of names that occurred before."""
    return [index for index, name in enumerate(names) if name in names[:index]]
