"""Heads by criteria, and heads by heads: what the same heads do for several criteria, and for each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster import hierarchy

from arm_lens.display import head_name
from arm_lens.frames import ATTRIBUTIONS, INTERACTIONS, checked, criteria_of
from arm_lens.heads import Named, ScoredLike, attributions_frame
from arm_lens.plots.cuts import having, only
from arm_lens.plots.matrices import Cells, Scale, matrices
from arm_lens.plots.measures import measure_name, outcome_name
from arm_lens.plots.notation import caption, digits_for, largest, score_text
from arm_lens.plots.theme import label

CONTEXTS = {
    "alone": ", no other head written",
    "within": ", all others of the set written",
    "shapley": ", averaged over the others that are written",
}
"""Beside which other heads an interaction was measured (see `arm_lens.attribution.interaction`)."""
BOLD = "Bold: the interval excludes zero."


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
        measure: which one; needed if the table holds several.
        heads: (layer, head) of the rows; without them, the ``top`` heads of every criterion by absolute score.
        top: how many heads of each criterion.
        order: rows by layer from the first, or similar rows beside each other.

    Raises:
        ValueError: if a column is missing, there are no such rows, ``top`` is below 1, or a head is not in the table.
    """
    scores = checked(attributions_frame(attributions), ATTRIBUTIONS)
    table = only(having(scores, "outcome", outcome, ATTRIBUTIONS), "measure", measure, ATTRIBUTIONS)
    criteria = criteria_of(table)
    wide = table.pivot(index=["layer", "head"], columns="criterion", values="score").reindex(columns=criteria)
    rows = _rows(wide, heads, top)
    values = wide.reindex(pd.MultiIndex.from_tuples(rows)).to_numpy(dtype=float)
    if order == "similarity" and len(rows) > 2:
        tree = hierarchy.linkage(np.nan_to_num(values), "average", optimal_ordering=True)
        leaves = hierarchy.leaves_list(tree)
        rows, values = [rows[leaf] for leaf in leaves], values[leaves]
    places = {(row, criterion): (i, j) for i, row in enumerate(rows) for j, criterion in enumerate(criteria)}
    hover, bold = np.full(values.shape, "not measured", dtype=object), np.zeros(values.shape, dtype=bool)
    for record in table.to_dict("records"):
        at = places.get(((record["layer"], record["head"]), record["criterion"]))
        if at is not None:
            where = f"<b>{label(record['criterion'], width=60)}</b><br>{head_name(*rows[at[0]])}"
            hover[at] = f"{where}<br>{score_text(record)}"
            bold[at] = record["ci_low"] > 0 or record["ci_high"] < 0
    span = largest(values)
    cells = Cells(values=values, hover=hover, bold=bold, crossed=np.isnan(values))
    figure, layout = matrices([cells], [head_name(*row) for row in rows], criteria, _scale(span), heights=22)
    name = measure_name(str(table["measure"].iloc[0]))
    notes = _notes(layout.printed, gaps=bool(np.isnan(values).any()))
    which = f"The {top} largest heads of each criterion." if heads is None and top > 1 else ""
    caption(figure, [f"{name} on {outcome_name(outcome)}.", which, *notes])
    return figure


def interaction_matrix(
    interactions: pd.DataFrame,
    *,
    outcome: str = "gap",
    criterion: str | None = None,
    context: str | None = None,
) -> go.Figure:
    """What two heads are worth together beyond the sum of both: blue for synergy, brown for redundancy.

    Args:
        interactions: a table like `arm_lens.frames.INTERACTIONS`; each pair once.
        outcome: whose interactions.
        criterion: which one; needed if the table holds several.
        context: likewise, where there is such a column.

    Raises:
        ValueError: if a column is missing, there are no such rows, several criteria or contexts are left, or a pair is there
            twice.
    """
    table = having(checked(interactions, INTERACTIONS), "outcome", outcome, INTERACTIONS)
    table = only(table, "criterion", criterion, INTERACTIONS)
    beside = ""
    if "context" in table.columns:
        table = only(table, "context", context, INTERACTIONS)
        beside = CONTEXTS.get(str(table["context"].iloc[0]), "")
    heads = sorted(
        {*zip(table["layer_a"], table["head_a"], strict=True), *zip(table["layer_b"], table["head_b"], strict=True)}
    )
    place = {head: index for index, head in enumerate(heads)}
    values = np.full((len(heads), len(heads)), np.nan)
    hover, bold = np.full(values.shape, "", dtype=object), np.zeros(values.shape, dtype=bool)
    seen = np.zeros(values.shape, dtype=bool)
    for record in table.to_dict("records"):
        a, b = (record["layer_a"], record["head_a"]), (record["layer_b"], record["head_b"])
        names = f"{head_name(*a)} and {head_name(*b)}"
        if seen[place[a], place[b]] or a == b:
            raise ValueError(f"the table 'interactions' has {names} " + ("as a pair" if a == b else "twice"))
        text = f"<b>{names}</b><br>{score_text(record, 'interaction')}<br>standard error {record['se']:.4f}"
        for at in ((place[a], place[b]), (place[b], place[a])):
            values[at], hover[at], seen[at] = record["interaction"], text, True
            bold[at] = record["ci_low"] > 0 or record["ci_high"] < 0
    for index, head in enumerate(heads):
        hover[index, index] = head_name(*head)
    crossed = np.isnan(values) & ~np.eye(len(heads), dtype=bool)
    cells = Cells(values=values, hover=hover, bold=bold, crossed=crossed)
    titles = [head_name(*head) for head in heads]
    figure, layout = matrices([cells], titles, titles, _scale(largest(values)), largest_width=46, heights=24)
    notes = _notes(layout.printed, gaps=bool(crossed.any()))
    what = f"{table['criterion'].iloc[0]}: interactions on {outcome_name(outcome)}{beside}."
    notes = ["Positive: together more than the sum.", *notes]
    caption(figure, [what, *notes])
    return figure


def _rows(wide: pd.DataFrame, heads: Iterable[tuple[int, int]] | None, top: int) -> list[tuple[int, int]]:
    there = {(int(layer), int(head)) for layer, head in wide.index}
    if heads is not None:
        rows = [(int(layer), int(head)) for layer, head in heads]
        for row in rows:
            if row not in there:
                raise ValueError(f"the table 'attributions' has no head {head_name(*row)}")
        return sorted(set(rows))
    if top < 1:
        raise ValueError(f"top is {top}: at least one head of each criterion is shown")
    chosen = {index for criterion in wide for index in wide[criterion].abs().nlargest(top).index}
    return sorted((int(layer), int(head)) for layer, head in chosen)


def _scale(span: float | int) -> Scale:
    return Scale(-span, span, digits_for(span), "score")


def _notes(printed: bool, *, gaps: bool) -> list[str]:
    marks = BOLD if printed else "−: notably below zero. ∘: the interval includes zero."
    return [marks, "×: not measured." if gaps else ""]
