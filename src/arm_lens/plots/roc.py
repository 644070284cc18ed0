"""How well rewards separate good responses from bad ones, whatever threshold is chosen: ROC curves.

A threshold on the reward lets through some share of the responses that meet the criterion (the true positive rate) and
some share of those that do not (the false positive rate); the curve is all such pairs. Its area is how often a response
that meets the criterion gets the higher reward (`ranking_quality`). Rewards of different fits (example samples, seeds) are on
different scales, so they are not pooled: their curves are averaged vertically, at equal false positive rates (Fawcett,
2006, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import roc_auc_score, roc_curve

from arm_lens.frames import ITEMS, checked, repeats_in
from arm_lens.plots.cuts import having, only
from arm_lens.plots.panels import Panels, fitting_columns, legend_above, name_rows, second_line
from arm_lens.plots.theme import MUTED, JudgeStyle, faded, judge_styles, label, literal, page_width

SIDE = 220
"""Pixels: the panels are square."""
GRID = np.linspace(0, 1, 101)
"""The false positive rates at which seeds are averaged."""
COLUMNS = ("benchmark", "subset", "judge", "sample", "seed", "label", "reward")
LINE = 15
"""Pixels from one AUC to the next."""


def roc_curves(
    items: pd.DataFrame,
    judges: Sequence[str] | None = None,
    *,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """The ROC curve of each judge, a panel for each subset.

    A line is the mean over fits (example samples and seeds), its band goes from the lowest to the highest of them, and the
    diagonal is chance. The AUC beside a judge's symbol is that of `ranking_quality`: computed within each fit, then
    averaged. Fits in which a label is absent have no curve.

    Args:
        items: a table like `arm_lens.frames.ITEMS`; its single responses are drawn.
        judges: which ones, all if not given.
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no responses, a judge has none, or a reward is not a number.
    """
    chosen = rewards_of(items, judges, benchmark)
    styles = judge_styles(chosen["judge"], names)
    subsets = list(chosen["subset"].unique())
    left, right, gap = 62, 20, 40
    columns = fitting_columns(len(subsets), most=4, left=left, right=right, gap=gap, narrowest=120)
    side = min(SIDE, (page_width() - left - right + gap) // columns - gap)
    inner = columns * side + (columns - 1) * gap
    legend, taken = legend_above((style.name for style in styles.values()), left=left, width=inner)
    extra = second_line(subsets, side)
    grid = Panels(
        count=len(subsets), columns=columns, width=side, height=side, gap_x=gap, gap_y=68 + extra, left=left, right=right,
        top=taken + 28 + extra,
    )  # fmt: skip
    figure = grid.figure(subsets, [""] * len(subsets))
    for index, subset in enumerate(subsets):
        _draw(figure, chosen[chosen["subset"] == subset], styles, grid, index)
    for judge, style in styles.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=literal(style.name), legendgroup=judge,
            line={"color": style.color, "width": 1.8}, marker={"symbol": style.symbol, "size": 7, "color": style.color},
        )  # fmt: skip
    figure.update_xaxes(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    figure.update_yaxes(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    name_rows(figure, "true positive rate")
    figure.update_layout(legend=legend)
    return figure


def rewards_of(items: pd.DataFrame, judges: Sequence[str] | None, benchmark: str | None) -> pd.DataFrame:
    """The single responses that these judges (all if None) gave a reward, in one benchmark and one setting of each judge.

    Raises:
        ValueError: if a column is missing, there is no response or a judge has none, several settings are there, or a
            reward is not a number.
    """
    responses = checked(items, ITEMS.needing(*COLUMNS))
    if "unit" in responses.columns:
        responses = responses[responses["unit"] == "response"]
    if responses.empty:
        raise ValueError("the table 'items' holds no single responses, only pairs")
    for judge in judges or ():
        having(responses, "judge", judge, ITEMS)
    chosen = responses if judges is None else responses[responses["judge"].isin(judges)]
    chosen = only(chosen, "benchmark", benchmark, ITEMS)
    for column in ("n_examples", "noise"):
        if column in chosen.columns and (chosen.groupby("judge")[column].nunique() > 1).any():
            raise ValueError(f"the table 'items' has a judge with several values of {column}: choose one first")
    for row in chosen[chosen["reward"].isna()].to_dict("records"):
        raise ValueError(f"a reward of the judge {row['judge']!r} on {row['subset']!r} is not a number")
    return chosen.astype({"subset": str, "judge": str})


def ranking_quality(items: pd.DataFrame) -> float:
    """The area under the ROC curve: how often a response that meets the criterion gets the higher reward.

    A tie counts one half. Computed within each example sample and seed, whose rewards are on different scales, then
    averaged over those with both labels; not a number if there is none.

    Args:
        items: sample or seed or both, label, reward; of one subset and one judge.
    """
    fits = [one for _, one in items.groupby(repeats_in(items), sort=False) if one["label"].nunique() > 1]
    areas = [float(roc_auc_score(one["label"].astype(bool), one["reward"])) for one in fits]
    return float(np.mean(areas)) if areas else float("nan")


def mean_curve(items: pd.DataFrame) -> pd.DataFrame | None:
    """The ROC curve of one subset and one judge, averaged over fits at equal false positive rates.

    Args:
        items: sample or seed or both, label, reward.

    Returns:
        fpr (from 0 to 1), and over fits mean, lowest and highest true positive rate; None if each fit lacks a label.
    """
    curves = []
    for _, one in items.groupby(repeats_in(items), sort=False):
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


def _draw(figure: go.Figure, items: pd.DataFrame, styles: Mapping[str, JudgeStyle], grid: Panels, index: int) -> None:
    row, column = grid.cell(index)
    place = {"row": row, "col": column}
    diagonal = {"color": MUTED, "width": 1.2, "dash": "dash"}
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=diagonal, hoverinfo="skip", showlegend=False, name="chance", **place
    )
    drawn = {judge: items[items["judge"] == judge] for judge in styles}
    drawn = {judge: rows for judge, rows in drawn.items() if not rows.empty}
    curves = {judge: mean_curve(rows) for judge, rows in drawn.items()}
    for judge, curve in curves.items():  # bands below all lines
        if curve is not None and drawn[judge].groupby(repeats_in(drawn[judge])).ngroups > 1:
            figure.add_trace(_band(curve, styles[judge], judge), **place)
    for number, (judge, curve) in enumerate(curves.items()):
        area = ranking_quality(drawn[judge])
        if curve is not None:
            figure.add_trace(_line(curve, styles[judge], judge, area, drawn[judge]), **place)
            figure.add_trace(_symbols(curve, styles[judge], judge, number), **place)
        y = (LINE * (len(curves) - number) - 4) / grid.height
        figure.add_trace(_area(area, styles[judge], judge, y, grid.width), **place)
    figure.add_annotation(
        text="AUC", x=1, y=(LINE * (len(curves) + 1) - 4) / grid.height, xanchor="right", yanchor="middle",
        font={"size": 12, "color": MUTED}, **place,
    )  # fmt: skip
    figure.update_xaxes(title_text="false positive rate" if grid.is_lowest(index) else None, **place)


def _band(curve: pd.DataFrame, style: JudgeStyle, judge: str) -> go.Scatter:
    return go.Scatter(
        x=[*curve["fpr"], *curve["fpr"][::-1]],
        y=[*curve["highest"], *curve["lowest"][::-1]],
        fill="toself",
        fillcolor=faded(style.color, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=f"{literal(style.name)}, fits",
        legendgroup=judge,
        showlegend=False,
    )


def _line(curve: pd.DataFrame, style: JudgeStyle, judge: str, area: float, items: pd.DataFrame) -> go.Scatter:
    name, fits = literal(style.name), items.groupby(repeats_in(items)).ngroups
    title = f"<b>{label(str(items['subset'].iloc[0]), width=60)}</b><br>{name}"
    size = f"AUC {area:.3f}, {fits} fit{'s' * (fits != 1)} of {len(items) / fits:.0f} items"
    return go.Scatter(
        # From the corner, where a curve that starts above it goes straight up.
        x=[0.0, *curve["fpr"]],
        y=[0.0, *curve["mean"]],
        mode="lines",
        line={"color": style.color, "width": 1.8},
        customdata=[(0.0, 0.0), *zip(curve["lowest"], curve["highest"], strict=True)],
        hovertemplate=f"{title}<br>{size}<br>false positive rate %{{x:.2f}}: true positive rate %{{y:.3f}}, fits from "
        "%{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        name=name,
        legendgroup=judge,
        showlegend=False,
    )


def _symbols(curve: pd.DataFrame, style: JudgeStyle, judge: str, number: int) -> go.Scatter:
    """The judge's symbol here and there on its line, elsewhere than those of other judges."""
    some = curve.iloc[4 + 4 * (number % 5) : 95 : 20]
    return go.Scatter(
        x=some["fpr"].to_list(), y=some["mean"].to_list(), mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": style.symbol, "size": 7, "color": style.color}, legendgroup=judge,
        name=f"{literal(style.name)}, symbols",
    )  # fmt: skip


def _area(area: float, style: JudgeStyle, judge: str, y: float, width: int) -> go.Scatter:
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
        legendgroup=judge,
        showlegend=False,
    )
