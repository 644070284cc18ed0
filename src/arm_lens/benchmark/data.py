"""From a configuration to tasks: which examples the judges are given, and what they are tested on.

A *task* is one fit of every judge: the same examples, drawn and with labels flipped as the setting says, and the same test
items. Tests do not depend on the setting, so that settings can be compared item by item.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

from arm_lens.benchmark.config import (
    BenchmarkConfig,
    HackingStudy,
    JudgeChoice,
    PreferenceStudy,
    Settings,
    Study,
    Unit,
    WorldStudy,
)
from arm_lens.benchmark.samples import SPLIT_SEED, at_most, check_enough, drawn, flipped, split, untested, words_of
from arm_lens.evaluation.hacking import hacking_examples, hacking_items, world_hacking_examples, world_hacking_items
from arm_lens.judge_model import CRITERIA, labelled_responses, preference_pairs
from arm_lens.preferences import (
    LabelledResponse,
    Preference,
    PreferencePair,
    Prompt,
    read_preferences,
    unpair,
)
from arm_lens.storage import digest_of

WORLD_TEST_ITEMS = 200
"""The world has no end; this many, unless the run or the study says otherwise."""


@dataclass(frozen=True)
class TestItem:
    """A pair or a single response that judges are tested on."""

    subset: str
    id: str
    cluster: str
    """What belongs together: everything made from one item, or about one prompt."""
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
        """Every prompt and response there is, once."""
        return [pair for pair, _ in self._numbered.values()]

    def number(self, prompt: Prompt, response: Prompt) -> int:
        """The place of a prompt and response among the texts."""
        return self._numbered[_key(prompt, response)][1]

    @cached_property
    def pairs(self) -> list[TestItem]:
        """The items that are pairs."""
        return [item for item in self.items if isinstance(item.example, PreferencePair)]

    @cached_property
    def _numbered(self) -> dict[str, tuple[tuple[Prompt, Prompt], int]]:
        found: dict[str, tuple[tuple[Prompt, Prompt], int]] = {}
        for single in unpair(item.example for item in self.items):
            found.setdefault(_key(single.prompt, single.response), ((single.prompt, single.response), len(found)))
        return found

    @cached_property
    def texts_digest(self) -> str:
        """Of the texts alone: tests of the same texts need reading once."""
        return digest_of([[as_json(prompt), as_json(response)] for prompt, response in self.texts])

    @cached_property
    def digest(self) -> str:
        """Of everything in it."""
        return digest_of(
            [self.benchmark, [[item.subset, item.id, item.cluster, _content_of(item.example)] for item in self.items]]
        )


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
    """How many seeds a judge that is random has, if it does not say so itself."""
    first_seed: int = 0
    """The first of them, and the one of the search whose head set ``arm_random_heads`` is compared with."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.study}, {self.subset}, n = {self.n_examples}, noise {self.noise:g}, sample {self.sample}"

    def without_examples(self) -> Task:
        """The same test, for judges that are given no examples: the same for all settings."""
        return replace(self, n_examples=0, noise=0.0, sample=0, examples=(), first_seed=0)

    @cached_property
    def digest(self) -> str:
        """Of everything that its results depend on, save judges, seeds and model."""
        setting = [self.study, self.subset, self.n_examples, self.noise, self.sample, self.first_seed]
        examples = [_content_of(example) for example in self.examples]
        return digest_of([*setting, self.criterion_text, self.test.digest, examples])


def plan(config: BenchmarkConfig) -> list[Task]:
    """All tasks of a run, in the order in which they are run; tasks with the same test stand together.

    Raises:
        ValueError: naming the study, if it has fewer examples to draw from than are wanted.
        PreferenceDataError: if data cannot be read.
    """
    _read.cache_clear()  # files may have changed since the last run of this process
    return [task for study in config.studies for task in _tasks(study, config.settings(study))]


def _tasks(study: Study, settings: Settings) -> Iterator[Task]:
    assert settings.judges and settings.n_examples and settings.noise and settings.samples and settings.seeds
    for subset, test, draw_examples in _groups(study, settings):
        for n_examples in settings.n_examples:
            for noise in settings.noise:
                for sample in range(settings.samples):
                    yield Task(
                        study=study.name,
                        subset=subset,
                        n_examples=n_examples,
                        noise=noise,
                        sample=sample,
                        examples=tuple(flipped(draw_examples(n_examples, sample), noise, seed=sample)),
                        criterion_text=getattr(study, "criterion_text", ""),
                        test=test,
                        judges=settings.judges,
                        **(
                            {"seeds": 1, "first_seed": sample}
                            if settings.seeds == "sample"
                            else {"seeds": settings.seeds}
                        ),
                    )


def _groups(study: Study, settings: Settings) -> Iterator[tuple[str, TestSet, Any]]:
    """Each subset that is fitted by itself: its name, its test, and how examples are drawn, (count, draw) -> examples."""
    if isinstance(study, WorldStudy):
        for criterion in study.criteria:
            examples = world_test(criterion, settings.test_items or WORLD_TEST_ITEMS, unit=study.unit)
            test = TestSet(study.name, tuple(TestItem(criterion, one.id, one.id, one) for one in examples))
            yield criterion, test, partial(world_examples, criterion, unit=study.unit)
    elif isinstance(study, HackingStudy):
        yield from _hacking_groups(study, settings)
    else:
        yield _preference_group(study, settings)


def world_test(criterion: str, count: int, *, unit: Unit = "pair") -> Sequence[Preference]:
    """What is tested of a criterion of the world.

    Pairs have a seed for each criterion: with the same one, they would be much the same. Single replies are the same for
    all criteria, each with another label, so that one reading of them serves all.
    """
    if unit == "response":
        return labelled_responses(criterion, count, split="test", seed=SPLIT_SEED)
    return preference_pairs(criterion, count, split="test", seed=SPLIT_SEED + list(CRITERIA).index(criterion))


def world_examples(criterion: str, count: int, sample: int, *, unit: Unit = "pair") -> Sequence[Preference]:
    """Examples of a criterion of the world, with other words and sentence frames than what is tested."""
    if unit == "response":
        return labelled_responses(criterion, count, split="train", seed=sample)
    place = list(CRITERIA).index(criterion)
    return preference_pairs(criterion, count, split="train", seed=len(CRITERIA) * sample + place)


def _hacking_groups(study: HackingStudy, settings: Settings) -> Iterator[tuple[str, TestSet, Any]]:
    pool: list[PreferencePair] = []
    rest: list[PreferencePair] = []
    if study.path is not None:
        data = _read(study.path, study.format, study.split, (), "raise")
        single = next((one for one in data if isinstance(one, LabelledResponse)), None)
        if single is not None:
            raise ValueError(
                f"study {study.name!r}: {single.id} is a single response; reward hacking is made from pairs"
            )
        pool, rest = (_pairs(part) for part in split(data, study.pool, max(settings.n_examples or (1,)), study.name))
        rest = _pairs(at_most(rest, settings.test_items, subset=lambda _: study.name))
    clusters = clusters_of(rest)
    for bias in study.biases:
        for mapping in study.mappings:
            if study.path is None:
                count = settings.test_items or WORLD_TEST_ITEMS
                pairs, responses = world_hacking_items(bias, count, split="test", seed=SPLIT_SEED)
            else:
                pairs, responses = hacking_items(rest, bias, seed=SPLIT_SEED)
            subset = f"{bias} | {mapping}"
            both: list[Preference] = [*pairs, *responses]
            items = tuple(
                TestItem(
                    f"{subset} | {one.metadata['cell']}",
                    one.id,
                    clusters.get(item := str(one.metadata["item"]), item),
                    one,
                )
                for one in both
            )
            yield subset, TestSet(study.name, items), _hacking_examples(study, pool, bias, mapping)


def _hacking_examples(study: HackingStudy, pool: Sequence[PreferencePair], bias: str, mapping: str) -> Any:
    def draw_examples(count: int, sample: int) -> list[PreferencePair]:
        if study.path is None:
            return world_hacking_examples(bias, mapping, count, split="train", seed=sample)
        check_enough(pool, count, study.name)
        return hacking_examples(pool, bias, mapping, count, seed=sample)

    return draw_examples


def _preference_group(study: PreferenceStudy, settings: Settings) -> tuple[str, TestSet, Any]:
    columns = tuple(sorted(study.columns.items()))
    data = _read(study.path, study.format, study.split, columns, study.on_error)
    if study.examples is not None:
        rest = data
        pool = untested(
            _read(study.examples, study.format, study.examples_split, columns, study.on_error), data, study.name
        )
    else:
        pool, rest = split(data, study.pool, max(settings.n_examples or (1,)), study.name)
    clusters = clusters_of(rest)
    items = tuple(
        TestItem(subset_of(one), one.id, clusters[one.id], one)
        for one in at_most(rest, settings.test_items, subset=subset_of)
    )
    return "all", TestSet(study.name, items), lambda count, sample: drawn(pool, count, sample, study.name)


def format_of(study: Study) -> str:
    """The published format that a study's preferences are in; empty if it has none."""
    if not isinstance(study, PreferenceStudy):
        return ""
    data = _read(study.path, study.format, study.split, tuple(sorted(study.columns.items())), study.on_error)
    return str(data[0].metadata.get("format", "")) if data else ""


def clusters_of(examples: Sequence[Preference]) -> dict[str, str]:
    """Id -> id of the first example about the same prompt."""
    first: dict[str, str] = {}
    return {one.id: first.setdefault(words_of(one.prompt), one.id) for one in examples}


def subset_of(one: Preference) -> str:
    """The subset that a preference says it belongs to."""
    return str(one.metadata.get("subset") or "all")


@lru_cache(maxsize=8)
def _read(
    path: str, format: str | None, split: str | None, columns: tuple[tuple[str, str], ...], on_error: Any
) -> list[Preference]:
    return read_preferences(path, format=format, split=split, columns=dict(columns), on_error=on_error)


def _pairs(examples: Sequence[Preference]) -> list[PreferencePair]:
    return [one for one in examples if isinstance(one, PreferencePair)]


def _content_of(one: Preference) -> list[Any]:
    """The contents, for a digest."""
    if isinstance(one, PreferencePair):
        return [one.criterion, as_json(one.prompt), as_json(one.chosen), as_json(one.rejected)]
    return [one.criterion, as_json(one.prompt), as_json(one.response), one.label]


def as_json(text: Prompt) -> Any:
    """A text, or a conversation as a list of messages."""
    return text if isinstance(text, str) else [dict(message) for message in text]


def _key(prompt: Prompt, response: Prompt) -> str:
    return json.dumps([as_json(prompt), as_json(response)])
