r"""How many heads two sets share by chance: the null of every comparison of sets.

Two random sets of :math:`a` and :math:`b` out of :math:`N` heads share :math:`K` of them, where

.. math:: P(K = k) = \binom{a}{k} \binom{N - a}{b - k} \Big/ \binom{N}{b},

the hypergeometric distribution. Sets that merely prefer the same layers share heads too. To ask whether they share more
than that, the random sets have as many heads in every layer as the real ones; :math:`K` is then a sum of independent
hypergeometric numbers, one per layer, and its distribution their convolution. Both are computed here in one way: the
heads fall into *strata*, a single one or one per layer, and the number of chosen heads in each stratum is fixed. (It does
not matter whether both sets are random or only one.) The mean Jaccard index follows exactly, as
:math:`|A \cup B| = a + b - K`.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from jaxtyping import Float
from scipy import stats

from arm_lens.heads import HeadSet


def shared_by_chance(one: HeadSet, two: HeadSet, *, within_layers: bool) -> Float[np.ndarray, " shared"]:
    """The probabilities that random sets of these sizes share 0, 1, 2, ... heads.

    Args:
        one: a set.
        two: another of the same model.
        within_layers: fix the number of heads in every layer instead of the number in all.
    """
    size = one.n_heads if within_layers else one.n_layers * one.n_heads
    counts = np.stack([heads.mask.sum(dim=1).numpy() for heads in (one, two)])
    strata = counts.T if within_layers else counts.sum(axis=1)[None]
    parts = [stats.hypergeom.pmf(np.arange(min(a, b) + 1), size, a, b) for a, b in strata.tolist()]
    return reduce(np.convolve, parts)


def expected_jaccard(one: HeadSet, two: HeadSet, chances: Float[np.ndarray, " shared"]) -> float:
    """The mean Jaccard index of sets of these sizes, given the probabilities of sharing 0, 1, 2, ... heads."""
    shared = np.arange(len(chances))
    union = len(one) + len(two) - shared
    return float(chances @ (shared / union)) if union[0] else 1.0  # two empty sets are equal
