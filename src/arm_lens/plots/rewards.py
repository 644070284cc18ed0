"""Rewards of single responses: their distributions, ROC curves, and whether they are the probabilities that they say.

A threshold on the reward accepts some share of the responses that meet the criterion (the true positive rate) and some
share of the responses that do not (the false positive rate); the curve is all such pairs. Its area is how often a
response that meets the criterion gets the higher reward (`ranking_quality`). Rewards of different fits (example samples,
seeds) are on different scales, so they are not pooled: their curves are averaged vertically, at equal false positive rates
(Fawcett, 2006, section 8).

Reliability: responses are put into bins by the probability that the judge gives. Where it says 0.8, a calibrated judge is
right eight times in ten, and its dots lie on the diagonal. Dots below it on the right and above it on the left are
overconfidence (Niculescu-Mizil and Caruana, 2005). The Brier score is the mean squared distance between probability
and truth: 0 is perfect, and a judge that always says one half has 0.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import roc_auc_score, roc_curve

from arm_lens.evaluation.hacking import are_cells
from arm_lens.frames import CALIBRATION, ITEMS, SUMMARY, checked, repeats_in
from arm_lens.plots.cuts import having, one_setting, only
from arm_lens.plots.marks import band, diagonal, legend_entry, marks, symbol, whiskers
from arm_lens.plots.notation import hover_text, interval_text, span_text
from arm_lens.plots.panels import Panels, facets
from arm_lens.plots.theme import MEETS, MUTED, faded, judge_styles, literal, narrow
from arm_lens.registry import Style

SIDE, SMALLER = 220, 200
"""Largest side of a square panel in pixels: of ROC curves and of reliability diagrams."""
GRID = np.linspace(0, 1, 101)
"""The false positive rates at which fits are averaged."""
BRIER = SUMMARY.needing("benchmark", "subset", "judge", "brier", "n")
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
    if judges is not None and not judges:
        raise ValueError("judges names no judge")
    for judge in judges or ():
        having(responses, "judge", judge, ITEMS)
    chosen = responses if judges is None else responses[responses["judge"].isin(judges)]
    chosen = only(chosen, "benchmark", benchmark, ITEMS)
    for column in ("n_examples", "noise"):
        if column in chosen.columns and (chosen.groupby("judge")[column].nunique() > 1).any():
            raise ValueError(f"the table 'items' has a judge with several values of {column}: choose one first")
    for row in chosen[chosen["reward"].isna()].to_dict("records"):
        raise ValueError(f"a reward of the judge {row['judge']!r} on {row['subset']!r} is not a number")
    return chosen


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
    place, traces = grid.place(index), [diagonal("chance")]
    drawn = {judge: items[items["judge"] == judge] for judge in styles if (items["judge"] == judge).any()}
    curves = {judge: mean_curve(rows) for judge, rows in drawn.items()}
    counts = {judge: len(_fits(rows)) for judge, rows in drawn.items()}
    for judge, curve in curves.items():  # bands below all lines
        if curve is not None and counts[judge] > 1:
            fits = {"name": f"{literal(styles[judge].label)}, fits", "legendgroup": judge}
            color = faded(styles[judge].color, 0.18)
            traces.append(band(curve["fpr"], curve["lowest"], curve["highest"], color, **fits))
    heights = [(LINE * line - 4) / grid.height for line in range(len(curves) + 1, 0, -1)]
    grey = {"size": 12, "color": MUTED}
    figure.add_annotation(text="AUC", x=1, y=heights[0], xanchor="right", yanchor="middle", font=grey, **place)
    for number, (judge, curve) in enumerate(curves.items()):
        area, style = ranking_quality(drawn[judge]), styles[judge]
        name = literal(style.label)
        common = {"marker": _marker(style), "legendgroup": judge}
        if curve is not None:
            size = (
                f"{counts[judge]} fit{'s' * (counts[judge] != 1)} of {span_text(map(len, _fits(drawn[judge])))} items"
            )
            title = hover_text(items["subset"].iloc[0], name, f"AUC {area:.3f}, {size}")
            # From the corner, where a curve that starts above it goes straight up.
            points = pd.concat([pd.DataFrame(0.0, index=[0], columns=curve.columns), curve])
            rates = (
                f"{title}<br>false positive rate %{{x:.2f}}: true positive rate %{{y:.3f}}, fits from "
                "%{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>"
            )
            look: dict[str, Any] = {
                "mode": "lines",
                "line": {"color": style.color, "width": 1.8},
                "hoverinfo": None,
                "name": name,
            }
            ends = points[["lowest", "highest"]].to_numpy().tolist()
            traces.append(marks(points["fpr"], points["mean"], hovertemplate=rates, customdata=ends, **look, **common))
            # The judge's symbol stands here and there on its line, elsewhere than those of other judges.
            some = curve.iloc[4 + 4 * (number % 5) : 95 : 20]
            traces.append(marks(some["fpr"], some["mean"], mode="markers", name=f"{name}, symbols", **common))
        text = "–" if np.isnan(area) else f"{area:.2f}" if area < 0.995 or area == 1 else "&gt;0.99"
        look = {"mode": "markers+text", "text": [text], "textfont": {"size": 12}, "textposition": "middle right"}
        x, y = [1 - 38 / grid.width], [heights[number + 1]]
        traces.append(marks(x, y, cliponaxis=False, name=f"{name}, AUC", **look, **common))
    figure.add_traces(traces, rows=place["row"], cols=place["col"])


def _marker(style: Style) -> dict[str, object]:
    return {"symbol": style.symbol, "size": 7, "color": style.color}


def pooled_bins(calibration: pd.DataFrame) -> pd.DataFrame:
    """The bins of each judge over all subsets of one benchmark, every item counting the same.

    Confidence and accuracy are means weighted by n. Subsets have different items, so the weighted distances to the
    interval ends add up as errors of independent quantities; the cells of a bias benchmark have the same items, and there
    the weighted distances themselves add up, wide enough for any dependence. Bins without items are left out.

    Args:
        calibration: judge, subset, bin, confidence, accuracy, ci_low, ci_high, n.

    Returns:
        judge, bin, confidence, accuracy, ci_low, ci_high, n, in order of appearance and of bins.
    """
    filled = calibration[calibration["n"] > 0]
    for row in filled[filled[["accuracy", "confidence"]].isna().any(axis=1)].to_dict("records"):
        raise ValueError(
            f"the table 'calibration' has {row['n']} items in bin {row['bin']} of {row['judge']!r}, and no accuracy or "
            "confidence"
        )
    keys = ["judge", "bin"]
    power = 1 if are_cells(filled).all() else 2
    weight = filled["n"] / filled.groupby(keys)["n"].transform("sum")
    parts = filled[keys].assign(
        confidence=weight * filled["confidence"],
        accuracy=weight * filled["accuracy"],
        ci_low=(weight * (filled["accuracy"] - filled["ci_low"])) ** power,
        ci_high=(weight * (filled["ci_high"] - filled["accuracy"])) ** power,
        n=filled["n"].astype(int),
    )
    bins = parts.groupby(keys, sort=False).sum().reset_index()
    unknown = parts.set_index(keys)[["ci_low", "ci_high"]].isna().groupby(keys, sort=False).any().to_numpy()
    bins[["ci_low", "ci_high"]] = bins[["ci_low", "ci_high"]].mask(unknown)
    bins["ci_low"] = bins["accuracy"] - bins["ci_low"] ** (1 / power)
    bins["ci_high"] = bins["accuracy"] + bins["ci_high"] ** (1 / power)
    return bins.sort_values("bin", kind="stable").reset_index(drop=True)


def reliability(
    calibration: pd.DataFrame,
    *,
    summary: pd.DataFrame | None = None,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Per judge, how often a statement is true against the probability that the judge gives it, with intervals.

    On the diagonal both are equal. The area of a dot grows with the number of items in its bin; bins are pooled over
    subsets by `pooled_bins`.

    Args:
        calibration: a table like `arm_lens.frames.CALIBRATION`, of one setting.
        summary: benchmark, subset, judge, brier, n, of the same setting, for the Brier score below a judge's name
            (the mean over items).
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    table = one_setting(calibration, benchmark, CALIBRATION)
    bins = pooled_bins(table)
    if bins.empty:
        raise ValueError("no bin of the table 'calibration' holds an item")
    of_judge = {judge: bins[bins["judge"] == judge] for judge in bins["judge"].unique()}
    styles = judge_styles(of_judge, names)
    if summary is not None:
        scored = having(checked(summary, BRIER), "benchmark", table["benchmark"].iloc[0], SUMMARY)
        scored = one_setting(scored, None, BRIER)
        summary = scored.merge(table[table["n"] > 0][["judge", "subset"]].drop_duplicates(), how="right")
    figure, grid = facets(
        [style.label for style in styles.values()],
        notes=[_brier(of_judge[judge], summary, judge) for judge in styles],
        most=5,
        widest=SMALLER,
        x="stated probability",
        y="observed frequency",
    )
    for index, (judge, style) in enumerate(styles.items()):
        place = grid.place(index)
        figure.add_traces([diagonal("diagonal"), _dots(of_judge[judge], style)], rows=place["row"], cols=place["col"])
        figure.update_yaxes(showticklabels=place["col"] == 1, **place)
    axis = {"range": [-0.04, 1.04], "tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", ".25", ".5", ".75", "1"]}
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure


def _brier(bins: pd.DataFrame, summary: pd.DataFrame | None, judge: str) -> str:
    """The number of items and, if it is known, the Brier score."""
    size = f"n = {bins['n'].sum()}"
    if summary is None:
        return size
    own = summary[summary["judge"] == judge]
    if own["brier"].isna().any():  # of some subset it is not known
        return size
    return f"Brier {float(np.average(own['brier'], weights=own['n'])):.3f}, {size}"


def _dots(bins: pd.DataFrame, style: Style) -> go.Scatter:
    area = bins["n"] / bins["n"].sum()
    texts = [
        hover_text(
            style.label,
            f"says {row['confidence']:.3f}, is so {row['accuracy']:.3f}",
            f"{interval_text(row)}, n = {row['n']}",
        )
        for row in bins.to_dict("records")
    ]
    marker = {**symbol(style, 0), "opacity": 1, "size": (5 + 11 * area**0.5).to_list()}
    return marks(
        bins["confidence"],
        bins["accuracy"],
        texts,
        mode="lines+markers",
        error_y=whiskers(bins, "accuracy", style.color, thickness=1.4, width=2),
        line={"color": style.color, "width": 1},
        marker=marker,
        cliponaxis=False,  # the largest symbols stand at 0 and 1
        name=literal(style.label),
    )
