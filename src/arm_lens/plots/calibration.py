"""Are a judge's probabilities what they say? Reliability diagrams.

Responses are put into bins by the probability that the judge gives. Where it says 0.8, a calibrated judge is right
eight times in ten, and its dots lie on the diagonal. Dots below it on the right and above it on the left are
overconfidence (Niculescu-Mizil and Caruana, 2005). The Brier score is the mean squared distance between probability
and truth: 0 is perfect, and a judge that always says one half has 0.25.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import CALIBRATION, SUMMARY
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.judge_rows import symbol
from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import diagonal, facets
from arm_lens.plots.theme import judge_styles, literal
from arm_lens.registry import Style

SIDE = 200
"""Largest side of a panel in pixels."""


def pooled_bins(calibration: pd.DataFrame) -> pd.DataFrame:
    """The bins of each judge over all subsets of one benchmark, every item counting the same.

    Confidence and accuracy are means weighted by n. Subsets have different items, so the weighted distances to the
    interval ends add up as errors of independent quantities. Bins without items are left out.

    Args:
        calibration: judge, subset, bin, confidence, accuracy, ci_low, ci_high, n.

    Returns:
        judge, bin, confidence, accuracy, ci_low, ci_high, n, in order of appearance and of bins.
    """
    filled = calibration[(calibration["n"] > 0) & calibration["accuracy"].notna()]
    keys = ["judge", "bin"]
    weight = filled["n"] / filled.groupby(keys)["n"].transform("sum")
    parts = filled[keys].assign(
        confidence=weight * filled["confidence"],
        accuracy=weight * filled["accuracy"],
        ci_low=(weight * (filled["accuracy"] - filled["ci_low"])) ** 2,
        ci_high=(weight * (filled["ci_high"] - filled["accuracy"])) ** 2,
        n=filled["n"].astype(int),
    )
    bins = parts.groupby(keys, sort=False).sum().reset_index()
    bins["ci_low"] = bins["accuracy"] - bins["ci_low"] ** 0.5
    bins["ci_high"] = bins["accuracy"] + bins["ci_high"] ** 0.5
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
    bins = pooled_bins(one_setting(calibration, benchmark, CALIBRATION))
    if bins.empty:
        raise ValueError("no bin of the table 'calibration' holds an item")
    of_judge = {judge: bins[bins["judge"] == judge] for judge in bins["judge"].unique()}
    styles = judge_styles(of_judge, names)
    chosen = None if summary is None else only(summary, "benchmark", benchmark, SUMMARY)
    figure, grid = facets(
        [style.label for style in styles.values()],
        notes=[_note(of_judge[judge], chosen, judge) for judge in styles],
        most=5,
        widest=SIDE,
        x="stated probability",
        y="observed frequency",
    )
    for index, (judge, style) in enumerate(styles.items()):
        place = grid.place(index)
        diagonal(figure, "diagonal", **place)
        figure.add_trace(_dots(of_judge[judge], style), **place)
        figure.update_yaxes(showticklabels=place["col"] == 1, **place)
    axis = {"range": [-0.04, 1.04], "tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", ".25", ".5", ".75", "1"]}
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure


def _note(bins: pd.DataFrame, summary: pd.DataFrame | None, judge: str) -> str:
    """The number of items and, if it is known, the Brier score."""
    size = f"n = {bins['n'].sum()}"
    if summary is None:
        return size
    own = summary[summary["judge"] == judge].dropna(subset=["brier"])
    if own.empty:
        return size
    return f"Brier {float(np.average(own['brier'], weights=own['n'])):.3f}, {size}"


def _dots(bins: pd.DataFrame, style: Style) -> go.Scatter:
    area = bins["n"] / bins["n"].sum()
    texts = [
        f"<b>{literal(style.label)}</b><br>says {row.confidence:.3f}, is so {row.accuracy:.3f}<br>"
        f"interval {row.ci_low:.3f} to {row.ci_high:.3f}, n = {row.n}"
        for row in bins.itertuples()
    ]
    return go.Scatter(
        x=bins["confidence"].to_list(),
        y=bins["accuracy"].to_list(),
        error_y=whiskers(bins, "accuracy", style.color, thickness=1.4, width=2),
        mode="lines+markers",
        cliponaxis=False,  # the largest symbols stand at 0 and 1
        line={"color": style.color, "width": 1},
        marker={**symbol(style, 0), "opacity": 1, "size": (5 + 11 * area**0.5).to_list()},
        hovertext=texts,
        hovertemplate=HOVER,
        showlegend=False,
        name=literal(style.label),
    )
