"""A figure of unlike parts, laid out in pixels from its upper left corner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.notation import digits_for
from arm_lens.plots.theme import INK, base_layout, label, page_width

SIDE = 14
"""Pixels free at both edges of a titled sheet."""


@dataclass
class Sheet:
    """A figure addressed in pixels from its upper left corner."""

    width: float | int
    height: float | int
    figure: go.Figure = field(default_factory=go.Figure)
    axes: int = 0
    notes: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)
    """Stored until `finished`: whenever one is added, plotly checks them all."""

    @classmethod
    def titled(cls, title: str, height: float | int, *, top: int, bottom: int) -> Sheet:
        """A sheet as wide as the page, with a literal title ``top`` pixels above it and ``bottom`` pixels below it."""
        sheet = cls(page_width() - 2 * SIDE, height)
        margin = {"l": SIDE, "r": SIDE, "t": top, "b": bottom}
        sheet.figure.update_layout(base_layout(width=page_width(), height=height + top + bottom, margin=margin))
        sheet.write(f"<b>{label(title, width=int(sheet.width / 9), lines=1)}</b>", 0, 30 - top, size=15)
        return sheet

    def add_axes(self, left: float | int, above: float | int, width: float | int, height: float | int) -> int:
        """Add a pair of axes to the figure; their number, from 1."""
        self.axes += 1
        across = [left / self.width, min((left + width) / self.width, 1.0)]
        upright = [max(1 - (above + height) / self.height, 0.0), 1 - above / self.height]
        self.figure.layout[f"xaxis{self.axes}"] = {"domain": across, "anchor": f"y{self.axes}"}
        self.figure.layout[f"yaxis{self.axes}"] = {"domain": upright, "anchor": f"x{self.axes}"}
        return self.axes

    def on(self, axis: int) -> dict[str, str]:
        """A pair of axes as the keywords of a trace."""
        return {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}

    def x(self, axis: int) -> go.layout.XAxis:
        """The x axis of a pair."""
        return self.figure.layout[f"xaxis{axis}"]

    def y(self, axis: int) -> go.layout.YAxis:
        """The y axis of a pair."""
        return self.figure.layout[f"yaxis{axis}"]

    def bare(self, axis: int, x: list[float | int], y: list[float | int]) -> None:
        """Hide a pair of axes, which have these ranges."""
        self.x(axis).update(range=x, visible=False, fixedrange=True)
        self.y(axis).update(range=y, visible=False, fixedrange=True)

    def write(self, text: str, left: float | int, below: float | int, *, size: int = 13, color: str = INK) -> None:
        """Write text whose lower left corner stands ``left`` and ``below`` pixels from that of the figure."""
        self.note(
            text=text, x=left / self.width, y=1, yshift=-below, xref="paper", yref="paper", xanchor="left",
            yanchor="bottom", align="left", font={"size": size, "color": color},
        )  # fmt: skip

    def note(self, **options: Any) -> None:
        """Add an annotation of plotly's, without an arrow."""
        self.notes.append({"showarrow": False, **options})

    def weights(self, colors: list[list[Any]], top: float, **bar: Any) -> None:
        """Add a colour axis from 0 to ``top``, with a small level colour bar at the upper right corner."""
        place = {"orientation": "h", "x": 1 - 12 / self.width, "xanchor": "right", "y": 1, "xpad": 0, "thickness": 9}
        ends = {"tickvals": [0, top], "ticktext": ["0", f"{top:.{digits_for(top)}f}"], "tickfont": {"size": 12}}
        size = {"len": 110, "lenmode": "pixels", "outlinewidth": 0, "ticks": ""}
        self.figure.update_coloraxes(colorscale=colors, cmin=0, cmax=top, colorbar=place | ends | size | bar)

    def finished(self) -> go.Figure:
        """The figure with all notes and shapes."""
        return self.figure.update_layout(annotations=self.notes, shapes=self.shapes)


def of_setting(table: pd.DataFrame, setting: str | None, name: str) -> tuple[pd.DataFrame, str]:
    """The prompts of one setting, the first if none is given, and its name; a table without settings is returned as it is.

    Raises:
        ValueError: if the table ``name`` has no such setting.
    """
    settings = list(table["setting"].unique()) if "setting" in table.columns else []
    if setting is not None and setting not in settings:
        known = ", ".join(map(repr, settings)) or "no column 'setting'"
        raise ValueError(f"the table of {name} has no setting {setting!r}; it has {known}")
    if not settings:
        return table, ""
    setting = str(settings[0] if setting is None else setting)
    return table[table["setting"] == setting], setting
