"""Intervals of section scores, from the intervals of their subsets.

A section's score is a weighted mean of accuracies on different items, so that the distances from each accuracy to the ends of
its interval add up as errors of independent quantities: half of the score's interval is the root of the sum of their weighted
squares. If a subset is missing, score and interval are those of the other subsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from arm_lens.evaluation.rewardbench import OVERALL, SUBSETS
from arm_lens.evaluation.statistics.intervals import wilson

SIDES = ["below", "above"]


def with_intervals(sections: pd.DataFrame, rows: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Section scores of RewardBench with ``ci_low`` and ``ci_high``, 95 % intervals of ``score_of_present``.

    Args:
        sections: from `section_scores`.
        rows: accuracy, ci_low, ci_high per subset, and the columns of ``by``.
        by: columns that distinguish the runs.
    """
    below, above = rows["accuracy"] - rows["ci_low"], rows["ci_high"] - rows["accuracy"]
    subsets = rows.assign(below=below, above=above).join(SUBSETS, on="subset")
    subsets[SIDES] = subsets[SIDES].mul(subsets["weight"], axis=0) ** 2
    sums = subsets.groupby([*by, "section"], sort=False, dropna=False)[[*SIDES, "weight"]].sum()
    return _around(sections, (sums[SIDES] ** 0.5).div(sums["weight"], axis=0).reset_index(), [*by, "section"])


def with_intervals_2(scores: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Scores of RewardBench 2 with ``ci_low`` and ``ci_high``: Wilson's interval over prompts.

    Prompts score between 0 and 1 (in Ties, pairs of prompts between 0 and 1.01). None of these scores varies more than
    verdicts of 0 and 1 with the same mean, for which Wilson's interval is made. ``by`` is as in `with_intervals`.
    """
    subsets = scores[(scores["subset"] != OVERALL) & (scores["n"] > 0)]
    share, n = (
        subsets["score_of_present"].clip(upper=1.0),
        subsets["n"].where(subsets["subset"] != "Ties", subsets["n"] / 2),
    )
    ends = np.array([wilson(*row) for row in zip(share, n, strict=True)]).reshape(-1, 2)
    halves = subsets[[*by, "subset"]].assign(below=share - ends[:, 0], above=ends[:, 1] - share)
    return _around(scores, halves, [*by, "subset"])


def _around(scores: pd.DataFrame, halves: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Scores with intervals, given how far each reaches below and above; ``overall`` is the mean of a run's others."""
    squares = halves.assign(**{side: halves[side] ** 2 for side in SIDES}).groupby(key[:-1], sort=False, dropna=False)
    overall = (squares[SIDES].sum() ** 0.5).div(squares.size(), axis=0).reset_index().assign(**{key[-1]: OVERALL})
    found = scores.merge(pd.concat([halves, overall]), on=key, how="left")
    score, place = found["score_of_present"], list(found.columns).index("score_of_present") + 1
    found.insert(place, "ci_low", (score - found.pop("below")).clip(lower=0))
    found.insert(place + 1, "ci_high", (score + found.pop("above")).clip(upper=np.maximum(score, 1)))  # Ties exceeds 1
    return found
