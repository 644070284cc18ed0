"""How fast head masks are tried: time per mask against prompt length and against the number of masks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import SPEED, checked
from arm_lens.plots.marks import legend_entry, marks
from arm_lens.plots.panels import facets, thinned
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

    A line for each path and model class. Paths with one pass per mask do not depend on the number of masks, and are
    level lines in the second panel.

    Args:
        rows: a table like `arm_lens.frames.SPEED`, as written by bench_selection.py.
        masks: number of masks in the panels over prompt length; the nearest that was measured is taken, and written above.
        prompt_tokens: number of tokens in the panels over masks, likewise.
    """
    rows = checked(rows, SPEED)
    for column, known in (("path", PATHS), ("model_class", DASHES)):
        for value in set(rows[column]) - set(known):
            raise ValueError(f"the table '{SPEED.name}' has a {column} {value!r}, and there are {', '.join(known)}")
    for model in set(rows["model"]) - set(rows.loc[rows["path"].str.startswith("replay"), "model"]):
        raise ValueError(f"the table '{SPEED.name}' has no replay of {model!r}, by whose masks the others are drawn")
    panels = list(itertools.product(map(str, rows["model"].unique()), VARIED))
    kinds = [kind for kind in DASHES if (rows["model_class"] == kind).any()]
    fixed = {model: _nearest(part, masks, prompt_tokens) for model, part in rows.groupby("model")}
    notes = [
        f"{fixed[model][0]} masks on each prompt"
        if varied == "prompt_tokens"
        else f"prompts of {fixed[model][1]} tokens"
        for model, varied in panels
    ]
    titles, height = [model for model, _ in panels], 170 if narrow() else 230
    entries, y = [*PATHS, *kinds], "seconds per mask"
    figure, grid = facets(
        titles, notes=notes, entries=entries, height=height, y=y, columns=2, gap_x=28, left=70, below=26
    )
    for index, (model, varied) in enumerate(panels):
        place, part = grid.place(index), rows[rows["model"] == model]
        masks, prompt_tokens = fixed[model]
        once = ~part["path"].str.startswith("replay")  # one pass per mask, however many there are
        if varied == "prompt_tokens":
            part = part[once | (part["masks"] == masks)]
        else:
            part = part[part["prompt_tokens"] == prompt_tokens]
            part = pd.concat([part, part[once.loc[part.index]].assign(masks=part["masks"].max())])
            # The y axis of the panel to the left.
            figure.update_yaxes(matches=f"y{index}", showticklabels=False, **place)
        for path, kind in itertools.product(PATHS, DASHES):
            line = part[(part["path"] == path) & (part["model_class"] == kind)].sort_values(varied)
            look = {**_look(path, DASHES[kind]), "hovertemplate": "%{y:.3g} s per mask<extra>%{fullData.name}</extra>"}
            trace = marks(
                line[varied], line["seconds_per_mask"], hoverinfo=None, name=literal(f"{path}, {kind}"), **look
            )
            figure.add_trace(trace, **place)
        values = sorted(part[varied].unique())
        at = np.log(values)
        at = (at - at[0]) / max(float(np.ptp(at)), 1e-9) * 0.9 * grid.width
        ticks, texts = thinned(values, [f"{value:g}" for value in values], at.tolist())
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=texts, title_text=VARIED[varied], **place)
    figure.update_yaxes(type="log", dtick=1)
    # Colour and symbol stand for the path, the dash for the model class.
    for path in PATHS:
        legend_entry(figure, literal(path), **_look(path, None))
    for kind in kinds:
        legend_entry(figure, kind, mode="lines", line={"color": INK, "dash": DASHES[kind]})
    return figure


def _nearest(rows: pd.DataFrame, masks: int, prompt_tokens: int) -> tuple[int, int]:
    """The measured numbers of masks and of tokens nearest to those wished for."""

    def nearest(measured: pd.Series[int], wish: int) -> int:
        return min(map(int, measured), key=lambda number: abs(number - wish))

    replayed = rows[rows["path"].str.startswith("replay")]
    return nearest(replayed["masks"], masks), nearest(rows["prompt_tokens"], prompt_tokens)


def _look(path: str, dash: str | None) -> dict[str, Any]:
    color, symbol = PATHS[path]
    line = {"color": color, "dash": dash, "width": 2}
    return {"mode": "lines+markers", "line": line, "marker": {"symbol": symbol, "size": 8}}
