r"""Where in the model the chosen heads lie, so that models of different size compare.

Head L5H3 of one model has nothing to do with L5H3 of another, but "two thirds of the way up" may mean the same in both.
Layer :math:`l` of :math:`L` has depth :math:`l / (L - 1)`, from 0 for the first to 1 for the last. The distance between two
sets is the earth mover's (Wasserstein) distance between the depths of their heads,

.. math:: W = \int_0^1 | F_a(x) - F_b(x) | \, dx,

how far a head has to be moved on average, in units of the model's depth. It is positive for two draws of one distribution
too, the more so the smaller they are, so it stands beside its mean under random relabelling: the heads of both sets are
thrown together and dealt out again (a permutation test; Good 2005).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import wasserstein_distance

from arm_lens.comparison.tables import pairs
from arm_lens.evaluation.statistics import holm
from arm_lens.heads import Chosen, HeadSet, Named, head_sets


def depth_profile(heads: Named[Chosen] | pd.DataFrame) -> pd.DataFrame:
    """How many heads each layer has in a set, by the layer's depth.

    Args:
        heads: sets by name, of any models, or what has them, as `arm_lens.heads.head_sets` takes it.

    Returns:
        A row per name and layer: name, layer, depth (0 the first layer, 1 the last; 0 in a model of one layer), chosen,
        n_heads (of the layer), share (chosen / n_heads).

    Raises:
        ValueError: if there is no set.
    """
    sets = head_sets(heads)
    if not sets:
        raise ValueError("there is no set of heads to profile")
    parts = []
    for name, one in sets.items():
        layers, chosen = np.arange(one.n_layers), one.mask.sum(dim=1).numpy()
        columns = {
            "name": name,
            "layer": layers,
            "depth": layers / max(one.n_layers - 1, 1),
            "chosen": chosen,
            "n_heads": one.n_heads,
            "share": chosen / one.n_heads,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def depth_distance(heads: Named[Chosen] | pd.DataFrame, *, deals: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How far apart in depth the heads of each two sets lie.

    The null: the heads of both sets come from one distribution over depth, so that which set a head is in may be dealt
    out again. The p-value is the share of deals at least as far apart, the real one included.

    Args:
        heads: sets by name, of any models, or what has them, as `arm_lens.heads.head_sets` takes it.
        deals: how many.
        seed: of the deals.

    Returns:
        A row per pair: a, b, size_a, size_b, wasserstein (in units of the model's depth), chance (its mean over deals),
        p_value, p_holm (corrected for all pairs). NaN, and p-values of 1, where a set is empty.

    Raises:
        ValueError: if there are fewer than two sets.
    """
    rows = []
    for a, b, one, two in pairs({name: _depths(one) for name, one in head_sets(heads).items()}, "head sets"):
        row = {"a": a, "b": b, "size_a": len(one), "size_b": len(two), "wasserstein": np.nan, "chance": np.nan}
        row["p_value"] = 1.0
        if len(one) and len(two):
            row["wasserstein"] = distance = float(wasserstein_distance(one, two))
            dealt = _dealt_again(one, two, deals, seed)
            row["chance"] = float(dealt.mean())
            row["p_value"] = float((1 + (dealt >= distance - 1e-9).sum()) / (1 + deals))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_value"].to_numpy()))


def _depths(heads: HeadSet) -> Float[np.ndarray, " head"]:
    return np.array([head.layer / max(heads.n_layers - 1, 1) for head in heads], dtype=float)


def _dealt_again(
    one: Float[np.ndarray, " head"], two: Float[np.ndarray, " other"], deals: int, seed: int
) -> Float[np.ndarray, " deal"]:
    """The distances between sets of these sizes dealt out of all heads together."""
    together = np.sort(np.concatenate([one, two]))
    first = np.arange(len(together)) < len(one)
    labels = np.random.default_rng(seed).permuted(np.tile(first, (deals, 1)), axis=1)
    below_one, below_two = (np.cumsum(part, axis=1)[:, :-1] / part[0].sum() for part in (labels, ~labels))
    return np.asarray(np.abs(below_one - below_two) @ np.diff(together))
