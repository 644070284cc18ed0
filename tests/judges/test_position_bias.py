"""Position bias in closed form, and as a ranked judge shows it, against raw Hugging Face computations."""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers

from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.position_bias import PositionBias
from arm_lens.judges.template import JudgeTemplate

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", ranked="request: {prompt} {response_a} , {response_b}",
    cue=" verdict:", separator=" ", first=("warm",), second=("cold",), chat=False,
)  # fmt: skip
PROMPTS = ["garden", "river bridge", "tell me about the mill", "farm"]
A = ["it is warm and bright", "cold", "the mill is noisy , really noisy !", "bright"]
B = ["dull", "the river is near the hotel", "warm", "it is dull ."]


@pytest.mark.parametrize(
    ("orders", "first", "inconsistent"),
    [
        ([[2.0, -1.0], [-3.0, 0.5]], 0.5, 0.0),  # the same response in both orders
        ([[2.0, 1.0], [0.5, 3.0]], 1.0, 1.0),  # always the first place
        ([[-2.0, -1.0]], 0.0, 1.0),  # always the second
        ([[0.0, 0.0]], 0.5, 0.0),  # ties in both orders
        ([[1.0, 0.0]], 0.75, 0.5),  # preferred in one order, a tie in the other
        ([[0.0, -1.0]], 0.25, 0.5),
        ([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]], 5 / 8, 0.25),
    ],
)
def test_position_bias_in_closed_form(orders, first, inconsistent):
    assert PositionBias.of(torch.tensor(orders)) == PositionBias(first, inconsistent, len(orders))


def test_position_bias_does_not_depend_on_which_response_is_called_a():
    orders = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).round()
    assert PositionBias.of(orders) == PositionBias.of(orders.flip(1))
    assert (orders == 0).any()


def test_position_bias_needs_pairs():
    with pytest.raises(ValueError, match="there are none"):
        PositionBias.of(torch.empty(0, 2))


@contextlib.contextmanager
def liking(model, word, amount):
    """Within, the logit of a word is higher by a constant, whatever the model reads."""
    bias = torch.zeros(model.cfg.d_vocab)
    bias[model.tokenizer.convert_tokens_to_ids(word)] = amount
    handle = model.unembed.register_forward_hook(lambda _, __, logits: logits + bias)
    try:
        yield
    finally:
        handle.remove()


def test_orders_are_two_separate_computations_of_the_raw_model(model_of, folder_of, tokenizer, model_class):
    raw = transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama"), attn_implementation="eager").eval()
    warm, cold = tokenizer.convert_tokens_to_ids(["warm", "cold"])

    def gap(prompt, one, two):
        text = f"request: {prompt} {one} , {two} verdict:"
        with torch.no_grad():
            ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
            logits = raw(torch.tensor([ids])).logits[0, -1]
        return float(logits[warm] - logits[cold])

    expected = torch.tensor([[gap(p, a, b), gap(p, b, a)] for p, a, b in zip(PROMPTS, A, B, strict=True)])
    judge = GenerativeJudge(
        model_of("llama", model_class), question=QuestionOptions(template=TEMPLATE, layout="ranked", batch_size=3)
    )
    torch.testing.assert_close(judge.orders(PROMPTS, A, B), expected, atol=1e-4, rtol=1e-4)
    margins = (expected[:, 0] - expected[:, 1]) / 2
    torch.testing.assert_close(judge.margins(PROMPTS, A, B), margins, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(judge.margins(PROMPTS, B, A), -margins, atol=1e-4, rtol=1e-4)


def test_a_constant_liking_for_the_first_place_shows_in_the_orders_and_not_in_the_margins(model_of):
    model = model_of("llama")
    judge = GenerativeJudge(model, question=QuestionOptions(template=TEMPLATE, layout="ranked"))
    orders, margins = judge.orders(PROMPTS, A, B), judge.margins(PROMPTS, A, B)
    assert margins.abs().max() > 0.01
    for amount, first in ((30.0, 1.0), (-30.0, 0.0)):
        with liking(model, "warm", amount):
            torch.testing.assert_close(judge.orders(PROMPTS, A, B), orders + amount, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(judge.margins(PROMPTS, A, B), margins, atol=1e-3, rtol=0)
            assert PositionBias.of(judge.orders(PROMPTS, A, B)) == PositionBias(first, 1.0, len(PROMPTS))


def test_only_a_ranked_judge_has_orders(model_of):
    with pytest.raises(ValueError, match="there is no order; use layout='ranked'"):
        GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE)).orders(PROMPTS, A, B)
    ranked = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE, layout="ranked"))
    with pytest.raises(ValueError, match="4 prompts for 3 first and 4 second"):
        ranked.orders(PROMPTS, A[:3], B)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_verdict_has_a_temperature_above_zero(model_of, temperature):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    with pytest.raises(ValueError, match="must be above 0"):
        judge.verdict(judge.demonstrations, temperature=temperature)
