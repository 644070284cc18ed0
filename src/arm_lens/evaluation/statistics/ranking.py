"""The area under the ROC curve: how often a response that meets the criterion gets the higher reward.

It is the Mann-Whitney U statistic over the number of pairs of a meeting and a falling-short response, a tie counting one
half. Rewards of different samples and seeds are on different scales, so it is computed within each and then averaged. A
resample in which response i occurs w_i times has the area

    sum_ij w_i w_j k_ij / (sum_i w_i sum_j w_j),    k_ij = P(reward_i > reward_j) + P(reward_i = reward_j) / 2,

i running over the meeting and j over the other responses, and P over samples and seeds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from arm_lens.evaluation.statistics.intervals import FEW, ClusterBootstrap, Estimate, condition_parts, interval, wilson

BLOCK = 4_000_000
"""Pairs compared at a time."""


def roc_area(
    reward: Float[np.ndarray, "sample seed item"], label: Bool[np.ndarray, " item"], bootstrap: ClusterBootstrap
) -> Estimate:
    """The area under the ROC curve, averaged over samples and seeds, with an interval clustered by item.

    If fewer than ten clusters have a response whose place among the others differs from the commonest place (all are in
    perfect order, say), the interval is Wilson's, with the number of clusters of the rarer label for n: the variance of the
    area A is at most A (1 - A) / min(meeting, others) (Birnbaum and Klose 1957).

    Args:
        reward: of each response.
        label: whether it meets the criterion.
        bootstrap: resamples of these items.

    Returns:
        The estimate; NaN, with its interval, if there is only one label or a reward is NaN.
    """
    n, meeting = len(label), int(label.sum())
    if meeting in (0, n) or np.isnan(reward).any():
        return Estimate(np.nan, np.nan, np.nan, n)
    ranks = rankdata(reward, axis=2)[..., label].sum(axis=2)
    table = (ranks - meeting * (meeting + 1) / 2) / (meeting * (n - meeting))
    value = float(table.mean())
    numbers = bootstrap.clusters[label], bootstrap.clusters[~label]
    wins, place = _kernel(reward, label, bootstrap)
    pairs = np.prod([bootstrap.weights[:, part].sum(axis=1) for part in numbers], axis=0)
    with np.errstate(invalid="ignore"):  # a resample without one of the labels has no area
        resampled = wins / pairs
    low, high = interval(
        value,
        None if _in_few_places(place, bootstrap) else resampled,
        lambda: wilson(value, min(len(np.unique(part)) for part in numbers)),
        clusters=len(bootstrap),
        parts=condition_parts(table),
    )
    return Estimate(value, low, high, n)


def _kernel(
    reward: Float[np.ndarray, "sample seed item"], label: Bool[np.ndarray, " item"], bootstrap: ClusterBootstrap
) -> tuple[Float[np.ndarray, " resample"], Float[np.ndarray, " item"]]:
    """The weighted wins of each resample, and each item's place: its share of pairs that are in the right order."""
    rewards = reward.reshape(-1, reward.shape[2])
    above, below = np.flatnonzero(label), np.flatnonzero(~label)
    wins = np.zeros((bootstrap.resamples, len(below)))
    place = np.zeros(len(label))
    step = max(1, BLOCK // len(below))
    for start in range(0, len(above), step):
        block = above[start : start + step]
        kernel = np.zeros((len(block), len(below)))
        for one in rewards:
            kernel += (one[block, None] > one[below]) + 0.5 * (one[block, None] == one[below])
        kernel /= len(rewards)
        wins += bootstrap.weights[:, bootstrap.clusters[block]] @ kernel
        place[block] = kernel.mean(axis=1)
        place[below] += kernel.sum(axis=0) / len(above)
    return (wins * bootstrap.weights[:, bootstrap.clusters[below]]).sum(axis=1), place


def _in_few_places(place: Float[np.ndarray, " item"], bootstrap: ClusterBootstrap) -> bool:
    _, which, counts = np.unique(np.round(place, 9), return_inverse=True, return_counts=True)
    return len(np.unique(bootstrap.clusters[which != counts.argmax()])) < FEW
