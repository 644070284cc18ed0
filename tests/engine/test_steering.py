"""Writing hook_z at the last token, against the raw Hugging Face modules."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from tests_support import raw_inputs_while

from arm_lens import HeadSet, Injection, steer
from arm_lens.engine import last_logits, pad, read_batch

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]


def values_for(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_head, generator=generator)


def full(model):
    return HeadSet.all(model.cfg.n_layers, model.cfg.n_heads)


def none(model):
    return HeadSet.none(model.cfg.n_layers, model.cfg.n_heads)


def test_no_heads_is_the_model_itself_bit_for_bit(model_of, family, model_class):
    model, tokens = model_of(family, model_class), torch.tensor(SEQUENCES[:1])
    plain = model(tokens)
    with steer(model, none(model), values_for(model)):
        assert torch.equal(model(tokens), plain)


def test_zero_strength_is_the_model_itself_bit_for_bit(model_of, model_class):
    model, tokens = model_of("llama", model_class), torch.tensor(SEQUENCES[:1])
    plain = model(tokens)
    for mode in ("replace", "add"):
        with steer(model, full(model), values_for(model), injection=Injection(mode=mode, strength=0.0)):
            assert torch.equal(model(tokens), plain)


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
def test_all_heads_put_exactly_the_given_values_at_the_raw_output_projections(model_of, model_family):
    model = model_of(model_family)
    values = values_for(model)
    with steer(model, full(model), values):
        inputs = raw_inputs_while(model, model_family, pad(SEQUENCES))
    expected = rearrange(values, "layer head d_head -> layer (head d_head)")
    for layer, entering in enumerate(inputs):
        for row in range(len(SEQUENCES)):
            assert torch.equal(entering[row, -1], expected[layer])


def test_positions_before_the_last_are_left_alone(model_of, family):
    model = model_of(family)
    batch = pad(SEQUENCES[:1])
    plain = raw_inputs_while(model, family, batch)
    with steer(model, full(model), values_for(model)):
        steered = raw_inputs_while(model, family, batch)
    for before, after in zip(plain, steered, strict=True):
        assert torch.equal(before[:, :-1], after[:, :-1])
        assert not torch.equal(before[:, -1], after[:, -1])


def test_only_the_chosen_heads_are_written(model_of, model_class):
    model = model_of("llama", model_class)
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    values = values_for(model)
    with steer(model, heads, values):
        z = read_batch(model, pad(SEQUENCES))
    plain = read_batch(model, pad(SEQUENCES))
    for layer, head in heads:
        assert torch.equal(z[:, layer, head], values[layer, head].expand(3, -1))
    torch.testing.assert_close(z[:, 0, [0, 2, 3]], plain[:, 0, [0, 2, 3]])  # the first layer is not downstream of any
    assert not torch.allclose(z[:, 1], plain[:, 1])


def test_adding_and_strength_mean_what_they_say(model_of, model_class):
    model = model_of("llama", model_class)
    heads, values = HeadSet.of(3, 4, [(0, 1)]), values_for(model)
    plain = read_batch(model, pad(SEQUENCES))[:, 0, 1]
    expected = {
        ("add", 1.0): plain + values[0, 1],
        ("add", -0.5): plain - 0.5 * values[0, 1],
        ("replace", 0.25): 0.75 * plain + 0.25 * values[0, 1],
    }
    for (mode, strength), wanted in expected.items():
        with steer(model, heads, values, injection=Injection(mode=mode, strength=strength)):
            torch.testing.assert_close(read_batch(model, pad(SEQUENCES))[:, 0, 1], wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_steered_padded_and_alone_agree(model_of, family, model_class, side):
    model = model_of(family, model_class)
    heads, values = HeadSet.of(3, 4, [(0, 0), (1, 2), (2, 1)]), values_for(model)
    batch = pad(SEQUENCES, side=side)
    with steer(model, heads, values, positions=batch.last):
        together = last_logits(model, batch)
    with steer(model, heads, values):
        alone = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_each_row_of_a_batch_can_have_its_own_heads(model_of, model_class):
    model = model_of("llama", model_class)
    values = values_for(model)
    sets = [HeadSet.of(3, 4, [(0, 0)]), none(model), HeadSet.of(3, 4, [(1, 1), (2, 2)])]
    with steer(model, torch.stack([one.mask for one in sets]), values):
        together = last_logits(model, pad(SEQUENCES))
    for row, one in enumerate(sets):
        with steer(model, one, values):
            alone = last_logits(model, pad([SEQUENCES[row]]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_hooks_are_gone_after_the_context_and_after_an_exception(model_of, model_class):
    model, tokens = model_of("llama", model_class), torch.tensor(SEQUENCES[:1])
    plain = model(tokens)
    with pytest.raises(RuntimeError, match="on purpose"), steer(model, full(model), values_for(model)):
        assert not torch.equal(model(tokens), plain)
        raise RuntimeError("on purpose")
    assert torch.equal(model(tokens), plain)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_hooks_are_gone_after_an_error_inside_the_forward_pass(model_of, model_class):
    model = model_of("llama", model_class)
    wrong = torch.ones(5, 3, 4, dtype=torch.bool)  # five rows of masks for a batch of one
    with pytest.raises(RuntimeError), steer(model, wrong, values_for(model)):
        model(torch.tensor([[1, 2, 3], [1, 2, 4]]))
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_the_users_own_hooks_stay_and_take_part(model_of, model_class):
    model, tokens = model_of("llama", model_class), torch.tensor(SEQUENCES[:1])
    calls = []
    point = model.hook_dict["blocks.0.attn.hook_z"]
    point.add_hook(lambda z, hook: calls.append(z.shape))
    try:
        with steer(model, full(model), values_for(model)):
            model(tokens)
        model(tokens)
        assert len(calls) == 2
    finally:
        point.remove_hooks("fwd")


def test_adding_adds_once_in_compatibility_mode(folder_of):
    from arm_lens import load_model

    model = load_model(folder_of("gpt2"))
    model.enable_compatibility_mode(disable_warnings=True)
    heads, values = HeadSet.of(3, 4, [(0, 1)]), values_for(model)
    plain = read_batch(model, pad(SEQUENCES))[:, 0, 1]
    with steer(model, heads, values, injection=Injection(mode="add")):
        torch.testing.assert_close(read_batch(model, pad(SEQUENCES))[:, 0, 1], plain + values[0, 1])


def test_shapes_that_do_not_fit_the_model_are_refused(model_of):
    model = model_of("llama")
    with pytest.raises(ValueError, match="head mask"), steer(model, HeadSet.all(3, 5), values_for(model)):
        pass
    with pytest.raises(ValueError, match="values"), steer(model, full(model), values_for(model)[:2]):
        pass


def test_an_unknown_mode_is_refused():
    with pytest.raises((ValueError, TypeError), match="blend"):
        Injection(mode="blend")
