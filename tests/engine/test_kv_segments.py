"""The model is as it was after every pass, whatever happens in it, and its unembedding may be of any kind."""

from __future__ import annotations

import pytest
import torch

from arm_lens import load_model, steer
from arm_lens.engine import Replay, VerdictTokens, last_logits, pad

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]
VERDICTS = VerdictTokens((5,), (6, 7))


def problem(model):
    generator = torch.Generator().manual_seed(0)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    masks = torch.rand(3, *shape, generator=generator) < 0.5
    return masks, torch.randn(*shape, model.cfg.d_head, generator=generator)


def sides_of_full_passes(model, masks, values):
    logits = []
    for mask in masks:
        with steer(model, mask, values):
            logits.append(torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES]))
    logits = torch.stack(logits, dim=1)
    return torch.stack([logits[..., 5], logits[..., 6:8].logsumexp(dim=-1)], dim=-1)


def state_of(model):
    """Every module, parameter, and hook of the model, by identity, and what the modules hold besides."""
    modules = dict(model.named_modules())
    return (
        {name: (id(module), sorted(module.__dict__)) for name, module in modules.items()},
        {name: id(parameter) for name, parameter in model.named_parameters()},
        {name: [len(module._forward_hooks), len(module._forward_pre_hooks)] for name, module in modules.items()},
    )


def test_a_pass_leaves_the_model_as_it_was(model_of, model_class):
    model = model_of("gpt2", model_class)
    masks, values = problem(model)
    last_logits(model, pad(SEQUENCES))  # TransformerLens fills some caches of its own at first use
    assert model.hook_dict
    before = state_of(model)
    Replay(model, SEQUENCES, VERDICTS).verdict_logits(masks, values)
    for now, then in zip(state_of(model), before, strict=True):
        assert {name: held for name, held in now.items() if then.get(name) != held} == {}
        assert now.keys() == then.keys()


def test_so_does_a_pass_that_breaks_off(model_of, model_class):
    model = model_of("gpt2", model_class)
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    replay.verdict_logits(masks, values)
    before = state_of(model)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.blocks[1].attn.hook_z.register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            replay.verdict_logits(masks, values)
    finally:
        handle.remove()
    for now, then in zip(state_of(model), before, strict=True):
        assert {name: held for name, held in now.items() if then.get(name) != held} == {}
        assert now.keys() == then.keys()


def test_a_bridge_in_compatibility_mode_is_replayed(folder_of, tokenizer):
    model = load_model(folder_of("llama"), tokenizer=tokenizer)
    model.enable_compatibility_mode()
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    found = replay.verdict_logits(masks, values)
    assert replay.exact
    torch.testing.assert_close(found, sides_of_full_passes(model, masks, values), atol=1e-4, rtol=0)


def test_an_unembedding_that_is_no_plain_matrix_is_used_whole(folder_of, tokenizer):
    model = load_model(folder_of("llama"), tokenizer=tokenizer)

    class Shifted(torch.nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden) + torch.arange(self.out_features) / 100

    model.unembed._modules["_original_component"].__class__ = Shifted
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    found = replay.verdict_logits(masks, values)
    assert replay.exact
    torch.testing.assert_close(found, sides_of_full_passes(model, masks, values), atol=1e-4, rtol=0)
