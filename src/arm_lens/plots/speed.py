"""How fast head masks are tried: time per mask against prompt length and against the number of masks."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.frames import checked
from arm_lens.plots.panels import line_panels
from arm_lens.plots.theme import literal

PATHS = {
    "full pass per mask": ("#d55e00", "square"),
    "bare forward": ("#8c8c8c", "triangle-down"),
    "replay, whole vocabulary": ("#56b4e9", "diamond"),
    "replay": ("#0072b2", "circle"),
}
"""Colour and symbol of each path, from the slowest to the fastest."""
DASHES = {"TransformerBridge": "solid", "HookedTransformer": "dash"}
VARIED = {"prompt_tokens": "prompt tokens", "masks": "masks in one pass"}


def selection_speed(rows: pd.DataFrame, *, masks: int = 32, prompt_tokens: int = 256) -> go.Figure:
    """Seconds per mask, on logarithmic axes: for each model a panel over prompt length and one over masks.

    A line for each path and model class. Paths with one pass per mask do not depend on the number of masks, and stand
    as level lines in the second panel.

    Args:
        rows: model, path, model_class, prompt_tokens, masks, seconds_per_mask, as written by bench_selection.py.
        masks: how many in the panels over prompt length.
        prompt_tokens: how many in the panels over masks.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    columns = ["model", "path", "model_class", "prompt_tokens", "masks", "seconds_per_mask"]
    checked(rows, columns, table="rows")
    models = [str(model) for model in rows["model"].unique()]
    grid = line_panels(2 * len(models), height=200, columns=2, gap_x=70, gap_y=84, top=96)
    notes = [f"{masks} masks", f"{prompt_tokens} prompt tokens"] * len(models)
    figure = grid.figure([model for model in models for _ in VARIED], notes)
    shown: set[tuple[str, str]] = set()
    for index, (model, varied) in enumerate((model, varied) for model in models for varied in VARIED):
        part = rows[rows["model"] == model]
        most = part["masks"].max()
        if varied == "prompt_tokens":
            part = part[
                part["masks"].isin([1, masks]) & ~(part["path"].str.startswith("replay") & (part["masks"] != masks))
            ]
        else:
            part = part[part["prompt_tokens"] == prompt_tokens]
        row, column = grid.cell(index)
        for path, (color, symbol) in PATHS.items():
            for kind, dash in DASHES.items():
                line = part[(part["path"] == path) & (part["model_class"] == kind)].sort_values(varied)
                x, y = line[varied].to_list(), line["seconds_per_mask"].to_list()
                if varied == "masks" and len(x) == 1 and not path.startswith("replay"):
                    x, y = [1, int(most)], y * 2
                if not x:
                    continue
                trace = go.Scatter(
                    x=x, y=y, mode="lines+markers", name=literal(f"{path} ({kind})"),
                    line={"color": color, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 8},
                    legendgroup=f"{path} {kind}", showlegend=(path, kind) not in shown,
                    hovertemplate="%{y:.3g} s per mask<extra>%{fullData.name}</extra>",
                )  # fmt: skip
                shown.add((path, kind))
                figure.add_trace(trace, row=row, col=column)
        ticks = sorted(part[varied].unique()) if not part.empty else []
        figure.update_xaxes(
            type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks], title_text=VARIED[varied],
            row=row, col=column,
        )  # fmt: skip
        figure.update_yaxes(type="log", dtick=1, exponentformat="power", row=row, col=column)
        if column == 1:
            figure.update_yaxes(title_text="seconds per mask", row=row, col=column)
    figure.update_layout(legend={"y": 1, "yref": "container", "yanchor": "top", "xref": "paper", "x": 0})
    return figure
