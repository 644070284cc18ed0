"""How an accuracy varies over example samples, and over the judge's own seeds, separately.

Every sample d and seed s judges the same items, so the verdicts are a crossed table with random effects,

    y[d, s, g] = mean + sample[d] + seed[s] + cluster[g] + all interactions,

and the accuracy of a sample and seed is the mean over clusters g. Its scatter over samples exceeds the variance of sample[d]:
with finitely many items, samples also differ by chance. The chance part is not p (1 - p) / n, as an item that is hard under
every sample moves all accuracies alike; it is the interaction of items with samples, which the table shows. Equating mean
squares with their expectations (Cornfield and Tukey 1956) gives

    var(sample) = (MS[sample] - MS[sample, cluster] - MS[sample, seed] + MS[sample, seed, cluster]) / (S G),

the last two only with several seeds, and likewise for seeds. The estimate is unbiased, so it is sometimes negative if the
truth is small; its square root is then given as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from arm_lens.evaluation.statistics.intervals import ClusterBootstrap


@dataclass(frozen=True)
class Variation:
    """Variances of the accuracy over samples and over seeds: unbiased, so possibly negative; NaN if there is only one."""

    var_samples: float
    """Between samples, of the accuracy on infinitely many such items: averaged over all seeds if there are several;
    with a single seed, that seed's reaction to the sample is in it."""
    var_seeds: float
    """Between seeds, likewise."""

    @property
    def sd_samples(self) -> float:
        """The standard deviation over samples; 0 if the estimated variance is negative, NaN if there is one sample."""
        return float(np.sqrt(np.maximum(0.0, self.var_samples)))

    @property
    def sd_seeds(self) -> float:
        """The standard deviation over seeds, likewise."""
        return float(np.sqrt(np.maximum(0.0, self.var_seeds)))


def variation(correct: Float[np.ndarray, "sample seed item"], bootstrap: ClusterBootstrap) -> Variation:
    """The variances of the accuracy over samples and over seeds.

    Clusters of unequal sizes enter by their share in the accuracy: accuracy + (right - accuracy * size) * G / n.

    Args:
        correct: 1 for a right verdict, 0 for a wrong one, 0.5 for a tie.
        bootstrap: knows the clusters of these items.
    """
    if len(bootstrap) < 2:
        return Variation(math.nan, math.nan)
    right = np.apply_along_axis(bootstrap.totals, 2, correct)
    level = correct.mean(axis=2, keepdims=True)
    table = level + (right - level * bootstrap.sizes) * len(bootstrap) / correct.shape[2]
    return Variation(_first_factor(table), _first_factor(table.swapaxes(0, 1)))


def _first_factor(table: Float[np.ndarray, "sample seed cluster"]) -> float:
    samples, seeds, clusters = table.shape
    if samples < 2:
        return math.nan
    squares = _mean_square(table, (0,)) - _mean_square(table, (0, 2))
    if seeds > 1:
        squares += _mean_square(table, (0, 1, 2)) - _mean_square(table, (0, 1))
    return float(squares / (seeds * clusters))


def _mean_square(table: Float[np.ndarray, "sample seed cluster"], factors: tuple[int, ...]) -> float:
    """The mean square of the interaction of these factors (of a single one: of its main effect)."""
    others = tuple(axis for axis in range(3) if axis not in factors)
    effect = table.mean(axis=others, keepdims=True)
    for axis in factors:
        effect = effect - effect.mean(axis=axis, keepdims=True)
    freedom = math.prod(table.shape[axis] - 1 for axis in factors)
    return float((effect**2).sum() * math.prod(table.shape[axis] for axis in others) / freedom)
