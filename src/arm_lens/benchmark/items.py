"""From what a judge says about a test to one row per item.

A pair is right if the chosen response has the higher reward; a tie counts one half. A single response is right if its
reward is on the side of the judge's threshold that its label says. The rewards of judges without a threshold (a length, a
likelihood) are cut at their median over the responses of the same group. That uses no label, and is the fairest cut only if
half of the responses meet the criterion. Every benchmark of pairs gives a second one, ``... verdicts``, of its responses
one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit

from arm_lens.benchmark.data import Task, TestItem, TestSet
from arm_lens.benchmark.judging import Verdicts, pair_texts
from arm_lens.evaluation.main_setting import VERDICTS
from arm_lens.preferences import LabelledResponse, Preference, unpair


def items_of(task: Task, judge: str, seed: int, verdicts: Verdicts) -> pd.DataFrame:
    """The rows of one judge with one seed on one task, in the order of the test.

    Pairs come first, then single responses: those of the test itself, or, if it has none, both responses of each pair. A
    judge that only compares has no rows of single responses.

    Raises:
        ValueError: naming an item whose reward is not a finite number.
    """
    test = task.test
    margins = _margins(test, verdicts)
    probabilities = expit(margins) if verdicts.log_odds else None
    pairs = [(item, item.example) for item in test.pairs]
    tables = [_rows(test.benchmark, "pair", pairs, margins, 0.0, probabilities)] if pairs else []
    if verdicts.rewards is not None and (singles := singles_of(test)):
        indices = [test.number(single.prompt, single.response) for _, single in singles]
        rewards = verdicts.rewards[indices]
        threshold = float(np.median(rewards)) if verdicts.threshold is None else verdicts.threshold
        probabilities = None if verdicts.probabilities is None else verdicts.probabilities[indices]
        tables.append(_rows(singles_name(test), "response", singles, rewards, threshold, probabilities))
    setting: dict[str, Any] = {
        "judge": judge,
        "n_examples": task.n_examples,
        "noise": task.noise,
        "sample": task.sample,
        "seed": seed,
    }
    frame = pd.concat(tables, ignore_index=True).assign(**setting)
    for item in frame.loc[~np.isfinite(frame["reward"]), "item"]:  # on no side of a threshold, and not a tie
        raise ValueError(
            f"the reward of {item} is not a finite number; verdicts on all items are compared, so leave the item out, or "
            "have the judge answer (if the question is too long: on_too_long='clip')"
        )
    names = ["benchmark", "subset", "unit", *setting, "item", "cluster", "label", "reward", "probability", "correct"]
    return frame[names]


def _margins(test: TestSet, verdicts: Verdicts) -> Float[np.ndarray, " pair"]:
    if verdicts.margins is not None:
        return verdicts.margins
    assert verdicts.scale is not None
    prompts, *responses = pair_texts([item.example for item in test.pairs])
    chosen, rejected = ([test.number(*text) for text in zip(prompts, side, strict=True)] for side in responses)
    margins: Float[np.ndarray, " pair"] = verdicts.scale[chosen] - verdicts.scale[rejected]
    return margins


def _rows(
    benchmark: str,
    unit: str,
    judged: Sequence[tuple[TestItem, Preference]],
    rewards: Float[np.ndarray, " item"],
    threshold: float,
    probabilities: Float[np.ndarray, " item"] | None,
) -> pd.DataFrame:
    labels = np.array([getattr(example, "label", True) for _, example in judged])
    values = {
        "benchmark": benchmark,
        "subset": [item.subset for item, _ in judged],
        "unit": unit,
        "item": [example.id for _, example in judged],
        "cluster": [item.cluster for item, _ in judged],
        "label": labels,
        "reward": rewards,
        "probability": np.nan if probabilities is None else probabilities,
        "correct": np.where(rewards == threshold, 0.5, (rewards > threshold) == labels),
    }
    return pd.DataFrame(values)


def singles_of(test: TestSet) -> list[tuple[TestItem, LabelledResponse]]:
    """The responses of a test that are judged one by one."""
    own = [(item, item.example) for item in test.items if isinstance(item.example, LabelledResponse)]
    return own or [(item, single) for item in test.pairs for single in unpair([item.example])]


def singles_name(test: TestSet) -> str:
    """The name of the benchmark of the responses that are judged one by one."""
    return test.benchmark + (VERDICTS if test.pairs else "")
