"""Do two sets of heads share more than sets of their size would by chance?

The Jaccard index, shared / union, says how alike two sets are; the overlap coefficient, shared / smaller, whether one
lies within the other. Neither means anything without its chance level: of 48 heads, two random sets of 24 have a Jaccard
index of one third. See `arm_lens.comparison.chance` for what chance is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from arm_lens.comparison.chance import expected_jaccard, shared_by_chance
from arm_lens.comparison.tables import pairs, same_size
from arm_lens.evaluation.statistics import holm
from arm_lens.heads import Chosen, Named, head_sets


def overlap(heads: Named[Chosen] | pd.DataFrame, *, within_layers: bool = False) -> pd.DataFrame:
    """What each two sets of heads share, beside what they would share by chance.

    The null: the heads of either set are drawn at random, independently of the other's, keeping its size, and with
    ``within_layers`` its number of heads in every layer. The p-value is one-sided and exact: the probability of sharing
    at least so many (Fisher's exact test; within layers, the convolution of its hypergeometric distributions). There
    are no intervals, as two given sets share what they share.

    Args:
        heads: sets by name (of criteria, seeds, selectors), or what has them, as `arm_lens.heads.head_sets` takes it; of one
            model or of models of the same size.
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
        rows.append(
            {
                "a": a,
                "b": b,
                "size_a": len(one),
                "size_b": len(two),
                "shared": shared,
                "expected": float(chances @ np.arange(len(chances))),
                "jaccard": one.jaccard(two),
                "jaccard_chance": expected_jaccard(one, two, chances),
                "overlap": shared / smaller if smaller else np.nan,
                "p_value": min(1.0, float(chances[shared:].sum())),
                "n_heads": one.n_layers * one.n_heads,
            }
        )
    table = pd.DataFrame(rows)
    table.insert(len(table.columns) - 1, "p_holm", holm(table["p_value"].to_numpy()))
    return table
