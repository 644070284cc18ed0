"""Matrices of coloured cells with their numbers: what figures of heads by criteria and of names by names share.

A number is bold where it is told apart from nothing (its interval excludes zero, or chance); that survives a photocopy and
takes no room. Where cells are too small for numbers, a colour bar says what they are, a minus stands below zero, and a small
ring where nothing is told apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from arm_lens.plots.judge_rows import column_headings, overhang
from arm_lens.plots.notation import HOVER, compact, fits
from arm_lens.plots.panels import LETTER, Panels
from arm_lens.plots.theme import DIVERGING, HEAT, INK, MUTED, label, literal, narrow, page_width, signs

SMALLEST = 27
"""Pixels of the width of a cell below which panels are not put side by side."""
LEANING = 22
"""Columns narrower than this have upright headings."""
UPRIGHT_LETTERS = 18
"""Characters of an upright heading."""
UPRIGHT = 14
"""Pixels from one upright heading to the next."""
BAR = 84
NAME_LINES = 2


@dataclass(frozen=True)
class Scale:
    """What colours mean."""

    low: float | int
    high: float | int
    digits: int
    title: str

    @property
    def signed(self) -> bool:
        """Whether the middle of the scale is zero."""
        return self.low < 0

    @property
    def diverging(self) -> bool:
        """Whether there is a middle to be on either side of: zero, or the chance of one half."""
        return self.signed or self.title == ACCURACY

    def ink(self, value: float | int) -> str:
        """The colour of a number printed on this value's colour."""
        place = (value - self.low) / (self.high - self.low)
        dark = abs(place - 0.5) > 0.25 if self.diverging else place > 0.62
        return "#ffffff" if dark else INK

    @property
    def axis(self) -> dict[str, object]:
        """As plotly's ``coloraxis``."""
        colors = DIVERGING if self.diverging else HEAT
        return {"cmin": self.low, "cmax": self.high, "colorscale": [list(stop) for stop in colors]}


ACCURACY = "accuracy"
RING = "∘"


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One matrix. All arrays are [row, column]."""

    values: np.ndarray
    """NaN cells are blank."""
    hover: np.ndarray
    """Plotly text."""
    bold: np.ndarray | None = None
    instead: np.ndarray | None = None
    """Text to print where it is not empty, instead of the number."""
    crossed: np.ndarray | None = None
    """Where there might have been a value: a grey cross."""
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """Where things are, in pixels, for what callers add."""

    panels: Panels
    cell_width: float | int
    headings: int
    """The room of the columns' headings above a matrix."""
    printed: bool
    """Whether numbers are, and otherwise signs."""
    short: bool
    """Whether numbers are without the zero before the point."""


def matrices(
    cells: Sequence[Cells],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    *,
    right: int = 14,
    largest_width: int = 58,
    heights: int = 26,
    name_width: int = 22,
) -> tuple[go.Figure, Layout]:
    """A figure of matrices with common rows and columns, first row at the top.

    Args:
        cells: the matrices, side by side where there is room.
        rows: names of the rows, as written; an empty one is a gap.
        columns: names of the columns, as written.
        scale: what colours mean.
        right: pixels to keep free at the right.
        largest_width: of a cell.
        heights: of a cell.
        name_width: characters of a row's name per line.
    """
    name_width = min(name_width, 15) if narrow() else name_width
    names = [label(row, width=name_width, lines=NAME_LINES) for row in rows]
    longest = max(len(line) for row in rows for line in textwrap.wrap(row, name_width)[:NAME_LINES] or [""])
    left = round(20 + LETTER * min(longest, name_width))
    titled = any(one.title for one in cells)
    gap = 26
    across = len(cells)
    while across > 1 and _cell(across, left, right, gap, len(columns), largest_width) < SMALLEST:
        across -= 1
    width = _cell(across, left, right, gap, len(columns), largest_width)
    short, printed = _numbers(cells, scale.digits, width)
    if not printed:
        width = _cell(across, left, right + BAR, gap, len(columns), largest_width)
    headings, angle, room = _headings(columns, width)
    slant = max(0, overhang(columns, angle) + 10 - round(width / 2)) if angle == -40 else 0
    if slant:
        gap += slant
        width = _cell(across, left, right + BAR * (not printed) + slant, gap, len(columns), largest_width)
        if printed:  # headings that lean out take room from the cells
            short, printed = _numbers(cells, scale.digits, width)
        if not printed:
            width = _cell(across, left, right + BAR + slant, gap, len(columns), largest_width)
    if any("<br>" in name for name in names):
        heights = max(heights, 32)
    over = room + (44 if any(one.note for one in cells) else 26) * titled
    panels = Panels(
        count=len(cells), columns=across, width=round(width * len(columns)), height=heights * len(rows), gap_x=gap,
        gap_y=over + 16, left=left, right=right + slant + BAR * (not printed), top=over + 8, bottom=14,
    )  # fmt: skip
    figure = panels.figure([""] * len(cells), [""] * len(cells))
    figure.layout.annotations = ()
    ticks = list(range(0, len(columns), -(-UPRIGHT // round(width)) if angle == -90 else 1))
    layout = Layout(panels, panels.width / len(columns), room, printed, short)
    for index, one in enumerate(cells):
        _draw(figure, index, one, scale, layout)
        row, column = panels.cell(index)
        place = {"row": row, "col": column}
        figure.update_xaxes(
            side="top", tickvals=ticks, ticktext=[headings[tick] for tick in ticks], tickangle=angle,
            range=[-0.5, len(columns) - 0.5], tickfont={"size": 11.5}, ticklabelstandoff=2, **place,
        )  # fmt: skip
        figure.update_yaxes(
            range=[len(rows) - 0.5, -0.5], tickvals=list(range(len(rows))), ticktext=names,
            showticklabels=column == 1, ticklabelstandoff=6, **place,
        )  # fmt: skip
        if one.title:
            note = f'<br><span style="font-size:12px;color:{MUTED}">{literal(one.note)}</span>' if one.note else ""
            figure.add_annotation(
                text=f"<b>{label(one.title, width=max(12, int(panels.width / 7.5)), lines=1)}</b>{note}", x=0, y=1,
                xref="x domain", yref="y domain", xanchor="left", yanchor="bottom", align="left", yshift=room + 2,
                **place,
            )  # fmt: skip
    figure.update_xaxes(showgrid=False, showline=False, ticks="")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    bar = {
        "title": {"text": f"{scale.title}<br>&nbsp;", "side": "top", "font": {"size": 12}}, "outlinewidth": 0,
        "len": max(170, min(300, panels.height)), "lenmode": "pixels", "y": 1, "yanchor": "top", "x": 1, "xpad": 14,
        "thickness": 12, "tickfont": {"size": 12},
    }  # fmt: skip
    figure.update_layout(coloraxis={**scale.axis, "showscale": not printed, "colorbar": bar})
    return figure, layout


def _headings(columns: Sequence[str], width: float | int) -> tuple[list[str], int, int]:
    """As `column_headings`, but names stand upright where they do not fit and are short, or would lean on each other."""
    headings, angle, room = column_headings(columns, width)
    longest = max(map(len, columns))
    if angle and (longest <= 7 or width < LEANING):
        longest = min(longest, UPRIGHT_LETTERS)
        return [label(name, width=longest, lines=1) for name in columns], -90, round(LETTER * longest) + 12
    return headings, angle, room


def _numbers(cells: Sequence[Cells], digits: int, width: float | int) -> tuple[bool, bool]:
    """Whether numbers lose the zero before the point, and whether they can be printed; the same for a whole figure."""
    short = not all(fits(one.values, digits, width) for one in cells)
    return short, all(fits(one.values, digits, width, short=short) for one in cells)


def _cell(across: int, left: int, right: int, gap: int, columns: int, most: int) -> float | int:
    return min(most, (page_width() - left - right - (across - 1) * gap) / (across * columns))


def _draw(figure: go.Figure, index: int, one: Cells, scale: Scale, layout: Layout) -> None:
    row, column = layout.panels.cell(index)
    heat = go.Heatmap(
        z=one.values, x=list(range(one.values.shape[1])), y=list(range(one.values.shape[0])), coloraxis="coloraxis",
        xgap=1, ygap=1, hovertext=one.hover, hovertemplate=HOVER, text=_texts(one, scale, layout),
        texttemplate="%{text}", textfont={"size": 11.5},
    )  # fmt: skip
    figure.add_trace(heat, row=row, col=column)
    for where, kind in ((one.crossed, "x"), (one.instead, "")):
        if where is None:
            continue
        blank = np.isnan(one.values) & where.astype(bool)
        if not blank.any():
            continue
        y, x = (places.tolist() for places in np.nonzero(blank))
        symbols = go.Scatter(
            x=x, y=y, mode="markers" if kind else "text", hoverinfo="skip", showlegend=False,
            text=[] if kind else [f"{where[i, j]}" for i, j in zip(y, x, strict=True)],
            textfont={"size": 11.5, "color": MUTED},
            marker={"symbol": "x-thin", "size": 7, "line": {"width": 1, "color": "#a6a6a6"}},
        )  # fmt: skip
        figure.add_trace(symbols, row=row, col=column)


def _texts(one: Cells, scale: Scale, layout: Layout) -> np.ndarray:
    told = np.ones(one.values.shape, dtype=bool) if one.bold is None else one.bold
    if not layout.printed:
        marks = signs(one.values, span=scale.high) if scale.signed else np.full(told.shape, "", dtype=object)
        marks[~told & np.isfinite(one.values)] = RING
        return marks
    texts = np.full(told.shape, "", dtype=object)
    for place in zip(*np.nonzero(np.isfinite(one.values)), strict=True):
        text = compact(float(one.values[place]), scale.digits, short=layout.short)
        text = f"<b>{text}</b>" if one.bold is not None and told[place] else text
        # plotly's own choice of a light or a dark text is a weak grey.
        texts[place] = f'<span style="color:{scale.ink(float(one.values[place]))}">{text}</span>'
    return texts


def rule(
    figure: go.Figure, index: int, layout: Layout, *, x: float | int | None = None, y: float | int | None = None
) -> None:
    """A line between columns, at ``x``, or between rows, at ``y``, through panel ``index``."""
    row, column = layout.panels.cell(index)
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "y domain"} if y is None else {
        "y0": y, "y1": y, "x0": 0, "x1": 1, "xref": "x domain"}  # fmt: skip
    for color, width in (("#ffffff", 5), (INK, 1.6)):
        figure.add_shape(type="line", **ends, line={"color": color, "width": width}, row=row, col=column)


def outlined(figure: go.Figure, index: int, layout: Layout, places: Sequence[tuple[int, int]]) -> None:
    """Frames around the cells at these (row, column)."""
    row, column = layout.panels.cell(index)
    for y, x in places:
        figure.add_shape(
            type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": INK, "width": 2.2}, row=row,
            col=column,
        )  # fmt: skip
