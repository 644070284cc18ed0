"""What sets share, against the enumeration of all sets."""

from __future__ import annotations

from itertools import chain, combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from arm_lens import HeadSet
from arm_lens.comparison import head_sets, overlap
from arm_lens.evaluation.statistics import holm


def random_set(n_layers, n_heads, size, seed):
    order = torch.randperm(n_layers * n_heads, generator=torch.Generator().manual_seed(seed))[:size]
    return HeadSet.of(n_layers, n_heads, [divmod(int(index), n_heads) for index in order])


def every_set_like(one, *, within_layers):
    """All sets with as many heads as ``one``, in all or in every layer."""
    if not within_layers:
        places = list(product(range(one.n_layers), range(one.n_heads)))
        yield from (HeadSet.of(one.n_layers, one.n_heads, some) for some in combinations(places, len(one)))
        return
    counts = one.mask.sum(dim=1).tolist()
    layers = [[[(layer, head) for head in some] for some in combinations(range(one.n_heads), count)]
              for layer, count in enumerate(counts)]  # fmt: skip
    for parts in product(*layers):
        yield HeadSet.of(one.n_layers, one.n_heads, chain.from_iterable(parts))


@pytest.mark.parametrize("within_layers", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_p_values_and_chance_levels_are_those_of_all_sets_there_are(seed, within_layers):
    one, two = random_set(3, 4, 5, seed), random_set(3, 4, 4, seed + 10)
    row = overlap({"one": one, "two": two}, within_layers=within_layers).iloc[0]
    others = list(every_set_like(two, within_layers=within_layers))
    shared = np.array([len(one & other) for other in others])
    assert row["p_value"] == pytest.approx((shared >= len(one & two)).mean(), abs=1e-12)
    assert row["expected"] == pytest.approx(shared.mean(), abs=1e-12)
    assert row["jaccard_chance"] == pytest.approx(np.mean([one.jaccard(other) for other in others]), abs=1e-12)


def test_two_sets_in_the_same_layer_share_more_than_any_sets_but_not_more_than_sets_of_that_layer():
    sets = {
        "a": HeadSet.of(12, 8, [(4, head) for head in range(5)]),
        "b": HeadSet.of(12, 8, [(4, head) for head in range(2, 7)]),
    }
    anywhere, within = overlap(sets).iloc[0], overlap(sets, within_layers=True).iloc[0]
    assert anywhere["p_value"] < 1e-3
    assert within["p_value"] > 0.5
    assert within["expected"] == pytest.approx(5 * 5 / 8)


def test_without_layers_the_p_value_is_fishers():
    one, two = random_set(32, 32, 40, 0), random_set(32, 32, 60, 1)
    two = two | HeadSet.of(32, 32, list(one)[:9])
    shared = len(one & two)
    table = [[shared, len(one) - shared], [len(two) - shared, 1024 - len(one | two)]]
    row = overlap({"one": one, "two": two}).iloc[0]
    assert row["p_value"] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-9)


@pytest.mark.slow
def test_under_the_null_small_p_values_are_as_rare_as_they_say():
    generator = torch.Generator().manual_seed(0)
    one = random_set(6, 8, 12, 0)
    values = np.array(
        [
            overlap({"a": one, "b": one.random_like(generator)}, within_layers=True)["p_value"].iloc[0]
            for _ in range(400)
        ]
    )
    assert (values <= 0.05).mean() < 0.08
    assert (values <= 0.5).mean() < 0.56


def test_every_pair_is_there_once_with_sizes_and_holms_correction():
    sets = {name: random_set(6, 8, size, size) for name, size in zip("abcd", (3, 9, 14, 20), strict=True)}
    table = overlap(sets)
    assert list(zip(table["a"], table["b"], strict=True)) == list(combinations("abcd", 2))
    for row in table.itertuples():
        one, two = sets[row.a], sets[row.b]
        assert (row.size_a, row.size_b, row.shared, row.n_heads) == (len(one), len(two), len(one & two), 48)
        assert row.overlap == len(one & two) / min(len(one), len(two))
        assert row.jaccard == len(one & two) / (len(one) + len(two) - len(one & two))
    np.testing.assert_allclose(table["p_holm"], holm(table["p_value"].to_numpy()))


def test_a_subset_overlaps_wholly_and_empty_sets_say_nothing():
    nothing, some, all_of_it = HeadSet.none(3, 4), HeadSet.of(3, 4, [(0, 0), (2, 1)]), HeadSet.all(3, 4)
    table = overlap({"nothing": nothing, "also": nothing, "some": some, "all": all_of_it}).set_index(["a", "b"])
    assert table.loc[("some", "all"), "overlap"] == 1
    assert table.loc[("some", "all"), "p_value"] == pytest.approx(1)  # any two heads are within all
    both_empty = table.loc[("nothing", "also")]
    assert (both_empty["jaccard"], both_empty["jaccard_chance"], both_empty["p_value"]) == (1, 1, 1)
    assert np.isnan(both_empty["overlap"])


def test_sets_of_models_of_different_size_are_sent_to_the_depth_profile():
    with pytest.raises(ValueError, match=r"'small'.*6 layers of 8.*'large'.*32 layers of 32.*depth_profile"):
        overlap({"small": HeadSet.none(6, 8), "large": HeadSet.none(32, 32)})


def test_one_set_is_nothing_to_compare():
    with pytest.raises(ValueError, match=r"at least two head sets.*only 'polite'"):
        overlap({"polite": HeadSet.none(6, 8)})


def heads_table(sets):
    """(criterion, seed, set) as the table of heads."""
    rows = [
        {"criterion": criterion, "seed": seed, "layer": layer, "head": head, "selected": (layer, head) in one}
        for criterion, seed, one in sets
        for layer in range(one.n_layers)
        for head in range(one.n_heads)
    ]
    return pd.DataFrame(rows)


def test_sets_come_out_of_the_table_as_they_went_in_under_readable_names():
    sets = [
        ("polite", 0, random_set(6, 8, 7, 0)),
        ("polite", 1, random_set(6, 8, 5, 1)),
        ("brief", 0, HeadSet.none(6, 8)),
    ]
    found = head_sets(heads_table(sets))
    assert list(found) == ["polite, seed 0", "polite, seed 1", "brief, seed 0"]
    assert list(found.values()) == [one for *_, one in sets]
    assert list(head_sets(heads_table(sets[2:]), by=["criterion"])) == ["brief"]


def test_a_table_that_does_not_tell_sets_apart_is_refused_by_the_head_that_is_there_twice():
    table = heads_table([("polite", 0, random_set(6, 8, 7, 0)), ("polite", 1, random_set(6, 8, 5, 1))])
    with pytest.raises(ValueError, match=r"'polite' .sets by criterion.*several rows of layer 0, head 0"):
        head_sets(table, by=["criterion"])


def test_a_table_of_the_chosen_heads_alone_is_refused():
    table = heads_table([("polite", 0, random_set(6, 8, 7, 0))])
    with pytest.raises(ValueError, match=r"'polite, seed 0'.*7 rows.*every head"):
        head_sets(table[table["selected"]])


def test_a_head_neither_selected_nor_not_is_named():
    table = heads_table([("polite", 0, random_set(6, 8, 7, 0))]).astype({"selected": object})
    table.loc[9, "selected"] = None
    with pytest.raises(ValueError, match=r"holds nothing in row 9 \(criterion polite, seed 0, layer 1, head 1\)"):
        head_sets(table)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"'heads' lacks the column 'seed'"):
        head_sets(heads_table([("polite", 0, HeadSet.none(2, 2))]).drop(columns="seed"))
