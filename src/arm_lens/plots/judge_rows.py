"""What figures with one row per judge share: rows in groups, tables of coloured and printed numbers, dots with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import LETTER
from arm_lens.plots.theme import DIVERGING, INK, JudgeStyle, judge_styles, label, literal

ROW = 20
"""Pixels from one judge to the next."""
NAME_WIDTH = 28
"""Characters of a judge's name that are shown."""


@dataclass(frozen=True)
class JudgeRows:
    """Judges from top to bottom, each group under its name in bold."""

    styles: dict[str, JudgeStyle]
    y: dict[str, int]
    """The row of each judge; the rows between are those of the groups' names."""
    headings: dict[int, str]
    """Row -> the name of the group that begins below it; empty if there is one group only."""

    @classmethod
    def of(cls, judges: Iterable[str], names: Mapping[str, str] | None = None) -> JudgeRows:
        """Rows of these judges in their fixed order."""
        styles = judge_styles(judges, names)
        several = len({style.group for style in styles.values()}) > 1
        y: dict[str, int] = {}
        headings: dict[int, str] = {}
        group = None
        for judge, style in styles.items():
            if several and style.group != group:
                headings[len(y) + len(headings)] = style.group
            group = style.group
            y[judge] = len(y) + len(headings)
        return cls(styles, y, headings)

    @property
    def count(self) -> int:
        """Rows, names of groups included."""
        return len(self.y) + len(self.headings)

    @property
    def height(self) -> int:
        """Pixels of a panel that holds the rows."""
        return self.count * ROW

    @property
    def name_room(self) -> int:
        """Pixels that the names take, with some air."""
        longest = max(
            [min(len(style.name), NAME_WIDTH) for style in self.styles.values()]
            + [len(text) * 1.08 for text in self.headings.values()]
        )
        return round(22 + LETTER * longest)

    def y_axis(self, *, named: bool = True) -> dict[str, object]:
        """Settings of a y axis that has the judges on it, first at the top."""
        texts = {y: label(self.styles[judge].name, width=NAME_WIDTH, lines=1) for judge, y in self.y.items()}
        texts |= {y: f"<b>{literal(text)}</b>" for y, text in self.headings.items()}
        return {
            "range": [self.count - 0.5, -0.5],
            "tickvals": list(texts),
            "ticktext": list(texts.values()),
            "showticklabels": named,
            "showgrid": False,
            "showline": False,
            "ticks": "",
            "ticklabelstandoff": 6,
        }

    def heading_drop(self, angle: int) -> int:
        """Pixels by which level headings stand lower, beside the name of the first group."""
        return ROW if 0 in self.headings and not angle else 0

    def heading_axis(self, headings: Sequence[str], angle: int) -> dict[str, object]:
        """Settings of an x axis with the headings of a table's columns, close above its first row of numbers."""
        return {
            "side": "top",
            "tickvals": list(range(len(headings))),
            "ticktext": list(headings),
            "tickangle": angle,
            "range": [-0.5, len(headings) - 0.5],
            "showgrid": False,
            "showline": False,
            "ticks": "",
            "tickfont": {"size": 11.5},
            "ticklabelstandoff": 2 - self.heading_drop(angle),
        }


def add_value_table(
    figure: go.Figure,
    rows: JudgeRows,
    values: pd.DataFrame,
    hover: pd.DataFrame,
    *,
    cell_width: float | int,
    place: Mapping[str, object],
) -> None:
    """A table of coloured cells with their numbers: brown below 0.5, blue above; a dash where there is no number.

    Args:
        figure: drawn into.
        rows: where each judge stands.
        values: judges as index, one column per column of the table, numbers from 0 to 1.
        hover: likewise, plotly text.
        cell_width: pixels; narrow cells are printed without the leading zero.
        place: ``row`` and ``col``, or ``xaxis`` and ``yaxis``, of the panel.
    """
    kept = values.reindex(list(rows.y)).to_numpy(dtype=float)
    texts = hover.reindex(list(rows.y)).to_numpy(dtype=object)
    z = np.full((rows.count, values.shape[1]), np.nan)
    shown = np.full(z.shape, "", dtype=object)
    z[list(rows.y.values())], shown[list(rows.y.values())] = kept, texts
    axes = {key: place[key] for key in ("xaxis", "yaxis") if key in place}
    cell = {key: place[key] for key in ("row", "col") if key in place}
    heat = go.Heatmap(
        z=z, x=list(range(z.shape[1])), y=list(range(rows.count)), text=shown, hovertemplate="%{text}<extra></extra>",
        hoverongaps=False, coloraxis="coloraxis", xgap=1, ygap=1, **axes,
    )  # fmt: skip
    figure.add_trace(heat, **cell)
    for dark in (False, True):
        # White letters on the dark ends of the scale; NaN is neither.
        where = [
            (judge, column)
            for judge, column in np.ndindex(kept.shape)
            if (abs(kept[judge, column] - 0.5) > 0.24) == dark
        ]
        letters = go.Scatter(
            x=[column for _, column in where],
            y=[list(rows.y.values())[judge] for judge, _ in where],
            text=[printed(float(kept[judge, column]), cell_width) for judge, column in where],
            mode="text", textfont={"size": 11.5, "color": "#ffffff" if dark else INK},
            hoverinfo="skip", showlegend=False, **axes,
        )  # fmt: skip
        figure.add_trace(letters, **cell)
    figure.update_coloraxes(cmin=0, cmax=1, colorscale=[list(stop) for stop in DIVERGING], showscale=False)


def printed(value: float | int, cell_width: float | int) -> str:
    """A number of a cell with two digits, which never says 1.00 of what is less, nor 0.50 of what is more or less."""
    if np.isnan(value):
        return "–"
    text = f"{value:.2f}"
    if (text == "1.00" and value < 1) or (text == "0.00" and value > 0):
        text = f">{0.99}" if value > 0.5 else f"<{0.01}"
        return literal(text) if cell_width >= 42 else literal(text.replace("0.", "."))
    return text if cell_width >= 33 else text.replace("0.", ".", 1) if value < 1 else "1"


def column_headings(names: Sequence[str], width: float | int) -> tuple[list[str], int, int]:
    """Headings of a table's columns: as plotly text, the angle at which they fit, and the pixels they take upwards."""
    letters = int(width / 6.1)
    if all(len(word) <= letters for name in names for word in name.split()):
        wrapped = [textwrap.wrap(name, letters) or [""] for name in names]
        if max(map(len, wrapped)) <= 4:
            lines = max(map(len, wrapped))
            return ["<br>".join(map(literal, one)) for one in wrapped], 0, 15 * lines + 8
    shown = [name if len(name) <= 26 else name[:25].rstrip() + "…" for name in names]
    return [literal(name) for name in shown], -40, round(10 + 0.65 * LETTER * max(map(len, shown)) + 8)


def overhang(names: Sequence[str], angle: int) -> int:
    """Pixels by which slanted headings reach beyond the right edge of their table."""
    return round(0.77 * 6.2 * min(26, max(map(len, names)))) if angle else 0


def interval_dots(
    records: pd.DataFrame, y: Sequence[float | int], style: JudgeStyle, hover: Sequence[str], *, value: str = "accuracy"
) -> go.Scatter:
    """Symbols of one style with their intervals as lines."""
    return go.Scatter(
        x=records[value].to_list(),
        y=list(y),
        error_x=whiskers(records, value, style.color),
        mode="markers",
        marker={"symbol": style.symbol, "size": 10, "color": style.color, "line": {"width": line_width(style)}},
        name=literal(style.name),
        hovertext=list(hover),
        hovertemplate=HOVER,
        showlegend=False,
    )


def line_width(style: JudgeStyle) -> float:
    """Hollow symbols are all outline; filled ones have none."""
    return 1.8 if style.symbol.endswith("-open") else 0.0


def accuracy_text(row: Mapping[Any, Any], *titles: str) -> str:
    """Hover text of a row of ``summary``."""
    first = "<br>".join(f"<b>{label(title, width=60)}</b>" for title in titles)
    size = f"<br>n = {row['n']:.0f}" if "n" in row else ""
    return f"{first}<br>accuracy {row['accuracy']:.3f}, interval {row['ci_low']:.3f} to {row['ci_high']:.3f}{size}"
