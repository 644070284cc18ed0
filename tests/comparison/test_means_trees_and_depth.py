"""Cosines between means, trees of names, and depths in models of different size."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import wasserstein_distance

from arm_lens import HeadSet
from arm_lens.comparison import cluster, depth_distance, depth_profile, mean_cosines, overlap
from arm_lens.engine import HeadMeans


def means(count, seed=0, common=0.0):
    """Unrelated means, all with the same large vector added."""
    generator = torch.Generator().manual_seed(seed)
    shared = common * torch.randn(3, 4, 64, generator=generator)
    return {f"c{n}": HeadMeans(shared + torch.randn(3, 4, 64, generator=generator), 8) for n in range(count)}


def test_plain_cosines_are_torchs_head_by_head():
    given = means(3)
    table = mean_cosines(given, centred=False)
    assert table.columns.tolist() == ["a", "b", "layer", "head", "cosine"]
    for (a, b), rows in table.groupby(["a", "b"]):
        expected = torch.cosine_similarity(given[a].values, given[b].values, dim=-1)
        for row in rows.itertuples():
            assert row.cosine == pytest.approx(float(expected[row.layer, row.head]), abs=1e-6)
    assert len(table) == 3 * 12


def test_centring_takes_away_what_all_criteria_share():
    given = means(5, common=20.0)
    plain, centred = (mean_cosines(given, centred=one)["cosine"] for one in (False, True))
    assert plain.min() > 0.95
    assert centred.mean() == pytest.approx(-1 / 4, abs=0.03)  # what unrelated criteria have, not 0
    without = mean_cosines(means(5), centred=True)["cosine"]
    assert centred.mean() == pytest.approx(without.mean(), abs=0.05)


def test_two_criteria_that_depart_alike_are_found_after_centring():
    given = means(6, common=20.0)
    departure = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(9))
    given |= {name: HeadMeans(given[name].values + 3 * departure, 8) for name in ("c1", "c4")}
    plain, centred = (mean_cosines(given, centred=one).groupby(["a", "b"])["cosine"].mean() for one in (False, True))
    assert plain.min() > 0.95
    assert centred.idxmax() == ("c1", "c4")
    assert centred.max() > centred.drop(("c1", "c4")).max() + 0.3


def test_two_means_cannot_be_centred():
    with pytest.raises(ValueError, match=r"'c0' and 'c1' are opposite by construction.*centred=False"):
        mean_cosines(means(2))
    assert len(mean_cosines(means(2), centred=False)) == 12


def test_heads_where_all_write_the_same_or_nothing_are_nan():
    given = means(3, common=5.0)
    for number, one in enumerate(given.values()):
        one.values[1, 2] = given["c0"].values[1, 2] * (1 + 1e-7 * (number == 1))  # the last digit of a float32
        one.values[0, 0] = 0
    unknown = mean_cosines(given).groupby(["layer", "head"])["cosine"].apply(lambda part: part.isna().all())
    assert unknown[unknown].index.tolist() == [(0, 0), (1, 2)]


def test_means_of_other_models_are_refused_by_name():
    given = means(2) | {"other": HeadMeans(torch.ones(2, 4, 64), 1)}
    with pytest.raises(ValueError, match=r"'c0' is of a model of 3 layers of 4.*'other' of one of 2"):
        mean_cosines(given)
    with pytest.raises(ValueError, match=r"width.*'c0' has 64.*'other' has 32"):
        mean_cosines(means(2) | {"other": HeadMeans(torch.ones(3, 4, 32), 1)})


def planted(groups, seed=0):
    """Sets of heads that share most of theirs with those of their group, under shuffled names."""
    rng = np.random.default_rng(seed)
    sets = {}
    for number, members in enumerate(groups):
        core = list(range(number * 12, number * 12 + 8))
        for name in members:
            extra = rng.integers(48, size=3).tolist()
            sets[name] = HeadSet.of(6, 8, {divmod(int(index), 8) for index in core + extra})
    return {name: sets[name] for name in rng.permutation(list(sets))}


def test_planted_groups_are_found_and_stand_together():
    groups = [("polite", "positive", "emphatic"), ("brief", "listed"), ("safe", "on topic", "correct")]
    found = cluster(overlap(planted(groups)))
    assert {frozenset(group) for group in found.groups(3)} == {frozenset(group) for group in groups}
    place = {name: number for number, name in enumerate(found.order)}
    for group in groups:
        places = sorted(place[name] for name in group)
        assert places == list(range(places[0], places[0] + len(group)))
    assert found.cophenetic > 0.9
    assert sum(found.groups(3), ()) == found.order


def test_any_number_of_groups_can_be_had_and_they_are_nested():
    sets = planted([tuple("abc"), tuple("de"), tuple("fgh")])
    sets |= {"h": sets["g"], "b": sets["a"]}  # ties
    found = cluster(overlap(sets))
    assert found.groups(1) == (found.order,)
    assert found.groups(8) == tuple((name,) for name in found.order)
    for k in range(1, 9):
        assert len(found.groups(k)) == k
        if k > 1:
            coarser = list(map(set, found.groups(k - 1)))
            assert all(any(set(group) <= other for other in coarser) for group in found.groups(k))
    with pytest.raises(ValueError, match=r"8 names make 1 to 8 groups, not 9"):
        found.groups(9)


def test_joints_are_at_the_mean_distance_of_their_members():
    table = overlap(planted([tuple("ab"), tuple("cd")]))
    found = cluster(table)
    apart = {frozenset(pair): 1 - value for *pair, value in table[["a", "b", "jaccard"]].itertuples(index=False)}
    one, two = found.groups(2)
    assert found.linkage[-1, 2] == pytest.approx(np.mean([apart[frozenset((x, y))] for x in one for y in two]))


def test_correlations_cosines_and_distances_cluster_too():
    table = pd.DataFrame({"a": list("xxy"), "b": list("yzz"), "value": [-0.5, 0.9, -0.4]})
    assert {frozenset(group) for group in cluster(table, "value").groups(2)} == {frozenset("xz"), frozenset("y")}
    apart = table.assign(value=[5.0, 1.0, 4.0])
    assert {frozenset(one) for one in cluster(apart, "value", distance=True).groups(2)} == {
        frozenset("xz"),
        frozenset("y"),
    }
    by_head = pd.concat([table, table.assign(value=[0.1, np.nan, 0.0])]).rename(columns={"a": "one", "b": "two"})
    assert cluster(by_head, "value", names=("one", "two")).linkage[0, 2] == pytest.approx(1 - 0.9)


def test_a_pair_without_a_value_is_named():
    table = pd.DataFrame({"a": list("xxy"), "b": list("yzz"), "value": [0.5, 0.9, np.nan]})
    with pytest.raises(ValueError, match=r"'value' of 'y' and 'z' has no value"):
        cluster(table, "value")
    with pytest.raises(ValueError, match=r"'value' of 'y' and 'z' has no value"):
        cluster(table[:2], "value")


def test_a_count_is_no_similarity():
    with pytest.raises(ValueError, match=r"'shared' of .* is \d+, which is no similarity"):
        cluster(overlap(planted([tuple("abc"), tuple("de")])), "shared")


def test_names_that_are_all_equally_alike_make_a_tree_that_means_nothing():
    table = pd.DataFrame([(a, b, 0.5) for a, b in combinations("wxyz", 2)], columns=["a", "b", "jaccard"])
    assert np.isnan(cluster(table).cophenetic)


def test_layers_of_models_of_different_size_have_comparable_depth():
    sets = {
        "small": HeadSet.of(3, 4, [(0, 1), (2, 0), (2, 3)]),
        "large": HeadSet.of(9, 16, [(8, head) for head in range(12)]),
        "flat": HeadSet.all(1, 2),
    }
    table = depth_profile(sets)
    assert table.columns.tolist() == ["name", "layer", "depth", "chosen", "n_heads", "share"]
    small, large, flat = (table[table["name"] == name] for name in sets)
    assert small["depth"].tolist() == [0, 0.5, 1]
    assert small["chosen"].tolist() == [1, 0, 2]
    assert small["share"].tolist() == [0.25, 0, 0.5]
    assert (large["depth"].iloc[4], large["share"].iloc[8], large["chosen"].sum()) == (0.5, 0.75, 12)
    assert (flat["depth"].item(), flat["share"].item()) == (0, 1)


def test_the_distance_is_how_far_heads_are_apart_in_depth_whatever_the_size_of_the_model():
    sets = {
        "low": HeadSet.of(6, 8, [(0, 1), (0, 2), (1, 3)]),
        "high in a large model": HeadSet.of(31, 16, [(30, 1), (27, 2)]),
        "nothing": HeadSet.none(6, 8),
    }
    table = depth_distance(sets).set_index(["a", "b"])
    row = table.loc[("low", "high in a large model")]
    assert row["wasserstein"] == pytest.approx(0.95 - 0.2 / 3)
    assert (row["size_a"], row["size_b"]) == (3, 2)
    empty = table.loc[("low", "nothing")]
    assert np.isnan(empty["wasserstein"]) and empty["p_value"] == 1


def test_chance_and_p_value_of_a_distance_are_those_of_all_ways_to_deal_the_heads():
    one, two = HeadSet.of(5, 4, [(0, 0), (0, 1), (1, 0), (2, 2)]), HeadSet.of(9, 4, [(3, 0), (7, 1), (8, 2)])
    depths = np.array([0, 0, 1 / 4, 2 / 4, 3 / 8, 7 / 8, 1])
    dealt = []
    for some in combinations(range(7), 4):
        rest = [index for index in range(7) if index not in some]
        dealt.append(wasserstein_distance(depths[list(some)], depths[rest]))
    row = depth_distance({"one": one, "two": two}, deals=20_000).iloc[0]
    assert row["chance"] == pytest.approx(np.mean(dealt), abs=0.005)
    assert row["p_value"] == pytest.approx(np.mean(np.array(dealt) >= row["wasserstein"] - 1e-9), abs=0.01)


def test_no_sets_have_no_profile():
    with pytest.raises(ValueError, match=r"no set"):
        depth_profile({})
