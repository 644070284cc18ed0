"""The published scores of Multimodal RewardBench and VL-RewardBench, from the accuracies of their subsets.

*Multimodal RewardBench* (Yasunaga et al. 2025, arXiv 2502.14191) has six categories, two of them in two parts: reasoning
(mathematics, coding) and safety (bias, toxicity). *VL-RewardBench* (Li et al. 2024, arXiv 2411.17451) has three groups. In
both, the score of a category and the overall score are accuracies over items, so that a subset s with n_s items weighs n_s,

    score = sum_s n_s accuracy_s / sum_s n_s,

and VL-RewardBench's macro average is the mean of its three groups. Here a tie counts one half. The toxic images of Multimodal
RewardBench are not published with it, and an item whose image is missing cannot be read; the score of a category with a
missing subset is NaN, that of what is present is in another column, and items that are missing of a subset are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from arm_lens.evaluation.rewardbench import check_columns, check_subsets, refuse_repeated, runs

MULTIMODAL_REWARDBENCH = {
    "general correctness": ("open_generation/correctness_task",),
    "general preference": ("open_generation/preference_task",),
    "knowledge": ("knowledge",),
    "reasoning": ("reasoning/math", "reasoning/coding"),
    "safety": ("safety/bias", "safety/toxicity"),
    "VQA": ("vqa",),
}
"""The subsets of each category, as `read_preferences` names them."""
VL_REWARDBENCH = {"general": ("general",), "hallucination": ("hallucination",), "reasoning": ("reasoning",)}
PUBLISHED = {
    "open_generation/correctness_task": 623,
    "open_generation/preference_task": 654,
    "knowledge": 630,
    "reasoning/math": 514,
    "reasoning/coding": 584,
}
"""The published number of items of subsets of Multimodal RewardBench; safety and VQA have 2,206 together."""
OVERALL, MACRO = "overall", "macro average"
COLUMNS = ("section", "score", "score_of_present", "ci_low", "ci_high", "n", "missing", "partial")


def multimodal_rewardbench_scores(rows: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """The scores of Multimodal RewardBench by category, and overall.

    Args:
        rows: one row per subset, with ``subset``, ``accuracy``, ``ci_low``, ``ci_high`` (its 95 % interval) and ``n``.
        by: columns that distinguish the runs in the rows: judge, seed, and so on.

    Returns:
        Seven rows for each run, the six categories and ``overall``: the columns of ``by``; ``section``; ``score``, NaN if a
        subset is missing; ``score_of_present``, that of the subsets that the run has, with ``ci_low`` and ``ci_high``, its
        95 % interval; ``n``, the number of items; ``missing``, the names of the subsets without any item; ``partial``, the
        subsets with fewer items than published, as ``"name (50 of 100)"``.

    Raises:
        ValueError: naming a missing column, an unknown subset, or a subset that occurs twice in a run.
    """
    return _scores(rows, MULTIMODAL_REWARDBENCH, by)


def vl_rewardbench_scores(rows: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """The scores of VL-RewardBench by group, ``overall``, and as ``macro average``, the mean of the groups.

    Arguments, columns and errors are those of `multimodal_rewardbench_scores`.
    """
    return _scores(rows, VL_REWARDBENCH, by, with_macro=True)


def _scores(
    rows: pd.DataFrame, sections: Mapping[str, Sequence[str]], by: Sequence[str], *, with_macro: bool = False
) -> pd.DataFrame:
    shares = ["accuracy", "ci_low", "ci_high"]
    check_columns(rows, ["subset", *shares, "n", *by])
    known = [subset for subsets in sections.values() for subset in subsets]
    check_subsets(rows["subset"], known)
    for row in rows[(rows["n"] > 0) & ~((rows[shares] >= 0) & (rows[shares] <= 1)).all(axis=1)].to_dict("records"):
        raise ValueError(f"the accuracy of {row['subset']} or its interval is not between 0 and 1: {row['accuracy']}")
    found = []
    for run_of, run in runs(rows, by):
        refuse_repeated(run, ["subset"])
        table = run.set_index("subset").reindex(known)
        table["n"] = table["n"].fillna(0)
        own = [_section(name, table.loc[list(subsets)], table["n"]) for name, subsets in sections.items()]
        own.append(_section(OVERALL, table, table["n"]))
        if with_macro:
            own.append(_section(MACRO, table, (table["n"] > 0).astype(float)))
        found += [run_of | one for one in own]
    return pd.DataFrame(found, columns=[*by, *COLUMNS])


def _section(name: str, table: pd.DataFrame, weights: pd.Series) -> dict[str, Any]:
    """The weighted mean of accuracies, whose distances to the ends of their intervals add up as independent errors do."""
    present = table[table["n"] > 0]
    share = weights[present.index] / (weights[present.index].sum() or np.nan)
    score = float((share * present["accuracy"]).sum()) if len(present) else np.nan
    below = float(np.sqrt(((share * (present["accuracy"] - present["ci_low"])) ** 2).sum()))
    above = float(np.sqrt(((share * (present["ci_high"] - present["accuracy"])) ** 2).sum()))
    missing = [subset for subset in table.index if subset not in present.index]
    counts = {subset: (int(n), PUBLISHED[subset]) for subset, n in present["n"].items() if subset in PUBLISHED}
    return {
        "section": name,
        "score": np.nan if missing else score,
        "score_of_present": score,
        "ci_low": max(score - below, 0.0),
        "ci_high": min(score + above, 1.0),
        "n": int(table["n"].sum()),
        "missing": missing,
        "partial": [f"{subset} ({n} of {most})" for subset, (n, most) in counts.items() if n < most],
    }
