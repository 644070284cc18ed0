"""Rewards by many reward models at once, against each reward model's own scores."""

from __future__ import annotations

import random
import warnings

import pandas as pd
import pytest
import torch

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, Injection, JudgeTemplate
from arm_lens.engine import HeadMeans, language_model
from arm_lens.engine.replay import SlowReplayWarning
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.heads import HeadScores
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.base import of_kind
from arm_lens.judges.checks import SkippedWarning
from arm_lens.judges.options import QuestionOptions
from arm_lens.reward.model import FitRecord
from arm_lens.reward.together import score_together
from arm_lens.selection import Selection

pytestmark = pytest.mark.tl4

OTHER_WORDS = JudgeTemplate(
    header="judge by this : {criterion} . ", scalar="{prompt} {response}", cue=" is it so ?", yes=("yes",), no=("no", "No"),
    chat=False,
)  # fmt: skip
KINDS = ("reward", "two_way", "gap")


def reward_model(model, number, heads, *, injection=None, gates=None, question=None, scale=1.0):
    """A reward model with random means, whose heads or gates are given."""
    judge = GenerativeJudge(model, question=question)
    shape = (judge.model.n_layers, judge.model.n_heads)
    values = scale * torch.randn(*shape, judge.model.d_head, generator=torch.Generator().manual_seed(number))
    chosen = HeadSet.of(*shape, heads)
    history = pd.DataFrame({"step": [0], "reward": [0.0], "expected_heads": [1.0]})
    selection = None if gates is None else Selection(chosen, HeadScores("gate", gates), history, gates=gates)
    record = FitRecord(
        criterion=f"criterion {number}", seed=0, demonstrations=0, readings=1, n_read=1, n_validation=0, reward="two_way",
        search=None,
    )  # fmt: skip
    return ActivationRewardModel(judge, chosen, HeadMeans(values, 1), injection or Injection(), selection, record)


def various(model, question=None):
    """Reward models that differ in everything in which those of one language model can differ."""
    shape = (language_model(model).n_layers, language_model(model).n_heads)
    gates = torch.rand(*shape, generator=torch.Generator().manual_seed(9))
    other = QuestionOptions(template=OTHER_WORDS, criterion_text="polite and warm")
    return [
        reward_model(model, 1, [(0, 1), (2, 3)], question=question),
        reward_model(model, 2, [(1, 1), (2, 0), (2, 3)], question=question),
        reward_model(model, 3, [], question=question),
        reward_model(model, 4, [(1, 0)], question=question, injection=Injection(mode="add", strength=0.5)),
        reward_model(model, 5, [(0, 2), (1, 2)], question=question, injection=Injection(strength=0.3)),
        reward_model(model, 6, [(0, 0)], question=question, gates=gates, scale=0.2),
        reward_model(model, 7, [(0, 0), (2, 2)], question=other),
        reward_model(model, 8, [(2, 1)], question=other, injection=Injection(mode="add")),
    ]


def texts(count):
    items = labelled_responses("polite", count, split="test", seed=3)
    return [(one.prompt, one.response) for one in items]


def requests_for(reward_models, count=60):
    """Random pairs of a reward model and a text: some texts are asked about by several, some pairs come twice."""
    order, some = random.Random(0), texts(9)
    return [(order.choice(reward_models), *order.choice(some)) for _ in range(count)]


def one_by_one(requests):
    """Each request scored by its own reward model, alone: the scores of each kind."""
    found = [one.verdicts([prompt], [response]) for one, prompt, response in requests]
    return {kind: torch.cat([of_kind(one, kind) for one in found]) for kind in KINDS}


def largest_difference(requests, expected):
    return max(float((score_together(requests, kind=kind) - expected[kind]).abs().max()) for kind in KINDS)


@pytest.mark.slow
def test_rewards_are_those_of_each_reward_model_alone(judge):
    requests = requests_for(various(judge), 40)
    assert len({len(response.split()) for _, _, response in requests}) > 3
    assert largest_difference(requests, one_by_one(requests)) <= 1e-5
    values = score_together(requests)
    assert len({round(float(value), 5) for value in values}) > 20  # which distinguish one request from another


@pytest.mark.slow
def test_models_of_other_families_agree(model_of, model_class):
    requests = requests_for(various(model_of("qwen2", model_class), QuestionOptions(template=OTHER_WORDS)), 24)
    assert largest_difference(requests, one_by_one(requests)) <= 1e-5


@pytest.mark.slow
def test_without_a_replay_prompts_are_read_in_full(model_of, monkeypatch):
    model = model_of("gpt2")
    requests = requests_for(various(model, QuestionOptions(template=OTHER_WORDS)), 24)
    expected = one_by_one(requests)
    monkeypatch.setattr(type(language_model(model)), "no_extension", lambda *_: "as if it were of another kind")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowReplayWarning)
        assert largest_difference(requests, expected) <= 1e-5


def test_prompts_are_read_once_whoever_asks(judge, monkeypatch):
    reward_models = [reward_model(judge, number, [(number, number)]) for number in range(4)]
    model = language_model(judge)
    requests = [(one, *text) for text in texts(5) for one in reward_models]
    score_together(requests)
    prefill, read = type(model).prefill, []
    monkeypatch.setattr(
        type(model),
        "prefill",
        lambda self, batch, past=(): read.append(len(batch.tokens)) or prefill(self, batch, past),
    )
    score_together(requests)
    assert sum(read) - (len(read) - 1) == 5  # the common beginning is a pass of its own


@pytest.mark.slow
def test_in_half_precision_gaps_have_the_digits_of_float32(folder_of):
    from arm_lens import load_model

    coarse, fine = (load_model(folder_of("llama"), dtype=dtype) for dtype in ("bfloat16", "float32"))
    options = QuestionOptions(template=OTHER_WORDS)
    found, expected = (score_together(requests_for(various(one, options), 24), kind="gap") for one in (coarse, fine))
    assert len(set(found.tolist())) > 20  # bfloat16 logits of this size are multiples of 1/64
    assert not torch.equal((found * 64).round(), found * 64)
    torch.testing.assert_close(found, expected, atol=0.2, rtol=0.05)


def test_what_is_too_long_is_refused_by_name_or_left_out(judge):
    long = "please " * 600
    skipping = QuestionOptions(on_too_long="skip")
    refusing = reward_model(judge, 1, [(0, 1)])
    leaving = reward_model(judge, 2, [(1, 1)], question=skipping)
    prompt, response = texts(1)[0]
    with pytest.raises(PromptTooLongError, match="request 1"):
        score_together([(refusing, prompt, response), (refusing, prompt, long)])
    with pytest.warns(SkippedWarning, match="request 1"):
        found = score_together([(leaving, prompt, response), (leaving, prompt, long)])
    assert found.isnan().tolist() == [False, True]
    assert found[0] == pytest.approx(float(leaving.score([prompt], [response])[0]), abs=1e-6)


def test_requests_that_cannot_be_scored_together_are_errors(judge, model_of):
    one = reward_model(judge, 1, [(0, 1)])
    ranked = reward_model(judge, 2, [(0, 1)], question=QuestionOptions(layout="ranked"))
    elsewhere = reward_model(model_of("llama"), 3, [(0, 1)], question=QuestionOptions(template=OTHER_WORDS))
    with pytest.raises(ValueError, match="another language model"):
        score_together([(one, "a", "b"), (elsewhere, "a", "b")])
    with pytest.raises(ValueError, match="compares two"):
        score_together([(ranked, "a", "b")])
    with pytest.raises(ValueError, match="request 1: the response has"):
        score_together([(one, "a", "b"), (one, "a", "\ud800")])
    assert score_together([]).shape == (0,)
