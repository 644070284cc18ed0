from __future__ import annotations

import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu, norm, t
from scipy.stats import permutation_test as scipy_permutation_test
from sklearn.metrics import brier_score_loss, roc_auc_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from arm_lens.evaluation import accuracy
from arm_lens.evaluation.statistics import (
    ClusterBootstrap,
    brier_score,
    holm,
    mcnemar_test,
    mean_estimate,
    paired_difference,
    permutation_test,
    ranking,
    reliability,
    roc_area,
    sign_flip_test,
    stable_seed,
    variation,
    wilson,
)

INTERVALS = Path(sys.modules[wilson.__module__].__file__)


def ends(found):
    return found.low, found.high


def clustered_error(values, clusters):
    """The cluster-robust standard error of a mean, by regression on a constant."""
    return sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}).bse[0]


# Accuracies


def test_the_interval_of_single_verdicts_is_wilsons():
    correct = np.array([1.0] * 83 + [0.0] * 17)
    p, n, z = 0.83, 100, norm.ppf(0.975)
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = accuracy(correct)
    assert (found.value, found.n) == (0.83, 100)
    assert found.low == pytest.approx((centre - half) / (1 + z**2 / n))
    assert found.high == pytest.approx((centre + half) / (1 + z**2 / n))
    assert ends(accuracy(correct, clusters=np.arange(100)[::-1])) == ends(found)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4,), (1, 7)], ids=["equal clusters", "unequal clusters"])
def test_an_interval_over_clusters_is_as_wide_as_the_cluster_robust_error_says(sizes):
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(300), np.resize(sizes, 300))
    correct = (generator.random(len(clusters)) < generator.uniform(0.2, 1.0, 300)[clusters]).astype(float)
    found = accuracy(correct, clusters=clusters, resamples=20000)
    expected = 2 * norm.ppf(0.975) * clustered_error(correct, clusters)
    assert found.high - found.low == pytest.approx(expected, rel=0.03)
    assert found.high - found.low > 1.2 * (accuracy(correct).high - accuracy(correct).low)


def test_few_clusters_give_the_interval_of_students_t():
    generator = np.random.default_rng(1)
    means = generator.uniform(0.3, 0.7, 12)
    found = mean_estimate(means[None, None], ClusterBootstrap(np.arange(12), resamples=50000))
    expected = 2 * t.ppf(0.975, 11) * means.std(ddof=1) / np.sqrt(12)
    assert found.high - found.low == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_verdicts_that_are_all_the_same_still_have_an_interval(value):
    clusters = np.repeat(np.arange(40), 5)
    found = accuracy(np.full(200, value), clusters=clusters)
    assert ends(found) == pytest.approx(wilson(value, 40))
    assert found.high - found.low > 0.08


def test_clusters_that_are_all_the_same_within_still_have_an_interval():
    """A judge that always takes the first of two answers is right in one order of each pair."""
    found = accuracy(np.tile([1.0, 0.0], 100), clusters=np.repeat(np.arange(100), 2))
    assert ends(found) == pytest.approx(wilson(0.5, 100))


def test_few_wrong_clusters_are_too_few_to_resample():
    correct = np.ones(400)
    correct[:6] = 0.0  # three clusters of two
    assert ends(accuracy(correct, clusters=np.arange(400) // 2)) == pytest.approx(wilson(0.985, 200))


def test_no_interval_passes_0_or_1():
    found = accuracy(np.array([[0.0, 0.5] * 50, [1.0, 0.5] * 50]))
    assert ends(found) == (0.0, 1.0)
    far = np.array([[0.0, 0.5] * 50, [1.0, 0.5] * 50])[:, None]
    assert ends(paired_difference(far, 1 - far, ClusterBootstrap(np.arange(100)))) == (-1.0, 1.0)


def test_one_cluster_says_next_to_nothing():
    found = accuracy(np.array([1.0, 0.0, 1.0]), clusters=np.zeros(3, dtype=int))
    assert found.high - found.low > 0.75


@pytest.mark.slow
def test_an_interval_over_samples_and_seeds_adds_their_variances():
    generator = np.random.default_rng(2)
    samples, seeds = generator.uniform(-0.1, 0.1, (6, 1, 1)), generator.uniform(-0.1, 0.1, (1, 4, 1))
    correct = (generator.random((6, 4, 400)) < 0.6 + samples + seeds).astype(float)
    found = accuracy(correct, resamples=20000)
    parts = [(correct.mean(axis=others).var(ddof=1) / n, n - 1) for others, n in
             (((0, 1), 400), ((1, 2), 6), ((0, 2), 4))]  # fmt: skip
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, freedom) * total**0.5, rel=0.03)
    assert found.n == 400


def test_an_interval_over_samples_is_wider_than_one_that_takes_them_for_more_items():
    generator = np.random.default_rng(2)
    chance = generator.uniform(0.3, 0.9, size=(20, 1))
    correct = (generator.random((20, 50)) < chance).astype(float)
    found, naive = accuracy(correct), accuracy(correct.flatten())
    assert found.high - found.low > 1.5 * (naive.high - naive.low)


def test_samples_and_seeds_that_change_nothing_leave_the_interval_as_it_is():
    correct = (np.random.default_rng(3).random(100) < 0.7).astype(float)
    one = accuracy(np.where(np.arange(100) == 0, 0.5, correct))
    many = accuracy(np.tile(np.where(np.arange(100) == 0, 0.5, correct), (3, 2, 1)))
    assert ends(many) == pytest.approx(ends(one))


def test_ties_count_one_half():
    assert accuracy(np.array([1.0, 0.5, 0.0, 0.5])).value == 0.5


def test_there_is_no_accuracy_of_nothing():
    with pytest.raises(ValueError, match="no items"):
        accuracy(np.array([]))
    with pytest.raises(ValueError, match="no items"):
        ClusterBootstrap(np.array([], dtype=int))
    with pytest.raises(ValueError, match="cluster 1 has no items"):
        ClusterBootstrap(np.array([0, 2]))


def test_a_resample_is_of_one_cluster_less_and_of_all_alike():
    weights = ClusterBootstrap(np.arange(7), resamples=20000).weights
    assert (weights.sum(axis=1) == 6).all()
    assert weights.mean(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.03)
    assert weights.var(axis=0) == pytest.approx(np.full(7, 6 / 7 * (1 - 1 / 7)), abs=0.05)


@pytest.mark.slow
def test_the_same_name_gives_the_same_seed_in_another_process():
    code = f"import runpy; print(runpy.run_path({str(INTERVALS)!r})['stable_seed']('a', 1))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == stable_seed("a", 1) == runpy.run_path(str(INTERVALS))["stable_seed"]("a", 1)
    assert len({stable_seed("a", 1), stable_seed("a1"), stable_seed("a", 2), stable_seed(1, "a")}) == 4


# Two judges


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=11))
@settings(max_examples=60, deadline=None)
def test_the_sign_flip_test_counts_all_flips(differences):
    seen = abs(sum(differences))
    flipped = [abs(np.dot(signs, differences)) >= seen for signs in product((1, -1), repeat=len(differences))]
    assert sign_flip_test(np.array(differences)) == pytest.approx(np.mean(flipped), abs=1e-12)


def test_the_sign_flip_test_agrees_with_random_flips_of_many_clusters():
    generator = np.random.default_rng(4)
    differences = generator.integers(-3, 5, size=80)
    signs = generator.choice((1, -1), size=(100000, 80))
    expected = (np.abs(signs @ differences) >= abs(differences.sum())).mean()
    assert expected > 0.001
    assert sign_flip_test(differences) == pytest.approx(expected, rel=0.05)


def test_the_sign_flip_test_of_single_verdicts_is_mcnemars():
    generator = np.random.default_rng(5)
    judge, other = (generator.random((2, 300)) < np.array([[0.8], [0.7]])).astype(float)
    found = permutation_test(judge[None, None], other[None, None], np.arange(300))
    wins, losses = int((judge > other).sum()), int((judge < other).sum())
    assert found == pytest.approx(mcnemar_test(judge, other), rel=1e-9)
    assert found == pytest.approx(binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_the_permutation_test_is_scipys_with_ties_clusters_and_conditions():
    generator = np.random.default_rng(6)
    judge, other = (
        generator.choice((0.0, 0.5, 1.0), (3, 1, 24), p=(0.2, 0.2, 0.6)),
        generator.choice((0.0, 1.0), (1, 2, 24)),
    )
    clusters = np.arange(24) % 9
    sums = [np.bincount(clusters, weights=verdicts.mean(axis=(0, 1))) for verdicts in (judge, other)]
    expected = scipy_permutation_test(
        sums, lambda a, b: np.sum(a - b), permutation_type="samples", n_resamples=np.inf
    )  # fmt: skip
    assert permutation_test(judge, other, clusters) == pytest.approx(expected.pvalue, abs=1e-9)


def test_p_values_are_exact_down_to_1e_12():
    assert sign_flip_test(np.ones(20, dtype=int)) == pytest.approx(2.0**-19, rel=1e-9)
    assert sign_flip_test(np.full(36, 3)) == pytest.approx(2.0**-35, rel=1e-3)
    assert sign_flip_test(np.full(100, 3)) == 1e-12
    assert sign_flip_test(np.zeros(5, dtype=int)) == sign_flip_test(np.array([], dtype=int)) == 1.0


def test_tests_refuse_verdicts_they_are_not_made_for():
    with pytest.raises(ValueError, match="without ties"):
        mcnemar_test(np.array([1.0, 0.5]), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"0, 0\.5 or 1"):
        permutation_test(np.full((1, 1, 2), 0.3), np.ones((1, 1, 2)), np.arange(2))


@pytest.mark.slow
def test_holms_correction_is_that_of_statsmodels():
    generator = np.random.default_rng(20)
    for p_values in ([0.2], [0.01, 0.01, 0.04, 0.03, 1.0, 0.0], list(generator.random(40) ** 4)):
        assert holm(np.array(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_interval_of_a_difference_is_as_wide_as_the_cluster_robust_error_says():
    generator = np.random.default_rng(7)
    clusters = np.repeat(np.arange(250), 3)
    hard = generator.uniform(-0.4, 0.2, 250)[clusters]
    judge, other = ((generator.random(750) < level + hard).astype(float) for level in (0.8, 0.7))
    found = paired_difference(judge[None, None], other[None, None], ClusterBootstrap(clusters, resamples=20000))
    assert found.value == pytest.approx(judge.mean() - other.mean())
    expected = 2 * norm.ppf(0.975) * clustered_error(judge - other, clusters)
    assert found.high - found.low == pytest.approx(expected, rel=0.03)


def test_swapping_the_judges_turns_the_difference_round():
    generator = np.random.default_rng(8)
    judge, other = (generator.random((2, 3, 2, 90)) < 0.6).astype(float)
    bootstrap = ClusterBootstrap(np.arange(90))
    one, two = paired_difference(judge, other, bootstrap), paired_difference(other, judge, bootstrap)
    assert (two.value, two.low, two.high) == pytest.approx((-one.value, -one.high, -one.low))


def test_what_a_sample_does_to_both_judges_cancels():
    generator = np.random.default_rng(9)
    samples = generator.uniform(-0.2, 0.2, (8, 1, 1))
    judge, other = (generator.random((2, 8, 1, 400)) < 0.7 + samples).astype(float)
    bootstrap = ClusterBootstrap(np.arange(400))
    paired, unpaired = (paired_difference(judge, table, bootstrap) for table in (other, other[:-1]))
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_a_judge_without_samples_meets_every_sample_of_the_other():
    generator = np.random.default_rng(10)
    judge = (generator.random((5, 1, 200)) < generator.uniform(0.4, 0.9, (5, 1, 1))).astype(float)
    other = (generator.random((1, 1, 200)) < 0.6).astype(float)
    bootstrap = ClusterBootstrap(np.arange(200))
    found, repeated = (paired_difference(judge, table, bootstrap) for table in (other, other.repeat(5, axis=0)))
    assert ends(found) == pytest.approx(ends(repeated))


@pytest.mark.parametrize("n", [5, 100])
def test_judges_that_agree_everywhere_may_still_differ_elsewhere(n):
    same = (np.random.default_rng(11).random((1, 1, n)) < 0.8).astype(float)
    found = paired_difference(same, same, ClusterBootstrap(np.arange(n)))
    assert found.value == 0.0
    assert ends(found) == pytest.approx((-wilson(0.0, n)[1], wilson(0.0, n)[1]))


# Draws and seeds kept apart


def crossed(generator, samples, seeds, clusters, *, sd_samples=0.0, sd_seeds=0.0, sd_both=0.0, size=1):
    chance = 0.6 + sum(
        sd * generator.normal(size=shape)
        for sd, shape in [
            (sd_samples, (samples, 1, 1)), (sd_seeds, (1, seeds, 1)), (sd_both, (samples, seeds, 1)), (0.1, (1, 1, clusters)),
        ]
    )  # fmt: skip
    return (generator.random((samples, seeds, clusters * size)) < np.repeat(chance, size, axis=2)).astype(float)


@pytest.mark.filterwarnings("ignore:divide by zero")  # of the F values: there are no residuals
def test_variances_are_those_of_an_analysis_of_variance():
    correct = crossed(np.random.default_rng(12), 3, 4, 30, sd_samples=0.1, sd_seeds=0.05)
    index = pd.MultiIndex.from_product([range(3), range(4), range(30)], names=["d", "s", "g"])
    table = anova_lm(
        ols("y ~ C(d) * C(s) * C(g)", pd.DataFrame({"y": correct.ravel()}, index=index).reset_index()).fit()
    )
    squares = dict(
        zip(table.index.str.replace(r"C\((.)\)", r"\1", regex=True), table["sum_sq"] / table["df"], strict=True)
    )
    found = variation(correct, ClusterBootstrap(np.arange(30)))
    samples = squares["d"] - squares["d:g"] - squares["d:s"] + squares["d:s:g"]
    seeds = squares["s"] - squares["s:g"] - squares["d:s"] + squares["d:s:g"]
    assert found.var_samples == pytest.approx(samples / (4 * 30))
    assert found.var_seeds == pytest.approx(seeds / (3 * 30))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (6, 1)], ids=["with seeds", "one seed"])
def test_variances_over_samples_and_seeds_are_right_on_average(shape):
    """Two items to a cluster, which share what makes them hard; samples and seeds also act together."""
    generator = np.random.default_rng(13)
    bootstrap = ClusterBootstrap(np.repeat(np.arange(40), 2))
    truth = {"sd_samples": 0.06, "sd_seeds": 0.03 if shape[1] > 1 else 0.0, "sd_both": 0.04}
    found = [variation(crossed(generator, *shape, 40, size=2, **truth), bootstrap) for _ in range(1000)]
    samples = np.array([one.var_samples for one in found])
    expected = 0.06**2 + (0.04**2 if shape[1] == 1 else 0.0)
    assert samples.mean() == pytest.approx(expected, abs=4 * samples.std() / np.sqrt(1000))
    if shape[1] > 1:
        seeds = np.array([one.var_seeds for one in found])
        assert seeds.mean() == pytest.approx(0.03**2, abs=4 * seeds.std() / np.sqrt(1000))


def test_without_an_effect_of_samples_the_estimate_is_negative_half_of_the_time_and_then_0():
    generator = np.random.default_rng(14)
    bootstrap = ClusterBootstrap(np.arange(60))
    found = [variation(crossed(generator, 6, 1, 60), bootstrap) for _ in range(300)]
    assert 0.4 < np.mean([one.var_samples < 0 for one in found]) < 0.7
    assert all(one.sd_samples == pytest.approx(max(0.0, one.var_samples) ** 0.5) for one in found)


def test_items_that_are_always_judged_alike_make_no_scatter_between_samples():
    """The binomial formula would say 0.05; but samples that judge every item alike do not differ."""
    found = variation(np.tile((np.arange(100) < 50).astype(float), (5, 1, 1)), ClusterBootstrap(np.arange(100)))
    assert found.var_samples == 0.0
    shifted = np.array([[np.arange(100) < edge] for edge in (40, 50, 60)]).astype(float)
    assert variation(shifted, ClusterBootstrap(np.arange(100))).sd_samples == pytest.approx(0.1, rel=0.1)


def test_one_sample_or_one_cluster_has_no_variance():
    correct = crossed(np.random.default_rng(15), 1, 3, 50)
    found = variation(correct, ClusterBootstrap(np.arange(50)))
    assert np.isnan([found.var_samples, found.sd_samples]).all()
    assert np.isfinite(found.sd_seeds)
    found = variation(correct, ClusterBootstrap(np.zeros(50, dtype=int)))
    assert np.isnan([found.sd_samples, found.sd_seeds]).all()


# Rewards and probabilities


def ranked(generator, conditions=(2, 3), n=90, strength=1.0):
    label = generator.random(n) < 0.4
    return np.round(generator.normal(size=(*conditions, n)) + strength * label, 1), label


def test_the_roc_area_is_the_mean_of_those_of_samples_and_seeds():
    reward, label = ranked(np.random.default_rng(16))
    reward[0] *= 100  # another scale
    one_by_one = reward.reshape(6, -1)
    found = roc_area(reward, label, ClusterBootstrap(np.arange(90)))
    pairs = label.sum() * (~label).sum()
    u = [mannwhitneyu(values[label], values[~label]).statistic / pairs for values in one_by_one]
    assert found.value == pytest.approx(np.mean(u))
    assert found.value == pytest.approx(np.mean([roc_auc_score(label, values) for values in one_by_one]))
    assert (found.low < found.value < found.high, found.n) == (True, 90)


@pytest.mark.slow
@pytest.mark.parametrize("block", [7, 10**6])
def test_the_interval_of_the_roc_area_is_that_of_areas_computed_resample_by_resample(monkeypatch, block):
    monkeypatch.setattr(ranking, "BLOCK", block)
    reward, label = ranked(np.random.default_rng(17), conditions=(1, 1), n=60)
    bootstrap = ClusterBootstrap(np.arange(60) // 2, resamples=300)
    areas = []
    for weights in bootstrap.weights.astype(int):
        chosen = np.repeat(np.arange(60), weights[np.arange(60) // 2])
        areas.append(roc_auc_score(label[chosen], reward[0, 0, chosen]))
    found = roc_area(reward, label, bootstrap)
    segment = t.ppf(0.975, 29) / norm.ppf(0.975)
    expected = found.value + segment * (np.quantile(areas, [0.025, 0.975]) - found.value)
    assert ends(found) == pytest.approx(tuple(expected))


def test_a_perfect_order_is_no_certainty():
    reward = np.arange(50.0)[None, None]
    found = roc_area(reward, np.arange(50) >= 30, ClusterBootstrap(np.arange(50)))
    assert found.value == 1.0
    assert ends(found) == pytest.approx(wilson(1.0, 20))
    constant = roc_area(np.zeros((1, 1, 50)), np.arange(50) >= 30, ClusterBootstrap(np.arange(50)))
    assert (constant.value, *ends(constant)) == pytest.approx((0.5, *wilson(0.5, 20)))


def test_an_order_with_one_mistake_is_nearly_no_less_certain_than_a_perfect_one():
    label = np.arange(60) >= 30
    label[[29, 30]] = label[[30, 29]]
    found = roc_area(np.arange(60.0)[None, None], label, ClusterBootstrap(np.arange(60)))
    assert found.value == 1 - 1 / 900
    assert ends(found) == pytest.approx(wilson(found.value, 30))


def test_without_both_labels_or_with_a_missing_reward_there_is_no_roc_area():
    bootstrap = ClusterBootstrap(np.arange(4))
    for reward, label in (
        (np.ones((1, 1, 4)), np.ones(4, dtype=bool)),
        (np.array([[[1.0, 2.0, np.nan, 3.0]]]), np.array([True, False, True, False])),
    ):
        found = roc_area(reward, label, bootstrap)
        assert np.isnan([found.value, found.low, found.high]).all()
        assert found.n == 4


def test_the_brier_score_is_sklearns():
    generator = np.random.default_rng(18)
    probability, label = generator.random((2, 1, 300)), generator.random(300) < 0.5
    found = brier_score(probability, label, ClusterBootstrap(np.arange(300)))
    assert found.value == pytest.approx(np.mean([brier_score_loss(label, one[0]) for one in probability]))
    assert found.low < found.value < found.high
    missing = brier_score(np.full((1, 1, 300), np.nan), label, ClusterBootstrap(np.arange(300)))
    assert np.isnan([missing.value, missing.low, missing.high]).all()


def test_reliability_counts_every_verdict_in_its_bin():
    probability = np.array([0.0, 0.05, 0.1, 1 - 0.8, 0.7, 0.75, 0.79, 1.0])
    happened = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.5, 1.0])
    table = reliability(probability, happened, np.arange(8))
    assert table["bin"].tolist() == [0, 1, 2, 7, 9]
    assert table["n"].tolist() == [2, 1, 1, 3, 1]
    assert table["low"].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.7, 0.9])
    assert table["high"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.8, 1.0])
    assert table["confidence"].tolist() == pytest.approx([0.025, 0.1, 0.2, 2.24 / 3, 1.0])
    assert table["accuracy"].tolist() == [0.5, 0.0, 1.0, 0.5, 1.0]
    expected = binomtest(1, 2).proportion_ci(method="wilson")
    assert table.loc[0, ["ci_low", "ci_high"]].tolist() == pytest.approx([expected.low, expected.high])


def test_the_same_item_many_times_makes_no_bin_surer():
    generator = np.random.default_rng(19)
    probability = generator.random(200)
    happened = (generator.random(200) < probability).astype(float)
    once = reliability(probability, happened, np.arange(200))
    often = reliability(np.tile(probability, 4), np.tile(happened, 4), np.tile(np.arange(200), 4))
    assert often["n"].tolist() == (4 * once["n"]).tolist()
    same = ["confidence", "accuracy", "ci_low", "ci_high"]
    assert often[same].to_numpy() == pytest.approx(once[same].to_numpy())
