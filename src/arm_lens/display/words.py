"""Numbers and heads in a few words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor


def number(value: float) -> str:
    """Three significant digits."""
    return "not measured" if np.isnan(value) else f"{value:.3g}"


def head_name(layer: int, head: int) -> str:
    """``L3H5``: how a head is written everywhere."""
    return f"L{layer}H{head}"


def listed(names: Iterable[object], *, most: int = 12) -> str:
    """``{L0H3, L2H1}``, of which at most ``most`` are named and the others counted."""
    texts = [str(name) for name in names]
    rest = [f"... {len(texts) - most} more"] if len(texts) > most else []
    return "{" + ", ".join([*texts[:most], *rest]) + "}"


def counted(count: int, one: str) -> str:
    """``1 head``, ``2 heads``."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def size(n_layers: int, n_heads: int) -> str:
    """``6 layers of 8 heads``."""
    return f"{counted(n_layers, 'layer')} of {counted(n_heads, 'head')}"


def strongest(values: Float[Tensor, "layer head"], k: int, *, lowest: bool = False) -> list[tuple[int, int]]:
    """(layer, head) of the ``k`` highest values, or of the lowest; heads that were not measured are left out."""
    grid = as_array(values)
    keys = (grid if lowest else -grid).ravel()
    order = np.argsort(keys, kind="stable")  # not-a-numbers come last
    return [divmod(int(place), grid.shape[1]) for place in order[:k] if not np.isnan(keys[place])]


def with_values(values: Float[Tensor, "layer head"], heads: Iterable[tuple[int, int]]) -> str:
    """``L1H2 0.9, L0H0 0.1``: heads with their values."""
    grid = as_array(values)
    return ", ".join(f"{head_name(layer, head)} {number(grid[layer, head])}" for layer, head in heads) or "none"


def first_and_last(history: pd.DataFrame, column: str) -> str:
    """Where a search began and where it ended."""
    known = history[column].dropna() if column in history else pd.Series(dtype=float)
    if known.empty:
        return "unknown"
    first, last = number(float(known.iloc[0])), number(float(known.iloc[-1]))
    return first if len(known) == 1 else f"{first} at first, {last} at last"


def as_array(values: Float[Tensor, "layer head"]) -> Float[np.ndarray, "layer head"]:
    """The values in float64, wherever and in whichever precision they are."""
    return values.detach().double().cpu().numpy()
