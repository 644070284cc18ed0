"""The trivial controls do what they say, and nothing else."""

from __future__ import annotations

import pytest
import scipy.stats
import torch

from arm_lens.judges.base import Judge
from arm_lens.judges.controls import ConstantJudge, LengthJudge, RandomJudge, uniform_of
from arm_lens.preferences import PreferencePair

PROMPTS = ["one", "two", "three"]
RESPONSES = ["short", "rather longer", "üñí"]


@pytest.mark.parametrize("control", [LengthJudge(), RandomJudge(), ConstantJudge()])
def test_controls_are_reward_models(control):
    assert isinstance(control, Judge)
    assert control.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 prompts for 3 first and 1 second"):  # 2 + 2 prompts, but 3 + 1 responses
        control.margins(["a", "b"], ["c", "d", "e"], ["f"])


@pytest.mark.parametrize(("shorter", "sign", "preferred"), [(False, 1, "b"), (True, -1, "a")])
def test_the_reward_is_the_number_of_characters(shorter, sign, preferred):
    judge = LengthJudge(shorter=shorter)
    assert judge.score(PROMPTS, RESPONSES).tolist() == [sign * 5, sign * 13, sign * 3]
    assert judge.prefer("p", "short", "rather longer").preferred == preferred
    assert judge.prefer("p", "ab", "cd").preferred == "tie"


def test_the_length_of_a_message_is_that_of_its_text():
    pair = PreferencePair("p", [{"role": "assistant", "content": "four"}], "no")
    assert LengthJudge().score(["p"], [pair.chosen]).tolist() == [4.0]


def test_random_rewards_are_uniform():
    rewards = RandomJudge(seed=3).score(["p"] * 5000, [str(number) for number in range(5000)])
    assert (rewards >= 0).all() and (rewards < 1).all()
    assert scipy.stats.kstest(rewards.numpy(), "uniform").pvalue > 0.001
    assert abs(scipy.stats.pearsonr(rewards[:-1].numpy(), rewards[1:].numpy()).statistic) < 0.05


def test_random_rewards_belong_to_the_texts_and_the_seed():
    judge = RandomJudge(seed=1)
    both = judge.score(["p", "q"], ["r", "s"])
    assert torch.equal(judge.score(["q", "p"], ["s", "r"]), both.flip(0))  # whatever else is scored, in any order
    assert torch.equal(RandomJudge(seed=1).score(["p", "q"], ["r", "s"]), both)
    others = [RandomJudge(seed=2).score(["p"], ["r"]), judge.score(["q"], ["r"]), judge.score(["p"], ["s"])]
    assert len({float(one) for one in [*others, both[0]]}) == 4
    with pytest.raises(ValueError, match="2 prompts for 1 responses"):
        judge.score(["p", "q"], ["r"])


def test_where_one_text_ends_and_the_next_begins_matters():
    assert uniform_of(1, "ab", "c") != uniform_of(1, "a", "bc") != uniform_of("1", "a", "bc")


def test_a_constant_judge_ties_everything():
    judge = ConstantJudge()
    assert judge.score(PROMPTS, RESPONSES).tolist() == [0.5] * 3
    assert judge.prefer("p", "a", "b").preferred == "tie"
