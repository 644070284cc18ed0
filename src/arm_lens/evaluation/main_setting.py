"""The main comparison of a benchmark: the rows of its tables that a reader compares.

A run has a main comparison and variations of the number of examples or of the share of flipped labels. The main comparison of
a benchmark has its least noise (none, as a rule) and the number of examples at which most judges and subsets were measured; a
judge that reads no examples is in it with its only measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


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
        noise = float(rows["noise"].min())
        sizes = rows.loc[rows["noise"] == noise, "n_examples"]
        learning = sizes[sizes > 0]
        known = sizes if learning.empty else learning
        chosen = known.mode().max() if n_examples is None or n_examples not in set(known) else n_examples
        settings[str(benchmark)] = MainSetting(int(chosen), noise)
    return settings


def main_rows(table: pd.DataFrame, settings: dict[str, MainSetting]) -> pd.DataFrame:
    """The rows of the main comparison, of ``summary``, ``comparisons`` or ``calibration``.

    A judge without a row at the benchmark's number of examples has its rows without examples.
    """
    if table.empty:
        return table
    who = ["benchmark", *(column for column in ("judge", "other") if column in table.columns)]
    noise = {name: one.noise for name, one in settings.items()}
    size = {name: one.n_examples for name, one in settings.items()}
    here = table[table["noise"] == table["benchmark"].map(noise)].reset_index(drop=True)
    at_size = here["n_examples"] == here["benchmark"].map(size)
    learns = at_size.groupby([here[column] for column in who]).transform("any")
    return here[at_size | (~learns & (here["n_examples"] == 0))].reset_index(drop=True)


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
