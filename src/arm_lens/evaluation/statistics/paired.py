"""Is one judge better than another on the same items?

*Interval*: of the difference of accuracies, over the same resamples of clusters for both judges, so that what makes an
item hard for both cancels. Samples and seeds widen it as in `intervals`: by the scatter of the differences if both judges
have equally many (sample 3 of both is the same examples); otherwise the judges' own variances add.

*Sign flips*: if the judges are alike, each cluster's difference d_g might as well have had the other sign. The p-value is
the share of the 2^G flips whose sum is at least as far from 0 as the sum seen. Sums of verdicts are whole multiples of
a half (of a fraction of it, for means over samples), and a sum of independently flipped whole numbers has the
characteristic function prod_g cos(d_g t), from which its distribution follows by a Fourier transform: so the p-value is
exact for any number of clusters, without Monte Carlo. With one 0/1 verdict per cluster it is McNemar's exact test. The
flips say what other items might have given, with these samples and seeds; only the interval speaks of others.

*Holm*: the more subsets are tested, the more are significant by luck; Holm (1979) keeps the chance of any at 5 %.
"""

from __future__ import annotations

from math import lcm

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from arm_lens.evaluation.statistics.intervals import (
    ClusterBootstrap,
    Estimate,
    VariancePart,
    condition_parts,
    interval,
    wilson,
)


def paired_difference(
    judge: Float[np.ndarray, "sample seed item"],
    other: Float[np.ndarray, "other_sample other_seed item"],
    bootstrap: ClusterBootstrap,
) -> Estimate:
    """The accuracy of ``judge`` minus that of ``other``, both on the same items in the same order.

    If the judges differ on fewer than ten clusters, the interval is made of Wilson's intervals of how often either is the
    better one, squared and added (Newcombe 1998; Zou and Donner 2008).

    Args:
        judge: 1 for a right verdict, 0 for a wrong one, 0.5 for a tie.
        other: likewise.
        bootstrap: resamples of these items.
    """
    per_item = judge.mean(axis=(0, 1)) - other.mean(axis=(0, 1))
    value = float(per_item.mean())
    low, high = interval(
        value,
        None if bootstrap.hardly_varies(per_item) else bootstrap.means(per_item),
        lambda: _of_few_differences(per_item, bootstrap),
        clusters=len(bootstrap),
        parts=_parts_of_difference(judge.mean(axis=2), other.mean(axis=2)),
        bounds=(-1.0, 1.0),
    )
    return Estimate(value, low, high, len(per_item))


def permutation_test(
    judge: Float[np.ndarray, "sample seed item"],
    other: Float[np.ndarray, "other_sample other_seed item"],
    clusters: Int[np.ndarray, " item"],
) -> float:
    """The two-sided p-value of the difference in accuracy under all sign flips of clusters.

    Args:
        judge: 1 for a right verdict, 0 for a wrong one, 0.5 for a tie.
        other: likewise, on the same items.
        clusters: the number of each item's cluster.

    Raises:
        ValueError: if a verdict is something else.
    """
    if not all(np.array_equal(np.rint(2 * verdicts), 2 * verdicts) for verdicts in (judge, other)):
        raise ValueError("a verdict is 0, 0.5 or 1")
    conditions = [verdicts.shape[0] * verdicts.shape[1] for verdicts in (judge, other)]
    common = lcm(*conditions)  # in units of 1 / (2 common), means over conditions are whole numbers
    units = [2 * v.sum(axis=(0, 1)) * (common // count) for v, count in zip((judge, other), conditions, strict=True)]
    return sign_flip_test(np.rint(np.bincount(clusters, weights=units[0] - units[1])).astype(np.int64))


def sign_flip_test(differences: Int[np.ndarray, " cluster"]) -> float:
    """The share of sign flips whose sum is at least as far from 0 as that of ``differences``.

    Exact up to rounding errors of about 1e-15; so that these cannot matter, shares below 1e-12 are given as 1e-12.

    Args:
        differences: whole numbers, one per cluster.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total = int(abs(differences.sum()))
    if total == 0:
        return 1.0
    shared = int(np.gcd.reduce(sizes))
    sizes, total = sizes // shared, total // shared
    points = 2 * int((sizes * counts).sum()) + 1
    angles = 2 * np.pi * np.arange(points // 2 + 1) / points
    characteristic = np.ones(len(angles))
    for size, count in zip(sizes, counts, strict=True):
        characteristic *= np.cos(size * angles) ** count
    chances = np.fft.irfft(characteristic, n=points)  # of the sum being 0, 1, 2, ..., and then the negative ones
    return float(np.clip(2 * chances[total : points // 2 + 1].sum(), 1e-12, 1.0))


def mcnemar_test(judge: Float[np.ndarray, " item"], other: Float[np.ndarray, " item"]) -> float:
    """McNemar's exact two-sided p-value of two judges' 0/1 verdicts on independent items.

    Raises:
        ValueError: if a verdict is neither 0 nor 1.
    """
    if not np.isin(np.concatenate([judge, other]), (0.0, 1.0)).all():
        raise ValueError("McNemar's test is for verdicts that are right (1) or wrong (0), without ties")
    better, worse = int((judge > other).sum()), int((judge < other).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's corrected p-values, in the same order: p_(i) * (m - i + 1), made ascending."""
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def _of_few_differences(per_item: Float[np.ndarray, " item"], bootstrap: ClusterBootstrap) -> tuple[float, float]:
    """The interval of the difference between how much either judge is better by."""
    by_cluster, shares = bootstrap.totals(per_item) / bootstrap.sizes, bootstrap.sizes / bootstrap.sizes.sum()
    better, worse = (float(shares @ np.maximum(part, 0.0)) for part in (by_cluster, -by_cluster))
    ahead, behind = wilson(better, bootstrap.independent), wilson(worse, bootstrap.independent)
    down = ((better - ahead[0]) ** 2 + (behind[1] - worse) ** 2) ** 0.5
    up = ((ahead[1] - better) ** 2 + (worse - behind[0]) ** 2) ** 0.5
    return better - worse - down, better - worse + up


def _parts_of_difference(
    judge: Float[np.ndarray, "sample seed"], other: Float[np.ndarray, "other_sample other_seed"]
) -> list[VariancePart]:
    """What samples and seeds add to the variance of the difference of two tables of accuracies."""
    parts: list[VariancePart] = []
    for axis in (1, 0):  # samples, then seeds
        margins = [table.mean(axis=axis) for table in (judge, other)]
        same = len(margins[0]) == len(margins[1])
        for margin in [margins[0] - margins[1]] if same else margins:
            parts += condition_parts(margin[:, None])
    return parts
