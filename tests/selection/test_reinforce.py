"""The REINFORCE loop, against enumeration and closed forms. No model is involved."""

from __future__ import annotations

import itertools

import pytest
import torch
from selection.additive import Additive

from arm_lens import PUBLISHED, HeadSet, Reinforce
from arm_lens.selection import reinforce
from arm_lens.selection.reinforce import _LinearPart, advantages, log_prob


def all_masks(n_layers, n_heads):
    rows = itertools.product([False, True], repeat=n_layers * n_heads)
    return torch.tensor(list(rows)).reshape(-1, n_layers, n_heads)


def three_head_reward(masks, examples=None):
    """A reward with main effects and an interaction: heads 0 and 1 help only together, head 2 harms."""
    m = masks.float()
    return 2.0 * m[:, 0, 0] * m[:, 0, 1] + 0.3 * m[:, 0, 0] - 1.0 * m[:, 0, 2]


def exact_gradient(logits):
    """d/d logits of the expected reward, by summing over all masks."""
    p = torch.sigmoid(logits)
    masks = all_masks(*logits.shape)
    probability = torch.where(masks, p, 1 - p).prod(dim=-1).prod(dim=-1)
    expected = (probability * three_head_reward(masks)).sum()
    return torch.autograd.grad(expected, logits)[0]


@pytest.mark.slow
def test_the_leave_one_out_gradient_estimate_agrees_with_enumeration_on_three_heads(generator):
    logits = torch.tensor([[-1.0, 0.2, 0.7]], requires_grad=True)
    estimates = []
    for _ in range(4000):
        p = torch.sigmoid(logits)
        masks = torch.rand(8, 1, 3, generator=generator) < p.detach()
        advantage = advantages(three_head_reward(masks), "leave_one_out", scale=False)
        estimates.append(torch.autograd.grad((log_prob(p, masks) * advantage).mean(), logits)[0])
    stacked = torch.stack(estimates)
    standard_error = stacked.std(dim=0) / len(stacked) ** 0.5
    exact = exact_gradient(logits)
    assert (standard_error < 0.02).all()
    assert ((stacked.mean(dim=0) - exact).abs() < 4 * standard_error).all()


def test_the_leave_one_out_baseline_is_the_mean_of_the_others(generator):
    rewards = torch.randn(7, generator=generator)
    found = advantages(rewards, "leave_one_out", scale=False)
    expected = [rewards[i] - torch.cat([rewards[:i], rewards[i + 1 :]]).mean() for i in range(7)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_published_advantage_is_standardised_with_the_published_constant(generator):
    rewards = torch.randn(32, generator=generator)
    torch.testing.assert_close(
        advantages(rewards, "standardised"), (rewards - rewards.mean()) / (rewards.std() + 0.001)
    )


def test_log_probabilities_of_all_masks_sum_to_one():
    p = torch.tensor([[0.1, 0.6], [0.999, 0.5]])
    torch.testing.assert_close(log_prob(p, all_masks(2, 2)).exp().sum(), torch.tensor(1.0))


def planted_reward(planted, noise=0.0, seed=0):
    """Each planted head adds 1 when chosen, every other head takes 0.3 away."""
    mask = planted.mask
    generator = torch.Generator().manual_seed(seed)

    def reward(masks, examples=None):
        value = (masks & mask).sum(dim=(1, 2)) - 0.3 * (masks & ~mask).sum(dim=(1, 2))
        return value + noise * torch.randn(len(masks), generator=generator)

    return reward


@pytest.mark.parametrize("seed", range(10))
def test_exactly_the_heads_that_help_are_found(seed):
    planted = HeadSet.of(4, 6, [(0, 3), (1, 1), (2, 0), (2, 5), (3, 2)])
    found = reinforce(planted_reward(planted, noise=0.2, seed=seed), 4, 6, n_examples=1, seed=seed)
    assert found.heads == planted


@pytest.mark.slow
def test_the_price_per_head_decides_which_small_effects_are_worth_it():
    effects = torch.tensor([[0.5, 0.02, 0.0, 0.2]])

    def reward(masks, examples=None):
        return (masks * effects).sum(dim=(1, 2))

    cheap = reinforce(reward, 1, 4, n_examples=1, options=Reinforce(head_penalty=0.005, steps=600))
    dear = reinforce(reward, 1, 4, n_examples=1, options=Reinforce(head_penalty=0.1, steps=600))
    assert cheap.heads == HeadSet.of(1, 4, [(0, 0), (0, 1), (0, 3)])
    assert dear.heads == HeadSet.of(1, 4, [(0, 0), (0, 3)])


def test_the_same_seed_gives_the_same_selection_and_another_seed_another_history():
    planted = HeadSet.of(3, 4, [(0, 0), (1, 2)])

    def run(seed):
        return reinforce(planted_reward(planted), 3, 4, n_examples=5, options=Reinforce(steps=20), seed=seed)

    one, same, other = run(3), run(3), run(4)
    assert one.heads == same.heads
    assert torch.equal(one.trajectory, same.trajectory)
    assert one.history.equals(same.history)
    assert not torch.equal(one.trajectory, other.trajectory)


def test_global_randomness_is_neither_used_nor_disturbed():
    planted = HeadSet.of(2, 2, [(0, 0)])
    torch.manual_seed(11)
    before = torch.get_rng_state()
    reinforce(planted_reward(planted), 2, 2, n_examples=1, options=Reinforce(steps=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_only_eligible_layers_are_ever_drawn():
    drawn = []

    def reward(masks, examples=None):
        drawn.append(masks)
        return masks.float().sum(dim=(1, 2))

    found = reinforce(reward, 4, 3, n_examples=1, options=Reinforce(layers=(1, 2), steps=100))
    assert not torch.cat(drawn)[:, [0, 3]].any()
    assert found.heads == HeadSet.of(4, 3, [(layer, head) for layer in (1, 2) for head in range(3)])
    assert (found.head_scores.values[[0, 3]] == 0).all()


@pytest.mark.slow
def test_the_published_preset_judges_one_random_example_and_32_masks_a_step():
    seen = []

    def reward(masks, examples=None):
        seen.append((len(masks), examples))
        return masks.float().sum(dim=(1, 2))

    reinforce(reward, 2, 2, n_examples=9, options=PUBLISHED)
    *steps, final = seen
    assert len(steps) == 600
    assert all(count == 32 and len(examples) == 1 for count, examples in steps)
    assert {examples[0] for _, examples in steps} == set(range(9))
    assert final == (10, None)
    reinforce(reward, 2, 2, n_examples=200, options=PUBLISHED.model_copy(update={"steps": 1}))
    _, judged = seen[-1]  # a random choice: examples may be sorted
    assert len(set(judged)) == 50 and min(judged) >= 0 and 150 < max(judged) < 200


def first_probabilities(shape, effects=None, **options):
    effects = torch.zeros(shape) if effects is None else effects

    def reward(masks, examples=None):
        return (masks * effects).sum(dim=(1, 2))

    return reinforce(reward, *shape, n_examples=1, options=Reinforce(steps=1, **options)).trajectory[0]


def test_the_first_probabilities_of_the_published_preset_are_the_published_ones():
    found = first_probabilities((2, 2), **PUBLISHED.model_dump(include={"initial_logit", "warm_start"}))
    torch.testing.assert_close(found, torch.full((2, 2), torch.sigmoid(torch.tensor(-1.0)).item()))


@pytest.mark.parametrize(
    ("shape", "layers", "expected"),
    [
        ((4, 4), None, 0.27),
        ((6, 8), None, 0.27),
        ((30, 9), None, 13 / 270),
        ((80, 64), None, 13 / 5120),
        ((30, 9), (3, 4), 0.27),
    ],
    ids=str,
)
def test_a_search_starts_with_a_quarter_of_the_eligible_heads_or_thirteen_of_them(shape, layers, expected):
    found = first_probabilities(shape, layers=layers)
    eligible = Reinforce(layers=layers).eligible(shape)
    torch.testing.assert_close(found[eligible], torch.full_like(found[eligible], expected), atol=1e-3, rtol=1e-2)
    assert (found[~eligible] == 0).all()


def test_a_warm_start_adds_the_effect_of_each_head_alone_in_standard_deviations():
    effects = torch.tensor([[0.3, -0.1, 0.0], [0.1, 0.2, -0.5]])
    found = first_probabilities((2, 3), effects, initial_logit=-1.0)
    expected = torch.sigmoid(-1.0 + effects / effects.std(correction=0))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(first_probabilities((2, 3), 1e-4 * effects, initial_logit=-1.0), expected)  # of any unit
    cold = first_probabilities((2, 3), effects, initial_logit=-1.0, warm_start=None)
    torch.testing.assert_close(cold, torch.sigmoid(torch.full((2, 3), -1.0)))


def test_no_head_is_decided_before_the_search():
    effects = torch.zeros(20, 20)
    effects[3, 4], effects[5, 6] = 100.0, -100.0
    found = first_probabilities((20, 20), effects)
    assert found.min() > 0.001 and found.max() < 0.9


def test_top_k_and_best_of_make_their_sets_as_they_say():
    planted = HeadSet.of(3, 4, [(0, 0), (1, 2), (2, 3)])
    top = reinforce(planted_reward(planted), 3, 4, n_examples=1, options=Reinforce(final="top_k", top_k=2))
    assert len(top.heads) == 2
    assert (top.heads - planted) == HeadSet.none(3, 4)
    best = reinforce(planted_reward(planted), 3, 4, n_examples=1, options=Reinforce(final="best_of", best_of=10))
    assert best.heads == planted


def test_the_history_has_a_row_per_step_and_says_how_many_heads_are_expected():
    found = reinforce(lambda masks, _: masks.float().sum(dim=(1, 2)), 2, 3, n_examples=1, options=Reinforce(steps=7))
    assert list(found.history["step"]) == list(range(7))
    torch.testing.assert_close(
        torch.tensor(found.history["expected_heads"].to_numpy()), found.trajectory.sum(dim=(1, 2)).double()
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"masks": 1}, "equal to 2"),
        ({"baseline": "none"}, "none"),
        ({"final": "all"}, "all"),
        ({"min_probability": 0.5}, "0.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):  # beartype speaks first under test
        Reinforce(**wrong)


def test_layers_outside_the_model_are_refused():
    with pytest.raises(ValueError, match="7"):
        reinforce(lambda masks, _: masks.float().sum(dim=(1, 2)), 2, 2, n_examples=1, options=Reinforce(layers=(7,)))


def test_the_linear_part_leaves_the_expected_reward_and_its_gradient_as_they_are(generator):
    logits = torch.tensor([[-1.0, 0.2, 0.7]])
    p = torch.sigmoid(logits).requires_grad_()
    linear = _LinearPart(torch.tensor([[0.3, 0.5, -1.0]]))
    masks = all_masks(1, 3)
    rewards = three_head_reward(masks)
    linear.split(rewards, masks, p)  # an earlier step, from which the coefficient comes
    sampled, known = linear.split(rewards, masks, p)
    probability = torch.where(masks, p, 1 - p).prod(dim=-1).prod(dim=-1)
    assert float(sampled.var()) < 0.6 * float(rewards.var())
    with_part, without = (probability * sampled).sum() + known, (probability * rewards).sum()
    torch.testing.assert_close(with_part, without)
    slopes = [torch.autograd.grad(value, p, retain_graph=True)[0] for value in (with_part, without)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("options", [{"control_variate": True}, {"warm_start": "slopes"}, {"patience": 20}])
def test_each_variant_finds_the_heads_that_are_worth_their_penalty(options, seed):
    effects = torch.tensor([[1.0, -1.0, 0.5], [-0.5, 0.05, -0.02]])
    found = Reinforce(steps=120, head_penalty=0.1, **options).select(Additive(effects.tolist()), seed=seed)
    assert found.heads == HeadSet.from_mask(effects > 0.1)


def test_patience_ends_the_search_when_the_set_was_the_same_for_so_many_steps():
    found = Reinforce(steps=200, patience=7).select(Additive([[0.5, -0.5, 0.5]]), seed=0)
    likely = found.trajectory > 0.5
    assert len(likely) < 200
    changes = (likely[1:] != likely[:-1]).flatten(1).any(dim=1)
    assert likely[-1].any() and not changes[-7:].any() and (len(changes) == 7 or changes[-8])
    late = Reinforce(steps=30, patience=2, learning_rate=0.05, initial_logit=-3.0, warm_start=None)
    assert len(late.select(Additive([[0.5, -0.5, 0.5]]), seed=0).trajectory) == 30  # no head yet: nothing is settled


def test_a_search_that_ends_before_any_head_is_likely_gives_the_best_one_and_none_only_if_none_helps():
    early = Reinforce(steps=1, initial_logit=-4.0, warm_start=None, head_penalty=0.1)
    assert early.select(Additive([[0.2, -1.0, 0.5]])).heads == HeadSet.of(1, 3, [(0, 2)])
    assert early.select(Additive([[0.05, -1.0, 0.09]])).heads == HeadSet.of(1, 3, [])
