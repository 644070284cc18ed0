"""Where the rewards of good and bad responses lie."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import repeats_in
from arm_lens.plots.panels import Panels, legend_above, line_panels, name_rows, second_line
from arm_lens.plots.roc import ranking_quality, rewards_of
from arm_lens.plots.theme import MEETS, narrow

BINS = 25
MEETING, FALLING_SHORT = "meets the criterion", "does not"


def reward_histograms(items: pd.DataFrame, judge: str = "arm_reinforce", *, benchmark: str | None = None) -> go.Figure:
    """Rewards of the responses that meet each criterion and of those that do not, example samples and seeds pooled.

    Each histogram is a fraction of its own group, so that groups of different sizes compare. The AUC in a panel's title
    is that of `ranking_quality`: computed within each sample and seed, then averaged.

    Args:
        items: a table like `arm_lens.frames.ITEMS`; a panel for each of its subsets. Of pairs there are no such rewards.
        judge: whose rewards are drawn.
        benchmark: which one, if the table holds several.

    Raises:
        ValueError: if a column is missing, the judge has no items, or a reward is no probability.
    """
    chosen = rewards_of(items, [judge], benchmark)
    if not chosen["reward"].between(0, 1).all():
        raise ValueError("a reward in the table 'items' is not a probability between 0 and 1")
    subsets = list(chosen["subset"].unique())
    bare = line_panels(len(subsets), height=1, gap_x=40)
    legend, taken = legend_above([MEETING, FALLING_SHORT], left=bare.left, width=bare.inner_width)
    extra = second_line(subsets, bare.width)
    extra += 16 * narrow()  # a note takes two lines in a narrow panel
    height = 110 if narrow() else 150
    grid = line_panels(len(subsets), height=height, gap_x=40, gap_y=80 + extra, top=taken + 42 + extra)
    of_subset = {subset: chosen[chosen["subset"] == subset] for subset in subsets}
    figure = grid.figure(subsets, [_note(of_subset[subset]) for subset in subsets])
    for index, subset in enumerate(subsets):
        _draw(figure, of_subset[subset], grid, index)
        row, column = grid.cell(index)
        figure.update_xaxes(title_text="reward, P(Yes)" if grid.is_lowest(index) else None, row=row, col=column)
    name_rows(figure, "fraction of responses", left=50)
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "0.25", "0.5", "0.75", "1"])
    figure.update_yaxes(rangemode="tozero", nticks=4)
    figure.update_layout(legend=legend)
    return figure


def _note(items: pd.DataFrame) -> str:
    area = ranking_quality(items)
    text = "undefined" if math.isnan(area) else f"{area:.3f}"
    sizes = items.groupby(repeats_in(items), sort=False).size()
    pooled = f" × {len(sizes)} fits" if len(sizes) > 1 else ""
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
