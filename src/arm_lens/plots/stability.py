"""How stable head sets are over seeds or example samples, and in which depth of a model they lie."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import DEPTH, STABILITY, checked
from arm_lens.plots.marks import interval_dots, marks
from arm_lens.plots.notation import caption, hover_text
from arm_lens.plots.panels import LETTER, facets, line_panels, row_axis
from arm_lens.plots.theme import MEETS, MUTED, labels, narrow
from arm_lens.registry import Style

ROW = 38
INDICES = {"Jaccard": ("jaccard", "ci_low", "ci_high"), "Nogueira": ("nogueira", "nogueira_low", "nogueira_high")}
"""The columns of each index and of the ends of its interval."""
PALETTE = (
    ("#0072b2", "circle", "solid"),
    ("#d55e00", "square", "dash"),
    ("#009e73", "triangle-up", "dot"),
    ("#cc79a7", "diamond", "dashdot"),
)
"""Colour, symbol and dash of lines that share a panel."""
CONTEXT = "#cfcfcf"
MOST_SYMBOLS = 30
"""Symbols on a line, at most: those of a deep model would touch each other."""
STROKE = {"width": 2.2, "color": "#444444"}
QUARTERS = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", "", "0.5", "", "1"]}


def stability_by_group(stability: pd.DataFrame) -> go.Figure:
    """Mean Jaccard index between a group's sets, with that of random sets as large, and Nogueira's index of stability.

    Nogueira's index is corrected for chance: 0 for random sets and 1 for equal ones.

    Args:
        stability: a table like `arm_lens.frames.STABILITY`.
    """
    table = checked(stability, STABILITY)
    groups = [str(group) for group in table["group"]]
    letters = 16 if narrow() else 26
    longest = max(len(line) for group in groups for line in textwrap.wrap(group, letters) or [""])
    lines = 2 if any(len(group) > letters for group in groups) else 1
    panels = line_panels(
        2, height=(ROW + 14 * (lines - 1)) * len(groups), columns=2, widest=360, gap_x=34,
        left=round(20 + LETTER * max(18, min(letters, longest))), right=16, top=32, bottom=30,
    )  # fmt: skip
    figure = panels.figure(list(INDICES))
    y = list(range(len(groups)))
    texts = [_text(row) for row in table.to_dict("records")]
    dot = Style(label="", color=MEETS, symbol="circle", group="")
    for index, (value, low, high) in enumerate(INDICES.values()):
        dots = interval_dots(table, y, replace(dot, label=value), texts, value=value, ends=(low, high))
        figure.add_trace(dots, **panels.place(index))
    stroke = {"symbol": "line-ns", "size": 16, "line": STROKE}
    chance = marks(table["jaccard_chance"], y, texts, mode="markers", name="by chance", marker=stroke)
    figure.add_trace(chance, **panels.place(0))
    shown = [
        f'{group}<br><span style="font-size:11px;color:{MUTED}">{row.n_sets} sets, {row.mean_heads:.1f} heads</span>'
        for group, row in zip(labels(groups, width=letters, lines=lines), table.itertuples(), strict=True)
    ]
    row_axis(figure, shown)
    figure.update_yaxes(showticklabels=False, **panels.place(1))
    # After the stripes, which would cover it.
    figure.add_vline(0, line=STROKE, layer="below", **panels.place(1))
    lowest = min(0.0, float(table[["nogueira_low", "nogueira"]].min().min()))
    figure.update_xaxes(range=[-0.02, 1.02], **QUARTERS)
    figure.update_xaxes(range=[min(-0.02, lowest - 0.03), 1.02], **panels.place(1))
    figure.update_layout(showlegend=False)
    return caption(
        figure,
        [
            "Dots: mean Jaccard index between the sets of a group, and Nogueira's index, with intervals.",
            "Upright strokes: random sets as large.",
        ],
    )


def depth_profile(depth: pd.DataFrame) -> go.Figure:
    """The share of a layer's heads that were chosen against its relative depth; models of different depth share the axis.

    Up to four names share a panel; more have one each, with the others in grey behind.

    Args:
        depth: a table like `arm_lens.frames.DEPTH`.
    """
    depth = checked(depth, DEPTH)
    rows = {str(name): part.sort_values("depth") for name, part in depth.groupby("name", sort=False)}
    names = list(rows)
    together = len(names) <= len(PALETTE)
    titles = [""] if together else names
    known = dict(zip(names, labels(names, width=40, lines=1), strict=True))
    entries = known.values() if together else ()
    height = 230 if together else 130
    figure, panels = facets(titles, entries=entries, height=height, x="relative depth", y="share of heads chosen")
    for index, title in enumerate(titles):
        order = names if together else [*(name for name in names if name != title), title]
        for name in order:
            look = PALETTE[names.index(name) if together else 0] if together or name == title else None
            figure.add_trace(_profile(rows[name], name, known[name], look), **panels.place(index))
    most = max(0.1, float(depth["share"].max()))
    figure.update_xaxes(range=[-0.03, 1.03], **QUARTERS)
    figure.update_yaxes(range=[-0.03 * most, 1.06 * most], nticks=5)
    return caption(
        figure, ["Depth 0 is the first layer, 1 the last." + ("" if together else " Grey: the other names.")]
    )


def _profile(rows: pd.DataFrame, name: str, title: str, look: tuple[str, str, str] | None) -> go.Scatter:
    """A line with its colour, symbol and dash, or in grey without; ``title`` is its name in the legend."""
    x, y = rows["depth"], rows["share"]
    if look is None:
        return marks(x, y, mode="lines", line={"color": CONTEXT, "width": 1}, name=title)
    color, symbol, dash = look
    texts = [
        hover_text(
            name,
            f"layer {row.layer}, depth {row.depth:.2f}",
            f"{row.chosen} of {row.n_heads} heads, share {row.share:.3f}",
        )
        for row in rows.itertuples()
    ]
    marker = {"symbol": symbol, "size": 7, "color": color, "maxdisplayed": MOST_SYMBOLS}
    line = {"color": color, "width": 2, "dash": dash}
    return marks(x, y, texts, mode="lines+markers", line=line, marker=marker, name=title, showlegend=True)


def _text(row: Mapping[Any, Any]) -> str:
    lines = [f"{row['n_sets']} sets of {row['mean_heads']:.1f} heads"]
    for name, (value, low, high) in INDICES.items():
        known = f"{row[value]:.3f}, interval {row[low]:.3f} to {row[high]:.3f}"
        lines.append(f"{name} " + ("unknown" if pd.isna(row[value]) else known))
    chance = row["jaccard_chance"]
    return hover_text(row["group"], *lines, "by chance " + ("unknown" if pd.isna(chance) else f"Jaccard {chance:.3f}"))
