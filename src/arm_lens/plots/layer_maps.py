"""Maps of a model's heads, layers upwards and heads to the right: their layout, and marks that survive a photocopy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display.maps import spaced
from arm_lens.plots.notation import HOVER
from arm_lens.plots.panels import BARE, Panels, balanced_columns, color_bar
from arm_lens.plots.theme import INK, narrow, page_width, signs

LARGEST_CELL = 28.0
READABLE = 10.0
"""Cells of fewer pixels have a dot instead of a minus sign."""
UNMEASURED = "#b0b0b0"
NARROW_BAR = 180
NARROWEST = 372
"""Pixels of the narrowest figure, which its colour bar and caption need."""


@dataclass(frozen=True)
class MapGrid:
    """Panels of equal maps, with the room for a colour bar."""

    panels: Panels
    cell: float | int
    """Pixels of a cell's side."""
    n_layers: int
    n_heads: int

    @classmethod
    def of(cls, count: int, n_layers: int, n_heads: int, *, bottom: int = 48) -> MapGrid:
        """As many panels in a row as are legible; cells are square, except in a tiny model."""
        most = 4 if n_heads <= 16 else 3 if n_heads <= 40 else 2
        columns = balanced_columns(count, min(most, 2) if narrow() else most)
        left, right, gap = 52, 16 if narrow() else 110, 34
        available = (page_width() - left - right - (columns - 1) * gap) / columns
        cell = min(LARGEST_CELL, min(available, 560) / n_heads)
        width, height = max(round(cell * n_heads), min(150, int(available))), max(round(cell * n_layers), 100)
        right = max(right, NARROWEST - left - columns * width - (columns - 1) * gap)
        panels = Panels(
            count=count, columns=columns, width=width, height=height, gap_x=gap, gap_y=76, left=left, right=right,
            top=104 if narrow() else 60, bottom=bottom,
        )  # fmt: skip
        return cls(panels, cell, n_layers, n_heads)

    def finish(self, figure: go.Figure, bar_title: str, **axis: object) -> None:
        """Add ticks, titles of axes and the colour bar of ``coloraxis``, whose settings are ``axis``."""
        across = spaced(self.n_heads, max(self.cell, self.panels.width / self.n_heads), 20)
        upright = spaced(self.n_layers, max(self.cell, self.panels.height / self.n_layers), 17)
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
        """Add a map to panel ``index``; with a ``span``, cells below zero are marked. Heads without a value get a cross."""
        place = self.panels.place(index)
        gap = 1 if self.cell >= 9 else 0.5
        marks: Mapping[str, object] = {}
        if span is not None and self.cell >= READABLE:
            size = min(15, max(9, round(0.75 * self.cell)))
            marks = {"text": signs(z, span=span), "texttemplate": "%{text}", "textfont": {"size": size}}
        figure.add_heatmap(
            z=z, x=list(range(self.n_heads)), y=list(range(self.n_layers)), coloraxis="coloraxis", xgap=gap, ygap=gap,
            hovertext=hover, hovertemplate=HOVER, name=name, **marks, **place,
        )  # fmt: skip
        if span is not None and self.cell < READABLE:
            for dark in (True, False):
                inside = (z < -0.1 * span) & ((z < -0.5 * span) == dark)
                figure.add_trace(_symbols(inside, "circle", 1.8, "#ffffff" if dark else INK), **place)
        if np.isnan(z).any():
            figure.add_trace(_symbols(np.isnan(z), "x-thin", max(2.5, 0.3 * self.cell), UNMEASURED), **place)


def _symbols(where: np.ndarray, symbol: str, size: float | int, color: str) -> go.Scatter:
    y, x = np.nonzero(where)
    line = {"color": color, "width": 1 if symbol == "x-thin" else 0}
    return go.Scatter(
        x=x.tolist(), y=y.tolist(), mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": symbol, "size": size, "color": color, "line": line},
    )  # fmt: skip
