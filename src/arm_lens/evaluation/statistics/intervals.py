"""How far an average may be off: 95 % intervals over items, and over samples and seeds where there are several.

One 0/1 verdict per cluster is a binomial sample: Wilson's interval. Anything else is resampled by clusters: of G
clusters, G - 1 are sampled with replacement, and the mean is over their items. With G - 1, the variance over resamples is
the variance of the mean, s^2 / G; with G it would be (G - 1) / G of that (Rao and Wu 1988). The interval is between quantiles
of the resampled means, stretched by t / z as in Hesterberg (2015, "expanded percentile").

If fewer than ten clusters differ from the commonest one, resampling does not work: if all are right, so is every resample,
and the interval would have no width. Then it is Wilson's, with the number of clusters for n, which errs on the wide side: an
average of numbers between 0 and 1 varies at most as much as a coin of the same mean.

*Several samples or seeds* (of a fully crossed table) add the variances of their means, V_samples = s^2 / D and V_seeds, to
V_items, and the stretch becomes t / z * sqrt(V / V_items), with Satterthwaite's degrees of freedom for t, but at least
three. Resampling samples instead would be no better founded: three of them make ten resamples, whose variance is too small
by a third. An interaction of items and samples counts in both variances, hence this errs on the wide side, like the
variance of Cameron, Gelbach and Miller (2011) without the term they subtract and the "pigeonhole" bootstrap of Owen
(2007), but by less than the latter. The interval is that of the mean over all samples and seeds there might have been, of
which two or three say little. In simulations (200 items, an accuracy that varies over samples with a standard deviation of
0, 0.02, 0.05, 0.1) it covers 97, 97, 93, 89 % with two samples, 97, 96, 94, 91 % with three, 98, 97, 95, 93 % with five.
(Fewer degrees of freedom than three would hardly cover more: what misses are intervals from samples that happen to agree.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))
FEW = 10
"""With fewer clusters than this that differ from the commonest one, there is nothing to resample."""
LEAST_FREEDOM = 3.0
"""The least degrees of freedom of an interval over samples and seeds."""
VariancePart = tuple[float, float]
"""A variance and its degrees of freedom."""


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and the number of items."""

    value: float
    low: float
    high: float
    n: int

    def columns(self, name: str, ends: str = "") -> dict[str, float]:
        """The number as column ``name``, and its interval as ``{ends}_low`` and ``{ends}_high``; as ``name`` by default."""
        return {name: self.value, f"{ends or name}_low": self.low, f"{ends or name}_high": self.high}


def stable_seed(*key: object) -> int:
    """A seed made of names, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(repr([str(part) for part in key]).encode(), digest_size=8).digest(), "big")


class ClusterBootstrap:
    """Resamples of the clusters of some items, the same for everything that is computed on these items.

    Args:
        clusters: the cluster of each item, numbered from 0 without gaps.
        seed: of the resamples.
        resamples: how many.

    Raises:
        ValueError: if there is no item, or a number below the largest is unused.
    """

    def __init__(self, clusters: Int[np.ndarray, " item"], *, seed: int = 0, resamples: int = 2000) -> None:
        if not len(clusters):
            raise ValueError("there are no items to estimate from")
        self.clusters, self.seed, self.resamples = clusters, seed, resamples
        self.sizes: Float[np.ndarray, " cluster"] = np.bincount(clusters).astype(float)
        if not self.sizes.all():
            raise ValueError(f"cluster {int(np.argmin(self.sizes))} has no items, but a larger number has")

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def independent(self) -> float:
        """How many clusters of equal size would tell as much: (sum of sizes)^2 / sum of squared sizes (Kish)."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum())

    @cached_property
    def weights(self) -> Float[np.ndarray, "resample cluster"]:
        """How often each cluster is in each resample of G - 1."""
        count = len(self)
        drawn = np.random.default_rng(self.seed).integers(count, size=(self.resamples, count - 1))
        places = drawn + count * np.arange(self.resamples)[:, None]
        counts = np.bincount(places.ravel(), minlength=self.resamples * count)
        return counts.reshape(self.resamples, count).astype(float)

    @cached_property
    def resampled_sizes(self) -> Float[np.ndarray, " resample"]:
        """The number of items in each resample."""
        return np.asarray(self.weights @ self.sizes)

    def totals(self, values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " cluster"]:
        """Sums within clusters."""
        return np.bincount(self.clusters, weights=values, minlength=len(self))

    def means(self, values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " resample"]:
        """The mean of the items of each resample."""
        if len(self) == 1:
            return np.full(self.resamples, values.mean())
        return np.asarray(self.weights @ self.totals(values) / self.resampled_sizes)

    def hardly_varies(self, values: Float[np.ndarray, " item"]) -> bool:
        """Whether fewer than ten clusters differ in their mean from the commonest mean."""
        counts = np.unique(np.round(self.totals(values) / self.sizes, 9), return_counts=True)[1]
        return bool(len(self) - counts.max() < FEW)


def wilson(share: float, n: int | float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` (which, like the successes, need not be whole)."""
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    reach = Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5 / scale
    # Rounding must not leave the share out.
    return min(share, max(0.0, float(centre - reach))), max(share, min(1.0, float(centre + reach)))


def condition_parts(table: Float[np.ndarray, "sample seed"]) -> list[VariancePart]:
    """What samples, and what seeds, add to the variance of the mean of the table; nothing if there is only one."""
    margins = (table.mean(axis=1), table.mean(axis=0))
    return [(float(margin.var(ddof=1)) / len(margin), len(margin) - 1.0) for margin in margins if len(margin) > 1]


def widened(
    value: float,
    ends: tuple[float, float],
    items: VariancePart,
    parts: Sequence[VariancePart],
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """An interval over items, ``ends``, stretched about ``value`` for few clusters and for further variances."""
    every = [part for part in (items, *parts) if part[0] > 0]
    total = sum(variance for variance, _ in every)
    if not total:
        return ends
    freedom = total**2 / max(sum(variance**2 / degrees for variance, degrees in every), 1e-300)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, max(freedom, LEAST_FREEDOM) if parts else freedom))
    segment = quantile / Z * (total / items[0]) ** 0.5
    low, high = (value + segment * (end - value) for end in ends)
    return max(bounds[0], min(low, value)), min(bounds[1], max(high, value))


def interval(
    value: float,
    resampled: Float[np.ndarray, " resample"] | None,
    fallback: Callable[[], tuple[float, float]],
    *,
    clusters: int,
    parts: Sequence[VariancePart] = (),
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """The 95 % interval of any average over items, samples and seeds.

    Args:
        value: the estimate.
        resampled: the estimate of each resample of clusters, without those that are NaN; None if the clusters hardly vary.
        fallback: gives the interval over items if the resamples do not vary.
        clusters: how many.
        parts: variances that samples and seeds add.
        bounds: the smallest and the largest possible value.
    """
    if resampled is not None:
        resampled = resampled[np.isfinite(resampled)]
        variance = float(resampled.var(ddof=1)) if len(resampled) > 1 else 0.0
        if variance > 1e-18:
            low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            return widened(value, (float(low), float(high)), (variance, clusters - 1.0), parts, bounds)
    low, high = fallback()
    return widened(value, (low, high), (((high - low) / (2 * Z)) ** 2, float("inf")), parts, bounds)


def mean_estimate(values: Float[np.ndarray, "sample seed item"], bootstrap: ClusterBootstrap) -> Estimate:
    """The mean of numbers between 0 and 1 over samples, seeds and items.

    Args:
        values: 1 for a right verdict, 0 for a wrong one, 0.5 for a tie; or squared errors of probabilities.
        bootstrap: resamples of these items.
    """
    per_item = values.mean(axis=(0, 1))
    mean, n = float(per_item.mean()), len(per_item)
    once = values.shape[:2] == (1, 1)
    if once and len(bootstrap) == n and np.isin(per_item, (0.0, 1.0)).all():
        return Estimate(mean, *wilson(mean, n), n)
    low, high = interval(
        mean,
        None if bootstrap.hardly_varies(per_item) else bootstrap.means(per_item),
        lambda: wilson(mean, bootstrap.independent),
        clusters=len(bootstrap),
        parts=condition_parts(values.mean(axis=2)),
    )
    return Estimate(mean, low, high, n)


def accuracy(
    correct: Float[np.ndarray, " item"] | Float[np.ndarray, "sample item"] | Float[np.ndarray, "sample seed item"],
    *,
    clusters: Sequence[Hashable] | Int[np.ndarray, " item"] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """The mean of ``correct`` with its 95 % interval.

    Args:
        correct: 1 for a right verdict, 0 for a wrong one, 0.5 for a tie; per item, per sample and item, or per sample, seed
            and item.
        clusters: a number, a prompt or anything hashable for each item, the same for items that belong together; by
            default each item is a cluster.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: if there is no item.
    """
    if correct.size == 0:
        raise ValueError("there is no accuracy of no items")
    items = np.arange(correct.shape[-1]) if clusters is None else clusters
    known = np.unique(items).tolist() if isinstance(items, np.ndarray) else dict.fromkeys(items)
    number = {cluster: index for index, cluster in enumerate(known)}
    numbers = np.array([number[cluster] for cluster in items])
    table = correct if correct.ndim == 3 else np.atleast_2d(correct)[:, None]
    return mean_estimate(table, ClusterBootstrap(numbers, seed=seed, resamples=resamples))
