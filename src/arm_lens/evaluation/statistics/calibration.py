"""Do probabilities mean what they say?

*Brier score*: the mean of (p - y)^2, 0 for certain and right, 0.25 for always one half (Brier 1950).

*Reliability*: verdicts sorted by the probability the judge gave; in each bin, how often it was so beside how often it
should have been. A single response has a P(it meets the criterion), and what counts is whether it does. In a pair, which
of the two stands first is arbitrary, so the probability is that of the side the judge prefers, max(p, 1 - p), and what
counts is whether that side is the chosen one. Bins have equal width, 0.1, so that those of two judges can be laid side by
side; empty ones are left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from arm_lens.evaluation.statistics.intervals import ClusterBootstrap, Estimate, mean_estimate, wilson

WIDTH = 0.1


def brier_score(
    probability: Float[np.ndarray, "sample seed item"], label: Bool[np.ndarray, " item"], bootstrap: ClusterBootstrap
) -> Estimate:
    """The mean squared error of probabilities, over samples, seeds and items, with an interval clustered by item.

    Args:
        probability: of the label being True.
        label: what was so.
        bootstrap: resamples of these items.

    Returns:
        The estimate; not a number, and neither are the ends of its interval, if a probability is not.
    """
    if np.isnan(probability).any():
        return Estimate(np.nan, np.nan, np.nan, len(label))
    return mean_estimate((probability - label) ** 2, bootstrap)


def reliability(
    probability: Float[np.ndarray, " verdict"],
    happened: Float[np.ndarray, " verdict"],
    clusters: Int[np.ndarray, " verdict"],
) -> pd.DataFrame:
    """How often things happened that were given such a probability.

    Verdicts of the same cluster (an item under several samples) tell less than as many of different ones: the interval
    is Wilson's, with the number of clusters of equal size that would tell as much for n (Kish 1965), which errs on the
    wide side.

    Args:
        probability: from 0 to 1.
        happened: 1 if it did, 0 if not, 0.5 for a tie.
        clusters: the number of the cluster of each verdict.

    Returns:
        One row per bin with a verdict, ascending: ``bin`` (0 for probabilities below 0.1), ``low`` and ``high`` (its
        ends), ``confidence`` (the mean probability), ``accuracy`` (how often it happened), ``ci_low``, ``ci_high``, and
        ``n`` (verdicts).
    """
    count = round(1 / WIDTH)
    # A bin holds its lower end, and 1 - 0.8, which is a little less than 0.2, belongs to the bin that begins there.
    bins = np.minimum(np.floor(probability * count + 1e-9).astype(int), count - 1)
    records = []
    for number in np.unique(bins):
        inside = bins == number
        n, share = int(inside.sum()), float(happened[inside].mean())
        sizes = np.unique(clusters[inside], return_counts=True)[1]
        low, high = wilson(share, n**2 / float((sizes**2).sum()))
        records.append(
            {
                "bin": int(number),
                "low": number / count,
                "high": (number + 1) / count,
                "confidence": float(probability[inside].mean()),
                "accuracy": share,
                "ci_low": low,
                "ci_high": high,
                "n": n,
            }
        )
    return pd.DataFrame(records)
