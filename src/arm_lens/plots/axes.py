"""Accuracy along each axis of a sweep: what a change of one option does, everything else being the same."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import EFFECTS, checked
from arm_lens.plots.notation import HOVER, accuracy_text, whiskers
from arm_lens.plots.panels import chance_line, facets
from arm_lens.plots.theme import INK, MUTED, label

LETTERS = 30
"""Characters below a panel for which there is room side by side."""
NAMES = {"n_examples": "labelled examples", "noise": "share of flipped labels", "subset": "criterion"}


def accuracy_by_axis(effects: pd.DataFrame) -> go.Figure:
    """A panel per axis, with a dot and its interval per value.

    Args:
        effects: a table like `arm_lens.frames.EFFECTS`, of one benchmark. Values are drawn in the order of the table; those
            without a mean are left out.
    """
    table = checked(effects, EFFECTS).dropna(subset=["accuracy"])
    if table.empty:
        raise ValueError("the table 'effects' has no mean: no setting has all values of an axis")
    panels = {str(axis): rows for axis, rows in table.groupby("axis", sort=False)}
    notes = [f"over {rows['settings'].iloc[0]} settings" for rows in panels.values()]
    titles = [NAMES.get(axis, axis) for axis in panels]
    longest = max(len(str(value)) * len(rows) for rows in panels.values() for value in rows["value"])
    bottom = 60 if longest < LETTERS else 110
    figure, grid = facets(titles, height=230, notes=notes, y="accuracy", bottom=bottom, gap_x=48)
    low = min(0.45, float(table["ci_low"].min()) - 0.02)
    for index, (axis, rows) in enumerate(panels.items()):
        row, column = grid.cell(index)
        values = [label(str(value), width=16, lines=3) for value in rows["value"]]
        dots = go.Scatter(
            x=list(range(len(values))),
            y=rows["accuracy"].to_list(),
            error_y=whiskers(rows, "accuracy", MUTED),
            mode="lines+markers" if axis in ("n_examples", "noise") else "markers",
            marker={"color": INK, "size": 9},
            line={"color": MUTED, "width": 1.2},
            hovertext=[
                accuracy_text(one, f"{NAMES.get(axis, axis)}: {one['value']}") for one in rows.to_dict("records")
            ],
            hovertemplate=HOVER,
            showlegend=False,
        )
        figure.add_trace(dots, row=row, col=column)
        span = (-0.5, len(values) - 0.5)
        chance_line(figure, y=0.5, span=span, **grid.place(index))
        angle = 0 if max(map(len, map(str, rows["value"]))) * len(values) < LETTERS else -40
        ticks = {"tickvals": list(range(len(values))), "ticktext": values, "tickangle": angle, "range": list(span)}
        figure.update_xaxes(**ticks, row=row, col=column)
    return figure.update_yaxes(range=[low, 1.02], tickformat=".1f", dtick=0.1 if low > 0.2 else 0.2)
