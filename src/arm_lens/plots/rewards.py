"""Where the rewards of good and bad responses lie."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import checked, criteria_of, ranking_quality
from arm_lens.plots.panels import Panels, legend_above, line_panels, second_line
from arm_lens.plots.theme import MEETS, narrow

BINS = 25
MEETING, FALLING_SHORT = "meets the criterion", "does not"


def reward_histograms(items: pd.DataFrame, method: str = "reinforce") -> go.Figure:
    """Rewards of the responses that meet each criterion and of those that do not, seeds pooled.

    Each histogram is a fraction of its own group, so that groups of different sizes compare. The AUC in a panel's title
    is that of `ranking_quality`: computed within each seed, then averaged.

    Args:
        items: criterion, method, seed, label, reward.
        method: the method whose rewards are drawn.

    Raises:
        ValueError: if a column is missing, the method has no items, or a reward is no probability.
    """
    checked(items, ["criterion", "method", "seed", "label", "reward"], table="items")
    chosen = items[items["method"] == method]
    if chosen.empty:
        raise ValueError(f"the table 'items' has no rows of the method {method!r}")
    if not chosen["reward"].between(0, 1).all():
        raise ValueError("a reward in the table 'items' is not a probability between 0 and 1")
    criteria = criteria_of(chosen)
    bare = line_panels(len(criteria), height=1, gap_x=40)
    legend, taken = legend_above([MEETING, FALLING_SHORT], left=bare.left, width=bare.inner_width)
    extra = second_line(criteria, bare.width)
    extra += 16 * narrow()  # a note takes two lines in a narrow panel
    height = 110 if narrow() else 150
    grid = line_panels(len(criteria), height=height, gap_x=40, gap_y=80 + extra, top=taken + 42 + extra)
    of_criterion = {criterion: chosen[chosen["criterion"] == criterion] for criterion in criteria}
    figure = grid.figure(criteria, [_note(of_criterion[criterion]) for criterion in criteria])
    for index, criterion in enumerate(criteria):
        _draw(figure, of_criterion[criterion], grid, index)
        row, column = grid.cell(index)
        figure.update_xaxes(title_text="reward, P(Yes)" if grid.is_lowest(index) else None, row=row, col=column)
    figure.add_annotation(
        text="fraction of responses",
        textangle=-90,
        x=0,
        y=0.5,
        xref="paper",
        yref="paper",
        xanchor="center",
        xshift=-50,
    )
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "0.25", "0.5", "0.75", "1"])
    figure.update_yaxes(rangemode="tozero", nticks=4)
    figure.update_layout(legend=legend)
    return figure


def _note(items: pd.DataFrame) -> str:
    area = ranking_quality(items)
    text = "undefined" if math.isnan(area) else f"{area:.3f}"
    sizes = items.groupby("seed", sort=False).size()
    pooled = f" × {len(sizes)} seeds" if len(sizes) > 1 else ""
    n = str(sizes.iloc[0]) if sizes.nunique() == 1 else f"{sizes.min()} to {sizes.max()}"
    return f"AUC {text},{'<br>' if narrow() else ' '}n = {n}{pooled}"


def _draw(figure: go.Figure, items: pd.DataFrame, grid: Panels, index: int) -> None:
    row, column = grid.cell(index)
    meets = items["label"].astype(bool)
    edges = np.linspace(0, 1, BINS + 1)
    groups = (
        (MEETING, items["reward"][meets], {"color": MEETS, "width": 1.2}, "rgba(0,114,178,0.55)"),
        (FALLING_SHORT, items["reward"][~meets], {"color": "#8a5a00", "width": 1.8}, "rgba(230,159,0,0.28)"),
    )
    for name, rewards, line, fill in groups:
        counts, _ = np.histogram(rewards, bins=edges)
        fractions = counts / max(len(rewards), 1)
        figure.add_trace(
            go.Scatter(
                # One step per bin, closed at both ends.
                x=[0.0, *np.repeat(edges[1:-1], 2).tolist(), 1.0],
                y=np.repeat(fractions, 2).tolist(),
                mode="lines",
                line=line,
                fill="tozeroy",
                fillcolor=fill,
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                hovertemplate="reward %{x:.2f}: %{y:.1%} of " + f"{len(rewards)} responses<extra>{name}</extra>",
            ),
            row=row,
            col=column,
        )
