"""What a judge says, item by item: what is right, what is a tie, and where the line is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from arm_lens.benchmark.data import Task, TestItem, TestSet
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import Verdicts
from arm_lens.evaluation.tables import ITEM_FIELDS
from arm_lens.preferences import LabelledResponse, PreferencePair

PAIRS = [PreferencePair(f"P{n}", f"good {n}", f"bad {n}", id=f"p{n}") for n in range(3)]
SINGLES = [LabelledResponse(f"P{n}", f"{'good' if n % 2 else 'bad'} {n}", n % 2 == 1, id=f"r{n}") for n in range(5)]


def task_of(*examples, subset="s", benchmark="b"):
    test = TestSet(benchmark, tuple(TestItem(subset, one.id, f"c-{one.id}", one) for one in examples))
    return Task(
        study=benchmark, subset=subset, n_examples=4, noise=0.1, sample=2, examples=(), criterion_text="", test=test,
        judges=(),        seeds=1,
    )  # fmt: skip


def scored(rewards, **about):
    rewards = np.array(rewards, dtype=float)
    return Verdicts(rewards, about.pop("scale", rewards), **about)


def test_a_pair_is_right_if_the_chosen_response_is_higher_and_a_tie_is_half():
    frame = items_of(task_of(*PAIRS), "j", 7, scored([0.9, 0.2, 0.3, 0.3, 0.1, 0.8]))
    pairs = frame[frame["unit"] == "pair"]
    assert list(frame.columns) == [*ITEM_FIELDS] or set(frame.columns) == set(ITEM_FIELDS)
    assert pairs["correct"].tolist() == [1.0, 0.5, 0.0]
    assert np.allclose(pairs["reward"], [0.7, 0.0, -0.7]) and pairs["label"].all()
    assert pairs["probability"].isna().all()
    assert pairs["item"].tolist() == ["p0", "p1", "p2"] and pairs["cluster"].tolist() == ["c-p0", "c-p1", "c-p2"]
    for name, value in {"judge": "j", "n_examples": 4, "noise": 0.1, "sample": 2, "seed": 7}.items():
        assert (frame[name] == value).all()


def test_pairs_are_compared_on_the_scale_that_does_not_saturate():
    gaps = np.array([900.0, 800.0, 1.0, 2.0, -800.0, -900.0])
    frame = items_of(task_of(*PAIRS), "j", 0, scored(expit(gaps), scale=gaps, log_odds=True))
    pairs = frame[frame["unit"] == "pair"]
    assert pairs["correct"].tolist() == [1.0, 0.0, 1.0]
    assert np.allclose(pairs["probability"], expit([100, -1, 100]))


def test_both_responses_of_a_pair_are_verdicts_of_a_second_benchmark():
    rewards = [0.9, 0.2, 0.5, 0.6, 0.1, 0.49]
    frame = items_of(task_of(*PAIRS), "j", 0, scored(rewards, probabilities=np.array(rewards)))
    singles = frame[frame["unit"] == "response"]
    assert set(singles["benchmark"]) == {"b verdicts"} and set(frame["benchmark"]) == {"b", "b verdicts"}
    assert singles["item"].tolist() == [f"p{n}/{kind}" for n in range(3) for kind in ("chosen", "rejected")]
    assert singles["label"].tolist() == [True, False] * 3
    assert singles["correct"].tolist() == [1, 1, 0.5, 0, 0, 1]
    assert singles["cluster"].tolist() == ["c-p0"] * 2 + ["c-p1"] * 2 + ["c-p2"] * 2
    assert singles["probability"].tolist() == rewards


def test_single_responses_alone_are_the_benchmark_itself():
    frame = items_of(task_of(*SINGLES), "j", 0, scored([0.1, 0.2, 0.5, 0.9, 0.9], threshold=0.5))
    assert set(frame["benchmark"]) == {"b"} and set(frame["unit"]) == {"response"}
    assert frame["correct"].tolist() == [1, 0, 0.5, 1, 0]


def test_another_threshold_is_kept_to():
    frame = items_of(task_of(*SINGLES), "j", 0, scored([-1.0, 1.0, 0.0, 2.0, 3.0], threshold=0.0))
    assert frame["correct"].tolist() == [1, 1, 0.5, 1, 0]


def test_rewards_without_a_threshold_are_cut_at_their_median():
    rewards = [10.0, 30.0, 20.0, 5000.0, 40.0]
    frame = items_of(task_of(*SINGLES), "j", 0, scored(rewards, threshold=None))
    above = [reward > 30 for reward in rewards]
    expected = [
        0.5 if reward == 30 else float(side == one.label)
        for reward, side, one in zip(rewards, above, SINGLES, strict=True)
    ]
    assert frame["correct"].tolist() == expected
    shifted = items_of(task_of(*SINGLES), "j", 0, scored([5 * one + 1000 for one in rewards], threshold=None))
    assert shifted["correct"].tolist() == expected  # a cut that does not depend on units


def test_a_test_with_singles_of_its_own_judges_those_and_not_its_pairs_apart():
    """As in reward hacking, where the responses of the pairs are listed by cell."""
    frame = items_of(
        task_of(*PAIRS, *SINGLES), "j", 0, scored(np.linspace(0.1, 0.9, len(task_of(*PAIRS, *SINGLES).test.texts)))
    )
    singles = frame[frame["unit"] == "response"]
    assert singles["item"].tolist() == [one.id for one in SINGLES]
    assert set(singles["benchmark"]) == {"b verdicts"}
    assert (frame["unit"] == "pair").sum() == 3


def test_a_response_that_stands_in_two_places_has_one_reward():
    pair, single = PreferencePair("P", "A", "B", id="1"), LabelledResponse("P", "A", True, id="2")
    frame = items_of(task_of(pair, single), "j", 0, scored([0.8, 0.3]))
    assert frame["reward"].tolist() == [0.5, 0.8]


def test_a_judge_that_only_compares_has_only_pairs():
    margins = np.array([2.0, 0.0, -1.0])
    frame = items_of(task_of(*PAIRS), "j", 0, Verdicts(None, None, margins=margins, log_odds=True))
    assert set(frame["unit"]) == {"pair"} and frame["correct"].tolist() == [1.0, 0.5, 0.0]
    assert np.allclose(frame["probability"], expit(margins))
    silent = items_of(task_of(*PAIRS), "j", 0, Verdicts(None, None, margins=margins))
    assert silent["probability"].isna().all()


def test_a_reward_that_is_not_a_number_is_neither_right_nor_wrong():
    with pytest.raises(ValueError, match="reward of r1 is not a finite number"):
        items_of(task_of(*SINGLES), "j", 0, scored([0.1, np.nan, 0.5, 0.9, 0.9]))
    with pytest.raises(ValueError, match="reward of p2 is not a finite number"):
        items_of(task_of(*PAIRS), "j", 0, Verdicts(None, None, margins=np.array([1.0, 2.0, np.nan])))
