"""Greedy forward selection, against enumeration and planted heads."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests_support import planted_objective

from arm_lens import HeadSet
from arm_lens.selection import Greedy, Selector

SETS = [frozenset(some) for size in range(7) for some in itertools.combinations(range(6), size)]


class Known:
    """A reward for every set of the heads 0 to 5, of 3 layers of 2, and a record of which sets were asked about."""

    shape = (3, 2)

    def __init__(self, of):
        self.of, self.sets = of, []

    def __len__(self):
        return 1

    def __call__(self, masks, examples=None):
        sets = [frozenset(mask.flatten().nonzero().flatten().tolist()) for mask in masks]
        self.sets.append(sets)
        return torch.tensor([self.of[one] for one in sets])


def arbitrary(seed):
    rewards = torch.randn(len(SETS), generator=torch.Generator().manual_seed(seed)).tolist()
    return Known(dict(zip(SETS, rewards, strict=True)))


def additive(effects):
    return Known({one: float(sum(effects[number] for number in one)) for one in SETS})


def numbers(heads):
    return frozenset(head.layer * 2 + head.head for head in heads)


def by_hand(of, price, most=6):
    """Which heads are added, in order."""
    order = []
    while len(order) < most:
        tries = {number: of[frozenset([*order, number])] for number in range(6) if number not in order}
        number = max(tries, key=tries.get)
        if tries[number] - of[frozenset(order)] <= price:
            break
        order.append(number)
    return order


@pytest.mark.parametrize("price", [0.0, 0.4, 1.5])
@pytest.mark.parametrize("seed", range(8))
def test_each_step_takes_in_the_head_that_adds_most(seed, price):
    objective = arbitrary(seed)
    order = by_hand(objective.of, price)
    found = Greedy(head_penalty=price).select(objective)
    assert numbers(found.heads) == frozenset(order)
    expected = [objective.of[frozenset(order[:count])] for count in range(len(order) + 1)]
    assert found.history["reward"].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.history["expected_heads"].tolist() == list(range(len(order) + 1))


@pytest.mark.parametrize("seed", range(8))
def test_what_was_gained_adds_up_to_what_the_set_gains(seed):
    objective = arbitrary(seed)
    found = Greedy(head_penalty=0.1).select(objective)
    gained = objective.of[numbers(found.heads)] - objective.of[frozenset()]
    assert float(found.head_scores.values.sum()) == pytest.approx(gained, abs=1e-5)
    assert (found.head_scores.values[found.heads.mask] > 0.1).all()
    assert (found.head_scores.values[~found.heads.mask] == 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_where_heads_do_not_interact_the_best_of_all_sets_is_found(seed):
    effects = torch.randn(6, generator=torch.Generator().manual_seed(seed)).tolist()
    objective, price = additive(effects), 0.25
    best = max(SETS, key=lambda one: objective.of[one] - price * len(one))
    assert numbers(Greedy(head_penalty=price).select(objective).heads) == best


def test_a_head_is_taken_if_it_adds_more_than_its_price_and_not_if_it_adds_as_much():
    objective = additive([1.0, 0.5, 0.25, -1.0, 0.0, 0.0])
    assert numbers(Greedy(head_penalty=0.25).select(objective).heads) == {0, 1}
    assert numbers(Greedy(head_penalty=0.2).select(objective).heads) == {0, 1, 2}


@pytest.mark.parametrize("most", [0, 2, 6, 50])
def test_it_stops_at_the_most_heads_allowed(most):
    objective = additive([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = Greedy(max_heads=most).select(objective)
    assert numbers(found.heads) == frozenset(by_hand(objective.of, 0.01, min(most, 6)))
    assert len(found.heads) == min(most, 6)


def test_a_step_asks_at_once_about_each_head_that_is_left_and_no_other():
    objective = additive([3.0, 2.0, 1.0, -1.0, -1.0, -1.0])
    Greedy().select(objective)
    none, first, second, third, last = objective.sets
    assert none == [frozenset()]
    assert set(first) == {frozenset([number]) for number in range(6)}
    assert set(second) == {frozenset([0, number]) for number in range(1, 6)}
    assert set(third) == {frozenset([0, 1, number]) for number in range(2, 6)}
    assert set(last) == {frozenset([0, 1, 2, number]) for number in range(3, 6)}


def test_the_seed_is_ignored_and_the_options_are_for_json():
    one, two = (Greedy().select(arbitrary(3), seed=seed) for seed in (0, 1))
    assert one.heads == two.heads and one.history.equals(two.history)
    dumped = {"kind": "greedy", "max_heads": 3, "head_penalty": None, "layers": None}
    assert Greedy(max_heads=3).model_dump() == dumped
    assert isinstance(Greedy(), Selector)


def test_fewer_heads_than_none_are_refused():
    with pytest.raises(ValueError, match="-2"):
        Greedy(max_heads=-2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_planted_heads_are_found(seed, tokenizer, tmp_path_factory):
    planted, objective = planted_objective(tokenizer, tmp_path_factory, seed=seed)
    found = Greedy().select(objective)
    assert found.heads == planted.heads
    nothing, everything = objective(torch.stack([HeadSet.none(3, 4).mask, found.heads.mask])).tolist()
    assert float(found.head_scores.values.sum()) == pytest.approx(everything - nothing, abs=1e-4)
