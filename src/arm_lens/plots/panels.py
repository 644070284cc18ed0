"""Small multiples laid out in pixels: panels of equal size, each with its title at its upper left corner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from arm_lens.plots.theme import MUTED, base_layout, labels, narrow, page_width

LETTER = 6.9
"""Pixels of a wide character at the sizes of text here."""
NARROWEST = 120
"""Pixels that a panel needs for an axis of numbers and a title."""
WIDEST = 520
STRIPE = "#f6f6f6"
BARE = {"showgrid": False, "showline": False, "ticks": ""}
"""An axis of which only the texts are drawn."""


@dataclass(frozen=True, kw_only=True)
class Panels:
    """A grid of equal panels, filled row by row. All sizes are in pixels."""

    count: int
    columns: int
    width: int
    height: int
    gap_x: int = 44
    gap_y: int = 84
    left: int = 62
    right: int = 20
    top: int = 84
    bottom: int = 54

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return -(-self.count // self.columns)

    @property
    def inner_width(self) -> int:
        """Pixels from the left edge of the first panel to the right edge of the last one."""
        return self.columns * self.width + (self.columns - 1) * self.gap_x

    @property
    def letters(self) -> int:
        """Characters of a line of a title."""
        return max(12, int(self.width / 7.5))

    def place(self, index: int) -> dict[str, Any]:
        """Row and column of a panel as plotly's keywords."""
        row, column = divmod(index, self.columns)
        return {"row": row + 1, "col": column + 1}

    def figure(self, titles: Sequence[str], notes: Sequence[str] | None = None) -> go.Figure:
        """An empty figure of this layout, with literal titles and below them plotly texts as notes."""
        inner_height = self.rows * self.height + (self.rows - 1) * self.gap_y
        cells: list[dict[str, str] | None] = [
            {} if index < self.count else None for index in range(self.rows * self.columns)
        ]
        figure = make_subplots(
            rows=self.rows,
            cols=self.columns,
            specs=[cells[row * self.columns : (row + 1) * self.columns] for row in range(self.rows)],
            horizontal_spacing=self.gap_x / self.inner_width if self.columns > 1 else 0,
            vertical_spacing=self.gap_y / inner_height if self.rows > 1 else 0,
        )
        figure.update_layout(
            base_layout(
                width=self.left + self.inner_width + self.right,
                height=self.top + inner_height + self.bottom,
                margin={"l": self.left, "r": self.right, "t": self.top, "b": self.bottom},
            )
        )
        named = labels(titles, width=self.letters)
        for index, (title, note) in enumerate(zip(named, notes or [""] * len(titles), strict=True)):
            text = f"<b>{title}</b>" if title else ""
            if note:
                text += f'<br><span style="font-size:12px;color:{MUTED}">{note}</span>'
            if text:
                above_panel(figure, text, yshift=3, **self.place(index))
        return figure

    def name_axes(self, figure: go.Figure, x: str, y: str | None = None) -> None:
        """Name the x axes of the lowest panels and, with ``y``, the y axes of the first column."""
        for index in range(self.count):
            place = self.place(index)
            figure.update_xaxes(title_text=x if index + self.columns >= self.count else None, **place)
            figure.update_yaxes(title_text=y if place["col"] == 1 else None, **place)


def line_panels(
    count: int,
    *,
    height: int,
    columns: int | None = None,
    most: int = 4,
    narrowest: int = NARROWEST,
    widest: int = WIDEST,
    **sizes: int,
) -> Panels:
    """Panels as wide as the page allows, at most ``widest`` pixels; ``sizes`` are the gaps and margins of `Panels`.

    If ``columns`` is not given, at most ``most`` panels of at least ``narrowest`` pixels stand in a row.
    """
    bare = Panels(count=count, columns=1, width=1, height=height, **sizes)
    available = page_width() - bare.left - bare.right + bare.gap_x
    columns = columns or balanced_columns(count, max(1, min(most, available // (narrowest + bare.gap_x))))
    return replace(bare, columns=columns, width=min(available // columns - bare.gap_x, widest))


def facets(
    titles: Sequence[str],
    *,
    height: int | None = None,
    notes: Sequence[str] | None = None,
    entries: Iterable[str] = (),
    x: str = "",
    y: str = "",
    gap_x: int = 40,
    below: int = 0,
    **sizes: int,
) -> tuple[go.Figure, Panels]:
    """A figure with a panel for each literal title, which may take two lines, and a legend of these entries at the top.

    Panels have the same axes and are square if no ``height`` is given. ``x`` is written below the lowest panels, ``y`` once
    to the left of all, since panels are too low to hold it. ``notes`` are plotly texts below the titles, ``below`` are the
    pixels for x titles of their own below each panel, and ``sizes`` are those of `line_panels`.
    """
    grid = line_panels(len(titles), height=1, gap_x=gap_x, **sizes)
    names = list(entries)
    legend, taken = legend_above(names, left=grid.left, width=grid.inner_width) if names else ({}, 0)
    over = 26 if any(titles) else 18
    over += 18 * any(len(title) > grid.letters for title in titles)  # a second line
    over += 16 * max((1 + note.count("<br>") for note in notes or () if note), default=0)
    grid = replace(grid, height=height or grid.width, gap_y=over + below + (26 if narrow() else 38), top=taken + over)
    figure = grid.figure(titles, notes)
    grid.name_axes(figure, x)
    if y:
        figure.add_annotation(
            text=y, textangle=-90, x=0, y=0.5, xref="paper", yref="paper", xanchor="center", xshift=12 - grid.left
        )
    figure.update_layout(legend=legend, showlegend=bool(names))
    return figure, grid


def above_panel(figure: go.Figure, text: str, *, yshift: int, **options: Any) -> None:
    """Write plotly text that begins at the upper left corner of a panel; ``row`` and ``col`` say which."""
    place = {"x": 0, "xref": "x domain", "y": 1, "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
    figure.add_annotation(text=text, align="left", yshift=yshift, showarrow=False, **place, **options)


def balanced_columns(count: int, most: int) -> int:
    """The number of columns that fills the fewest rows most evenly: 5 panels in at most 4 columns stand as 3 and 2."""
    rows = -(-count // most)
    return -(-count // rows)


def legend_above(names: Iterable[str], *, left: float | int, width: float | int) -> tuple[dict[str, Any], int]:
    """A legend at the top of the figure, on one line or in equal columns; and the pixels that it takes.

    It begins at the first panel, ``left`` pixels from the edge, on a narrow page at the edge. It is at most as wide as the
    panels, which are ``width`` pixels together.
    """
    entries = list(names)
    size, symbol, air, line = (12, 35, 2, 19) if narrow() else (13, 45, 12, 21)
    rooms = [round(LETTER * len(name)) + air for name in entries]
    place: dict[str, Any] = {
        "y": 1, "yref": "container", "yanchor": "top", "xref": "container", "xanchor": "left", "tracegroupgap": 0,
        "x": 0.012 if narrow() else left / page_width(), "indentation": symbol - 45, "font": {"size": size},
    }  # fmt: skip
    if sum(rooms) + symbol * len(rooms) <= width and not narrow():
        return place, line + 8
    columns = min(len(entries), max(1, int(width / (max(rooms) + symbol))))
    spread = max(max(rooms), min(max(rooms) + 24, int(width) // columns - symbol))
    place |= {"entrywidth": spread, "entrywidthmode": "pixels"}
    return place, line * -(-len(entries) // columns) + 8


def rows_axis(texts: Mapping[int, str] | Sequence[str], count: int | None = None) -> dict[str, Any]:
    """An axis with a text at each whole number, the first at the top; of ``count`` rows, some may be without."""
    named = dict(texts) if isinstance(texts, Mapping) else dict(enumerate(texts))
    ticks = {"tickvals": list(named), "ticktext": list(named.values()), "ticklabelstandoff": 6}
    return {"range": [(count or len(named)) - 0.5, -0.5], **ticks}


def columns_axis(texts: Sequence[str], *, angle: int, standoff: int = 2, every: int = 1) -> dict[str, Any]:
    """An axis at the top of a matrix with a heading for every 1st, 2nd, ... column."""
    ticks = list(range(0, len(texts), every))
    return {
        "side": "top", "tickvals": ticks, "ticktext": [texts[tick] for tick in ticks], "tickangle": angle,
        "ticklabelstandoff": standoff, "range": [-0.5, len(texts) - 0.5], "tickfont": {"size": 11.5}, **BARE,
    }  # fmt: skip


def row_axis(figure: go.Figure, texts: Sequence[str]) -> None:
    """Make the y axes rows of text, the first at the top, with a faint stripe behind every other one."""
    figure.update_yaxes(rows_axis(texts), showgrid=False, ticks="")
    for row in range(0, len(texts), 2):
        stripe = {"y0": row - 0.5, "y1": row + 0.5, "fillcolor": STRIPE, "line_width": 0, "layer": "below"}
        figure.add_hrect(**stripe, row="all", col="all", exclude_empty_subplots=False)


def tick_step(span: float | int, pixels: float | int, room: float | int = 32) -> float:
    """The smallest round distance of ticks that are ``room`` pixels apart, on an axis of this length in data and pixels."""
    least = span * room / pixels
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= 0.999 * least)


def thinned(ticks: Sequence[Any], texts: Sequence[str], places: Sequence[float | int]) -> tuple[list[Any], list[str]]:
    """Leave out ticks whose text would touch the text before it; ``places`` are the pixels of each along the axis."""
    clear: list[int] = []
    for index, place in enumerate(places):
        room = 4 + LETTER * (len(texts[index]) + len(texts[clear[-1]])) / 2 if clear else 0.0
        if not clear or place - places[clear[-1]] >= room:
            clear.append(index)
    return [ticks[index] for index in clear], [texts[index] for index in clear]
