"""How far a cheap measure of heads can be trusted: its rank correlation with the others, per criterion and over criteria.

A gradient costs one pass, a Shapley value thousands of masks. Whether a gradient may replace Shapley values depends on the
criterion (arXiv 2604.26130 reports correlations near zero on reward models), so every cheap measure needs this table next
to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations

import pandas as pd
from scipy import stats

from arm_lens.evaluation.statistics import LEVEL, spearman
from arm_lens.frames import ATTRIBUTIONS, checked
from arm_lens.heads import Named, ScoredLike, attributions_frame

SEARCH = "search"
"""The outcome of a measure without outcomes, such as the probability of being selected."""
ALL = "all"
"""The criterion of rows over all criteria."""
KEY = ["criterion", "outcome", "measure_a", "measure_b"]


def agreement(attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of each two measures over the heads that have both scores.

    A measure with the outcome ``search`` (selection probability) is compared with the others on each of their outcomes.
    Within a criterion the interval is over heads (`arm_lens.evaluation.statistics.rank_correlation`). Over criteria it is
    Student's t interval of the mean correlation for other criteria of this kind, which is wide with two or three.

    Args:
        attributions: several, also by the criterion's name; or their table: criterion, measure, outcome, layer, head, score.

    Returns:
        A row per criterion, outcome and pair of measures, each pair once, in the order in which measures first appear:
        criterion, outcome, measure_a, measure_b, spearman, ci_low, ci_high, n (heads), n_criteria (1). NaN if a score is
        constant. With several criteria, rows with criterion ``all`` follow: the mean over the criteria that have a
        correlation, with their number in ``n_criteria`` and all their heads in ``n``.

    Raises:
        ValueError: naming a missing column, or a head that a measure scores twice; or if a criterion is called ``all``.
    """
    table = checked(
        attributions_frame(attributions),
        ATTRIBUTIONS.needing("criterion", "measure", "outcome", "layer", "head", "score"),
    )
    criteria = table["criterion"].unique()
    if ALL in criteria:
        raise ValueError(f"no criterion may be called {ALL!r}, which is the name of the rows over all criteria")
    measures = list(table["measure"].unique())
    outcomes = [outcome for outcome in table["outcome"].unique() if outcome != SEARCH] or [SEARCH]
    rows = []
    for criterion in criteria:
        for outcome in outcomes:
            part = table[(table["criterion"] == criterion) & table["outcome"].isin([outcome, SEARCH])]
            scores = part.pivot(index=["layer", "head"], columns="measure", values="score").astype(float)
            for a, b in combinations([measure for measure in measures if measure in scores], 2):
                names = dict(zip(KEY, (criterion, outcome, a, b), strict=True))
                rows.append(names | asdict(spearman(scores[a].to_numpy(), scores[b].to_numpy())) | {"n_criteria": 1})
    found = pd.DataFrame(rows, columns=[*KEY, "spearman", "ci_low", "ci_high", "n", "n_criteria"])
    return pd.concat([found, _over_criteria(found)], ignore_index=True) if len(criteria) > 1 else found


def _over_criteria(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(n=table["n"].where(table["spearman"].notna(), 0))
    groups = table.groupby(KEY[1:], sort=False)
    means = groups.agg(
        spearman=("spearman", "mean"), error=("spearman", "sem"), n=("n", "sum"), n_criteria=("spearman", "count")
    ).reset_index()
    reach = stats.t.ppf((1 + LEVEL) / 2, means["n_criteria"] - 1) * means.pop("error")  # NaN for a single criterion
    ends = {"ci_low": means["spearman"] - reach, "ci_high": means["spearman"] + reach}
    return means.assign(criterion=ALL, **{name: end.clip(-1.0, 1.0) for name, end in ends.items()})[list(table.columns)]
