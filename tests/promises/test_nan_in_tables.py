"""NaN never becomes a verdict, a tie or an accuracy in the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from arm_lens import LabelledResponse
from arm_lens.benchmark import judge_preferences
from arm_lens.evaluation import benchmark_tables

ITEMS = pd.DataFrame(
    {
        "benchmark": "b", "subset": "s", "unit": "response", "judge": [*["mine"] * 4, *["theirs"] * 4], "n_examples": 0,
        "noise": 0.0, "sample": 0, "seed": 0, "item": ["a", "b", "c", "d"] * 2, "cluster": ["a", "b", "c", "d"] * 2,
        "label": [True, False] * 4, "reward": [0.9, 0.2, 0.8, 0.6, 3.0, -1.0, 0.0, 2.0],
        "probability": [0.9, 0.2, 0.8, 0.6, *[np.nan] * 4], "correct": [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.5, 0.0],
    }
)  # fmt: skip


def test_what_was_not_measured_stays_not_measured():
    summary = benchmark_tables(ITEMS).summary.set_index("judge")
    assert summary.loc["mine", "brier"] == pytest.approx(((np.array([0.9, 0.2, 0.8, 0.6]) - [1, 0, 1, 0]) ** 2).mean())
    assert np.isnan(summary.loc["theirs", "brier"]) and summary.loc["theirs", "accuracy"] == 2.5 / 4


@pytest.mark.parametrize(
    ("column", "index", "value", "said"),
    [
        ("reward", 2, np.nan, "item 'c' of b, s, judge mine: the reward is nan, not a finite number"),
        ("reward", 7, np.inf, "'reward' .* is inf in row 7 .*judge theirs, .*item d"),
        ("reward", 4, -np.inf, "'reward' .* is -inf in row 4 .*judge theirs"),
        ("probability", 1, np.nan, "item 'b' of b, s, judge mine has no probability"),
        ("probability", 1, 1.2, "'probability' .* should be from 0 to 1, and is 1.2 in row 1 .*judge mine, .*item b"),
        ("correct", 1, np.nan, "item 'b' .*: correct is 1, 0, or 0.5 for a tie, not nan"),
    ],
)
def test_a_table_with_a_number_that_is_none_is_refused_by_row_and_judge(column, index, value, said):
    items = ITEMS.copy()
    items.loc[index, column] = value
    with pytest.raises(ValueError, match=said):
        benchmark_tables(items)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_judge_that_answers_with_no_number_is_refused_by_item(value):
    class Broken:
        def score(self, prompts, responses):
            return [value if response == "bad" else 1.0 for response in responses]

    test = [LabelledResponse("p", "good", True, id="first"), LabelledResponse("p", "bad", False, id="second")]
    with pytest.raises(ValueError, match="the reward of second is not a finite number"):
        judge_preferences({"broken": Broken()}, test)
