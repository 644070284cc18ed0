"""What happens to accuracy with more labelled examples, and with flipped labels among them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.standings import mean_over_subsets
from arm_lens.frames import SUMMARY, checked
from arm_lens.plots.cuts import only
from arm_lens.plots.judge_rows import accuracy_text, line_width
from arm_lens.plots.notation import HOVER, whiskers
from arm_lens.plots.panels import chance_line, legend_above, line_panels, name_rows, second_line, thinned
from arm_lens.plots.theme import JudgeStyle, faded, judge_styles, literal, narrow

MEAN = "mean over subsets"
SPREAD = 0.6
"""The part of the distance between two neighbouring values over which judges are spread, lest their intervals hide
each other."""
REFERENCES = ("zero_shot", "length")
"""Without examples: what any judge that reads some ought to beat."""
EDGE = 0.9
"""Steps that an axis reaches beyond its first and last value."""
GAP = 38
"""Pixels between panels."""
CROWD = 6
"""From this many lines in a panel, intervals are drawn faintly and the lead's boldly."""


@dataclass(frozen=True)
class _Study:
    """What is varied, and how its axis reads."""

    varied: str
    axis: str
    logarithmic: bool

    def place(self, values: Sequence[float | int]) -> list[float]:
        """Positions on the axis."""
        return [float(np.log2(value)) if self.logarithmic else float(value) for value in values]

    def tick(self, value: float | int) -> str:
        """What the axis says at a value."""
        if self.logarithmic:
            return f"{value:.0f}"
        return f"{100 * value:.0f}" if narrow() else f"{value:.0%}"

    @property
    def title(self) -> str:
        """Of the axis."""
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
    Symbols of one number of examples stand a little apart, so that their intervals show.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`; the rows with the least noise are drawn.
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.
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

    Drawn like `accuracy_by_examples`, at the number of examples for which most shares were measured.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`.
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.
        lead: the judge whose line is bolder.
        references: judges that read no examples, drawn as level dotted lines.

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
    bare = line_panels(len(panels), height=1, gap_x=GAP)
    extra = second_line(list(panels), bare.width)
    shown = [_short(style) for style in styles.values()]
    legend, top = legend_above(shown, left=bare.left, width=bare.inner_width)
    height, between = (130, 46) if narrow() else (210, 66)
    grid = line_panels(len(panels), height=height, gap_x=GAP, gap_y=between + extra, top=top + 26 + extra, bottom=50)
    figure = grid.figure(list(panels), [""] * len(panels))
    ticks: list[float | int] = sorted(varied[study.varied].unique().tolist())
    for index, (title, (lines, flat)) in enumerate(panels.items()):
        row, column = grid.cell(index)
        _draw(figure, lines, flat, study=study, ticks=ticks, styles=styles, lead=lead, title=title, place=(row, column))
        lowest = study.title if grid.is_lowest(index) else None
        figure.update_xaxes(title_text=lowest, row=row, col=column)
    _axes(figure, pd.concat([varied, level]), study, ticks, grid.width)
    for style in styles.values():
        figure.add_trace(_entry(style))
    figure.update_layout(legend=legend)
    return figure


def _mean(rows: pd.DataFrame, subsets: Sequence[str]) -> pd.DataFrame:
    """Means over subsets of the judges that have all of them, with the columns of ``rows`` that they share."""
    if rows.empty or rows["subset"].nunique() < len(subsets):
        return rows.iloc[:0]
    means = mean_over_subsets(rows).dropna(subset=["accuracy"]).drop(columns="subsets")
    shared = rows.groupby("judge", sort=False).agg({"n_examples": "first", "noise": "first", "n": "sum"}).reset_index()
    return means.merge(shared, on="judge")


def _draw(
    figure: go.Figure,
    lines: pd.DataFrame,
    flat: pd.DataFrame,
    *,
    study: _Study,
    ticks: Sequence[float | int],
    styles: Mapping[str, JudgeStyle],
    lead: str,
    title: str,
    place: tuple[int, int],
) -> None:
    at = study.place(ticks)
    step = min((b - a for a, b in itertools.pairwise(at)), default=1.0)
    row, column = place
    chance_line(figure, y=0.5, span=(at[0] - step * EDGE, at[-1] + step * EDGE), row=row, col=column)
    for record in flat.to_dict("records"):
        style = styles[record["judge"]]
        middle = (at[0] + at[-1]) / 2
        ends = [at[0] - step / 2, middle, at[-1] + step / 2]
        text = accuracy_text(record, style.name, title)
        trace = go.Scatter(
            x=ends, y=[record["accuracy"]] * 3, mode="lines", line={"color": style.color, "width": 1.4, "dash": "dot"},
            hovertext=text, hovertemplate=HOVER, showlegend=False, name=literal(style.name),
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=column)
        # The symbol stands at the left edge, before the first value.
        end = go.Scatter(
            x=ends[:1], y=[record["accuracy"]], mode="markers", marker=_marker(style, 5 if narrow() else 7), hoverinfo="skip",
            showlegend=False, cliponaxis=False,
        )  # fmt: skip
        figure.add_trace(end, row=row, col=column)
    drawn = [judge for judge in styles if (lines["judge"] == judge).any()]
    # The lead comes last, on top.
    for index, judge in sorted(enumerate(drawn), key=lambda pair: pair[1] == lead):
        some = lines[lines["judge"] == judge].sort_values(study.varied)
        shift = SPREAD * min(step, (at[-1] - at[0]) / 4) * ((index + 0.5) / len(drawn) - 0.5)
        texts = [
            accuracy_text(record, styles[judge].name, title)
            + f"<br>{record[study.varied]:{'.0f' if study.logarithmic else '.0%'}} {study.axis.removeprefix('share of ')}"
            for record in some.to_dict("records")
        ]
        faint = len(drawn) > CROWD and judge != lead
        x = [value + shift for value in study.place(some[study.varied].to_list())]
        figure.add_trace(_line(some, x, styles[judge], texts, bold=judge == lead, faint=faint), row=row, col=column)


def _line(
    rows: pd.DataFrame, x: Sequence[float | int], style: JudgeStyle, texts: Sequence[str], *, bold: bool, faint: bool
) -> go.Scatter:
    color = faded(style.color, 0.35 if faint else 0.9)
    return go.Scatter(
        x=list(x),
        y=rows["accuracy"].to_list(),
        error_y=whiskers(rows, "accuracy", color, thickness=1.8 if bold else 1.2, width=0),
        mode="lines+markers",
        line={"color": style.color, "width": 2.6 if bold else 1.3},
        marker=_marker(style, (9 if bold else 7) - 2 * narrow()),
        hovertext=list(texts),
        hovertemplate=HOVER,
        name=literal(style.name),
        showlegend=False,
    )


def _marker(style: JudgeStyle, size: int) -> dict[str, object]:
    return {"symbol": style.symbol, "size": size, "color": style.color, "line": {"width": line_width(style)}}


def _entry(style: JudgeStyle) -> go.Scatter:
    """A judge's entry in the legend."""
    return go.Scatter(
        x=[None], y=[None], mode="lines+markers", line={"color": style.color, "width": 1.6}, marker=_marker(style, 9),
        name=literal(_short(style)),
    )  # fmt: skip


def _short(style: JudgeStyle) -> str:
    return style.name if len(style.name) <= 28 else style.name[:27] + "…"


def _axes(figure: go.Figure, table: pd.DataFrame, study: _Study, ticks: Sequence[float | int], width: int) -> None:
    """Both axes of every panel, ``width`` pixels wide."""
    at = study.place(ticks)
    step = min((b - a for a, b in itertools.pairwise(at)), default=1.0)
    low, high = at[0] - step * EDGE, at[-1] + step * EDGE
    places = [(value - low) / (high - low) * width for value in at]
    shown, texts = thinned(at, [study.tick(value) for value in ticks], places)
    figure.update_xaxes(tickvals=shown, ticktext=texts, tickangle=0, range=[low, high])
    low = min(0.45, float(np.nanmin(table[["ci_low", "accuracy"]].to_numpy(dtype=float))) - 0.02)
    figure.update_yaxes(range=[low, 1.02], dtick=0.1 if low > 0.2 else 0.2, tickformat=".1f")
    name_rows(figure, "accuracy")
