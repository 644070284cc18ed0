"""Names by names: how far measures agree, how far sets of heads overlap, and what the heads of one are worth to another.

Names are criteria, seeds, selectors or models. What two have in common is told beside what chance would give: sets of many
heads share some however they were drawn, and a judge without heads is right half of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster import hierarchy

from arm_lens.frames import AGREEMENT, COSINES, OVERLAP, RANK_CORRELATION, TRANSFER, checked, criteria_of
from arm_lens.plots.cuts import having
from arm_lens.plots.matrices import ACCURACY, Cells, Layout, Scale, matrices, outlined, rule
from arm_lens.plots.measures import measure_styles, outcome_name
from arm_lens.plots.notation import caption, score_text, signed
from arm_lens.plots.theme import INK, label, literal, narrow

CORRELATION = Scale(-1, 1, 2, "Spearman")
FRACTIONS = {
    "jaccard": "Jaccard index (shared / in either)",
    "overlap": "overlap (shared / in the smaller set)",
    "shared": "number of shared heads",
}
POOLED = "all"
"""What a table of agreement calls the mean over its criteria."""
TREE, NARROW_TREE = 90, 44
"""Pixels of the tree beside a matrix."""
OWN, TAKEN = "means of the column", "means of the row"


def agreement_matrix(
    agreement: pd.DataFrame, *, outcome: str = "probability", criterion: str | None = None
) -> go.Figure:
    """Rank correlation over heads between every two measures, causal ones before the line and cheap ones after it.

    With several criteria and none named, a cell is the mean over criteria: the rows of criterion ``all`` if the table has
    them, else the mean is taken here, and bold where every criterion's interval excludes zero. Hovering lists the criteria.

    Args:
        agreement: a table like `arm_lens.frames.AGREEMENT`; each pair once.
        outcome: whose scores were compared.
        criterion: which one; all if not given.

    Raises:
        ValueError: if a column is missing, there are no such rows, or a pair is there twice.
    """
    table = having(checked(agreement, AGREEMENT), "outcome", outcome, AGREEMENT)
    table = table if criterion is None else having(table, "criterion", criterion, AGREEMENT)
    styles = measure_styles([*table["measure_a"], *table["measure_b"]])
    shown = {measure: style.short if narrow() else style.name for measure, style in styles.items()}
    cells = _correlations(table.rename(columns={"measure_a": "a", "measure_b": "b"}), list(styles), {
        measure: style.name for measure, style in styles.items()})  # fmt: skip
    figure, layout = matrices([cells], list(shown.values()), list(shown.values()), CORRELATION, largest_width=74)
    causal = sum(style.causal for style in styles.values())
    if 0 < causal < len(styles):
        rule(figure, 0, layout, x=causal - 0.5)
        rule(figure, 0, layout, y=causal - 0.5)
    criteria = [one for one in criteria_of(table) if one != POOLED] or [POOLED]
    of = criteria[0] if len(criteria) == 1 else f"Mean over {len(criteria)} criteria"
    every = " for every criterion" if len(criteria) > 1 and not (table["criterion"] == POOLED).any() else ""
    line = "Before the line: measures that intervene." if 0 < causal < len(styles) else ""
    counts = table["n"][table["criterion"].isin(criteria)]
    what = f"{of}: Spearman correlation over {_range_of(counts)} heads of scores on {outcome_name(outcome)}."
    caption(figure, [what, line, f"Bold: the interval excludes zero{every}."])
    return figure


def correlation_matrix(rank_correlation: pd.DataFrame, *, order: Sequence[str] | None = None) -> go.Figure:
    """Rank correlation of the heads' scores between every two names.

    Args:
        rank_correlation: a table like `arm_lens.frames.RANK_CORRELATION`; each pair once.
        order: of the names; as they appear if not given.

    Raises:
        ValueError: if a column is missing, there are no rows, a pair is there twice, or ``order`` lacks a name.
    """
    checked(rank_correlation, RANK_CORRELATION)
    names = _names(rank_correlation, order, "rank_correlation")
    cells = _correlations(rank_correlation, names, {name: name for name in names})
    figure, layout = matrices([cells], names, names, CORRELATION)
    marks = (
        "Bold: the interval excludes zero."
        if layout.printed
        else "−: notably below zero. ∘: the interval includes zero."
    )
    caption(figure, [f"Spearman correlation of scores over {_range_of(rank_correlation['n'])} heads.", marks])
    return figure


def overlap_matrix(
    overlap: pd.DataFrame,
    *,
    value: Literal["jaccard", "overlap", "shared"] = "jaccard",
    order: Sequence[str] | None = None,
    linkage: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> go.Figure:
    """How much the head sets of every two names have in common; the number of heads of each on the diagonal.

    Args:
        overlap: a table like `arm_lens.frames.OVERLAP`; each pair once.
        value: which column is drawn.
        order: of the names; as they appear if not given.
        linkage: a hierarchical clustering of scipy, drawn as a tree beside the matrix, whose leaves give the order.
        names: of the linkage's observations, in their order.

    Raises:
        ValueError: if a column is missing, there are no rows, a pair is there twice, ``order`` lacks a name, or a linkage
            does not fit the names.
    """
    if value not in FRACTIONS:
        raise ValueError(f"there is a matrix of {', '.join(map(repr, FRACTIONS))}, not of {value!r}")
    checked(overlap, OVERLAP)
    there = _names(overlap, order, "overlap")
    tree = None
    if linkage is not None:
        if names is None or sorted(map(str, names)) != sorted(there) or len(linkage) != len(there) - 1:
            raise ValueError(f"a linkage needs 'names', one for each of its observations: {', '.join(there)}")
        tree = hierarchy.dendrogram(linkage, no_plot=True)
        there = [str(names[leaf]) for leaf in tree["leaves"]]
    place = {name: index for index, name in enumerate(there)}
    shape = (len(there), len(there))
    values, bold = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    hover, sizes = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    for record in overlap.to_dict("records"):
        a, b = place[str(record["a"])], place[str(record["b"])]
        for at in ((a, b), (b, a)):
            values[at], bold[at], hover[at] = record[value], record["p_holm"] < 0.05, _overlap_text(record)
        for own, name, size in ((a, record["a"], record["size_a"]), (b, record["b"], record["size_b"])):
            sizes[own, own], hover[own, own] = f"{size}", f"<b>{label(str(name), width=60)}</b><br>{size} heads"
    most = float(np.nanmax(values)) if value == "shared" else 1.0
    scale = Scale(0, max(most, 1), 0 if value == "shared" else 2, "shared" if value == "shared" else value.capitalize())
    crossed = np.isnan(values) & ~np.eye(len(there), dtype=bool)
    cells = Cells(values=values, hover=hover, bold=bold, instead=sizes, crossed=crossed)
    figure, layout = matrices([cells], there, there, scale, right=14 if tree is None else _tree_width() + 34)
    if tree is not None:
        _add_tree(figure, layout, tree)
    total = _range_of(overlap["n_heads"])
    caption(
        figure,
        [
            f"{FRACTIONS[value][0].upper()}{FRACTIONS[value][1:]}; on the diagonal the number of heads, of {total}.",
            ("Bold: more" if layout.printed else "∘: not more") + " than chance (hypergeometric, p < 0.05 after Holm).",
        ],
    )  # fmt: skip
    return figure


def transfer_matrix(transfer: pd.DataFrame, *, controls: Sequence[str] = ("random heads", "none")) -> go.Figure:
    """Accuracy with the heads chosen for one name (rows), used for another (columns); own heads are framed.

    Controls stand apart at the bottom. If the table holds both, there is a matrix for the means of the criterion that is
    judged (only the choice of heads is carried over) and one for those of the criterion whose heads they are (both are).

    Args:
        transfer: a table like `arm_lens.frames.TRANSFER`; rows that are there twice with the same accuracy count once, so
            that tables of both kinds of means can be put together.
        controls: which values of ``heads_of`` are no criteria.

    Raises:
        ValueError: if a column is missing, there are no rows, or one combination has two accuracies.
    """
    keys = ("heads_of", "used_for", "means_of")
    table = checked(transfer, TRANSFER).astype(dict.fromkeys(keys, str)).drop_duplicates([*keys, "accuracy"])
    checked(table, TRANSFER.needing(*keys, key=keys))
    columns = list(dict.fromkeys(table["used_for"]))
    control = table["heads_of"].isin(list(controls))
    last = list(dict.fromkeys(table["heads_of"][control]))
    heads = [name for name in columns if (table["heads_of"][~control] == name).any()]
    heads += [name for name in dict.fromkeys(table["heads_of"][~control]) if name not in heads]
    own, taken = table["means_of"] == table["used_for"], table["means_of"] == table["heads_of"]
    sides = {OWN: own | control, TAKEN: taken | control}
    drawn = [title for title, one in ((OWN, own), (TAKEN, taken)) if (one & ~control & ~(own & taken)).any()] or [OWN]
    rows = [*heads, *([""] if heads and last else []), *last]
    cells = [_transfer_cells(table[sides[title]], rows, columns, title if len(drawn) > 1 else "") for title in drawn]
    figure, layout = matrices(cells, rows, columns, Scale(0, 1, 2, ACCURACY))
    for index in range(len(cells)):
        outlined(figure, index, layout, [(rows.index(name), columns.index(name)) for name in heads if name in columns])
    means = "" if len(drawn) > 1 else f" with the {drawn[0]}"
    what = (
        f"Accuracy for the criterion of the column with the heads of the row{means}, on {_range_of(table['n'])} items."
    )
    caption(
        figure,
        [what, "Framed: own heads.", "Blue: above chance, 0.5; brown: below.", "Bold: the interval excludes 0.5."],
    )
    return figure


def mean_cosines(cosines: pd.DataFrame, *, order: Sequence[str] | None = None) -> go.Figure:
    """The mean over heads of the cosine between the mean vectors of every two names; hovering tells it layer by layer.

    Args:
        cosines: a table like `arm_lens.frames.COSINES`; of the heads to average over, e.g. the chosen ones only.
        order: of the names; as they appear if not given.

    Raises:
        ValueError: if a column is missing, there are no rows, a head is there twice, or ``order`` lacks a name.
    """
    checked(cosines, COSINES)
    names = _names(cosines, order, "cosines")
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    hover = np.full(values.shape, "", dtype=object)
    for (a, b), part in cosines.groupby(["a", "b"], sort=False):
        if a == b:
            continue
        each, layers = part["cosine"], part.groupby("layer")["cosine"].mean()
        lines = [f"<b>{label(str(a), width=40)} and {label(str(b), width=40)}</b>"]
        lines += [
            f"mean of {each.count()} heads {signed(each.mean(), digits=3)}",
            f"from {signed(each.min(), digits=3)} to {signed(each.max(), digits=3)}",
        ]
        lines += [f"layer {layer}: {signed(mean, digits=3)}" for layer, mean in layers.items()]
        for at in ((place[str(a)], place[str(b)]), (place[str(b)], place[str(a)])):
            values[at], hover[at] = each.mean(), "<br>".join(lines)
    figure, layout = matrices([Cells(values=values, hover=hover)], names, names, Scale(-1, 1, 2, "cosine"))
    counts = cosines.groupby(["a", "b"])["cosine"].count()
    marks = "" if layout.printed else "−: notably below zero."
    caption(figure, [f"Mean over {_range_of(counts)} heads of the cosine between mean vectors.", marks])
    return figure


def _correlations(table: pd.DataFrame, keys: list[str], names: dict[str, str]) -> Cells:
    """The mean of ``spearman`` over the rows of each pair, symmetric."""
    values, bold = np.full((len(keys), len(keys)), np.nan), np.zeros((len(keys), len(keys)), dtype=bool)
    hover = np.full(values.shape, "", dtype=object)
    for (a, b), part in table.groupby(["a", "b"], sort=False):
        lines = [f"<b>{literal(names[str(a)])} and {literal(names[str(b)])}</b>"]
        pooled = part[part["criterion"] == POOLED] if "criterion" in part.columns else part.iloc[:0]
        single = part.drop(pooled.index) if len(pooled) < len(part) else part
        # The mean over criteria, as the table gives it or as found here.
        whole = pooled if len(pooled) else single
        if len(single) > 1:
            text = (
                score_text(pooled.to_dict("records")[0], "spearman")
                if len(pooled)
                else signed(single["spearman"].mean())
            )
            lines.append(f"mean over {len(single)} criteria {text}" + " heads" * len(pooled))
        for record in single.to_dict("records"):
            of = f"{label(record['criterion'], width=40)}: " if len(single) > 1 else ""
            lines.append(of + score_text(record, "spearman") + " heads" * bool(record["n"]))
        told = bool(((whole["ci_low"] > 0) | (whole["ci_high"] < 0)).all())
        i, j = keys.index(str(a)), keys.index(str(b))
        for at in ((i, j), (j, i)):
            values[at], bold[at], hover[at] = whole["spearman"].mean(), told, "<br>".join(lines)
    crossed = np.isnan(values) & ~np.eye(len(keys), dtype=bool)
    return Cells(values=values, hover=hover, bold=bold, crossed=crossed)


def _names(table: pd.DataFrame, order: Sequence[str] | None, name: str) -> list[str]:
    there = list(dict.fromkeys([*table["a"].astype(str), *table["b"].astype(str)]))
    if order is None:
        return there
    if sorted(map(str, order)) != sorted(there):
        raise ValueError(f"'order' must hold the names of the table '{name}', each once: {', '.join(there)}")
    return [str(one) for one in order]


def _overlap_text(record: Mapping[Any, Any]) -> str:
    r = {key: value if isinstance(value, str) else float(str(value)) for key, value in record.items()}
    return (
        f"<b>{label(str(record['a']), width=40)} and {label(str(record['b']), width=40)}</b><br>"
        f"{r['shared']:.0f} shared of {r['size_a']:.0f} and {r['size_b']:.0f}; by chance {r['expected']:.2f}<br>"
        f"Jaccard {r['jaccard']:.3f}, by chance {r['jaccard_chance']:.3f}<br>overlap {r['overlap']:.3f}<br>"
        f"p = {r['p_value']:.2g}, after Holm {r['p_holm']:.2g}<br>{r['n_heads']:.0f} heads in all"
    )


def _transfer_cells(table: pd.DataFrame, rows: list[str], columns: list[str], title: str) -> Cells:
    values = np.full((len(rows), len(columns)), np.nan)
    hover, bold = np.full(values.shape, "", dtype=object), np.zeros(values.shape, dtype=bool)
    for record in table.to_dict("records"):
        at = rows.index(record["heads_of"]), columns.index(record["used_for"])
        values[at] = record["accuracy"]
        bold[at] = record["ci_low"] > 0.5 or record["ci_high"] < 0.5
        hover[at] = (
            f"<b>heads of {label(record['heads_of'], width=40)}</b><br>used for {label(record['used_for'], width=40)}<br>"
            f"means of {label(record['means_of'], width=40)}<br>accuracy {record['accuracy']:.3f}, interval "
            f"{record['ci_low']:.3f} to {record['ci_high']:.3f}, n = {record['n']}"
        )
    crossed = np.isnan(values) & np.array([bool(row) for row in rows])[:, None]
    return Cells(values=values, hover=hover, bold=bold, crossed=crossed, title=title)


def _tree_width() -> int:
    return NARROW_TREE if narrow() else TREE


def _add_tree(figure: go.Figure, layout: Layout, tree: dict[str, list[list[float | int]]]) -> None:
    """The tree at the right of the only matrix, its leaves at the rows."""
    panels = layout.panels
    room = _tree_width()
    # Without autoexpand, the paper is the matrix itself.
    start, end = 1 + 10 / panels.width, 1 + (10 + room) / panels.width
    inner = panels.width
    # plotly clips domains at 1: widen the paper to hold the tree, and shrink the matrix's own domain.
    whole = inner + 10 + room
    figure.update_layout(margin={"r": figure.layout.margin.r - 10 - room})
    figure.update_xaxes(domain=[0, inner / whole])
    x, y = [], []
    for heights, leaves in zip(tree["dcoord"], tree["icoord"], strict=True):
        x += [*heights, None]
        y += [*((leaf - 5) / 10 for leaf in leaves), None]
    trace = go.Scatter(
        x=x, y=y, mode="lines", line={"color": INK, "width": 1.2}, xaxis="x2", yaxis="y", showlegend=False,
        hovertemplate="distance %{x:.3f}<extra></extra>", name="tree",
    )  # fmt: skip
    figure.add_trace(trace)
    furthest = max(max(heights) for heights in tree["dcoord"])
    axis = {
        "domain": [start * inner / whole, end * inner / whole], "range": [0, furthest * 1.03], "showgrid": False,
        "title": {"text": "distance", "standoff": 2}, "nticks": 3, "anchor": "y", "side": "bottom", "showline": True,
    }  # fmt: skip
    if narrow():
        axis |= {"tickvals": [0, furthest], "ticktext": ["0", f"{furthest:.1f}"]}
    margin = figure.layout.margin
    figure.update_layout(xaxis2=axis, margin={"b": margin.b + 34}, height=figure.layout.height + 34)


def _range_of(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
