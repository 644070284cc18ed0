"""How many heads it takes: accuracy with the best 1, 2, 4, ... heads of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

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

    Bands are intervals; with more than three rankings only the first and the random ones have one, hovering tells all.

    A ranking of one number of heads (a set as it was chosen) is a symbol. No heads at all stand left of one.

    Args:
        curve: a table like `arm_lens.frames.CURVE`.
        names: names of rankings to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no rows, or a ranking has a number of heads twice.
    """
    checked(curve, CURVE)
    criteria, styles = criteria_of(curve), measure_styles(curve["ranking"])
    usual = {ranking: style.short if narrow() else style.name for ranking, style in styles.items()}
    shown = {ranking: (names or {}).get(ranking, name) for ranking, name in usual.items()}
    columns = balanced_columns(len(criteria), 2 if narrow() else 4)
    sides = {"left": 58, "right": 16, "gap_x": 34}
    panels = line_panels(len(criteria), height=180, columns=columns, gap_y=62, bottom=48, **sides)
    width = panels.columns * (panels.width + panels.gap_x) - panels.gap_x
    legend, top = legend_above(shown.values(), left=58, width=width)
    panels = replace(panels, top=top + 28)
    figure = panels.figure(criteria, [""] * len(criteria))
    sizes = sorted(curve["heads"].unique().tolist())
    at = places(sizes)
    margin = max(0.25, 0.03 * (at[-1] - at[0]))
    # A set as it was chosen has a size of its own, which is no step of the axis.
    steps = curve[curve.groupby(["criterion", "ranking"])["heads"].transform("size") > 1]
    # More than a few bands on top of each other cannot be told apart.
    banded = set(styles) if len(styles) <= MOST_BANDS else {next(iter(styles)), RANDOM} & set(styles)
    for index, criterion in enumerate(criteria):
        row, column = panels.cell(index)
        chance_line(figure, y=0.5, span=(at[0] - margin, at[-1] + margin), row=row, col=column)
        for ranking, style in styles.items():
            rows = curve[(curve["criterion"] == criterion) & (curve["ranking"] == ranking)].sort_values("heads")
            for trace in _line(rows, style, shown[ranking], criterion, banded=ranking in banded):
                figure.add_trace(trace, row=row, col=column)
        figure.update_xaxes(title_text="number of heads" if panels.is_lowest(index) else None, row=row, col=column)
        figure.update_yaxes(title_text="accuracy" if column == 1 else None, row=row, col=column)
    for ranking, style in styles.items():
        figure.add_trace(_entry(style, shown[ranking]))
    ticks = _ticks(sorted(steps["heads"].unique().tolist()) or sizes, panels.width)
    figure.update_xaxes(
        tickvals=places(ticks), ticktext=[str(tick) for tick in ticks], range=[at[0] - margin, at[-1] + margin]
    )
    lowest = float(np.nanmin(curve[["ci_low", "accuracy"]].to_numpy(dtype=float)))
    low = min(0.45, lowest - 0.02)
    figure.update_yaxes(range=[low, 1.02], dtick=0.1 if low > 0.3 else 0.2, tickformat=".1f")
    figure.update_layout(legend=legend)
    counts = sorted(curve["n"].unique().tolist())
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    of_some = "" if banded == set(styles) else f" ({' and '.join(shown[one] for one in styles if one in banded)})"
    caption(figure, [f"The best heads of each ranking, on {n} items. Bands: intervals{of_some}. Dashed: chance."])
    return figure


def places(sizes: Sequence[int]) -> list[float | int]:
    """Positions on the axis: the binary logarithm, and 0 one step left of 1."""
    return [float(np.log2(size)) if size else -1.0 for size in sizes]


def _ticks(sizes: list[int], width: int) -> list[int]:
    at = places(sizes)
    scale = width / max(at[-1] - at[0], 1.0)
    ticks = [sizes[0]]
    for size, place in zip(sizes[1:], at[1:], strict=True):
        if (place - places(ticks)[-1]) * scale >= TICK:
            ticks.append(size)
    return ticks


def _line(rows: pd.DataFrame, style: MeasureStyle, name: str, criterion: str, *, banded: bool) -> list[go.Scatter]:
    if rows.empty:
        return []
    x = places(rows["heads"].to_list())
    band = go.Scatter(
        x=[*x, *x[::-1]], y=[*rows["ci_high"], *rows["ci_low"][::-1]], fill="toself", mode="lines", line={"width": 0},
        fillcolor=faded(style.color, 0.1), hoverinfo="skip", showlegend=False, legendgroup=name, name="interval",
    )  # fmt: skip
    single = len(rows) == 1
    error = whiskers(rows, "accuracy", style.color, thickness=1.2)
    texts = [
        f"<b>{label(criterion, width=60)}</b><br>{literal(name)}, {row.heads} head{'s' * (row.heads != 1)}<br>accuracy "
        f"{row.accuracy:.3f}, interval {row.ci_low:.3f} to {row.ci_high:.3f}, n = {row.n}"
        for row in rows.itertuples()
    ]
    dashed = {"color": style.color, "dash": style.dash, "width": 1.8}
    line = go.Scatter(
        x=x, y=rows["accuracy"].to_list(), mode="lines+markers", line=dashed,
        marker={"symbol": style.symbol, "size": 10 if single else 7, "color": style.color}, hovertext=texts,
        hovertemplate=HOVER, showlegend=False, legendgroup=name, name=literal(name),
        error_y=error if single else None,
    )  # fmt: skip
    return [line] if single or not banded else [band, line]


def _entry(style: MeasureStyle, name: str) -> go.Scatter:
    """An entry of the legend, also where the first panel lacks the ranking."""
    return go.Scatter(
        x=[None], y=[None], mode="lines+markers", line={"color": style.color, "dash": style.dash, "width": 1.8},
        marker={"symbol": style.symbol, "size": 7, "color": style.color}, name=label(name, width=28, lines=1),
        legendgroup=name,
    )  # fmt: skip
