from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, roc_auc_score
from statsmodels.stats.multitest import multipletests

from arm_lens.display import accuracies
from arm_lens.evaluation.statistics import (
    ClusterBootstrap,
    mean_estimate,
    paired_difference,
    permutation_test,
    variation,
    wilson,
)
from arm_lens.evaluation.tables import CONDITION, ITEM_FIELDS, SETTING, benchmark_tables, calibration_table, judged

SKILLS = {"zero_shot": 0.2, "length": 0.0, "few_shot": 0.8, "arm_reinforce": 1.4}
CONDITIONS = {"zero_shot": [(0, 0)], "length": [(0, 0)], "few_shot": [(0, 0), (1, 0), (2, 0)],
              "arm_reinforce": [(sample, seed) for sample in range(3) for seed in range(2)]}  # fmt: skip
FORMAL = ["n", "n_clusters", "difference", "ci_low", "ci_high", "p_permutation"]


def verdicts(benchmark, subset, judge, n_examples, sample, seed, *, n=60, per_cluster=1, unit="response", noise=0.0):
    """Made-up verdicts of one judge in one condition; the labels go by the item alone."""
    number = np.arange(n)
    label = (number * 7) % 10 < 5 if unit == "response" else np.ones(n, dtype=bool)
    name = f"{benchmark} {subset} {judge} {n_examples} {noise} {sample} {seed}"
    generator = np.random.default_rng(list(name.encode()))
    reward = SKILLS[judge] * np.where(label, 1, -1) + generator.normal(size=n)
    probability = np.full(n, np.nan) if judge == "length" else 1 / (1 + np.exp(-reward))
    return pd.DataFrame(
        {
            "benchmark": benchmark, "subset": subset, "unit": unit, "judge": judge, "n_examples": n_examples,
            "noise": noise, "sample": sample, "seed": seed, "item": [f"{subset}-{i:03}" for i in number],
            "cluster": [f"{subset}-{i // per_cluster}" for i in number], "label": label, "reward": reward,
            "probability": probability, "correct": np.where(reward == 0, 0.5, (reward > 0) == label).astype(float),
        }
    )  # fmt: skip


def run(**options):
    frames = [
        verdicts("criteria", subset, judge, n_examples, sample, seed, **options)
        for subset in ("polite", "brief", "safe")
        for judge in SKILLS
        for n_examples in ((0,) if judge in ("zero_shot", "length") else (5, 20))
        for sample, seed in CONDITIONS[judge]
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def items():
    pairs = [
        verdicts("pairs", "style", judge, 0, 0, 0, unit="pair", per_cluster=3) for judge in ("length", "zero_shot")
    ]
    return pd.concat([run(), *pairs], ignore_index=True)


@pytest.fixture(scope="module")
def tables(items):
    return benchmark_tables(items)


def only(table, **values):
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def one(table, **values):
    found = only(table, **values)
    assert len(found) == 1, found
    return found.iloc[0]


def test_accuracies_are_the_means_of_the_verdicts(items, tables):
    expected = items.groupby(list(CONDITION))["correct"].agg(["mean", "size"])
    found = tables.rows.set_index(list(CONDITION))
    assert len(found) == len(expected)
    assert found["accuracy"].to_numpy() == pytest.approx(expected["mean"].loc[found.index].to_numpy())
    assert (found["n"] == expected["size"].loc[found.index]).all()
    expected = items.groupby(list(SETTING))["correct"].mean()
    found = tables.summary.set_index(list(SETTING))
    assert found["accuracy"].to_numpy() == pytest.approx(expected.loc[found.index].to_numpy())


def test_every_row_has_a_number_of_items_and_an_interval_around_its_estimate(tables):
    for table, estimate in (
        (tables.rows, "accuracy"), (tables.summary, "accuracy"), (tables.comparisons, "difference"),
        (tables.calibration, "accuracy"),
    ):  # fmt: skip
        assert (table["n"] > 0).all()
        assert (table["ci_low"] <= table[estimate]).all()
        assert (table[estimate] <= table["ci_high"]).all()
        assert (table["ci_low"] < table["ci_high"]).all()


def test_rows_of_single_verdicts_have_wilsons_interval(tables):
    row = one(tables.rows, subset="brief", judge="few_shot", n_examples=5, sample=2)
    expected = binomtest(round(row["accuracy"] * 60), 60).proportion_ci(method="wilson")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high))


def test_the_summary_is_over_samples_and_seeds(items, tables):
    row = one(tables.summary, subset="safe", judge="arm_reinforce", n_examples=20)
    chosen = only(items, subset="safe", judge="arm_reinforce", n_examples=20).sort_values(["sample", "seed", "item"])
    correct = chosen["correct"].to_numpy().reshape(3, 2, 60)
    assert (row["n"], row["n_clusters"], row["n_samples"], row["n_seeds"]) == (60, 60, 3, 2)
    spread = variation(correct, ClusterBootstrap(np.arange(60)))
    assert (row["sd_samples"], row["sd_seeds"]) == pytest.approx((spread.sd_samples, spread.sd_seeds))
    expected = mean_estimate(correct, ClusterBootstrap(np.arange(60), resamples=20000))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high), abs=0.01)
    groups = [group for _, group in chosen.groupby(["sample", "seed"])]
    areas = [roc_auc_score(group["label"], group["reward"]) for group in groups]
    assert row["auc"] == pytest.approx(np.mean(areas))
    assert row["brier"] == pytest.approx(brier_score_loss(chosen["label"], chosen["probability"]))
    assert row["auc_low"] < row["auc"] < row["auc_high"]
    assert row["brier_low"] < row["brier"] < row["brier_high"]
    single = one(tables.summary, subset="safe", judge="zero_shot")
    assert np.isnan([single["sd_samples"], single["sd_seeds"]]).all()
    assert np.isnan(one(tables.summary, subset="safe", judge="length")["brier"])


def test_pairs_have_clusters_and_no_roc_area(tables):
    row = one(tables.summary, benchmark="pairs", judge="zero_shot")
    assert (row["n"], row["n_clusters"]) == (60, 20)
    assert np.isnan([row["auc"], row["auc_low"], row["auc_high"]]).all()
    assert np.isfinite(row["brier"])


def test_judges_are_compared_on_the_same_items(items, tables):
    row = one(tables.comparisons, subset="polite", judge="few_shot", other="arm_reinforce", n_examples=5)
    few, arm = (
        only(items, subset="polite", judge=judge, n_examples=5)
        .sort_values(["sample", "seed", "item"])["correct"]
        .to_numpy()
        for judge in ("few_shot", "arm_reinforce")
    )
    few, arm = few.reshape(3, 1, 60), arm.reshape(3, 2, 60)
    expected = paired_difference(few, arm, ClusterBootstrap(np.arange(60), resamples=20000))
    assert row["difference"] == pytest.approx(few.mean() - arm.mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high), abs=0.015)
    assert row["p_permutation"] == pytest.approx(permutation_test(few, arm, np.arange(60)))
    assert np.isnan(row["p_mcnemar"])


def test_mcnemars_test_is_for_single_verdicts_on_items_that_stand_alone(tables):
    row = one(tables.comparisons, subset="polite", judge="zero_shot", other="length", n_examples=0)
    assert row["p_mcnemar"] == pytest.approx(row["p_permutation"])
    assert np.isnan(one(tables.comparisons, benchmark="pairs")["p_mcnemar"])


def test_judges_without_examples_meet_the_others_at_every_number_of_examples(tables):
    met = only(tables.comparisons, benchmark="criteria", subset="safe").groupby("n_examples").size()
    assert met.to_dict() == {0: 1, 5: 6, 20: 6}
    first, second = (
        one(tables.comparisons, subset="safe", judge="zero_shot", other="length", n_examples=n)[FORMAL] for n in (0, 20)
    )
    assert first.equals(second)


@pytest.mark.slow
def test_judges_with_examples_do_not_meet_where_they_were_not_run(items):
    """A judge that was run at 0 and at 5 examples is varied; its row at 0 does not stand in for one at 20."""
    more = pd.concat([items, only(run(), judge="few_shot", n_examples=5).assign(n_examples=0)], ignore_index=True)
    more = more[~((more["judge"] == "few_shot") & (more["n_examples"] == 20))]
    comparisons = benchmark_tables(more).comparisons
    there = comparisons[(comparisons[["judge", "other"]] == "few_shot").any(axis=1)]
    assert sorted(there["n_examples"].unique()) == [0, 5]


@pytest.mark.slow
def test_holms_correction_runs_over_the_subsets(tables):
    chosen = only(tables.comparisons, judge="zero_shot", other="arm_reinforce", n_examples=20)
    assert chosen["subset"].tolist() == ["polite", "brief", "safe"]
    assert chosen["p_holm"].to_numpy() == pytest.approx(multipletests(chosen["p_permutation"], method="holm")[1])


def test_calibration_of_pairs_is_that_of_the_preferred_side(items, tables):
    pairs = only(items, benchmark="pairs", judge="zero_shot")
    confidence = np.maximum(pairs["probability"], 1 - pairs["probability"])
    found = only(tables.calibration, benchmark="pairs")
    assert (found["bin"] >= 5).all()
    assert found["n"].sum() == 60
    assert (found["n"] * found["confidence"]).sum() == pytest.approx(confidence.sum())
    assert (found["n"] * found["accuracy"]).sum() == pytest.approx(pairs["correct"].sum())


def test_calibration_of_responses_is_that_of_the_label(items, tables):
    chosen = only(items, subset="brief", judge="arm_reinforce", n_examples=20)
    found = only(tables.calibration, subset="brief", judge="arm_reinforce", n_examples=20)
    inside = chosen[(chosen["probability"] >= 0.7) & (chosen["probability"] < 0.8)]
    row = one(found, bin=7)
    assert (row["n"], row["accuracy"]) == (len(inside), pytest.approx(inside["label"].mean()))
    sizes = inside["item"].value_counts()
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(row["accuracy"], effective))
    assert set(tables.calibration["judge"]) == {"zero_shot", "few_shot", "arm_reinforce"}


@pytest.mark.slow
def test_no_number_depends_on_the_order_of_the_rows(items, tables):
    shuffled = benchmark_tables(items.sample(frac=1, random_state=0)[list(reversed(ITEM_FIELDS))])
    again = benchmark_tables(items)
    for name, keys in (
        ("rows", CONDITION), ("summary", SETTING), ("calibration", (*SETTING, "bin")),
    ):  # fmt: skip
        pd.testing.assert_frame_equal(getattr(again, name), getattr(tables, name), check_exact=True)
        ordered = [getattr(one, name).sort_values(list(keys), ignore_index=True) for one in (tables, shuffled)]
        pd.testing.assert_frame_equal(*ordered, check_exact=True)
    pd.testing.assert_frame_equal(again.comparisons, tables.comparisons, check_exact=True)
    pairs = {
        (row.subset, row.n_examples, frozenset((row.judge, row.other))): (
            abs(row.difference),
            row.p_permutation,
            row.p_holm,
        )
        for row in tables.comparisons.itertuples()
    }
    for row in shuffled.comparisons.itertuples():
        expected = pairs[row.subset, row.n_examples, frozenset((row.judge, row.other))]
        assert (abs(row.difference), row.p_permutation, row.p_holm) == pytest.approx(expected, abs=1e-12)


def test_tables_are_in_the_order_of_first_appearance(tables):
    assert tables.rows["benchmark"].unique().tolist() == ["criteria", "pairs"]
    assert tables.rows["subset"].unique().tolist() == ["polite", "brief", "safe", "style"]
    first = only(tables.summary, subset="polite")
    assert first["judge"].tolist() == ["zero_shot", "length", "few_shot", "few_shot", "arm_reinforce", "arm_reinforce"]
    assert first["n_examples"].tolist() == [0, 0, 5, 20, 5, 20]


def test_samples_without_every_seed_still_have_an_interval_but_no_separate_variances(items):
    lead = items["judge"] == "arm_reinforce"
    some = items[~(lead & (items["sample"] == 1) & (items["seed"] == 1))]
    row = one(benchmark_tables(some).summary, subset="brief", judge="arm_reinforce", n_examples=20)
    assert (row["n_samples"], row["n_seeds"]) == (3, 2)
    assert np.isnan([row["sd_samples"], row["sd_seeds"]]).all()
    assert row["ci_low"] < row["accuracy"] < row["ci_high"]


@pytest.mark.slow
def test_where_each_sample_has_a_seed_of_its_own_they_vary_as_one(items):
    own = items[(items["judge"] != "arm_reinforce") | (items["sample"] == items["seed"])]
    same = own.assign(seed=own["seed"].where(own["judge"] != "arm_reinforce", 0))
    tied, plain = (
        one(benchmark_tables(some).summary, subset="brief", judge="arm_reinforce", n_examples=20)
        for some in (own, same)
    )
    assert (tied["n_samples"], tied["n_seeds"]) == (2, 1) and np.isnan(tied["sd_seeds"])
    assert tied["sd_samples"] == plain["sd_samples"] and tied["ci_low"] == plain["ci_low"]


def test_without_probabilities_the_calibration_table_is_empty_and_has_its_columns(items, tables):
    empty = calibration_table(judged(only(items, judge="length")))
    assert empty.empty
    assert empty.columns.tolist() == tables.calibration.columns.tolist()


def test_one_judge_is_compared_with_nobody(items, tables):
    alone = benchmark_tables(only(items, judge="length")).comparisons
    assert alone.empty
    assert alone.columns.tolist() == tables.comparisons.columns.tolist()


def edited(items, place, **values):
    items = items.copy()
    for name, value in values.items():
        items.loc[place, name] = value
    return items


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda items: items.drop(columns="cluster"), "lacks the column 'cluster'"),
        (lambda items: items.iloc[:0], "is empty"),
        (
            lambda items: pd.concat([items, items.iloc[[5]]]),
            "item 'polite-005' of .* occurs twice in sample 0, seed 0",
        ),
        (lambda items: items.drop(index=3), "'polite-003' is there for .*length.* not for .*zero_shot"),
        (
            lambda items: items.drop(index=60 * 3 + 7),
            "'polite-007' is there for .*first sample.* not for .*sample 1, seed 0",
        ),
        (lambda items: edited(items, 4, label=not items.loc[4, "label"]), "'polite-004' .* another cluster or label"),
        (lambda items: edited(items, 4, cluster="elsewhere"), "'polite-004' .* another cluster or label"),
        (lambda items: edited(items, 9, correct=0.7), "'polite-009' .* 0.5 for a tie, not 0.7"),
    ],
    ids=["column", "empty", "twice", "other judge", "other sample", "label", "cluster", "correct"],
)
def test_errors_name_what_is_wrong_with_the_verdicts(items, spoil, message):
    with pytest.raises(ValueError, match=message):
        benchmark_tables(spoil(items))


def test_a_judge_that_lacks_a_subset_has_no_mean():
    rows = [("a", "easy", 0.9), ("a", "hard", 0.5), ("b", "easy", 0.9)]
    summary = pd.DataFrame(rows, columns=["judge", "subset", "accuracy"]).assign(benchmark="x", n_examples=0, noise=0.0)
    means = accuracies(summary)["x"]
    assert means["a"] == pytest.approx(0.7) and np.isnan(means["b"])
