r"""Where in the model the chosen heads lie, so that models of different size compare.

Head L5H3 of one model has nothing to do with L5H3 of another, but "two thirds of the way up" may mean the same in both.
Layer :math:`l` of :math:`L` has depth :math:`l / (L - 1)`, from 0 for the first to 1 for the last. The distance between two
sets is the earth mover's (Wasserstein) distance between the depths of their heads,

.. math:: W = \int_0^1 | F_a(x) - F_b(x) | \, dx,

how far a head has to be moved on average, in units of the model's depth. Two samples of one distribution have a positive
distance too, the larger the smaller they are. So the table also has the mean distance if the heads of both sets are pooled
and dealt out again (a permutation test; Good 2005).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from arm_lens.comparison.tables import pairs
from arm_lens.evaluation.statistics import holm
from arm_lens.frames import DEPTH
from arm_lens.heads import Chosen, Named, head_sets


def depth_profile(heads: Named[Chosen] | pd.DataFrame) -> pd.DataFrame:
    """How many heads each layer has in a set, by the layer's depth.

    Args:
        heads: as in `arm_lens.heads.head_sets`: sets by name, of any models, or what has them.

    Returns:
        A row per name and layer: name, layer, depth (0 the first layer, 1 the last; 0 in a model of one layer), chosen,
        n_heads (of the layer), share (chosen / n_heads).

    Raises:
        ValueError: if there is no set.
    """
    sets = head_sets(heads)
    if not sets:
        raise ValueError("there is no set of heads to profile")
    rows = [
        (name, layer, layer / max(one.n_layers - 1, 1), chosen, one.n_heads, chosen / one.n_heads)
        for name, one in sets.items()
        for layer, chosen in enumerate(one.mask.sum(dim=1).tolist())
    ]
    return pd.DataFrame(rows, columns=list(DEPTH.required))


def depth_distance(heads: Named[Chosen] | pd.DataFrame, *, deals: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How far apart in depth the heads of each two sets lie.

    The null: the heads of both sets come from one distribution over depth. The p-value is the share of deals at least as far
    apart, including the real one.

    Args:
        heads: as in `arm_lens.heads.head_sets`: sets by name, of any models, or what has them.
        deals: how many; all, if there are not so many.
        seed: of the deals.

    Returns:
        A row per pair: a, b, size_a, size_b, wasserstein (in units of the model's depth), chance (its mean over deals),
        p_value, p_holm (corrected for all pairs). NaN, and p-values of 1, if a set is empty.

    Raises:
        ValueError: if there are fewer than two sets.
    """
    depths = {
        name: np.array([head.layer / max(one.n_layers - 1, 1) for head in one])
        for name, one in head_sets(heads).items()
    }
    rows = []
    for a, b, one, two in pairs(depths, "head sets"):
        found = (np.nan, np.nan, 1.0)
        if len(one) and len(two):
            dealt = stats.permutation_test(
                (one, two), stats.wasserstein_distance, vectorized=False, n_resamples=deals, alternative="greater",
                random_state=np.random.default_rng(seed),
            )  # fmt: skip
            found = float(dealt.statistic), float(dealt.null_distribution.mean()), float(dealt.pvalue)
        rows.append((a, b, len(one), len(two), *found))
    table = pd.DataFrame(rows, columns=["a", "b", "size_a", "size_b", "wasserstein", "chance", "p_value"])
    return table.assign(p_holm=holm(table["p_value"].to_numpy()))
