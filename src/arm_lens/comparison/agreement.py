"""How far a cheap measure of heads can be trusted: its rank correlation with the others, per criterion and over criteria.

A gradient costs one pass, a Shapley value thousands of masks. Whether the one may stand for the other is a question to the
criterion at hand (arXiv 2604.26130 reports correlations near zero on reward models), so this table belongs beside every
cheap measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from arm_lens.comparison.correlation import spearman
from arm_lens.evaluation.statistics import LEVEL
from arm_lens.frames import ATTRIBUTIONS, checked
from arm_lens.heads import Named, ScoredLike, attributions_frame

SEARCH = "search"
"""The outcome of a measure that has none, such as the probability of being selected."""
ALL = "all"
"""The criterion of rows over all criteria."""
KEY = ["criterion", "outcome", "measure_a", "measure_b"]


def agreement(attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of each two measures over the heads that both know.

    A measure without outcomes (``search``, as selection probability has it) is compared with the others on each of theirs.
    Within a criterion the interval is over heads, as in `arm_lens.comparison.correlation`. Over criteria it is Student's
    t interval of the mean of the criteria's correlations: how far the mean would move with other criteria of this kind,
    of which two or three say little.

    Args:
        attributions: several, also by the criterion's name; or their table: criterion, measure, outcome, layer, head, score.

    Returns:
        A row per criterion, outcome and pair of measures, each pair once, in the order in which measures first appear:
        criterion, outcome, measure_a, measure_b, spearman, ci_low, ci_high, n (heads), n_criteria (1). NaN where a score
        is constant. With several criteria, rows with criterion ``all`` follow: the mean over the criteria where there is a
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
        raise ValueError(f"no criterion may be called {ALL!r}: that is the name of the rows over all criteria")
    measures = list(table["measure"].unique())
    outcomes = [outcome for outcome in table["outcome"].unique() if outcome != SEARCH] or [SEARCH]
    rows = []
    for criterion in criteria:
        of_criterion = table[table["criterion"] == criterion]
        for outcome in outcomes:
            rows += _pairs_of(of_criterion, criterion, outcome, measures)
    found = pd.DataFrame(rows, columns=[*KEY, "spearman", "ci_low", "ci_high", "n", "n_criteria"])
    return pd.concat([found, _over_criteria(found)], ignore_index=True) if len(criteria) > 1 else found


def _pairs_of(rows: pd.DataFrame, criterion: str, outcome: str, measures: Sequence[str]) -> list[dict[str, object]]:
    there = rows[rows["outcome"].isin([outcome, SEARCH])]
    scores = there.set_index(["layer", "head", "measure"])["score"].astype(float).unstack("measure")
    known = [measure for measure in measures if measure in scores.columns]
    return [
        {
            **dict(zip(KEY, (criterion, outcome, a, b), strict=True)),
            **asdict(spearman(scores[a].to_numpy(), scores[b].to_numpy())),
            "n_criteria": 1,
        }
        for a, b in combinations(known, 2)
    ]


def _over_criteria(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for key, part in table.groupby(KEY[1:], sort=False):
        known = part[part["spearman"].notna()]
        values, count = known["spearman"].to_numpy(dtype=float), len(known)
        mean, reach = float(values.mean()) if count else np.nan, np.nan
        if count > 1:
            reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * float(values.std(ddof=1)) / count**0.5
        low, high = np.clip([mean - reach, mean + reach], -1.0, 1.0)  # what is not a number stays none
        rows.append((ALL, *key, mean, low, high, int(known["n"].sum()), count))
    return pd.DataFrame(rows, columns=list(table.columns))
