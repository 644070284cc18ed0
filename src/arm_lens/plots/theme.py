"""The look of every figure: one template, one colour and symbol per method, and text that plotly shows as written.

The colours are those of Okabe and Ito (2008), which people with the common colour vision deficiencies can tell apart;
the symbols do the same work in greyscale. The template is handed to each figure and not registered with plotly, so
importing this package leaves a user's own figures as they were.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import plotly.graph_objects as go

INK = "#222222"
MUTED = "#666666"
GRID = "#e4e4e4"
FONT = "'Source Sans 3', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
PAGE_WIDTH = 1000
"""Pixels: the widest figure."""
MEETS = "#0072b2"
HEAT = ((0.0, "#f3f4f5"), (0.25, "#c3d7e6"), (0.5, "#7fb0d3"), (0.75, "#2f7fb5"), (1.0, "#0b3557"))
"""Pale to dark in one hue, so that a photocopy keeps the order."""


@dataclass(frozen=True)
class MethodStyle:
    """How a method is named and drawn."""

    name: str
    color: str
    symbol: str


METHODS: dict[str, MethodStyle] = {
    "zero_shot": MethodStyle("Zero-shot", "#56b4e9", "diamond"),
    "few_shot": MethodStyle("Few-shot (in prompt)", "#0072b2", "square"),
    "all_heads": MethodStyle("All heads", "#009e73", "triangle-up"),
    "random_heads": MethodStyle("Random heads", "#8c8c8c", "triangle-down"),
    "reinforce": MethodStyle("Selected heads (REINFORCE)", "#d55e00", "circle"),
}
"""In the order in which they are listed and drawn."""

_OTHER_SYMBOLS = ("cross", "star", "pentagon", "hexagon", "x", "hourglass")


def method_styles(methods: Iterable[str], names: Mapping[str, str] | None = None) -> dict[str, MethodStyle]:
    """The style of each method, known ones first in their fixed order, others after them in black.

    Args:
        methods: names as in the column ``method``.
        names: names to display instead of the usual ones, e.g. ``{"few_shot": "Few-shot (8 in prompt)"}``.
    """
    present = list(dict.fromkeys(methods))
    others = [method for method in present if method not in METHODS]
    styles = {method: style for method, style in METHODS.items() if method in present}
    for index, method in enumerate(others):
        styles[method] = MethodStyle(method, "#000000", _OTHER_SYMBOLS[index % len(_OTHER_SYMBOLS)])
    return {method: replace(style, name=(names or {}).get(method, style.name)) for method, style in styles.items()}


def literal(text: str) -> str:
    """Text as plotly shows it unchanged: plotly reads some HTML, entities and ``$TeX$`` in every label."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def label(text: str, *, width: int = 36, lines: int = 2) -> str:
    """`literal` text on at most ``lines`` lines of ``width`` characters; what is left out ends in an ellipsis."""
    wrapped = textwrap.wrap(text, width=width) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1].rstrip() + "…"]
    return "<br>".join(literal(line) for line in wrapped)


def _template() -> go.layout.Template:
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": "#999999",
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#999999",
        "tickfont": {"size": 12, "color": INK},
        "title": {"font": {"size": 13, "color": INK}, "standoff": 8},
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#999999", "font": {"color": INK}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "font": {"size": 13}, "itemsizing": "trace"},
        "coloraxis": {"colorscale": [list(stop) for stop in HEAT], "colorbar": {"outlinewidth": 0, "thickness": 14}},
        "annotationdefaults": {"font": {"size": 13, "color": INK}, "showarrow": False},
    }
    return go.layout.Template(layout=layout)


TEMPLATE = _template()
"""White background, quiet grid, sizes that hold on a page and in print."""
