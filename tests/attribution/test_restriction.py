"""Measures of some heads or layers: the same values there, and none elsewhere."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from arm_lens import HeadSet
from arm_lens.attribution import (
    ablation,
    direct_logit_attribution,
    gradient_attribution,
    head_gating,
    injection_effects,
    integrated_gradients,
    interactions,
    leave_one_out_effects,
    shapley_values,
)
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.selection import JudgingObjective

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23], [1, 8]]
LABELS = [True, False, False, True]
CHOSEN = HeadSet.of(3, 4, [(0, 1), (1, 3), (2, 0)])
ALONE = {
    "injection": injection_effects,
    "leave_one_out": partial(leave_one_out_effects, chosen=CHOSEN),
    "gradient": gradient_attribution,
    "direct": direct_logit_attribution,
    "zero": partial(ablation, kind="zero"),
    "mean": partial(ablation, kind="mean"),
    "resample": partial(ablation, kind="resample", resamples=2),
    "optimal": partial(ablation, kind="optimal"),
    "everywhere": partial(ablation, kind="mean", positions="all"),
}
"""Measures in which heads take no part in the others' values."""
GAMES = {
    "shapley": partial(shapley_values, exact=True),
    "integrated_gradients": integrated_gradients,
    "head_gating": partial(head_gating, fits=2, steps=2),
}


@pytest.fixture(scope="module")
def objective(model_of):
    values = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))
    return JudgingObjective(Replay(model_of("llama"), SEQUENCES, VerdictTokens((5,), (6, 7))), values, LABELS)


@pytest.mark.parametrize("measure", ALONE)
def test_what_is_measured_is_what_it_was_among_all(objective, measure):
    whole = ALONE[measure](objective)
    some = ALONE[measure](objective, heads=[(0, 2), (1, 3), (2, 0)], layers=[1, 2])
    mask = HeadSet.of(3, 4, [(1, 3), (2, 0)]).mask
    for outcome in whole.outcomes:
        for name in ("values", "errors"):
            found, expected = (getattr(one, name)[outcome] for one in (some, whole))
            torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-4)
            assert bool(found[~mask].isnan().all()) and not bool(expected.isnan().any())
    if measure == "resample":
        torch.testing.assert_close(some.sampling_errors["gap"][mask], whole.sampling_errors["gap"][mask])
    assert len(some.frame()) == len(whole.frame())


@pytest.mark.parametrize("measure", GAMES)
def test_a_restricted_game_is_that_of_the_heads_in_the_layers(objective, measure):
    by_layer = GAMES[measure](objective, layers=[1])
    by_head = GAMES[measure](objective, heads=[(1, head) for head in range(4)])
    for outcome in by_layer.outcomes:
        torch.testing.assert_close(by_layer.values[outcome], by_head.values[outcome], equal_nan=True)
        assert by_layer.values[outcome].isnan().tolist() == [[True] * 4, [False] * 4, [True] * 4]


@pytest.mark.parametrize("measure", [*ALONE, *GAMES])
def test_heads_that_do_not_exist_are_named(objective, measure):
    run = {**ALONE, **GAMES}[measure]
    for heads, layers, message in (
        ([(3, 0)], None, "L3H0 is outside a model of"),
        (None, [0, 7], "there is no layer 7; the model's layers are 0 to 2"),
        ([(0, 1)], [1], "there are no heads to measure"),
        (HeadSet.of(4, 4, [(0, 1)]), None, "head sets of different models"),
    ):
        with pytest.raises(ValueError, match=message):
            run(objective, heads=heads, layers=layers)


def test_interactions_are_of_the_heads_in_the_layers(objective):
    found = interactions(objective, [(0, 1), (1, 0), (1, 2)], layers=[1], context="alone")
    assert [tuple(head) for head in found.heads] == [(1, 0), (1, 2)]
