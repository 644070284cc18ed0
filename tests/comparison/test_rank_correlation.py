"""Rank correlations of scores, and how measures agree."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from arm_lens import HeadScores
from arm_lens.comparison import agreement, rank_correlation
from arm_lens.evaluation.statistics import spearman


def correlated(n, rho, rng, ties=False):
    x = rng.standard_normal((n, 2)) @ np.linalg.cholesky([[1, rho], [rho, 1]]).T
    return (np.maximum(x, 0.3) if ties else x).T


@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_scipys(ties):
    rng = np.random.default_rng(0)
    for rho in (-0.8, 0.0, 0.6):
        one, two = correlated(48, rho, rng, ties)
        assert spearman(one, two).spearman == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_covers_the_truth_in_nineteen_of_twenty_simulations(rho, ties):
    rng = np.random.default_rng(1)
    truth = stats.spearmanr(*correlated(100_000, rho, rng, ties)).statistic
    found = [spearman(*correlated(48, rho, rng, ties)) for _ in range(300)]
    covered = np.mean([one.ci_low <= truth <= one.ci_high for one in found])
    assert 0.91 <= covered <= 0.995


def test_scores_that_are_mostly_ties_have_a_wider_interval_than_bonett_and_wrights():
    one = np.r_[np.zeros(40), np.arange(8.0)]
    two = np.r_[np.zeros(39), 1.0, np.arange(8.0) ** 2]
    found = spearman(one, two)
    error = np.sqrt((1 + found.spearman**2 / 2) / 45)
    assert found.ci_low < np.tanh(np.arctanh(found.spearman) - 1.96 * error) - 0.01


def test_perfect_agreement_of_few_heads_leaves_room_for_doubt():
    few, many = (spearman(np.arange(float(n)), np.arange(float(n))) for n in (5, 200))
    assert few.spearman == few.ci_high == many.spearman == 1
    assert few.ci_low < 0.5
    assert many.ci_low > 0.99


def test_heads_that_were_not_measured_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    one, two = correlated(48, 0.5, rng)
    one[:5], two[3:9] = np.nan, np.nan
    found = spearman(one, two)
    assert found.n == 39
    assert found.spearman == pytest.approx(stats.spearmanr(one[9:], two[9:]).statistic)


@pytest.mark.parametrize("one", [np.ones(48), np.r_[1.0, 2.0, np.full(46, np.nan)]])
def test_constant_scores_and_too_few_heads_give_nan_without_a_warning(one):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spearman(one, np.arange(48.0))
    assert np.isnan([found.spearman, found.ci_low, found.ci_high]).all()


def test_order_matters_neither_of_heads_nor_of_the_two_scores():
    rng = np.random.default_rng(0)
    one, two = correlated(30, 0.7, rng, ties=True)
    order = rng.permutation(30)
    here, there = spearman(one, two), spearman(two[order], one[order])
    assert [here.spearman, here.ci_low, here.ci_high] == pytest.approx([there.spearman, there.ci_low, there.ci_high])


def test_the_table_has_each_pair_of_scores_once():
    values = {name: torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate("abc")}
    table = rank_correlation({name: HeadScores(name, one) for name, one in values.items()})
    assert table.columns.tolist() == ["a", "b", "spearman", "ci_low", "ci_high", "n"]
    assert table[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    for row in table.itertuples():
        expected = stats.spearmanr(values[row.a].flatten(), values[row.b].flatten()).statistic
        assert row.spearman == pytest.approx(expected)
        assert row.ci_low < row.spearman < row.ci_high
        assert row.n == 24


def test_scores_of_models_of_different_size_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'a' is of a model of 2 layers of 3.*'b' of one of 3 layers of 2"):
        rank_correlation({"a": HeadScores("x", torch.randn(2, 3)), "b": HeadScores("x", torch.randn(3, 2))})


def attributions(scores):
    """{(criterion, measure, outcome): [layer, head]} as the table of attributions."""
    return pd.DataFrame(
        [
            {
                "criterion": criterion,
                "measure": measure,
                "outcome": outcome,
                "layer": layer,
                "head": head,
                "score": score,
            }
            for (criterion, measure, outcome), values in scores.items()
            for (layer, head), score in np.ndenumerate(values)
        ]
    )


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    found = {}
    for criterion in ("polite", "brief", "safe"):
        truth = rng.standard_normal((3, 4))
        found[criterion, "selection_probability", "search"] = truth + 0.5 * rng.standard_normal((3, 4))
        for outcome in ("probability", "gap"):
            found[criterion, "injection", outcome] = truth + rng.standard_normal((3, 4))
            found[criterion, "shapley", outcome] = truth + 0.2 * rng.standard_normal((3, 4))
    return found


def test_measures_agree_as_their_scores_correlate_within_criterion_and_outcome(scores):
    table = agreement(attributions(scores))
    each = table[table["criterion"] != "all"]
    assert len(each) == 3 * 2 * 3
    for row in each.itertuples():
        one, two = (
            scores[row.criterion, measure, "search" if measure == "selection_probability" else row.outcome].flatten()
            for measure in (row.measure_a, row.measure_b)
        )
        assert row.spearman == pytest.approx(stats.spearmanr(one, two).statistic)
        assert (row.n, row.n_criteria) == (12, 1)
    assert (each["measure_a"] == "selection_probability").sum() == 12  # it comes first, so it is always a


def test_the_row_over_criteria_is_their_mean_with_a_t_interval(scores):
    table = agreement(attributions(scores))
    overall = table[table["criterion"] == "all"]
    assert len(overall) == 2 * 3
    for row in overall.itertuples():
        key = (table["outcome"] == row.outcome) & (table["measure_a"] == row.measure_a)
        values = table.loc[key & (table["measure_b"] == row.measure_b) & (table["criterion"] != "all"), "spearman"]
        low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert row.spearman == pytest.approx(values.mean())
        assert (row.ci_low, row.ci_high) == (pytest.approx(max(low, -1)), pytest.approx(min(high, 1)))
        assert (row.n, row.n_criteria) == (36, 3)


def test_one_criterion_has_no_row_over_criteria(scores):
    table = agreement(attributions({key: values for key, values in scores.items() if key[0] == "polite"}))
    assert set(table["criterion"]) == {"polite"}


def test_heads_that_a_measure_lacks_or_does_not_know_are_left_out(scores):
    table = attributions(scores)
    table.loc[(table["measure"] == "shapley") & (table["layer"] == 0), "score"] = np.nan
    table = table[~((table["measure"] == "injection") & (table["layer"] == 2))]
    found = agreement(table)
    one = found[(found["measure_a"] == "injection") & (found["measure_b"] == "shapley") & (found["criterion"] != "all")]
    assert (one["n"] == 4).all()


def test_a_constant_measure_is_nan_and_left_out_of_the_mean(scores):
    scores["safe", "injection", "gap"] = np.zeros((3, 4))
    found = agreement(attributions(scores)).set_index(["criterion", "outcome", "measure_a", "measure_b"])
    pair = ("gap", "injection", "shapley")
    assert np.isnan(found.loc[("safe", *pair), "spearman"])
    mean = (found.loc[("polite", *pair), "spearman"] + found.loc[("brief", *pair), "spearman"]) / 2
    assert found.loc[("all", *pair), "spearman"] == pytest.approx(mean)
    assert found.loc[("all", *pair), "n_criteria"] == 2


@pytest.mark.parametrize("constant", [["safe", "polite"], ["safe", "polite", "brief"]])
def test_a_mean_over_one_criterion_or_none_has_no_interval(scores, constant):
    for criterion in constant:
        scores[criterion, "injection", "gap"] = np.zeros((3, 4))
    found = agreement(attributions(scores)).set_index(["criterion", "outcome", "measure_a", "measure_b"])
    row = found.loc[("all", "gap", "injection", "shapley")]
    assert np.isnan(row["ci_low"]) and np.isnan(row["ci_high"])


def test_two_runs_in_one_table_are_refused(scores):
    table = attributions(scores)
    with pytest.raises(
        ValueError, match=r"several rows of criterion 'polite', measure 'selection_probability'.*layer 0, head 0"
    ):
        agreement(pd.concat([table, table]))


def test_a_criterion_called_all_is_refused(scores):
    with pytest.raises(ValueError, match=r"no criterion may be called 'all'"):
        agreement(attributions({("all", "shapley", "gap"): scores["safe", "shapley", "gap"]}))
