"""Masks start at the first block that they change: the same logits for less, and only where that is known to be right."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from arm_lens import HeadSet, steer
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad
from arm_lens.engine.late_start import starting_at

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]
VERDICTS = VerdictTokens((5,), (6, 7))


def problem(model, seed=0):
    """A replay; every head alone, no head, and random sets; and values."""
    adapter = language_model(model)
    shape = (adapter.n_layers, adapter.n_heads)
    generator = torch.Generator().manual_seed(seed)
    alone = torch.eye(shape[0] * shape[1], dtype=torch.bool).reshape(-1, *shape)
    some = torch.rand(5, *shape, generator=generator) < 0.3
    masks = torch.cat([alone, torch.zeros(1, *shape, dtype=torch.bool), some])
    masks = masks[torch.randperm(len(masks), generator=generator)]
    values = torch.randn(*shape, adapter.d_head, generator=generator)
    return Replay(model, SEQUENCES, VERDICTS, batch_size=2), masks, values


def test_logits_are_those_of_whole_passes(model_of, family, model_class):
    model = model_of(family, model_class)
    replay, masks, values = problem(model)
    found = replay.logits(masks, values)
    assert language_model(model).findings.late
    expected = []
    for mask in masks:
        with steer(model, HeadSet.from_mask(mask), values):
            expected.append(last_logits(model, pad(SEQUENCES)))
    torch.testing.assert_close(found, torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)
    some = replay.verdict_logits(masks, values, [2, 0, 2])
    torch.testing.assert_close(some, VERDICTS.sums(found)[[2, 0, 2]], atol=1e-5, rtol=1e-5)


def test_late_masks_cost_less_and_nothing_changes_by_it(model_of):
    replay, masks, values = problem(model_of("llama"))
    last_layer = masks[masks[:, :-1].flatten(1).sum(dim=1) == 0]
    assert len(last_layer) > 2
    findings = language_model(model_of("llama")).findings
    found, flops = [], []
    for late in (True, False):
        replay.verdict_logits(last_layer, values)  # what is read once, is read
        findings.late = late
        with FlopCounterMode(display=False) as counter:
            found.append(replay.verdict_logits(last_layer, values))
        flops.append(counter.get_total_flops())
    findings.late = True
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)
    layers = masks.shape[1]
    assert flops[0] < flops[1] / layers * 1.2


def test_hooks_of_the_users_act_in_every_block(model_of):
    model = model_of("llama")
    replay, masks, values = problem(model)
    replay.verdict_logits(masks, values)
    fired = []
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda z, hook: fired.append(1))]):
        replay.verdict_logits(masks, values)
    assert fired


def test_blocks_are_whole_again_also_after_an_error(model_of):
    model = model_of("llama")
    adapter = language_model(model)
    before = [dict(vars(block)) for block in model.blocks]
    expected = last_logits(model, pad(SEQUENCES))
    with pytest.raises(KeyboardInterrupt), starting_at(adapter, 1, torch.zeros(3, 9, adapter.d_model)):
        assert not torch.allclose(last_logits(model, pad(SEQUENCES)), expected)
        raise KeyboardInterrupt
    assert [vars(block).keys() for block in model.blocks] == [one.keys() for one in before]
    assert torch.equal(last_logits(model, pad(SEQUENCES)), expected)


def test_a_model_whose_blocks_cannot_be_passed_over_does_without(fresh):
    model = fresh(transformers.LlamaConfig(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                           num_attention_heads=4, max_position_embeddings=128))  # fmt: skip
    first, last = model.blocks[0], model.blocks[-1]
    beginning, end = first.forward, last.forward
    told = []

    def telling(*args, **kwargs):  # what a block does beside its output
        told.append(torch.arange(32.0))
        return beginning(*args, **kwargs)

    vars(first)["forward"] = telling
    vars(last)["forward"] = lambda *args, **kwargs: end(*args, **kwargs) + (told.pop() if told else 0.0)
    replay, masks, values = problem(model)
    expected = replay.verdict_logits(masks, values)
    assert language_model(model).findings.late is False
    torch.testing.assert_close(replay.verdict_logits(masks, values), expected, atol=1e-6, rtol=1e-6)


def test_blocks_that_pass_on_more_than_a_tensor_are_never_passed_over(fresh):
    model = fresh(transformers.LlamaConfig(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                           num_attention_heads=4, max_position_embeddings=128))  # fmt: skip
    first, second = model.blocks[0], model.blocks[1]
    beginning, middle = first.forward, second.forward
    vars(first)["forward"] = lambda *args, **kwargs: (beginning(*args, **kwargs), "more")

    def unpacking(both, *args, **kwargs):
        hidden, more = both
        assert more == "more"
        return middle(hidden, *args, **kwargs)

    vars(second)["forward"] = unpacking
    replay, masks, values = problem(model)
    found = replay.verdict_logits(masks, values)
    assert language_model(model).findings.late is False and found.isfinite().all()
