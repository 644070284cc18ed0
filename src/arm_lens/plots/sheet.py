"""A figure of unlike parts, laid out in pixels from its upper left corner; and words in fixed-width type on it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from arm_lens.plots.theme import INK

MONO = "'DejaVu Sans Mono', 'Liberation Mono', Menlo, 'Courier New', monospace"
LETTER = 7.3
"""Pixels of a character of the fixed-width type at 12 pixels."""
ZERO_LINE = {"zeroline": True, "zerolinecolor": "#999999", "zerolinewidth": 1}
HEADING = 30
"""Pixels that the heading of a part takes."""


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

    def write(self, text: str, left: float | int, below: float | int, *, size: int = 13, color: str = INK) -> None:
        """Write text whose lower left corner stands ``left`` and ``below`` pixels from that of the figure."""
        self.note(
            text=text, x=left / self.width, y=1, yshift=-below, xref="paper", yref="paper", xanchor="left",
            yanchor="bottom", align="left", font={"size": size, "color": color},
        )  # fmt: skip

    def note(self, **options: Any) -> None:
        """Add an annotation of plotly's, without an arrow."""
        self.notes.append({"showarrow": False, **options})

    def finished(self) -> go.Figure:
        """The figure with all notes and shapes."""
        return self.figure.update_layout(annotations=self.notes, shapes=self.shapes)


def visible(token: str, most: int) -> str:
    """A token on one line of at most ``most`` characters; spaces at its ends become visible."""
    inner = token.strip(" ")
    before = len(token) - len(token.lstrip(" "))
    text = "␣" * before + inner + "␣" * (len(token) - before - len(inner))
    return text if len(text) <= most else text[: most - 1] + "…"


def cells(text: str) -> int:
    """Columns that a text takes in fixed-width type."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text) or 1
