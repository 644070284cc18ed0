"""How well rewards separate good responses from bad ones, whatever threshold is chosen: ROC curves.

A threshold on the reward lets through some share of the responses that meet the criterion (the true positive rate) and
some share of those that do not (the false positive rate); the curve is all such pairs. Its area is how often a response
that meets the criterion gets the higher reward (`ranking_quality`). Rewards of different seeds are on different scales,
so seeds are not pooled: their curves are averaged vertically, at equal false positive rates (Fawcett, 2006, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import roc_curve

from arm_lens.frames import checked, criteria_of, ranking_quality
from arm_lens.plots.panels import Panels, fitting_columns, legend_above, second_line
from arm_lens.plots.theme import MUTED, MethodStyle, label, literal, method_styles, page_width

SIDE = 220
"""Pixels: the panels are square."""
GRID = np.linspace(0, 1, 101)
"""The false positive rates at which seeds are averaged."""
LINE = 15
"""Pixels from one AUC to the next."""


def roc_curves(
    items: pd.DataFrame, methods: Sequence[str] | None = None, *, names: Mapping[str, str] | None = None
) -> go.Figure:
    """The ROC curve of each method, a panel for each criterion.

    A line is the mean over seeds, its band goes from the lowest to the highest seed, and the diagonal is chance. The AUC
    beside a method's symbol is that of `ranking_quality`: computed within each seed, then averaged. Seeds in which a label
    is absent have no curve.

    Args:
        items: criterion, method, seed, label, reward.
        methods: which ones, all if not given.
        names: names of methods to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no rows, a method has none, or a reward is not a number.
    """
    checked(items, ["criterion", "method", "seed", "label", "reward"], table="items")
    for method in methods or ():
        if not (items["method"] == method).any():
            raise ValueError(f"the table 'items' has no rows of the method {method!r}")
    chosen = items if methods is None else items[items["method"].isin(methods)]
    if chosen["reward"].isna().any():
        row = chosen[chosen["reward"].isna()].iloc[0]
        raise ValueError(
            f"a reward of the method {row['method']!r} on the criterion {row['criterion']!r} is not a number"
        )
    styles = method_styles(chosen["method"], names)
    criteria = criteria_of(chosen)
    left, right, gap = 62, 20, 40
    columns = fitting_columns(len(criteria), most=4, left=left, right=right, gap=gap, narrowest=120)
    side = min(SIDE, (page_width() - left - right + gap) // columns - gap)
    inner = columns * side + (columns - 1) * gap
    legend, taken = legend_above((style.name for style in styles.values()), left=left, width=inner)
    extra = second_line(criteria, side)
    grid = Panels(
        count=len(criteria), columns=columns, width=side, height=side, gap_x=gap, gap_y=68 + extra, left=left, right=right,
        top=taken + 28 + extra,
    )  # fmt: skip
    figure = grid.figure(criteria, [""] * len(criteria))
    for index, criterion in enumerate(criteria):
        _draw(figure, chosen[chosen["criterion"] == criterion], styles, grid, index)
    for method, style in styles.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=literal(style.name), legendgroup=method,
            line={"color": style.color, "width": 1.8}, marker={"symbol": style.symbol, "size": 7, "color": style.color},
        )  # fmt: skip
    figure.update_xaxes(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    figure.update_yaxes(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    figure.add_annotation(
        text="true positive rate", textangle=-90, x=0, y=0.5, xref="paper", yref="paper", xanchor="center", xshift=-46
    )
    figure.update_layout(legend=legend)
    return figure


def mean_curve(items: pd.DataFrame) -> pd.DataFrame | None:
    """The ROC curve of one criterion and one method, averaged over seeds at equal false positive rates.

    Args:
        items: seed, label, reward.

    Returns:
        fpr (from 0 to 1), and over seeds mean, lowest and highest true positive rate; None if each seed lacks a label.
    """
    curves = []
    for _, one in items.groupby("seed", sort=False):
        meets = one["label"].astype(bool)
        if meets.any() and not meets.all():
            fpr, tpr, _ = roc_curve(meets, one["reward"])
            # Where a curve goes straight up, this is its upper end.
            curves.append(np.interp(GRID, fpr, tpr))
    if not curves:
        return None
    rates = np.stack(curves)
    columns = {"fpr": GRID, "mean": rates.mean(axis=0), "lowest": rates.min(axis=0), "highest": rates.max(axis=0)}
    return pd.DataFrame(columns)


def _draw(figure: go.Figure, items: pd.DataFrame, styles: Mapping[str, MethodStyle], grid: Panels, index: int) -> None:
    row, column = grid.cell(index)
    place = {"row": row, "col": column}
    diagonal = {"color": MUTED, "width": 1.2, "dash": "dash"}
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=diagonal, hoverinfo="skip", showlegend=False, name="chance", **place
    )
    drawn = {method: items[items["method"] == method] for method in styles}
    drawn = {method: rows for method, rows in drawn.items() if not rows.empty}
    curves = {method: mean_curve(rows) for method, rows in drawn.items()}
    for method, curve in curves.items():  # bands below all lines
        if curve is not None and drawn[method]["seed"].nunique() > 1:
            figure.add_trace(_band(curve, styles[method], method), **place)
    for number, (method, curve) in enumerate(curves.items()):
        area = ranking_quality(drawn[method])
        if curve is not None:
            figure.add_trace(_line(curve, styles[method], method, area, drawn[method]), **place)
            figure.add_trace(_symbols(curve, styles[method], method, number), **place)
        y = (LINE * (len(curves) - number) - 4) / grid.height
        figure.add_trace(_area(area, styles[method], method, y, grid.width), **place)
    figure.add_annotation(
        text="AUC", x=1, y=(LINE * (len(curves) + 1) - 4) / grid.height, xanchor="right", yanchor="middle",
        font={"size": 12, "color": MUTED}, **place,
    )  # fmt: skip
    figure.update_xaxes(title_text="false positive rate" if grid.is_lowest(index) else None, **place)


def _band(curve: pd.DataFrame, style: MethodStyle, method: str) -> go.Scatter:
    red, green, blue = (int(style.color[start : start + 2], 16) for start in (1, 3, 5))
    return go.Scatter(
        x=[*curve["fpr"], *curve["fpr"][::-1]],
        y=[*curve["highest"], *curve["lowest"][::-1]],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=f"{literal(style.name)}, seeds",
        legendgroup=method,
        showlegend=False,
    )


def _line(curve: pd.DataFrame, style: MethodStyle, method: str, area: float, items: pd.DataFrame) -> go.Scatter:
    name, seeds = literal(style.name), items["seed"].nunique()
    title = f"<b>{label(str(items['criterion'].iloc[0]), width=60)}</b><br>{name}"
    size = f"AUC {area:.3f}, {seeds} seed{'s' * (seeds != 1)} of {len(items) / seeds:.0f} items"
    return go.Scatter(
        # From the corner, where a curve that starts above it goes straight up.
        x=[0.0, *curve["fpr"]],
        y=[0.0, *curve["mean"]],
        mode="lines",
        line={"color": style.color, "width": 1.8},
        customdata=[(0.0, 0.0), *zip(curve["lowest"], curve["highest"], strict=True)],
        hovertemplate=f"{title}<br>{size}<br>false positive rate %{{x:.2f}}: true positive rate %{{y:.3f}}, seeds from "
        "%{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        name=name,
        legendgroup=method,
        showlegend=False,
    )


def _symbols(curve: pd.DataFrame, style: MethodStyle, method: str, number: int) -> go.Scatter:
    """The method's symbol here and there on its line, elsewhere than those of other methods."""
    some = curve.iloc[4 + 4 * (number % 5) : 95 : 20]
    return go.Scatter(
        x=some["fpr"].to_list(), y=some["mean"].to_list(), mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": style.symbol, "size": 7, "color": style.color}, legendgroup=method,
        name=f"{literal(style.name)}, symbols",
    )  # fmt: skip


def _area(area: float, style: MethodStyle, method: str, y: float, width: int) -> go.Scatter:
    """A line of the panel's list of areas, at its lower right."""
    return go.Scatter(
        x=[1 - 38 / width],
        y=[y],
        mode="markers+text",
        marker={"symbol": style.symbol, "size": 7, "color": style.color},
        text=["–" if np.isnan(area) else f"{area:.2f}" if area < 0.995 or area == 1 else ">0.99".replace(">", "&gt;")],
        textposition="middle right",
        textfont={"size": 12},
        cliponaxis=False,
        hoverinfo="skip",
        name=f"{literal(style.name)}, AUC",
        legendgroup=method,
        showlegend=False,
    )
