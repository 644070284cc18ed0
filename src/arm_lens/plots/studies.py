"""How accuracy changes with the number of labelled examples, flipped labels, the number of heads, and the axes of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import counted
from arm_lens.evaluation.main_setting import least_noise
from arm_lens.evaluation.standings import mean_over_subsets
from arm_lens.frames import CURVE, EFFECTS, SUMMARY, checked, criteria_of
from arm_lens.plots.cuts import only
from arm_lens.plots.marks import band, chance_line, legend_entry, marks, symbol, whiskers
from arm_lens.plots.measures import MeasureStyle, measure_styles
from arm_lens.plots.notation import accuracy_text, caption, span_text
from arm_lens.plots.panels import facets, thinned
from arm_lens.plots.theme import INK, MUTED, faded, judge_styles, labels, literal, narrow
from arm_lens.registry import Style

MEAN = "mean over subsets"
SPREAD = 0.6
"""The part of the distance between two values over which judges are spread, so that no interval hides another."""
REFERENCES = ("zero_shot", "length")
"""Judges without examples, which any judge that reads some should beat."""
EDGE = 0.9
"""Steps that an axis reaches beyond its first and last value."""
MOST_BANDS = 3
RANDOM = "random"
CROWD = 6
"""The largest number of lines in a panel whose intervals are all drawn boldly; of more, only those of the lead are."""
LETTERS = 30
"""Characters below a panel for which there is room side by side."""
AXIS_NAMES = {"n_examples": "labelled examples", "noise": "share of flipped labels", "subset": "criterion"}


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
    """
    return _study(least_noise(_measured(summary, benchmark)), "n_examples", names, lead, references)


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
    """
    table = _measured(summary, benchmark)
    shares = table[table["n_examples"] > 0].groupby("n_examples")["noise"].nunique()
    chosen = shares.index[shares == shares.max()].max() if len(shares) else 0
    return _study(table[table["n_examples"].isin([0, chosen])], "noise", names, lead, references)


def has_study(summary: pd.DataFrame, varied: str) -> bool:
    """Whether some judge of this one benchmark was measured at two values of ``varied``, all else being the same."""
    learning = summary[summary["n_examples"] > 0]
    other = "noise" if varied == "n_examples" else "n_examples"
    return bool((learning.groupby(["judge", "subset", other])[varied].nunique() > 1).any())


def _measured(summary: pd.DataFrame, benchmark: str | None) -> pd.DataFrame:
    table = only(checked(summary, SUMMARY), "benchmark", benchmark, SUMMARY)
    table = only(table, "unit", None, SUMMARY) if "unit" in table.columns else table
    return table.dropna(subset=["accuracy"])


def _study(
    table: pd.DataFrame, by: str, names: Mapping[str, str] | None, lead: str, references: Sequence[str]
) -> go.Figure:
    """The figure of what depends on the column ``by``, ``n_examples`` or ``noise``."""
    counting = by == "n_examples"
    learning = table[table["n_examples"] > 0]
    varied = learning[learning.groupby(["subset", "judge"])[by].transform("nunique") > 1]
    if varied.empty:
        raise ValueError(f"no judge of the table 'summary' was measured at two values of {by!r}")
    level = table[(table["n_examples"] == 0) & table["judge"].isin(references)]
    level = level[level["subset"].isin(varied["subset"]) & (level["noise"] == level["noise"].min())]
    subsets = [str(subset) for subset in varied["subset"].unique()]
    panels = {subset: (varied[varied["subset"] == subset], level[level["subset"] == subset]) for subset in subsets}
    if len(subsets) > 1:
        means = [_mean(varied[varied[by] == value], subsets) for value in varied[by].unique()]
        panels = {f"{MEAN} ({len(subsets)})": (pd.concat(means), _mean(level, subsets)), **panels}
    styles = judge_styles([*varied["judge"], *level["judge"]], names)
    entries = labels([style.label for style in styles.values()], width=28, lines=1)
    title = "labelled examples" if counting else "flipped labels (%)" if narrow() else "share of flipped labels"
    figure, grid = facets(list(panels), entries=entries, height=130 if narrow() else 210, x=title, y="accuracy")
    values = sorted(varied[by].unique().tolist())
    at = dict(zip(values, map(float, np.log2(values) if counting else values), strict=True))
    first, last = at[values[0]], at[values[-1]]
    step = min((b - a for a, b in itertools.pairwise(at.values())), default=1.0)
    low, high = first - step * EDGE, last + step * EDGE
    ends = (first - step / 2, (first + last) / 2, last + step / 2)
    for index, (title, (lines, flat)) in enumerate(panels.items()):
        place = grid.place(index)
        chance_line(figure, y=0.5, span=(low, high), **place)
        figure.add_traces(_levels(flat, styles, title, ends), rows=place["row"], cols=place["col"])
        drawn = [judge for judge in styles if (lines["judge"] == judge).any()]
        apart = SPREAD * min(step, (last - first) / 4)
        for lane, judge in sorted(enumerate(drawn), key=lambda pair: pair[1] == lead):  # the lead on top
            rows = lines[lines["judge"] == judge].sort_values(by)
            x = rows[by].map(at) + apart * ((lane + 0.5) / len(drawn) - 0.5)
            faint = len(drawn) > CROWD and judge != lead
            figure.add_trace(_line(rows, x, by, styles[judge], title, bold=judge == lead, faint=faint), **place)
    texts = [f"{value:.0f}" if counting else f"{100 * value:.3g}{'' if narrow() else '%'}" for value in values]
    shown, texts = thinned(list(at.values()), texts, [(x - low) / (high - low) * grid.width for x in at.values()])
    figure.update_xaxes(tickvals=shown, ticktext=texts, tickangle=0, range=[low, high])
    for entry, style in zip(entries, styles.values(), strict=True):
        look = {"line": {"color": style.color, "width": 1.6}, "marker": symbol(style, 9)}
        legend_entry(figure, entry, mode="lines+markers", **look)
    return figure.update_yaxes(_accuracy_axis(pd.concat([varied, level])))


def _accuracy_axis(rows: pd.DataFrame) -> dict[str, Any]:
    """An axis with chance and all accuracies and interval ends of these rows on it."""
    low = min(0.45, float(rows[["ci_low", "accuracy"]].min().min()) - 0.02)
    return {"range": [low, 1.02], "dtick": 0.1 if low > 0.2 else 0.2, "tickformat": ".1f"}


def _mean(rows: pd.DataFrame, subsets: Sequence[str]) -> pd.DataFrame:
    """Means over subsets of the judges that have all of them, with the columns of ``rows`` that they share."""
    if rows.empty or rows["subset"].nunique() < len(subsets):
        return rows.iloc[:0]
    means = mean_over_subsets(rows).dropna(subset=["accuracy"]).drop(columns="subsets")
    shared = rows.groupby("judge", sort=False).agg({"n_examples": "first", "noise": "first", "n": "sum"}).reset_index()
    return means.merge(shared, on="judge")


def _levels(flat: pd.DataFrame, styles: Mapping[str, Style], title: str, ends: Sequence[float]) -> list[go.Scatter]:
    """Level dotted lines of the references, each with its symbol at the left edge, before the first value."""
    drawn = []
    for record in flat.to_dict("records"):
        style, y = styles[record["judge"]], [record["accuracy"]]
        line = {"color": style.color, "width": 1.4, "dash": "dot"}
        text = accuracy_text(record, style.label, title)
        drawn.append(marks(ends, y * 3, [text] * 3, mode="lines", line=line, name=literal(style.label)))
        dot = symbol(style, 5 if narrow() else 7)
        drawn.append(marks(ends[:1], y, mode="markers", marker=dot, cliponaxis=False))
    return drawn


def _line(
    rows: pd.DataFrame, x: pd.Series, by: str, style: Style, title: str, *, bold: bool, faint: bool
) -> go.Scatter:
    units = [f"{x:.0f} labelled examples" if by == "n_examples" else f"{100 * x:.3g}% flipped labels" for x in rows[by]]
    texts = [
        f"{accuracy_text(record, style.label, title)}<br>{unit}"
        for record, unit in zip(rows.to_dict("records"), units, strict=True)
    ]
    error = whiskers(
        rows, "accuracy", faded(style.color, 0.35 if faint else 0.9), thickness=1.8 if bold else 1.2, width=0
    )
    look = {
        "line": {"color": style.color, "width": 2.6 if bold else 1.3},
        "marker": symbol(style, (9 if bold else 7) - 2 * narrow()),
    }
    return marks(x, rows["accuracy"], texts, mode="lines+markers", error_y=error, name=literal(style.label), **look)


def accuracy_by_heads(curve: pd.DataFrame, *, names: Mapping[str, str] | None = None) -> go.Figure:
    """Accuracy against the number of heads, on a logarithmic axis: a line per ranking, a panel per criterion.

    Bands are intervals. With more than three rankings only the first and the random one have bands; hovering shows all
    intervals. A ranking of one number of heads (a set as it was chosen) is a symbol. Zero heads stand left of one.

    Args:
        curve: a table like `arm_lens.frames.CURVE`.
        names: names of rankings to display instead of the usual ones.
    """
    curve = checked(curve, CURVE)
    criteria, styles = criteria_of(curve), measure_styles(curve["ranking"])
    usual = {ranking: style.short if narrow() else style.name for ranking, style in styles.items()}
    shown = {ranking: (names or {}).get(ranking, name) for ranking, name in usual.items()}
    figure, panels = facets(criteria, entries=shown.values(), height=180, x="number of heads", y="accuracy")
    sizes = sorted(curve["heads"].unique().tolist())
    first, *_, last = places([*sizes, sizes[-1]])
    margin = max(0.25, 0.03 * (last - first))
    span = (first - margin, last + margin)
    # More than a few bands on top of each other are illegible.
    banded = set(styles) if len(styles) <= MOST_BANDS else {next(iter(styles)), RANDOM} & set(styles)
    for index, criterion in enumerate(criteria):
        place = panels.place(index)
        chance_line(figure, y=0.5, span=span, **place)
        for ranking, style in styles.items():
            rows = curve[(curve["criterion"] == criterion) & (curve["ranking"] == ranking)].sort_values("heads")
            if not rows.empty:
                for trace in _ranking(rows, style, shown[ranking], banded=ranking in banded):
                    figure.add_trace(trace, **place)
    entries = zip(styles.items(), labels(shown.values(), width=28, lines=1), strict=True)
    for (ranking, style), name in entries:  # an entry of the legend, even if the first panel lacks the ranking
        legend_entry(figure, name, legendgroup=shown[ranking], **_look(style))
    # A set as it was chosen has a size of its own, which is not a step of the axis.
    steps = curve["heads"][curve.groupby(["criterion", "ranking"])["heads"].transform("size") > 1]
    ticks = sorted(steps.unique().tolist()) or sizes
    pixels = [(place - first) * panels.width / max(last - first, 1.0) for place in places(ticks)]
    shown_at, texts = thinned(places(ticks), [str(tick) for tick in ticks], pixels)
    figure.update_xaxes(tickvals=shown_at, ticktext=texts, tickangle=0, range=span)
    figure.update_yaxes(_accuracy_axis(curve))
    which = "" if banded == set(styles) else f" ({' and '.join(shown[one] for one in styles if one in banded)})"
    what = f"The best heads of each ranking, on {span_text(curve['n'])} items."
    return caption(figure, [what, f"Bands: intervals{which}. Dashed: chance."])


def places(sizes: Sequence[int]) -> list[float | int]:
    """Positions on the axis: the binary logarithm; 0 stands one step left of 1."""
    return [float(np.log2(size)) if size else -1.0 for size in sizes]


def _look(style: MeasureStyle) -> dict[str, Any]:
    line, marker = {"dash": style.dash, "width": 1.8}, {"symbol": style.symbol, "size": 7}
    return {"mode": "lines+markers", "line": {"color": style.color, **line}, "marker": {"color": style.color, **marker}}


def _ranking(rows: pd.DataFrame, style: MeasureStyle, name: str, *, banded: bool) -> list[go.Scatter]:
    """The line of a ranking, if ``banded`` above the band of its intervals; a single number of heads is a symbol."""
    x = places(rows["heads"].to_list())
    texts = [
        accuracy_text(row, row["criterion"], f"{name}, {counted(row['heads'], 'head')}")
        for row in rows.to_dict("records")
    ]
    line = marks(x, rows["accuracy"], texts, legendgroup=name, name=literal(name), **_look(style))
    if len(rows) == 1:
        return [line.update(error_y=whiskers(rows, "accuracy", style.color, thickness=1.2), marker_size=10)]
    under = band(x, rows["ci_low"], rows["ci_high"], faded(style.color, 0.1), legendgroup=name, name="interval")
    return [under, line] if banded else [line]


def accuracy_by_axis(effects: pd.DataFrame) -> go.Figure:
    """What a change of one option of a sweep does: a panel per axis, with a dot and its interval per value.

    Args:
        effects: a table like `arm_lens.frames.EFFECTS`, of one benchmark. Values are drawn in the order of the table; those
            without a mean are left out.
    """
    every = checked(effects, EFFECTS)
    table = every.dropna(subset=["accuracy"])
    if table.empty:
        raise ValueError("the table 'effects' has no mean: no setting has all values of an axis")
    axes = {str(axis): rows for axis, rows in table.groupby("axis", sort=False)}
    names = {axis: name if (name := AXIS_NAMES.get(axis, axis)) == axis or name not in axes else axis for axis in axes}
    panels = {names[axis]: rows for axis, rows in axes.items()}
    notes = [f"over {span_text(rows['settings'])} settings" for rows in panels.values()]
    # Values that do not fit below their panel side by side are slanted.
    slanted = {name: max(map(len, rows["value"])) * len(rows) >= LETTERS for name, rows in panels.items()}
    bottom = 110 if any(slanted.values()) else 60
    figure, grid = facets(list(panels), height=230, notes=notes, y="accuracy", bottom=bottom, gap_x=48)
    for index, (name, rows) in enumerate(panels.items()):
        place, x = grid.place(index), list(range(len(rows)))
        ordered = rows["axis"].iloc[0] in ("n_examples", "noise")
        texts = [accuracy_text(one, f"{name}: {one['value']}") for one in rows.to_dict("records")]
        look: dict[str, Any] = {"marker": {"color": INK, "size": 9}, "line": {"color": MUTED, "width": 1.2}}
        look |= {"mode": "lines+markers" if ordered else "markers", "error_y": whiskers(rows, "accuracy", MUTED)}
        figure.add_trace(marks(x, rows["accuracy"], texts, **look), **place)
        span = (-0.5, len(rows) - 0.5)
        chance_line(figure, y=0.5, span=span, **place)
        width, lines = (15, 2) if slanted[name] else (16, 3)
        values = labels(rows["value"], width=width, lines=lines)
        figure.update_xaxes(tickvals=x, ticktext=values, tickangle=-40 * slanted[name], range=span, **place)
    absent = [str(axis) for axis in every["axis"].unique() if axis not in axes]
    figure.update_yaxes(_accuracy_axis(table))
    return caption(figure, [f"Without {', '.join(absent)}: no setting has all its values." if absent else ""])
