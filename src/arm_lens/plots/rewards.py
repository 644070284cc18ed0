"""The distribution of rewards over good and bad responses."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import repeats_in
from arm_lens.plots.panels import facets
from arm_lens.plots.roc import ranking_quality, rewards_of
from arm_lens.plots.theme import MEETS, narrow

EDGES = np.linspace(0, 1, 26)
"""The ends of the bins."""
GROUPS = {
    "meets the criterion": ({"color": MEETS, "width": 1.2}, "rgba(0,114,178,0.55)"),
    "does not": ({"color": "#8a5a00", "width": 1.8}, "rgba(230,159,0,0.28)"),
}
"""Line and fill of the responses with the label True, then with False."""


def reward_histograms(items: pd.DataFrame, judge: str = "arm_reinforce", *, benchmark: str | None = None) -> go.Figure:
    """Rewards of the responses that meet each criterion and of those that do not, example samples and seeds pooled.

    Each histogram is a fraction of its own group, so that groups of different sizes can be compared. The AUC in a
    panel's title is that of `ranking_quality`: computed within each sample and seed, then averaged.

    Args:
        items: a table like `arm_lens.frames.ITEMS`; a panel for each of its subsets. Pairs have no such rewards.
        judge: whose rewards are drawn.
        benchmark: which one, if the table has several.

    Raises:
        ValueError: if a column is missing, the judge has no items, or a reward is not a probability.
    """
    chosen = rewards_of(items, [judge], benchmark)
    if not chosen["reward"].between(0, 1).all():
        raise ValueError("a reward in the table 'items' is not a probability between 0 and 1")
    subsets = {subset: chosen[chosen["subset"] == subset] for subset in chosen["subset"].unique()}
    more = 16 * narrow()  # a note takes two lines in a narrow panel
    figure, grid = facets(
        list(subsets),
        notes=[_note(here) for here in subsets.values()],
        entries=GROUPS,
        height=110 if narrow() else 150,
        above=42 + more,
        between=80 + more,
        gap_x=40,
        x="reward, P(Yes)",
        y="fraction of responses",
    )
    for index, here in enumerate(subsets.values()):
        for (name, (line, fill)), meets in zip(GROUPS.items(), (True, False), strict=True):
            rewards = here["reward"][here["label"].astype(bool) == meets]
            counts, _ = np.histogram(rewards, bins=EDGES)
            figure.add_scatter(
                # One step per bin, closed at both ends.
                x=[0.0, *np.repeat(EDGES[1:-1], 2).tolist(), 1.0],
                y=np.repeat(counts / max(len(rewards), 1), 2).tolist(),
                mode="lines",
                line=line,
                fill="tozeroy",
                fillcolor=fill,
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                hovertemplate="reward %{x:.2f}: %{y:.1%} of " + f"{len(rewards)} responses<extra>{name}</extra>",
                **grid.place(index),
            )
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "0.25", "0.5", "0.75", "1"])
    return figure.update_yaxes(rangemode="tozero", nticks=4)


def _note(items: pd.DataFrame) -> str:
    """AUC and number of responses."""
    area = ranking_quality(items)
    text = "undefined" if math.isnan(area) else f"{area:.3f}"
    sizes = items.groupby(repeats_in(items), sort=False).size()
    pooled = f" × {len(sizes)} fits" if len(sizes) > 1 else ""
    n = str(sizes.iloc[0]) if sizes.nunique() == 1 else f"{sizes.min()} to {sizes.max()}"
    return f"AUC {text},{'<br>' if narrow() else ' '}n = {n}{pooled}"
