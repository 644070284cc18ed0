"""Every turn of a conversation has the reward of its message as a response to all before it."""

from __future__ import annotations

import math

import pytest
import torch

from arm_lens import (
    ActivationRewardModel,
    GenerativeJudge,
    HeadSet,
    JudgeTemplate,
    LabelledResponse,
    SparseAttentionVectors,
)
from arm_lens.judges import LengthJudge, LikelihoodJudge, RandomJudge, SkippedWarning, VotingJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.turns import turn_rewards

CONVERSATIONS = [
    [
        {"role": "system", "content": "you are warm"},
        {"role": "user", "content": "the garden"},
        {"role": "assistant", "content": "warm and bright"},
        {"role": "user", "content": "the river"},
        {"role": "assistant", "content": "cold"},
    ],
    [{"role": "user", "content": "the bridge"}, {"role": "assistant", "content": "bright"}],
    [{"role": "user", "content": "no answer"}],
]
WORDS = "garden school river bridge market museum castle village".split()
EXAMPLES = [LabelledResponse(word, "warm" if i % 2 else "cold", bool(i % 2), id=word) for i, word in enumerate(WORDS)]
JUDGES = {
    "length": lambda model: LengthJudge(),
    "random": lambda model: RandomJudge(),
    "generative": GenerativeJudge,
    "voting": lambda model: VotingJudge(GenerativeJudge(model), votes=3),
    "likelihood": LikelihoodJudge,
    "sav": lambda model: SparseAttentionVectors.fit(model, EXAMPLES, heads=3),
    "reward model": lambda model: ActivationRewardModel.fit(
        model, EXAMPLES, criterion="warm", selector=HeadSet.of(3, 4, [(0, 1)]),
        reading=ReadingOptions(readings=2, demonstrations=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGES)
def test_the_reward_of_a_turn_is_that_of_its_message_given_those_before(name, model_of):
    judge = JUDGES[name](model_of("llama"))
    found = turn_rewards(judge, CONVERSATIONS)
    assert found.drop(columns="reward").to_dict("list") == {
        "conversation": [0, 0, 1], "turn": [1, 2, 1], "message": [3, 5, 2],
        "response": ["warm and bright", "cold", "bright"],
    }  # fmt: skip
    prompts = [CONVERSATIONS[0][:2], CONVERSATIONS[0][:4], CONVERSATIONS[1][:1]]
    expected = judge.score(prompts, found["response"].tolist())
    torch.testing.assert_close(torch.tensor(found["reward"]), expected.double(), atol=1e-6, rtol=1e-5)


def test_turns_that_cannot_be_judged_are_named(model_of):
    long = [
        {"role": "assistant", "content": "bright"},
        {"role": "user", "content": "the garden"},
        {"role": "assistant", "content": "warm"},
        {"role": "user", "content": "river " * 600},
        {"role": "assistant", "content": "cold"},
    ]
    for options in (QuestionOptions(), QuestionOptions(on_too_long="skip")):
        with pytest.warns(SkippedWarning, match="conversation 1, turn 1, conversation 1, turn 3"):
            found = turn_rewards(GenerativeJudge(model_of("llama"), question=options), [CONVERSATIONS[1], long])
        assert found["reward"].isna().tolist() == [False, True, False, True]
    with pytest.warns(SkippedWarning, match="begins the conversation"):
        turn_rewards(LengthJudge(), [long])


def test_a_kind_of_score_and_what_is_refused(model_of):
    judge = GenerativeJudge(model_of("llama"))
    gaps, rewards = (turn_rewards(judge, CONVERSATIONS, kind=kind)["reward"] for kind in ("gap", "two_way"))
    assert rewards.tolist() == pytest.approx([1 / (1 + math.exp(-gap)) for gap in gaps], abs=1e-5)
    with pytest.raises(ValueError, match="kinds"):
        turn_rewards(LengthJudge(), CONVERSATIONS, kind="probability")
    with pytest.raises(ValueError, match=r"conversation 1 has no 'role' in message 2"):
        turn_rewards(judge, [CONVERSATIONS[1], [CONVERSATIONS[1][0], {"content": "bright"}]])
    with pytest.raises(ValueError, match="conversation 0"):
        turn_rewards(judge, CONVERSATIONS[1])  # one conversation, not a list of them
    ranked = QuestionOptions(layout="ranked", template=JudgeTemplate(first=("warm",), second=("cold",)))
    with pytest.raises(ValueError, match="ranked"):
        turn_rewards(GenerativeJudge(model_of("llama"), question=ranked), CONVERSATIONS)
    assert turn_rewards(judge, []).empty
