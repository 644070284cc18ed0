"""From what a judge says about a test to one row per item.

A pair is right if the chosen response gets the higher reward; a tie counts one half. A single response is right if its
reward is on the side of the judge's threshold on which its label is. Judges without a threshold (a length, a likelihood)
are cut at the median of their rewards over the responses of the same group, which uses no label; where half of the
responses meet the criterion that is the fairest cut there is, and elsewhere it is not. Every benchmark of pairs gives a
second one, ``... verdicts``, of its responses one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit

from arm_lens.benchmark.config import VERDICTS
from arm_lens.benchmark.data import Task, TestItem, TestSet
from arm_lens.benchmark.judging import Verdicts
from arm_lens.preferences import LabelledResponse, PreferencePair, unpair


def items_of(task: Task, judge: str, seed: int, verdicts: Verdicts) -> pd.DataFrame:
    """The rows of one judge with one seed on one task, in the order of the test.

    Pairs come first, then single responses: those of the test itself, or, if it has none, both responses of each pair. A
    judge that only compares has none.

    Raises:
        ValueError: naming an item whose reward is not a number.
    """
    rows = [_pair_row(task, place, item, verdicts) for place, item in enumerate(task.test.pairs)]
    if verdicts.rewards is not None:
        rows += _response_rows(task, verdicts, verdicts.rewards)
    setting: dict[str, Any] = {
        "judge": judge,
        "n_examples": task.n_examples,
        "noise": task.noise,
        "sample": task.sample,
        "seed": seed,
    }
    frame = pd.DataFrame(rows).assign(**setting)
    for item in frame.loc[frame["reward"].isna(), "item"]:  # no side of a threshold, and no tie
        raise ValueError(f"the reward of {item} is not a number")
    names = ["benchmark", "subset", "unit", *setting, "item", "cluster", "label", "reward", "probability", "correct"]
    return frame[names]


def _pair_row(task: Task, place: int, item: TestItem, verdicts: Verdicts) -> dict[str, Any]:
    pair = item.example
    assert isinstance(pair, PreferencePair)
    if verdicts.margins is not None:
        margin = float(verdicts.margins[place])
    else:
        assert verdicts.scale is not None
        chosen, rejected = (task.test.number(pair.prompt, one) for one in (pair.chosen, pair.rejected))
        margin = float(verdicts.scale[chosen] - verdicts.scale[rejected])
    return {
        "benchmark": task.test.benchmark,
        "subset": item.subset,
        "unit": "pair",
        "item": item.id,
        "cluster": item.cluster,
        "label": True,
        "reward": margin,
        "probability": float(expit(margin)) if verdicts.log_odds else np.nan,
        "correct": 0.5 if margin == 0 else float(margin > 0),
    }


def singles_of(test: TestSet) -> list[tuple[TestItem, LabelledResponse]]:
    """The responses of a test that are judged one by one."""
    own = [(item, item.example) for item in test.items if isinstance(item.example, LabelledResponse)]
    return own or [(item, single) for item in test.pairs for single in unpair([item.example])]


def singles_name(test: TestSet) -> str:
    """What the benchmark of these responses is called."""
    return test.benchmark + (VERDICTS if test.pairs else "")


def _response_rows(task: Task, verdicts: Verdicts, rewards: Float[np.ndarray, " text"]) -> list[dict[str, Any]]:
    singles = singles_of(task.test)
    places = [task.test.number(single.prompt, single.response) for _, single in singles]
    threshold = float(np.median(rewards[places])) if verdicts.threshold is None else verdicts.threshold
    benchmark = singles_name(task.test)
    rows = []
    for place, (item, single) in zip(places, singles, strict=True):
        reward = float(rewards[place])
        rows.append(
            {
                "benchmark": benchmark,
                "subset": item.subset,
                "unit": "response",
                "item": single.id,
                "cluster": item.cluster,
                "label": single.label,
                "reward": reward,
                "probability": np.nan if verdicts.probabilities is None else float(verdicts.probabilities[place]),
                "correct": 0.5 if reward == threshold else float((reward > threshold) == single.label),
            }
        )
    return rows
