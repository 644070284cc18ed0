"""How far head sets come out the same again, over seeds or draws, and where in the depth of a model they lie."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import DEPTH, STABILITY, checked
from arm_lens.plots.notation import HOVER, caption, whiskers
from arm_lens.plots.panels import LETTER, Panels, balanced_columns, legend_above, line_panels
from arm_lens.plots.theme import MEETS, MUTED, label, narrow, page_width

ROW = 38
PALETTE = (
    ("#0072b2", "circle", "solid"),
    ("#d55e00", "square", "dash"),
    ("#009e73", "triangle-up", "dot"),
    ("#cc79a7", "diamond", "dashdot"),
)
"""Colour, symbol and dash of lines that share a panel."""
CONTEXT = "#cfcfcf"


def stability_by_group(stability: pd.DataFrame) -> go.Figure:
    """Mean Jaccard index between a group's sets, beside that of random sets as large, and Nogueira's index of stability.

    Nogueira's index is corrected for chance: 0 for random sets and 1 for equal ones.

    Args:
        stability: a table like `arm_lens.frames.STABILITY`.

    Raises:
        ValueError: if a column is missing, there are no rows, or a group is there twice.
    """
    table = checked(stability, STABILITY)
    groups = [str(group) for group in table["group"]]
    letters = 16 if narrow() else 26
    longest = max(len(line) for group in groups for line in textwrap.wrap(group, letters) or [""])
    left = round(20 + LETTER * max(18, min(letters, longest)))
    width = min(360, (page_width() - left - 16 - 34) // 2)
    lines = 2 if any(len(group) > letters for group in groups) else 1
    row_height = ROW + 14 * (lines - 1)
    panels = Panels(
        count=2,
        columns=2,
        width=width,
        height=row_height * len(groups),
        gap_x=34,
        left=left,
        right=16,
        top=32,
        bottom=30,
    )
    figure = panels.figure(["Jaccard", "Nogueira"], [""] * 2)
    y = list(range(len(groups)))
    texts = [_text(row) for row in table.to_dict("records")]
    for column, (value, low, high) in enumerate(
        (("jaccard", "ci_low", "ci_high"), ("nogueira", "nogueira_low", "nogueira_high"))
    ):
        dots = go.Scatter(
            x=table[value].to_list(), y=y, mode="markers", name=value,
            marker={"symbol": "circle", "size": 10, "color": MEETS}, hovertext=texts, hovertemplate=HOVER,
            error_x=whiskers(table, value, MEETS, ends=(low, high)),
        )  # fmt: skip
        figure.add_trace(dots, row=1, col=column + 1)
    chance = go.Scatter(
        x=table["jaccard_chance"].to_list(), y=y, mode="markers", name="by chance", hovertext=texts,
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 2.2, "color": "#444444"}},
        hovertemplate=HOVER,
    )  # fmt: skip
    figure.add_trace(chance, row=1, col=1)
    shown = [
        f'{label(group, width=letters, lines=lines)}<br><span style="font-size:11px;color:{MUTED}">{row.n_sets} sets, '
        f"{row.mean_heads:.1f} heads</span>"
        for group, row in zip(groups, table.itertuples(), strict=True)
    ]
    figure.update_yaxes(
        range=[len(groups) - 0.5, -0.5], tickvals=y, ticktext=shown, showgrid=False, ticks="", ticklabelstandoff=6
    )
    figure.update_yaxes(showticklabels=False, row=1, col=2)
    for index in range(0, len(groups), 2):
        figure.add_hrect(y0=index - 0.5, y1=index + 0.5, fillcolor="#f6f6f6", line_width=0, layer="below")
    # After the stripes, which would cover it.
    figure.add_shape(
        type="line", x0=0, x1=0, y0=0, y1=1, yref="y domain", line={"color": "#444444", "width": 2.2}, layer="below", row=1,
        col=2,
    )  # fmt: skip
    lowest = min(0.0, float(table["nogueira_low"].min()))
    figure.update_xaxes(range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "", "0.5", "", "1"])
    figure.update_xaxes(range=[min(-0.02, lowest - 0.03), 1.02], row=1, col=2)
    figure.update_layout(showlegend=False)
    caption(
        figure,
        [
            "Dots: mean Jaccard index between the sets of a group, and Nogueira's index, with intervals.",
            "Upright strokes: random sets as large.",
        ],
    )
    return figure


def depth_profile(depth: pd.DataFrame) -> go.Figure:
    """The share of a layer's heads that were chosen against its relative depth; models of different depth share the axis.

    Up to four names share a panel; more have one each, the others in grey behind.

    Args:
        depth: a table like `arm_lens.frames.DEPTH`.

    Raises:
        ValueError: if a column is missing, there are no rows, or a layer of a name is there twice.
    """
    checked(depth, DEPTH)
    names = [str(name) for name in depth["name"].unique()]
    together = len(names) <= len(PALETTE)
    count = 1 if together else len(names)
    columns = 1 if together else balanced_columns(count, 2 if narrow() else 4)
    sides = {"gap_x": 34, "gap_y": 56, "left": 58, "right": 18, "top": 34, "bottom": 46}
    panels = line_panels(count, height=230 if together else 130, columns=columns, **sides)
    legend, top = legend_above([name[:40] for name in names], left=58, width=panels.width)
    panels = replace(panels, top=top + 10) if together else panels
    figure = panels.figure([""] if together else names, [""] * count)
    for index in range(count):
        row, column = panels.cell(index)
        order = sorted(range(len(names)), key=lambda other: other == index) if not together else range(len(names))
        for place in order:
            rows = depth[depth["name"].astype(str) == names[place]].sort_values("depth")
            behind = not together and place != index
            figure.add_trace(_profile(rows, names[place], place if together else 0, behind=behind), row=row, col=column)
        figure.update_xaxes(title_text="relative depth" if panels.is_lowest(index) else None, row=row, col=column)
        figure.update_yaxes(
            title_text=("share of heads chosen" if together else "share") if column == 1 else None, row=row, col=column
        )
    most = max(0.1, float(depth["share"].max()))
    figure.update_xaxes(range=[-0.03, 1.03], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "", "0.5", "", "1"])
    figure.update_yaxes(range=[-0.03 * most, 1.06 * most], nticks=5)
    figure.update_layout(showlegend=together, legend=legend if together else None)
    caption(figure, ["Depth 0 is the first layer, 1 the last." + ("" if together else " Grey: the other names.")])
    return figure


def _profile(rows: pd.DataFrame, name: str, place: int, *, behind: bool) -> go.Scatter:
    color, symbol, dash = PALETTE[place]
    texts = [
        f"<b>{label(name, width=60)}</b><br>layer {row.layer}, depth {row.depth:.2f}<br>{row.chosen} of {row.n_heads} heads, "
        f"share {row.share:.3f}"
        for row in rows.itertuples()
    ]
    line = {"color": CONTEXT, "width": 1} if behind else {"color": color, "width": 2, "dash": dash}
    return go.Scatter(
        x=rows["depth"].to_list(), y=rows["share"].to_list(), mode="lines" if behind else "lines+markers", line=line,
        marker={"symbol": symbol, "size": 7, "color": color}, name=label(name, width=40, lines=1),
        hovertext=texts, hovertemplate=HOVER, hoverinfo="skip" if behind else None,
        showlegend=not behind,
    )  # fmt: skip


def _text(row: Mapping[Any, Any]) -> str:
    lines = [f"<b>{label(str(row['group']), width=60)}</b>", f"{row['n_sets']} sets of {row['mean_heads']:.1f} heads"]
    for name, value, low, high in (
        ("Jaccard", "jaccard", "ci_low", "ci_high"),
        ("Nogueira", "nogueira", "nogueira_low", "nogueira_high"),
    ):
        known = f"{row[value]:.3f}, interval {row[low]:.3f} to {row[high]:.3f}"
        lines.append(f"{name} " + ("unknown" if pd.isna(row[value]) else known))
    lines.append(
        "by chance " + ("unknown" if pd.isna(row["jaccard_chance"]) else f"Jaccard {row['jaccard_chance']:.3f}")
    )
    return "<br>".join(lines)
