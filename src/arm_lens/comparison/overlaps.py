r"""Do two sets of heads share more than sets of their size would by chance?

The Jaccard index, shared / union, says how alike two sets are; the overlap coefficient, shared / smaller, whether one
lies within the other. Neither means anything without its chance level: of 48 heads, two random sets of 24 have a Jaccard
index of one third.

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
import pandas as pd
from jaxtyping import Float
from scipy import stats

from arm_lens.comparison.tables import pairs, same_size
from arm_lens.evaluation.statistics import holm
from arm_lens.heads import Chosen, HeadSet, Named, head_sets


def overlap(heads: Named[Chosen] | pd.DataFrame, *, within_layers: bool = False) -> pd.DataFrame:
    """What each two sets of heads share, and what they would share by chance.

    The null: either set is random, independently of the other, with the same number of heads, and with ``within_layers``
    the same number in every layer. The p-value is one-sided and exact: the probability of sharing at least so many
    (without ``within_layers``, Fisher's exact test). There are no intervals, as nothing was sampled.

    Args:
        heads: as in `arm_lens.heads.head_sets`: sets by name (of criteria, seeds, selectors), or what has them; of one model
            or of models of the same size.
        within_layers: compare with sets that prefer the same layers, instead of any sets of these sizes.

    Returns:
        A row per pair: a, b, size_a, size_b, shared, expected (by chance), jaccard (1 for two empty sets),
        jaccard_chance (its exact mean under the null), overlap (shared / smaller; NaN if that is empty), p_value, p_holm
        (corrected for all pairs given, Holm 1979), n_heads (of the model).

    Raises:
        ValueError: if there are fewer than two sets, or the models differ in size; naming the sets.
    """
    sets = head_sets(heads)
    same_size({name: (one.n_layers, one.n_heads) for name, one in sets.items()}, "head sets")
    rows = []
    for a, b, one, two in pairs(sets, "head sets"):
        chances = shared_by_chance(one, two, within_layers=within_layers)
        shared, smaller = len(one & two), min(len(one), len(two))
        by_chance = float(chances @ np.arange(len(chances))), expected_jaccard(one, two, chances)
        share, p_value = shared / smaller if smaller else np.nan, min(1.0, float(chances[shared:].sum()))
        rows.append((a, b, len(one), len(two), shared, by_chance[0], one.jaccard(two), by_chance[1], share, p_value))
    names = "a b size_a size_b shared expected jaccard jaccard_chance overlap p_value".split()
    table = pd.DataFrame(rows, columns=names)
    n_layers, n_heads = next(iter(sets.values())).mask.shape
    return table.assign(p_holm=holm(table["p_value"].to_numpy()), n_heads=n_layers * n_heads)


def shared_by_chance(one: HeadSet, two: HeadSet, *, within_layers: bool) -> Float[np.ndarray, " shared"]:
    """The probabilities that random sets of these sizes (with ``within_layers``, in every layer) share 0, 1, 2, ... heads."""
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
