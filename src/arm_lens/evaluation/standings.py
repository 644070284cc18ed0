"""Summaries of a run's tables: means over subsets, how the lead judge compares, and the effects of samples and seeds.

"The best judge" is a statement about many subsets at once. Here the mean over subsets has an interval, and a judge wins or
loses on a subset by the permutation test after Holm's correction over the subsets (Holm 1979), never by the order of two
means. The test is about the samples and seeds that were run: with one unlucky sample among three it may be certain of a
difference that other samples would not have. So a difference counts only if its interval, which allows for other samples and
seeds, excludes zero as well.
"""

from __future__ import annotations

import pandas as pd

from arm_lens.evaluation.hacking import are_cells

SIGNIFICANT = 0.05
"""A difference is significant if its corrected p-value is below this, and its interval excludes zero."""


def significant(comparisons: pd.DataFrame) -> pd.Series:
    """Whether each difference holds for these samples (p_holm) and beyond them (ci_low, ci_high)."""
    one_sided = (comparisons["ci_low"] > 0) | (comparisons["ci_high"] < 0)
    return (comparisons["p_holm"] < SIGNIFICANT) & one_sided


def mean_over_subsets(rows: pd.DataFrame, *, by: str = "judge", value: str = "accuracy") -> pd.DataFrame:
    """The unweighted mean of ``value`` over the subsets of one benchmark.

    Subsets have different items, so the distances from the mean to the interval ends add up as errors of independent
    quantities: half of a mean's interval is the root of the sum of squares, over the number of subsets. The cells of a
    bias benchmark have the same items: there it is the mean of the halves, wide enough for any dependence.

    Args:
        rows: subset, ``by``, ``value``, ci_low, ci_high; one row for each pair of the first two.
        by: the column whose entries are compared.
        value: what is averaged.

    Returns:
        One row per entry of ``by``, in order of appearance: ``by``, ``value``, ci_low, ci_high, subsets (their number).
        NaN if an entry lacks a subset that another has, since such means cannot be compared.
    """
    everything = rows["subset"].nunique()
    records = []
    for entry, group in rows.groupby(by, sort=False):
        there = group.dropna(subset=[value])
        whole = len(there) == everything
        mean = there[value].mean() if whole else float("nan")
        power = 1 if are_cells(there).all() else 2
        below = ((there[value] - there["ci_low"]) ** power).sum(skipna=False) ** (1 / power) / everything
        above = ((there["ci_high"] - there[value]) ** power).sum(skipna=False) ** (1 / power) / everything
        records.append((entry, mean, mean - below, mean + above, len(there)))
    return pd.DataFrame(records, columns=[by, value, "ci_low", "ci_high", "subsets"])


def measure_over_subsets(summary: pd.DataFrame, measure: str) -> pd.DataFrame:
    """`mean_over_subsets` of another measure than accuracy: ``auc`` or ``brier``, with its own intervals.

    Judges and subsets for which the measure is not defined, such as the AUC of pairs, are left out.
    """
    known = summary.dropna(subset=[measure])
    known = known.assign(ci_low=known[f"{measure}_low"], ci_high=known[f"{measure}_high"])
    return mean_over_subsets(known, value=measure)


def standings(comparisons: pd.DataFrame) -> pd.DataFrame:
    """How one judge stands against each other one.

    Args:
        comparisons: benchmark, subset, other, difference, ci_low, ci_high, p_holm; of one judge (see `against`) in one
            setting.

    Returns:
        One row per benchmark and other judge: benchmark, other, difference (mean over subsets), ci_low, ci_high,
        subsets, better and worse (on how many subsets significantly), better_on and worse_on (their names), and
        standing: "wins" (better somewhere, worse nowhere), "loses" (the reverse), "mixed" (both), "open" (neither).
        Sorted by benchmark in order of appearance, then from the smallest difference up: the hardest opponent first.
    """
    records = []
    for benchmark, rows in comparisons.groupby("benchmark", sort=False):
        means = mean_over_subsets(rows, by="other", value="difference")
        for mean in means.sort_values("difference", kind="stable").to_dict("records"):
            own = rows[rows["other"] == mean["other"]]
            sure = own[significant(own)]
            better, worse = (sure.loc[sign * sure["difference"] > 0, "subset"].map(str).to_list() for sign in (1, -1))
            standing = ("mixed" if worse else "wins") if better else ("loses" if worse else "open")
            names = {"better_on": better, "worse_on": worse, "standing": standing}
            counts = {"better": len(better), "worse": len(worse)}
            records.append({"benchmark": benchmark} | mean | counts | names)
    return pd.DataFrame(records)


def spreads(summary: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations over example samples and over seeds, pooled over subsets.

    Args:
        summary: benchmark, subset, judge, n_samples, n_seeds, sd_samples, sd_seeds; of one setting.

    Returns:
        One row per benchmark and judge with more than one sample or seed: benchmark, judge, n_samples, n_seeds, and for
        each of ``sd_samples`` and ``sd_seeds`` the root of the mean square over subsets, with the largest one and its
        subset as ``sd_..._largest`` and ``sd_..._where``. NaN (and None) if it could not be estimated.
    """
    records = []
    repeated = summary[(summary["n_samples"] > 1) | (summary["n_seeds"] > 1)]
    for (benchmark, judge), rows in repeated.groupby(["benchmark", "judge"], sort=False):
        record = {"benchmark": benchmark, "judge": judge}
        record |= {name: int(rows[name].max()) for name in ("n_samples", "n_seeds")}
        for name in ("sd_samples", "sd_seeds"):
            known = rows.dropna(subset=[name])
            record[name] = float((known[name] ** 2).mean() ** 0.5) if len(known) else float("nan")
            record[f"{name}_largest"] = float(known[name].max()) if len(known) else float("nan")
            record[f"{name}_where"] = str(known["subset"].iloc[int(known[name].argmax())]) if len(known) else None
        records.append(record)
    return pd.DataFrame(records)
