"""What all searches for heads have in common: eligible layers, and no mask that is judged twice."""

from __future__ import annotations

import pytest
import torch
from selection.additive import Additive
from tests_support import planted_objective

from arm_lens.heads import HeadSet
from arm_lens.selection import Greedy, HardConcrete, Reinforce, SoftGate, TopEffect, selector_of
from arm_lens.selection.outcome import KnownRewards

SEARCHES = [
    TopEffect(),
    Greedy(),
    Reinforce(steps=60),
    SoftGate(steps=60, learning_rate=0.3),
    HardConcrete(steps=60, learning_rate=0.3),
]
EFFECTS = [[0.5, -0.2, 0.1], [0.0, 0.4, -0.3], [0.3, 0.2, -0.1]]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.kind)


@each_search
def test_the_best_heads_of_the_eligible_layers_are_found_and_no_other_head_is_written(search):
    objective = Additive(EFFECTS)
    found = search.model_copy(update={"layers": (0, 2), "head_penalty": 0.01}).select(objective)
    assert found.heads == HeadSet.of(3, 3, [(0, 0), (0, 2), (2, 0), (2, 1)])
    assert not any(any(mask[3:6]) for mask in objective.asked)
    assert (found.head_scores.values[1] == 0).all()
    assert found.gates is None or (found.gates[1] == 0).all()


@each_search
@pytest.mark.parametrize("layers", [(), (3,), (0, -1)], ids=str)
def test_layers_that_are_not_the_models_are_refused_before_a_mask_is_judged(search, layers):
    objective = Additive(EFFECTS)
    with pytest.raises(ValueError, match="eligible layers"):
        search.model_copy(update={"layers": layers}).select(objective)
    assert objective.asked == []


@pytest.mark.parametrize("search", [TopEffect(), TopEffect(k=2), Greedy(), Greedy(max_heads=1)], ids=str)
def test_the_history_of_a_search_by_sets_ends_with_the_chosen_set(search):
    objective = Additive(EFFECTS)
    found = search.select(objective)
    last = found.history.iloc[-1]
    assert last["reward"] == pytest.approx(float(objective(found.heads.mask[None])[0]))
    assert last["expected_heads"] == len(found.heads)


@each_search
def test_no_mask_is_judged_twice(search):
    objective = Additive(EFFECTS)
    search.select(objective)
    assert len(objective.asked) == len(set(objective.asked))


def test_passes_are_masks_that_were_judged_and_three_for_each_gradient():
    for search in (TopEffect(), Greedy(), Reinforce(steps=30)):
        objective = Additive(EFFECTS)
        assert search.select(objective).passes == len(objective.asked)
    assert SoftGate(steps=7).select(Additive(EFFECTS)).passes == 21
    published = selector_of("published").model_copy(update={"steps": 10, "best_of_examples": 2})
    assert published.select(Additive(EFFECTS)).passes == 10 * 32 / 2 + 10 * 2 / 2  # one and two of two examples


def test_what_is_known_of_a_mask_is_what_was_judged_of_it():
    class Random(Additive):
        def __call__(self, masks, examples=None):
            super().__call__(masks, examples)
            return torch.rand(len(masks), generator=torch.Generator().manual_seed(len(self.asked)))

    objective, first = Random(EFFECTS), torch.rand(20, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    known = KnownRewards(objective)
    rewards = known(first)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    again = torch.cat([first[order], ~first[:5], first[:1]])
    assert torch.equal(known(again)[:20], rewards[order])
    assert len(objective.asked) == len(set(objective.asked))
    before = len(objective.asked)
    assert len(known(first[:2], [1])) == 2
    assert len(objective.asked) == before


@each_search
@pytest.mark.parametrize(
    ("shape", "layers", "each"),
    [((3, 4), None, 0.01), ((6, 8), None, 0.01), ((30, 9), None, 0.48 / 270), ((30, 9), (1, 2), 0.48 / 270)],
)
def test_all_heads_of_a_large_model_together_cost_what_those_of_a_small_one_do(search, shape, layers, each):
    options = search.model_copy(update={"layers": layers}).resolved(shape)
    assert options.head_penalty == pytest.approx(each)
    assert options.resolved((2, 2)) == options  # what was resolved, or given, stays
    assert all(getattr(options, name, 0) is not None for name in ("head_penalty", "initial_logit"))


def test_layers_are_an_option_in_a_configuration():
    assert selector_of({"kind": "greedy", "layers": [1, 2]}).layers == (1, 2)


@pytest.mark.tl4
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_every_way_of_reinforce_finds_exactly_the_planted_heads(seed, tokenizer, tmp_path_factory):
    planted, objective = planted_objective(tokenizer, tmp_path_factory, seed=seed)
    for options in ({"control_variate": True}, {"warm_start": "slopes"}):
        assert Reinforce(**options).select(objective, seed=seed).heads == planted.heads, options
