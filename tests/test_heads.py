from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens.frames import HEADS, TRAJECTORY, checked
from arm_lens.heads import (
    Head,
    HeadScores,
    HeadSet,
    head_scores,
    head_sets,
    heads_frame,
    history_frame,
    trajectory_frame,
)

masks = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=3, max_size=3).map(torch.tensor)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(masks, masks)
def test_sets_and_masks_are_the_same_thing(one, two):
    a, b = HeadSet.from_mask(one), HeadSet.from_mask(two)
    assert torch.equal(a.mask, one)
    assert torch.equal((a | b).mask, one | two)
    assert torch.equal((a & b).mask, one & two)
    assert torch.equal((a - b).mask, one & ~two)
    union = int((one | two).sum())
    assert a.jaccard(b) == (int((one & two).sum()) / union if union else 1.0)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(masks)
def test_a_random_set_has_the_same_number_of_heads_in_every_layer(mask):
    heads = HeadSet.from_mask(mask)
    drawn = heads.random_like(torch.Generator().manual_seed(0))
    assert torch.equal(drawn.mask.sum(dim=1), mask.sum(dim=1))


def test_random_sets_are_uniform_within_a_layer():
    heads, generator = HeadSet.of(1, 4, [(0, 0)]), torch.Generator().manual_seed(0)
    counts = sum(heads.random_like(generator).mask.float() for _ in range(4000))
    assert ((counts / 4000 - 0.25).abs() < 0.03).all()


def test_heads_print_as_the_field_writes_them_and_come_in_order():
    assert str(HeadSet.of(3, 4, [(2, 1), (0, 3)])) == "{L0H3, L2H1}"
    assert list(HeadSet.of(3, 4, [(2, 1), (0, 3)])) == [Head(0, 3), Head(2, 1)]


def test_a_head_outside_the_model_is_refused_by_name():
    with pytest.raises(ValueError, match="L3H0"):
        HeadSet.of(3, 4, [(3, 0)])


def test_sets_of_different_models_are_not_compared():
    with pytest.raises(ValueError, match="different models"):
        HeadSet.all(3, 4).jaccard(HeadSet.all(4, 3))


def test_the_top_heads_are_those_with_the_highest_scores():
    scores = HeadScores("effect", torch.tensor([[0.1, 0.9], [0.9, -2.0]]))
    assert scores.top(1) == HeadSet.of(2, 2, [(0, 1)])
    assert scores.top(2) == HeadSet.of(2, 2, [(0, 1), (1, 0)])
    assert scores.above(0.0) == HeadSet.of(2, 2, [(0, 0), (0, 1), (1, 0)])
    with pytest.raises(ValueError, match="5"):
        scores.top(5)


def test_the_frame_of_scores_has_one_row_per_head():
    frame = HeadScores("effect", torch.tensor([[0.5, 1.0], [2.0, 3.0]])).frame()
    assert frame.to_dict("list") == {"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "score": [0.5, 1.0, 2.0, 3.0]}


@settings(max_examples=30, derandomize=True, deadline=None)
@given(masks)
def test_a_set_goes_through_its_frame(mask):
    heads = HeadSet.from_mask(mask)
    frame = heads.frame()
    assert len(frame) == mask.numel() and frame["selected"].sum() == len(heads)
    assert HeadSet.from_frame(frame.sample(frac=1, random_state=0)) == heads


def test_scores_go_through_their_frame_with_unknown_ones():
    values = torch.tensor([[0.5, float("nan"), -1.0], [0.0, 2.5, 1e-3]])
    scores = HeadScores("effect", values)
    again = HeadScores.from_frame(scores.frame(), name="effect")
    assert torch.equal(again.values.nan_to_num(nan=9.0), values.nan_to_num(nan=9.0)) and again.name == "effect"
    some = HeadScores.from_frame(scores.frame().drop(index=[1, 3]), name="effect")
    assert some.values.isnan().nonzero().tolist() == [[0, 1], [1, 0]]


def test_frames_that_are_no_set_are_refused_by_the_head_at_fault():
    frame = HeadSet.of(2, 3, [(1, 2)]).frame()
    with pytest.raises(ValueError, match="5 rows for the 6 heads of a model of 2 layers of 3"):
        HeadSet.from_frame(frame.drop(index=0))
    with pytest.raises(ValueError, match="several rows of layer 0, head 0"):
        HeadSet.from_frame(pd.concat([frame, frame]))
    with pytest.raises(ValueError, match=r"holds nothing in row 1 \(layer 0, head 1\)"):
        HeadSet.from_frame(frame.astype({"selected": object}).assign(selected=[False, None, *[False] * 4]))
    with pytest.raises(ValueError, match="lacks the column 'selected'"):
        HeadSet.from_frame(frame.drop(columns="selected"))


# -- tables of the library's own objects --------------------------------------------------------------------------------


@dataclass
class Search:
    """What a selection holds."""

    heads: HeadSet
    head_scores: HeadScores
    history: pd.DataFrame
    trajectory: torch.Tensor | None = None


@dataclass
class Fitted:
    """What a reward model holds."""

    heads: HeadSet
    selection: Search | None
    record: SimpleNamespace


def search(seed: int, name: str = "selection probability") -> Search:
    generator = torch.Generator().manual_seed(seed)
    path = torch.rand(5, 3, 4, generator=generator)
    history = pd.DataFrame({"step": range(5), "reward": path.mean(dim=(1, 2)).numpy()})
    return Search(HeadSet.from_mask(path[-1] > 0.5), HeadScores(name, path[-1]), history, path)


def fitted(seed: int, criterion: str = "polite") -> Fitted:
    found = search(seed)
    return Fitted(found.heads, found, SimpleNamespace(criterion=criterion, seed=seed))


def test_one_object_several_by_name_and_repetitions_become_one_table():
    one, two = fitted(7), fitted(8)
    alone = heads_frame(one)
    assert set(alone["criterion"]) == {"polite"} and set(alone["seed"]) == {7}
    several = heads_frame({"polite": [one, two], "brief": HeadSet.none(3, 4), "list": search(3)})
    checked(several, HEADS)
    assert list(dict.fromkeys(zip(several["criterion"], several["seed"], strict=True))) == [
        ("polite", 7), ("polite", 8), ("brief", 0), ("list", 0)
    ]  # fmt: skip
    for (name, seed), heads in {("polite", 7): one.heads, ("polite", 8): two.heads, ("brief", 0): []}.items():
        rows = several[(several["criterion"] == name) & (several["seed"] == seed)]
        chosen = rows[rows["selected"]]
        assert {(int(a), int(b)) for a, b in zip(chosen["layer"], chosen["head"], strict=True)} == set(heads)
    first = several[(several["criterion"] == "polite") & (several["seed"] == 7)]
    np.testing.assert_allclose(first["probability"], one.selection.head_scores.values.flatten())
    assert heads_frame(several) is several


def test_a_search_by_something_else_has_no_probabilities():
    frame = heads_frame({"polite": search(0, "effect")})
    assert frame["probability"].isna().all() and frame["selected"].any()
    given = Fitted(HeadSet.of(3, 4, [(0, 0)]), None, SimpleNamespace(criterion="polite", seed=1))
    assert heads_frame(given)["probability"].sum() == 1
    with pytest.raises(ValueError, match="heads of 'polite' were given"):
        head_scores({"polite": given})


def test_seeds_that_are_the_same_are_numbered():
    frame = heads_frame({"polite": [fitted(7), fitted(7)]})
    assert list(frame["seed"].unique()) == [0, 1]


def test_searches_have_a_history_and_a_trajectory():
    named = {"polite": [fitted(1), fitted(2)], "given": HeadSet.none(3, 4), "list": search(3)}
    history = history_frame({name: one for name, one in named.items() if name != "given"})
    assert len(history) == 15 and list(history.columns[:3]) == ["criterion", "seed", "step"]
    path = trajectory_frame({name: one for name, one in named.items() if name != "given"}, steps=3)
    checked(path, TRAJECTORY)
    assert list(path["step"].unique()) == [0, 2, 4] and len(path) == 2 * 3 * 12
    last = path[(path["criterion"] == "list") & (path["step"] == 4)]["probability"]
    np.testing.assert_allclose(last, search(3).trajectory[4].flatten())
    assert trajectory_frame({"polite": Search(**{**vars(search(1)), "trajectory": None})}).empty


def test_sets_and_scores_by_name_are_those_of_the_objects():
    one, other = fitted(1), search(2)
    assert head_sets({"a": one, "b": other, "c": HeadSet.none(3, 4)}) == {
        "a": one.heads, "b": other.heads, "c": HeadSet.none(3, 4)
    }  # fmt: skip
    assert list(head_sets({"a": [one, fitted(2)]})) == ["a, seed 1", "a, seed 2"]
    assert head_sets(heads_frame({"a": one, "b": other})) == {"a, seed 1": one.heads, "b, seed 0": other.heads}
    scores = head_scores({"a": one, "b": other, "c": HeadScores("effect", torch.zeros(3, 4))})
    assert scores["a"] is one.selection.head_scores and scores["b"] is other.head_scores
