"""Maps of heads and tables in a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from arm_lens.display.words import as_array
from arm_lens.safe_text import printable

LINE_WIDTH = 100
"""The widest line."""
QUANTILES = (0.5, 0.75, 0.9, 0.97)
SHADES = "·░▒▓█"
NEGATIVE_SHADES = "·-=≡#"
"""If there is no room for a sign and a shade."""
NOT_MEASURED = "×"


def text_map(values: Float[Tensor, "layer head"]) -> str:
    """A line per layer, layer 0 the lowest, then the heads' numbers and what the shades mean.

    Shades show the rank of the absolute value among all heads; half of the heads are a dot. If there is room, a minus stands
    before the shade of a negative value; if not, negative values have shades of their own. If even that is too wide,
    neighbouring heads share a place, which shows the strongest of them.
    """
    grid = as_array(values)
    n_layers, n_heads = grid.shape
    margin = len(f"L{n_layers - 1}") + 1
    room, signed = LINE_WIDTH - margin, bool((grid < 0).any())
    wide = 2 * n_heads <= room
    share = 1 if wide else -(-n_heads // room)
    known = np.sort(np.abs(grid[~np.isnan(grid)]))
    grid = _shared(grid, share)

    def place(value: float) -> str:
        if np.isnan(value):
            return NOT_MEASURED.rjust(1 + wide)
        smaller = float(np.searchsorted(known, abs(value))) / max(len(known) - 1, 1)
        level = sum(smaller >= quantile for quantile in QUANTILES)
        if not wide:
            return NEGATIVE_SHADES[level] if value < 0 else SHADES[level]
        return ("-" if value < 0 and level else " ") + SHADES[level]

    lines = [f"L{layer}".ljust(margin) + "".join(map(place, grid[layer])) for layer in reversed(range(n_layers))]
    step = 4 if wide else 8
    columns = range(0, min(grid.shape[1], room - 3), step)
    ticks = "".join(f"{column * share}".rjust(2 if wide else 1).ljust(step * (1 + wide)) for column in columns)
    legend = f"{SHADES[1:]} larger in size than 50, 75, 90, 97 % of the others"
    if signed:
        legend += ", - below 0" if wide else f"; {NEGATIVE_SHADES[1:]} the same below 0"
    if np.isnan(as_array(values)).any():
        legend += f"; {NOT_MEASURED} not measured"
    if share > 1:
        legend += f"; the strongest of {share} heads"
    axis = " " * margin + ticks.rstrip() + "  head" * (len(ticks) + margin + 6 <= LINE_WIDTH)
    return "\n".join([*lines, axis, textwrap.fill(legend, LINE_WIDTH)])


def _shared(grid: Float[np.ndarray, "layer head"], share: int) -> Float[np.ndarray, "layer column"]:
    """The largest in size of each ``share`` neighbours."""
    padded = np.pad(grid, ((0, 0), (0, -grid.shape[1] % share)), constant_values=np.nan)
    parts = rearrange(padded, "layer (column one) -> layer column one", one=share)
    best = np.where(np.isnan(parts), -1.0, np.abs(parts)).argmax(axis=-1)
    return np.asarray(np.take_along_axis(parts, best[..., None], axis=-1)[..., 0])


def frame_text(frame: pd.DataFrame, *, rows: int = 9, columns: int = 8) -> str:
    """A data frame with three decimals, the first and last rows and columns of a large one."""
    return printable(frame.to_string(float_format="{:.3f}".format, max_rows=rows, max_cols=columns, na_rep=""))
