"""Memory stays within the budget, and within what the footprint foretells, as counted tensor by tensor."""

from __future__ import annotations

import functools

import pytest
import torch
import transformers
from conftest import HOOKED
from measuring import TensorMemory

from arm_lens import load_model
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, mean_heads, pad
from arm_lens.engine.memory import Footprint, default_budget

pytestmark = [pytest.mark.tl4, pytest.mark.slow]

VERDICTS = VerdictTokens((5,), (6, 7))
PROMPTS = {"long": (4, 150), "many": (24, 40)}
"""How many prompts, and of how many tokens at most."""


def peak(function):
    """The most bytes of tensors alive at once of those made while a function runs, and what it returns."""
    with TensorMemory() as memory:
        result = function()
    return memory.peak, result


def test_the_count_is_right():
    def work():
        first = torch.zeros(1000)
        view = first[10:]
        second = view + 1
        del first, view
        return torch.cat([second, torch.ones(10)])

    assert peak(work)[0] == 4 * (990 + 10 + 1000)


def prompts(count, tokens):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(tokens // 2, tokens + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, 200, (length,), generator=generator).tolist() for length in lengths]


def masks_and_values(model, count):
    generator = torch.Generator().manual_seed(0)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    return torch.rand(count, *shape, generator=generator) < 0.5, torch.randn(
        *shape, model.cfg.d_head, generator=generator
    )


@pytest.fixture(scope="module", params=["TransformerBridge", "HookedTransformer"])
def judge_of_class(request):
    if request.param == "HookedTransformer" and not HOOKED:
        pytest.skip("this TransformerLens has no HookedTransformer")
    return load_model(model_class=request.param)


@pytest.mark.parametrize("mib", [2, 8])  # all at once would take 10 or 18
@pytest.mark.parametrize("which", PROMPTS)
def test_a_replay_stays_within_its_budget_and_gives_the_same_under_any(judge_of_class, which, mib):
    model, sequences = judge_of_class, prompts(*PROMPTS[which])
    masks, values = masks_and_values(model, 24)
    expected = Replay(model, sequences, VERDICTS, memory_budget=2**33).log_probs(masks, values)
    replay = Replay(model, sequences, VERDICTS, memory_budget=mib * 2**20)
    taken, found = peak(lambda: replay.log_probs(masks, values))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    one_prompt = max(Footprint.of(language_model(model)).reading(len(sequence)) for sequence in sequences)
    assert taken - found.nbytes <= max(mib * 2**20, 2 * one_prompt)


def test_a_small_budget_keeps_less_and_reads_again(judge_of_class):
    model, sequences = judge_of_class, prompts(*PROMPTS["many"])
    masks, values = masks_and_values(model, 4)
    passes = []
    handle = model.embed.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        counts = {}
        for mib in (2, 64):
            replay = Replay(model, sequences, VERDICTS, memory_budget=mib * 2**20)
            replay.verdict_logits(masks, values)
            assert replay.nbytes <= mib * 2**20 / 2
            passes.clear()
            replay.verdict_logits(masks, values)
            counts[mib] = len(passes), len(replay.prefixes.batches)
    finally:
        handle.remove()
    assert counts[64][0] == counts[64][1]  # one pass over the masks for each batch, and no prompt read again
    assert counts[2][0] > counts[2][1]


@pytest.mark.parametrize("masks", [1, 128])
@pytest.mark.parametrize("tokens", [20, 150])
def test_the_footprint_is_no_less_than_what_a_pass_takes_and_not_far_more(judge_of_class, tokens, masks):
    model = judge_of_class
    some, values = masks_and_values(model, masks)
    replay = Replay(model, prompts(1, tokens), VERDICTS)
    replay.log_probs(some, values)
    taken, found = peak(lambda: replay.log_probs(some, values))
    foretold = Footprint.of(language_model(model)).trying(masks, len(replay.sequences[0]) - 1, model.cfg.d_vocab)
    assert 0.1 * foretold <= taken - found.nbytes <= foretold + 2**17


def test_the_default_budget_is_part_of_what_is_free():
    free = default_budget(torch.device("cpu"))
    assert 2**24 < free < 2**45


def test_reading_means_adds_memory_of_neither_examples_nor_tokens(judge_of_class):
    model = judge_of_class

    def extra(count, tokens):
        sequences = torch.randint(3, 200, (count, tokens), generator=torch.Generator().manual_seed(0)).tolist()
        spans = [slice(start, start + 4) for start in range(0, count, 4)]
        bare, _ = peak(lambda: [last_logits(model, pad(sequences[span])).shape for span in spans])
        reading, _ = peak(lambda: mean_heads(model, sequences, batch_size=4).count)
        return reading - bare

    values = 4 * model.cfg.n_layers * model.cfg.n_heads * model.cfg.d_head * 4
    few, many, long = extra(8, 40), extra(32, 40), extra(8, 160)
    # The values read of one batch, their sum in double precision, and small change; nothing that grows.
    assert max(few, many, long) <= 4 * values
    assert many <= few + 4096 and long <= few + values


# ------------------------------------------------------------------------------------------ other models


DEEP = {"vocab_size": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DEEP_GPT = DEEP | {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
DEEP_LLAMA = DEEP | {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(**DEEP_GPT),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**DEEP_LLAMA, tie_word_embeddings=False),
    "llama": lambda: transformers.LlamaConfig(**DEEP_LLAMA, num_key_value_heads=2),
}


every_family = pytest.mark.parametrize("name", CONFIGS)


@every_family
def test_reading_takes_no_more_than_foretold_in_any_family(fresh, name, model_class):
    model, tokens = fresh(CONFIGS[name](), model_class), prompts(1, 400)[0]
    footprint = Footprint.of(language_model(model))
    for before, new in ((0, 150), (150, 20)):
        past = [language_model(model).prefill(pad([tokens[:before]]))] if before else []
        batch = pad([tokens[before : before + new]])
        taken, segment = peak(functools.partial(language_model(model).prefill, batch, past))
        assert segment.nbytes == footprint.stored(new)
        assert taken <= footprint.reading(new, before) + footprint.stored(new)


@every_family
def test_trying_takes_no_more_than_foretold_in_any_family(fresh, name, model_class):
    model, tokens = fresh(CONFIGS[name](), model_class), prompts(1, 400)[0]
    for masks, slots in ((1, 150), (128, 10)):
        some, values = masks_and_values(model, masks)
        replay = Replay(model, [tokens[: slots + 1]], VERDICTS)
        replay.verdict_logits(some, values)
        taken, _ = peak(functools.partial(replay.verdict_logits, some, values))
        assert taken <= Footprint.of(language_model(model)).trying(masks, slots, 3)


@pytest.mark.parametrize(("common", "mib"), [(0, 1), (60, 4)])
def test_the_check_and_parts_of_batches_stay_within_the_budget_too(judge_of_class, common, mib, monkeypatch):
    model, budget = judge_of_class, mib * 2**20
    sequences = [prompts(1, 200)[0][:common] + sequence for sequence in prompts(7, 30)]
    masks, values = masks_and_values(model, 32)

    def unknown(some, memory_budget):
        findings = language_model(model).findings
        monkeypatch.setattr(findings, "replayed", type(findings.replayed)())
        return Replay(model, some, VERDICTS, memory_budget=memory_budget)

    least, _ = peak(lambda: unknown([max(sequences, key=len)], 1).verdict_logits(masks[:1], values))
    replay = unknown(sequences, budget)
    with TensorMemory() as memory:
        replay.verdict_logits(masks, values)
        replay.verdict_logits(masks, values, [0, 3, 6])
        replay.log_probs(masks[:20], values)
        assert replay.hook_z(masks[:8], values).nbytes < 2**20 / 2
    assert memory.peak <= max(budget, budget / 2 + least) + 2**19
