"""From a configuration to tasks: which examples the judges are given, and what they are tested on.

A *task* is one fit of every judge: the same examples, chosen and with labels flipped as the setting says, and the same
test items. Tests do not depend on the setting, so that settings can be compared item by item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from arm_lens.benchmark.config import (
    BenchmarkConfig,
    HackingStudy,
    JudgeChoice,
    PictureStudy,
    PreferenceStudy,
    Settings,
    Study,
    WorldStudy,
)
from arm_lens.benchmark.samples import SPLIT_SEED, at_most, check_enough, drawn, flipped, split, untested
from arm_lens.evaluation.hacking import (
    hacking_examples,
    hacking_items,
    subset_name,
    world_hacking_examples,
    world_hacking_items,
)
from arm_lens.evaluation.main_setting import EVERY_SUBSET
from arm_lens.judge_model import (
    CRITERIA,
    PICTURE_ATTRIBUTES,
    labelled_pictures,
    labelled_responses,
    picture_pairs,
    preference_pairs,
)
from arm_lens.judge_model.world import Split
from arm_lens.preferences import (
    LabelledResponse,
    Preference,
    PreferencePair,
    Prompt,
    clusters,
    read_preferences,
    unpair,
)
from arm_lens.safe_text import printable
from arm_lens.storage import digest_of

WORLD_TEST_ITEMS = 200
"""Test items from the world, which is infinite, unless the run or the study sets a number."""


@dataclass(frozen=True)
class TestItem:
    """A pair or a single response that judges are tested on."""

    subset: str
    id: str
    cluster: str
    """The same for items that belong together: made from one item, or about one prompt."""
    example: Preference

    __test__ = False  # not one of pytest's


@dataclass(frozen=True, eq=False)
class TestSet:
    """What the judges of a task are tested on."""

    benchmark: str
    items: tuple[TestItem, ...]

    __test__ = False

    @cached_property
    def texts(self) -> list[tuple[Prompt, Prompt]]:
        """Every prompt with a response to it, once."""
        singles = unpair(item.example for item in self.items)
        return list({_key(one.prompt, one.response): (one.prompt, one.response) for one in singles}.values())

    def number(self, prompt: Prompt, response: Prompt) -> int:
        """The index of a prompt and response among the texts."""
        return self._numbers[_key(prompt, response)]

    @cached_property
    def pairs(self) -> list[TestItem]:
        """The items that are pairs."""
        return [item for item in self.items if isinstance(item.example, PreferencePair)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {_key(*text): number for number, text in enumerate(self.texts)}

    @cached_property
    def texts_digest(self) -> str:
        """A digest of the texts alone: tests of the same texts need reading once."""
        return digest_of(list(self._numbers))

    @cached_property
    def digest(self) -> str:
        """A digest of everything in the test."""
        items = [[item.subset, item.id, item.cluster, _content_of(item.example)] for item in self.items]
        return digest_of([self.benchmark, items])


@dataclass(frozen=True, eq=False)
class Task:
    """One fit of every judge."""

    study: str
    subset: str
    """What the examples are about: a criterion, or a bias and a mapping; test subsets begin with it."""
    n_examples: int
    noise: float
    sample: int
    examples: tuple[Preference, ...] = field(repr=False)
    criterion_text: str
    test: TestSet = field(repr=False)
    judges: tuple[JudgeChoice, ...] = field(repr=False)
    seeds: int
    """How many seeds a random judge has, if its entry does not say."""
    first_seed: int = 0
    """The first seed, which is also that of the search that ``arm_random_heads`` is compared with."""

    @property
    def title(self) -> str:
        """The task in words."""
        return f"{self.study}, {self.subset}, n = {self.n_examples}, noise {self.noise:g}, sample {self.sample}"

    def without_examples(self) -> Task:
        """The task of judges that are given no examples, the same for all settings."""
        return replace(self, n_examples=0, noise=0.0, sample=0, examples=(), first_seed=0)

    @cached_property
    def digest(self) -> str:
        """A digest of everything that its results depend on, except judges, seeds and model."""
        setting = [self.study, self.subset, self.n_examples, self.noise, self.sample, self.first_seed]
        examples = [_content_of(example) for example in self.examples]
        return digest_of([*setting, self.criterion_text, self.test.digest, examples])


def check_files(config: BenchmarkConfig) -> None:
    """Raise a FileNotFoundError that lists the files of data that are missing, and where each can be got."""
    missing: dict[str, str] = {}
    for study in config.studies:
        paths = (getattr(study, "path", None), getattr(study, "examples", None))
        source = getattr(study, "source", "")
        names = [path for path in paths if path is not None and "://" not in path and not Path(path).exists()]
        missing |= {name: f"  {name}" + (f": {source}" if source else "") for name in names}
    if missing:
        count = "a file of data is" if len(missing) == 1 else f"{len(missing)} files of data are"
        raise FileNotFoundError(
            "\n".join([f"{count} missing (in another folder? data=... names it)", *missing.values()])
        )


def plan(config: BenchmarkConfig) -> list[Task]:
    """All tasks of a run, in the order in which they are run; tasks with the same test are neighbours.

    Raises:
        FileNotFoundError: listing the files of data that are missing.
        ValueError: naming the study, if it has too few examples to choose from.
        PreferenceDataError: if data cannot be read.
    """
    check_files(config)
    _read.cache_clear()  # files may have changed since the last run of this process
    return [task for study in config.studies for task in _tasks(study, config.settings(study), config.judges_of(study))]


Choose: TypeAlias = Callable[[int, int], Sequence[Preference]]
"""Makes the examples of a subset: (how many, which example sample) -> examples."""
Group: TypeAlias = tuple[str, TestSet, Choose]
"""A subset that judges are fitted on by itself."""


def _tasks(study: Study, settings: Settings, judges: tuple[JudgeChoice, ...]) -> Iterator[Task]:
    assert settings.n_examples and settings.noise and settings.samples and settings.seeds
    for subset, test, choose in _groups(study, settings):
        for n_examples, noise, sample in product(settings.n_examples, settings.noise, range(settings.samples)):
            yield Task(
                study=study.name,
                subset=subset,
                n_examples=n_examples,
                noise=noise,
                sample=sample,
                examples=tuple(flipped(_named(choose(n_examples, sample), study.name), noise, seed=sample)),
                criterion_text=getattr(study, "criterion_text", ""),
                test=test,
                judges=judges,
                seeds=1 if settings.seeds == "sample" else settings.seeds,
                first_seed=sample if settings.seeds == "sample" else 0,
            )


def _named(examples: Sequence[Preference], name: str) -> list[Preference]:
    """The examples, with the study's name for a criterion that has none, so that what is fitted to them has a name."""
    return [one if one.criterion else replace(one, criterion=name) for one in examples]


def _groups(study: Study, settings: Settings) -> Iterator[Group]:
    if isinstance(study, (WorldStudy, PictureStudy)):
        for criterion in study.criteria:
            examples = _world(study, criterion, settings.test_items or WORLD_TEST_ITEMS)
            test = TestSet(study.name, tuple(TestItem(criterion, one.id, one.id, one) for one in examples))
            yield criterion, test, partial(_world, study, criterion)
    elif isinstance(study, HackingStudy):
        yield from _hacking_groups(study, settings)
    else:
        yield _preference_group(study, settings)


def _world(
    study: WorldStudy | PictureStudy, criterion: str, count: int, sample: int | None = None
) -> Sequence[Preference]:
    """Test items from a world; or the examples of a sample, with other words and sentence frames.

    Pairs have a seed for each criterion, since with one seed they would be much the same. Single replies are the same for
    all criteria, with other labels, so that one reading of them serves all.
    """
    split: Split = "test" if sample is None else "train"
    shown = isinstance(study, PictureStudy)
    if study.unit == "response":
        single = labelled_pictures if shown else labelled_responses
        return single(criterion, count, split=split, seed=SPLIT_SEED if sample is None else sample)
    pairs, known = (picture_pairs, PICTURE_ATTRIBUTES) if shown else (preference_pairs, tuple(CRITERIA))
    first = SPLIT_SEED if sample is None else len(known) * sample
    return pairs(criterion, count, split=split, seed=first + known.index(criterion))


def _hacking_groups(study: HackingStudy, settings: Settings) -> Iterator[Group]:
    pool: list[PreferencePair] = []
    rest: list[PreferencePair] = []
    if study.path is not None:
        data = []
        for one in _read(study.path, study.split, json.dumps(study.reading)):
            if isinstance(one, LabelledResponse):
                raise ValueError(
                    f"study {study.name!r}: {one.id} is a single response; reward hacking is made from pairs"
                )
            data.append(one)
        pool, rest = split(data, study.pool, max(settings.n_examples or (1,)), study.name)
        rest = at_most(rest, settings.test_items, subset=lambda _: study.name)
    cluster_of = clusters_of(rest)
    for bias, mapping in product(study.biases, study.mappings):
        if study.path is None:
            count = settings.test_items or WORLD_TEST_ITEMS
            pairs, responses = world_hacking_items(bias, count, split="test", seed=SPLIT_SEED)
        else:
            pairs, responses = hacking_items(rest, bias, seed=SPLIT_SEED)
        subset = subset_name(bias, mapping)
        both: list[Preference] = [*pairs, *responses]
        items = tuple(
            TestItem(
                subset_name(bias, mapping, one.metadata["cell"]),
                one.id,
                cluster_of.get(item := str(one.metadata["item"]), item),
                one,
            )
            for one in both
        )
        yield subset, TestSet(study.name, items), partial(_hacking_examples, study, pool, bias, mapping)


def _hacking_examples(
    study: HackingStudy, pool: Sequence[PreferencePair], bias: str, mapping: str, count: int, sample: int
) -> Sequence[Preference]:
    if study.path is None:
        return world_hacking_examples(bias, mapping, count, split="train", seed=sample)
    check_enough(pool, count, study.name)
    return hacking_examples(pool, bias, mapping, count, seed=sample)


def _preference_group(study: PreferenceStudy, settings: Settings) -> Group:
    rest = data = _preferences(study)
    if study.examples is None:
        pool, rest = split(data, study.pool, max(settings.n_examples or (1,)), study.name)
    else:
        pool = untested(_preferences(study, examples=True), data, study.name)
    cluster_of = clusters_of(rest)
    tested = at_most(rest, settings.test_items, subset=subset_of)
    items = tuple(TestItem(subset_of(one), one.id, cluster_of[one.id], one) for one in tested)
    return EVERY_SUBSET, TestSet(study.name, items), lambda count, sample: drawn(pool, count, sample, study.name)


def format_of(study: Study) -> str:
    """The published format that a study's preferences are in; empty if it has none."""
    data = _preferences(study) if isinstance(study, PreferenceStudy) else []
    return str(data[0].metadata.get("format", "")) if data else ""


def clusters_of(examples: Sequence[Preference]) -> dict[str, str]:
    """The id of the first example in the same cluster (`arm_lens.preferences.clusters`), by the id of each example."""
    first: dict[str, str] = {}
    known = zip(examples, clusters(examples), strict=True)
    return {one.id: first.setdefault(cluster, one.id) for one, cluster in known}


def subset_of(one: Preference, *, field: str = "subset") -> str:
    """The subset that a preference names in a field of its metadata, or ``all``; control characters are written out."""
    value = one.metadata.get(field)
    return "all" if value is None or value == "" else printable(str(value))


def _preferences(study: PreferenceStudy, *, examples: bool = False) -> list[Preference]:
    path, split = (study.examples, study.examples_split) if examples else (study.path, study.split)
    return _read(str(path), split, json.dumps(study.reading))


@lru_cache(maxsize=8)
def _read(path: str, split: str | None, reading: str) -> list[Preference]:
    """Read preferences, once for several uses; ``reading`` is `Source.reading` as JSON, which can be a key."""
    return read_preferences(path, split=split, **json.loads(reading))


def _content_of(one: Preference) -> list[Any]:
    if isinstance(one, PreferencePair):
        return [one.criterion, as_json(one.prompt), as_json(one.chosen), as_json(one.rejected)]
    return [one.criterion, as_json(one.prompt), as_json(one.response), one.label]


def as_json(text: Prompt) -> Any:
    """A text, or a conversation as a list of messages."""
    return text if isinstance(text, str) else [dict(message) for message in text]


def _key(prompt: Prompt, response: Prompt) -> str:
    return json.dumps([as_json(prompt), as_json(response)])
