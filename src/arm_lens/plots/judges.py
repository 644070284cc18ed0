"""Judges side by side: each one's accuracy on each subset as dots or as a table, and the lead judge against every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.main_setting import against
from arm_lens.evaluation.standings import mean_over_subsets, significant
from arm_lens.frames import COMPARISONS, ROWS, SUMMARY, checked
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.judge_rows import JudgeRows, column_headings, interval_dots, overhang
from arm_lens.plots.notation import accuracy_text, hover_text
from arm_lens.plots.panels import above_panel, balanced_columns, chance_line, facets, legend_entry, row_axis
from arm_lens.plots.sheet import Sheet
from arm_lens.plots.theme import INK, MUTED, base_layout, judge_styles, label, literal, narrow, page_width
from arm_lens.registry import Style

LANE = 18
"""Pixels between the lines of two judges."""
DROP = 0.36
"""Lanes by which a repetition's dot lies below its judge's line, so that no dot hides another mark."""
BAND = 0.8
"""The part of a subset's band that its judges take."""
BESIDE = 10
"""The most subsets whose table stands beside the dots; the tables of more stand below."""
MOST_COLUMNS = 14
"""Columns of a table below the dots."""
DOTS = 270
NARROWEST_CELL = 34
"""Pixels that a cell needs for a printed number."""
WIDEST_CELL = 72.0
PLAIN = Style(label="", color=INK, symbol="circle", group="")
SURE = {"significant after Holm": True, "not significant": False}


def accuracy_by_subset(
    summary: pd.DataFrame,
    *,
    rows: pd.DataFrame | None = None,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """A dot with its interval per subset (a criterion, say) and judge; chance is at one half.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`; one row per judge and subset.
        rows: a table like `arm_lens.frames.ROWS`; its accuracies with each example sample and seed are small dots below
            the lines of judges that have several.
        benchmark: which one, if the tables have several.
        names: labels that replace the usual ones, by judge.
    """
    table = one_setting(summary, benchmark, SUMMARY)
    each = table.iloc[:0] if rows is None else only(checked(rows, ROWS), "benchmark", benchmark, ROWS)
    table, each = (one.assign(subset=one["subset"].astype(str)) for one in (table, each))
    subsets = list(table["subset"].unique())
    styles = judge_styles(table["judge"], names)
    letters = 15 if narrow() else 22
    figure, grid = facets(
        [""],
        entries=[style.label for style in styles.values()],
        height=round(max(len(subsets) * len(styles) * LANE / BAND, 90)),
        left=24 + 7 * min(letters, max(map(len, subsets))),
        widest=page_width(),
        x="accuracy on test items",
    )
    row_axis(figure, [label(subset, width=letters, lines=4 if narrow() else 3) for subset in subsets])
    chance_line(figure, x=0.5, span=(-0.5, len(subsets) - 0.5), named=True, xref="x", yref="y")
    for lane, (judge, style) in enumerate(styles.items()):
        offset = BAND * ((lane + 0.5) / len(styles) - 0.5)
        place = {subset: index + offset for index, subset in enumerate(subsets)}
        own = table[table["judge"] == judge]
        texts = [accuracy_text(row, row["subset"], style.label) for row in own.to_dict("records")]
        dots = interval_dots(own, own["subset"].map(place), style, texts)
        figure.add_trace(dots.update(legendgroup=judge, showlegend=True))
        setting = ["subset", "n_examples", "noise"]
        repeated = each[each["judge"] == judge].merge(own[setting], on=setting)
        if len(repeated) > len(own):
            texts = [
                f"{accuracy_text(row, row['subset'], style.label)}<br>sample {row['sample']}, seed {row['seed']}"
                for row in repeated.to_dict("records")
            ]
            small = interval_dots(repeated, repeated["subset"].map(place) + DROP * BAND / len(styles), style, texts)
            small.update(marker={"symbol": "circle", "size": 4.5, "opacity": 0.75}, error_x=None, legendgroup=judge)
            figure.add_trace(small.update(name=f"{literal(style.label)}, repetitions"))
    low = min(0.4, float(min([table["ci_low"].min(), *each["accuracy"]])) - 0.03)
    tenth = grid.width * 0.1 / (1.01 - low)
    return figure.update_xaxes(range=[low, 1.01], tick0=0, dtick=0.1 if tenth > 30 else 0.2)


def accuracy_by_judge(
    summary: pd.DataFrame, *, benchmark: str | None = None, names: Mapping[str, str] | None = None
) -> go.Figure:
    """The mean over subsets as a dot with its interval, and a table of judges by subsets with printed values.

    Means, which count every subset the same, and their intervals are those of `mean_over_subsets`; a judge that lacks a
    subset has none. Chance, at one half, is a dashed line; cells below it are brown, cells above it blue.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`; one row per judge and subset.
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    table = one_setting(summary, benchmark, SUMMARY)
    rows = JudgeRows.of(table["judge"], names)
    subsets = [str(subset) for subset in table["subset"].unique()]
    left = rows.name_room
    blocks = _blocks(subsets, max(1, int((page_width() - left - 16) / NARROWEST_CELL)))
    beside = len(blocks) <= 1 and not narrow() and len(subsets) <= BESIDE
    dots_width = DOTS if beside and blocks else page_width() - left - (16 if narrow() else 70)
    table_left = left + dots_width + 26 if beside else left
    cell, headings, angle, room = _cells(blocks, page_width() - table_left - 16)
    top = max(room, 42) if beside else 42
    first = top if beside else top + rows.height + 64 + room
    tops = [first + index * (rows.height + room + 26) for index in range(len(blocks))]
    bottom = max([top, *tops]) + rows.height + (56 if beside or not blocks else 20)

    sheet = Sheet(page_width(), bottom)
    figure = sheet.figure.update_layout(
        base_layout(width=page_width(), height=bottom, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    )
    sheet.add_axes(left, top, dots_width, rows.height)
    _add_means(figure, table, rows, subsets)
    texts = [
        accuracy_text(row, rows.styles[row["judge"]].label, str(row["subset"]))
        + f"<br>{row['n_examples']} labelled examples"
        for row in table.to_dict("records")
    ]
    cells = table.assign(text=texts, column=table["subset"].astype(str))
    for block, y in zip(blocks, tops, strict=True):
        axis = sheet.add_axes(table_left, y, round(cell * len(block)), rows.height)
        here, over = cells[cells["column"].isin(block)], {subset: headings[subset] for subset in block}
        rows.add_table(figure, axis, here, over, angle=angle, cell_width=cell, named=not beside)
    return figure


def _blocks(subsets: Sequence[str], most: int) -> list[list[str]]:
    """The subsets of each table, at most ``most`` in one; no table for a single subset, which the dots show."""
    if len(subsets) == 1:
        return []
    beside = len(subsets) <= min(BESIDE, most)
    columns = len(subsets) if beside else balanced_columns(len(subsets), min(MOST_COLUMNS, most))
    return [list(subsets[start : start + columns]) for start in range(0, len(subsets), columns)]


def _cells(blocks: Sequence[Sequence[str]], available: float | int) -> tuple[float, dict[str, str], int, int]:
    """Width of a cell, the heading of each subset, the angle of headings, and the pixels they take upwards."""
    if not blocks:
        return 0.0, {}, 0, 0
    names = [name for block in blocks for name in block]
    columns = max(map(len, blocks))
    cell = min(available / columns, WIDEST_CELL)
    texts, angle, room = column_headings(names, cell)
    cell = min((available - overhang(names, angle)) / columns, WIDEST_CELL)
    return cell, dict(zip(names, texts, strict=True)), angle, room


def _add_means(figure: go.Figure, table: pd.DataFrame, rows: JudgeRows, subsets: Sequence[str]) -> None:
    means = mean_over_subsets(table).set_index("judge")
    title = subsets[0] if len(subsets) == 1 else f"mean over {len(subsets)} subsets"
    for judge, style in rows.styles.items():
        one, y = means.loc[[judge]], rows.y[judge]
        figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=y, y1=y, line={"color": "#eeeeee"}, layer="below")
        if one["accuracy"].isna().all():
            grey = {"size": 12, "color": MUTED}
            figure.add_annotation(text="not on every subset", x=0.5, xref="x domain", y=y, font=grey)
        else:
            text = accuracy_text(one.iloc[0].to_dict(), style.label, title)
            figure.add_trace(interval_dots(one, [y], style, [text]))
    chance_line(figure, x=0.5, span=(-0.5, rows.count - 0.5), named=True, xref="x", yref="y")
    above_panel(figure, f"<b>{label(title, width=34)}</b>", yshift=17)
    lowest = means[["accuracy", "ci_low"]].min().min()
    low = 0.4 if pd.isna(lowest) else min(0.4, lowest - 0.03)
    figure.layout.xaxis.update(title_text="accuracy", range=[low, 1.03], dtick=0.1 if low > 0.15 else 0.2)
    figure.layout.yaxis.update(rows.y_axis())


def differences(
    comparisons: pd.DataFrame,
    *,
    lead: str = "arm_reinforce",
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Accuracy of the lead judge minus that of every other, on each subset, with intervals.

    Right of zero the lead judge is better. A filled symbol is a difference that is significant after Holm's correction
    (p_holm < 0.05) and whose interval excludes zero; a hollow one is not.

    Args:
        comparisons: a table like `arm_lens.frames.COMPARISONS`.
        lead: the judge that is compared.
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    table = against(one_setting(comparisons, benchmark, COMPARISONS), lead)
    if table.empty:
        raise ValueError(f"the table 'comparisons' compares {lead!r} with no other judge")
    rows = JudgeRows.of(table["other"], names)
    own = judge_styles([lead], names)[lead].label
    subsets = {str(subset): table[table["subset"] == subset] for subset in table["subset"].unique()}
    figure, grid = facets(
        list(subsets),
        notes=[_counts(here) for here in subsets.values()],
        entries=SURE,
        height=rows.height,
        left=rows.name_room,
        gap_x=18,
        narrowest=88 if narrow() else 130,
        x="difference" if narrow() else "accuracy difference",
    )
    for index, here in enumerate(subsets.values()):
        place = grid.place(index)
        for sure in SURE.values():
            some = here[significant(here) == sure].dropna(subset=["difference"])
            y = [rows.y[judge] for judge in some["other"]]
            texts = [
                _difference_text(record, f"{own} minus {rows.styles[record['other']].label}")
                for record in some.to_dict("records")
            ]
            dots = interval_dots(some, y, PLAIN, texts, value="difference")
            figure.add_trace(dots.update(marker=_marker(sure)), **place)
        chance_line(figure, x=0, span=(-0.5, rows.count - 0.5), **place)
        figure.update_yaxes(rows.y_axis(named=place["col"] == 1), **place)
    reach = max(0.05, float(table[["ci_low", "ci_high", "difference"]].abs().max().max()) * 1.06)
    tick = max((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if step < 0.8 * reach), default=0.02)
    figure.update_xaxes(range=[-reach, reach], tickvals=[-tick, 0, tick])
    for name, sure in SURE.items():
        legend_entry(figure, name, mode="markers", marker=_marker(sure))
    return figure


def _marker(sure: bool) -> dict[str, object]:
    """Filled or hollow."""
    return {"symbol": "circle", "size": 9, "color": INK if sure else "#ffffff", "line": {"width": 1.6, "color": INK}}


def _counts(rows: pd.DataFrame) -> str:
    sure = rows[significant(rows)]["difference"]
    won, lost = (sure > 0).sum(), (sure < 0).sum()
    return f"won {won}, lost {lost}" if narrow() else f"wins {won}, loses {lost} of {len(rows)}"


def _difference_text(record: Mapping[Any, Any], pair: str) -> str:
    difference = f"{record['difference']:+.3f}, interval {record['ci_low']:+.3f} to {record['ci_high']:+.3f}"
    return hover_text(pair, difference, f"p = {record['p_holm']:.2g} after Holm, n = {record['n']:.0f}")
