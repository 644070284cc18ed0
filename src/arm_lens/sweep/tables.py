"""The tables of a sweep: a row per run, the same over samples and seeds, and the mean at each value of each axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from arm_lens.evaluation.statistics import mean_estimate, roc_area
from arm_lens.evaluation.tables import judged, summary_table
from arm_lens.storage import Store
from arm_lens.sweep.grid import JUDGE

SETTING = ("benchmark", "subset", "n_examples", "noise")
RUN = ["benchmark", "subset", "unit", "n_examples", "noise", "sample", "seed"]
FACTS = ["fit_accuracy", "n_heads", "search_reward", "search_steps", "search_passes"]
ESTIMATES = ("accuracy", "ci_low", "ci_high", "auc", "auc_low", "auc_high")


def runs_and_summary(parts: pd.DataFrame, store: Store, axes: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of finished runs, and the same over samples and seeds where all of them are finished.

    Returns:
        *Runs*, a row per finished part, subset and unit: model, judge, the other axes; benchmark, subset, unit, n_examples,
        noise, sample, seed; n (items), accuracy, ci_low, ci_high; auc, auc_low, auc_high (NaN for pairs); fit_accuracy, on
        the examples; n_heads; search_reward and search_steps, at the end of the search, and search_passes, in forward passes
        of all examples (`arm_lens.selection.Selection.passes`). NaN if a judge has none.

        *Summary*, a row per setting and unit: the same averaged, without sample, seed and those of the search; n_samples,
        n_seeds, sd_samples and sd_seeds as in `arm_lens.evaluation.tables.summary_table`.
    """
    states = parts.groupby(["model", "label", *SETTING], sort=False)["state"]
    whole = states.transform(lambda some: (some == "done").all()).astype(bool)
    runs, summary = [], []
    for _, own in parts[parts["state"] == "done"].groupby(["model", "label"], sort=False):
        read = {digest: _read(digest, store) for digest in own["digest"]}
        runs.append(_placed(_runs(_items(read.values())), own, read.values(), axes))
        if some := [read[digest] for digest in own.loc[whole[own.index], "digest"]]:
            summary.append(_placed(summary_table(judged(_items(some))), own, some, axes))
    place = ["model", "judge", *axes[1:], "benchmark", "subset", "unit", "n_examples", "noise"]
    return (
        _joined(runs, [*place, "sample", "seed", "n", *ESTIMATES, *FACTS]),
        _joined(
            summary,
            [*place, "n", "n_samples", "n_seeds", *ESTIMATES, "sd_samples", "sd_seeds", "fit_accuracy", "n_heads"],
        ),
    )


def _runs(items: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {**one.key, "sample": sample, "seed": seed, "n": len(correct)}
        | mean_estimate(correct[None, None], one.bootstrap).columns("accuracy", "ci")
        | roc_area(reward[None, None], one.label, one.bootstrap).columns("auc")
        for one in judged(items)
        for (sample, seed), correct, reward in zip(one.conditions, one.correct, one.reward, strict=True)
    ]
    return pd.DataFrame(rows)


def _joined(tables: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def effects_table(summary: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The mean accuracy of the reward models at each value of an axis, over all settings that every value has.

    A setting is a combination of all other axes. One that some value of the axis lacks, since it failed or is not finished,
    counts for none of them, so that all values of an axis are compared over the same settings. Settings have items in
    common; so the ends of a mean's interval are the means of theirs, which is wide enough for any dependence.

    Returns:
        benchmark, axis, value (as text), accuracy, ci_low, ci_high, settings (how many), left_out (how many settings are
        not in the means). One row per value of each axis that has several; accuracy is NaN if no setting has all values.
    """
    names = [*axes, "subset", "n_examples", "noise"]
    columns = ["benchmark", "axis", "value", "accuracy", "ci_low", "ci_high", "settings", "left_out"]
    rows: list[dict[str, Any]] = []
    for benchmark, own in summary[summary["judge"] == JUDGE].groupby("benchmark", sort=False):
        for axis in names:
            values = list(own[axis].unique())
            if len(values) < 2:
                continue
            others = own.groupby([name for name in names if name != axis], sort=False)
            has_all = others[axis].transform("nunique") == len(values)
            left_out = others.ngroups - own[has_all].groupby([name for name in names if name != axis]).ngroups
            for value in sorted(values) if axis in ("n_examples", "noise") else values:
                some = own[has_all & (own[axis] == value)]
                means = {name: float(some[name].mean()) if len(some) else np.nan for name in columns[3:6]}
                text = f"{value:g}" if axis in ("n_examples", "noise") else str(value)
                rows.append({"benchmark": benchmark, "axis": axis, "value": text, **means}
                            | {"settings": len(some), "left_out": left_out})  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


Read: TypeAlias = tuple[pd.DataFrame, pd.DataFrame]
"""The items of a part; and what is known of its fit, once for each subset and unit that it was tested on."""


def _read(digest: str, store: Store) -> Read:
    items, record = store.read_frame(digest)
    search = record.get("history") or {}
    rewards = search.get("reward") or [None]
    known = {name: record["fit"][name] for name in ("fit_accuracy", "n_heads")}
    known |= {"search_reward": rewards[-1], "search_steps": len(rewards) - 1 if search else None}
    known["search_passes"] = record.get("passes")
    return items, items[RUN].drop_duplicates().assign(**known).astype(dict.fromkeys(FACTS, float))


def _items(read: Iterable[Read]) -> pd.DataFrame:
    return pd.concat([items for items, _ in read], ignore_index=True)


def _placed(rows: pd.DataFrame, parts: pd.DataFrame, read: Iterable[Read], axes: Sequence[str]) -> pd.DataFrame:
    """The rows of one judge with its place on the axes, and means of what is known of its fits."""
    facts, by = pd.concat([some for _, some in read], ignore_index=True), [name for name in RUN if name in rows]
    place = {name: parts[name].iloc[0] for name in ("judge", *axes)}
    return rows.merge(facts.groupby(by, sort=False)[FACTS].mean().reset_index(), on=by, how="left").assign(**place)
