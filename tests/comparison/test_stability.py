"""Sets found again with other seeds: Jaccard with its chance level, and the index corrected for chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from arm_lens import HeadSet
from arm_lens.comparison import stability, stability_index

pytestmark = pytest.mark.slow

LAYERS, HEADS = 4, 6
SIZE = LAYERS * HEADS


def table(chosen, **columns):
    """The table of heads of sets given as rows of 0 and 1, one seed each."""
    count = len(chosen)
    return pd.DataFrame(
        {
            **{name: np.repeat(values, SIZE) for name, values in columns.items()},
            "seed": np.repeat(np.arange(count), SIZE),
            "layer": np.tile(np.repeat(np.arange(LAYERS), HEADS), count),
            "head": np.tile(np.arange(HEADS), count * LAYERS),
            "selected": np.asarray(chosen).astype(bool).flatten(),
        }
    )


def drawn(rng, often, count):
    return (rng.random((count, SIZE)) < often).astype(float)


def jaccards(chosen):
    shared = chosen @ chosen.T
    sizes = chosen.sum(axis=1)
    union = sizes[:, None] + sizes - shared
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)[np.triu_indices(len(chosen), 1)]


def test_for_sets_of_one_size_the_index_is_kunchevas_mean_over_pairs():
    rng = np.random.default_rng(0)
    size = 7
    chosen = np.zeros((5, SIZE))
    for row in chosen:
        row[rng.permutation(SIZE)[:size]] = 1
    expected = size**2 / SIZE
    pairs = [(one @ two - expected) / (size - expected) for one, two in combinations(chosen, 2)]
    assert stability_index(chosen) == pytest.approx(np.mean(pairs))


def test_the_index_is_1_for_equal_sets_least_for_complements_and_about_0_for_random_ones():
    rng = np.random.default_rng(0)
    one = (np.arange(SIZE) < SIZE / 2).astype(float)
    assert stability_index(np.stack([one] * 4)) == pytest.approx(1)
    assert stability_index(np.stack([one, 1 - one])) == pytest.approx(-1)
    random = [stability_index(drawn(rng, 0.3, 6)) for _ in range(300)]
    assert abs(np.mean(random)) < 0.02


def test_the_index_of_nothing_or_everything_or_a_single_set_is_not_a_number():
    for chosen in (np.zeros((3, SIZE)), np.ones((3, SIZE)), np.eye(SIZE)[:1]):
        assert np.isnan(stability_index(chosen))


def test_the_row_of_a_group_is_the_mean_over_pairs_beside_sets_like_these():
    rng = np.random.default_rng(3)
    chosen = drawn(rng, np.linspace(0.05, 0.9, SIZE), 5)
    row = stability(table(chosen, criterion=["polite"] * 5)).iloc[0]
    assert (row["group"], row["n_sets"]) == ("polite", 5)
    assert row["mean_heads"] == chosen.sum(axis=1).mean()
    assert row["jaccard"] == pytest.approx(jaccards(chosen).mean())
    assert row["nogueira"] == pytest.approx(stability_index(chosen))
    generator = torch.Generator().manual_seed(0)
    sets = [HeadSet.from_mask(torch.tensor(one.reshape(LAYERS, HEADS)) > 0) for one in chosen]
    random = [a.random_like(generator).jaccard(b) for a, b in combinations(sets, 2) for _ in range(200)]
    assert row["jaccard_chance"] == pytest.approx(np.mean(random), abs=0.012)


def test_the_chance_level_knows_that_sets_prefer_the_same_layer():
    chosen = np.zeros((3, LAYERS, HEADS))
    chosen[:, 2] = 1
    row = stability(table(chosen, criterion=["x"] * 3)).iloc[0]
    assert row["jaccard"] == row["jaccard_chance"] == pytest.approx(1)  # the whole layer, each time


def test_both_intervals_cover_the_truth_in_nineteen_of_twenty_simulations():
    rng = np.random.default_rng(0)
    groups, seeds = 200, 5
    often = np.r_[np.full(4, 0.9), np.full(6, 0.4), np.full(SIZE - 10, 0.05)]
    chosen = drawn(rng, often, groups * seeds)
    heads = table(chosen, criterion=np.repeat(np.arange(groups).astype(str), seeds))
    found = stability(heads)
    truth = jaccards(drawn(rng, often, 1000)).mean()
    index = 1 - (often * (1 - often)).mean() / (often.mean() * (1 - often.mean()))
    for low, high, value in (("ci_low", "ci_high", truth), ("nogueira_low", "nogueira_high", index)):
        assert 0.9 <= ((found[low] <= value) & (value <= found[high])).mean() <= 0.995


def test_with_three_sets_the_jackknife_is_over_the_three_pairs_with_two_degrees_of_freedom():
    chosen = np.zeros((3, SIZE))
    chosen[:, :12] = 1
    chosen[0, 12:15] = chosen[1, 14:16] = 1
    row = stability(table(chosen, criterion=["x"] * 3)).iloc[0]
    pairs = jaccards(chosen)  # leaving out a set leaves one pair
    reach = stats.t.ppf(0.975, 2) * (2 * pairs.var()) ** 0.5
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((pairs.mean() - reach, min(1, pairs.mean() + reach)))
    index = [stability_index(np.delete(chosen, one, axis=0)) for one in range(3)]
    reach = stats.t.ppf(0.975, 2) * (2 * np.var(index)) ** 0.5
    assert row["nogueira_low"] == pytest.approx(row["nogueira"] - reach)


def test_few_equal_sets_do_not_prove_that_the_next_will_be_equal():
    one = (np.arange(SIZE) < 5).astype(float)
    for count, least in ((2, 0.3), (3, 0.3), (20, 0.8)):
        row = stability(table(np.stack([one] * count), criterion=["x"] * count)).iloc[0]
        assert row["jaccard"] == row["ci_high"] == row["nogueira"] == row["nogueira_high"] == pytest.approx(1)
        assert row["ci_low"] < least if count < 20 else least > row["ci_low"] > 0.6
        assert row["nogueira_low"] < row["ci_low"]


def test_pairs_share_sets_so_that_their_spread_over_pairs_would_be_too_small():
    rng = np.random.default_rng(0)
    chosen = drawn(rng, np.linspace(0.02, 0.95, SIZE), 12)
    row = stability(table(chosen, criterion=["x"] * 12)).iloc[0]
    values = jaccards(chosen)
    naive = 2 * 1.96 * values.std(ddof=1) / len(values) ** 0.5
    assert row["ci_high"] - row["ci_low"] > 1.3 * naive


def test_groups_may_be_of_selectors_and_sets_of_samples():
    rng = np.random.default_rng(0)
    chosen = drawn(rng, 0.3, 4)
    heads = table(chosen, selector=["a", "a", "b", "b"], criterion=["x"] * 4).rename(columns={"seed": "sample"})
    found = stability(heads, by=["selector", "criterion"])
    assert found["group"].tolist() == ["a, x", "b, x"]
    assert found["jaccard"].tolist() == pytest.approx([jaccards(chosen[:2])[0], jaccards(chosen[2:])[0]])


def test_a_single_set_has_no_stability():
    row = stability(table(np.eye(SIZE)[:1], criterion=["x"])).iloc[0]
    assert row["n_sets"] == row["mean_heads"] == 1
    assert np.isnan(row[["jaccard", "ci_low", "jaccard_chance", "nogueira", "nogueira_high"]].astype(float)).all()


def test_several_criteria_in_a_group_are_refused_by_the_group():
    heads = table(np.eye(SIZE)[:2], criterion=["x", "y"], selector=["greedy"] * 2).assign(seed=0)
    with pytest.raises(ValueError, match=r"group 'greedy': 'seed 0' .* several rows of layer 0, head 0"):
        stability(heads, by="selector")


def test_without_seeds_and_draws_there_is_nothing_to_be_stable_over():
    with pytest.raises(ValueError, match=r"seeds or samples"):
        stability(table(np.eye(SIZE)[:2], criterion=["x", "y"]).drop(columns="seed"))
