"""Accuracy of each method on each criterion, with its interval and its seeds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import checked, criteria_of, mean_over_seeds
from arm_lens.plots.panels import chance_line, legend_above
from arm_lens.plots.theme import MUTED, MethodStyle, base_layout, label, literal, method_styles, narrow, page_width

LANE = 18
"""Pixels between the lines of two methods."""
SEED_DROP = 0.36
"""How far below its method's line a seed's dot lies, in lanes, so that no dot hides another mark."""
BAND = 0.8
"""The part of a criterion's band that its methods take."""


def accuracy_by_method(rows: pd.DataFrame, *, names: Mapping[str, str] | None = None) -> go.Figure:
    """A dot with its interval per criterion and method; chance is at one half.

    The large symbol is the mean over seeds, its line the mean of the seeds' intervals (see `mean_over_seeds`), and the
    small dots under the line are the seeds.

    Args:
        rows: criterion, method, seed, accuracy, ci_low, ci_high, n.
        names: names of methods to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    checked(rows, ["criterion", "method", "seed", "accuracy", "ci_low", "ci_high", "n"], table="rows")
    means = mean_over_seeds(rows)
    criteria = criteria_of(rows)
    styles = method_styles(rows["method"], names)
    figure = go.Figure()
    for lane, (method, style) in enumerate(styles.items()):
        offset = BAND * ((lane + 0.5) / len(styles) - 0.5)
        at = {criterion: index + offset for index, criterion in enumerate(criteria)}
        below = {criterion: y + SEED_DROP * BAND / len(styles) for criterion, y in at.items()}
        figure.add_trace(_mean_trace(means[means["method"] == method], at, style, method))
        of_seeds = rows[rows["method"] == method]
        if of_seeds["seed"].nunique() > 1:
            figure.add_trace(_seed_trace(of_seeds, below, style, method))
    lowest = min(means["ci_low"].min(), means["lowest"].min())
    _frame(figure, criteria, [style.name for style in styles.values()], lowest=lowest)
    return figure


def _mean_trace(means: pd.DataFrame, at: Mapping[str, float], style: MethodStyle, method: str) -> go.Scatter:
    name = literal(style.name)
    return go.Scatter(
        x=means["accuracy"].to_list(),
        y=[at[criterion] for criterion in means["criterion"]],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (means["ci_high"] - means["accuracy"]).to_list(),
            "arrayminus": (means["accuracy"] - means["ci_low"]).to_list(),
            "thickness": 1.6,
            "width": 3,
            "color": style.color,
        },
        mode="markers",
        marker={"symbol": style.symbol, "size": 11, "color": style.color, "line": {"width": 0.8, "color": "#ffffff"}},
        name=name,
        legendgroup=method,
        hovertext=[
            f"<b>{label(str(row.criterion), width=60)}</b><br>{name}<br>accuracy {row.accuracy:.3f}, "
            f"interval {row.ci_low:.3f} to {row.ci_high:.3f}<br>mean of {row.seeds} seed{'s' * (row.seeds != 1)}, "
            f"which range from {row.lowest:.3f} to {row.highest:.3f}"
            for row in means.itertuples()
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _seed_trace(rows: pd.DataFrame, at: Mapping[str, float], style: MethodStyle, method: str) -> go.Scatter:
    return go.Scatter(
        x=rows["accuracy"].to_list(),
        y=[at[criterion] for criterion in rows["criterion"]],
        mode="markers",
        marker={"symbol": "circle", "size": 4.5, "color": style.color, "opacity": 0.75},
        name=f"{literal(style.name)}, seeds",
        legendgroup=method,
        showlegend=False,
        hovertext=[
            f"<b>{label(str(row.criterion), width=60)}</b><br>{literal(style.name)}, seed {row.seed}<br>"
            f"accuracy {row.accuracy:.3f}, interval {row.ci_low:.3f} to {row.ci_high:.3f}, n = {row.n}"
            for row in rows.itertuples()
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _frame(figure: go.Figure, criteria: list[str], names: list[str], *, lowest: float) -> None:
    """Axes, the chance line, and a faint band behind every other criterion."""
    height = max(len(criteria) * (len(names) * LANE / BAND), 90)
    letters = 15 if narrow() else 22
    left, right, bottom = 24 + 7 * min(letters, max(map(len, criteria))), 24, 52
    legend, taken = legend_above(names, left=left, width=page_width() - left - right)
    top = taken + 18
    figure.update_layout(
        base_layout(
            width=page_width(), height=top + height + bottom, margin={"l": left, "r": right, "t": top, "b": bottom}
        ),
        legend=legend,
    )
    for index in range(0, len(criteria), 2):
        figure.add_hrect(y0=index - 0.5, y1=index + 0.5, fillcolor="#f6f6f6", line_width=0, layer="below")
    chance_line(figure, x=0.5, span=(-0.5, len(criteria) - 0.5), xref="x", yref="y")
    figure.add_annotation(
        text="chance", x=0.5, y=1, yref="paper", yanchor="bottom", font={"color": MUTED, "size": 12}, yshift=1
    )
    low = min(0.4, lowest - 0.03)
    steps = 0.1 if (page_width() - left - right) * 0.1 / (1.01 - low) > 30 else 0.2
    figure.update_xaxes(title_text="accuracy on test items", range=[low, 1.01], tick0=0, dtick=steps)
    figure.update_yaxes(
        range=[len(criteria) - 0.5, -0.5],
        tickvals=list(range(len(criteria))),
        ticktext=[label(criterion, width=letters, lines=4 if narrow() else 3) for criterion in criteria],
        showgrid=False,
        ticks="",
        ticklabelstandoff=6,
    )
