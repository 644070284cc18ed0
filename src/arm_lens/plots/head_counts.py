"""How many heads it takes: accuracy with the best 1, 2, 4, ... heads of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import counted
from arm_lens.frames import CURVE, checked, criteria_of
from arm_lens.plots.measures import MeasureStyle, measure_styles
from arm_lens.plots.notation import HOVER, caption, whiskers
from arm_lens.plots.panels import balanced_columns, chance_line, legend_above, line_panels
from arm_lens.plots.theme import faded, label, literal, narrow

TICK = 28
"""Pixels between the labels of the axis, at least."""
MOST_BANDS = 3
RANDOM = "random"


def accuracy_by_heads(curve: pd.DataFrame, *, names: Mapping[str, str] | None = None) -> go.Figure:
    """Accuracy against the number of heads, on a logarithmic axis: a line per ranking, a panel per criterion.

    Bands are intervals. With more than three rankings only the first and the random one have bands; hovering shows all
    intervals. A ranking of one number of heads (a set as it was chosen) is a symbol. Zero heads stand left of one.

    Args:
        curve: a table like `arm_lens.frames.CURVE`.
        names: names of rankings to display instead of the usual ones.
    """
    checked(curve, CURVE)
    criteria, styles = criteria_of(curve), measure_styles(curve["ranking"])
    usual = {ranking: style.short if narrow() else style.name for ranking, style in styles.items()}
    shown = {ranking: (names or {}).get(ranking, name) for ranking, name in usual.items()}
    columns = balanced_columns(len(criteria), 2 if narrow() else 4)
    panels = line_panels(len(criteria), height=180, columns=columns, gap_y=62, bottom=48, left=58, right=16, gap_x=34)
    legend, top = legend_above(shown.values(), left=panels.left, width=panels.inner_width)
    panels = replace(panels, top=top + 28)
    figure = panels.figure(criteria)
    sizes = sorted(curve["heads"].unique().tolist())
    first, *_, last = places([*sizes, sizes[-1]])
    margin = max(0.25, 0.03 * (last - first))
    span = (first - margin, last + margin)
    # More than a few bands on top of each other are illegible.
    banded = set(styles) if len(styles) <= MOST_BANDS else {next(iter(styles)), RANDOM} & set(styles)
    for index, criterion in enumerate(criteria):
        row, column = panels.cell(index)
        chance_line(figure, y=0.5, span=span, row=row, col=column)
        for ranking, style in styles.items():
            rows = curve[(curve["criterion"] == criterion) & (curve["ranking"] == ranking)].sort_values("heads")
            if not rows.empty:
                traces = _line(rows, style, shown[ranking], banded=ranking in banded)
                figure.add_traces(traces, rows=[row] * len(traces), cols=[column] * len(traces))
    for ranking, style in styles.items():  # an entry of the legend, even if the first panel lacks the ranking
        name = label(shown[ranking], width=28, lines=1)
        figure.add_scatter(x=[None], y=[None], legendgroup=shown[ranking], name=name, **_look(style))
    panels.name_axes(figure, "number of heads", "accuracy")
    # A set as it was chosen has a size of its own, which is not a step of the axis.
    steps = curve["heads"][curve.groupby(["criterion", "ranking"])["heads"].transform("size") > 1]
    ticks = _ticks(sorted(steps.unique().tolist()) or sizes, panels.width)
    figure.update_xaxes(tickvals=places(ticks), ticktext=[str(tick) for tick in ticks], range=span)
    low = min(0.45, float(curve[["ci_low", "accuracy"]].min().min()) - 0.02)
    figure.update_yaxes(range=[low, 1.02], dtick=0.1 if low > 0.3 else 0.2, tickformat=".1f")
    figure.update_layout(legend=legend)
    counts = sorted(curve["n"].unique().tolist())
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    which = "" if banded == set(styles) else f" ({' and '.join(shown[one] for one in styles if one in banded)})"
    caption(figure, [f"The best heads of each ranking, on {n} items. Bands: intervals{which}. Dashed: chance."])
    return figure


def places(sizes: Sequence[int]) -> list[float | int]:
    """Positions on the axis: the binary logarithm; 0 stands one step left of 1."""
    return [float(np.log2(size)) if size else -1.0 for size in sizes]


def _ticks(sizes: list[int], width: int) -> list[int]:
    """The sizes that stand far enough from the one before."""
    first, *_, last = places([*sizes, sizes[-1]])
    ticks = sizes[:1]
    for size in sizes[1:]:
        before, place = places([ticks[-1], size])
        if (place - before) * width / max(last - first, 1.0) >= TICK:
            ticks.append(size)
    return ticks


def _look(style: MeasureStyle) -> dict[str, Any]:
    line, marker = {"dash": style.dash, "width": 1.8}, {"symbol": style.symbol, "size": 7}
    return {"mode": "lines+markers", "line": {"color": style.color, **line}, "marker": {"color": style.color, **marker}}


def _line(rows: pd.DataFrame, style: MeasureStyle, name: str, *, banded: bool) -> list[go.Scatter]:
    """The line of a ranking, if ``banded`` above the band of its intervals; a single number of heads is a symbol."""
    x = places(rows["heads"].to_list())
    texts = [
        f"<b>{label(row['criterion'], width=60)}</b><br>{literal(name)}, {counted(row['heads'], 'head')}<br>accuracy "
        f"{row['accuracy']:.3f}, interval {row['ci_low']:.3f} to {row['ci_high']:.3f}, n = {row['n']}"
        for row in rows.to_dict("records")
    ]
    line = go.Scatter(
        x=x, y=rows["accuracy"].to_list(), hovertext=texts, hovertemplate=HOVER, showlegend=False, legendgroup=name,
        name=literal(name), **_look(style),
    )  # fmt: skip
    if len(rows) == 1:
        return [line.update(error_y=whiskers(rows, "accuracy", style.color, thickness=1.2), marker_size=10)]
    band = go.Scatter(
        x=[*x, *x[::-1]], y=[*rows["ci_high"], *rows["ci_low"][::-1]], fill="toself", mode="lines", line={"width": 0},
        fillcolor=faded(style.color, 0.1), hoverinfo="skip", showlegend=False, legendgroup=name, name="interval",
    )  # fmt: skip
    return [band, line] if banded else [line]
