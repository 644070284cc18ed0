"""The model that is used is the model in the folder: it computes what the Hugging Face module computes, or it is refused."""

from __future__ import annotations

import copy
import re
import warnings
from importlib.metadata import version

import pytest
import torch
import transformers
from conftest import HOOKED
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import load_model
from arm_lens.engine import (
    ModelMismatchError,
    NotFiniteError,
    UncheckedModelWarning,
    UnsupportedModelError,
    describe,
    language_model,
    last_logits,
    loading,
    pad,
)
from arm_lens.engine.bridge import rebuilt
from arm_lens.engine.identity import other_than, reference

pytestmark = pytest.mark.tl4
needs_hooked = pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer")

VOCABULARY = 64
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SEQUENCE = torch.randint(3, VOCABULARY, (40,), generator=torch.Generator().manual_seed(0)).tolist()
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 512}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LONGROPE |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 4.0]}
CONFIGS = {
    "llama": ("LlamaConfig", {}),
    "llama with biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "longrope": ("LlamaConfig", {"rope_parameters": LONGROPE}),
    "yarn": ("Qwen2Config", {"rope_parameters": YARN}),
    "short window": ("MistralConfig", {"sliding_window": 6}),
    "long window": ("MistralConfig", {"sliding_window": 900}),
    "some windows": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 900, "max_window_layers": 1}),
    "alternating windows": (
        "GPTNeoConfig",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "intermediate_size": 128},
    ),
    "scaled logits": ("CohereConfig", {"logit_scale": 0.1}),
    "granite": ("GraniteConfig", {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0}),
    "alibi": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "positions": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "experts": ("MixtralConfig", {"num_local_experts": 4}),
}


@pytest.fixture
def saved(tmp_path, tokenizer):
    """saved(config): the folder of a random model."""

    def make(config, change=lambda model: None, folder="model"):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            change(model)
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
        return tmp_path / folder

    return make


def off(model, folder, sequence=SEQUENCE):
    """The deviation from Hugging Face after one long prompt, in standard deviations."""
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([sequence])).logits[0, -1]
    return float((last_logits(model, pad([sequence]))[0] - expected).abs().max() / expected.std())


def config_of(name):
    kind, options = CONFIGS[name]
    return getattr(transformers, kind)(**SHAPE | options)


# ------------------------------------------------------------------------------------------ what is loaded


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_loaded_is_right_or_refused(saved, name, model_class):
    folder = saved(config_of(name))
    try:
        model = load_model(folder, model_class=model_class)
    except UnsupportedModelError as error:
        assert str(folder) in str(error)
        assert "another version of TransformerLens" in str(error)
        if (other := re.search(r"try model_class='(\w+)'", str(error))) is not None:
            try:
                proposed = load_model(folder, model_class=other[1])
            except ModelMismatchError as second:  # this version may compute it otherwise, and proposes no third
                assert "model_class=" not in str(second)
            else:
                assert off(proposed, folder) < 1e-4
    else:
        assert off(model, folder) < 1e-4


def test_the_other_class_is_proposed_only_for_architectures_that_it_has():
    # Cohere: in no HookedTransformer; Gemma: only under the names that Google gave.
    for architecture in ("CohereForCausalLM", "GemmaForCausalLM", "NoSuchForCausalLM"):
        assert "HookedTransformer" not in other_than("TransformerBridge", architecture)
    proposed = "try model_class='HookedTransformer'" in other_than("TransformerBridge", "LlamaForCausalLM")
    assert proposed == bool(HOOKED)
    assert "try model_class='TransformerBridge'" in other_than("HookedTransformer", "PhiForCausalLM")
    assert "model_class" not in other_than("HookedTransformer", "NoSuchForCausalLM")


@needs_hooked
@pytest.mark.skipif(version("transformer-lens") != "3.9.0", reason="what HookedTransformer leaves out in 3.9.0")
@pytest.mark.parametrize("name", ["llama with biases", "yarn", "some windows"])
def test_what_hooked_transformer_leaves_out_is_noticed(saved, name):
    folder = saved(config_of(name))
    long = torch.randint(3, VOCABULARY, (1, 950), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(long).logits[0, -1]
        found = unchecked_hooked(folder)(long, attention_mask=torch.ones_like(long))[0, -1]
    assert (found - expected).abs().max() > 0.01 * expected.std()
    with pytest.raises(ModelMismatchError, match=r"HookedTransformer of TransformerLens .* does not compute"):
        load_model(folder, model_class="HookedTransformer")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_mismatch_and_does_not_hide_one(saved, model_class, dtype):
    folder = saved(config_of("llama"))
    model = load_model(folder, model_class=model_class, dtype=dtype)
    assert language_model(model).dtype == dtype
    if HOOKED and model_class == "HookedTransformer":
        with pytest.raises(ModelMismatchError):
            load_model(saved(config_of("llama with biases"), folder="b"), model_class=model_class, dtype=dtype)


def test_numbers_beyond_float16_are_refused_naming_the_dtype(saved, model_class):
    def large(model):
        model.model.layers[1].mlp.down_proj.weight.mul_(3e5)
        model.model.layers[1].mlp.up_proj.weight.mul_(20)

    folder = saved(config_of("llama"), large)
    load_model(folder, model_class=model_class)
    load_model(folder, model_class=model_class, dtype=torch.bfloat16)
    with pytest.raises(NotFiniteError, match="float16 overflows beyond 65504; use bfloat16 or float32"):
        load_model(folder, model_class=model_class, dtype=torch.float16)


def test_a_weight_that_is_nan_is_refused(saved, model_class):
    folder = saved(config_of("llama"), lambda model: model.lm_head.weight[5, 5].fill_(torch.nan))
    with pytest.raises(NotFiniteError, match="check the model's weights for NaN"):
        load_model(folder, model_class=model_class)


def test_a_model_that_sees_later_tokens_is_refused():
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(UnsupportedModelError, match="BertForMaskedLM is not causal"):
        reference(transformers.BertForMaskedLM(config), 64, torch.float32)


# ------------------------------------------------------------------------------------------ what the user brings


def distort(bridge):
    """Have a block of a bridge leave something out."""
    mlp = bridge.blocks[0].mlp
    kind = type(mlp)
    mlp.__class__ = type(
        "Distorted", (kind,), {"forward": lambda self, *args, **options: 0.9 * kind.forward(self, *args, **options)}
    )


def test_a_users_bridge_is_compared_without_a_copy_of_its_weights(saved):
    folder = saved(config_of("llama"))
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    ours = {weight.data_ptr() for weight in bridge.original_model.parameters()}
    assert {weight.data_ptr() for weight in rebuilt(bridge.original_model).parameters()} <= ours
    assert language_model(bridge).info.model_class == "TransformerBridge" and off(bridge, folder) < 1e-4

    other = TransformerBridge.boot_transformers(str(folder), device="cpu")
    distort(other)
    for _ in range(2):  # refused once, refused always
        with pytest.raises(ModelMismatchError, match="LlamaForCausalLM of transformers"):
            language_model(other)


def test_a_bridge_of_a_model_that_was_trained_since_is_compared_with_its_own_weights(saved):
    bridge = TransformerBridge.boot_transformers(str(saved(config_of("llama"))), device="cpu")
    with torch.no_grad():
        for weight in bridge.original_model.parameters():
            weight.mul_(1.1)
    language_model(bridge)


def test_a_hugging_face_model_is_compared_as_it_is(saved, tokenizer, monkeypatch):
    raw = AutoModelForCausalLM.from_pretrained(saved(config_of("llama")))
    language_model((raw, tokenizer))
    boot = TransformerBridge.boot_transformers

    def distorted(*args, **kwargs):
        bridge = boot(*args, **kwargs)
        distort(bridge)
        return bridge

    monkeypatch.setattr(TransformerBridge, "boot_transformers", distorted)
    with pytest.raises(ModelMismatchError, match="LlamaForCausalLM"):
        language_model((copy.deepcopy(raw), tokenizer))


@pytest.mark.parametrize("lowest", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_tokens_that_are_ruled_out_do_not_widen_the_tolerance(saved, lowest):
    def rule_out(model):
        model.lm_head.bias[7] = lowest

    folder = saved(transformers.PhiConfig(**SHAPE), rule_out)
    assert describe(load_model(folder)).architecture == "PhiForCausalLM"
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    distort(bridge)
    with pytest.raises(ModelMismatchError, match="PhiForCausalLM of transformers"):
        language_model(bridge)


@pytest.mark.parametrize("name", ["llama", "alibi"])
def test_processed_weights_are_compared_with_what_the_raw_ones_gave(saved, name):
    model = load_model(saved(config_of(name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.enable_compatibility_mode(disable_warnings=True)
    assert language_model(model).info.weight_processing == "compatibility mode"

    other = load_model(saved(config_of(name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        other.enable_compatibility_mode(disable_warnings=True)
    distort(other)
    with pytest.raises(ModelMismatchError, match="fold_ln=False"):
        language_model(other)


def unchecked_hooked(folder):
    """A HookedTransformer as a user makes it."""
    raw, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return loading._hooked_around(raw, tokenizer, str(folder), torch.device("cpu"))


@needs_hooked
def test_windows_that_alternate_are_no_mismatch(saved):
    folder = saved(config_of("alternating windows"))  # of 256 tokens, in a context of 1024
    assert off(load_model(folder, model_class="HookedTransformer"), folder) < 1e-4


@pytest.mark.slow
@needs_hooked
def test_a_users_hooked_transformer_is_compared_with_the_model_on_disk(saved):
    folder = saved(config_of("llama"))
    assert off(unchecked_hooked(folder), folder) < 1e-4
    with pytest.raises(ModelMismatchError, match="TransformerBridge"):
        language_model(unchecked_hooked(saved(config_of("llama with biases"), folder="biases")))


@pytest.mark.slow
@needs_hooked
def test_weights_of_its_own_are_no_mismatch_but_a_class_that_leaves_something_out_still_is(saved):
    trained = unchecked_hooked(saved(config_of("llama")))
    wrong = unchecked_hooked(saved(config_of("llama with biases"), folder="biases"))
    for model in (trained, wrong):
        with torch.no_grad():
            model.blocks[0].mlp.W_in.mul_(1.5)
    with pytest.warns(UncheckedModelWarning, match="has other weights than the model on disk"):
        language_model(trained)
    with pytest.raises(ModelMismatchError):
        language_model(wrong)


@needs_hooked
def test_a_hooked_transformer_that_came_from_nowhere_says_once_that_it_was_not_compared():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=64, d_head=4, n_heads=4, d_vocab=50, act_fn="relu", model_name="nowhere"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg)
    with pytest.warns(UncheckedModelWarning, match="nowhere could not be compared with its Hugging Face module"):
        language_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncheckedModelWarning)
        language_model(model)


# ------------------------------------------------------------------------------------------ the comparison leaves no trace


def test_the_comparison_takes_no_random_numbers_calls_no_hooks_and_changes_no_mode(saved, tokenizer):
    raw = AutoModelForCausalLM.from_pretrained(saved(config_of("llama"))).train()
    raw.model.layers[0].eval()
    modes = [module.training for module in raw.modules()]
    called = []
    raw.model.norm.register_forward_hook(lambda *_: called.append(1))
    raw.model.layers[0].register_forward_pre_hook(lambda *_: called.append(1))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    language_model((raw, tokenizer))
    assert torch.equal(torch.rand(3), expected)
    assert called == []
    assert [module.training for module in raw.modules()] == modes
    raw(torch.tensor([[1, 2]]))
    assert called == [1, 1]
