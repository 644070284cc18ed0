"""From verdicts to the tables of a benchmark run: rows, summary, comparisons, calibration.

An item is judged by several judges, each with several numbers of examples and shares of noise (a *setting*), and in each
setting under several samples and seeds (its *conditions*). Every number in these tables derives from one table of verdicts
alone: the resamples of a subset's clusters have a seed made of its name, are the same for all judges, and follow the sorted
item ids, so that the order of the rows makes no difference. The tables list benchmarks, subsets and judges in the order in
which they first appear, and numbers (n_examples, noise, sample, seed, bin) ascending.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from arm_lens.display import accuracies, card, frame_table, frame_text, small_print
from arm_lens.evaluation.statistics import (
    ClusterBootstrap,
    Variation,
    brier_score,
    holm,
    mcnemar_test,
    mean_estimate,
    paired_difference,
    permutation_test,
    reliability,
    roc_area,
    stable_seed,
    variation,
)
from arm_lens.evaluation.statistics.calibration import COLUMNS
from arm_lens.frames import ITEMS, checked

SUBSET = ("benchmark", "subset", "unit")
SETTING = (*SUBSET, "judge", "n_examples", "noise")
CONDITION = (*SETTING, "sample", "seed")
ITEM_FIELDS = (*CONDITION, "item", "cluster", "label", "reward", "probability", "correct")


@dataclass(frozen=True, eq=False)
class BenchmarkTables:
    """The tables of a run; the functions of the same names document their columns."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    calibration: pd.DataFrame

    def __repr__(self) -> str:
        text = frame_text(accuracies(self.summary))
        return f"BenchmarkTables; accuracy, mean over the subsets of a benchmark\n{text}"

    def _repr_html_(self) -> str:
        lengths = {name: f"{len(table)} rows" for name, table in vars(self).items()}
        parts = [small_print("Accuracy, mean over the subsets of a benchmark."), frame_table(accuracies(self.summary))]
        return card("Tables of a benchmark", lengths, *parts)


@dataclass(frozen=True, eq=False)
class Judged:
    """One judge in one setting on the items of one subset, sorted by id."""

    key: dict[str, Any]
    """The columns of `SETTING`."""
    conditions: list[tuple[int, int]]
    """Sample and seed of each condition."""
    items: np.ndarray
    label: Bool[np.ndarray, " item"]
    bootstrap: ClusterBootstrap
    correct: Float[np.ndarray, "condition item"]
    reward: Float[np.ndarray, "condition item"]
    probability: Float[np.ndarray, "condition item"]

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len({sample for sample, _ in self.conditions})

    @property
    def n_seeds(self) -> int:
        """Number of seeds; one if each sample has a single seed of its own."""
        return 1 if self.n_samples == len(self.conditions) else len({seed for _, seed in self.conditions})

    @property
    def is_crossed(self) -> bool:
        """Whether every sample has every seed, or each a single one, whose effect then counts as the sample's."""
        return self.n_samples * self.n_seeds == len(self.conditions)

    def crossed(self, values: Float[np.ndarray, "condition item"]) -> Float[np.ndarray, "sample seed item"]:
        """``values`` by sample and seed; if some are missing, every condition counts as a sample of its own."""
        return values.reshape(self.n_samples, self.n_seeds, -1) if self.is_crossed else values[:, None]


def benchmark_tables(items: pd.DataFrame) -> BenchmarkTables:
    """All tables of a run.

    Args:
        items: one row per item and condition, with the columns of `ITEM_FIELDS`: label (pairs: True), reward (pairs: of
            the chosen response minus that of the rejected one), probability (of the label being True, or NaN), correct
            (1, 0, or 0.5 for a tie), cluster (the same for items that belong together).

    Raises:
        ValueError: naming item and judge, if a reward is not a finite number, a probability not between 0 and 1, or only some
            items of a judge have one; if a column is missing, there are no rows, an item occurs twice in a condition or
            not in all conditions of a judge, has two clusters or two labels, or two judges have judged different items.
    """
    settings = judged(items)
    return BenchmarkTables(
        rows=rows_table(settings),
        summary=summary_table(settings),
        comparisons=comparison_table(settings),
        calibration=calibration_table(settings),
    )


def rows_table(settings: list[Judged]) -> pd.DataFrame:
    """One row per condition: the columns of `CONDITION`, accuracy, ci_low, ci_high, n."""
    records = [
        {**one.key, "sample": sample, "seed": seed}
        | mean_estimate(correct[None, None], one.bootstrap).columns("accuracy", "ci")
        | {"n": len(correct)}
        for one in settings
        for (sample, seed), correct in zip(one.conditions, one.correct, strict=True)
    ]
    return pd.DataFrame(records)


def summary_table(settings: list[Judged]) -> pd.DataFrame:
    """One row per setting, over samples and seeds.

    Returns:
        The columns of `SETTING`; accuracy, ci_low, ci_high; n (items), n_clusters, n_samples, n_seeds; sd_samples and
        sd_seeds, the standard deviations of `Variation` (0 if the estimated variance is negative; NaN if there is one
        sample, or one seed, or not every seed under every sample); auc, auc_low, auc_high (NaN for pairs); brier,
        brier_low, brier_high (NaN if the judge gives no probabilities).
    """
    records = []
    for one in settings:
        correct = one.crossed(one.correct)
        spread = variation(correct, one.bootstrap) if one.is_crossed else Variation(np.nan, np.nan)
        counts = {
            "n": len(one.items),
            "n_clusters": len(one.bootstrap),
            "n_samples": one.n_samples,
            "n_seeds": one.n_seeds,
        }
        records.append(
            one.key
            | mean_estimate(correct, one.bootstrap).columns("accuracy", "ci")
            | counts
            | {"sd_samples": spread.sd_samples, "sd_seeds": spread.sd_seeds}
            | roc_area(one.crossed(one.reward), one.label, one.bootstrap).columns("auc")
            | brier_score(one.crossed(one.probability), one.label, one.bootstrap).columns("brier")
        )
    return pd.DataFrame(records)


def comparison_table(settings: list[Judged]) -> pd.DataFrame:
    """One row per subset, setting and pair of judges: is the one better than the other on the same items?

    A judge that takes no examples (n_examples is always 0) is compared at every n_examples and noise.

    Returns:
        benchmark, subset, unit, n_examples, noise, judge, other (each pair once; ``judge`` appears first), difference
        (accuracy of judge minus that of other), ci_low, ci_high, n, n_clusters, p_permutation, p_mcnemar (NaN unless
        both have one 0/1 verdict per item and every cluster is one item), p_holm (p_permutation, corrected over the
        subsets of the benchmark for the same two judges and setting).

    Raises:
        ValueError: naming an item that only one of two judges has judged.
    """
    key = [*SUBSET, "n_examples", "noise", "judge", "other"]
    records = [
        {
            **{name: one.key[name] for name in SUBSET},
            **{"n_examples": n_examples, "noise": noise, "judge": one.key["judge"], "other": other.key["judge"]},
            **_compared(one, other),
        }
        for _, group in groupby(settings, key=lambda one: [one.key[name] for name in SUBSET])
        for (n_examples, noise), contestants in _contests(list(group))
        for one, other in combinations(contestants, 2)
    ]
    values = ["difference", "ci_low", "ci_high", "n", "n_clusters", "p_permutation", "p_mcnemar"]
    table = pd.DataFrame(records, columns=[*key, *values])
    over_subsets = table.groupby([name for name in key if name != "subset"], sort=False)["p_permutation"]
    return table.assign(p_holm=over_subsets.transform(lambda p_values: holm(p_values.to_numpy())).astype(float))


def calibration_table(settings: list[Judged]) -> pd.DataFrame:
    """The reliability tables of the judges that give probabilities, over all their conditions.

    Pairs count by the side the judge prefers: confidence max(p, 1 - p), and whether that side is the chosen one. Single
    responses count by P(label) and whether the label is True.

    Returns:
        The columns of `SETTING`; bin, low, high, confidence, accuracy, ci_low, ci_high, n (verdicts) of `reliability`.
    """
    columns = [*SETTING, *COLUMNS]
    tables = []
    for one in settings:
        given = one.probability.ravel()
        if np.isnan(given).any():
            continue
        happened = np.tile(one.label, len(one.conditions)).astype(float)
        if one.key["unit"] == "pair":
            happened = np.where(given == 0.5, 0.5, (given > 0.5) == happened.astype(bool))
            given = np.maximum(given, 1 - given)
        table = reliability(given, happened, np.tile(one.bootstrap.clusters, len(one.conditions)))
        tables.append(table.assign(**one.key)[columns])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def judged(items: pd.DataFrame) -> list[Judged]:
    """The table of verdicts as arrays, one `Judged` per setting, in the order of the tables."""
    items = _checked(items)
    for name in ("benchmark", "subset", "unit", "judge"):
        items[name] = pd.Categorical(items[name], categories=items[name].unique())
    items = items.sort_values([*CONDITION, "item"], kind="stable", ignore_index=True)
    shared: dict[tuple[Any, ...], ClusterBootstrap] = {}
    return [
        _one_setting(dict(zip(SETTING, key, strict=True)), group, shared)
        for key, group in items.groupby(list(SETTING), sort=False, observed=True)
    ]


def _checked(items: pd.DataFrame) -> pd.DataFrame:
    items = checked(items, ITEMS.needing(*ITEM_FIELDS, key=()))[list(ITEM_FIELDS)]
    wrong = ~items["correct"].isin((0.0, 0.5, 1.0))
    if wrong.any():
        row = items[wrong].iloc[0]
        raise ValueError(f"{_named(row)}: correct is 1, 0, or 0.5 for a tie, not {row['correct']}")
    wrong = items["reward"].isna()
    if wrong.any():
        row = items[wrong].iloc[0]
        raise ValueError(f"{_named(row)}: the reward is {row['reward']}, not a finite number; that is no verdict")
    given = items["probability"]
    wrong = given.isna() & given.notna().groupby([items[name] for name in SETTING]).transform("any")
    if wrong.any():
        raise ValueError(
            f"{_named(items[wrong].iloc[0])} has no probability, but other items of the same judge have one"
        )
    twice = items.duplicated([*CONDITION, "item"])
    if twice.any():
        row = items[twice].iloc[0]
        raise ValueError(f"{_named(row)} occurs twice in sample {row['sample']}, seed {row['seed']}")
    facts = items.drop_duplicates([*SUBSET, "item", "cluster", "label"])
    differ = facts.duplicated([*SUBSET, "item"])
    if differ.any():
        raise ValueError(f"{_named(facts[differ].iloc[0])} has another cluster or label elsewhere in this subset")
    return items.copy()


def _named(row: Any) -> str:
    return f"item {row['item']!r} of {row['benchmark']}, {row['subset']}, judge {row['judge']}"


def _one_setting(key: dict[str, Any], group: pd.DataFrame, shared: dict[tuple[Any, ...], ClusterBootstrap]) -> Judged:
    where = f"{key['benchmark']}, {key['subset']}, judge {key['judge']}"
    conditions: Any = group.groupby(["sample", "seed"])
    by_condition = {(int(sample), int(seed)): rows for (sample, seed), rows in conditions}
    first = next(iter(by_condition.values()))
    ids = first["item"].to_numpy()
    for (sample, seed), rows in by_condition.items():
        names = f"{where}, first sample and seed", f"{where}, sample {sample}, seed {seed}"
        _same_items(ids, rows["item"].to_numpy(), *names)
    clusters: Int[np.ndarray, " item"] = np.unique(first["cluster"].to_numpy().astype(str), return_inverse=True)[1]
    subset = tuple(key[name] for name in SUBSET)
    bootstrap = ClusterBootstrap(clusters, seed=stable_seed(*subset))
    values = group[["correct", "reward", "probability"]].to_numpy(dtype=float).T.reshape(3, len(by_condition), -1)
    return Judged(
        key,
        list(by_condition),
        ids,
        first["label"].to_numpy(dtype=bool),
        shared.setdefault((*subset, clusters.tobytes()), bootstrap),
        *values,
    )


def _same_items(own: np.ndarray, others: np.ndarray, name: str, other_name: str) -> None:
    if not np.array_equal(own, others):
        odd = min(set(own) ^ set(others), key=str)
        there, absent = (name, other_name) if odd in set(own) else (other_name, name)
        raise ValueError(f"only the same items can be compared: {odd!r} is there for {there}, but not for {absent}")


def _contests(settings: list[Judged]) -> Iterator[tuple[tuple[int, float], list[Judged]]]:
    """The judges that are compared in each setting; those without examples at the nearest noise they were run with."""
    varied = {one.key["judge"] for one in settings if one.key["n_examples"] > 0}
    unvaried = [one for one in settings if one.key["judge"] not in varied]
    for n_examples, noise in sorted({(one.key["n_examples"], one.key["noise"]) for one in settings}):
        fixed = {one.key["judge"]: one for one in sorted(unvaried, key=lambda one: -abs(one.key["noise"] - noise))}
        here = [
            one
            for one in settings
            if (one.key["n_examples"], one.key["noise"]) == (n_examples, noise)
            or (n_examples > 0 and fixed.get(one.key["judge"]) is one)
        ]
        yield (n_examples, noise), here


def _compared(one: Judged, other: Judged) -> dict[str, float]:
    where = f"{one.key['benchmark']}, {one.key['subset']}"
    _same_items(one.items, other.items, f"{where}, {one.key['judge']}", other.key["judge"])
    verdicts = one.crossed(one.correct), other.crossed(other.correct)
    found = paired_difference(*verdicts, one.bootstrap)
    single = all(part.shape[:2] == (1, 1) and np.isin(part, (0.0, 1.0)).all() for part in verdicts)
    applies = single and len(one.bootstrap) == found.n
    return found.columns("difference", "ci") | {
        **{"n": found.n, "n_clusters": len(one.bootstrap)},
        "p_permutation": permutation_test(*verdicts, one.bootstrap.clusters),
        "p_mcnemar": mcnemar_test(verdicts[0][0, 0], verdicts[1][0, 0]) if applies else np.nan,
    }
