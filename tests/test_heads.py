from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens import Head, HeadScores, HeadSet

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
