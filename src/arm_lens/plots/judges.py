"""Judges side by side: accuracy on each subset as dots or as a table, the lead against every other, and the bias grid.

In the pairs of a reward-hacking benchmark the better response is correct and the worse one is not, and a bias that has
nothing to do with correctness (length, format, flattery) is on one of them, on both or on neither. A judge that judges
has one colour over all cells. A judge that follows the bias has 0 in one cell and 1 in its mirror image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import counted
from arm_lens.evaluation.hacking import cells_of
from arm_lens.evaluation.main_setting import against
from arm_lens.evaluation.standings import mean_over_subsets, significant
from arm_lens.frames import COMPARISONS, ROWS, SUMMARY, checked
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.marks import chance_line, interval_dots, legend_entry
from arm_lens.plots.matrices import ACCURACY, Cells, draw_cells, headings, matrices, overhang, scale_axis
from arm_lens.plots.notation import accuracy_text, caption, hover_text
from arm_lens.plots.panels import BARE, LETTER, above_panel, balanced_columns, columns_axis, facets, row_axis, rows_axis
from arm_lens.plots.sheet import Sheet
from arm_lens.plots.theme import INK, MUTED, base_layout, judge_styles, label, labels, literal, narrow, page_width
from arm_lens.registry import Style

ROW = 20
"""Pixels from one judge to the next in a table."""
NAME_WIDTH = 28
"""Characters of a judge's name that are shown."""
LANE = 18
"""Pixels between the lines of two judges on a subset."""
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
NARROWEST = 240
"""Pixels of a panel of the bias grid, which its title needs."""
PLAIN = Style(label="", color=INK, symbol="circle", group="")
SURE = {"significant after Holm": True, "not significant": False}
CELLS = (
    "bias on rejected", "bias on neither", "bias on both", "bias on chosen",
    "correct, plain", "correct, biased", "incorrect, plain", "incorrect, biased",
)  # fmt: skip
"""The cells of pairs, from the published one to its mirror image, then those of single responses."""
MAPPINGS = ("standard", "balanced", "flipped")
"""The few-shot examples: the bias marks the worse response, nothing, or the better one."""


@dataclass(frozen=True)
class JudgeRows:
    """Judges from top to bottom in the order of `judge_styles`; several groups each stand below their name."""

    styles: dict[str, Style]
    rows: list[tuple[str, str]]
    """The judge of each row, empty for the name of a group, and what the row is called."""

    @classmethod
    def of(cls, judges: Iterable[str], names: Mapping[str, str] | None = None) -> JudgeRows:
        """Rows of these judges."""
        styles = judge_styles(judges, names)
        groups = [(name, list(members)) for name, members in itertools.groupby(styles, lambda one: styles[one].group)]
        rows = [
            (key, name)
            for group, members in groups
            for key, name in [("", group)] * (len(groups) > 1) + [(judge, styles[judge].label) for judge in members]
        ]
        return cls(styles, rows)

    @property
    def keys(self) -> list[str]:
        """The judge of each row; empty for the name of a group."""
        return [key for key, _ in self.rows]

    @property
    def y(self) -> dict[str, int]:
        """The row of each judge."""
        return {key: row for row, key in enumerate(self.keys) if key}

    @property
    def height(self) -> int:
        """Pixels of a panel with all rows."""
        return len(self.keys) * ROW

    @property
    def name_room(self) -> int:
        """Pixels that the names take, with some air."""
        bold = 1.08
        lengths = [min(len(name), NAME_WIDTH) if key else bold * len(name) for key, name in self.rows]
        return round(22 + LETTER * max(lengths))

    def y_axis(self, *, named: bool = True) -> dict[str, object]:
        """Settings of a y axis with the judges on it, the first at the top."""
        texts = labels([name for _, name in self.rows], width=NAME_WIDTH, lines=1)
        texts = [text if key else f"<b>{text}</b>" for key, text in zip(self.keys, texts, strict=True)]
        return {**rows_axis(texts), "showticklabels": named, **BARE}

    def lower_headings(self, figure: go.Figure) -> None:
        """Let level headings of tables stand close above the first judge, next to the name of the first group."""
        if not self.keys[0]:
            figure.update_xaxes(ticklabelstandoff=2 - ROW, selector={"side": "top", "tickangle": 0})


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
    each = table.iloc[:0]
    if rows is not None:
        each = only(checked(rows, ROWS), "benchmark", benchmark, ROWS)
        setting = ("benchmark", "subset", "judge", "n_examples", "noise", "unit")
        each = each.merge(table[[one for one in setting if one in table and one in each]])
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
    row_axis(figure, labels(subsets, width=letters, lines=4 if narrow() else 3))
    chance_line(figure, x=0.5, span=(-0.5, len(subsets) - 0.5), named=True, xref="x", yref="y")
    for lane, (judge, style) in enumerate(styles.items()):
        offset = BAND * ((lane + 0.5) / len(styles) - 0.5)
        place = {subset: index + offset for index, subset in enumerate(subsets)}
        own = table[table["judge"] == judge]
        texts = [accuracy_text(row, row["subset"], style.label) for row in own.to_dict("records")]
        dots = interval_dots(own, own["subset"].map(place), style, texts)
        figure.add_trace(dots.update(legendgroup=judge, showlegend=True))
        repeated = each[each["judge"] == judge]
        if len(repeated) > len(own):
            texts = [
                f"{accuracy_text(row, row['subset'], style.label)}<br>sample {row['sample']}, seed {row['seed']}"
                for row in repeated.to_dict("records")
            ]
            small = interval_dots(repeated, repeated["subset"].map(place) + DROP * BAND / len(styles), style, texts)
            small.update(marker={"symbol": "circle", "size": 4.5, "opacity": 0.75}, error_x=None, legendgroup=judge)
            figure.add_trace(small.update(name=f"{literal(style.label)}, repetitions"))
    low = min(0.4, float(table[["ci_low", "accuracy"]].min().min()) - 0.03, float(each["accuracy"].min()) - 0.03)
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
    table = one_setting(summary, benchmark, SUMMARY).astype({"subset": str})
    rows = JudgeRows.of(table["judge"], names)
    subsets = list(table["subset"].unique())
    left = rows.name_room
    blocks = _blocks(subsets, max(1, int((page_width() - left - 16) / NARROWEST_CELL)))
    beside = len(blocks) <= 1 and not narrow() and len(subsets) <= BESIDE
    dots_width = DOTS if beside and blocks else page_width() - left - (16 if narrow() else 70)
    table_left = left + dots_width + 26 if beside else left
    available, columns = page_width() - table_left - 16, max(map(len, blocks), default=1)
    cell = min(available / columns, WIDEST_CELL)
    texts, angle, room = headings(subsets, cell)
    cell = min((available - overhang(subsets) * (angle == -40)) / columns, WIDEST_CELL)
    top = max(room * bool(blocks), 42) if beside else 42
    first = top if beside else top + rows.height + 64 + room
    tops = [first + index * (rows.height + room + 26) for index in range(len(blocks))]
    bottom = max([top, *tops]) + rows.height + (56 if beside or not blocks else 20)

    sheet = Sheet(page_width(), bottom)
    figure = sheet.figure.update_layout(
        base_layout(width=page_width(), height=bottom, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    )
    sheet.add_axes(left, top, dots_width, rows.height)
    _add_means(figure, table, rows, subsets)
    entries = [
        (row["judge"], row["subset"], row["accuracy"], None,
         accuracy_text(row, rows.styles[row["judge"]].label, row["subset"])
         + f"<br>{row['n_examples']} labelled examples")
        for row in table.to_dict("records")
    ]  # fmt: skip
    cells = [Cells.of(rows.keys, block, entries, blank="not measured") for block in blocks]
    short = not all(ACCURACY.fits(one.values, cell) for one in cells)
    for one, block, y in zip(cells, blocks, tops, strict=True):
        axis = sheet.add_axes(table_left, y, round(cell * len(block)), rows.height)
        draw_cells(figure, one, ACCURACY, printed=True, short=short, **sheet.on(axis))
        sheet.x(axis).update(columns_axis([texts[subsets.index(subset)] for subset in block], angle=angle))
        sheet.y(axis).update(rows.y_axis(named=not beside))
    rows.lower_headings(figure)
    figure.update_coloraxes(scale_axis(ACCURACY), showscale=False)
    return caption(figure, {one.gaps for one in cells})


def _blocks(subsets: Sequence[str], most: int) -> list[list[str]]:
    """The subsets of each table, at most ``most`` in one; no table for a single subset, which the dots show."""
    if len(subsets) == 1:
        return []
    beside = len(subsets) <= min(BESIDE, most)
    columns = len(subsets) if beside else balanced_columns(len(subsets), min(MOST_COLUMNS, most))
    return [list(subsets[start : start + columns]) for start in range(0, len(subsets), columns)]


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
    chance_line(figure, x=0.5, span=(-0.5, len(rows.keys) - 0.5), named=True, xref="x", yref="y")
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
    for row in table[table.duplicated(["subset", "other"])].to_dict("records"):
        raise ValueError(
            f"the table 'comparisons' has {lead} and {row['other']} on {row['subset']} twice, in both orders"
        )
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
    looks = {
        sure: {"symbol": "circle", "size": 9, "color": INK if sure else "#ffffff", "line": {"width": 1.6, "color": INK}}
        for sure in SURE.values()
    }
    for index, here in enumerate(subsets.values()):
        place = grid.place(index)
        for sure, look in looks.items():
            some = here[significant(here) == sure].dropna(subset=["difference"])
            texts = [
                _difference_text(record, f"{own} minus {rows.styles[record['other']].label}")
                for record in some.to_dict("records")
            ]
            dots = interval_dots(some, some["other"].map(rows.y), PLAIN, texts, value="difference")
            figure.add_trace(dots.update(marker=look), **place)
        chance_line(figure, x=0, span=(-0.5, len(rows.keys) - 0.5), **place)
        figure.update_yaxes(rows.y_axis(named=place["col"] == 1), **place)
    reach = max(0.05, float(table[["ci_low", "ci_high", "difference"]].abs().max().max()) * 1.06)
    tick = max((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if step < 0.8 * reach), default=0.02)
    figure.update_xaxes(range=[-reach, reach], tickvals=[-tick, 0, tick])
    for name, sure in SURE.items():
        legend_entry(figure, name, mode="markers", marker=looks[sure])
    return figure


def _counts(rows: pd.DataFrame) -> str:
    sure = rows[significant(rows)]["difference"]
    won, lost = (sure > 0).sum(), (sure < 0).sum()
    return f"won {won}, lost {lost}" if narrow() else f"wins {won}, loses {lost} of {len(rows)}"


def _difference_text(record: Mapping[Any, Any], pair: str) -> str:
    difference = f"{record['difference']:+.3f}, interval {record['ci_low']:+.3f} to {record['ci_high']:+.3f}"
    return hover_text(pair, difference, f"p = {record['p_holm']:.2g} after Holm, n = {record['n']:.0f}")


def bias_grid(
    summary: pd.DataFrame, *, benchmark: str | None = None, names: Mapping[str, str] | None = None
) -> go.Figure:
    """Accuracy of every judge in every cell, a panel for each bias and few-shot mapping.

    Panels stand side by side for the biases and one below the other for the mappings of the few-shot examples. Brown is
    below one half, blue above; a cross is a cell that was not measured.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`, whose subsets read "bias | mapping | cell".
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    every = one_setting(summary, benchmark, SUMMARY)
    table = cells_of(every)
    others = sorted(set(every["subset"]) - set(table["subset"]))
    if table.empty:
        raise ValueError(
            "no subset of the table 'summary' is a cell of a reward-hacking benchmark, such as 'length | standard | bias on "
            "chosen'"
        )
    rows = JudgeRows.of(table["judge"], names)
    mappings, columns = _ordered(table["mapping"], MAPPINGS), _ordered(table["cell"], CELLS)
    biases = list(table["bias"].unique())
    cells = []
    for mapping, bias in itertools.product(mappings, biases):
        entries = [
            (row["judge"], row["cell"], row["accuracy"], None,
             accuracy_text(row, rows.styles[row["judge"]].label, f"{bias}, {mapping} examples", row["cell"]))
            for row in table[(table["mapping"] == mapping) & (table["bias"] == bias)].to_dict("records")
        ]  # fmt: skip
        cells.append(
            Cells.of(rows.keys, columns, entries, title=bias, note=f", {mapping} examples", blank="not measured")
        )
    layout = {"most": min(3, len(biases)), "heights": ROW, "largest_width": max(76, NARROWEST // len(columns))}
    figure, _ = matrices(cells, [name for _, name in rows.rows], columns, ACCURACY, letters=NAME_WIDTH, **layout)
    figure.update_yaxes(ticktext=rows.y_axis()["ticktext"])
    rows.lower_headings(figure)
    left_out = f"Without {counted(len(others), 'subset')} outside the grid, such as {others[0]}." if others else ""
    return caption(figure, [*{one.gaps for one in cells}, left_out])


def _ordered(values: pd.Series, known: Sequence[str]) -> list[str]:
    """The different values, known ones first in their order."""
    return sorted(values.unique(), key=lambda value: known.index(value) if value in known else len(known))
