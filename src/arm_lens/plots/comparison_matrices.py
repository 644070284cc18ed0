"""Names by names: how far measures agree, how far sets of heads overlap, and what the heads of one are worth to another.

Heads by criteria and heads by heads: what the same heads do for several criteria, and for each other.

Names are criteria, seeds, selectors or models. What two have in common is given with its chance level: large sets share heads
however they were chosen, and a judge without heads is right half of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster import hierarchy

from arm_lens.display import head_name
from arm_lens.evaluation.trust import with_trust
from arm_lens.frames import (
    AGREEMENT,
    ATTRIBUTIONS,
    COSINES,
    INTERACTIONS,
    OVERLAP,
    RANK_CORRELATION,
    TRANSFER,
    Schema,
    checked,
    criteria_of,
)
from arm_lens.heads import Named, ScoredLike, attributions_frame
from arm_lens.plots.cuts import having, only
from arm_lens.plots.marks import marks
from arm_lens.plots.matrices import ACCURACY, Cells, Entry, Layout, Scale, matrices, rule
from arm_lens.plots.measures import measure_name, measure_styles, outcome_name, trust_captions
from arm_lens.plots.notation import (
    accuracy_text,
    caption,
    digits_for,
    excludes,
    hover_text,
    largest,
    score_text,
    signed,
    span_text,
)
from arm_lens.plots.theme import INK, label, narrow


@runtime_checkable
class InteractionsLike(Protocol):
    """Interactions of heads, as of `arm_lens.attribution.interactions`."""

    def frame(self) -> pd.DataFrame:
        """A table like `arm_lens.frames.INTERACTIONS`."""
        ...


@runtime_checkable
class TreeLike(Protocol):
    """A tree of names, as of `arm_lens.comparison.cluster`."""

    @property
    def linkage(self) -> np.ndarray:
        """As scipy's."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Of the linkage's observations, in their order."""
        ...


CORRELATION = Scale(-1, 1, 2, "Spearman")
FRACTIONS = {
    "jaccard": "Jaccard index (shared / in either)",
    "overlap": "Overlap (shared / in the smaller set)",
    "shared": "Number of shared heads",
}
POOLED = "all"
"""The criterion of the rows of a table of agreement that are means over its criteria."""
TREE, NARROW_TREE = 90, 44
"""Pixels of the tree next to a matrix."""
AIR = 10
MOST_HEADS = (32, 20)
"""Heads of a matrix of interactions, at most, on a wide and on a narrow page."""
MOST_LINES = 16
"""Lines about layers on hovering, at most; of more layers, neighbours share one."""
OWN, TAKEN = "means of the column", "means of the row"
CONTEXTS = {
    "alone": ", no other head written",
    "within": ", all others of the set written",
    "shapley": ", averaged over the others that are written",
}
"""Which other heads are written while an interaction is measured (see `arm_lens.attribution.interaction`)."""


def agreement_matrix(
    agreement: pd.DataFrame, *, outcome: str = "probability", criterion: str | None = None
) -> go.Figure:
    """Rank correlation over heads between every two measures, causal ones before the line and cheap ones after it.

    With several criteria and none named, a cell is the mean over criteria: the rows of criterion ``all`` if the table has
    them, else the mean is taken here, and bold if every criterion's interval excludes zero. Hovering lists the criteria.

    Args:
        agreement: a table like `arm_lens.frames.AGREEMENT`; each pair once.
        outcome: whose scores were compared.
        criterion: which one; all if not given.
    """
    table = having(checked(agreement, AGREEMENT), "outcome", outcome, AGREEMENT)
    table = table if criterion is None else having(table, "criterion", criterion, AGREEMENT)
    styles = measure_styles([*table["measure_a"], *table["measure_b"]])
    titles = [style.short if narrow() else style.name for style in styles.values()]
    names = {measure: style.name for measure, style in styles.items()}
    table = _one_way(table.rename(columns={"measure_a": "a", "measure_b": "b"}), list(names), ["criterion"])
    cells = _correlations(table, names)
    figure, layout = matrices([cells], titles, titles, CORRELATION, largest_width=74)
    causal = sum(style.causal for style in styles.values())
    line = ""
    if 0 < causal < len(styles):
        rule(figure, 0, layout, causal - 0.5)
        line = "Before the line: measures that intervene."
    criteria = [one for one in criteria_of(table) if one != POOLED] or [POOLED]
    fewest = table[table["criterion"].isin(criteria)].groupby(["a", "b"])["spearman"].count().min()
    over = f"{len(criteria)} criteria" if fewest == len(criteria) else f"{fewest} to {len(criteria)} criteria"
    which = criteria[0] if len(criteria) == 1 else f"Mean over {over}"
    every = " for every criterion" if len(criteria) > 1 and not (table["criterion"] == POOLED).any() else ""
    count = span_text(table["n"][table["criterion"].isin(criteria)])
    what = f"{which}: Spearman correlation over {count} heads of scores on {outcome_name(outcome)}."
    return caption(figure, [what, line, layout.marks(every=every), cells.gaps])


def correlation_matrix(rank_correlation: pd.DataFrame) -> go.Figure:
    """Rank correlation of the heads' scores between every two names.

    Args:
        rank_correlation: a table like `arm_lens.frames.RANK_CORRELATION`; each pair once.
    """
    table, names = _named(rank_correlation, RANK_CORRELATION)
    cells = _correlations(table, {name: name for name in names})
    figure, layout = matrices([cells], names, names, CORRELATION)
    what = f"Spearman correlation of scores over {span_text(table['n'])} heads."
    return caption(figure, [what, layout.marks(), cells.gaps])


def overlap_matrix(
    overlap: pd.DataFrame,
    *,
    value: Literal["jaccard", "overlap", "shared"] = "jaccard",
    order: Sequence[str] | None = None,
    linkage: np.ndarray | TreeLike | None = None,
    names: Sequence[str] | None = None,
) -> go.Figure:
    """How much the head sets of every two names have in common; the number of heads of each on the diagonal.

    Args:
        overlap: a table like `arm_lens.frames.OVERLAP`; each pair once.
        value: which column is drawn.
        order: of the names; as they appear if not given.
        linkage: a hierarchical clustering, drawn as a tree next to the matrix, whose leaves give the order: what
            `arm_lens.comparison.cluster` returns, or scipy's array.
        names: of the observations of scipy's linkage, in their order.
    """
    if value not in FRACTIONS:
        raise ValueError(f"value is {', '.join(map(repr, FRACTIONS))}, not {value!r}")
    (table, found), tree = _named(overlap, OVERLAP, order), None
    if linkage is not None and not isinstance(linkage, np.ndarray):
        names, linkage = linkage.names, linkage.linkage
    if linkage is not None:
        if names is None or sorted(map(str, names)) != sorted(found) or len(linkage) != len(found) - 1:
            raise ValueError(f"a linkage needs 'names', one for each of its observations: {', '.join(found)}")
        tree = hierarchy.dendrogram(linkage, no_plot=True)
        found = [str(names[leaf]) for leaf in tree["leaves"]]
    sizes = {row[end]: row[f"size_{end}"] for row in table.to_dict("records") for end in "ab"}
    cells = Cells.of_pairs(
        found,
        [
            (row["a"], row["b"], row[value], row["p_holm"] < 0.05, _overlap_text(row))
            for row in table.to_dict("records")
        ],
        {name: (f"{size}", hover_text(name, f"{size} heads")) for name, size in sizes.items()},
    )
    scale = Scale(0, 1, 2, value.capitalize())
    if value == "shared":
        scale = Scale(0, max(float(np.nanmax(cells.values)), 1), 0, "shared")
    figure, layout = matrices([cells], found, found, scale, right=14 if tree is None else _tree_width() + AIR + 24)
    if tree is not None:
        _add_tree(figure, layout, tree)
    what = f"{FRACTIONS[value]}; on the diagonal the number of heads, of {span_text(table['n_heads'])}."
    marks = "Bold: more" if layout.printed else "∘: not more"
    return caption(figure, [what, f"{marks} than chance (hypergeometric, p < 0.05 after Holm).", cells.gaps])


def transfer_matrix(transfer: pd.DataFrame, *, controls: Sequence[str] = ("random heads", "none")) -> go.Figure:
    """Accuracy with the heads chosen for one name (rows), used for another (columns); own heads are framed.

    Controls stand apart at the bottom. If the table has both, there is a matrix for the means of the criterion that is
    judged (only the choice of heads is transferred) and one for those of the criterion that the heads are from (both are).

    Args:
        transfer: a table like `arm_lens.frames.TRANSFER`; equal rows with the same accuracy count once, so that tables of
            both kinds of means can be put together.
        controls: which values of ``heads_of`` are not criteria.
    """
    keys = ("heads_of", "used_for", "means_of")
    table = checked(transfer, TRANSFER).drop_duplicates([*keys, "accuracy", "n"])
    table = checked(table, TRANSFER.needing(*keys, key=keys))
    columns = list(dict.fromkeys(table["used_for"]))
    control = table["heads_of"].isin(list(controls))
    last = list(dict.fromkeys(table["heads_of"][control]))
    owners = list(dict.fromkeys(table["heads_of"][~control]))
    heads = [name for name in columns if name in owners] + [name for name in owners if name not in columns]
    own, taken = table["means_of"] == table["used_for"], table["means_of"] == table["heads_of"]
    for row in table[~(own | taken | control)].to_dict("records"):
        raise ValueError(
            f"the table 'transfer' has the heads of {row['heads_of']!r}, used for {row['used_for']!r}, with the means of "
            f"{row['means_of']!r}: neither's"
        )
    sides = {OWN: own, TAKEN: taken}
    drawn = [title for title, side in sides.items() if (side & ~control & ~(own & taken)).any()] or [OWN]
    rows = [*heads, *([""] if heads and last else []), *last]
    cells = [
        Cells.of(rows, columns, map(_transfer_entry, part.to_dict("records")), title=title if len(drawn) > 1 else "")
        for title, part in ((title, _with_controls(table, sides[title], control)) for title in drawn)
    ]
    figure, layout = matrices(cells, rows, columns, ACCURACY)
    framed = [(rows.index(name), columns.index(name)) for name in heads if name in columns]
    for index in range(len(cells)):
        for y, x in framed:
            corners = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
            figure.add_shape(type="rect", line={"color": INK, "width": 2.2}, **corners, **layout.panels.place(index))
    means = "" if len(drawn) > 1 else f" with the {drawn[0]}"
    what = (
        f"Accuracy for the criterion of the column with the heads of the row{means}, on {span_text(table['n'])} items."
    )
    colors = "Blue: above chance, 0.5; brown: below."
    return caption(figure, [what, "Framed: own heads.", colors, layout.marks("0.5"), *{one.gaps for one in cells}])


def _with_controls(table: pd.DataFrame, side: pd.Series, control: pd.Series) -> pd.DataFrame:
    """The rows of a side and of the controls; of a control with several means, those of the side."""
    first = table.assign(first=side)[side | control].sort_values("first", ascending=False, kind="stable")
    rows = first.drop_duplicates(["heads_of", "used_for"])
    return rows.drop(columns="first").sort_index()


def mean_cosines(cosines: pd.DataFrame) -> go.Figure:
    """The mean over heads of the cosine between the mean vectors of every two names; hovering lists the layers.

    Args:
        cosines: a table like `arm_lens.frames.COSINES`; of the heads to average over, e.g. the chosen ones only.
    """
    (table, names), entries = _named(cosines, COSINES), []
    table = _one_way(table[table["a"] != table["b"]], names, ["layer", "head"])
    for (a, b), part in table.groupby(["a", "b"], sort=False):
        each = part["cosine"]
        low, mean, high = (signed(one, digits=3) for one in (each.min(), each.mean(), each.max()))
        layers = part.groupby("layer")["cosine"].mean()
        lines = [_both(a, b), f"mean of {each.count()} heads {mean}", f"from {low} to {high}"]
        for some in np.array_split(layers.index, min(len(layers), MOST_LINES)):
            which = f"layer {some[0]}" if len(some) == 1 else f"layers {some[0]} to {some[-1]}"
            lines.append(f"{which}: {signed(layers[some].mean(), digits=3)}")
        entries.append((str(a), str(b), each.mean(), None, "<br>".join(lines)))
    figure, layout = matrices([Cells.of_pairs(names, entries)], names, names, Scale(-1, 1, 2, "cosine"))
    counts = table.groupby(["a", "b"])["cosine"].count()
    marks = "" if layout.printed else "−: notably below zero."
    return caption(figure, [f"Mean over {span_text(counts)} heads of the cosine between mean vectors.", marks])


def head_matrix(
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    *,
    outcome: str = "probability",
    measure: str | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    top: int = 3,
    order: Literal["layer", "similarity"] = "layer",
) -> go.Figure:
    """Scores of some heads (rows) for every criterion (columns): which heads serve one criterion, and which serve many.

    Args:
        attributions: several, also by the criterion's name; or a table like `arm_lens.frames.ATTRIBUTIONS`.
        outcome: whose scores.
        measure: which one; needed if the table has several.
        heads: (layer, head) of the rows; without them, the ``top`` heads of every criterion by absolute score.
        top: how many heads of each criterion.
        order: rows by layer from the first, or similar rows next to each other.
    """
    scores = with_trust(checked(attributions_frame(attributions), ATTRIBUTIONS))
    table = only(having(scores, "outcome", outcome, ATTRIBUTIONS), "measure", measure, ATTRIBUTIONS)
    if order not in ("layer", "similarity"):
        raise ValueError(f"order is 'layer' or 'similarity', not {order!r}")
    criteria = criteria_of(table)
    wide = table.pivot(index=["layer", "head"], columns="criterion", values="score")[criteria]
    rows = _rows(wide, heads, top)
    if order == "similarity" and len(rows) > 2:
        tree = hierarchy.linkage(np.nan_to_num(wide.loc[rows].to_numpy(dtype=float)), "average", optimal_ordering=True)
        rows = [rows[leaf] for leaf in hierarchy.leaves_list(tree)]
    entries = (
        (
            (row["layer"], row["head"]), row["criterion"], row["score"], excludes(row),
            hover_text(row["criterion"], head_name(row["layer"], row["head"]), score_text(row)),
        )
        for row in table.to_dict("records")
    )  # fmt: skip
    cells = Cells.of(rows, criteria, entries, blank="not measured")
    figure, layout = matrices([cells], [head_name(*row) for row in rows], criteria, _scale(cells), heights=22)
    name = measure_name(str(table["measure"].iloc[0]))
    which = f"The {top} largest heads of each criterion." if heads is None and top > 1 else ""
    what = f"{name} on {outcome_name(outcome)}."
    return caption(figure, [what, which, layout.marks(), cells.gaps, *trust_captions(table)])


def interaction_matrix(
    interactions: pd.DataFrame | InteractionsLike,
    *,
    outcome: str = "gap",
    criterion: str | None = None,
    context: str | None = None,
    most: int | None = None,
) -> go.Figure:
    """What two heads are worth together beyond the sum of both: blue for synergy, brown for redundancy.

    Args:
        interactions: what `arm_lens.attribution.interactions` returns, or a table like `arm_lens.frames.INTERACTIONS`; each
            pair once.
        outcome: whose interactions.
        criterion: which one; needed if the table has several.
        context: which one; needed if the table has such a column with several.
        most: how many heads at most, those with the largest interactions in size; by default 32, in one column of a
            paper 20.
    """
    table = interactions if isinstance(interactions, pd.DataFrame) else interactions.frame()
    table = having(checked(table, INTERACTIONS), "outcome", outcome, INTERACTIONS)
    table = only(table, "criterion", criterion, INTERACTIONS)
    written = ""
    if "context" in table.columns:
        table = only(table, "context", context, INTERACTIONS)
        written = CONTEXTS.get(str(table["context"].iloc[0]), "")
    pairs = {}
    for row in table.to_dict("records"):
        pair = ((row["layer_a"], row["head_a"]), (row["layer_b"], row["head_b"]))
        names = " and ".join(head_name(*head) for head in pair)
        if frozenset(pair) in pairs or pair[0] == pair[1]:
            raise ValueError(f"the table 'interactions' has {names} {'as a pair' if pair[0] == pair[1] else 'twice'}")
        text = hover_text(names, score_text(row, "interaction"), f"standard error {row['se']:.4f}")
        pairs[frozenset(pair)] = (*pair, row["interaction"], excludes(row), text)
    every = _largest_interactions(pairs)
    heads = sorted(every[: most or MOST_HEADS[narrow()]])
    cells = Cells.of_pairs(heads, pairs.values(), {head: ("", head_name(*head)) for head in heads})
    titles = [head_name(*head) for head in heads]
    figure, layout = matrices([cells], titles, titles, _scale(cells), largest_width=46, heights=24)
    what = f"{table['criterion'].iloc[0]}: interactions on {outcome_name(outcome)}{written}."
    some = f"The {len(heads)} heads with the largest ones, of {len(every)}." if len(heads) < len(every) else ""
    return caption(figure, [what, some, "Positive: together more than the sum.", layout.marks(), cells.gaps])


def _largest_interactions(pairs: Mapping[frozenset[tuple[int, int]], Entry]) -> list[tuple[int, int]]:
    """The heads of these pairs, first those that are in the pairs with the largest interactions in size."""
    order = sorted(pairs, key=lambda pair: -np.nan_to_num(abs(pairs[pair][2])))
    return list(dict.fromkeys(head for pair in order for head in sorted(pair)))


def _correlations(table: pd.DataFrame, names: Mapping[str, str]) -> Cells:
    """The mean of ``spearman`` over the rows of each pair, symmetric; hovering uses these names."""
    entries = []
    several = "criterion" in table.columns and table["criterion"].nunique() > 1
    for (a, b), part in table.groupby(["a", "b"], sort=False):
        pooled = part[part["criterion"] == POOLED] if "criterion" in part.columns else part.iloc[:0]
        single = part.drop(pooled.index) if len(pooled) < len(part) else part
        whole = pooled if len(pooled) else single
        lines = [_both(names[str(a)], names[str(b)])]
        if len(single) > 1:
            mean = signed(single["spearman"].mean())
            if len(pooled):
                mean = score_text(pooled.to_dict("records")[0], "spearman") + " heads"
            lines.append(f"mean over {single['spearman'].count()} criteria {mean}")
        for record in single.to_dict("records"):
            which = f"{label(record['criterion'], width=40)}: " if several else ""
            lines.append(which + score_text(record, "spearman") + " heads" * bool(record["n"]))
        entries.append((str(a), str(b), whole["spearman"].mean(), _all_exclude(whole), "<br>".join(lines)))
    return Cells.of_pairs(list(names), entries)


def _all_exclude(rows: pd.DataFrame) -> bool | None:
    """Whether every interval excludes zero; None if none is known."""
    return bool(excludes(rows).all()) if rows[["ci_low", "ci_high"]].notna().any(axis=None) else None


def _one_way(table: pd.DataFrame, names: Sequence[str], keys: Sequence[str]) -> pd.DataFrame:
    """The table with each pair of ``a`` and ``b`` in the order of the names.

    Raises:
        ValueError: if a pair is there in both orders, with the same ``keys``.
    """
    place = {name: index for index, name in enumerate(names)}
    turned = table["a"].map(place) > table["b"].map(place)
    a, b = table["a"].where(~turned, table["b"]), table["b"].where(~turned, table["a"])
    table = table.assign(a=a, b=b)
    for row in table[table.duplicated(["a", "b", *keys])].to_dict("records"):
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise ValueError(f"{row['a']} and {row['b']} are a pair twice, in both orders, of {where}")
    return table


def _named(table: pd.DataFrame, schema: Schema, order: Sequence[str] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The checked table and its names, in this order or that of first appearance."""
    table = checked(table, schema)
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    if order is None:
        return table, names
    if sorted(map(str, order)) != sorted(names):
        raise ValueError(f"'order' must hold the names of the table '{schema.name}', each once: {', '.join(names)}")
    return table, [str(one) for one in order]


def _both(a: object, b: object) -> str:
    return f"<b>{label(str(a), width=40)} and {label(str(b), width=40)}</b>"


def _overlap_text(row: Mapping[Any, Any]) -> str:
    return (
        f"{_both(row['a'], row['b'])}<br>"
        f"{row['shared']:.0f} shared of {row['size_a']:.0f} and {row['size_b']:.0f}; by chance {row['expected']:.2f}<br>"
        f"Jaccard {row['jaccard']:.3f}, by chance {row['jaccard_chance']:.3f}<br>overlap {row['overlap']:.3f}<br>"
        f"p = {row['p_value']:.2g}, after Holm {row['p_holm']:.2g}<br>{row['n_heads']:.0f} heads in all"
    )


def _transfer_entry(row: Mapping[Any, Any]) -> Entry:
    heads, criterion, means = (str(row[key]) for key in ("heads_of", "used_for", "means_of"))
    text = accuracy_text(row, f"heads of {heads}", f"used for {criterion}", f"means of {means}")
    return heads, criterion, row["accuracy"], excludes(row, 0.5), text


def _tree_width() -> int:
    return NARROW_TREE if narrow() else TREE


def _add_tree(figure: go.Figure, layout: Layout, tree: dict[str, list[list[float | int]]]) -> None:
    """Add the tree at the right of the only matrix, its leaves at the rows."""
    room, inner = _tree_width(), layout.panels.width
    # The paper is the matrix itself, and plotly clips domains at 1: widen the paper, and shrink the matrix's own domain.
    whole = inner + AIR + room
    margin, height = figure.layout.margin, figure.layout.height
    figure.update_layout(margin={"r": margin.r - AIR - room, "b": margin.b + 34}, height=height + 34)
    figure.update_xaxes(domain=[0, inner / whole])
    x, y = [], []
    for heights, leaves in zip(tree["dcoord"], tree["icoord"], strict=True):
        x += [*heights, None]
        y += [*((leaf - 5) / 10 for leaf in leaves), None]
    hover = "distance %{x:.3f}<extra></extra>"
    line = {"mode": "lines", "line": {"color": INK, "width": 1.2}, "hovertemplate": hover, "hoverinfo": None}
    figure.add_trace(marks(x, y, xaxis="x2", yaxis="y", name="tree", **line))
    furthest = max(map(max, tree["dcoord"]))
    axis = {
        "domain": [(inner + AIR) / whole, 1], "range": [0, furthest * 1.03], "showgrid": False, "anchor": "y",
        "title": {"text": "distance", "standoff": 2}, "nticks": 3, "side": "bottom", "showline": True,
    }  # fmt: skip
    if narrow():
        axis |= {"tickvals": [0, furthest], "ticktext": ["0", f"{furthest:.1f}"]}
    figure.update_layout(xaxis2=axis)


def _rows(wide: pd.DataFrame, heads: Iterable[tuple[int, int]] | None, top: int) -> list[tuple[int, int]]:
    if heads is None:
        if top < 1:
            raise ValueError(f"top is {top}: at least one head of each criterion is drawn")
        return sorted({head for criterion in wide for head in wide[criterion].abs().nlargest(top).index})
    rows = sorted({(int(layer), int(head)) for layer, head in heads})
    if not rows:
        raise ValueError("heads names no head")
    for row in rows:
        if row not in wide.index:
            raise ValueError(f"the table 'attributions' has no head {head_name(*row)}")
    return rows


def _scale(cells: Cells) -> Scale:
    span = largest(cells.values)
    return Scale(-span, span, digits_for(span), "score")
