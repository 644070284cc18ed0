"""Accuracy of each judge on each subset, with its interval and its repetitions."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import ROWS, SUMMARY, checked
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.judge_rows import accuracy_text, interval_dots
from arm_lens.plots.notation import HOVER
from arm_lens.plots.panels import chance_line, legend_above
from arm_lens.plots.theme import MUTED, JudgeStyle, base_layout, judge_styles, label, literal, narrow, page_width

LANE = 18
"""Pixels between the lines of two judges."""
DROP = 0.36
"""How far below its judge's line a repetition's dot lies, in lanes, so that no dot hides another mark."""
BAND = 0.8
"""The part of a subset's band that its judges take."""


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
        rows: a table like `arm_lens.frames.ROWS`; its accuracies with each example sample and seed are small dots under
            the lines of judges that have several.
        benchmark: which one, if the tables hold several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no rows, or several of a judge and a subset.
    """
    table = one_setting(summary, benchmark, SUMMARY)
    each = table.iloc[:0] if rows is None else only(checked(rows, ROWS), "benchmark", benchmark, ROWS)
    subsets = [str(subset) for subset in table["subset"].unique()]
    styles = judge_styles(table["judge"], names)
    figure = go.Figure()
    for lane, (judge, style) in enumerate(styles.items()):
        offset = BAND * ((lane + 0.5) / len(styles) - 0.5)
        place = {subset: index + offset for index, subset in enumerate(subsets)}
        own = table[table["judge"] == judge]
        texts = [accuracy_text(row, str(row["subset"]), style.name) for row in own.to_dict("records")]
        dots = interval_dots(own, [place[str(subset)] for subset in own["subset"]], style, texts)
        figure.add_trace(dots.update(legendgroup=judge, showlegend=True))
        setting = own[["subset", "n_examples", "noise"]]
        repeated = each[each["judge"] == judge].merge(setting, on=list(setting.columns))
        repeated = repeated[repeated["subset"].astype(str).isin(subsets)]
        if len(repeated) > len(own):
            below = DROP * BAND / len(styles)
            figure.add_trace(_repetitions(repeated, {name: y + below for name, y in place.items()}, style, judge))
    lowest = float(min([table["ci_low"].min(), *each["accuracy"]]))
    _frame(figure, subsets, [style.name for style in styles.values()], lowest=lowest)
    return figure


def _repetitions(rows: pd.DataFrame, place: Mapping[str, float], style: JudgeStyle, judge: str) -> go.Scatter:
    texts = [
        f"{accuracy_text(row, str(row['subset']), style.name)}<br>sample {row['sample']}, seed {row['seed']}"
        for row in rows.to_dict("records")
    ]
    return go.Scatter(
        x=rows["accuracy"].to_list(), y=[place[str(subset)] for subset in rows["subset"]], mode="markers",
        marker={"symbol": "circle", "size": 4.5, "color": style.color, "opacity": 0.75}, legendgroup=judge,
        name=f"{literal(style.name)}, repetitions", showlegend=False, hovertext=texts, hovertemplate=HOVER,
    )  # fmt: skip


def _frame(figure: go.Figure, subsets: list[str], names: list[str], *, lowest: float) -> None:
    """Axes, the chance line, and a faint band behind every other subset."""
    height = max(len(subsets) * (len(names) * LANE / BAND), 90)
    letters = 15 if narrow() else 22
    left, right, bottom = 24 + 7 * min(letters, max(map(len, subsets))), 24, 52
    legend, taken = legend_above(names, left=left, width=page_width() - left - right)
    top = taken + 18
    margin = {"l": left, "r": right, "t": top, "b": bottom}
    figure.update_layout(
        base_layout(width=page_width(), height=top + height + bottom, margin=margin), legend=legend, showlegend=True
    )
    for index in range(0, len(subsets), 2):
        figure.add_hrect(y0=index - 0.5, y1=index + 0.5, fillcolor="#f6f6f6", line_width=0, layer="below")
    chance_line(figure, x=0.5, span=(-0.5, len(subsets) - 0.5), xref="x", yref="y")
    figure.add_annotation(
        text="chance", x=0.5, y=1, yref="paper", yanchor="bottom", font={"color": MUTED, "size": 12}, yshift=1
    )
    low = min(0.4, lowest - 0.03)
    steps = 0.1 if (page_width() - left - right) * 0.1 / (1.01 - low) > 30 else 0.2
    figure.update_xaxes(title_text="accuracy on test items", range=[low, 1.01], tick0=0, dtick=steps)
    figure.update_yaxes(
        range=[len(subsets) - 0.5, -0.5], tickvals=list(range(len(subsets))), showgrid=False, ticks="",
        ticktext=[label(subset, width=letters, lines=4 if narrow() else 3) for subset in subsets], ticklabelstandoff=6,
    )  # fmt: skip
