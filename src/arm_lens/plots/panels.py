"""Small multiples laid out in pixels: panels of a given size, each with its title at its upper left corner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from arm_lens.plots.theme import MUTED, base_layout, label, narrow, page_width

LETTER = 6.9
"""Pixels that a character takes at the sizes of text here, on the wide side."""
NARROWEST = 120
"""Pixels of a panel that still holds an axis of numbers and a title."""


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

    def cell(self, index: int) -> tuple[int, int]:
        """Row and column, from 1 as plotly counts."""
        row, column = divmod(index, self.columns)
        return row + 1, column + 1

    def place(self, index: int) -> dict[str, int]:
        """Likewise, as plotly's keywords."""
        row, column = self.cell(index)
        return {"row": row, "col": column}

    def is_lowest(self, index: int) -> bool:
        """Whether no panel stands below this one."""
        return index + self.columns >= self.count

    def figure(self, titles: Sequence[str], notes: Sequence[str]) -> go.Figure:
        """An empty figure of this layout; a title is a criterion as written, a note is plotly text below it."""
        inner_width = self.inner_width
        inner_height = self.rows * self.height + (self.rows - 1) * self.gap_y
        cells: list[dict[str, str] | None] = [
            {} if index < self.count else None for index in range(self.rows * self.columns)
        ]
        figure = make_subplots(
            rows=self.rows,
            cols=self.columns,
            specs=[cells[row * self.columns : (row + 1) * self.columns] for row in range(self.rows)],
            horizontal_spacing=self.gap_x / inner_width if self.columns > 1 else 0,
            vertical_spacing=self.gap_y / inner_height if self.rows > 1 else 0,
        )
        figure.update_layout(
            base_layout(
                width=self.left + inner_width + self.right,
                height=self.top + inner_height + self.bottom,
                margin={"l": self.left, "r": self.right, "t": self.top, "b": self.bottom},
            )
        )
        for index, (title, note) in enumerate(zip(titles, notes, strict=True)):
            row, column = self.cell(index)
            text = f"<b>{label(title, width=max(12, int(self.width / 7.5)))}</b>"
            if note:
                text += f'<br><span style="font-size:12px;color:{MUTED}">{note}</span>'
            figure.add_annotation(
                text=text, x=0, y=1, xref="x domain", yref="y domain", row=row, col=column,
                xanchor="left", yanchor="bottom", align="left", yshift=3, showarrow=False,
            )  # fmt: skip
        return figure


def name_rows(figure: go.Figure, text: str, *, left: int = 46) -> None:
    """What all axes upwards show, once and at the left: panels are too low to hold the words in each row."""
    figure.add_annotation(
        text=text, textangle=-90, x=0, y=0.5, xref="paper", yref="paper", xanchor="center", xshift=-left
    )


def second_line(titles: Iterable[str], width: float | int) -> int:
    """Pixels that panels of this width need above them beyond one line, if a title takes two."""
    return 18 if any(len(title) > max(12, int(width / 7.5)) for title in titles) else 0


def balanced_columns(count: int, most: int) -> int:
    """The number of columns that fills the fewest rows most evenly: 5 panels in at most 4 columns stand as 3 and 2."""
    rows = -(-count // most)
    return -(-count // rows)


def fitting_columns(
    count: int, *, most: int, left: float | int, right: float | int, gap: float | int, narrowest: float | int
) -> int:
    """The number of columns that balances ``count`` panels of at least ``narrowest`` pixels on the page."""
    return balanced_columns(count, max(1, min(most, int((page_width() - left - right + gap) // (narrowest + gap)))))


def line_panels(count: int, *, height: int, columns: int | None = None, **sizes: int) -> Panels:
    """Panels for curves and histograms: as wide as the page allows, at most four in a row unless told."""
    spare = Panels(count=count, columns=1, width=1, height=height, **sizes)
    columns = columns or fitting_columns(
        count, most=4, left=spare.left, right=spare.right, gap=spare.gap_x, narrowest=NARROWEST
    )
    available = page_width() - spare.left - spare.right - (columns - 1) * spare.gap_x
    return Panels(count=count, columns=columns, width=min(available // columns, 520), height=height, **sizes)


def legend_above(names: Iterable[str], *, left: float | int, width: float | int) -> tuple[dict[str, Any], int]:
    """A legend at the top of the figure, on one line or in as many equal columns as fit; and the pixels that it takes.

    Args:
        names: as displayed.
        left: the figure's left margin in pixels; on a narrow page the legend begins at the figure's edge all the same.
        width: pixels from the first panel to the last: whatever its place, plotly makes a legend no wider.
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


def chance_line(
    figure: go.Figure,
    *,
    span: tuple[float | int, float | int],
    x: float | int | None = None,
    y: float | int | None = None,
    **place: object,
) -> None:
    """A dashed line where guessing would be: upright at ``x``, or level at ``y``, over the grid and under the data.

    Args:
        figure: drawn into.
        span: from where to where it goes on the other axis, in that axis' own units: plotly draws no line of this layer
            in units of the panel.
        x: where it stands.
        y: likewise.
        place: ``row`` and ``col``, or ``xref`` and ``yref``.
    """
    ends = dict(zip(("y0", "y1") if y is None else ("x0", "x1"), span, strict=True))
    at = {"x0": x, "x1": x} if y is None else {"y0": y, "y1": y}
    line = {"color": "#444444", "width": 1.4, "dash": "dash"}
    figure.add_shape(type="line", **ends, **at, line=line, layer="between", **place)


def thinned(ticks: Sequence[Any], texts: Sequence[str], places: Sequence[float | int]) -> tuple[list[Any], list[str]]:
    """Of ticks in ascending order, the first and every further one whose text stands clear of the last one kept.

    Args:
        ticks: values.
        texts: what they read.
        places: where they stand, in pixels along the axis.
    """
    kept: list[int] = []
    for index, place in enumerate(places):
        room = 4 + LETTER * (len(texts[index]) + len(texts[kept[-1]])) / 2 if kept else 0.0
        if not kept or place - places[kept[-1]] >= room:
            kept.append(index)
    return [ticks[index] for index in kept], [texts[index] for index in kept]
