"""How the search went: a quantity against the step, per criterion, over seeds."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import HISTORY, checked, criteria_of
from arm_lens.heads import Named, Searched, history_frame
from arm_lens.plots.panels import Panels, legend_above, line_panels, name_rows, second_line
from arm_lens.plots.theme import MEETS, narrow

AXES = {
    "reward": "reward of the drawn masks",
    "expected_heads": "expected number of heads",
    "entropy": "entropy per head (nats)",
}
MEAN, BAND = "mean over seeds", "lowest to highest seed"


def training_curves(
    history: Searched | Named[Searched] | pd.DataFrame,
    *,
    value: Literal["reward", "expected_heads", "entropy"] = "reward",
) -> go.Figure:
    """The mean over seeds as a line, and the band from the lowest to the highest seed.

    Args:
        history: selections or reward models, also by name; or a table like `arm_lens.frames.HISTORY`, with what is drawn.
        value: what to draw.

    Raises:
        ValueError: if a column is missing or there are no rows, or ``value`` is none of the three.
    """
    if value not in AXES:
        raise ValueError(f"there is a curve for {', '.join(map(repr, AXES))}, not for {value!r}")
    table = checked(history_frame(history), HISTORY.needing("criterion", "seed", "step", value))
    criteria = criteria_of(table)
    banded = bool((table.groupby("criterion")["seed"].nunique() > 1).any())
    bare = line_panels(len(criteria), height=1, gap_x=40)
    legend, taken = legend_above([MEAN, BAND], left=bare.left, width=bare.inner_width) if banded else ({}, 0)
    extra = second_line(criteria, bare.width)
    height = 110 if narrow() else 150
    grid = line_panels(len(criteria), height=height, gap_x=40, gap_y=66 + extra, top=taken + 26 + extra)
    figure = grid.figure(criteria, [""] * len(criteria))
    over_seeds: pd.DataFrame = table.groupby(["criterion", "step"])[value].agg(["mean", "min", "max"])
    for index, criterion in enumerate(criteria):
        curve = over_seeds[over_seeds.index.get_level_values("criterion") == criterion].droplevel("criterion")
        _draw(figure, curve, grid, index, banded=banded)
        row, column = grid.cell(index)
        figure.update_xaxes(title_text="step" if grid.is_lowest(index) else None, row=row, col=column)
    name_rows(figure, AXES[value], left=50)
    figure.update_xaxes(range=[table["step"].min(), table["step"].max()], nticks=5)
    figure.update_yaxes(nticks=5)
    for axis in list(figure.select_yaxes())[1:]:
        axis.matches = "y"
    if value != "reward":
        figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=banded, legend=legend)
    return figure


def _draw(figure: go.Figure, curve: pd.DataFrame, grid: Panels, index: int, *, banded: bool) -> None:
    row, column = grid.cell(index)
    steps = curve.index.to_list()
    if banded:
        band = go.Scatter(
            x=steps + steps[::-1],
            y=curve["max"].to_list() + curve["min"].to_list()[::-1],
            fill="toself",
            fillcolor="#bcd7e8",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            name=BAND,
            legendgroup="band",
            showlegend=index == 0,
        )
        figure.add_trace(band, row=row, col=column)
    line = go.Scatter(
        x=steps,
        y=curve["mean"].to_list(),
        mode="lines",
        line={"width": 1.8, "color": MEETS},
        customdata=curve[["min", "max"]].to_numpy(),
        hovertemplate="step %{x}: mean %{y:.3f}, from %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        name=MEAN,
        legendgroup="mean",
        showlegend=index == 0,
    )
    figure.add_trace(line, row=row, col=column)
