"""Matrices of coloured cells with their numbers: what figures of heads by criteria, names by names and judges by tasks share.

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

from arm_lens.plots.marks import HOVER, color_bar
from arm_lens.plots.notation import DIGIT, compact
from arm_lens.plots.panels import BARE, LETTER, Panels, above_panel, columns_axis, rows_axis
from arm_lens.plots.theme import DIVERGING, HEAT, INK, MUTED, label, labels, literal, narrow, page_width, signs

SMALLEST = 27
"""Pixels of the width of a cell below which panels are not put side by side."""
LEANING = 22
"""Columns narrower than this have upright headings."""
UPRIGHT_LETTERS = 18
"""Characters of an upright heading."""
UPRIGHT = 14
"""Pixels from one upright heading to the next."""
CUT = 26
"""Characters of a slanted heading."""
BAR = 84
NAME_LINES = 2
RING = "∘"
Entry: TypeAlias = tuple[Hashable, Hashable, float | int, bool | None, str]
"""One cell: row, column, value, whether its number is bold (None if no interval is known), and hover text."""


@dataclass(frozen=True)
class Scale:
    """What colours mean."""

    low: float | int
    high: float | int
    digits: int
    title: str
    chance: bool = False
    """Whether the middle of the scale is chance, and values are shares of right verdicts."""

    @property
    def signed(self) -> bool:
        """Whether the middle of the scale is zero."""
        return self.low < 0

    @property
    def diverging(self) -> bool:
        """Whether the scale has a middle."""
        return self.signed or self.chance

    def ink(self, value: float | int) -> str:
        """The colour of a number printed on this value's colour; plotly's own choice is a weak grey."""
        place = (value - self.low) / (self.high - self.low)
        dark = abs(place - 0.5) > 0.25 if self.diverging else place > 0.62
        return "#ffffff" if dark else INK

    def text(self, value: float | int, *, short: bool = False) -> str:
        """The number of a cell; a share less than 1 is never printed as 1.00, nor more than 0 as 0.00."""
        if self.chance and 0 < value < 1 and not 0.005 <= value < 0.995:
            return (">" if value > 0.5 else "<") + compact(0.99 if value > 0.5 else 0.01, 2, short=short)
        return compact(value, self.digits, short=short)

    def fits(self, values: np.ndarray, width: float | int, *, short: bool = False) -> bool:
        """Whether every number can be printed in a cell of this width."""
        return all(DIGIT * len(self.text(float(one), short=short)) + 3 <= width for one in values[np.isfinite(values)])


ACCURACY = Scale(0, 1, 2, "accuracy", chance=True)
"""Brown below one half, blue above."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One matrix. All arrays are [row, column]."""

    values: np.ndarray
    """NaN cells are blank."""
    hover: np.ndarray
    """Plotly text."""
    bold: np.ndarray
    """1 where a number is bold, 0 where it is not because its interval is too wide, NaN where no interval is known."""
    instead: np.ndarray
    """Text to print in blank cells."""
    crossed: np.ndarray
    """Blank cells that might have had a value: a grey cross."""
    title: str = ""
    note: str = ""
    """Literal text after the title."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Hashable],
        columns: Sequence[Hashable],
        entries: Iterable[Entry],
        *,
        blank: str = "",
        title: str = "",
        note: str = "",
    ) -> Cells:
        """The matrix of these entries; those in other rows or columns are left out.

        An empty row is a gap. ``blank`` is the hover text of cells without an entry.
        """
        shape = (len(rows), len(columns))
        values, hover, bold = np.full(shape, np.nan), np.full(shape, blank, dtype=object), np.full(shape, np.nan)
        down, across = ({name: index for index, name in enumerate(names)} for names in (rows, columns))
        for row, column, value, sure, text in entries:
            if row in down and column in across:
                cell = down[row], across[column]
                values[cell], hover[cell], bold[cell] = value, text, np.nan if sure is None else sure
        crossed = np.isnan(values) & np.array([row != "" for row in rows])[:, None]
        instead = np.full(shape, "", object)
        return cls(values=values, hover=hover, bold=bold, instead=instead, crossed=crossed, title=title, note=note)

    @classmethod
    def of_pairs(
        cls,
        names: Sequence[Hashable],
        entries: Iterable[Entry],
        diagonal: Mapping[Hashable, tuple[str, str]] | None = None,
    ) -> Cells:
        """The symmetric matrix of these pairs of names; its diagonal has a text and a hover text.

        Raises:
            ValueError: if a pair is there twice, in both orders, or is of a name with itself.
        """
        once, pairs = list(entries), set[frozenset[Hashable]]()
        for a, b, *_ in once:
            if a == b or frozenset((a, b)) in pairs:
                raise ValueError(f"{a} and {b} are a pair {'of one name' if a == b else 'twice, in both orders'}")
            pairs.add(frozenset((a, b)))
        found = cls.of(names, names, [*once, *((b, a, value, sure, text) for a, b, value, sure, text in once)])
        for index, name in enumerate(names):
            found.instead[index, index], found.hover[index, index] = (diagonal or {}).get(name, ("", ""))
            found.crossed[index, index] = False
        return found

    @property
    def gaps(self) -> str:
        """The caption's words for crosses."""
        return "×: not measured." if (self.crossed & np.isnan(self.values)).any() else ""


@dataclass(frozen=True)
class Layout:
    """Where things are, in pixels, for what callers add."""

    panels: Panels
    printed: bool
    """Whether cells have numbers; otherwise they have signs."""
    sure: bool
    """Whether some interval is known."""

    def marks(self, zero: str = "zero", every: str = "") -> str:
        """The caption's words for cells whose interval excludes zero, or another value, for every one of several."""
        if self.printed:
            return f"Bold: the interval excludes {zero}{every}." * self.sure
        minus = "−: notably below zero. " if zero == "zero" else ""
        return minus + f"∘: {'an' if every else 'the'} interval includes {zero}." * self.sure


def matrices(
    cells: Sequence[Cells],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    *,
    right: int = 14,
    largest_width: int = 58,
    heights: int = 26,
    most: int = 99,
    letters: int = 0,
) -> tuple[go.Figure, Layout]:
    """A figure of matrices with common literal names of rows and columns, side by side if there is room.

    The first row is at the top. ``right`` are pixels to leave free at the right, ``heights`` and ``largest_width`` those
    of a cell, ``most`` the matrices side by side at most, and ``letters`` the characters of a row's name, which then has
    one line; otherwise it may have two.
    """
    lines, letters = (1, letters) if letters else (NAME_LINES, 15 if narrow() else 22)
    names = labels(rows, width=letters, lines=lines)
    longest = max(len(line) for row in rows for line in textwrap.wrap(row, letters)[:lines] or [""])
    left, gap, across = round(20 + LETTER * min(longest, letters)), 26, min(len(cells), most)

    def width_with(extra: int = 0) -> float | int:
        free = page_width() - left - right - extra - (across - 1) * gap
        return min(largest_width, free / (across * len(columns)))

    def numbers(width: float | int) -> tuple[bool, bool]:
        """Whether numbers lose the zero before the point, and whether they are printed; the same for a whole figure."""
        short = not all(scale.fits(one.values, width) for one in cells)
        return short, all(scale.fits(one.values, width, short=short) for one in cells)

    while across > 1 and width_with() < SMALLEST:
        across -= 1
    short, printed = numbers(width_with())
    width = width_with() if printed else width_with(BAR)
    texts, angle, room = headings(columns, width)
    slant = max(0, overhang(columns) + 10 - round(width / 2)) if angle == -40 else 0
    if slant:  # headings that lean out take room from the cells
        beside = numbers(width_with(across * slant)) if printed else (short, printed)
        leaning = width_with(across * slant + BAR * (not beside[1]))
        if leaning < LEANING:
            slant, (texts, angle, room) = 0, upright(columns)
        else:
            gap, width, (short, printed) = gap + slant, leaning, beside
    if any("<br>" in name for name in names):
        heights = max(heights, 32)
    over = room + 26 * any(one.title for one in cells)
    panels = Panels(
        count=len(cells), columns=across, width=int(width * len(columns)), height=heights * len(rows), gap_x=gap,
        gap_y=over + 16, left=left, right=right + slant + BAR * (not printed), top=over + 8, bottom=14,
    )  # fmt: skip
    figure = panels.figure([])
    for index, one in enumerate(cells):
        place = panels.place(index)
        draw_cells(figure, one, scale, printed=printed, short=short, **place)
        figure.update_yaxes(showticklabels=place["col"] == 1, **place)
        if one.title:
            title = label(one.title, width=max(8, int((panels.width - 6.2 * len(one.note)) / 7.5)), lines=1)
            above_panel(figure, f"<b>{title}</b>{literal(one.note)}", yshift=room + 2, **place)
    figure.update_xaxes(columns_axis(texts, angle=angle, every=-(-UPRIGHT // round(width)) if angle == -90 else 1))
    figure.update_yaxes(rows_axis(names), **BARE)
    bar = color_bar(scale.title, length=max(170, min(300, panels.height)), xpad=14, thickness=12)
    return figure.update_coloraxes(scale_axis(scale), showscale=not printed, colorbar=bar), Layout(
        panels, printed, sure=any(np.isfinite(one.bold).any() for one in cells)
    )


def scale_axis(scale: Scale) -> dict[str, object]:
    """The limits and the colours of a colour axis."""
    return {"cmin": scale.low, "cmax": scale.high, "colorscale": DIVERGING if scale.diverging else HEAT}


def headings(columns: Sequence[str], width: float | int) -> tuple[list[str], int, int]:
    """Headings of columns: as plotly text, the angle at which they fit (0, -40, -90), and the pixels they take upwards.

    Names whose words fit stand level, on at most four lines; short ones that do not fit, and all above narrow columns,
    stand upright; others are slanted.
    """
    letters, longest = int(width / 6.1), max(map(len, columns))
    if all(len(word) <= letters for name in columns for word in name.split()):
        wrapped = [textwrap.wrap(name, letters) or [""] for name in columns]
        lines = max(map(len, wrapped))
        if lines <= 4:
            return ["<br>".join(map(literal, one)) for one in wrapped], 0, 15 * lines + 8
    if longest <= 7 or width < LEANING:
        return upright(columns)
    return labels(columns, width=CUT, lines=1), -40, round(18 + 0.65 * LETTER * min(longest, CUT))


def upright(columns: Sequence[str]) -> tuple[list[str], int, int]:
    """As `headings`, upright in any case."""
    longest = min(max(map(len, columns)), UPRIGHT_LETTERS)
    return labels(columns, width=longest, lines=1), -90, round(LETTER * longest) + 12


def overhang(columns: Sequence[str]) -> int:
    """Pixels by which slanted headings reach beyond the right edge of their matrix."""
    return round(0.77 * 6.2 * min(CUT, max(map(len, columns))))


def draw_cells(figure: go.Figure, one: Cells, scale: Scale, *, printed: bool, short: bool, **place: int | str) -> None:
    """Draw a matrix, with its numbers if they are ``printed``, into the panel or the axes of ``place``."""
    figure.add_heatmap(
        z=one.values, x=list(range(one.values.shape[1])), y=list(range(one.values.shape[0])), coloraxis="coloraxis",
        xgap=1, ygap=1, hovertext=one.hover, hovertemplate=HOVER,
        text=_texts(one, scale, short) if printed else _signs(one, scale), texttemplate="%{text}",
        textfont={"size": 11.5}, **place,
    )  # fmt: skip
    blank = np.isnan(one.values)
    marker = {"symbol": "x-thin", "size": 7, "line": {"width": 1, "color": "#a6a6a6"}}
    font = {"size": 11.5, "color": MUTED}
    for where, mode in ((blank & one.crossed, "markers"), (blank & (one.instead != ""), "text")):
        if where.any():
            y, x = (index.tolist() for index in np.nonzero(where))
            texts = one.instead[where].tolist()
            figure.add_scatter(
                x=x,
                y=y,
                mode=mode,
                text=texts,
                marker=marker,
                textfont=font,
                hoverinfo="skip",
                showlegend=False,
                **place,
            )


def _signs(one: Cells, scale: Scale) -> np.ndarray:
    found = signs(one.values, span=scale.high) if scale.signed else np.full(one.values.shape, "", dtype=object)
    return np.where(np.isfinite(one.values) & (one.bold == 0), RING, found)


def _texts(one: Cells, scale: Scale, short: bool) -> np.ndarray:
    texts = np.full(one.values.shape, "", dtype=object)
    for cell in zip(*np.nonzero(np.isfinite(one.values)), strict=True):
        value = float(one.values[cell])
        text = literal(scale.text(value, short=short))
        text = f"<b>{text}</b>" if one.bold[cell] == 1 else text
        texts[cell] = f'<span style="color:{scale.ink(value)}">{text}</span>'
    return texts


def rule(figure: go.Figure, index: int, layout: Layout, at: float | int) -> None:
    """Draw a line between columns and a line between rows, both at ``at``, through panel ``index``."""
    for draw in (figure.add_vline, figure.add_hline):
        for color, width in (("#ffffff", 5), (INK, 1.6)):
            draw(at, line={"color": color, "width": width}, **layout.panels.place(index))
