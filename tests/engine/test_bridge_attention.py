"""Attention by Hugging Face modules: the same logits, hooks and gradients, and nothing is left behind."""

from __future__ import annotations

import pytest
import torch
import transformers

from arm_lens.engine import language_model, last_logits, pad, steer
from arm_lens.engine.bridge_attention import natively

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]
SMALL = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}


def attends_natively(model):
    with natively(model) as found:
        return found


def attention_of(model):
    return model.blocks[0].attn


def in_steps(model):
    """Logits with the bridge's own attention, which a hook at a pattern asks for."""
    point, seen = attention_of(model).hook_pattern, []
    point.add_hook(lambda pattern, hook: seen.append(pattern))
    try:
        assert not attends_natively(model)
        logits = last_logits(model, pad(SEQUENCES))
    finally:
        point.remove_hooks()
    assert len(seen) == 1 and seen[0].shape[-1] == 9
    return logits


def test_logits_are_those_of_raw_hugging_face_and_of_the_bridges_own_steps(model_of, folder_of):
    model = model_of("llama")
    assert language_model(model).findings.natively and attends_natively(model)
    raw = transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama"))
    with torch.no_grad():
        expected = torch.stack([raw(torch.tensor([sequence])).logits[0, -1] for sequence in SEQUENCES])
    found = last_logits(model, pad(SEQUENCES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(in_steps(model), expected, atol=1e-5, rtol=1e-5)


def test_steering_and_its_gradient_are_the_same_in_both_ways(model_of):
    model = model_of("llama")
    adapter = language_model(model)
    values = torch.randn(adapter.n_layers, adapter.n_heads, adapter.d_head, generator=torch.Generator().manual_seed(0))

    def margin(natively):
        gates = torch.full(values.shape[:2], 0.3, requires_grad=True)
        adapter.findings.natively = natively
        with steer(model, gates, values):
            logits = adapter.last_logits_with_gradient(pad(SEQUENCES))
        gap = (logits[:, 5] - logits[:, 6]).sum()
        return gap.detach(), torch.autograd.grad(gap, gates)[0]

    try:
        for one, other in zip(margin(True), margin(False), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    finally:
        adapter.findings.natively = True


@pytest.mark.parametrize("where", ["hook_pattern", "hook_attn_scores", "hook_rot_q"])
def test_whoever_looks_inside_sees_and_changes_it(model_of, where):
    model, expected = model_of("llama"), last_logits(model_of("llama"), pad(SEQUENCES))
    point = getattr(attention_of(model), where)
    point.add_hook(lambda inside, hook: inside * 0.5)
    try:
        changed = last_logits(model, pad(SEQUENCES))
    finally:
        point.remove_hooks()
    assert (changed - expected).abs().max() > 1e-3
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES)), expected, atol=0, rtol=0)


def test_nothing_is_left_behind_also_after_an_error(model_of):
    model = model_of("llama")
    config = attention_of(model).original_component.config
    before = config._attn_implementation
    with pytest.raises(KeyboardInterrupt), natively(model) as found:
        assert found and config._attn_implementation == "sdpa" and "forward" in vars(attention_of(model))
        raise KeyboardInterrupt
    assert config._attn_implementation == before == "eager"
    assert not any("forward" in vars(block.attn) for block in model.blocks)


def test_what_the_fused_operation_would_leave_out_is_computed_in_steps(fresh):
    capped = transformers.Gemma2Config(**SMALL, attn_logit_softcapping=1.5, query_pre_attn_scalar=8)
    assert not attends_natively(fresh(capped))
    assert attends_natively(fresh(transformers.Qwen3Config(**SMALL)))


def test_a_window_is_that_of_hugging_face(fresh):
    config = transformers.MistralConfig(**SMALL, sliding_window=3)
    model = fresh(config)
    assert attends_natively(model)
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES)), in_steps(model), atol=1e-5, rtol=1e-5)
