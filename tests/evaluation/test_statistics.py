from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from arm_lens.evaluation import accuracy


def test_the_interval_of_single_verdicts_is_wilsons():
    correct = np.array([1.0] * 83 + [0.0] * 17)
    p, n, z = 0.83, 100, norm.ppf(0.975)
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = accuracy(correct)
    assert (found.accuracy, found.n) == (0.83, 100)
    assert found.low == pytest.approx((centre - half) / (1 + z**2 / n))
    assert found.high == pytest.approx((centre + half) / (1 + z**2 / n))


def test_wilson_intervals_cover_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        found = accuracy((generator.random(200) < 0.9).astype(float))
        covered.append(found.low <= 0.9 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_with_draws_the_interval_covers_the_mean_over_items_and_draws():
    """Draws and items each shift the chance of a right verdict; intervals may err on the wide side only."""
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        draws, items = generator.uniform(-0.2, 0.2, size=(20, 1)), generator.uniform(-0.2, 0.2, size=(1, 100))
        correct = (generator.random((20, 100)) < 0.6 + draws + items).astype(float)
        found = accuracy(correct, resamples=400)
        covered.append(found.low <= 0.6 <= found.high)
    assert np.mean(covered) >= 0.92


def test_an_interval_over_draws_is_wider_than_one_that_takes_them_for_more_items():
    generator = np.random.default_rng(2)
    chance = generator.uniform(0.3, 0.9, size=(20, 1))
    correct = (generator.random((20, 50)) < chance).astype(float)
    found, naive = accuracy(correct), accuracy(correct.flatten())
    assert found.high - found.low > 1.5 * (naive.high - naive.low)


def test_ties_count_one_half():
    assert accuracy(np.array([1.0, 0.5, 0.0, 0.5])).accuracy == 0.5


def test_there_is_no_accuracy_of_nothing():
    with pytest.raises(ValueError, match="no items"):
        accuracy(np.array([]))
