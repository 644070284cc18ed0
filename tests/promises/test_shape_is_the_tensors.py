"""Heads are counted and cut as the activation has them; what no [layer, head, d_head] tensor can hold is refused in words."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import HeadSet, load_model, steer
from arm_lens.engine import UnsupportedModelError, describe, language_model, last_logits, mean_heads, pad, read_batch
from arm_lens.engine.hooked import HookedTransformer

pytestmark = pytest.mark.tl4

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SEQUENCES = [[1, 9, 30, 41, 52], [1, 7, 14]]
MLA = {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
MLA |= {"first_k_dense_replace": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WIDTHS = {
    "values narrower": ("DeepseekV3Config", MLA | {"v_head_dim": 6, "n_group": 1, "topk_group": 1}, 6),
    "values wider": ("DeepseekV3Config", MLA | {"v_head_dim": 16, "n_group": 1, "topk_group": 1}, 16),
    "heads wider than d_model": ("Qwen3Config", {"head_dim": 20}, 20),
    "gemma": ("GemmaConfig", {"head_dim": 24}, 24),
    "mistral": ("MistralConfig", {"head_dim": 6}, 6),
}


@pytest.fixture
def random(fresh):
    return lambda kind, options, *rest: fresh(getattr(transformers, kind)(**SMALL | options), *rest)


@pytest.mark.parametrize("name", WIDTHS)
def test_heads_are_as_wide_as_what_enters_the_output_projection(random, name):
    kind, options, width = WIDTHS[name]
    bridge = random(kind, options)
    model = language_model(bridge)
    assert (model.n_heads, model.d_head) == (describe(bridge).n_heads, describe(bridge).d_head) == (4, width)

    projection = bridge.original_model.model.layers[1].self_attn.o_proj
    projection = getattr(projection, "original_component", projection)
    seen = []
    with projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1])):
        read = read_batch(bridge, pad(SEQUENCES))
    assert read.shape == (2, 2, 4, width)
    torch.testing.assert_close(read[:, 1].flatten(1), seen[0])

    # What is written at one head reaches the projection at that head, and nowhere else.
    values = mean_heads(bridge, SEQUENCES).values + 1
    with (
        projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1].view(2, 4, width))),
        steer(bridge, HeadSet.of(2, 4, [(1, 2)]), values),
    ):
        last_logits(bridge, pad(SEQUENCES))
    torch.testing.assert_close(seen[1][:, 2], values[1, 2].expand(2, -1))
    torch.testing.assert_close(seen[1][:, [0, 1, 3]], read[:, 1, [0, 1, 3]])


LINEAR = {f"linear_{of}_head_dim": 8 for of in ("key", "value")} | {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WITHOUT_HEADS = {
    "MambaConfig": ({"state_size": 4}, "layers 0, 1 of 2 without attention heads"),
    "Qwen3NextConfig": (
        LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16, "num_hidden_layers": 4},
        r"layers 0, 1, 2 of 4 without attention heads \(no hook_z\), of the kind linear_attention",
    ),
    "Lfm2Config": ({"layer_types": ["conv", "full_attention"]}, "layer 0 of 2 without attention heads"),
}


@pytest.mark.parametrize("kind", WITHOUT_HEADS)
def test_models_with_layers_without_attention_are_refused_naming_the_layers(random, kind):
    options, message = WITHOUT_HEADS[kind]
    with pytest.raises(UnsupportedModelError, match=f"{message}.*state-space, recurrent, convolutional or hybrid"):
        random(kind, options)


def test_an_encoder_decoder_model_is_refused(fresh):
    shape = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "decoder_start_token_id": 0}
    shape |= {"vocab_size": 64, "eos_token_id": 2, "pad_token_id": 0}
    with pytest.raises(UnsupportedModelError, match="T5ForConditionalGeneration is an encoder-decoder model"):
        fresh(transformers.T5Config(**shape), auto=transformers.AutoModelForSeq2SeqLM)


@pytest.mark.slow
def test_layers_with_heads_of_different_widths_are_refused_naming_layers_and_shapes(random):
    options = {"head_dim": 8, "global_head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
    options |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64, "num_kv_shared_layers": 0}
    with pytest.raises(
        UnsupportedModelError, match=r"its layers differ in heads or in their width.*layer 0: .*layer 1: "
    ):
        random("Gemma4TextConfig", options)


def test_a_hook_point_that_nothing_reads_is_refused(folder_of):
    bridge = TransformerBridge.boot_transformers(str(folder_of("llama")), device="cpu")
    for block in bridge.blocks:  # the output projection reads what was there before the hooks
        kind = type(block.attn.o)
        forward = {"forward": lambda self, z: (self.hook_in(z), self.original_component(z))[1]}
        block.attn.o.__class__ = type("Deaf", (kind,), forward)
    with pytest.raises(UnsupportedModelError, match="what is written at hook_z has no effect"):
        language_model(bridge)


def test_a_model_that_does_nothing_with_its_heads_is_a_model_all_the_same(folder_of, tmp_path):
    module = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
    with torch.no_grad():
        for layer in module.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    module.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder_of("llama")).save_pretrained(tmp_path)
    for model_class in ("TransformerBridge", *(["HookedTransformer"] if HookedTransformer else [])):
        assert language_model(load_model(tmp_path, model_class=model_class)).n_heads > 0
