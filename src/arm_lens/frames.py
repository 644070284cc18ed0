"""The numbers behind the figures: checked columns and what is averaged over seeds."""

from __future__ import annotations

import pandas as pd
from scipy.stats import mannwhitneyu

from arm_lens.comparison.tables import checked

__all__ = ["checked", "criteria_of", "mean_over_seeds", "ranking_quality"]


def criteria_of(frame: pd.DataFrame) -> list[str]:
    """The criteria in the order in which they first appear."""
    return [str(criterion) for criterion in frame["criterion"].unique()]


def mean_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each criterion and method: the mean over seeds.

    ``ci_low`` and ``ci_high`` are the means of the seeds' own interval ends. An interval over test items does not get
    narrower by repeating the run with other seeds on the same items, hence no division by the number of seeds; what
    the seeds do is in ``lowest`` and ``highest``.

    Args:
        rows: criterion, method, seed, accuracy, ci_low, ci_high.

    Returns:
        One row per criterion and method, in order of appearance: criterion, method, accuracy, ci_low, ci_high, lowest,
        highest, seeds (how many).

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    checked(rows, ["criterion", "method", "seed", "accuracy", "ci_low", "ci_high"], table="rows")
    return (
        rows.groupby(["criterion", "method"], sort=False)
        .agg(
            accuracy=("accuracy", "mean"),
            ci_low=("ci_low", "mean"),
            ci_high=("ci_high", "mean"),
            lowest=("accuracy", "min"),
            highest=("accuracy", "max"),
            seeds=("seed", "nunique"),
        )
        .reset_index()
    )


def ranking_quality(items: pd.DataFrame) -> float:
    """The area under the ROC curve: how often a response that meets the criterion gets the higher reward.

    Computed over all pairs of a meeting and a falling-short response (a tie counts one half) within each seed, then
    averaged over seeds, since rewards of different seeds are on different scales. This is the Mann-Whitney U statistic
    over the number of pairs. Not a number if a label is absent in every seed.

    Args:
        items: seed, label, reward, of one criterion and one method.
    """
    areas = []
    for _, one in items.groupby("seed", sort=False):
        meets = one["label"].astype(bool)
        above, below = one["reward"][meets], one["reward"][~meets]
        if len(above) and len(below):
            areas.append(float(mannwhitneyu(above, below).statistic) / (len(above) * len(below)))
    return sum(areas) / len(areas) if areas else float("nan")
