"""The main comparison of a benchmark: the rows of its tables that a reader compares.

A run has a main comparison and variations of the number of examples or of the share of flipped labels. The main comparison of
a benchmark has the least noise among the examples that judges were given (none, as a rule) and the number of examples at
which most judges and subsets were measured; a judge that reads no examples is in it with its only measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from arm_lens.evaluation.hacking import SEPARATOR

VERDICTS = " verdicts"
"""Ends the name of a benchmark in which the responses of pairs are judged one by one."""
EVERY_SUBSET = "all"
"""The subset of examples that are of no subset of the test."""


@dataclass(frozen=True)
class MainSetting:
    """What the judges of a comparison had to learn from."""

    n_examples: int
    noise: float


def main_settings(summary: pd.DataFrame, *, n_examples: int | None = None) -> dict[str, MainSetting]:
    """The setting of each benchmark's main comparison.

    Args:
        summary: benchmark, subset, judge, n_examples, noise.
        n_examples: the number of examples in benchmarks that have it.
    """
    settings = {}
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        rows = _learning(rows)
        noise = float(rows["noise"].min())
        sizes = rows.loc[rows["noise"] == noise, "n_examples"]
        chosen = sizes.mode().max() if n_examples is None or n_examples not in set(sizes) else n_examples
        settings[str(benchmark)] = MainSetting(int(chosen), noise)
    return settings


def main_rows(table: pd.DataFrame, settings: dict[str, MainSetting]) -> pd.DataFrame:
    """The rows of the main comparison, of ``summary``, ``comparisons`` or ``calibration``.

    A judge without a row at the benchmark's number of examples has its rows without examples.
    """
    if table.empty:
        return table
    who = [table[column] for column in ("benchmark", "judge", "other") if column in table.columns]
    noise = table["benchmark"].map({name: one.noise for name, one in settings.items()})
    size = table["benchmark"].map({name: one.n_examples for name, one in settings.items()})
    main = (table["n_examples"] == size) & (table["noise"] == noise)
    learns = main.groupby(who).transform("any")
    return table[main | (~learns & _least_noise(table, who))].reset_index(drop=True)


def least_noise(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows with the least noise among the examples of their benchmark, and those of judges without examples."""
    least = _learning(summary).groupby("benchmark")["noise"].min()
    return summary[(summary["n_examples"] == 0) | (summary["noise"] == summary["benchmark"].map(least))]


def _least_noise(table: pd.DataFrame, who: list[pd.Series]) -> pd.Series:
    """Which rows are of judges without examples, at their least noise: they have no labels that could be flipped."""
    without = table["n_examples"] == 0
    return without & (table["noise"] == table["noise"].where(without).groupby(who).transform("min"))


def _learning(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of judges that were given examples, or all rows if there are none."""
    learning = rows[rows["n_examples"] > 0]
    return rows if learning.empty else learning


def tested_like(fits: pd.DataFrame, main: pd.DataFrame) -> pd.DataFrame:
    """The accuracy on the test that the accuracy of fits on their own examples can be held against.

    The examples are judged as single responses, so the test is, too, where that was done (by all judges but ranked ones). Of
    examples that serve several subsets of the test, such as the cells of a bias, it is the mean over those subsets.

    Args:
        fits: benchmark, judge, subset (of the examples).
        main: the main rows of the summary.

    Returns:
        benchmark, judge, subset and accuracy, once for each benchmark, judge and subset of fits; NaN if there is none.
    """
    found = fits[["benchmark", "judge", "subset"]].drop_duplicates()
    accuracies = []
    for benchmark, judge, subset in found.itertuples(index=False):
        own = main[main["judge"] == judge]
        singles = own[own["benchmark"] == f"{benchmark}{VERDICTS}"]
        own = own[own["benchmark"] == benchmark] if singles.empty else singles
        part = own[own["subset"] == subset]
        if part.empty:
            part = own if subset == EVERY_SUBSET else own[own["subset"].str.startswith(f"{subset}{SEPARATOR}")]
        accuracies.append(part["accuracy"].mean())
    return found.assign(accuracy=accuracies)


def against(comparisons: pd.DataFrame, judge: str, other: str | None = None) -> pd.DataFrame:
    """The comparisons of ``judge`` with another, or with all, each as ``judge`` minus ``other``.

    Args:
        comparisons: judge, other, difference, ci_low, ci_high and more; each pair of judges once, either way round.
        judge: stands in ``judge`` of what is returned.
        other: likewise in ``other``; all of them if None.
    """
    if comparisons.empty:
        return comparisons
    first = comparisons[comparisons["judge"] == judge]
    second = comparisons[(comparisons["other"] == judge) & (comparisons["judge"] != judge)]
    turned = second.assign(
        judge=second["other"], other=second["judge"], difference=-second["difference"],
        ci_low=-second["ci_high"], ci_high=-second["ci_low"],
    )  # fmt: skip
    both = pd.concat([first, turned]).sort_index(kind="stable")
    return both if other is None else both[both["other"] == other]
