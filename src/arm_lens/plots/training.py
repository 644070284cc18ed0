"""How the search for heads went: a quantity against the step, per criterion, over seeds."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import HISTORY, checked, criteria_of
from arm_lens.heads import HasHeads, Named, history_frame
from arm_lens.plots.panels import facets
from arm_lens.plots.theme import MEETS, narrow

AXES = {
    "reward": "reward of the drawn masks",
    "expected_heads": "expected number of heads",
    "entropy": "entropy per head (nats)",
}
MEAN, BAND = "mean over seeds", "lowest to highest seed"


def training_curves(
    history: HasHeads | Named[HasHeads] | pd.DataFrame,
    *,
    value: Literal["reward", "expected_heads", "entropy"] = "reward",
) -> go.Figure:
    """The mean over seeds as a line, and the band from the lowest to the highest seed.

    Args:
        history: selections or reward models, also by name; or a table like `arm_lens.frames.HISTORY` with the column
            that is drawn.
        value: the column to draw.

    Raises:
        ValueError: if a column is missing or there are no rows, or ``value`` is not one of the three.
    """
    if value not in AXES:
        raise ValueError(f"there is a curve for {', '.join(map(repr, AXES))}, not for {value!r}")
    table = checked(history_frame(history), HISTORY.needing("criterion", "seed", "step", value))
    criteria = criteria_of(table)
    banded = bool((table.groupby("criterion")["seed"].nunique() > 1).any())
    figure, grid = facets(
        criteria,
        entries=[MEAN, BAND] if banded else (),
        height=110 if narrow() else 150,
        above=26,
        between=66,
        gap_x=40,
        x="step",
        y=AXES[value],
    )
    for index, criterion in enumerate(criteria):
        curve = table[table["criterion"] == criterion].groupby("step")[value].agg(["mean", "min", "max"])
        place = grid.place(index) | {"showlegend": index == 0}
        steps = curve.index.to_list()
        if banded:
            figure.add_scatter(
                x=steps + steps[::-1], y=[*curve["max"], *curve["min"][::-1]], mode="lines", line={"width": 0},
                fill="toself", fillcolor="#bcd7e8", hoverinfo="skip", name=BAND, legendgroup="band", **place,
            )  # fmt: skip
        figure.add_scatter(
            x=steps, y=curve["mean"].to_list(), mode="lines", line={"width": 1.8, "color": MEETS}, name=MEAN,
            legendgroup="mean", customdata=curve[["min", "max"]].to_numpy(), **place,
            hovertemplate="step %{x}: mean %{y:.3f}, from %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(range=[table["step"].min(), table["step"].max()], nticks=5)
    figure.update_yaxes(nticks=5, rangemode="normal" if value == "reward" else "tozero")
    for axis in list(figure.select_yaxes())[1:]:
        axis.matches = "y"
    return figure.update_layout(showlegend=banded)
