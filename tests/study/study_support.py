"""A small study of three criteria, of a small random model, made once for all tests that look at it."""

from __future__ import annotations

import functools
from pathlib import Path

from arm_lens import ActivationRewardModel, HeadSet
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.selection import Greedy
from arm_lens.study import HeadStudy, study_heads

CRITERIA = {"positive": "positive", "a <b>/x_50%": "polite", "a (b) x_50$": "brief"}
"""Names that no file, web page or paper takes as they are, and what the judge model's world calls them."""
OPTIONS = {"standard_error": 0.4, "random_sets": 2}


@functools.cache
def fitted(model) -> dict[str, ActivationRewardModel]:
    return {
        name: ActivationRewardModel.fit(
            model,
            labelled_responses(known, 12, split="train", seed=0),
            criterion=name,
            selector=Greedy(max_heads=2),
            reward="log_prob",
            reading=ReadingOptions(readings=4, demonstrations=2),
            question=QuestionOptions(batch_size=5),
        )
        for name, known in CRITERIA.items()
    }


def held_out(count: int = 12):
    return {name: labelled_responses(known, count, split="test", seed=1) for name, known in CRITERIA.items()}


@functools.cache
def kept_study(model, base: Path) -> tuple[HeadStudy, Path]:
    """The study, and the folder within ``base`` it is kept in, which tests must not change."""
    folder = base / "kept-study"
    return study_heads(fitted(model), held_out(), out=folder, **OPTIONS), folder


@functools.cache
def smallest_study(model) -> HeadStudy:
    """Of one criterion, whose reward model was given one head."""
    name = "positive"
    given = fitted(model)[name].with_heads(HeadSet.of(3, 4, [(1, 2)]))
    return study_heads({name: given}, {name: held_out(10)[name]}, standard_error=0.5, random_sets=1)
