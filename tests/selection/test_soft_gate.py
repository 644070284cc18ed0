"""Gates found by gradient, against closed forms and planted heads."""

from __future__ import annotations

import pytest
import torch
from tests_support import planted_model

from arm_lens import HeadSet
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.reward.fitting import judging_objective
from arm_lens.selection import DifferentiableObjective, Selector, SoftGate

SHARP = torch.tensor([[1.0, 4.0, 2.0], [8.0, 1.0, 3.0]])
CENTRE = torch.tensor([[0.3, 0.5, 0.9], [0.7, 0.15, 0.6]])


class Parabolas:
    """r(g) = -sum a (g - c)^2, on two examples that lie evenly around it; each head's best gate is known."""

    shape = (2, 3)

    def __len__(self):
        return 2

    def __call__(self, masks, examples=None):
        return torch.stack([self.gated(mask.float()).mean() for mask in masks])

    def gated(self, gates):
        reward = -(SHARP * (gates - CENTRE) ** 2).sum()
        return torch.stack([reward + 0.5, reward - 0.5])


class Linear(Parabolas):
    """Each head helps or harms in proportion to its gate."""

    effects = torch.tensor([[1.0, -1.0, 0.5], [-0.5, 0.02, -0.02]])

    def gated(self, gates):
        return (self.effects * gates).sum()[None].expand(2)


@pytest.mark.parametrize("price", [0.0, 0.2])
def test_it_climbs_to_the_optimum_in_closed_form(price):
    found = SoftGate(steps=600, learning_rate=0.05, head_penalty=price).select(Parabolas())
    expected = CENTRE - price / (2 * SHARP)  # where 2 a (c - g) is the price
    torch.testing.assert_close(found.gates, expected, atol=1e-3, rtol=0)
    assert torch.equal(found.head_scores.values, found.gates)
    assert found.heads == HeadSet.from_mask(expected > 0.5)
    assert torch.equal(found.chosen, found.gates)


def test_the_first_step_is_reported_as_it_is_taken_from_the_initial_gates():
    found = SoftGate(steps=3, initial_logit=-1.0).select(Parabolas())
    gate = torch.sigmoid(torch.tensor(-1.0))
    reward = float(-(SHARP * (gate - CENTRE) ** 2).sum())
    assert float(found.history["reward"][0]) == pytest.approx(reward, abs=1e-5)  # the price is not deducted
    assert float(found.history["expected_heads"][0]) == pytest.approx(6 * float(gate), abs=1e-5)
    assert list(found.history["step"]) == [0, 1, 2]


def test_the_first_step_is_adams_along_the_gradient():
    """Adam's first step is the learning rate times the sign of the gradient, whatever its size."""
    found = SoftGate(steps=1, learning_rate=0.1, initial_logit=-1.0, head_penalty=0.2).select(Linear())
    expected = torch.sigmoid(-1.0 + 0.1 * (Linear.effects - 0.2).sign())
    torch.testing.assert_close(found.gates, expected, atol=1e-5, rtol=0)


def test_gates_open_where_it_is_worth_the_price():
    free = SoftGate(head_penalty=0.0, discrete=True).select(Linear())
    penalised = SoftGate(head_penalty=0.1, discrete=True).select(Linear())
    assert free.heads == HeadSet.of(2, 3, [(0, 0), (0, 2), (1, 1)])
    assert penalised.heads == HeadSet.of(2, 3, [(0, 0), (0, 2)])


def test_a_discrete_search_ends_in_the_set_of_the_gates_more_than_half_open():
    soft, hard = SoftGate().select(Parabolas()), SoftGate(discrete=True).select(Parabolas())
    assert hard.gates is None and hard.chosen == hard.heads == soft.heads == soft.head_scores.above(0.5)
    assert torch.equal(hard.head_scores.values, soft.head_scores.values)


def test_nothing_is_random_and_nothing_is_left_with_a_gradient():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, two = (SoftGate(steps=5).select(Parabolas(), seed=seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.gates, two.gates) and one.history.equals(two.history)
    assert not one.gates.requires_grad and not one.head_scores.values.requires_grad


def test_it_searches_also_where_gradients_are_switched_off():
    """As notebooks with TransformerLens often begin."""
    with torch.no_grad():
        found = SoftGate(steps=5).select(Parabolas())
    assert torch.equal(found.gates, SoftGate(steps=5).select(Parabolas()).gates)


def test_a_search_without_steps_is_refused():
    with pytest.raises(ValueError, match=r"steps\n.*greater than 0"):
        SoftGate(steps=0)
    assert isinstance(SoftGate(), Selector) and isinstance(Parabolas(), DifferentiableObjective)


# ------------------------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module", params=range(3))
def planted(request, tokenizer, tmp_path_factory):
    return planted_model(tokenizer, tmp_path_factory, seed=request.param)


def objective_of(planted, reward="log_prob"):
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    questions = questions_of(planted.examples, planted.template)
    return judging_objective(judge, questions, planted.means, reward=reward)


@pytest.mark.slow
def test_planted_helpful_heads_open_and_harmful_ones_close(planted):
    found = SoftGate(steps=80).select(objective_of(planted))
    assert found.heads == planted.heads
    assert (found.gates[planted.heads.mask] > 0.75).all()
    assert (found.gates[planted.harmful.mask] < 0.1).all()
    assert float(found.gates[planted.reader]) < 0.1  # writing its mean would make the model blind
    rewards = found.history["reward"]
    assert rewards.iloc[-1] > rewards.iloc[0] + 0.1


def test_the_accuracy_is_refused_because_it_has_no_gradient(planted):
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        SoftGate().select(objective_of(planted, "accuracy"))
