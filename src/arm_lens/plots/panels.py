"""Small multiples laid out in pixels: panels of a given size, each with its title at its upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from arm_lens.plots.theme import MUTED, TEMPLATE, label, page_width


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

    def cell(self, index: int) -> tuple[int, int]:
        """Row and column, from 1 as plotly counts."""
        row, column = divmod(index, self.columns)
        return row + 1, column + 1

    def is_lowest(self, index: int) -> bool:
        """Whether no panel stands below this one."""
        return index + self.columns >= self.count

    def figure(self, titles: Sequence[str], notes: Sequence[str]) -> go.Figure:
        """An empty figure of this layout; a title is a criterion as written, a note is plotly text below it."""
        inner_width = self.columns * self.width + (self.columns - 1) * self.gap_x
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
            template=TEMPLATE,
            width=round(self.left + inner_width + self.right),
            height=round(self.top + inner_height + self.bottom),
            margin={"l": self.left, "r": self.right, "t": self.top, "b": self.bottom, "autoexpand": False},
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


def balanced_columns(count: int, most: int) -> int:
    """The number of columns that fills the fewest rows most evenly: 5 panels in at most 4 columns stand as 3 and 2."""
    rows = -(-count // most)
    return -(-count // rows)


def line_panels(count: int, *, height: int, columns: int | None = None, **sizes: int) -> Panels:
    """Panels for curves and histograms: as wide as the page allows, at most four in a row unless told."""
    columns = columns or balanced_columns(count, 4)
    spare = Panels(count=count, columns=columns, width=1, height=height, **sizes)
    available = page_width() - spare.left - spare.right - (columns - 1) * spare.gap_x
    return Panels(count=count, columns=columns, width=min(available // columns, 520), height=height, **sizes)
