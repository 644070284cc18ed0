"""What figures share above the panels: symbols and lines with hover texts, intervals, bands, chance, colour bars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.theme import MUTED, literal
from arm_lens.registry import Style

HOVER = "%{hovertext}<extra></extra>"
"""Plotly's ``hovertemplate`` for the bare hover text."""


def marks(x: Iterable[Any], y: Iterable[Any], hover: Iterable[str] | None = None, **look: Any) -> go.Scatter:
    """Symbols, lines or texts, with a plotly text for hovering over each (without them none), not in the legend."""
    said = {"hoverinfo": "skip"} if hover is None else {"hovertext": list(hover), "hovertemplate": HOVER}
    return go.Scatter(**({"x": list(x), "y": list(y), "showlegend": False} | said | look))


def whiskers(
    rows: pd.DataFrame,
    value: str,
    color: str,
    *,
    ends: tuple[str, str] = ("ci_low", "ci_high"),
    thickness: float | int = 1.6,
    width: float | int = 3,
) -> dict[str, Any]:
    """Intervals of the column ``value`` as plotly's ``error_x`` or ``error_y``; unknown ones have no length.

    ``ends`` are the columns of the lower and the upper end, ``width`` the pixels of the strokes at the ends of a line.
    """
    below, above = rows[value] - rows[ends[0]], rows[ends[1]] - rows[value]
    return {
        "type": "data", "symmetric": False, "array": above.fillna(0).to_list(), "arrayminus": below.fillna(0).to_list(),
        "thickness": thickness, "width": width, "color": color,
    }  # fmt: skip


def symbol(style: Style, size: float | int) -> dict[str, Any]:
    """The marker of a judge. Hollow symbols are only an outline; filled ones have none."""
    outline = 1.8 if style.symbol.endswith("-open") else 0.0
    return {"symbol": style.symbol, "size": size, "color": style.color, "line": {"width": outline}}


def interval_dots(
    rows: pd.DataFrame,
    y: Iterable[float | int],
    style: Style,
    hover: Iterable[str],
    *,
    value: str = "accuracy",
    ends: tuple[str, str] = ("ci_low", "ci_high"),
) -> go.Scatter:
    """Symbols of one style with their intervals as level lines."""
    error = whiskers(rows, value, style.color, ends=ends)
    look = {"marker": symbol(style, 10), "name": literal(style.label)}
    return marks(rows[value], y, hover, mode="markers", error_x=error, **look)


def band(x: Iterable[Any], low: Iterable[Any], high: Iterable[Any], color: str, **options: Any) -> go.Scatter:
    """A filled band without an outline, from ``low`` to ``high`` along ``x``."""
    x, low = list(x), list(low)
    look = {"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": color}
    return marks([*x, *x[::-1]], [*high, *low[::-1]], **look, **options)


def diagonal(name: str) -> go.Scatter:
    """The dashed line from (0, 0) to (1, 1)."""
    return marks([0, 1], [0, 1], mode="lines", line={"color": MUTED, "width": 1.2, "dash": "dash"}, name=name)


def chance_line(
    figure: go.Figure,
    *,
    span: tuple[float | int, float | int],
    x: float | int | None = None,
    y: float | int | None = None,
    named: bool = False,
    **place: Any,
) -> None:
    """Draw a dashed line where guessing would be: upright at ``x``, or level at ``y``; over the grid, below the data.

    The ends are at ``span`` in units of the other axis: plotly draws no line of this layer in units of the panel. With
    ``named``, the word "chance" stands above an upright line. ``place`` is ``row`` and ``col``, or ``xref`` and ``yref``.
    """
    (low, high), line = span, {"color": "#444444", "width": 1.4, "dash": "dash"}
    ends = {"x0": x, "x1": x, "y0": low, "y1": high} if y is None else {"x0": low, "x1": high, "y0": y, "y1": y}
    figure.add_shape(type="line", **ends, line=line, layer="between", **place)
    if named:
        font = {"color": MUTED, "size": 12}
        figure.add_annotation(text="chance", x=x, y=1, yref="y domain", yanchor="bottom", font=font, yshift=1)


def legend_entry(figure: go.Figure, name: str, **look: Any) -> None:
    """Add a legend's entry that is independent of what the panels have."""
    figure.add_scatter(x=[None], y=[None], name=name, **look)


def color_bar(title: str, *, length: int, xpad: int, thickness: int) -> dict[str, Any]:
    """An upright colour bar of so many pixels at the right of the panels, its plotly title above it."""
    font = {"size": 12}
    heading = {"text": f"{title}<br>&nbsp;", "side": "top", "font": font}
    size = {"len": length, "lenmode": "pixels", "thickness": thickness, "xpad": xpad, "outlinewidth": 0}
    return {"title": heading, "tickfont": font, "x": 1, "y": 1, "yanchor": "top", **size}
