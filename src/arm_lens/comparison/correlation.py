"""Do two scores put the heads in the same order?

The correlation and its interval are those of `arm_lens.evaluation.statistics.rank_correlation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd

from arm_lens.comparison.tables import pairs, same_size
from arm_lens.evaluation.statistics import spearman
from arm_lens.heads import Scored, head_scores


def rank_correlation(scores: Mapping[str, Scored]) -> pd.DataFrame:
    """Spearman's correlation of each two scores over the heads of a model; see the module for the interval.

    Args:
        scores: by name, of one model or of models of the same size: scores, attributions, or selections and reward models
            with the scores of their search. Heads that were not measured are NaN.

    Returns:
        A row per pair: a, b, spearman, ci_low, ci_high (95 % over heads), n (heads that have both scores). NaN if a score
        is constant.

    Raises:
        ValueError: if there are fewer than two scores, or the models differ in size; naming the scores.
    """
    known = head_scores(scores)
    same_size({name: one.values.shape for name, one in known.items()}, "scores")
    flat = {name: one.frame()["score"].to_numpy() for name, one in known.items()}
    return pd.DataFrame([{"a": a, "b": b, **asdict(spearman(one, two))} for a, b, one, two in pairs(flat, "scores")])
