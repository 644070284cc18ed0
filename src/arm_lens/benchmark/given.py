"""Judges that exist already, compared on labelled preferences: no configuration, no folder, the same tables.

results = judge_preferences({"mine": reward, "zero_shot": GenerativeJudge(model)}, test, benchmark="support tickets")
results.tables.comparisons  # which is better, with an interval and a p-value
write_report(results, "out")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Literal, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.benchmark.config import JudgeChoice, check_score_kind
from arm_lens.benchmark.data import Task, TestItem, TestSet, clusters_of, subset_of
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import fit_accuracy, verdicts_by
from arm_lens.benchmark.parts import Part, gather, record_of
from arm_lens.benchmark.results import VERSIONS, BenchmarkResults, results_of
from arm_lens.display.caution import caution
from arm_lens.engine.sharing import shared_readings
from arm_lens.evaluation.health import Check
from arm_lens.evaluation.main_setting import EVERY_SUBSET
from arm_lens.heads import HeadSet
from arm_lens.judges.base import Judge, ScoreKind
from arm_lens.judges.calibrated import CalibratedJudge
from arm_lens.judges.checks import Texts, check_as_many
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.questions import listed_names
from arm_lens.preferences import OverlapError, OverlapWarning, Preference, Prompt, find_overlap, unpair
from arm_lens.preferences.fields import short_repr
from arm_lens.preferences.overlap import known_among, text_digests
from arm_lens.preferences.types import responses_of
from arm_lens.registry import JUDGES
from arm_lens.reward.model import ActivationRewardModel


@runtime_checkable
class Scorer(Protocol):
    """The method that `judge_preferences` needs."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Any:
        """A number per response; higher is better."""


def judge_preferences(
    judges: Mapping[str, Scorer | Sequence[Scorer]],
    test: Sequence[Preference],
    *,
    examples: Sequence[Preference] = (),
    subset: str | Callable[[Preference], str] = "subset",
    on_overlap: Literal["raise", "warn"] = "raise",
    benchmark: str = "test",
    lead: str | None = None,
    score_kind: ScoreKind | None = None,
    meta: Mapping[str, Any] | None = None,
) -> BenchmarkResults:
    """Have judges judge labelled preferences, and compare them.

    Args:
        judges: judges by name: arm_lens' own, or any object with a method ``score(prompts, responses)``. Several under one
            name count as one judge with as many seeds, such as twenty random head sets.
        test: pairs or labelled responses that no judge was fitted on.
        examples: what the judges were fitted on, if known. Judges that learn from examples also judge these, which gives
            their accuracy on the fitted examples.
        subset: where the subset of a test item is named: a field of its metadata, or a function.
        on_overlap: with ``warn``, items that a judge was fitted on are judged too, and the page names judges and items.
        benchmark: the name of the test.
        lead: the judge that the others are compared with; by default the first.
        score_kind: by which scores pairs are compared and single responses judged (`arm_lens.benchmark.judging.graded`); by
            default each judge's own, gaps for pairs and rewards for single responses.
        meta: further facts for the page: title, model, command, notes, ...

    Raises:
        OverlapError: naming the test items that a judge was fitted on (reward models and few-shot judges record that) or
            that are among ``examples``, unless ``on_overlap`` is ``warn``.
        TypeError: naming the judge that does not score, or what is no preference; or if judges have no names.
        ValueError: if there is no judge or nothing to judge; naming a judge that does not give scores of that kind, or an
            item whose reward is not a number.
    """
    if not isinstance(judges, Mapping):
        raise TypeError("judges are given by their names, as in judge_preferences({'mine': reward}, test)")
    if not judges or not test:
        raise ValueError("there is nothing to compare: at least one judge and one preference are needed")
    for name, given in judges.items():
        if isinstance(given, Sequence) and not given:
            raise ValueError(f"the judge {name!r} is an empty list")
        for one in given if isinstance(given, Sequence) else [given]:
            if not callable(getattr(one, "score", None)):
                raise TypeError(f"the judge {name!r} has no method score(prompts, responses): {short_repr(one)}")
    if lead is not None and lead not in judges:
        raise ValueError(f"lead is {lead!r}, but no judge is called that; there are {', '.join(map(repr, judges))}")
    for example in test:
        responses_of(example)  # it is a preference
    every = [
        (name, seed, one if isinstance(one, Judge) else Scores(one))
        for name, given in judges.items()
        for seed, one in enumerate(given if isinstance(given, Sequence) else [given])
    ]
    for name, _, judge in every:
        check_score_kind(name, type(judge), score_kind, ranked=judge.compares_only)
    task = _task_of(test, benchmark, subset)
    known = _overlaps(judges, examples, [item.example for item in task.test.items])
    if known and on_overlap == "raise":
        raise OverlapError(
            f"{'; '.join(known)}; leave these items out of the test, or pass on_overlap='warn' to judge them all the same"
        )
    for line in known:
        caution(line, OverlapWarning)

    def made() -> Iterator[tuple[Part, pd.DataFrame, Mapping[str, Any]]]:
        with shared_readings():  # judges of one model read the same prompts
            for name, seed, judge in every:
                verdicts = verdicts_by(judge, task.test, score_kind)
                if examples and _learns(judge):
                    verdicts.fit["fit_accuracy"] = fit_accuracy(judge, examples, score_kind)
                part = Part(task, JudgeChoice(judge=name), seed, "")
                yield part, items_of(task, name, seed, verdicts), record_of(verdicts.fit, judge)

    about = {"title": "Judges, side by side", "lead": lead or next(iter(judges)), "versions": VERSIONS, **(meta or {})}
    seen = Check(
        "Tested on what it was fitted on", "a test item is among the examples that a judge was fitted on", known
    )
    return results_of(about, gather(made()), checks=[seen])


def _overlaps(
    judges: Mapping[str, Scorer | Sequence[Scorer]], examples: Sequence[Preference], test: Sequence[Preference]
) -> list[str]:
    """A line for each judge that was fitted on test items, and one for the examples."""
    found = []
    for name, given in judges.items():
        several = given if isinstance(given, Sequence) else [given]
        own = {id: None for one in several if isinstance(one, Judge) for id in one.fitted_among(test)}
        if own:
            found.append(f"{name} was fitted on {len(own)} of the {len(test)} test items: {listed_names(list(own))}")
    if not found and (overlap := find_overlap(examples, test)):
        found.append(str(overlap))
    return found


def _learns(judge: Judge) -> bool:
    """Whether benchmarks have judges of this class also judge the examples that they were fitted on."""
    judge = judge.judge if isinstance(judge, CalibratedJudge) else judge
    return any(spec.checks_fit and type(judge) is spec.judge for spec in JUDGES.values())


class Scores(Judge):
    """Any object with a ``score`` as a judge; its scale is unknown, so its rewards are cut at their median."""

    kind = "scores"
    threshold = None

    def __init__(self, judge: Scorer) -> None:
        self.judge = judge

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The object's score of each response, of either kind; a ValueError if it does not give one number for each."""
        self.check_kind(kind)
        scores = torch.as_tensor(self.judge.score(*check_as_many(prompts, responses))).detach().to("cpu", torch.float64)
        if scores.shape != (len(responses),):
            raise ValueError(f"{len(responses)} responses have scores of shape {list(scores.shape)}, not one for each")
        return scores


def controls_of(
    reward: ActivationRewardModel,
    examples: Sequence[Preference],
    *,
    test: Sequence[Preference] = (),
    random_sets: int = 20,
    demonstrations: int | None = None,
) -> dict[str, Judge | list[Judge]]:
    """The controls that a fitted reward model should beat, for `judge_preferences`.

    Args:
        reward: the reward model.
        examples: the examples it was fitted on, from which the few-shot prompt has its demonstrations.
        test: what will be judged. No demonstration is about one of these texts.
        random_sets: how many sets of random heads, each with as many heads in every layer as the reward model's.
        demonstrations: of the few-shot prompt; by default as many as in the prompts that the reward model read.

    Returns:
        The unsteered model without (``zero_shot``) and with demonstrations in the prompt (``few_shot``); the same means
        at all heads (``arm_all_heads``) and at random ones (``arm_random_heads``). If the layout is scalar and there are
        examples of both kinds, also the unsteered model and the reward model with their thresholds fitted to them
        (``zero_shot_threshold``, ``arm_calibrated``), which tell what steering does from what a threshold does.

    Raises:
        OverlapError: if all examples are in the test, so that there is no demonstration.
    """
    tested = text_digests(test)
    examples_left = [one for one in examples if not known_among([one], tested)]
    if examples and not examples_left:
        raise OverlapError("every example is in the test: test on texts that the reward model was not fitted on")
    judge, record, own = reward.judge, reward.record, reward.heads
    count = record.demonstrations if demonstrations is None else demonstrations
    reading = ReadingOptions(demonstrations=count, seed=record.seed)
    generator = torch.Generator().manual_seed(record.seed)
    fitted: dict[str, Judge | list[Judge]] = {}
    if not judge.compares_only and len({one.label for one in unpair(examples_left)}) == 2:
        fitted["zero_shot_threshold"] = CalibratedJudge.of(judge, examples_left)
        fitted["arm_calibrated"] = CalibratedJudge.of(reward, examples_left)
    return {
        "zero_shot": judge,
        "few_shot": GenerativeJudge.fit(judge.model, examples_left, question=judge.question, reading=reading),
        "arm_all_heads": reward.with_heads(HeadSet.all(own.n_layers, own.n_heads)),
        "arm_random_heads": [reward.with_heads(own.random_like(generator)) for _ in range(random_sets)],
        **fitted,
    }


def _task_of(test: Sequence[Preference], benchmark: str, subset: str | Callable[[Preference], str]) -> Task:
    """A task without examples, which the judges have read already; ids that are missing or not unique are numbered."""
    ids = Counter(one.id for one in test)
    taken, named = {id for id, times in ids.items() if times == 1}, list[Preference]()
    for index, one in enumerate(test):
        if not one.id or ids[one.id] > 1:
            free = (f"{one.id or 'item'} {number}" for number in count(index))
            one = replace(one, id=next(id for id in free if id not in taken))
            taken.add(one.id)
        named.append(one)
    clusters = clusters_of(named)
    name_of = subset if callable(subset) else partial(subset_of, field=subset)
    items = tuple(TestItem(str(name_of(one)), one.id, clusters[one.id], one) for one in named)
    return Task(
        study=benchmark, subset=EVERY_SUBSET, n_examples=0, noise=0.0, sample=0, examples=(), criterion_text="",
        test=TestSet(benchmark, items), judges=(), seeds=1,
    )  # fmt: skip
