"""Are a judge's probabilities what they say? Reliability diagrams.

Responses are put into bins by the probability that the judge gives. Where it says 0.8, a calibrated judge is right
eight times in ten, and its dots lie on the diagonal; dots below it on the right and above it on the left are
overconfidence (Niculescu-Mizil and Caruana, 2005). The Brier score is the mean squared distance between probability
and truth: 0 is perfect, 0.25 is what always saying one half earns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import CALIBRATION, SUMMARY
from arm_lens.plots.cuts import one_setting, only
from arm_lens.plots.judge_rows import line_width
from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import Panels, fitting_columns, name_rows, second_line
from arm_lens.plots.theme import MUTED, JudgeStyle, judge_styles, literal, page_width

SIDE = 200
"""Pixels: the panels are square."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def pooled_bins(calibration: pd.DataFrame) -> pd.DataFrame:
    """The bins of each judge over all subsets of one benchmark, every item counting the same.

    Confidence and accuracy are means weighted by n. Subsets hold different items, so the weighted distances to the
    interval ends add up as errors of independent quantities. Bins without items are left out.

    Args:
        calibration: judge, subset, bin, confidence, accuracy, ci_low, ci_high, n.

    Returns:
        judge, bin, confidence, accuracy, ci_low, ci_high, n, in order of appearance and of bins.
    """
    records = []
    filled = calibration[(calibration["n"] > 0) & calibration["accuracy"].notna()]
    for (judge, number), group in filled.groupby(["judge", "bin"], sort=False):
        weights = group["n"] / group["n"].sum()
        accuracy = float((weights * group["accuracy"]).sum())
        below = float(((weights * (group["accuracy"] - group["ci_low"])) ** 2).sum() ** 0.5)
        above = float(((weights * (group["ci_high"] - group["accuracy"])) ** 2).sum() ** 0.5)
        confidence = float((weights * group["confidence"]).sum())
        records.append((judge, number, confidence, accuracy, accuracy - below, accuracy + above, int(group["n"].sum())))
    columns = ["judge", "bin", "confidence", "accuracy", "ci_low", "ci_high", "n"]
    return pd.DataFrame(records, columns=columns).sort_values("bin", kind="stable").reset_index(drop=True)


def reliability(
    calibration: pd.DataFrame,
    *,
    summary: pd.DataFrame | None = None,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Per judge, how often what it says is so against the probability it says it with, with intervals and the diagonal.

    The area of a dot grows with the number of items in its bin; bins are pooled over subsets by `pooled_bins`.

    Args:
        calibration: a table like `arm_lens.frames.CALIBRATION`, of one setting.
        summary: benchmark, subset, judge, brier, n, of the same setting, for the Brier score below a judge's name
            (the mean over items).
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, or no bin holds an item.
    """
    bins = pooled_bins(one_setting(calibration, benchmark, CALIBRATION))
    if bins.empty:
        raise ValueError("no bin of the table 'calibration' holds an item")
    styles = judge_styles(bins["judge"], names)
    chosen = None if summary is None else only(summary, "benchmark", benchmark, SUMMARY)
    notes = [_note(bins[bins["judge"] == judge], chosen, judge) for judge in styles]
    columns = fitting_columns(len(styles), most=5, left=62, right=20, gap=36, narrowest=120)
    shown = [style.name for style in styles.values()]
    width = min(SIDE, (page_width() - 82 + 36) // columns - 36)
    extra = second_line(shown, width)
    grid = Panels(
        count=len(styles), columns=columns, width=width, height=width, gap_x=36, gap_y=86 + extra, top=52 + extra,
        bottom=52,
    )  # fmt: skip
    figure = grid.figure(shown, notes)
    for index, (judge, style) in enumerate(styles.items()):
        place = grid.place(index)
        figure.add_trace(_diagonal(), **place)
        figure.add_trace(_dots(bins[bins["judge"] == judge], style), **place)
        lowest = grid.is_lowest(index)
        figure.update_xaxes(title_text="stated probability" if lowest else None, **place)
        figure.update_yaxes(showticklabels=place["col"] == 1, **place)
    figure.update_xaxes(range=[-0.04, 1.04], tickvals=TICKS, ticktext=["0", ".25", ".5", ".75", "1"])
    figure.update_yaxes(range=[-0.04, 1.04], tickvals=TICKS, ticktext=["0", ".25", ".5", ".75", "1"])
    name_rows(figure, "observed frequency")
    return figure


def _note(bins: pd.DataFrame, summary: pd.DataFrame | None, judge: str) -> str:
    size = f"n = {bins['n'].sum()}"
    if summary is None:
        return size
    own = summary[summary["judge"] == judge].dropna(subset=["brier"])
    if own.empty:
        return size
    return f"Brier {float(np.average(own['brier'], weights=own['n'])):.3f}, {size}"


def _diagonal() -> go.Scatter:
    return go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1.2, "dash": "dash"}, hoverinfo="skip",
        showlegend=False, name="diagonal",
    )  # fmt: skip


def _dots(bins: pd.DataFrame, style: JudgeStyle) -> go.Scatter:
    share = bins["n"] / bins["n"].sum()
    return go.Scatter(
        x=bins["confidence"].to_list(),
        y=bins["accuracy"].to_list(),
        error_y=whiskers(bins, "accuracy", style.color, thickness=1.4, width=2),
        mode="lines+markers",
        cliponaxis=False,  # the largest symbols stand at 0 and 1
        line={"color": style.color, "width": 1},
        marker={
            "symbol": style.symbol,
            "opacity": 1,
            "size": (5 + 11 * share**0.5).to_list(),
            "color": style.color,
            "line": {"width": line_width(style)},
        },
        hovertext=[
            f"<b>{literal(style.name)}</b><br>says {row.confidence:.3f}, is so {row.accuracy:.3f}<br>"
            f"interval {row.ci_low:.3f} to {row.ci_high:.3f}, n = {row.n}"
            for row in bins.itertuples()
        ],
        hovertemplate=HOVER,
        showlegend=False,
        name=literal(style.name),
    )
