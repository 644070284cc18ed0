"""How fast head masks are tried: time per mask against prompt length and against the number of masks."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import SPEED, checked
from arm_lens.plots.panels import legend_above, line_panels, thinned
from arm_lens.plots.theme import INK, literal, narrow

PATHS = {
    "full pass per mask": ("#d55e00", "square"),
    "bare forward": ("#8c8c8c", "triangle-down"),
    "replay, whole vocabulary": ("#56b4e9", "diamond"),
    "replay": ("#0072b2", "circle"),
}
"""Colour and symbol of each path, from the slowest to the fastest."""
DASHES = {"TransformerBridge": "solid", "HookedTransformer": "dash"}
VARIED = {"prompt_tokens": "prompt tokens", "masks": "masks per prompt"}


def selection_speed(rows: pd.DataFrame, *, masks: int = 32, prompt_tokens: int = 256) -> go.Figure:
    """Seconds per mask, on logarithmic axes: for each model a panel over prompt length and one over masks.

    A line for each path and model class. Paths with one pass per mask do not depend on the number of masks, and stand
    as level lines in the second panel.

    Args:
        rows: a table like `arm_lens.frames.SPEED`, as written by bench_selection.py.
        masks: how many in the panels over prompt length.
        prompt_tokens: how many in the panels over masks.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    checked(rows, SPEED)
    models = [str(model) for model in rows["model"].unique()]
    kinds = [kind for kind in DASHES if (rows["model_class"] == kind).any()]
    bare = line_panels(2 * len(models), height=1, columns=2, gap_x=28, left=70)
    paths, taken = legend_above(PATHS, left=70, width=bare.inner_width)
    classes, below = legend_above(kinds or DASHES, left=70, width=bare.inner_width)
    grid = line_panels(
        2 * len(models),
        height=170 if narrow() else 230,
        columns=2,
        gap_x=28,
        gap_y=104,
        top=taken + below + 38,
        left=70,
    )
    notes = [f"{masks} masks on each prompt", f"prompts of {prompt_tokens} tokens"] * len(models)
    figure = grid.figure([model for model in models for _ in VARIED], notes)
    for index, (model, varied) in enumerate((model, varied) for model in models for varied in VARIED):
        part = rows[rows["model"] == model]
        once = ~part["path"].str.startswith("replay")  # one pass per mask, however many there are
        row, column = grid.cell(index)
        if varied == "prompt_tokens":
            part = part[once | (part["masks"] == masks)]
        else:
            part = part[part["prompt_tokens"] == prompt_tokens]
            part = pd.concat([part, part[once.loc[part.index]].assign(masks=part["masks"].max())])
        for (path, (color, symbol)), (kind, dash) in itertools.product(PATHS.items(), DASHES.items()):
            line = part[(part["path"] == path) & (part["model_class"] == kind)].sort_values(varied)
            trace = go.Scatter(
                x=line[varied], y=line["seconds_per_mask"], mode="lines+markers", showlegend=False,
                name=literal(f"{path}, {kind}"), line={"color": color, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 8},
                hovertemplate="%{y:.3g} s per mask<extra>%{fullData.name}</extra>",
            )  # fmt: skip
            figure.add_trace(trace, row=row, col=column)
        values = sorted(part[varied].unique())
        places = np.log(values)
        places = (places - places[0]) / max(float(np.ptp(places)), 1e-9) * 0.9 * grid.width
        ticks, texts = thinned(values, [f"{value:g}" for value in values], places.tolist())
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=texts, title_text=VARIED[varied], row=row, col=column)
        title = "seconds per mask" if column == 1 else None
        figure.update_yaxes(type="log", dtick=1, title_text=title, showticklabels=column == 1, row=row, col=column)
        if column == 2:
            next(iter(figure.select_yaxes(row=row, col=2))).matches = f"y{2 * row - 1 if row > 1 else ''}"
    _add_entries(figure, kinds)
    classes["y"] = 1 - taken / figure.layout.height
    figure.update_layout(legend=paths, legend2={**classes, "orientation": "h"})
    return figure


def _add_entries(figure: go.Figure, kinds: list[str]) -> None:
    """Colour and symbol stand for the path, the dash for the model class: an entry for each, on a line of its own."""
    for path, (color, symbol) in PATHS.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=literal(path), legend="legend",
            line={"color": color, "width": 2}, marker={"symbol": symbol, "size": 8},
        )  # fmt: skip
    for kind in kinds:
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=kind, legend="legend2", line={"color": INK, "dash": DASHES[kind]}
        )
