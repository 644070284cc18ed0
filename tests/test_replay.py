"""The replay against one hooked full pass per mask."""

from __future__ import annotations

import warnings

import pytest
import torch

from arm_lens import Injection, Replay, VerdictTokens, last_logits, pad, steer
from arm_lens.replay import SlowReplayWarning

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
VERDICTS = VerdictTokens((5,), (6, 7))
TOLERANCE = 1e-4  # float32


def problem(model, masks=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    return torch.rand(masks, *shape, generator=generator) < 0.4, torch.randn(
        *shape, model.cfg.d_head, generator=generator
    )


def one_full_pass_per_mask(model, masks, values, injection=None):
    logits = []
    for mask in masks:
        with steer(model, mask, values, injection=injection):
            logits.append(torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES]))
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_replay_gives_what_a_full_pass_per_mask_gives(model_of, model_family, model_class, batch_size):
    model = model_of(model_family, model_class)
    masks, values = problem(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)  # these families have an exact replay
        replay = Replay(model, SEQUENCES, VERDICTS, batch_size=batch_size)
    found = replay.logits(masks, values)
    expected = one_full_pass_per_mask(model, masks, values)
    assert (expected.std(dim=1) > 10 * TOLERANCE).any()  # the masks make a difference
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("injection", [Injection(mode="add", strength=0.7), Injection(strength=0.5)])
def test_every_way_of_writing_is_replayed(model_of, model_class, injection):
    model = model_of("llama", model_class)
    masks, values = problem(model)
    found = Replay(model, SEQUENCES, VERDICTS, injection=injection).logits(masks, values)
    expected = one_full_pass_per_mask(model, masks, values, injection)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_asking_again_gives_the_same_and_other_masks_leave_no_trace(model_of, model_class):
    model = model_of("llama", model_class)
    replay = Replay(model, SEQUENCES, VERDICTS)
    masks, values = problem(model)
    first = replay.logits(masks, values)
    replay.logits(*problem(model, masks=9, seed=1))
    replay.logits(masks[:2], values, [3, 0])
    assert torch.equal(replay.logits(masks, values), first)


def test_examples_can_be_picked_in_any_order_and_twice(model_of, model_class):
    model = model_of("qwen2", model_class)
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=2)
    masks, values = problem(model)
    whole = replay.logits(masks, values)
    picked = replay.logits(masks, values, [3, 0, 3])
    torch.testing.assert_close(picked, whole[[3, 0, 3]], atol=TOLERANCE, rtol=0)


def test_no_heads_replay_the_unsteered_model(model_of, model_class):
    model = model_of("gpt2", model_class)
    _, values = problem(model)
    nothing = torch.zeros(1, model.cfg.n_layers, model.cfg.n_heads, dtype=torch.bool)
    plain = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
    found = Replay(model, SEQUENCES, VERDICTS).logits(nothing, values)[:, 0]
    torch.testing.assert_close(found, plain, atol=TOLERANCE, rtol=0)


def test_verdict_log_probabilities_add_up_the_spellings(model_of):
    model = model_of("llama")
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    p = replay.logits(masks, values).softmax(dim=-1)
    expected = torch.stack([p[..., 5], p[..., 6] + p[..., 7]], dim=-1).log()
    torch.testing.assert_close(replay.log_probs(masks, values), expected)


def test_a_model_with_sliding_windows_is_read_in_full_and_says_so(tmp_path, tokenizer):
    import transformers

    from arm_lens import load_model

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, use_sliding_window=True, sliding_window=4,
        max_window_layers=1, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    with pytest.warns(SlowReplayWarning, match="Qwen2"):
        replay = Replay(model, SEQUENCES, VERDICTS)
    masks, values = problem(model, masks=3)
    found = replay.logits(masks, values)
    torch.testing.assert_close(found, one_full_pass_per_mask(model, masks, values), atol=TOLERANCE, rtol=0)


def test_a_prompt_of_one_token_is_refused(model_of):
    with pytest.raises(ValueError, match="two tokens"):
        Replay(model_of("llama"), [[1]], VERDICTS)
