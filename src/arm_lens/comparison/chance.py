r"""How many heads two sets share by chance: the null of every comparison of sets.

Two random sets of :math:`a` and :math:`b` out of :math:`N` heads share :math:`K` of them, where

.. math:: P(K = k) = \binom{a}{k} \binom{N - a}{b - k} \Big/ \binom{N}{b},

the hypergeometric distribution. Sets that merely prefer the same layers share heads too. To ask whether they share more
than that, the random sets have as many heads in every layer as the real ones; :math:`K` is then a sum of independent
hypergeometric numbers, one per layer, and its distribution their convolution. Both are computed here in one way: the
heads fall into *strata*, a single one or one per layer, and each stratum keeps its number of chosen heads. (It does not
matter whether both sets are random or one stays as it is.) What is expected of the Jaccard index follows exactly, as
:math:`|A \cup B| = a + b - K`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from arm_lens.heads import HeadSet


def shared_by_chance(one: HeadSet, two: HeadSet, *, within_layers: bool) -> Float[np.ndarray, " shared"]:
    """The probabilities of sharing 0, 1, 2, ... heads, if the heads of either set are drawn at random.

    Args:
        one: a set.
        two: another of the same model.
        within_layers: draw as many in every layer as there are, instead of as many in all.
    """
    size = one.n_heads if within_layers else one.n_layers * one.n_heads
    chosen, others = (_per_stratum(heads, within_layers) for heads in (one, two))
    most = int(np.minimum(chosen, others).max(initial=0))
    per_stratum = stats.hypergeom.pmf(np.arange(most + 1), size, chosen[:, None], others[:, None])
    total = np.ones(1)
    for stratum, limit in zip(per_stratum, np.minimum(chosen, others), strict=True):
        total = np.convolve(total, stratum[: limit + 1])
    return total


def expected_jaccard(one: HeadSet, two: HeadSet, chances: Float[np.ndarray, " shared"]) -> float:
    """The mean Jaccard index of sets of these sizes, given the probabilities of sharing 0, 1, 2, ... heads."""
    shared = np.arange(len(chances))
    union = len(one) + len(two) - shared
    return float(chances @ (shared / union)) if union[0] else 1.0  # two empty sets are equal


def _per_stratum(heads: HeadSet, within_layers: bool) -> Int[np.ndarray, " stratum"]:
    counts = np.asarray(heads.mask.sum(dim=1).numpy(), dtype=np.int64)
    return counts if within_layers else counts.sum(keepdims=True)
