"""A judge whose numbers were read from a model's weights never scores with others: a policy that is trained, say."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, SparseAttentionVectors
from arm_lens.engine import language_model
from arm_lens.engine.weights import WeightsMark
from arm_lens.judges.artefact import WrongModelError
from arm_lens.judges.by_name import load_judge
from arm_lens.judges.calibrated import CalibratedJudge
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.probe import HeadProbe
from arm_lens.preferences import LabelledResponse

WORDS = "garden school river bridge market museum castle village".split()
EXAMPLES = [LabelledResponse(word, "warm" if i % 2 else "cold", bool(i % 2), id=word) for i, word in enumerate(WORDS)]
PROMPTS, RESPONSES = ["garden", "river"], ["warm and bright", "cold"]
HEADS = HeadSet.of(3, 4, [(0, 1), (2, 3)])
READING = ReadingOptions(readings=2, demonstrations=1)
FITS = {
    "reward model": lambda model: ActivationRewardModel.fit(
        model, EXAMPLES, criterion="warm", selector=HEADS, reading=READING
    ),
    "sparse attention vectors": lambda model: SparseAttentionVectors.fit(model, EXAMPLES, heads=3),
    "head probe": lambda model: HeadProbe.fit(model, EXAMPLES),
    "calibrated judge": lambda model: CalibratedJudge.fit(model, EXAMPLES, reading=READING),
}


@pytest.fixture(params=["Hugging Face", "TransformerBridge"])
def model(request, folder_of, tokenizer):
    """A model of one's own, and the Hugging Face module that a trainer would train."""
    from arm_lens import load_model

    if request.param == "Hugging Face":
        raw = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
        return (raw, copy.deepcopy(tokenizer)), raw
    bridge = load_model(folder_of("llama"), tokenizer=copy.deepcopy(tokenizer))
    return bridge, bridge.original_model


def optimiser_step(module):
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4)
    module.train()
    module(torch.tensor([[3, 4, 5]])).logits.float().square().mean().backward()
    optimiser.step()


def merge_through_data(module):
    weight = next(weight for weight in module.parameters() if weight.ndim == 2)
    before = weight._version
    weight.data += 1e-3 * torch.outer(torch.ones(len(weight)), torch.ones(weight.shape[1]))
    assert weight._version == before  # torch does not count it


def exchange(module):
    weight = next(weight for weight in module.parameters() if weight.ndim == 2)
    weight.data = weight.data.roll(1, dims=0)


class LowRank(torch.nn.Module):
    """A linear layer with an adapter that is put in its place, and does nothing at first."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, base.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def put_adapters_in_place(module):
    for part in [*module.modules()]:
        for name, child in [*part.named_children()]:
            if type(child) is torch.nn.Linear and child.in_features == child.out_features:
                setattr(part, name, LowRank(child))


CHANGES = {
    "a step": optimiser_step,
    "a merge": merge_through_data,
    "an exchange": exchange,
    "a cast": lambda module: module.to(torch.bfloat16),
    "one number": lambda module: torch.nn.init.constant_(next(module.parameters())[7, 5:6], 9.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_mark_of_the_weights_notices(model, change):
    whole, module = model
    found = language_model(whole)
    mark = WeightsMark.of(found)
    assert WeightsMark.of(found) is mark
    CHANGES[change](module)
    assert not mark.unchanged(found)
    assert WeightsMark.of(found) is not mark


def test_adapters_are_other_weights_even_before_they_do_anything(folder_of, tokenizer):
    raw = AutoModelForCausalLM.from_pretrained(folder_of("qwen2"))  # whose query projection is square
    judge = SparseAttentionVectors.fit((raw, tokenizer), EXAMPLES, heads=3)
    put_adapters_in_place(raw)
    assert any(isinstance(part, LowRank) for part in raw.modules())
    with pytest.raises(WrongModelError):
        judge.score(PROMPTS, RESPONSES)


@pytest.mark.parametrize("kind", FITS)
def test_a_judge_refuses_once_its_model_was_trained_and_says_what_to_do(model, kind, tmp_path):
    whole, module = model
    judge = FITS[kind](whole)
    before = judge.score(PROMPTS, RESPONSES)
    judge.save(tmp_path / "before")
    optimiser_step(module)
    for call in (
        lambda: judge.score(PROMPTS, RESPONSES),
        lambda: judge.prefer(PROMPTS, RESPONSES, RESPONSES[::-1]),
        lambda: judge(prompts=PROMPTS, completions=RESPONSES),
        lambda: judge.save(tmp_path / "after"),
    ):
        with pytest.raises(WrongModelError, match=rf"this {kind} .*load_model\(\.\.\.\)"):
            call()
    assert repr(judge)
    second = AutoModelForCausalLM.from_pretrained(module.config._name_or_path)
    again = load_judge(tmp_path / "before", (second, language_model(whole).tokenizer))
    torch.testing.assert_close(again.score(PROMPTS, RESPONSES), before)


def test_changing_other_things_of_a_judge_does_not_launder_it(model):
    whole, module = model
    judge = FITS["reward model"](whole)
    optimiser_step(module)
    for other in (judge.with_heads(HeadSet.of(3, 4, [(0, 0)])), judge.asking(batch_size=1)):
        with pytest.raises(WrongModelError):
            other.score(PROMPTS, RESPONSES)
    with pytest.raises(WrongModelError):
        CalibratedJudge(judge, "threshold", 0.5).score(PROMPTS, RESPONSES)


def test_the_same_numbers_in_another_place_are_the_same_weights(model):
    whole, module = model
    judge = FITS["sparse attention vectors"](whole)
    before = judge.score(PROMPTS, RESPONSES)
    weights = [weight.detach().clone() for weight in module.parameters()]
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(1)
    with pytest.raises(WrongModelError):
        judge.score(PROMPTS, RESPONSES)
    for weight, old in zip(module.parameters(), weights, strict=True):
        weight.data = old  # as a move to another device does
    module.train()
    for _ in range(2):
        assert judge.score(PROMPTS, RESPONSES).equal(before)


def test_a_copy_may_be_trained_and_a_judge_without_numbers_of_its_own_goes_along(model):
    whole, module = model
    judge, plain = FITS["reward model"](whole), GenerativeJudge(whole)
    before = judge.score(PROMPTS, RESPONSES)
    optimiser_step(AutoModelForCausalLM.from_pretrained(module.config._name_or_path))
    assert judge.score(PROMPTS, RESPONSES).equal(before)
    optimiser_step(module)
    assert not plain.score(PROMPTS, RESPONSES).equal(GenerativeJudge(whole).score(PROMPTS, RESPONSES) + 1)
    assert plain.score(PROMPTS, RESPONSES).equal(GenerativeJudge(whole).score(PROMPTS, RESPONSES))
