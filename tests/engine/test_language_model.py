from __future__ import annotations

import pytest
import torch
from conftest import HOOKED, SHARED
from transformers import AutoModelForCausalLM

import arm_lens
from arm_lens import load_model
from arm_lens.engine import describe, fingerprint, language_model, last_logits, pad
from arm_lens.judges.template import default_template

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14]]


def hugging_face_logits(folder, sequences):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([sequence])).logits[:, -1] for sequence in sequences])


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_last_logits_are_those_of_hugging_face(model_of, folder_of, model_family, model_class, side):
    found = last_logits(model_of(model_family, model_class), pad(SEQUENCES, side=side))
    expected = hugging_face_logits(folder_of(model_family), SEQUENCES)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_both_classes_have_the_same_fingerprint_and_other_weights_another(model_of, folder_of, tmp_path):
    bridge = fingerprint(model_of("llama"))
    if HOOKED:
        torch.testing.assert_close(fingerprint(model_of("llama", "HookedTransformer")), bridge, atol=1e-5, rtol=1e-4)
    changed = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
    with torch.no_grad():
        changed.model.layers[0].self_attn.v_proj.weight.mul_(1.02)
    changed.save_pretrained(tmp_path)
    model_of("llama").tokenizer.save_pretrained(tmp_path)
    assert (fingerprint(load_model(tmp_path)) - bridge).abs().max() > 1e-3 * bridge.abs().max()


def test_a_model_is_described_by_shape_class_and_processing(model_of, folder_of, model_class):
    info = describe(model_of("qwen3", model_class))
    assert (info.n_layers, info.n_heads, info.d_head, info.d_model, info.n_ctx) == (3, 4, 12, 32, 512)
    assert info.architecture == "Qwen3ForCausalLM"
    assert info.model_class == model_class
    assert info.weight_processing == "raw"
    assert info.dtype == "float32"
    assert info.name == str(folder_of("qwen3"))


@pytest.mark.slow
def test_compatibility_mode_shows_in_the_description(folder_of):
    model = load_model(folder_of("gpt2"))
    model.enable_compatibility_mode(disable_warnings=True)
    assert describe(model).weight_processing == "compatibility mode"


def test_bfloat16_is_loaded_as_asked(folder_of):
    model = load_model(folder_of("llama"), dtype=torch.bfloat16)
    assert describe(model).dtype == "bfloat16"
    assert last_logits(model, pad(SEQUENCES)).dtype == torch.bfloat16


def test_a_folder_named_after_another_family_is_still_loaded_for_what_it_is(folder_of, tmp_path, model_class):
    import shutil

    folder = tmp_path / "my-llama-2-7b-experiments"
    shutil.copytree(folder_of("gpt2"), folder)
    found = last_logits(load_model(folder, model_class=model_class), pad(SEQUENCES))
    torch.testing.assert_close(found, hugging_face_logits(folder, SEQUENCES), atol=1e-4, rtol=1e-4)


def test_the_last_position_is_that_of_the_last_real_token():
    left, right = pad(SEQUENCES, side="left"), pad(SEQUENCES, side="right")
    assert left.last.tolist() == [4, 4]
    assert right.last.tolist() == [4, 2]
    assert left.padded
    assert not pad(SEQUENCES[:1]).padded


def test_text_is_encoded_with_one_beginning_of_sequence_token(model_of, tokenizer):
    (ids,) = language_model(model_of("llama")).encode(["the garden is warm"], chat=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "the", "garden", "is", "warm"]


def test_a_chat_text_brings_its_own_special_tokens(model_of, tokenizer):
    (ids,) = language_model(model_of("llama")).encode(["the garden"], chat=True)
    assert tokenizer.convert_ids_to_tokens(ids) == ["the", "garden"]


def test_a_prompt_longer_than_the_context_is_an_error_that_names_it_and_nothing_is_cut(model_of):
    with pytest.raises(arm_lens.PromptTooLongError, match=r"row 7: the prompt has 601 tokens, the model's context 512"):
        language_model(model_of("llama")).encode(["fine", "garden " * 600], chat=False, names=["row 6", "row 7"])


def test_what_is_no_transformer_lens_model_is_refused():
    with pytest.raises(TypeError, match="load_model"):
        language_model(torch.nn.Linear(2, 2))


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_model(tmp_path)


@pytest.mark.skipif(HOOKED, reason="this TransformerLens has HookedTransformer")
def test_where_hooked_transformer_is_gone_asking_for_it_says_so(folder_of):
    with pytest.raises(ValueError, match="removed in"):
        load_model(folder_of("llama"), model_class="HookedTransformer")


@pytest.mark.slow
def test_a_template_in_the_model_folder_is_the_models_own(folder_of, tmp_path):
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folder_of("llama"), folder)
    own = arm_lens.JudgeTemplate(scalar="{prompt}/{response}")
    (folder / "judge_template.json").write_text(json.dumps(own.to_dict()))
    assert default_template(load_model(folder)) == own
    assert default_template(load_model(folder_of("llama"))) == arm_lens.JudgeTemplate()


tinystories = pytest.mark.skipif(
    not (SHARED / "models" / "tinystories-3m").is_dir(), reason="../shared/models/tinystories-3m is not here"
)


@pytest.mark.slow
@tinystories
def test_a_real_language_model_is_read_steered_and_replayed_alike():
    from arm_lens import HeadSet, steer
    from arm_lens.engine import Replay, VerdictTokens, mean_heads

    model = load_model(SHARED / "models" / "tinystories-3m")
    texts = [
        "Once upon a time there was a little dog.",
        "The sun was",
        "Lily and Tom went to the park to play with a ball",
    ]
    sequences = language_model(model).encode(texts, chat=False)
    means = mean_heads(model, sequences)
    heads = HeadSet.of(8, 8, [(1, 2), (4, 0), (7, 7)])
    with steer(model, heads, means.values):
        together = last_logits(model, pad(sequences))
        alone = torch.cat([last_logits(model, pad([sequence])) for sequence in sequences])
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=1e-3)
    replayed = Replay(model, sequences, VerdictTokens((5,), (6,))).logits(heads.mask[None], means.values)[:, 0]
    torch.testing.assert_close(replayed, alone, atol=2e-3, rtol=1e-3)


def test_the_unembedding_multiplies_contiguous_activations(model_of):
    """PyTorch can take hundreds of times as long for a slice in bfloat16."""
    model = model_of("llama")
    head, seen = model.unembed.original_component, []
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        last_logits(model, pad(SEQUENCES, side="left"))
    finally:
        handle.remove()
    assert [one.shape[:2] for one in seen] == [(len(SEQUENCES), 1)] and seen[0].is_contiguous()
    assert model.unembed.original_component is head
