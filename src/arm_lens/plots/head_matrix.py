"""Heads by criteria, and heads by heads: what the same heads do for several criteria, and for each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

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
"""Which other heads are written while an interaction is measured (see `arm_lens.attribution.interaction`)."""


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
    scores = checked(attributions_frame(attributions), ATTRIBUTIONS)
    table = only(having(scores, "outcome", outcome, ATTRIBUTIONS), "measure", measure, ATTRIBUTIONS)
    criteria = criteria_of(table)
    wide = table.pivot(index=["layer", "head"], columns="criterion", values="score")[criteria]
    rows = _rows(wide, heads, top)
    if order == "similarity" and len(rows) > 2:
        tree = hierarchy.linkage(np.nan_to_num(wide.loc[rows].to_numpy(dtype=float)), "average", optimal_ordering=True)
        rows = [rows[leaf] for leaf in hierarchy.leaves_list(tree)]
    entries = (
        (
            (row["layer"], row["head"]), row["criterion"], row["score"], _excludes_zero(row),
            f"<b>{label(row['criterion'], width=60)}</b><br>{head_name(row['layer'], row['head'])}<br>{score_text(row)}",
        )
        for row in table.to_dict("records")
    )  # fmt: skip
    cells = Cells.of(rows, criteria, entries, blank="not measured")
    figure, layout = matrices([cells], [head_name(*row) for row in rows], criteria, _scale(cells), heights=22)
    name = measure_name(str(table["measure"].iloc[0]))
    which = f"The {top} largest heads of each criterion." if heads is None and top > 1 else ""
    caption(figure, [f"{name} on {outcome_name(outcome)}.", which, layout.marks, _gaps(cells)])
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
        criterion: which one; needed if the table has several.
        context: which one; needed if the table has such a column with several.
    """
    table = having(checked(interactions, INTERACTIONS), "outcome", outcome, INTERACTIONS)
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
        text = f"<b>{names}</b><br>{score_text(row, 'interaction')}<br>standard error {row['se']:.4f}"
        pairs[frozenset(pair)] = (*pair, row["interaction"], _excludes_zero(row), text)
    heads = sorted(set().union(*pairs))
    cells = Cells.of_pairs(heads, pairs.values(), {head: ("", head_name(*head)) for head in heads})
    titles = [head_name(*head) for head in heads]
    figure, layout = matrices([cells], titles, titles, _scale(cells), largest_width=46, heights=24)
    what = f"{table['criterion'].iloc[0]}: interactions on {outcome_name(outcome)}{written}."
    caption(figure, [what, "Positive: together more than the sum.", layout.marks, _gaps(cells)])
    return figure


def _rows(wide: pd.DataFrame, heads: Iterable[tuple[int, int]] | None, top: int) -> list[tuple[int, int]]:
    if heads is None:
        if top < 1:
            raise ValueError(f"top is {top}: at least one head of each criterion is drawn")
        return sorted({head for criterion in wide for head in wide[criterion].abs().nlargest(top).index})
    rows = sorted({(int(layer), int(head)) for layer, head in heads})
    for row in rows:
        if row not in wide.index:
            raise ValueError(f"the table 'attributions' has no head {head_name(*row)}")
    return rows


def _excludes_zero(row: dict[Any, Any]) -> bool:
    return bool(row["ci_low"] > 0 or row["ci_high"] < 0)


def _scale(cells: Cells) -> Scale:
    span = largest(cells.values)
    return Scale(-span, span, digits_for(span), "score")


def _gaps(cells: Cells) -> str:
    return "×: not measured." if (cells.crossed & np.isnan(cells.values)).any() else ""
