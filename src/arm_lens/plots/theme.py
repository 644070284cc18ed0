"""The look of every figure: one template, one colour and symbol per judge, and text that plotly shows as written.

The colours are those of Okabe and Ito (2008), which people with the common colour vision deficiencies can tell apart;
the symbols do the same work in greyscale. The template is handed to each figure and not registered with plotly, so
importing this package leaves a user's own figures as they were.

Two hues of a diverging scale are one grey in a photocopy. So a map of signed values either prints its numbers, or a
minus sign in every cell that is notably negative (`signs`): dark with a minus is below zero, dark without is above.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

INK = "#222222"
MUTED = "#666666"
GRID = "#e4e4e4"
FONT = "'Source Sans 3', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
MEETS = "#0072b2"
HEAT = ((0.0, "#f3f4f5"), (0.25, "#c3d7e6"), (0.5, "#7fb0d3"), (0.75, "#2f7fb5"), (1.0, "#0b3557"))
"""Pale to dark in one hue, so that a photocopy keeps the order."""
DIVERGING = (
    (0.0, "#7a3600"),
    (0.2, "#c46a1b"),
    (0.4, "#f1cfa5"),
    (0.5, "#f7f7f7"),
    (0.6, "#c3d7e6"),
    (0.8, "#2f7fb5"),
    (1.0, "#0b3557"),
)
"""Brown below the middle, blue above it, pale at it: accuracies around chance. Values are printed on top, since a
photocopy cannot tell the two ends apart."""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """For what figures are laid out. Sizes of text are the same in pixels everywhere; what differs is how much room there is.

    A figure for print is laid out in few enough pixels that its text, 11 to 13 pixels high, is set in 6 to 7 points
    when the figure is as wide as its place in the paper.
    """

    name: str
    page_width: int
    """The widest figure, in layout pixels."""
    inches: float | None = None
    """How wide ``page_width`` is on paper; None on a screen."""
    most_inches: float | None = None
    """How high a figure may be on paper; None if there is no limit."""

    @property
    def pixels_per_inch(self) -> float | None:
        """Layout pixels to an inch of paper; None on a screen."""
        return None if self.inches is None else self.page_width / self.inches


SCREEN = Theme(name="screen", page_width=1000)
COLUMN = Theme(name="column", page_width=430, inches=3.25, most_inches=9.0)
"""One column of a two-column paper."""
PAGE = Theme(name="page", page_width=900, inches=6.75)
"""Both columns of a two-column paper, or the text of a one-column paper."""

_THEME: ContextVar[Theme] = ContextVar("theme", default=SCREEN)


@contextlib.contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Within, figures are laid out for ``theme`` (`SCREEN`, `COLUMN`, `PAGE`)."""
    token = _THEME.set(theme)
    try:
        yield
    finally:
        _THEME.reset(token)


def current_theme() -> Theme:
    """What figures are being laid out for."""
    return _THEME.get()


def page_width() -> int:
    """The widest figure there is room for, in layout pixels."""
    return _THEME.get().page_width


def narrow() -> bool:
    """Whether there is room for one or two panels in a row only, as in one column of a paper."""
    return page_width() < 600


class NoRoomError(ValueError):
    """A figure has no room in the layout it is to be drawn for."""


def base_layout(*, width: float | int, height: float | int, margin: Mapping[str, float | int]) -> dict[str, Any]:
    """What the layout of every figure begins with: the look, the size, and what it was laid out for.

    The last is kept as ``layout.meta``, whence `save_figure` knows how large the figure is on paper.

    Args:
        width: of the figure, in layout pixels.
        height: likewise.
        margin: l, r, t, b: pixels around the panels.

    Raises:
        NoRoomError: if the figure is higher than the theme's page, as a large table in one column.
    """
    theme, per_inch = current_theme(), current_theme().pixels_per_inch
    if per_inch and theme.most_inches and height > theme.most_inches * per_inch:
        raise NoRoomError(
            f"the figure would be {height / per_inch:.1f} inches high in {theme.name} layout, where {theme.most_inches:g} "
            f"are the most: draw fewer rows, or lay it out over two columns, within themed(PAGE)"
        )
    return {
        "template": TEMPLATE,
        "width": round(width),
        "height": round(height),
        "margin": {**margin, "autoexpand": False},
        "meta": {"theme": theme.name, "pixels_per_inch": per_inch},
    }


@dataclass(frozen=True)
class JudgeStyle:
    """How a judge is named and drawn, and whom it stands with."""

    name: str
    color: str
    symbol: str
    group: str


def _group(name: str, judges: Mapping[str, tuple[str, str, str]]) -> dict[str, JudgeStyle]:
    return {judge: JudgeStyle(*style, group=name) for judge, style in judges.items()}


JUDGES: dict[str, JudgeStyle] = {
    **_group(
        "Activation RM",
        {
            "arm_reinforce": ("REINFORCE heads", "#d55e00", "circle"),
            "arm_reinforce_denoised": ("REINFORCE, denoised means", "#8f3f00", "circle-open"),
            "arm_reinforce_add": ("REINFORCE, means added", "#f08c4a", "octagon"),
            "arm_top_effect": ("Top heads by effect", "#e69f00", "pentagon"),
            "arm_greedy": ("Greedy heads", "#997000", "hexagon"),
            "arm_soft_gate": ("Soft gates", "#cc79a7", "star-diamond"),
            "arm_all_heads": ("All heads", "#009e73", "triangle-up"),
            "arm_random_heads": ("Random heads", "#8c8c8c", "triangle-down"),
        },
    ),
    **_group(
        "Readouts",
        {"sav": ("SAV", "#6a3d9a", "star"), "probe": ("Linear probe", "#000000", "cross")},
    ),
    **_group(
        "Asking the model",
        {
            "zero_shot": ("Zero-shot", "#56b4e9", "diamond"),
            "few_shot": ("Few-shot (in prompt)", "#0072b2", "square"),
            "ranked_zero_shot": ("Ranked, zero-shot", "#56b4e9", "diamond-open"),
            "ranked_few_shot": ("Ranked, few-shot", "#0072b2", "square-open"),
            "voting": ("Voting", "#00507c", "x"),
            "voting_rationale": ("Voting with rationale", "#00507c", "x-open"),
            "endpoint": ("Endpoint", "#003a5a", "bowtie"),
        },
    ),
    **_group(
        "Likelihood",
        {
            "likelihood": ("Log-likelihood", "#7d9b2c", "triangle-left"),
            "likelihood_ratio": ("Log-likelihood ratio", "#4d6600", "triangle-right"),
        },
    ),
    **_group(
        "Controls",
        {
            "length": ("Length", "#5f5f5f", "hourglass"),
            "random": ("Random", "#7a7a7a", "asterisk-open"),
            "constant": ("Constant", "#8a8a8a", "hash-open"),
        },
    ),
}
"""In the order in which they are listed and drawn. No two share a symbol, so that lines keep apart in greyscale."""
OTHER_JUDGES = "Others"

_OTHER_SYMBOLS = ("cross", "star", "pentagon", "hexagon", "x", "hourglass")


def judge_styles(judges: Iterable[str], names: Mapping[str, str] | None = None) -> dict[str, JudgeStyle]:
    """The style of each judge, known ones first in their fixed order, others after them in black.

    Args:
        judges: names as in the column ``judge``.
        names: names to display instead of the usual ones.
    """
    present = list(dict.fromkeys(map(str, judges)))
    styles = {judge: style for judge, style in JUDGES.items() if judge in present}
    others = [judge for judge in present if judge not in JUDGES]
    for index, judge in enumerate(others):
        symbol = _OTHER_SYMBOLS[index % len(_OTHER_SYMBOLS)]
        styles[judge] = JudgeStyle(judge, "#000000", f"{symbol}-dot", group=OTHER_JUDGES)
    return {judge: replace(style, name=(names or {}).get(judge, style.name)) for judge, style in styles.items()}


def literal(text: str) -> str:
    """Text as plotly shows it unchanged: plotly reads some HTML, entities and ``$TeX$`` in every label."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def faded(color: str, opacity: float | int) -> str:
    """A hexadecimal colour that lets through what is behind it."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def label(text: str, *, width: int = 36, lines: int = 2) -> str:
    """`literal` text on at most ``lines`` lines of ``width`` characters; what is left out ends in an ellipsis."""
    wrapped = textwrap.wrap(text, width=width) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1].rstrip() + "…"]
    return "<br>".join(literal(line) for line in wrapped)


def signs(values: np.ndarray, *, span: float | int) -> np.ndarray:
    """The text of a diverging map's cells: a minus sign where a value is notably below zero, else nothing.

    Args:
        values: any shape, NaN where there is none.
        span: the largest absolute value of the colour scale; notable is more than 5 % of it.

    Returns:
        Strings in the shape of ``values``.
    """
    return np.where(np.asarray(values, dtype=float) < -0.05 * span, "−", "").astype(object)


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
