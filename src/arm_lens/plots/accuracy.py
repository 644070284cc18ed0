"""Accuracy of each judge on each subset, with its interval and its repetitions."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import ROWS, SUMMARY, checked
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.judge_rows import accuracy_text, interval_dots
from arm_lens.plots.panels import chance_line, facets, row_axis
from arm_lens.plots.theme import judge_styles, label, literal, narrow, page_width

LANE = 18
"""Pixels between the lines of two judges."""
DROP = 0.36
"""Lanes by which a repetition's dot lies below its judge's line, so that no dot hides another mark."""
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
        above=18,
        between=0,
        left=24 + 7 * min(letters, max(map(len, subsets))),
        right=24,
        bottom=52,
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
    figure.update_layout(showlegend=True)
    return figure.update_xaxes(range=[low, 1.01], tick0=0, dtick=0.1 if tenth > 30 else 0.2)
