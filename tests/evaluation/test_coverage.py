"""Do 95 % intervals hold the truth 95 % of the time? A thousand made-up samples each, from seeds that are fixed.

If an interval covers with probability 0.95, the share of a thousand is within 0.93 and 0.97 in all but four cases of a
thousand.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from arm_lens.evaluation import accuracy
from arm_lens.evaluation.statistics import ClusterBootstrap, brier_score, mean_estimate, paired_difference, roc_area

pytestmark = pytest.mark.slow

SAMPLES, RESAMPLES = 1000, 800
SIZES = np.resize([1, 2, 3, 4], 160)
CLUSTERS = np.repeat(np.arange(160), SIZES)


def coverage(estimate, truth, samples=SAMPLES):
    """How often the interval of ``estimate(generator, number)`` holds ``truth``."""
    found = [estimate(np.random.default_rng([7, number]), number) for number in range(samples)]
    return np.mean([one.low <= truth <= one.high for one in found])


def bootstrap_of(clusters, number):
    return ClusterBootstrap(clusters, seed=number, resamples=RESAMPLES)


def alike_within_clusters(generator, level):
    """Verdicts that are right with a chance of ``level`` on average, from 0.4 below to 0.4 above it by cluster."""
    return (generator.random(len(CLUSTERS)) < level + generator.choice((-0.4, 0.4), 160)[CLUSTERS]).astype(float)


@pytest.mark.parametrize(("p", "n"), [(0.8, 200), (0.6, 100), (0.95, 400)])
def test_wilson_intervals_of_single_verdicts(p, n):
    assert 0.93 <= coverage(lambda generator, _: accuracy((generator.random(n) < p).astype(float)), p) <= 0.97


def test_intervals_clustered_by_item():
    def clustered(generator, number):
        values = alike_within_clusters(generator, 0.55)
        return accuracy(values, clusters=CLUSTERS, seed=number, resamples=RESAMPLES)

    assert 0.93 <= coverage(clustered, 0.55) <= 0.97


def test_intervals_that_ignore_clusters_are_too_short():
    assert coverage(lambda generator, _: accuracy(alike_within_clusters(generator, 0.55)), 0.55) < 0.90


def test_intervals_with_ties():
    def tied(generator, number):
        values = generator.choice((0.0, 0.5, 1.0), 200, p=(0.2, 0.3, 0.5))
        return accuracy(values, seed=number, resamples=RESAMPLES)

    assert 0.93 <= coverage(tied, 0.65) <= 0.97


def test_intervals_of_few_clusters():
    """Fifteen clusters of forty items; drawing fifteen of them, without the stretch to Student's t, covers 93 %."""
    clusters = np.repeat(np.arange(15), 40)

    def few(generator, number):
        chance = generator.uniform(0.3, 0.9, 15)[clusters]
        return accuracy(
            (generator.random(600) < chance).astype(float), clusters=clusters, seed=number, resamples=RESAMPLES
        )

    assert 0.93 <= coverage(few, 0.6) <= 0.97


def two_judges(generator, levels, clusters):
    """The verdicts of two judges to whom the same items are hard."""
    hard = generator.uniform(-0.3, 0.1, clusters.max() + 1)[clusters]
    return [(generator.random(len(clusters)) < level + hard).astype(float)[None, None] for level in levels]


def test_intervals_of_paired_differences():
    def paired(generator, number):
        return paired_difference(*two_judges(generator, (0.85, 0.75), CLUSTERS), bootstrap_of(CLUSTERS, number))

    assert 0.93 <= coverage(paired, 0.1) <= 0.97


def test_intervals_of_paired_differences_that_hardly_ever_occur():
    """Judges that differ on one item in sixty: on three of two hundred."""

    def rare(generator, number):
        judge = (generator.random(200) < 0.7).astype(float)
        other = np.where(generator.random(200) < 1 / 60, 1 - judge, judge)
        return paired_difference(judge[None, None], other[None, None], bootstrap_of(np.arange(200), number))

    assert coverage(rare, 0.4 / 60) >= 0.93


def test_intervals_of_roc_areas():
    label = np.arange(160) % 8 < 3

    def area(generator, number):
        return roc_area((generator.normal(size=160) + label)[None, None], label, bootstrap_of(np.arange(160), number))

    assert 0.93 <= coverage(area, norm.cdf(1 / np.sqrt(2))) <= 0.97


def test_intervals_of_roc_areas_of_clustered_responses():
    """Each prompt has a response that meets the criterion and one that does not, and shifts the rewards of both."""
    label, clusters = np.arange(300) % 2 == 0, np.arange(300) // 2

    def area(generator, number):
        reward = generator.normal(size=300) + label + generator.normal(size=150)[clusters]
        return roc_area(reward[None, None], label, bootstrap_of(clusters, number))

    assert 0.93 <= coverage(area, norm.cdf(1 / 2)) <= 0.97


def test_intervals_of_brier_scores():
    """A judge that says p where the truth is p: its expected error is the mean of p (1 - p), 1 / 6."""

    def brier(generator, number):
        probability = generator.random(160)[CLUSTERS]
        label = generator.random(len(CLUSTERS)) < probability
        return brier_score(probability[None, None], label, bootstrap_of(CLUSTERS, number))

    assert 0.93 <= coverage(brier, 1 / 6) <= 0.97


def over_samples_and_seeds(generator, samples, seeds, *, spread, items=200):
    """Verdicts whose chance depends on the item, the sample and the seed, 0.65 on average."""
    chance = 0.65 + generator.uniform(-0.3, 0.3, items) + generator.normal(0, spread, (samples, 1, 1))
    if seeds > 1:
        chance = chance + generator.normal(0, spread, (1, seeds, 1))
    return (generator.random((samples, seeds, items)) < chance).astype(float)


@pytest.mark.parametrize(
    ("samples", "seeds", "spread"), [(2, 1, 0.0), (3, 1, 0.02), (5, 1, 0.04), (20, 1, 0.06), (6, 6, 0.04)]
)
def test_intervals_over_items_samples_and_seeds_err_on_the_wide_side(samples, seeds, spread):
    def several(generator, number):
        values = over_samples_and_seeds(generator, samples, seeds, spread=spread)
        return mean_estimate(values, bootstrap_of(np.arange(200), number))

    assert coverage(several, 0.65) >= 0.93


def test_intervals_over_items_alone_do_not_hold_what_other_samples_would_give():
    def items_alone(generator, number):
        values = over_samples_and_seeds(generator, 6, 6, spread=0.04).mean(axis=(0, 1), keepdims=True)
        return mean_estimate(values, bootstrap_of(np.arange(200), number))

    assert coverage(items_alone, 0.65, samples=300) < 0.90


def test_intervals_of_differences_over_samples():
    """Two judges that see the same five samples, and take from them partly the same."""

    def paired(generator, number):
        shared, own = generator.normal(0, 0.05, (1, 5, 1, 1)), generator.normal(0, 0.04, (2, 5, 1, 1))
        hard, level = generator.uniform(-0.3, 0.1, 160), np.array([0.8, 0.72])[:, None, None, None]
        judges = (generator.random((2, 5, 1, 160)) < level + shared + own + hard).astype(float)
        return paired_difference(*judges, bootstrap_of(np.arange(160), number))

    assert coverage(paired, 0.08) >= 0.93
