"""Rewards of single responses: their distributions, and how well they separate good responses from bad ones (ROC curves).

A threshold on the reward accepts some share of the responses that meet the criterion (the true positive rate) and some
share of the responses that do not (the false positive rate); the curve is all such pairs. Its area is how often a
response that meets the criterion gets the higher reward (`ranking_quality`). Rewards of different fits (example samples,
seeds) are on different scales, so they are not pooled: their curves are averaged vertically, at equal false positive rates
(Fawcett, 2006, section 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import roc_auc_score, roc_curve

from arm_lens.frames import ITEMS, checked, repeats_in
from arm_lens.plots.cuts import having, only
from arm_lens.plots.notation import hover_text, span_text
from arm_lens.plots.panels import Panels, band, diagonal, facets, legend_entry
from arm_lens.plots.theme import MEETS, MUTED, faded, judge_styles, literal, narrow
from arm_lens.registry import Style

SIDE = 220
"""Largest side of a panel in pixels."""
GRID = np.linspace(0, 1, 101)
"""The false positive rates at which fits are averaged."""
COLUMNS = ("benchmark", "subset", "judge", "sample", "seed", "label", "reward")
LINE = 15
"""Pixels from one AUC to the next."""
EDGES = np.linspace(0, 1, 26)
"""The ends of the bins."""
GROUPS = {
    "meets the criterion": ({"color": MEETS, "width": 1.2}, "rgba(0,114,178,0.55)"),
    "does not": ({"color": "#8a5a00", "width": 1.8}, "rgba(230,159,0,0.28)"),
}
"""Line and fill of the responses with the label True, then with False."""


def reward_histograms(items: pd.DataFrame, judge: str = "arm_reinforce", *, benchmark: str | None = None) -> go.Figure:
    """Rewards of the responses that meet each criterion and of those that do not, example samples and seeds pooled.

    Each histogram is a fraction of its own group, so that groups of different sizes can be compared. The AUC in a
    panel's title is that of `ranking_quality`: computed within each sample and seed, then averaged.

    Args:
        items: a table like `arm_lens.frames.ITEMS`; a panel for each of its subsets. Pairs have no such rewards.
        judge: whose rewards are drawn.
        benchmark: which one, if the table has several.
    """
    chosen = rewards_of(items, [judge], benchmark)
    if not chosen["reward"].between(0, 1).all():
        raise ValueError("a reward in the table 'items' is not a probability between 0 and 1")
    subsets = {subset: chosen[chosen["subset"] == subset] for subset in chosen["subset"].unique()}
    figure, grid = facets(
        list(subsets),
        notes=[_note(here) for here in subsets.values()],
        entries=GROUPS,
        height=110 if narrow() else 150,
        x="reward, P(Yes)",
        y="fraction of responses",
    )
    for index, here in enumerate(subsets.values()):
        for (name, (line, fill)), meets in zip(GROUPS.items(), (True, False), strict=True):
            rewards = here["reward"][here["label"].astype(bool) == meets]
            counts, _ = np.histogram(rewards, bins=EDGES)
            figure.add_scatter(
                # One step per bin, closed at both ends.
                x=[0.0, *np.repeat(EDGES[1:-1], 2).tolist(), 1.0],
                y=np.repeat(counts / max(len(rewards), 1), 2).tolist(),
                mode="lines",
                line=line,
                fill="tozeroy",
                fillcolor=fill,
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                hovertemplate="reward %{x:.2f}: %{y:.1%} of " + f"{len(rewards)} responses<extra>{name}</extra>",
                **grid.place(index),
            )
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "0.25", "0.5", "0.75", "1"])
    return figure.update_yaxes(rangemode="tozero", nticks=4)


def _note(items: pd.DataFrame) -> str:
    """AUC and number of responses."""
    area = ranking_quality(items)
    text = "undefined" if math.isnan(area) else f"{area:.3f}"
    sizes = items.groupby(repeats_in(items), sort=False).size()
    pooled = f" × {len(sizes)} fits" if len(sizes) > 1 else ""
    return f"AUC {text},{'<br>' if narrow() else ' '}n = {span_text(sizes)}{pooled}"


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
        judges: which ones; all if not given.
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    chosen = rewards_of(items, judges, benchmark)
    styles = judge_styles(chosen["judge"], names)
    subsets = list(chosen["subset"].unique())
    figure, grid = facets(
        subsets,
        entries=[style.label for style in styles.values()],
        widest=SIDE,
        x="false positive rate",
        y="true positive rate",
    )
    for index, subset in enumerate(subsets):
        _draw(figure, chosen[chosen["subset"] == subset], styles, grid, index)
    for judge, style in styles.items():
        look = {"line": {"color": style.color, "width": 1.8}, "marker": _marker(style)}
        legend_entry(figure, literal(style.label), mode="lines+markers", legendgroup=judge, **look)
    axis = {"range": [-0.02, 1.02], "tickvals": [0, 0.5, 1], "ticktext": ["0", "0.5", "1"]}
    figure.update_xaxes(axis)
    return figure.update_yaxes(axis)


def rewards_of(items: pd.DataFrame, judges: Sequence[str] | None, benchmark: str | None) -> pd.DataFrame:
    """The single responses that these judges (all if None) gave a reward, in one benchmark and one setting of each judge.

    Raises:
        ValueError: if a column is missing, there is no response or a judge has none, there are several settings, or a
            reward is not a number.
    """
    responses = checked(items, ITEMS.needing(*COLUMNS))
    if "unit" in responses.columns:
        responses = responses[responses["unit"] == "response"]
    if responses.empty:
        raise ValueError("the table 'items' has no single responses, only pairs")
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

    A tie counts one half. The area is computed within each fit (example sample and seed), since the rewards of different
    fits are on different scales, then averaged over the fits with both labels; NaN if there is none.

    Args:
        items: sample or seed or both, label, reward; of one subset and one judge.
    """
    areas = [float(roc_auc_score(one["label"].astype(bool), one["reward"])) for one in _fits(items)]
    return float(np.mean(areas)) if areas else float("nan")


def mean_curve(items: pd.DataFrame) -> pd.DataFrame | None:
    """The ROC curve of one subset and one judge, averaged over fits at equal false positive rates.

    Args:
        items: sample or seed or both, label, reward.

    Returns:
        fpr (from 0 to 1), and over fits mean, lowest and highest true positive rate; None if each fit lacks a label.
    """
    curves = []
    for one in _fits(items):
        fpr, tpr, _ = roc_curve(one["label"].astype(bool), one["reward"])
        # Where a curve goes straight up, this is its upper end.
        curves.append(np.interp(GRID, fpr, tpr))
    if not curves:
        return None
    rates = np.stack(curves)
    columns = {"fpr": GRID, "mean": rates.mean(axis=0), "lowest": rates.min(axis=0), "highest": rates.max(axis=0)}
    return pd.DataFrame(columns)


def _fits(items: pd.DataFrame) -> list[pd.DataFrame]:
    """The items of each example sample and seed that has both labels."""
    return [one for _, one in items.groupby(repeats_in(items), sort=False) if one["label"].nunique() > 1]


def _draw(figure: go.Figure, items: pd.DataFrame, styles: Mapping[str, Style], grid: Panels, index: int) -> None:
    place = grid.place(index)
    diagonal(figure, "chance", **place)
    drawn = {judge: items[items["judge"] == judge] for judge in styles if (items["judge"] == judge).any()}
    curves = {judge: mean_curve(rows) for judge, rows in drawn.items()}
    counts = {judge: rows.groupby(repeats_in(rows)).ngroups for judge, rows in drawn.items()}
    for judge, curve in curves.items():  # bands below all lines
        if curve is not None and counts[judge] > 1:
            fits = {"name": f"{literal(styles[judge].label)}, fits", "legendgroup": judge, "showlegend": False}
            color = faded(styles[judge].color, 0.18)
            figure.add_trace(band(curve["fpr"], curve["lowest"], curve["highest"], color, **fits), **place)
    heights = [(LINE * line - 4) / grid.height for line in range(len(curves) + 1, 0, -1)]
    figure.add_annotation(
        text="AUC", x=1, y=heights[0], xanchor="right", yanchor="middle", font={"size": 12, "color": MUTED}, **place
    )
    for number, (judge, curve) in enumerate(curves.items()):
        area, style = ranking_quality(drawn[judge]), styles[judge]
        name = literal(style.label)
        common = {"marker": _marker(style), "legendgroup": judge, "showlegend": False, **place}
        if curve is not None:
            size = f"{counts[judge]} fit{'s' * (counts[judge] != 1)} of {len(drawn[judge]) / counts[judge]:.0f} items"
            title = hover_text(items["subset"].iloc[0], name, f"AUC {area:.3f}, {size}")
            figure.add_scatter(
                # From the corner, where a curve that starts above it goes straight up.
                x=[0.0, *curve["fpr"]], y=[0.0, *curve["mean"]], mode="lines", line={"color": style.color, "width": 1.8},
                customdata=[(0.0, 0.0), *zip(curve["lowest"], curve["highest"], strict=True)], name=name,
                hovertemplate=f"{title}<br>false positive rate %{{x:.2f}}: true positive rate %{{y:.3f}}, fits "
                "from %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>", **common,
            )  # fmt: skip
            # The judge's symbol stands here and there on its line, elsewhere than those of other judges.
            some = curve.iloc[4 + 4 * (number % 5) : 95 : 20]
            figure.add_scatter(
                x=some["fpr"].to_list(), y=some["mean"].to_list(), mode="markers", hoverinfo="skip",
                name=f"{name}, symbols", **common,
            )  # fmt: skip
        text = "–" if np.isnan(area) else f"{area:.2f}" if area < 0.995 or area == 1 else "&gt;0.99"
        figure.add_scatter(
            x=[1 - 38 / grid.width], y=[heights[number + 1]], mode="markers+text", text=[text], textfont={"size": 12},
            textposition="middle right", cliponaxis=False, hoverinfo="skip", name=f"{name}, AUC", **common,
        )  # fmt: skip


def _marker(style: Style) -> dict[str, object]:
    return {"symbol": style.symbol, "size": 7, "color": style.color}
