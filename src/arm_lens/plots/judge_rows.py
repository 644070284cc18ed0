"""What figures with one row per judge share: rows in groups, tables of coloured and printed numbers, dots with intervals."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import BARE, LETTER, columns_axis, rows_axis
from arm_lens.plots.theme import DIVERGING, INK, judge_styles, label, literal
from arm_lens.registry import Style

ROW = 20
"""Pixels from one judge to the next."""
NAME_WIDTH = 28
"""Characters of a judge's name that are shown."""


@dataclass(frozen=True)
class JudgeRows:
    """Judges from top to bottom, each group below its name in bold."""

    styles: dict[str, Style]
    y: dict[str, int]
    """The row of each judge; the rows between are those of the groups' names."""
    headings: dict[int, str]
    """The names of the groups by row; empty if there is one group only."""

    @classmethod
    def of(cls, judges: Iterable[str], names: Mapping[str, str] | None = None) -> JudgeRows:
        """Rows of these judges in the order of `judge_styles`."""
        styles = judge_styles(judges, names)
        groups = [(name, list(members)) for name, members in groupby(styles, key=lambda judge: styles[judge].group)]
        y: dict[str, int] = {}
        headings: dict[int, str] = {}
        for name, members in groups:
            if len(groups) > 1:
                headings[len(y) + len(headings)] = name
            for judge in members:
                y[judge] = len(y) + len(headings)
        return cls(styles, y, headings)

    @property
    def count(self) -> int:
        """Rows, names of groups included."""
        return len(self.y) + len(self.headings)

    @property
    def height(self) -> int:
        """Pixels of a panel with all rows."""
        return self.count * ROW

    @property
    def name_room(self) -> int:
        """Pixels that the names take, with some air."""
        longest = max(
            [min(len(style.label), NAME_WIDTH) for style in self.styles.values()]
            + [len(text) * 1.08 for text in self.headings.values()]
        )
        return round(22 + LETTER * longest)

    def y_axis(self, *, named: bool = True) -> dict[str, object]:
        """Settings of a y axis with the judges on it, the first at the top."""
        texts = {y: label(self.styles[judge].label, width=NAME_WIDTH, lines=1) for judge, y in self.y.items()}
        texts |= {y: f"<b>{literal(text)}</b>" for y, text in self.headings.items()}
        return {**rows_axis(texts, self.count), "showticklabels": named, **BARE}

    def heading_drop(self, angle: int) -> int:
        """Pixels by which level headings stand lower, next to the name of the first group."""
        return ROW if 0 in self.headings and not angle else 0

    def add_table(
        self,
        figure: go.Figure,
        axis: int,
        cells: pd.DataFrame,
        headings: Mapping[str, str],
        *,
        angle: int,
        cell_width: float | int,
        named: bool,
    ) -> None:
        """Draw a table of coloured cells with their numbers: brown below 0.5, blue above; a dash if there is no number.

        Args:
            figure: drawn into.
            axis: number of the panel's axes.
            cells: judge, column, accuracy (from 0 to 1), text (plotly text for hovering).
            headings: plotly text for each column, in order.
            angle: degrees by which the headings are turned.
            cell_width: pixels; narrow cells are printed without the leading zero.
            named: whether the judges are named at the left.
        """
        axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        y, x = cells["judge"].map(self.y), cells["column"].map(list(headings).index)
        z, hover = np.full((self.count, len(headings)), np.nan), np.full((self.count, len(headings)), "", dtype=object)
        z[y, x], hover[y, x] = cells["accuracy"], cells["text"]
        figure.add_heatmap(
            z=z, x=list(range(z.shape[1])), y=list(range(self.count)), hovertext=hover, hoverongaps=False, xgap=1, ygap=1,
            hovertemplate=HOVER, coloraxis="coloraxis", **axes,
        )  # fmt: skip
        places = list(itertools.product(self.y.values(), range(len(headings))))
        values = np.array([z[place] for place in places])
        # White letters on the dark ends of the scale; a missing value is not dark.
        colors = np.where(np.abs(values - 0.5) > 0.24, "#ffffff", INK)
        figure.add_scatter(
            x=[column for _, column in places], y=[row for row, _ in places], mode="text", hoverinfo="skip",
            text=[printed(value, cell_width) for value in values], textfont={"size": 11.5, "color": colors.tolist()},
            showlegend=False, **axes,
        )  # fmt: skip
        figure.update_coloraxes(cmin=0, cmax=1, colorscale=DIVERGING, showscale=False)
        figure.layout[f"yaxis{axis}"].update(self.y_axis(named=named))
        # The headings stand close above the first row of numbers.
        headed = columns_axis(list(headings.values()), angle=angle, standoff=2 - self.heading_drop(angle))
        figure.layout[f"xaxis{axis}"].update(headed)


def printed(value: float | int, cell_width: float | int) -> str:
    """A number from 0 to 1 with two digits for a cell; less than 1 is never printed as 1.00, nor more than 0 as 0.00."""
    if np.isnan(value):
        return "–"
    text, needed = f"{value:.2f}", 33
    if text in ("1.00", "0.00") and value not in (0, 1):
        text, needed = ">0.99" if value > 0.5 else "<0.01", 42
    if cell_width < needed:
        text = "1" if value == 1 else text.replace("0.", ".", 1)
    return literal(text)


def column_headings(names: Sequence[str], width: float | int) -> tuple[list[str], int, int]:
    """Headings of a table's columns: as plotly text, the angle at which they fit, and the pixels they take upwards."""
    letters = int(width / 6.1)
    if all(len(word) <= letters for name in names for word in name.split()):
        wrapped = [textwrap.wrap(name, letters) or [""] for name in names]
        lines = max(map(len, wrapped))
        if lines <= 4:
            return ["<br>".join(map(literal, one)) for one in wrapped], 0, 15 * lines + 8
    cut = [name if len(name) <= 26 else name[:25].rstrip() + "…" for name in names]
    return [literal(name) for name in cut], -40, round(10 + 0.65 * LETTER * max(map(len, cut)) + 8)


def overhang(names: Sequence[str], angle: int) -> int:
    """Pixels by which slanted headings reach beyond the right edge of their table."""
    return round(0.77 * 6.2 * min(26, max(map(len, names)))) if angle else 0


def symbol(style: Style, size: float | int) -> dict[str, Any]:
    """The marker of a judge. Hollow symbols are only an outline; filled ones have none."""
    outline = 1.8 if style.symbol.endswith("-open") else 0.0
    return {"symbol": style.symbol, "size": size, "color": style.color, "line": {"width": outline}}


def interval_dots(
    records: pd.DataFrame,
    y: Iterable[float | int],
    style: Style,
    hover: Sequence[str],
    *,
    value: str = "accuracy",
    ends: tuple[str, str] = ("ci_low", "ci_high"),
) -> go.Scatter:
    """Symbols of one style with their intervals as lines."""
    return go.Scatter(
        x=records[value].to_list(), y=list(y), error_x=whiskers(records, value, style.color, ends=ends), mode="markers",
        marker=symbol(style, 10), name=literal(style.label), hovertext=list(hover), hovertemplate=HOVER, showlegend=False,
    )  # fmt: skip
