"""The replay on random models of many shapes, against one plain full pass for every prompt and mask.

The reference reads one prompt at a time, unpadded, under one mask at a time, and shares no code with the replay but the
hooks of `steer`; or it is the raw Hugging Face model, without arm_lens and TransformerLens altogether.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arm_lens import Injection, Replay, VerdictTokens, last_logits, load_model, pad, read_batch, steer
from arm_lens.replay import SlowReplayWarning

# How far the largest deviation may be off, as a share of the reference's standard deviation. Both sides are computed in
# the same dtype and differ in the order of their sums alone.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
VOCABULARY = 64
CONTEXT = 40
VERDICTS = VerdictTokens((5,), (6, 7))
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA_LIKE = "model.layers.{}.self_attn.o_proj"
OUTPUT_PROJECTION = {
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gptj": "transformer.h.{}.attn.out_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
}

windows = st.integers(3, 7)
layers = st.integers(2, 4)
head_counts = st.sampled_from([(4, 4), (4, 2), (6, 3), (4, 1)])  # heads, and keys' and values' heads


@st.composite
def llama_like(draw, head_dims=(6, 8, 12)):
    n_heads, n_key_value_heads = draw(head_counts)
    rope = {"rope_type": "default", "rope_theta": draw(st.sampled_from([100.0, 10000.0]))}
    head_dim = {} if head_dims is None else {"head_dim": draw(st.sampled_from(head_dims))}
    return (
        TOKENS
        | head_dim
        | {
            "hidden_size": 8 * n_heads,
            "intermediate_size": draw(st.sampled_from([24, 56])),
            "num_hidden_layers": draw(layers),
            "num_attention_heads": n_heads,
            "num_key_value_heads": n_key_value_heads,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": draw(st.booleans()),
            "rope_parameters": rope,
        }
    )


@st.composite
def gpt_like(draw):
    n_heads, d_head = draw(st.sampled_from([2, 4, 5])), draw(st.sampled_from([8, 16]))
    return TOKENS | {
        "n_embd": n_heads * d_head,
        "n_layer": draw(layers),
        "n_head": n_heads,
        "n_positions": CONTEXT,
    }


@st.composite
def gpt2(draw):
    return transformers.GPT2Config(**draw(gpt_like()))


@st.composite
def gptj(draw):
    return transformers.GPTJConfig(
        **draw(gpt_like()), rotary_dim=draw(st.sampled_from([2, 4, 8])), tie_word_embeddings=False
    )


@st.composite
def gpt_neox(draw):
    n_heads, d_head = draw(st.sampled_from([2, 4, 5])), draw(st.sampled_from([8, 16]))
    return transformers.GPTNeoXConfig(
        **TOKENS,
        hidden_size=n_heads * d_head,
        intermediate_size=draw(st.sampled_from([24, 56])),
        num_hidden_layers=draw(layers),
        num_attention_heads=n_heads,
        max_position_embeddings=CONTEXT,
        rotary_pct=draw(st.sampled_from([0.25, 0.5, 1.0])),
        use_parallel_residual=draw(st.booleans()),
        tie_word_embeddings=False,
    )


@st.composite
def llama(draw):
    return transformers.LlamaConfig(**draw(llama_like()))


@st.composite
def qwen2(draw):
    return transformers.Qwen2Config(**draw(llama_like(head_dims=None)))


@st.composite
def qwen2_sliding(draw):
    shape = draw(llama_like(head_dims=None))
    return transformers.Qwen2Config(
        **shape,
        use_sliding_window=True,
        sliding_window=draw(windows),
        max_window_layers=draw(st.integers(0, shape["num_hidden_layers"] - 1)),  # those before it do not slide
    )


@st.composite
def mistral(draw):
    return transformers.MistralConfig(**draw(llama_like()), sliding_window=draw(windows))


@st.composite
def gemma2(draw):
    shape = draw(llama_like())
    return transformers.Gemma2Config(
        **shape,
        sliding_window=draw(windows),  # every other layer slides
        attn_logit_softcapping=draw(st.sampled_from([None, 1.5])),
        final_logit_softcapping=draw(st.sampled_from([None, 2.0])),
        query_pre_attn_scalar=draw(st.sampled_from([8, 24])),
    )


FAMILIES = {
    "gpt2": gpt2(),
    "gptj": gptj(),
    "gpt_neox": gpt_neox(),
    "llama": llama(),
    "qwen2": qwen2(),
    "qwen2_sliding": qwen2_sliding(),
    "mistral": mistral(),
    "gemma2": gemma2(),
}


@dataclass(frozen=True)
class Prompts:
    """Prompts and how they are replayed."""

    sequences: list[list[int]]
    masks: int
    batch_size: int
    injection: Injection
    seed: int


@st.composite
def prompts(draw):
    """Ragged prompts, some beyond every window, some as long as the context; with or without a long common beginning."""
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    common = draw(st.sampled_from([0, 0, 9, 20]))
    lengths = draw(st.lists(st.integers(max(2, common + 1), CONTEXT), min_size=1, max_size=4))
    lengths += [draw(st.sampled_from([16, 27, CONTEXT])) if common < 16 else CONTEXT]
    sequences = torch.randint(3, VOCABULARY, (len(lengths), CONTEXT), generator=generator)
    sequences[:, :common] = sequences[0, :common]
    return Prompts(
        [row[:length] for row, length in zip(sequences.tolist(), draw(st.permutations(lengths)), strict=True)],
        masks=draw(st.integers(2, 5)),
        batch_size=draw(st.sampled_from([1, 2, 3, 32])),
        injection=draw(
            st.sampled_from([Injection(), Injection(strength=0.6), Injection(mode="add"), Injection(mode="add", strength=-0.5)])
        ),
        seed=seed,
    )


def made(config, seed):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # large enough for attention to be far from uniform, and biases too
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def loaded(config, seed, tokenizer, model_class, dtype):
    with tempfile.TemporaryDirectory() as folder:
        made(config, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return load_model(folder, model_class=model_class, dtype=dtype, tokenizer=copy.deepcopy(tokenizer))


def masks_and_values(model, given):
    generator = torch.Generator().manual_seed(given.seed)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    masks = torch.rand(given.masks, *shape, generator=generator) < 0.5
    return masks, 2 * torch.randn(*shape, model.cfg.d_head, generator=generator)


def assert_close(found, expected, dtype):
    spread = float(expected.std())
    off = float((found - expected).abs().max())
    STATS.append((dtype, off / spread, float((expected.amax(1) - expected.amin(1)).amax()) / spread))
    assert off <= TOLERANCE[dtype] * spread, f"off by {off / spread:.2g} standard deviations"
STATS = []
import atexit
@atexit.register
def show():
    for d in TOLERANCE:
        s = [x for x in STATS if x[0] == d]
        if s:
            print(d, len(s), sorted(x[1] for x in s)[-8:], sorted(x[2] for x in s)[:8])

every_family = pytest.mark.parametrize("model_family", FAMILIES)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
some = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@every_family
@every_dtype
@given(data=st.data())
@some
def test_the_replay_gives_what_one_plain_pass_per_prompt_and_mask_gives(
    tokenizer, model_class, model_family, dtype, data
):
    if (model_family, model_class) in (("qwen2_sliding", "HookedTransformer"), ("gemma2","HookedTransformer")):
        return
    config, given = data.draw(FAMILIES[model_family]), data.draw(prompts())
    model = loaded(config, given.seed, tokenizer, model_class, dtype)
    masks, values = masks_and_values(model, given)
    logits, heads = [], []
    for mask in masks:
        with steer(model, mask, values, injection=given.injection):
            logits.append(torch.cat([last_logits(model, pad([one])) for one in given.sequences]))
            heads.append(torch.cat([read_batch(model, pad([one])) for one in given.sequences]))
    logits, heads = torch.stack(logits, dim=1).float(), torch.stack(heads, dim=1).float()

    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        replay = Replay(model, given.sequences, VERDICTS, injection=given.injection, batch_size=given.batch_size)
        assert_close(replay.logits(masks, values), logits, dtype)
        assert_close(replay.hook_z(masks, values), heads, dtype)
        sides = torch.stack([logits[..., 5], logits[..., 6:8].logsumexp(dim=-1)], dim=-1)
        assert_close(replay.verdict_logits(masks, values), sides, dtype)
        log_probs = sides - logits.logsumexp(dim=-1, keepdim=True)
        assert_close(replay.log_probs(masks, values), log_probs, dtype)
    assert replay.exact
