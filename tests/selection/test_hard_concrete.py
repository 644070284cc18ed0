"""Hard-concrete gates, against their distribution in closed form, additive rewards and planted heads."""

from __future__ import annotations

import pytest
import torch
from selection.additive import Additive
from tests_support import planted_model

from arm_lens import HeadSet
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.reward.fitting import judging_objective
from arm_lens.selection import HardConcrete
from arm_lens.selection.hard_concrete import gates, open_probability

EFFECTS = [[1.0, -1.0, 0.5], [-0.5, 0.05, -0.02]]


@pytest.mark.parametrize("log_alpha", [-3.0, -1.0, 0.0, 2.0])
def test_gates_are_closed_as_often_as_the_closed_form_says_and_their_distribution_is_the_papers(log_alpha):
    u = (torch.arange(400_000).reshape(400, 1000) + 0.5) / 400_000  # quantiles instead of samples
    found = gates(torch.full_like(u, log_alpha), u)
    assert float((found > 0).float().mean()) == pytest.approx(
        float(open_probability(torch.tensor([[log_alpha]]))), abs=1e-4
    )
    # P(g <= x) for x within (0, 1), from inverting the definition by hand.
    for x in (0.2, 0.5, 0.8):
        s = (x + 0.1) / 1.2
        below = torch.sigmoid(2 / 3 * torch.logit(torch.tensor(s)) - log_alpha)
        assert float((found <= x).float().mean()) == pytest.approx(float(below), abs=1e-4)
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("seed", range(10))
def test_heads_that_are_worth_their_penalty_are_found_and_their_gates_are_exactly_one_and_zero(seed):
    found = HardConcrete(steps=150, head_penalty=0.1, discrete=False, learning_rate=0.3).select(
        Additive(EFFECTS), seed=seed
    )
    assert found.heads == HeadSet.of(2, 3, [(0, 0), (0, 2)])
    assert torch.equal(found.gates, found.heads.mask.float())
    free = HardConcrete(steps=150, head_penalty=0.0, learning_rate=0.3).select(Additive(EFFECTS), seed=seed)
    assert free.heads == HeadSet.of(2, 3, [(0, 0), (0, 2), (1, 1)])
    assert free.gates is None and free.chosen == free.heads


def test_the_same_seed_gives_the_same_search_and_global_randomness_is_left_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with torch.no_grad():  # as notebooks with TransformerLens often begin
        one, two, three = (HardConcrete(steps=5).select(Additive(EFFECTS), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.history.equals(two.history) and not one.history.equals(three.history)
    assert not one.head_scores.values.requires_grad


# ------------------------------------------------------------------------------------------ on a model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_exactly_the_planted_heads_are_found(seed, tokenizer, tmp_path_factory):
    planted = planted_model(tokenizer, tmp_path_factory, seed=seed)
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    questions = questions_of(planted.examples, planted.template)
    objective = judging_objective(judge, questions, planted.means, reward="log_prob")
    assert HardConcrete().select(objective, seed=seed).heads == planted.heads


def test_the_accuracy_is_refused_because_it_has_no_gradient(tokenizer, tmp_path_factory):
    planted = planted_model(tokenizer, tmp_path_factory, seed=0)
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    objective = judging_objective(
        judge, questions_of(planted.examples, planted.template), planted.means, reward="accuracy"
    )
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        HardConcrete().select(objective)
