"""Reading hook_z at the last token, against the raw Hugging Face modules."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from tests_support import OUTPUT_PROJECTION

from arm_lens.engine import mean_heads, pad, read_batch, read_heads
from arm_lens.engine.reading import RunningMean

pytestmark = pytest.mark.tl4


def raw_projection_inputs(folder, family, sequence):
    """[layer, head, d_head] entering each output projection at the last token, by hooks on raw modules."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    seen = []
    for layer in range(model.config.num_hidden_layers):
        module = model.get_submodule(OUTPUT_PROJECTION[family].format(layer))
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, -1]))
    with torch.no_grad():
        model(torch.tensor([sequence]))
    return rearrange(
        torch.stack(seen), "layer (head d_head) -> layer head d_head", head=model.config.num_attention_heads
    )


SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
def test_what_is_read_is_what_enters_the_raw_output_projection(model_of, folder_of, model_family, model_class):
    z = read_batch(model_of(model_family, model_class), pad(SEQUENCES[:1]))
    raw = raw_projection_inputs(folder_of(model_family), model_family, SEQUENCES[0])
    torch.testing.assert_close(z[0], raw, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_and_alone_batched_and_single_read_the_same(model_of, family, model_class, side):
    model = model_of(family, model_class)
    together = read_batch(model, pad(SEQUENCES, side=side))
    alone = torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_what_stands_at_padded_positions_does_not_matter(model_of, model_class):
    model = model_of("llama", model_class)
    zeros, others = pad(SEQUENCES, pad_token=0), pad(SEQUENCES, pad_token=99)
    torch.testing.assert_close(read_batch(model, zeros), read_batch(model, others), atol=0, rtol=0)


def test_the_batch_size_does_not_change_what_is_read(model_of):
    model = model_of("llama")
    whole = torch.cat(list(read_heads(model, SEQUENCES, batch_size=3)))
    single = torch.cat(list(read_heads(model, SEQUENCES, batch_size=1)))
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=1e-4)


def test_the_mean_is_the_mean_of_what_is_read(model_of):
    model = model_of("gpt2")
    means = mean_heads(model, SEQUENCES, batch_size=2)
    z = torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES])
    assert means.count == 3
    torch.testing.assert_close(means.values, z.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_a_running_mean_does_not_depend_on_how_examples_are_batched(generator):
    z = torch.randn(17, 2, 3, 4, generator=generator)
    one, many = RunningMean(), RunningMean()
    one.update(z)
    for part in z.split([1, 5, 11]):
        many.update(part)
    torch.testing.assert_close(one.result().values, many.result().values)
    torch.testing.assert_close(one.result().values, z.mean(dim=0))


def test_the_mean_of_half_precision_activations_is_not_accumulated_in_half_precision():
    z = torch.full((4096, 1, 1, 1), 1.001, dtype=torch.bfloat16)
    mean = RunningMean()
    for part in z.split(16):
        mean.update(part)
    assert float(mean.result().values) == float(z[0])


def test_there_is_no_mean_of_nothing():
    with pytest.raises(ValueError, match="no examples"):
        RunningMean().result()


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="empty"):
        pad([[1, 2], []])
