"""Maps of a model's heads, layers upwards and heads to the right: their layout, and marks that survive a photocopy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display.maps import spaced
from arm_lens.plots.notation import HOVER
from arm_lens.plots.panels import BARE, Panels, balanced_columns, color_bar
from arm_lens.plots.theme import INK, narrow, page_height, page_width, signs

LARGEST_CELL = 28.0
READABLE = 15.0
"""Cells of fewer pixels have a stroke instead of a minus sign."""
TINY = 6.0
"""Cells of fewer pixels cannot be seen one at a time: those that stand out have a symbol."""
SYMBOL = 8.0
"""Pixels of that symbol."""
STANDING_OUT = 12
"""How many of the largest scores of a panel stand out."""
MOST_SYMBOLS = 0.05
"""The largest share of a panel's heads that have symbols; of more, the cells can be seen without."""
WIDEST, TALLEST = 560, 480
"""Pixels of the largest map; a model of more than 80 layers has a taller one."""
LOWEST_ROW = 6.0
"""Pixels of a layer in the map of such a model."""
CAPTION = (90, 170)
"""Pixels that the caption may take on a wide and on a narrow page."""
UNMEASURED = "#b0b0b0"
NARROW_BAR = 180
NARROWEST = 372
"""Pixels of the narrowest figure, which its colour bar and caption need."""
NARROWEST_PANEL = (118, 90)
"""Pixels of the width of a panel with its title, on a wide and on a narrow page."""


@dataclass(frozen=True)
class MapGrid:
    """Panels of equal maps, with the room for a colour bar."""

    panels: Panels
    cell: float | int
    """Pixels of the shorter side of a cell."""
    n_layers: int
    n_heads: int

    @classmethod
    def of(cls, count: int, n_layers: int, n_heads: int, *, bottom: int = 48) -> MapGrid:
        """As many panels in a row as are legible; cells are square if the figure is not too high for its page.

        If there are so many rows of panels that cells become too low, more panels stand in a row.
        """
        most = 4 if n_heads <= 16 else 3 if n_heads <= 40 else 2
        usual = balanced_columns(count, min(most, 2) if narrow() else most)
        more = (columns for columns in range(usual + 1, count + 1) if balanced_columns(count, columns) == columns)
        grids = [cls._in_columns(columns, count, n_layers, n_heads, bottom) for columns in (usual, *more)]
        return max(grids[:1] + list(filter(cls._has_room, grids[1:])), key=lambda grid: min(grid.cell, READABLE))

    @classmethod
    def _in_columns(cls, columns: int, count: int, n_layers: int, n_heads: int, bottom: int) -> MapGrid:
        left, right, gap = 52, 16 if narrow() else 110, 34
        available = (page_width() - left - right - (columns - 1) * gap) / columns
        panels = Panels(
            count=count, columns=columns, width=int(available), height=0, gap_x=gap, gap_y=76, left=left, right=right,
            top=104 if narrow() else 60, bottom=bottom,
        )  # fmt: skip
        room = page_height() - panels.top - bottom - CAPTION[narrow()] - (panels.rows - 1) * panels.gap_y
        cell_width = min(LARGEST_CELL, min(available, WIDEST) / n_heads)
        tallest = min(max(TALLEST, LOWEST_ROW * n_layers), room / panels.rows)
        cell_height = max(min(cell_width, tallest / n_layers), 1.0)
        width, height = max(round(cell_width * n_heads), min(150, int(available))), round(cell_height * n_layers)
        right = max(right, NARROWEST - left - columns * width - (columns - 1) * gap)
        panels = replace(panels, width=width, height=max(height, 100), right=right)
        return cls(panels, min(cell_width, cell_height), n_layers, n_heads)

    def _has_room(self) -> bool:
        return self.panels.width >= NARROWEST_PANEL[narrow()]

    @property
    def tiny(self) -> bool:
        """Whether single cells cannot be seen."""
        return self.cell < TINY

    def finish(self, figure: go.Figure, bar_title: str, **axis: object) -> None:
        """Add ticks, titles of axes and the colour bar of ``coloraxis``, whose settings are ``axis``."""
        across = spaced(self.n_heads, self.panels.width / self.n_heads, 20)
        upright = spaced(self.n_layers, self.panels.height / self.n_layers, 17)
        figure.update_xaxes(tickvals=list(across), range=[-0.5, self.n_heads - 0.5], ticklabelstandoff=2, **BARE)
        figure.update_yaxes(tickvals=list(upright), range=[-0.5, self.n_layers - 0.5], ticklabelstandoff=4, **BARE)
        self.panels.name_axes(figure, "head", "layer")
        bar = self._bar(figure, bar_title)
        bar |= {name: axis.pop(name) for name in ("tickvals", "ticktext") if name in axis}
        figure.update_layout(coloraxis={**axis, "colorbar": bar})

    def _bar(self, figure: go.Figure, title: str) -> dict[str, object]:
        if not narrow():
            return color_bar(title, length=min(max(self.panels.height, 210), 300), xpad=16, thickness=14)
        # Its own title would stand on the bar.
        figure.add_annotation(
            text=title.replace("<br>", " "), x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="top",
            xshift=NARROW_BAR + 12, yshift=self.panels.top - 6, font={"size": 12},
        )  # fmt: skip
        bar = {**color_bar("", length=NARROW_BAR, xpad=0, thickness=11), "orientation": "h", "ypad": 8, "title": None}
        return {**bar, "x": 0, "xanchor": "left", "xref": "paper", "yref": "container"}

    def table(self, heads: pd.DataFrame, value: str) -> np.ndarray:
        """``value`` as [layer, head], NaN if there is no row."""
        z = np.full((self.n_layers, self.n_heads), np.nan)
        z[heads["layer"].to_numpy(int), heads["head"].to_numpy(int)] = heads[value].to_numpy(float)
        return z

    def add(
        self,
        figure: go.Figure,
        index: int,
        z: np.ndarray,
        hover: np.ndarray | None,
        *,
        span: float | int | None,
        name: str,
    ) -> None:
        """Add a map to panel ``index``; heads without a value get a cross.

        Args:
            figure: of these panels.
            index: of the panel.
            z: the values as [layer, head].
            hover: plotly text of each cell.
            span: if given, the largest absolute value of the colour scale: cells notably below zero are marked.
            name: of the map.
        """
        place = self.panels.place(index)
        gap = 1 if self.cell >= 9 else 0.5 if not self.tiny else 0
        marks: Mapping[str, object] = {}
        if span is not None and self.cell >= READABLE:
            size = min(15, max(11, round(0.75 * self.cell)))
            marks = {"text": signs(z, span=span), "texttemplate": "%{text}", "textfont": {"size": size}}
        figure.add_heatmap(
            z=z, x=list(range(self.n_heads)), y=list(range(self.n_layers)), coloraxis="coloraxis", xgap=gap, ygap=gap,
            hovertext=hover, hovertemplate=HOVER, name=name, **marks, **place,
        )  # fmt: skip
        if np.isnan(z).any():
            figure.add_trace(_symbols(np.isnan(z), "x-thin", max(2.5, 0.3 * self.cell), UNMEASURED), **place)
        if span is not None and self.tiny:
            largest = np.abs(z) >= np.sort(np.abs(z[np.isfinite(z)]))[-STANDING_OUT:][0]
            for side, symbol in ((z > 0, "triangle-up"), (z < 0, "triangle-down")):
                figure.add_trace(_colored(largest & side, z, symbol), **place)
        elif span is not None and self.cell < READABLE:
            for dark in (True, False):
                inside = (z < -0.1 * span) & ((z < -0.5 * span) == dark)
                figure.add_trace(_symbols(inside, "line-ew", 0.45 * self.cell, "#ffffff" if dark else INK), **place)

    def frame(self, figure: go.Figure, index: int, z: np.ndarray, heads: np.ndarray) -> bool:
        """Whether cells are so small that a square larger than its cell was added on each of these heads, if they are few."""
        framed = self.tiny and 0 < heads.mean() <= MOST_SYMBOLS
        if framed:
            figure.add_trace(_colored(heads, z, "square"), **self.panels.place(index))
        return bool(framed)

    @property
    def mark_of_sign(self) -> str:
        """The caption's words for cells below zero."""
        if self.tiny:
            return f"Triangles: the {STANDING_OUT} largest in size, pointing down below zero."
        return "A minus marks cells notably below zero."


def _symbols(where: np.ndarray, symbol: str, size: float | int, color: str) -> go.Scatter:
    y, x = np.nonzero(where)
    line = {"color": color, "width": 1}
    return go.Scatter(
        x=x.tolist(), y=y.tolist(), mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": symbol, "size": size, "color": color, "line": line},
    )  # fmt: skip


def _colored(where: np.ndarray, z: np.ndarray, symbol: str) -> go.Scatter:
    """Symbols in the colours of their cells, with an outline."""
    marks = _symbols(where, symbol, SYMBOL, INK).update(cliponaxis=False)
    return marks.update(
        marker={"color": z[where].tolist(), "coloraxis": "coloraxis", "line": {"color": INK, "width": 0.7}}
    )
