"""The look of every figure: one template, one colour and symbol per judge, and text that plotly shows literally.

The colours are those of Okabe and Ito (2008), which people with the common colour vision deficiencies can tell apart;
the symbols tell judges apart in greyscale. The template is passed to each figure and not registered with plotly, so that
importing this package does not change a user's own figures.

The two hues of a diverging scale are the same grey in a photocopy. A map of signed values therefore prints either its
numbers or a minus sign in every notably negative cell (`signs`): dark with a minus is below zero, dark without is above.
"""

from __future__ import annotations

import contextlib
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from arm_lens.registry import JUDGES, Style

INK = "#222222"
MUTED = "#666666"
GRID = "#e4e4e4"
FONT = "'Source Sans 3', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
MEETS = "#0072b2"
HEAT = [[0.0, "#f3f4f5"], [0.25, "#c3d7e6"], [0.5, "#7fb0d3"], [0.75, "#2f7fb5"], [1.0, "#0b3557"]]
"""Pale to dark in one hue, so that a photocopy keeps the order."""
DIVERGING = [
    [0.0, "#7a3600"],
    [0.2, "#c46a1b"],
    [0.4, "#f1cfa5"],
    [0.5, "#f7f7f7"],
    [0.6, "#c3d7e6"],
    [0.8, "#2f7fb5"],
    [1.0, "#0b3557"],
]
"""Brown below the middle, blue above it: accuracies around chance. Values are printed on top, since both ends are the
same grey in a photocopy."""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The page that figures are laid out for. Text has the same size in pixels on every page; the width differs.

    A page for print has so few pixels that text of 11 to 13 pixels becomes 6 to 7 points when a figure is printed.
    """

    name: str
    page_width: int
    """The widest figure, in layout pixels."""
    inches: float | None = None
    """The width of ``page_width`` on paper; None on a screen."""
    most_inches: float | None = None
    """The largest height of a figure on paper; None for no limit."""

    @property
    def pixels_per_inch(self) -> float | None:
        """Layout pixels to an inch of paper; None on a screen."""
        return None if self.inches is None else self.page_width / self.inches


SCREEN = Theme(name="screen", page_width=1000)
PAPER_INCHES = 9.0
"""The height of the text of a paper."""
SCREENFUL = 1400.0
"""Pixels of the height of a figure on a screen, which a model of many heads should not exceed."""
COLUMN = Theme(name="column", page_width=430, inches=3.25, most_inches=PAPER_INCHES)
"""One column of a two-column paper."""
PAGE = Theme(name="page", page_width=900, inches=6.75)
"""Both columns of a two-column paper, or the text of a one-column paper."""

_THEME: ContextVar[Theme] = ContextVar("theme", default=SCREEN)


@contextlib.contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Lay out the figures that are made in this context for ``theme`` (`SCREEN`, `COLUMN`, `PAGE`)."""
    token = _THEME.set(theme)
    try:
        yield
    finally:
        _THEME.reset(token)


def current_theme() -> Theme:
    """The theme of the innermost `themed` context."""
    return _THEME.get()


def page_width() -> int:
    """The width of the widest figure in layout pixels."""
    return _THEME.get().page_width


def page_height() -> float:
    """The height in layout pixels that figures should not exceed: that of a paper, or what one scrolls on a screen."""
    per_inch = _THEME.get().pixels_per_inch
    return SCREENFUL if per_inch is None else PAPER_INCHES * per_inch


def narrow() -> bool:
    """Whether only one or two panels fit next to each other, as in one column of a paper."""
    return page_width() < 600


class NoRoomError(ValueError):
    """A figure is too high for the page that it is laid out for."""


def base_layout(*, width: float | int, height: float | int, margin: Mapping[str, float | int]) -> dict[str, Any]:
    """Layout options that every figure starts from: the template, the size, and the theme.

    ``layout.meta`` records the theme, from which `save_figure` knows the size of the figure on paper.

    Args:
        width: width of the figure in layout pixels.
        height: height of the figure in layout pixels.
        margin: pixels around the panels (l, r, t, b).

    Raises:
        NoRoomError: if the figure is higher than the theme's page.
    """
    theme, per_inch = current_theme(), current_theme().pixels_per_inch
    if per_inch and theme.most_inches and height > theme.most_inches * per_inch:
        raise NoRoomError(
            f"the figure would be {height / per_inch:.1f} inches high in {theme.name} layout, and at most "
            f"{theme.most_inches:g} are possible: draw fewer rows, or lay it out over two columns, within themed(PAGE)"
        )
    return {
        "template": TEMPLATE,
        "width": round(width),
        "height": round(height),
        "margin": {**margin, "autoexpand": False},
        "meta": {"theme": theme.name, "pixels_per_inch": per_inch},
    }


OTHER_JUDGES = "Others"
OTHER_SYMBOLS = ("cross", "star", "pentagon", "hexagon", "x", "hexagram")


def judge_styles(judges: Iterable[str], names: Mapping[str, str] | None = None) -> dict[str, Style]:
    """Look up how judges are drawn: first those of `arm_lens.registry.JUDGES`, in its order, then all others in black.

    Args:
        judges: names as in the column ``judge``.
        names: labels that replace the usual ones, by judge.
    """
    present = list(dict.fromkeys(map(str, judges)))
    styles = {judge: spec.style for judge, spec in JUDGES.items() if judge in present}
    unknown = [judge for judge in present if judge not in styles]
    for judge, symbol in zip(unknown, itertools.cycle(OTHER_SYMBOLS), strict=False):
        styles[judge] = Style(label=judge, color="#000000", symbol=f"{symbol}-dot", group=OTHER_JUDGES)
    return {judge: replace(style, label=(names or {}).get(judge, style.label)) for judge, style in styles.items()}


def literal(text: str) -> str:
    """Escape text so that plotly shows it literally: every label may contain HTML, entities and ``$TeX$``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def faded(color: str, opacity: float | int) -> str:
    """A hexadecimal colour with an opacity, as ``rgba(...)``."""
    red, green, blue = hex_to_rgb(color)
    return f"rgba({red},{green},{blue},{opacity:g})"


def label(text: str, *, width: int = 36, lines: int = 2) -> str:
    """Wrap `literal` text to at most ``lines`` lines of ``width`` characters; an ellipsis replaces the rest."""
    wrapped = textwrap.wrap(text, width=width) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1].rstrip() + "…"]
    return "<br>".join(literal(line) for line in wrapped)


def labels(texts: Iterable[str], *, width: int = 36, lines: int = 2) -> list[str]:
    """`label` of each text; those that would look alike lose their middle instead of their end."""
    every = list(texts)
    found = [label(text, width=width, lines=lines) for text in every]
    room = width if lines == 1 else int(0.75 * width * lines)
    half = (room - 1) // 2
    alike = {one for one in found if len({text for text, its in zip(every, found, strict=True) if its == one}) > 1}
    return [
        label(f"{text[: room - 1 - half].rstrip()}…{text[-half:].lstrip()}", width=width, lines=lines)
        if one in alike
        else one
        for text, one in zip(every, found, strict=True)
    ]


def signs(values: np.ndarray, *, span: float | int) -> np.ndarray:
    """Texts for the cells of a diverging map: a minus sign if a value is notably below zero, else empty.

    Args:
        values: any shape, NaN if unknown.
        span: the largest absolute value of the colour scale; notable is more than 5 % of it.

    Returns:
        Strings in the shape of ``values``.
    """
    return np.where(np.asarray(values, dtype=float) < -0.05 * span, "−", "").astype(object)


_AXIS = {
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
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#999999", "font": {"color": INK}, "align": "left"},
        "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},  # in the right margin, not over a title
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "font": {"size": 13}, "itemsizing": "trace"},
        "coloraxis": {"colorscale": HEAT, "colorbar": {"outlinewidth": 0, "thickness": 14}},
        "annotationdefaults": {"font": {"size": 13, "color": INK}, "showarrow": False},
    }
)
"""White background, pale grid, and sizes of text for pages and print."""
