r"""Are the same heads found again with another seed, or with other examples?

:math:`M` searches give :math:`M` sets. Two numbers say how alike they are. The mean pairwise Jaccard index is easy to read,
but must be compared with its chance level, here the level of random sets with as many heads in every layer. The index of
Nogueira, Sechidis and Brown (JMLR 18(174), 2018) is 0 for random sets among all heads and 1 for equal sets,

.. math:: \hat\Phi = 1 - \frac{\frac{1}{d} \sum_f \frac{M}{M - 1} \hat p_f (1 - \hat p_f)}
          {\frac{\bar k}{d} \left(1 - \frac{\bar k}{d}\right)},

with :math:`\hat p_f` how often head :math:`f` of :math:`d` was chosen and :math:`\bar k` the mean size of a set.

The :math:`M (M - 1) / 2` pairs share sets, so they are not independent. Both intervals treat the sets as what was sampled:
the jackknife leaves out one set at a time (for averages over pairs, Arvesen 1969), with Student's t for :math:`M - 1`
degrees of freedom. In simulations (48 heads; sets with a core, hardly varying, random, in between) it covers 92 to 99 % with
5, 10 and 20 sets, for either number. The paper's normal interval, for many sets, is not used: it covers 65 to 89 % with 5
and 80 to 96 % with 10. If the jackknife sees no spread (two sets; pairs that are all equally alike), the interval is
Wilson's with M / 2 for n: an average over pairs varies at most like an average over as many pairs without common sets
(Hoeffding 1963), and bounded numbers at most like a coin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from scipy.spatial.distance import squareform

from arm_lens.comparison.overlaps import expected_jaccard, shared_by_chance
from arm_lens.comparison.tables import pairs
from arm_lens.evaluation.statistics import LEVEL, wilson
from arm_lens.frames import HEADS, REPEATS, STABILITY, checked, repeats_in
from arm_lens.heads import Chosen, HeadSet, Named, head_sets, heads_frame, name_of

Interval = tuple[float, float]


def stability(heads: Named[Chosen] | pd.DataFrame, *, by: str | Sequence[str] = "criterion") -> pd.DataFrame:
    """How alike the sets are that a search finds with other seeds, or other examples.

    See the module for the two numbers, their nulls and their intervals. The intervals assume independent sets. Sets of
    several seeds on the same example sample are independent for that sample alone (put ``sample`` into ``by``).

    Args:
        heads: several head sets, selections or reward models for each name; or a table of seed or sample or both, layer,
            head, selected, with a row for every head of the model, chosen or not, and the columns of ``by``. Each seed
            and sample within a group is one set.
        by: the column or columns that make a group: the criterion, the selector, ...

    Returns:
        A row per group, in order of appearance: group, n_sets, mean_heads, jaccard, ci_low, ci_high, jaccard_chance (exact
        mean of random sets with these numbers of heads in every layer), nogueira, nogueira_low, nogueira_high. Numbers of
        a group with a single set are NaN, and so is Nogueira's index of sets that are all empty, or all full.

    Raises:
        ValueError: naming a missing column, or the group in which the same seed and sample gives several sets.
    """
    groups = [by] if isinstance(by, str) else list(by)
    table = heads_frame(heads)
    repeats = [column for column in repeats_in(table) if column not in groups]
    if not repeats:
        raise ValueError(f"stability is over seeds or samples: the table 'heads' needs a column {' or '.join(REPEATS)}")
    table = checked(table, HEADS.needing(*groups, *repeats, "layer", "head", "selected", key=()))
    rows = []
    for key, part in table.groupby(groups, sort=False, dropna=False):
        name = name_of(groups, key)
        try:
            sets = head_sets(part, by=repeats)
        except ValueError as error:
            raise ValueError(f"group {name!r}: {error}") from None
        rows.append({"group": name, **_of_sets(sets)})
    return pd.DataFrame(rows)


def stability_index(chosen: Float[np.ndarray, "set head"]) -> float:
    """Nogueira, Sechidis and Brown's index of sets given as rows of 0 and 1.

    From -1 / (M - 1) to 1; NaN if there is one set, or all are empty or full.
    """
    often, count = chosen.mean(axis=0), len(chosen)
    by_chance = often.mean() * (1 - often.mean())
    if count < 2 or by_chance < 1e-12:
        return np.nan
    return float(1 - count / (count - 1) * (often * (1 - often)).mean() / by_chance)


def _of_sets(sets: dict[str, HeadSet]) -> dict[str, float | int]:
    chosen = np.stack([one.mask.flatten().numpy() for one in sets.values()]).astype(float)
    count = len(sets)
    row: dict[str, float | int] = {"n_sets": count, "mean_heads": float(chosen.sum(axis=1).mean())}
    if count < 2:
        return row | dict.fromkeys([*STABILITY.required][3:], np.nan)
    every = [(one, two) for *_, one, two in pairs(sets, "sets")]
    alike = squareform([one.jaccard(two) for one, two in every])
    jaccards = [_mean_of_pairs(np.delete(np.delete(alike, left_out, 0), left_out, 1)) for left_out in range(count)]
    indices = [stability_index(np.delete(chosen, left_out, axis=0)) for left_out in range(count)]
    jaccard, index = _mean_of_pairs(alike), stability_index(chosen)
    ends, index_ends = _jackknife(jaccard, np.array(jaccards), 0.0), _jackknife(index, np.array(indices), -1.0)
    chance = np.mean([expected_jaccard(one, two, shared_by_chance(one, two, within_layers=True)) for one, two in every])
    return row | dict(zip([*STABILITY.required][3:], (jaccard, *ends, float(chance), index, *index_ends), strict=True))


def _mean_of_pairs(alike: Float[np.ndarray, "set set"]) -> float:
    return float(squareform(alike, checks=False).mean()) if len(alike) > 1 else np.nan


def _jackknife(value: float, without: Float[np.ndarray, " set"], least: float) -> Interval:
    """The 95 % interval of a number between ``least`` and 1, given the numbers without each of the sets."""
    if np.isnan(value):
        return np.nan, np.nan
    count = len(without)
    variance = (count - 1) * float(without.var())
    if variance > 1e-18:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * variance**0.5
        return max(least, value - reach), min(1.0, value + reach)
    low, high = wilson((value - least) / (1 - least), count // 2)
    return least + (1 - least) * low, least + (1 - least) * high
