"""Judges that exist already, compared on labelled preferences: no configuration, no folder, the same tables.

results = judge_preferences({"mine": reward, "zero_shot": GenerativeJudge(model)}, test, benchmark="support tickets")
results.tables.comparisons  # which is better, with an interval and a p-value
write_report(results, "out")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.benchmark.config import JudgeChoice
from arm_lens.benchmark.data import Task, TestItem, TestSet, clusters_of, subset_of
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import verdicts_by
from arm_lens.benchmark.parts import Part, gather, record_of
from arm_lens.benchmark.results import VERSIONS, BenchmarkResults, results_of
from arm_lens.engine.sharing import shared_readings
from arm_lens.heads import HeadSet
from arm_lens.judges.base import Judge
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import ReadingOptions
from arm_lens.preferences import Preference, Prompt
from arm_lens.reward.model import ActivationRewardModel


@runtime_checkable
class Scorer(Protocol):
    """The method that `judge_preferences` needs."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Any:
        """A number per response; higher is better."""
        ...


def judge_preferences(
    judges: Mapping[str, Scorer | Sequence[Scorer]],
    test: Sequence[Preference],
    *,
    benchmark: str = "test",
    lead: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> BenchmarkResults:
    """Have judges judge labelled preferences, and compare them.

    Args:
        judges: judges by name: arm_lens' own, or any object with a method ``score(prompts, responses)``. Several under one
            name count as one judge with as many seeds, such as twenty random head sets.
        test: pairs or labelled responses that no judge was fitted on; ``metadata["subset"]`` names the subset.
        benchmark: the name of the test.
        lead: the judge that the others are compared with; by default the first.
        meta: further facts for the page: title, model, command, notes, ...

    Raises:
        ValueError: if there is no judge or nothing to judge, or naming an item whose reward is not a number.
    """
    if not judges or not test:
        raise ValueError("there is nothing to compare: at least one judge and one preference are needed")
    task = _task_of(test, benchmark)

    def made() -> Iterator[tuple[Part, pd.DataFrame, Mapping[str, Any]]]:
        with shared_readings():  # judges of one model read the same prompts
            for name, given in judges.items():
                for seed, one in enumerate(given if isinstance(given, Sequence) else [given]):
                    judge = one if isinstance(one, Judge) else Scores(one)
                    verdicts = verdicts_by(judge, task.test)
                    part = Part(task, JudgeChoice(judge=name), seed, "")
                    yield part, items_of(task, name, seed, verdicts), record_of(verdicts.fit, judge)

    about = {"title": "Judges, side by side", "lead": lead or next(iter(judges)), "versions": VERSIONS, **(meta or {})}
    return results_of(about, gather(made()))


class Scores(Judge):
    """Any object with a ``score`` as a judge; its scale is unknown, so its rewards are cut at their median."""

    kind = "scores"
    threshold = None

    def __init__(self, judge: Scorer) -> None:
        self.judge = judge

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The object's score of each response."""
        return torch.as_tensor(self.judge.score(prompts, responses), dtype=torch.float64)


def controls_of(
    reward: ActivationRewardModel, examples: Sequence[Preference], *, random_sets: int = 20
) -> dict[str, Judge | list[Judge]]:
    """The controls that a fitted reward model should beat, for `judge_preferences`.

    Args:
        reward: the reward model.
        examples: the examples it was fitted on, from which the few-shot prompt has as many demonstrations as were read.
        random_sets: how many sets of random heads, each with as many heads in every layer as the reward model's.

    Returns:
        The unsteered model without (``zero_shot``) and with demonstrations in the prompt (``few_shot``); the same means
        at all heads (``arm_all_heads``) and at random ones (``arm_random_heads``).
    """
    judge, record, own = reward.judge, reward.record, reward.heads
    reading = ReadingOptions(demonstrations=record.demonstrations, seed=record.seed)
    generator = torch.Generator().manual_seed(record.seed)
    return {
        "zero_shot": judge,
        "few_shot": GenerativeJudge.fit(judge.model, examples, question=judge.question, reading=reading),
        "arm_all_heads": reward.with_heads(HeadSet.all(own.n_layers, own.n_heads)),
        "arm_random_heads": [reward.with_heads(own.random_like(generator)) for _ in range(random_sets)],
    }


def _task_of(test: Sequence[Preference], benchmark: str) -> Task:
    """A task without examples, which the judges have read already; ids that are missing or not unique are numbered."""
    ids = Counter(one.id for one in test)
    named = [
        one if one.id and ids[one.id] == 1 else replace(one, id=f"{one.id or 'item'} {index}")
        for index, one in enumerate(test)
    ]
    clusters = clusters_of(named)
    items = tuple(TestItem(subset_of(one), one.id, clusters[one.id], one) for one in named)
    return Task(
        study=benchmark, subset="all", n_examples=0, noise=0.0, sample=0, examples=(), criterion_text="",
        test=TestSet(benchmark, items), judges=(), seeds=1,
    )  # fmt: skip
