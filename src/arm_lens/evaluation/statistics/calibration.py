"""Do probabilities mean what they say?

*Brier score*: the mean of (p - y)^2, 0 for certain and right, 0.25 for always one half (Brier 1950).

*Reliability*: in bins of the probability that the judge gave, how often the event happened next to how often it should
have. For a single response, the probability is P(it meets the criterion), and the event is that it does. In a pair, which of
the two stands first is arbitrary, so the probability is that of the side that the judge prefers, max(p, 1 - p), and the event
is that this side is the chosen one. Bins have equal width, 0.1, so that two judges can be compared; empty ones are left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from arm_lens.evaluation.statistics.intervals import ClusterBootstrap, Estimate, mean_estimate, wilson

WIDTH = 0.1
COLUMNS = ("bin", "low", "high", "confidence", "accuracy", "ci_low", "ci_high", "n")


def brier_score(
    probability: Float[np.ndarray, "sample seed item"], label: Bool[np.ndarray, " item"], bootstrap: ClusterBootstrap
) -> Estimate:
    """The mean squared error of probabilities, over samples, seeds and items, with an interval clustered by item.

    Args:
        probability: of the label being True.
        label: of each item.
        bootstrap: resamples of these items.

    Returns:
        The estimate; NaN, with its interval, if a probability is NaN.
    """
    if np.isnan(probability).any():
        return Estimate(np.nan, np.nan, np.nan, len(label))
    return mean_estimate((probability - label) ** 2, bootstrap)


def reliability(
    probability: Float[np.ndarray, " verdict"],
    happened: Float[np.ndarray, " verdict"],
    clusters: Int[np.ndarray, " verdict"],
) -> pd.DataFrame:
    """How often events happened that were given such a probability.

    Verdicts of the same cluster (an item under several samples) count less than verdicts of different ones: the interval is
    Wilson's, with n the number of clusters of equal size that would say as much (Kish 1965), which errs on the wide side.

    Args:
        probability: from 0 to 1.
        happened: 1 if the event happened, 0 if not, 0.5 for a tie.
        clusters: the number of the cluster of each verdict.

    Returns:
        One row per bin with a verdict, ascending: ``bin`` (0 for probabilities below 0.1), ``low`` and ``high`` (its
        ends), ``confidence`` (the mean probability), ``accuracy`` (how often it happened), ``ci_low``, ``ci_high``, and
        ``n`` (verdicts).
    """
    count = round(1 / WIDTH)
    # A bin has its lower end, and 1 - 0.8, which is a little less than 0.2, belongs to the bin that begins there.
    bins = np.minimum(np.floor(probability * count + 1e-9).astype(int), count - 1)
    verdicts = pd.DataFrame({"bin": bins, "confidence": probability, "accuracy": happened, "cluster": clusters})
    groups = verdicts.groupby("bin")
    table = groups[["confidence", "accuracy"]].mean().assign(n=groups.size()).reset_index()
    same_cluster = (groups["cluster"].value_counts() ** 2).groupby("bin").sum().to_numpy()
    ends = [wilson(*row) for row in zip(table["accuracy"], table["n"].to_numpy() ** 2 / same_cluster, strict=True)]
    table[["ci_low", "ci_high"]] = np.array(ends).reshape(-1, 2)
    return table.assign(low=table["bin"] / count, high=(table["bin"] + 1) / count)[[*COLUMNS]]
