"""Judges side by side: each one's accuracy on each subset, and the lead judge against every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.main_setting import against
from arm_lens.evaluation.standings import mean_over_subsets, significant
from arm_lens.frames import COMPARISONS, SUMMARY
from arm_lens.plots.cuts import one_setting
from arm_lens.plots.judge_rows import (
    JudgeRows,
    accuracy_text,
    add_value_table,
    column_headings,
    interval_dots,
    overhang,
)
from arm_lens.plots.panels import Panels, balanced_columns, chance_line, fitting_columns, legend_above, second_line
from arm_lens.plots.theme import INK, MUTED, JudgeStyle, base_layout, label, narrow, page_width

BESIDE = 10
"""The most subsets whose table stands beside the dots; the tables of more stand below."""
MOST_COLUMNS = 14
"""Of a table below the dots."""
DOTS = 270
NARROWEST_CELL = 34
"""Pixels of a cell that holds a printed number."""


SURE = {"significant after Holm": True, "not significant": False}


def accuracy_by_judge(
    summary: pd.DataFrame, *, benchmark: str | None = None, names: Mapping[str, str] | None = None
) -> go.Figure:
    """The mean over subsets as a dot with its interval, and a table of judges by subsets with printed values.

    Means, which count every subset the same, and their intervals are those of `mean_over_subsets`; a judge without
    some subset has none. Chance, at one half, is a dashed line; cells below it are brown, cells above it blue.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`; one row per judge and subset.
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no rows, or several of a judge and a subset.
    """
    table = one_setting(summary, benchmark, SUMMARY)
    rows = JudgeRows.of(table["judge"], names)
    subsets = [str(subset) for subset in table["subset"].unique()]
    left = rows.name_room
    blocks = _blocks(subsets, max(1, int((page_width() - left - 16) / NARROWEST_CELL)))
    beside = len(blocks) <= 1 and not narrow() and len(subsets) <= BESIDE
    dots_width = DOTS if beside and len(subsets) > 1 else page_width() - left - (16 if narrow() else 70)
    table_left = left + dots_width + 26 if beside else left
    cell, headings, angle, room = _cells(blocks, page_width() - table_left - 16)
    top = max(room, 42) if beside else 42
    boxes = [(left, top, dots_width, rows.height)]
    for index in range(len(blocks)):
        y = top if beside else top + rows.height + 64 + room + index * (rows.height + room + 26)
        boxes.append((table_left, y, round(cell * len(blocks[index])), rows.height))
    bottom = max(y + height for _, y, _, height in boxes)
    figure = _boxed(boxes, height=bottom + (56 if beside or not blocks else 20))
    _add_means(figure, table, rows, subsets)
    for index, block in enumerate(blocks):
        here = table[table["subset"].isin(block)]
        here = here.assign(text=_hover(here, rows))
        wide = here.pivot(index="judge", columns="subset", values="accuracy")[block]
        hover = here.pivot(index="judge", columns="subset", values="text")[block].fillna("")
        axes = {"xaxis": f"x{index + 2}", "yaxis": f"y{index + 2}"}
        add_value_table(figure, rows, wide, hover, cell_width=cell, place=axes)
        figure.layout[f"xaxis{index + 2}"].update(rows.heading_axis(headings[index], angle))
        figure.layout[f"yaxis{index + 2}"].update(rows.y_axis(named=not beside))
    return figure


def _blocks(subsets: Sequence[str], most: int) -> list[list[str]]:
    """The subsets of each table, at most so many in one: none if there is one subset, which the dots show."""
    if len(subsets) == 1:
        return []
    beside = len(subsets) <= min(BESIDE, most)
    columns = len(subsets) if beside else balanced_columns(len(subsets), min(MOST_COLUMNS, most))
    return [list(subsets[start : start + columns]) for start in range(0, len(subsets), columns)]


def _cells(blocks: Sequence[Sequence[str]], available: float | int) -> tuple[float, list[list[str]], int, int]:
    """Width of a cell, headings of each table, their angle, and the pixels they take."""
    if not blocks:
        return 0.0, [], 0, 0
    names = [name for block in blocks for name in block]
    columns = max(map(len, blocks))
    cell = min(available / columns, 72.0)
    texts, angle, room = column_headings(names, cell)
    if angle:
        cell = min((available - overhang(names, angle)) / columns, 72.0)
    rest = iter(texts)
    return cell, [[next(rest) for _ in block] for block in blocks], angle, room


def _boxed(boxes: Sequence[tuple[int, int, int, int]], *, height: float | int) -> go.Figure:
    """A figure with one panel in each box (left, top, width, height in pixels)."""
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    figure = go.Figure().update_layout(base_layout(width=page_width(), height=height, margin=margin))
    for index, (left, top, wide, high) in enumerate(boxes):
        number = "" if index == 0 else str(index + 1)
        across = [left / page_width(), (left + wide) / page_width()]
        upright = [1 - (top + high) / height, 1 - top / height]
        figure.update_layout(
            {
                f"xaxis{number}": {"domain": across, "anchor": f"y{number}"},
                f"yaxis{number}": {"domain": upright, "anchor": f"x{number}"},
            }
        )
    return figure


def _hover(table: pd.DataFrame, rows: JudgeRows) -> list[str]:
    return [
        accuracy_text(row, rows.styles[row["judge"]].name, str(row["subset"]))
        + f"<br>{row['n_examples']} labelled examples"
        for row in table.to_dict("records")
    ]


def _add_means(figure: go.Figure, table: pd.DataFrame, rows: JudgeRows, subsets: Sequence[str]) -> None:
    means = mean_over_subsets(table).set_index("judge")
    for judge, style in rows.styles.items():
        one = means.loc[[judge]]
        y = rows.y[judge]
        figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=y, y1=y, line={"color": "#eeeeee"}, layer="below")
        if one["accuracy"].isna().all():
            figure.add_annotation(
                text="not on every subset", x=0.5, xref="x domain", y=y, font={"size": 12, "color": MUTED}
            )
            continue
        text = accuracy_text(one.iloc[0].to_dict(), style.name, _over(subsets))
        figure.add_trace(interval_dots(one, [y], style, [text]))
    chance_line(figure, x=0.5, span=(-0.5, rows.count - 0.5), xref="x", yref="y")
    figure.add_annotation(
        text="chance", x=0.5, y=1, yref="y domain", yanchor="bottom", font={"color": MUTED, "size": 12}, yshift=1
    )
    figure.add_annotation(
        text=f"<b>{label(_over(subsets), width=34)}</b>", x=0, xref="x domain", y=1, yref="y domain",
        xanchor="left", yanchor="bottom", align="left", yshift=17, font={"size": 13, "color": INK},
    )  # fmt: skip
    lowest = means[["accuracy", "ci_low"]].min().min()
    low = min(0.4, lowest - 0.03) if lowest == lowest else 0.4
    figure.layout.xaxis.update(title_text="accuracy", range=[low, 1.03], dtick=0.1 if low > 0.15 else 0.2)
    figure.layout.yaxis.update(rows.y_axis())


def _over(subsets: Sequence[str]) -> str:
    return subsets[0] if len(subsets) == 1 else f"mean over {len(subsets)} subsets"


def differences(
    comparisons: pd.DataFrame,
    *,
    lead: str = "arm_reinforce",
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Accuracy of the lead judge minus that of every other, on each subset, with intervals.

    Right of zero the lead judge is better. A filled symbol is a difference that is significant after Holm's correction
    (p_holm < 0.05) and whose interval leaves zero out; a hollow one is not.

    Args:
        comparisons: a table like `arm_lens.frames.COMPARISONS`.
        lead: the judge that is compared.
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, ``lead`` is compared with no judge, or several rows compare the same two
            judges on a subset.
    """
    table = against(one_setting(comparisons, benchmark, COMPARISONS), lead)
    if table.empty:
        raise ValueError(f"the table 'comparisons' compares {lead!r} with no other judge")
    rows = JudgeRows.of(table["other"], names)
    subsets = [str(subset) for subset in table["subset"].unique()]
    left, right, gap = rows.name_room, 20, 18
    columns = fitting_columns(len(subsets), most=4, left=left, right=right, gap=gap, narrowest=88 if narrow() else 130)
    width = (page_width() - left - right - (columns - 1) * gap) / columns
    extra = second_line(subsets, min(width, 520))
    legend, taken = legend_above(SURE, left=left, width=columns * width)
    grid = Panels(
        count=len(subsets), columns=columns, width=int(min(width, 520)), height=rows.height, gap_x=gap,
        gap_y=80 + extra, left=left, right=right, top=taken + 44 + extra, bottom=54,
    )  # fmt: skip
    figure = grid.figure(subsets, [_counts(table[table["subset"] == subset]) for subset in subsets])
    reach = max(0.05, float(table[["ci_low", "ci_high", "difference"]].abs().max().max()) * 1.06)
    tick = max((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if step < 0.8 * reach), default=0.02)
    for index, subset in enumerate(subsets):
        row, column = grid.cell(index)
        here = table[table["subset"] == subset]
        for sure in (True, False):
            some = here[significant(here) == sure].dropna(subset=["difference"])
            y = [rows.y[judge] for judge in some["other"]]
            texts = [_difference_text(record, rows, lead, names) for record in some.to_dict("records")]
            dots = interval_dots(some, y, JudgeStyle("", INK, "circle", group=""), texts, value="difference")
            dots.marker.update(_marker(sure))
            figure.add_trace(dots, row=row, col=column)
        chance_line(figure, x=0, span=(-0.5, rows.count - 0.5), row=row, col=column)
        figure.update_yaxes(rows.y_axis(named=column == 1), row=row, col=column)
        lowest = ("difference" if narrow() else "accuracy difference") if grid.is_lowest(index) else None
        figure.update_xaxes(range=[-reach, reach], tickvals=[-tick, 0, tick], title_text=lowest, row=row, col=column)
    for name, sure in SURE.items():
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=_marker(sure), name=name)
    figure.update_layout(legend=legend)
    return figure


def _marker(sure: bool) -> dict[str, object]:
    """Filled or hollow."""
    color = INK if sure else "#ffffff"
    return {"symbol": "circle", "size": 9, "color": color, "line": {"width": 1.6, "color": INK}}


def _counts(rows: pd.DataFrame) -> str:
    sure = rows[significant(rows)]["difference"]
    won, lost = (sure > 0).sum(), (sure < 0).sum()
    return f"won {won}, lost {lost}" if narrow() else f"wins {won}, loses {lost} of {len(rows)}"


def _difference_text(record: Mapping[Any, Any], rows: JudgeRows, lead: str, names: Mapping[str, str] | None) -> str:
    own = JudgeRows.of([lead], names).styles[lead].name
    pair = f"{own} minus {rows.styles[str(record['other'])].name}"
    return (
        f"<b>{label(pair, width=60)}</b><br>{record['difference']:+.3f}, interval {record['ci_low']:+.3f} to "
        f"{record['ci_high']:+.3f}<br>p = {record['p_holm']:.2g} after Holm, n = {record['n']:.0f}"
    )
