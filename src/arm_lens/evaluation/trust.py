"""How far a cheap measure of heads can be trusted: its rank correlation with a causal one, next to its scores.

Causal measures write or remove the output of a head and measure what the verdicts gain or lose. Cheap ones do not: a gradient
is a linear guess, direct logits leave out all later layers, and a selection probability is what a search believes. Whether
they order the heads as a causal measure does depends on the model and the criterion, so a score by a cheap measure is never
displayed without it. `with_trust` adds columns to a table of attributions, from which they are displayed wherever its rows
are: in tables, figures, head cards and notebooks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from arm_lens.evaluation.statistics import spearman
from arm_lens.frames import ATTRIBUTIONS, checked

STANDS_IN_FOR = {
    "integrated_gradients": "shapley",
    "gradient": "injection",
    "direct": "ablation_mean",
    "selection_probability": "shapley",
}
"""The cheap measures, and the causal measure that each would replace."""
CAUSAL = (
    "shapley", "injection", "leave_one_out", "ablation_mean", "ablation_resample", "ablation_zero", "ablation_optimal",
    "head_gating",
)  # fmt: skip
"""The causal measures: a cheap one is compared with the first that there is, if the one that it would replace is missing."""
COLUMNS = ["causal", "spearman", "spearman_low", "spearman_high", "compared"]
OUTCOMES = ("probability", "accuracy", "gap")
"""The outcomes on which a measure without outcomes is compared: the first that a causal measure has."""
SCORED = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "layer", "head", "score")


def with_trust(attributions: pd.DataFrame) -> pd.DataFrame:
    """Attributions with the agreement of each cheap measure with a causal one of the same criterion, outcome and examples.

    Args:
        attributions: criterion, measure, outcome, layer, head, score and, if known, n, by which examples are the same.

    Returns:
        The same rows with ``causal`` (the causal measure; empty if there is none), ``spearman``, ``spearman_low``,
        ``spearman_high`` (95 %, over heads) and ``compared`` (heads with both scores). If there is no causal measure to
        compare with, values that these columns have already are left as they are. A table without cheap measures is
        returned unchanged.

    Raises:
        ValueError: naming a missing column, or a head that a measure scores twice.
    """
    table = checked(attributions, SCORED)
    is_cheap = table["measure"].isin(list(STANDS_IN_FOR))
    if not is_cheap.any():
        return attributions
    known = table.reindex(columns=COLUMNS)
    known = known.assign(causal=known["causal"].astype(object).fillna(""))
    for (criterion, measure, outcome), rows in table[is_cheap].groupby(["criterion", "measure", "outcome"], sort=False):
        rivals = table[(table["criterion"] == criterion) & table["measure"].isin(CAUSAL)]
        found = _compared(str(measure), str(outcome), rows, rivals)
        if found is not None:
            known.loc[rows.index, COLUMNS] = pd.DataFrame([found] * len(rows), rows.index, COLUMNS)
    return table.assign(**{column: known[column] for column in COLUMNS}).set_axis(attributions.index)


def _compared(
    measure: str, outcome: str, cheap: pd.DataFrame, rivals: pd.DataFrame
) -> tuple[str, float, float, float, int] | None:
    """The first causal measure that there is, and the correlation with it."""
    for other in dict.fromkeys([STANDS_IN_FOR[measure], *CAUSAL]):
        own = rivals[rivals["measure"] == other]
        wanted = OUTCOMES if outcome == "search" else (outcome,)
        own = next((part for one in wanted if len(part := own[own["outcome"] == one])), own.iloc[:0])
        if own.empty or not _same_examples(cheap, own):
            continue
        both = [rows.set_index(["layer", "head"])["score"].astype(float) for rows in (cheap, own)]
        one, two = (side.to_numpy() for side in both[0].align(both[1], join="inner"))
        found = spearman(one, two)
        return other, found.spearman, found.ci_low, found.ci_high, found.n
    return None


def _same_examples(cheap: pd.DataFrame, causal: pd.DataFrame) -> bool:
    """As far as their number shows; 0 is that of a measure without examples."""
    if "n" not in cheap.columns:
        return True
    counts = {*cheap["n"].unique()} - {0}
    return counts <= {*causal["n"].unique()}


def trust_notes(attributions: pd.DataFrame, name: Callable[[str], str] = str) -> list[str]:
    """A sentence for each cheap measure in a table: how far it agrees with a causal one, or that this was not measured.

    Args:
        attributions: rows of what `with_trust` returned, at least measure and criterion. Without its columns nothing was
            measured.
        name: how measures are called.
    """
    notes = []
    for measure in attributions["measure"].unique():
        if measure in STANDS_IN_FOR:
            rows = attributions[attributions["measure"] == measure].drop_duplicates("criterion")
            notes.append(_note(measure, rows.reindex(columns=COLUMNS), name))
    return notes


def _note(measure: str, rows: pd.DataFrame, name: Callable[[str], str]) -> str:
    measured = rows[rows["spearman"].notna()]
    if measured.empty:
        causal = next((one for one in rows["causal"].dropna() if one), None)
        if causal is None:
            causal, unknown = STANDS_IN_FOR[measure], "was not measured"
        else:
            unknown = "has no value here"  # a score is constant, say
        return f"{name(measure)} is cheap and stands in for {name(causal)}: their rank correlation {unknown}."
    values = []
    for causal, part in measured.groupby("causal", sort=False):
        low, high, heads = part["spearman"].min(), part["spearman"].max(), f"{part['compared'].min():.0f} heads"
        one = f"{low:.2f} ({_ends(part)}; {heads})"
        several = f"{low:.2f} to {high:.2f} in {len(part)} criteria (intervals within {_ends(part)}; {heads})"
        values.append(f"with {name(str(causal))} {one if len(part) == 1 else several}")
    left = len(rows) - len(measured)
    rest = f", not measured in {left} of {len(rows)} criteria" if left else ""
    return f"{name(measure)} is cheap: rank correlation {', '.join(values)}{rest}."


def _ends(rows: pd.DataFrame) -> str:
    if rows[["spearman_low", "spearman_high"]].isna().any(axis=None):
        return "interval unknown"
    return f"{np.min(rows['spearman_low']):.2f} to {np.max(rows['spearman_high']):.2f}"
