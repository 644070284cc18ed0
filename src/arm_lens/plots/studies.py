"""How accuracy changes with the number of labelled examples, and with flipped labels among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.standings import mean_over_subsets
from arm_lens.frames import SUMMARY, checked
from arm_lens.plots.cuts import only
from arm_lens.plots.judge_rows import accuracy_text, symbol
from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import chance_line, facets, thinned
from arm_lens.plots.theme import faded, judge_styles, literal, narrow
from arm_lens.registry import Style

MEAN = "mean over subsets"
SPREAD = 0.6
"""The part of the distance between two neighbouring values over which judges are spread, so that their intervals do not
hide each other."""
REFERENCES = ("zero_shot", "length")
"""Judges without examples, which any judge that reads some should beat."""
EDGE = 0.9
"""Steps that an axis reaches beyond its first and last value."""
CROWD = 6
"""The largest number of lines in a panel whose intervals are all drawn boldly; of more, only those of the lead are."""


@dataclass(frozen=True)
class _Study:
    """What is varied, and its axis."""

    varied: str
    axis: str
    logarithmic: bool

    def places(self, values: Sequence[float | int]) -> list[float]:
        """Positions on the axis."""
        return [float(np.log2(value)) if self.logarithmic else float(value) for value in values]

    def tick(self, value: float | int) -> str:
        """Text of the axis at a value."""
        if self.logarithmic:
            return f"{value:.0f}"
        return f"{100 * value:.0f}" if narrow() else f"{value:.0%}"

    @property
    def title(self) -> str:
        """Title of the axis."""
        return self.axis if self.logarithmic or not narrow() else f"{self.axis.removeprefix('share of ')} (%)"


EXAMPLES = _Study("n_examples", "labelled examples", True)
NOISE = _Study("noise", "share of flipped labels", False)


def accuracy_by_examples(
    summary: pd.DataFrame,
    *,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
    lead: str = "arm_reinforce",
    references: Sequence[str] = REFERENCES,
) -> go.Figure:
    """A line per judge against the number of labelled examples, on a logarithmic axis; a panel for each subset.

    The first panel is the mean over subsets, if there are several. Judges measured at one number only are left out.
    Symbols of one number of examples stand a little apart, so that their intervals can be seen.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`; the rows with the least noise are drawn.
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
        lead: the judge whose line is bolder.
        references: judges that read no examples, drawn as level dotted lines.

    Raises:
        ValueError: if a column is missing, there are no rows, or no judge was measured at two numbers of examples.
    """
    table = _measured(summary, benchmark)
    return _study(table[table["noise"] == table["noise"].min()], EXAMPLES, names, lead, references)


def accuracy_by_noise(
    summary: pd.DataFrame,
    *,
    benchmark: str | None = None,
    names: Mapping[str, str] | None = None,
    lead: str = "arm_reinforce",
    references: Sequence[str] = REFERENCES,
) -> go.Figure:
    """A line per judge against the share of flipped labels among the examples; a panel for each subset.

    Drawn like `accuracy_by_examples`, with the same arguments, at the number of examples for which most shares were
    measured.

    Raises:
        ValueError: if a column is missing, there are no rows, or no judge was measured at two shares.
    """
    table = _measured(summary, benchmark)
    shares = table[table["n_examples"] > 0].groupby("n_examples")["noise"].nunique()
    chosen = shares.index[shares == shares.max()].max() if len(shares) else 0
    return _study(table[table["n_examples"].isin([0, chosen])], NOISE, names, lead, references)


def has_study(summary: pd.DataFrame, varied: str) -> bool:
    """Whether some judge of this one benchmark was measured at two values of ``varied``, all else being the same."""
    learning = summary[summary["n_examples"] > 0]
    other = "noise" if varied == "n_examples" else "n_examples"
    return bool((learning.groupby(["judge", "subset", other])[varied].nunique() > 1).any())


def _measured(summary: pd.DataFrame, benchmark: str | None) -> pd.DataFrame:
    return only(checked(summary, SUMMARY), "benchmark", benchmark, SUMMARY).dropna(subset=["accuracy"])


def _study(
    table: pd.DataFrame, study: _Study, names: Mapping[str, str] | None, lead: str, references: Sequence[str]
) -> go.Figure:
    learning = table[table["n_examples"] > 0]
    counts = learning.groupby(["subset", "judge"])[study.varied].transform("nunique")
    varied = learning[counts > 1]
    if varied.empty:
        raise ValueError(f"no judge of the table 'summary' was measured at two values of {study.varied!r}")
    level = table[(table["n_examples"] == 0) & table["judge"].isin(references)]
    level = level[level["subset"].isin(varied["subset"])]
    level = level[level["noise"] == level["noise"].min()]
    subsets = [str(subset) for subset in varied["subset"].unique()]
    panels = {subset: (varied[varied["subset"] == subset], level[level["subset"] == subset]) for subset in subsets}
    if len(subsets) > 1:
        means = [_mean(varied[varied[study.varied] == value], subsets) for value in varied[study.varied].unique()]
        panels = {f"{MEAN} ({len(subsets)})": (pd.concat(means), _mean(level, subsets)), **panels}
    styles = judge_styles([*varied["judge"], *level["judge"]], names)
    entries = [style.label if len(style.label) <= 28 else style.label[:27] + "…" for style in styles.values()]
    height, between = (130, 46) if narrow() else (210, 66)
    figure, grid = facets(
        list(panels),
        entries=entries,
        height=height,
        above=26,
        between=between,
        gap_x=38,
        bottom=50,
        x=study.title,
        y="accuracy",
    )
    ticks: list[float | int] = sorted(varied[study.varied].unique().tolist())
    at = study.places(ticks)
    step = min((b - a for a, b in itertools.pairwise(at)), default=1.0)
    low, high = at[0] - step * EDGE, at[-1] + step * EDGE
    for index, (title, (lines, flat)) in enumerate(panels.items()):
        chance_line(figure, y=0.5, span=(low, high), **grid.place(index))
        row, column = grid.cell(index)
        traces = [*_levels(flat, styles, title, at, step), *_lines(lines, study, styles, title, at, step, lead)]
        figure.add_traces(traces, rows=row, cols=column)
    shown, texts = thinned(
        at, [study.tick(value) for value in ticks], [(value - low) / (high - low) * grid.width for value in at]
    )
    figure.update_xaxes(tickvals=shown, ticktext=texts, tickangle=0, range=[low, high])
    lowest = float(np.nanmin(pd.concat([varied, level])[["ci_low", "accuracy"]].to_numpy(dtype=float)))
    bottom = min(0.45, lowest - 0.02)
    figure.update_yaxes(range=[bottom, 1.02], dtick=0.1 if bottom > 0.2 else 0.2, tickformat=".1f")
    for entry, style in zip(entries, styles.values(), strict=True):
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", line={"color": style.color, "width": 1.6}, marker=symbol(style, 9),
            name=literal(entry),
        )  # fmt: skip
    return figure


def _mean(rows: pd.DataFrame, subsets: Sequence[str]) -> pd.DataFrame:
    """Means over subsets of the judges that have all of them, with the columns of ``rows`` that they share."""
    if rows.empty or rows["subset"].nunique() < len(subsets):
        return rows.iloc[:0]
    means = mean_over_subsets(rows).dropna(subset=["accuracy"]).drop(columns="subsets")
    shared = rows.groupby("judge", sort=False).agg({"n_examples": "first", "noise": "first", "n": "sum"}).reset_index()
    return means.merge(shared, on="judge")


def _levels(
    flat: pd.DataFrame, styles: Mapping[str, Style], title: str, at: Sequence[float], step: float
) -> Iterator[go.Scatter]:
    """Level dotted lines of the references, each with its symbol at the left edge, before the first value."""
    ends = [at[0] - step / 2, (at[0] + at[-1]) / 2, at[-1] + step / 2]
    for record in flat.to_dict("records"):
        style, y = styles[record["judge"]], record["accuracy"]
        yield go.Scatter(
            x=ends, y=[y] * 3, mode="lines", line={"color": style.color, "width": 1.4, "dash": "dot"}, showlegend=False,
            hovertext=accuracy_text(record, style.label, title), hovertemplate=HOVER, name=literal(style.label),
        )  # fmt: skip
        yield go.Scatter(
            x=ends[:1], y=[y], mode="markers", marker=symbol(style, 5 if narrow() else 7), hoverinfo="skip",
            showlegend=False, cliponaxis=False,
        )  # fmt: skip


def _lines(
    rows: pd.DataFrame,
    study: _Study,
    styles: Mapping[str, Style],
    title: str,
    at: Sequence[float],
    step: float,
    lead: str,
) -> Iterator[go.Scatter]:
    """A line for each judge, side by side at each value; that of the lead last, on top."""
    drawn = [judge for judge in styles if (rows["judge"] == judge).any()]
    spread = SPREAD * min(step, (at[-1] - at[0]) / 4)
    for index, judge in sorted(enumerate(drawn), key=lambda pair: pair[1] == lead):
        style, bold = styles[judge], judge == lead
        own = rows[rows["judge"] == judge].sort_values(study.varied)
        shift = spread * ((index + 0.5) / len(drawn) - 0.5)
        texts = [
            accuracy_text(record, style.label, title)
            + f"<br>{record[study.varied]:{'.0f' if study.logarithmic else '.0%'}} {study.axis.removeprefix('share of ')}"
            for record in own.to_dict("records")
        ]
        color = faded(style.color, 0.35 if len(drawn) > CROWD and not bold else 0.9)
        yield go.Scatter(
            x=[value + shift for value in study.places(own[study.varied].to_list())],
            y=own["accuracy"].to_list(),
            error_y=whiskers(own, "accuracy", color, thickness=1.8 if bold else 1.2, width=0),
            mode="lines+markers",
            line={"color": style.color, "width": 2.6 if bold else 1.3},
            marker=symbol(style, (9 if bold else 7) - 2 * narrow()),
            hovertext=texts,
            hovertemplate=HOVER,
            name=literal(style.label),
            showlegend=False,
        )
