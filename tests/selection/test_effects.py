"""Effects of single heads and the ranking by them, against enumeration, plain steered passes and planted heads."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests_support import planted_model

from arm_lens import HeadSet, steer
from arm_lens.engine import Replay, VerdictTokens, last_logits, pad
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.reward.fitting import judging_objective
from arm_lens.selection import JudgingObjective, Objective, PooledObjective, TopEffect, single_head_effects

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))


class Table:
    """An arbitrary reward for every set of heads of a model of 2 layers of 3 heads, known in advance."""

    shape = (2, 3)

    def __init__(self, seed):
        sets = itertools.product([False, True], repeat=6)
        rewards = torch.randn(64, generator=torch.Generator().manual_seed(seed)).tolist()
        self.of = dict(zip(sets, rewards, strict=True))

    def __len__(self):
        return 1

    def __call__(self, masks, examples=None):
        return torch.tensor([self.of[tuple(mask.flatten().tolist())] for mask in masks])

    def reward(self, *heads):
        """Of the heads with these numbers, 0 to 5."""
        return self.of[tuple(number in heads for number in range(6))]


def numbered(heads):
    return {head.layer * 3 + head.head for head in heads}


# ------------------------------------------------------------------------------------------ on a table


@pytest.mark.parametrize("seed", range(3))
def test_an_effect_is_the_reward_of_the_head_alone_less_that_of_none(seed):
    table = Table(seed)
    found = single_head_effects(table)
    for number in range(6):
        expected = table.reward(number) - table.reward()
        assert float(found[number // 3, number % 3]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("price", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_beginnings_of_the_ranking_is_taken(seed, price):
    table = Table(seed)
    ranking = sorted(range(6), key=lambda number: table.reward() - table.reward(number))
    best = max(range(7), key=lambda k: table.reward(*ranking[:k]) - price * k)
    found = TopEffect(head_penalty=price).select(table)
    assert numbered(found.heads) == set(ranking[:best])
    assert found.history["reward"].tolist() == pytest.approx([table.reward(*ranking[:k]) for k in range(best + 1)])
    assert found.history["expected_heads"].tolist() == list(range(best + 1))


@pytest.mark.parametrize("k", [0, 1, 4, 6])
def test_as_many_heads_as_are_asked_for_are_taken_whatever_they_give(k):
    table = Table(2)
    ranking = sorted(range(6), key=lambda number: -table.reward(number))
    assert numbered(TopEffect(k=k, head_penalty=9.0).select(table).heads) == set(ranking[:k])


def test_heads_that_help_only_together_are_missed():
    class Together(Table):
        def __call__(self, masks, examples=None):
            one, two = masks[:, 0, 0], masks[:, 1, 2]
            others = masks[:, [0, 1, 1], [2, 0, 1]].sum(dim=1)
            return 1.0 * (one & two) - 0.4 * (one ^ two) + 0.1 * masks[:, 0, 1] - 0.35 * others

    best = HeadSet.of(2, 3, [(0, 0), (0, 1), (1, 2)])
    assert float(Together(0)(best.mask[None])[0]) == pytest.approx(1.1)
    assert TopEffect().select(Together(0)).heads == HeadSet.of(2, 3, [(0, 1)])


def test_a_search_that_is_not_random_gives_the_same_for_every_seed():
    one, two = (TopEffect().select(Table(5), seed=seed) for seed in (0, 1))
    assert one.heads == two.heads and one.history.equals(two.history)
    assert one.chosen == one.heads and one.gates is None and one.trajectory is None


def test_more_heads_than_there_are_or_fewer_than_none_are_refused():
    with pytest.raises(ValueError, match="top 7 of 6"):
        TopEffect(k=7).select(Table(0))
    with pytest.raises(ValueError, match="-1"):
        TopEffect(k=-1)


# ------------------------------------------------------------------------------------------ on a model


def plain_rewards(model, mask, values, kind):
    """By one full steered pass per prompt."""
    found = []
    for sequence, label in zip(SEQUENCES, LABELS, strict=True):
        with steer(model, mask, values):
            logs = last_logits(model, pad([sequence]))[0].double().log_softmax(dim=-1)
        yes, no = logs[5], logs[[6, 7]].logsumexp(dim=0)
        right, wrong = (yes, no) if label else (no, yes)
        rewards = {"log_prob": right, "margin": right - wrong, "two_way": right - torch.logaddexp(right, wrong)}
        found.append(rewards[kind])
    return torch.stack(found).mean()


@pytest.mark.parametrize("kind", ["log_prob", "margin", "two_way"])
@pytest.mark.parametrize("model_family", ["llama", "gpt2"])
def test_an_effect_is_what_one_steered_head_changes_in_plain_passes(model_of, model_family, model_class, kind):
    model = model_of(model_family, model_class)
    values = torch.randn(3, 4, model.cfg.d_head, generator=torch.Generator().manual_seed(0))
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS, batch_size=2), values, LABELS, kind)
    found = single_head_effects(objective)
    unsteered = plain_rewards(model, HeadSet.none(3, 4), values, kind)
    for layer, head in [(0, 0), (0, 3), (1, 2), (2, 1)]:
        expected = plain_rewards(model, HeadSet.of(3, 4, [(layer, head)]), values, kind) - unsteered
        assert float(found[layer, head]) == pytest.approx(float(expected), abs=1e-4)
    assert found.abs().max() > 1e-2


def test_an_objective_knows_the_shape_of_its_masks(model_of):
    model = model_of("llama")
    values = torch.zeros(3, 4, model.cfg.d_head)
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values, LABELS)
    pooled = PooledObjective([objective, objective])
    assert objective.shape == pooled.shape == (3, 4)
    assert (len(objective), len(pooled)) == (4, 8)
    assert isinstance(objective, Objective) and isinstance(pooled, Objective)


def test_effects_tell_helpful_from_harmful_heads_and_from_those_that_write_nothing(tokenizer, tmp_path_factory):
    planted = planted_model(tokenizer, tmp_path_factory, seed=1)
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    objective = judging_objective(judge, questions_of(planted.examples, planted.template), planted.means)
    effects = single_head_effects(objective)
    idle = HeadSet.all(3, 4) - planted.heads - planted.harmful - HeadSet.of(3, 4, [planted.reader])
    assert (effects[planted.heads.mask] > 0.05).all()
    assert (effects[planted.harmful.mask] < -0.05).all()
    torch.testing.assert_close(effects[idle.mask], torch.zeros(len(idle)), atol=1e-4, rtol=0)
    assert TopEffect().select(objective).heads == planted.heads
