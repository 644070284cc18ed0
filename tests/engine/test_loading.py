"""What `load_model` takes, in which dtype, and what it refuses before anything is read."""

from __future__ import annotations

import json
import logging
import re

import gguf
import numpy as np
import pytest
import torch
import transformers
from conftest import HOOKED
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from arm_lens import ActivationRewardModel, HeadSet, LabelledResponse, load_model
from arm_lens.cli.flags import Loading
from arm_lens.engine import UnsupportedModelError, describe, language_model, last_logits, pad, precision
from arm_lens.engine.gguf_files import read_gguf
from arm_lens.judges.artefact import WrongModelError
from arm_lens.reward.model import ReadingOptions

pytestmark = pytest.mark.tl4
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
ROWS = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]


@pytest.fixture(scope="module")
def llama(tokenizer):
    """A small random Llama whose matrices can be cut into blocks of 32 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def gguf_name(name):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, part = re.fullmatch(r"(model\.layers)\.(\d+)\.(.+)\.weight", name).groups()
    return f"blk.{layer}.{GGUF_NAMES[part]}.weight"


def interleaved(weight, heads):
    """The rows of queries and keys in llama.cpp's order, in which the two halves of a rotation are neighbours."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, kind=gguf.GGMLQuantizationType.F32, *, without=(), also=None, parts=None, scaling=None):
    """Write a Llama as llama.cpp's own converter does."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if parts is not None:
        writer.add_uint16("split.count", parts)
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name in without:
            continue
        values = weight.float().numpy()
        count = next((count for part, count in heads.items() if part in name), None)
        values = values if count is None else interleaved(values, count)
        own = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quantize(np.ascontiguousarray(values), own), raw_dtype=own)
    for name, values in (also or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def raw_logits(model):
    return torch.stack([model(torch.tensor([row])).logits[0, -1].float() for row in ROWS])


# ------------------------------------------------------------------------------------------ GGUF files


@pytest.mark.slow
def test_a_gguf_file_is_the_model_that_was_written_into_it(tmp_path, llama, tokenizer, model_class):
    path = write_gguf(tmp_path / "model.gguf", llama)
    for given in (path, tmp_path):  # the file, or the folder with only this one
        model = load_model(given, tokenizer=tokenizer, model_class=model_class)
        assert describe(model).name == str(path) and describe(model).dtype == "float32"
        torch.testing.assert_close(last_logits(model, pad(ROWS)), raw_logits(llama), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_blocks_are_unpacked_into_the_weights_that_they_stand_for(tmp_path, llama, tokenizer, monkeypatch):
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "model.gguf", llama, kind)
    model = load_model(path, tokenizer=tokenizer, dtype="float32")
    with torch.no_grad():
        unpacked = LlamaForCausalLM(llama.config).eval()
        unpacked.load_state_dict(llama.state_dict())
        for weight in unpacked.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    found = last_logits(model, pad(ROWS))
    torch.testing.assert_close(found, raw_logits(unpacked), atol=1e-4, rtol=1e-4)
    assert (found - raw_logits(llama)).abs().max() > 1e-3  # the blocks are coarser
    assert getattr(language_model(model).config, "quantization_config", None) is None  # ordinary weights now
    monkeypatch.setattr(precision, "cpu_speedup", lambda: 4.0)
    assert describe(load_model(path, tokenizer=tokenizer)).dtype == "bfloat16"


def test_several_files_in_a_folder_are_listed_and_a_missing_file_is_named(tmp_path, llama):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"2 GGUF files \(a\.gguf, b\.gguf\); pass the path of one"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*c\.gguf"):
        load_model(tmp_path / "c.gguf")


def test_weights_in_hugging_face_format_come_before_a_gguf_file_beside_them(folder_of, tmp_path):
    (tmp_path / "extra.gguf").write_bytes(b"not read")
    for file in folder_of("llama").iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert describe(load_model(tmp_path)).name == str(tmp_path.resolve())


@pytest.mark.parametrize("content", [b"", b"GGUF", b"MZ\0\0" * 100])
def test_what_is_not_a_gguf_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf is not a GGUF file, or is damaged or incomplete"):
        load_model(path)


def test_a_gguf_file_that_was_cut_off_is_refused_by_name(tmp_path, llama):
    whole = write_gguf(tmp_path / "whole.gguf", llama).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (len(whole) - 1, len(whole) // 2, 200):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.gguf is not a GGUF file, or is damaged or incomplete"):
            read_gguf(cut)


def test_what_transformers_leaves_out_of_a_gguf_file_is_refused(tmp_path, llama):
    frequencies = {"rope_freqs.weight": np.ones(4, dtype=np.float32)}
    path = write_gguf(tmp_path / "scaled.gguf", llama, also=frequencies)
    with pytest.raises(UnsupportedModelError, match=r"rotary positions \(rope_freqs\.weight\).*hub name"):
        load_model(path)
    path = write_gguf(tmp_path / "yarn.gguf", llama, scaling=gguf.RopeScalingType.YARN)
    with pytest.raises(UnsupportedModelError, match=r"rope\.scaling\.type = yarn"):
        load_model(path)
    path = write_gguf(tmp_path / "part.gguf", llama, parts=3)
    with pytest.raises(ValueError, match="one of 3 parts"):
        load_model(path)


def test_weights_that_are_missing_are_not_made_up(tmp_path, llama, tokenizer):
    path = write_gguf(tmp_path / "model.gguf", llama, without=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(
        UnsupportedModelError, match=r"1 of the model's weights .* model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_model(path, tokenizer=tokenizer)


def test_without_the_package_the_extra_is_named(tmp_path, llama, monkeypatch):
    path = write_gguf(tmp_path / "model.gguf", llama)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'arm-lens\[gguf\]'"):
        load_model(path)


# ------------------------------------------------------------------------------------------ the dtype


@pytest.fixture
def half(folder_of, tmp_path, tokenizer):
    """A folder with weights in half precision."""
    model = AutoModelForCausalLM.from_pretrained(folder_of("llama"), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    tokenizer.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize(("speedup", "expected"), [(4.0, "bfloat16"), (1.2, "float32"), (0.1, "float32")])
def test_half_precision_computes_in_bfloat16_only_where_that_is_clearly_faster(
    half, monkeypatch, caplog, speedup, expected
):
    monkeypatch.setattr(precision, "cpu_speedup", lambda: speedup)
    precision._say_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="arm_lens"):
        models = [load_model(half, device="cpu") for _ in range(2)]
    assert {describe(model).dtype for model in models} == {expected}
    (said,) = (record.getMessage() for record in caplog.records if record.name == "arm_lens")  # once
    assert f"computes in {expected}" in said and f"{speedup} times as fast" in said and str(half) in said
    for dtype in ("float32", torch.bfloat16):
        assert describe(load_model(half, dtype=dtype)).dtype == str(dtype).removeprefix("torch.")


def test_weights_in_float32_and_the_bundled_model_stay_in_float32(folder_of, monkeypatch, caplog):
    monkeypatch.setattr(precision, "cpu_speedup", lambda: 100.0)
    with caplog.at_level(logging.INFO, logger="arm_lens"):
        assert describe(load_model(folder_of("llama"))).dtype == "float32"
        assert describe(load_model()).dtype == "float32"
    assert not [record for record in caplog.records if record.name == "arm_lens"]


def test_the_speed_is_measured_once_and_quickly():
    precision.cpu_speedup.cache_clear()
    first = precision.cpu_speedup()
    assert 0 < first < 1000 and precision.cpu_speedup() == first
    assert precision.cpu_speedup.cache_info().misses == 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_what_is_not_a_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be 'auto'"):
        load_model(dtype=dtype)


def test_a_saved_reward_model_is_loaded_in_its_own_dtype_on_every_machine(half, tmp_path, monkeypatch):
    examples = [LabelledResponse("", f"the {word} garden", label=word == "warm") for word in ("warm", "cold") * 2]
    examples = [LabelledResponse(one.prompt, f"{one.response} {n}", label=one.label) for n, one in enumerate(examples)]
    monkeypatch.setattr(precision, "cpu_speedup", lambda: 4.0)
    fitted = ActivationRewardModel.fit(
        load_model(half), examples, selector=HeadSet.of(3, 4, [(1, 2)]), criterion="warm",
        reading=ReadingOptions(demonstrations=1, readings=2),
    )  # fmt: skip
    fitted.save(tmp_path / "saved")
    expected = fitted.score(["", ""], ["the warm garden", "a cold day"])
    monkeypatch.setattr(precision, "cpu_speedup", lambda: 1.0)  # another machine
    by_name = Loading().reward_model(tmp_path / "saved", str(half))
    for loaded in (ActivationRewardModel.load(tmp_path / "saved"), by_name):
        assert loaded.info.dtype == "bfloat16"
        assert torch.equal(loaded.score(["", ""], ["the warm garden", "a cold day"]), expected)
    with pytest.raises(WrongModelError, match="load it with dtype='bfloat16'"):
        ActivationRewardModel.load(tmp_path / "saved", load_model(half))


# ------------------------------------------------------------------------------------------ large models


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"device": "cpu", "device_map": {"": "cpu"}}, "contradict"),
        ({"device_map": "everywhere"}, "not one of auto, balanced"),
        ({"device_map": {"": "disk"}}, "offloads nothing"),
        ({"device_map": {"model": "cuda:99"}}, "CUDA devices"),
        ({"device_map": {"model": "the moon"}}, "not a device"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_argument(folder_of, options, what):
    with pytest.raises(ValueError, match=what):
        load_model(folder_of("llama"), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_without_gpus_a_model_is_not_spread_over_them(folder_of):
    with pytest.raises(ValueError, match="torch finds none here"):
        load_model(folder_of("llama"), device_map="auto")


def test_without_bitsandbytes_it_is_named_and_not_installed(folder_of, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        load_model(folder_of("llama"), quantization_config=BitsAndBytesConfig(load_in_8bit=True))


@pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_a_hooked_transformer_is_neither_spread_nor_quantised(folder_of):
    with pytest.raises(ValueError, match="takes neither"):
        load_model(folder_of("llama"), model_class="HookedTransformer", device_map={"": "cpu"})


def test_a_device_map_is_used(folder_of):
    placed = load_model(folder_of("llama"), device_map={"": "cpu"})
    plain = load_model(folder_of("llama"), device="cpu")
    assert torch.equal(last_logits(placed, pad(ROWS)), last_logits(plain, pad(ROWS)))


def test_a_config_without_a_dtype_means_float32(folder_of, tmp_path):
    for file in folder_of("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert transformers.AutoConfig.from_pretrained(tmp_path).dtype is None
    assert describe(load_model(tmp_path)).dtype == "float32"


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "nowhere/", "a/b/c"])
def test_a_folder_that_does_not_exist_is_said_to_be_none(name):
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such folder, and not a hub name"):
        load_model(name)
