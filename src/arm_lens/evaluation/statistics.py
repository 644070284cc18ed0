"""Accuracies with intervals.

One verdict per item is a binomial sample: Wilson's interval. Several verdicts per item, from random draws (of head sets,
say), vary in two ways, by item and by draw, and both are resampled: the two-way ("pigeonhole") bootstrap of Owen (2007),
which errs on the wide side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class AccuracyEstimate:
    """An accuracy, its 95 % interval, and the number of items."""

    accuracy: float
    low: float
    high: float
    n: int


def accuracy(
    correct: Float[np.ndarray, " item"] | Float[np.ndarray, "draw item"], *, seed: int = 0, resamples: int = 2000
) -> AccuracyEstimate:
    """The mean of ``correct`` with its 95 % interval.

    Args:
        correct: 1 where the verdict is right, 0 where it is wrong, 0.5 for a tie; per item, or per draw and item.
        seed: of the bootstrap, where one is needed.
        resamples: of the bootstrap.

    Raises:
        ValueError: if there is no item.
    """
    n = correct.shape[-1]
    if correct.size == 0:
        raise ValueError("there is no accuracy of no items")
    mean = float(correct.mean())
    if correct.ndim == 1 and np.isin(correct, (0.0, 1.0)).all():
        interval: Any = stats.binomtest(int(correct.sum()), n).proportion_ci(LEVEL, method="wilson")
        return AccuracyEstimate(mean, float(interval.low), float(interval.high), n)
    table = np.atleast_2d(correct)
    draws = len(table)
    generator = np.random.default_rng(seed)
    # A weight per draw and per item: how often each is in the resample.
    by_draw = generator.multinomial(draws, np.full(draws, 1 / draws), size=resamples) / draws
    by_item = generator.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    means = ((by_draw @ table) * by_item).sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return AccuracyEstimate(mean, float(low), float(high), n)
