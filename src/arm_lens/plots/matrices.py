"""Matrices of coloured cells with their numbers: what figures of heads by criteria and of names by names share.

A number is bold if its interval excludes zero, or chance; that survives a photocopy and takes no room. If cells are too small
for numbers, a colour bar says what they are, a minus stands in cells below zero, and a small ring in cells that are not bold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import plotly.graph_objects as go

from arm_lens.plots.judge_rows import column_headings, overhang
from arm_lens.plots.notation import HOVER, compact, fits
from arm_lens.plots.panels import BARE, LETTER, Panels, above_panel, color_bar, columns_axis, rows_axis
from arm_lens.plots.theme import DIVERGING, HEAT, INK, MUTED, label, narrow, page_width, signs

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
ACCURACY = "accuracy"
RING = "∘"
Entry: TypeAlias = tuple[Hashable, Hashable, float | int, bool | None, str]
"""One cell: row, column, value, whether its number is bold (None if no number of the matrix can be), and hover text."""


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
        """Whether the scale has a middle: zero, or the chance of one half."""
        return self.signed or self.title == ACCURACY

    def ink(self, value: float | int) -> str:
        """The colour of a number printed on this value's colour; plotly's own choice is a weak grey."""
        place = (value - self.low) / (self.high - self.low)
        dark = abs(place - 0.5) > 0.25 if self.diverging else place > 0.62
        return "#ffffff" if dark else INK


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One matrix. All arrays are [row, column]."""

    values: np.ndarray
    """NaN cells are blank."""
    hover: np.ndarray
    """Plotly text."""
    bold: np.ndarray | None
    instead: np.ndarray
    """Text to print in blank cells."""
    crossed: np.ndarray
    """Blank cells that might have had a value: a grey cross."""
    title: str = ""

    @classmethod
    def of(
        cls,
        rows: Sequence[Hashable],
        columns: Sequence[Hashable],
        entries: Iterable[Entry],
        *,
        blank: str = "",
        title: str = "",
    ) -> Cells:
        """The matrix of these entries.

        Args:
            rows: from the top; an empty name is a gap.
            columns: from the left.
            entries: those in other rows or columns are left out.
            blank: hover text of cells without an entry.
            title: of the matrix.
        """
        shape = (len(rows), len(columns))
        values, hover = np.full(shape, np.nan), np.full(shape, blank, dtype=object)
        bold: np.ndarray | None = np.zeros(shape, dtype=bool)
        down, across = ({name: index for index, name in enumerate(names)} for names in (rows, columns))
        for row, column, value, sure, text in entries:
            if row in down and column in across:
                cell = down[row], across[column]
                values[cell], hover[cell] = value, text
                if sure is None:
                    bold = None
                elif bold is not None:
                    bold[cell] = sure
        crossed = np.isnan(values) & np.array([row != "" for row in rows])[:, None]
        return cls(
            values=values, hover=hover, bold=bold, instead=np.full(shape, "", object), crossed=crossed, title=title
        )

    @classmethod
    def of_pairs(
        cls,
        names: Sequence[Hashable],
        entries: Iterable[Entry],
        diagonal: Mapping[Hashable, tuple[str, str]] | None = None,
    ) -> Cells:
        """The symmetric matrix of these pairs of names, each given once; its diagonal has a text and a hover text."""
        once = list(entries)
        found = cls.of(names, names, [*once, *((b, a, value, sure, text) for a, b, value, sure, text in once)])
        for index, name in enumerate(names):
            found.instead[index, index], found.hover[index, index] = (diagonal or {}).get(name, ("", ""))
            found.crossed[index, index] = False
        return found


@dataclass(frozen=True)
class Layout:
    """Where things are, in pixels, for what callers add."""

    panels: Panels
    printed: bool
    """Whether cells have numbers; otherwise they have signs."""
    short: bool
    """Whether numbers are without the zero before the point."""

    @property
    def marks(self) -> str:
        """The caption's words for cells whose interval excludes zero."""
        if self.printed:
            return "Bold: the interval excludes zero."
        return "−: notably below zero. ∘: the interval includes zero."


def matrices(
    cells: Sequence[Cells],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    *,
    right: int = 14,
    largest_width: int = 58,
    heights: int = 26,
) -> tuple[go.Figure, Layout]:
    """A figure of matrices with common rows and columns, first row at the top.

    Args:
        cells: the matrices, side by side if there is room.
        rows: literal names of the rows; an empty one is a gap.
        columns: literal names of the columns.
        scale: what colours mean.
        right: pixels to leave free at the right.
        largest_width: largest width of a cell.
        heights: height of a cell.
    """
    letters = 15 if narrow() else 22
    names = [label(row, width=letters, lines=NAME_LINES) for row in rows]
    longest = max(len(line) for row in rows for line in textwrap.wrap(row, letters)[:NAME_LINES] or [""])
    left, gap, across = round(20 + LETTER * min(longest, letters)), 26, len(cells)

    def width_with(extra: int = 0) -> float | int:
        free = page_width() - left - right - extra - (across - 1) * gap
        return min(largest_width, free / (across * len(columns)))

    def numbers(width: float | int) -> tuple[bool, bool]:
        """Whether numbers lose the zero before the point, and whether they are printed; the same for a whole figure."""
        short = not all(fits(one.values, scale.digits, width) for one in cells)
        return short, all(fits(one.values, scale.digits, width, short=short) for one in cells)

    while across > 1 and width_with() < SMALLEST:
        across -= 1
    short, printed = numbers(width_with())
    width = width_with() if printed else width_with(BAR)
    headings, angle, room = _headings(columns, width)
    slant = max(0, overhang(columns, angle) + 10 - round(width / 2)) if angle == -40 else 0
    if slant:
        gap += slant
        if printed:  # headings that lean out take room from the cells
            short, printed = numbers(width_with(slant))
        width = width_with(slant if printed else BAR + slant)
    if any("<br>" in name for name in names):
        heights = max(heights, 32)
    over = room + 26 * any(one.title for one in cells)
    panels = Panels(
        count=len(cells), columns=across, width=round(width * len(columns)), height=heights * len(rows), gap_x=gap,
        gap_y=over + 16, left=left, right=right + slant + BAR * (not printed), top=over + 8, bottom=14,
    )  # fmt: skip
    figure, layout = panels.figure([]), Layout(panels, printed, short)
    for index, one in enumerate(cells):
        place = panels.place(index)
        _draw(figure, one, scale, layout, place)
        figure.update_yaxes(showticklabels=place["col"] == 1, **place)
        if one.title:
            title = label(one.title, width=max(12, int(panels.width / 7.5)), lines=1)
            above_panel(figure, f"<b>{title}</b>", yshift=room + 2, **place)
    figure.update_xaxes(columns_axis(headings, angle=angle, every=-(-UPRIGHT // round(width)) if angle == -90 else 1))
    figure.update_yaxes(rows_axis(names), **BARE)
    bar = color_bar(scale.title, length=max(170, min(300, panels.height)), xpad=14, thickness=12)
    colors = DIVERGING if scale.diverging else HEAT
    axis = {"cmin": scale.low, "cmax": scale.high, "colorscale": colors, "showscale": not printed, "colorbar": bar}
    return figure.update_layout(coloraxis=axis), layout


def _headings(columns: Sequence[str], width: float | int) -> tuple[list[str], int, int]:
    """As `column_headings`, but short names that do not fit stand upright, and so do names that would overlap."""
    headings, angle, room = column_headings(columns, width)
    longest = max(map(len, columns))
    if angle and (longest <= 7 or width < LEANING):
        longest = min(longest, UPRIGHT_LETTERS)
        return [label(name, width=longest, lines=1) for name in columns], -90, round(LETTER * longest) + 12
    return headings, angle, room


def _draw(figure: go.Figure, one: Cells, scale: Scale, layout: Layout, place: Mapping[str, int]) -> None:
    figure.add_heatmap(
        z=one.values, x=list(range(one.values.shape[1])), y=list(range(one.values.shape[0])), coloraxis="coloraxis",
        xgap=1, ygap=1, hovertext=one.hover, hovertemplate=HOVER, text=_texts(one, scale, layout),
        texttemplate="%{text}", textfont={"size": 11.5}, **place,
    )  # fmt: skip
    blank = np.isnan(one.values)
    marker = {"symbol": "x-thin", "size": 7, "line": {"width": 1, "color": "#a6a6a6"}}
    font = {"size": 11.5, "color": MUTED}
    for where, mode in ((blank & one.crossed, "markers"), (blank & (one.instead != ""), "text")):
        if where.any():
            y, x = (index.tolist() for index in np.nonzero(where))
            figure.add_scatter(
                x=x, y=y, mode=mode, text=one.instead[where].tolist(), marker=marker, textfont=font, hoverinfo="skip",
                showlegend=False, **place,
            )  # fmt: skip


def _texts(one: Cells, scale: Scale, layout: Layout) -> np.ndarray:
    known = np.isfinite(one.values)
    bold = np.ones(known.shape, dtype=bool) if one.bold is None else one.bold
    if not layout.printed:
        marks = signs(one.values, span=scale.high) if scale.signed else np.full(known.shape, "", dtype=object)
        return np.where(known & ~bold, RING, marks)
    texts = np.full(known.shape, "", dtype=object)
    for cell in zip(*np.nonzero(known), strict=True):
        value = float(one.values[cell])
        text = compact(value, scale.digits, short=layout.short)
        text = f"<b>{text}</b>" if one.bold is not None and bold[cell] else text
        texts[cell] = f'<span style="color:{scale.ink(value)}">{text}</span>'
    return texts


def rule(figure: go.Figure, index: int, layout: Layout, at: float | int) -> None:
    """Draw a line between columns and a line between rows, both at ``at``, through panel ``index``."""
    for draw in (figure.add_vline, figure.add_hline):
        for color, width in (("#ffffff", 5), (INK, 1.6)):
            draw(at, line={"color": color, "width": width}, **layout.panels.place(index))
