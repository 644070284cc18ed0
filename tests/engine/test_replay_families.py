"""The replay on random models of many shapes, against one plain full pass for every prompt and mask.

The reference reads one prompt at a time, unpadded, under one mask at a time, and shares no code with the replay but the
hooks of `steer`; or it is the raw Hugging Face model, which knows neither arm_lens nor TransformerLens.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from arm_lens import Injection, load_model, steer
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad, read_batch
from arm_lens.engine.hooked import HookedTransformer
from arm_lens.engine.identity import ModelMismatchError
from arm_lens.engine.replay import SlowReplayWarning

pytestmark = [
    pytest.mark.tl4,
    pytest.mark.slow,
    # of the Gemma 2 that is made here, of which nothing is on disk
    pytest.mark.filterwarnings("ignore::arm_lens.engine.UncheckedModelWarning"),
]

# The largest deviation allowed, in standard deviations of the reference. Both sides compute the same sums in the same
# dtype, cut into passes differently: 1680 random cases each were off by at most 4e-6 in float32 and 0.023 in bfloat16
# (three roundings of a logit of two standard deviations).
TOLERANCE = {torch.float32: 6e-5, torch.bfloat16: 0.05}
VOCABULARY = 64
CONTEXT = 40
VERDICTS = VerdictTokens((5,), (6, 7))
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
OUTPUT_PROJECTION = {  # of the raw Hugging Face models; where none is given, as in Llama
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gptj": "transformer.h.{}.attn.out_proj",
    "gpt_neo": "transformer.h.{}.attn.attention.out_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
}

# ------------------------------------------------------------------------------------------------------ random models

windows = st.integers(3, 7)
depths = st.integers(2, 4)


@st.composite
def llama_like(draw, head_dims=(6, 8, 12)):
    """What the configs of Llama's relatives share; all but Qwen2 take a head_dim other than d_model / n_heads."""
    n_heads, n_key_value_heads = draw(st.sampled_from([(4, 4), (4, 2), (6, 3), (4, 1)]))
    return {
        **TOKENS,
        **({"head_dim": draw(st.sampled_from(head_dims))} if head_dims else {}),
        "hidden_size": 8 * n_heads,
        "intermediate_size": draw(st.sampled_from([24, 56])),
        "num_hidden_layers": draw(depths),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_key_value_heads,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw(st.sampled_from([100.0, 10000.0]))},
    }


@st.composite
def gpt_like(draw):
    n_heads = draw(st.sampled_from([2, 4, 5]))
    return {
        **TOKENS,
        "n_embd": n_heads * draw(st.sampled_from([8, 16])),
        "n_layer": draw(depths),
        "n_head": n_heads,
        "n_positions": CONTEXT,
    }


@st.composite
def gpt_neox(draw):
    n_heads = draw(st.sampled_from([2, 4, 5]))
    return transformers.GPTNeoXConfig(
        **TOKENS,
        hidden_size=n_heads * draw(st.sampled_from([8, 16])),
        intermediate_size=draw(st.sampled_from([24, 56])),
        num_hidden_layers=draw(depths),
        num_attention_heads=n_heads,
        max_position_embeddings=CONTEXT,
        rotary_pct=draw(st.sampled_from([0.25, 0.5, 1.0])),
        use_parallel_residual=draw(st.booleans()),
        tie_word_embeddings=False,
    )


@st.composite
def gpt_neo(draw):
    width, pairs = draw(st.sampled_from([32, 64])), draw(st.integers(1, 2))
    return transformers.GPTNeoConfig(
        **TOKENS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_layers=2 * pairs,
        num_heads=draw(st.sampled_from([2, 4])),
        attention_types=[[["global", "local"], pairs]],
        window_size=draw(windows),
        max_position_embeddings=CONTEXT,
    )


@st.composite
def gptj(draw):
    rotary = draw(st.sampled_from([2, 4, 8]))
    return transformers.GPTJConfig(**draw(gpt_like()), rotary_dim=rotary, tie_word_embeddings=False)


@st.composite
def qwen2_sliding(draw):
    shape = draw(llama_like(head_dims=None))
    first = draw(st.integers(0, shape["num_hidden_layers"] - 1))  # the layers before it do not slide
    return transformers.Qwen2Config(
        **shape, use_sliding_window=True, sliding_window=draw(windows), max_window_layers=first
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
        query_pre_attn_scalar=shape["head_dim"],  # a HookedTransformer knows no other
    )


CONFIGS = {
    "gpt2": gpt_like().map(lambda shape: transformers.GPT2Config(**shape)),
    "gptj": gptj(),
    "gpt_neo": gpt_neo(),
    "gpt_neox": gpt_neox(),
    "llama": llama_like().map(lambda shape: transformers.LlamaConfig(**shape)),
    "qwen2": llama_like(head_dims=None).map(lambda shape: transformers.Qwen2Config(**shape)),
    "qwen2_sliding": qwen2_sliding(),
    "mistral": mistral(),
    "gemma2": gemma2(),
}


def random_model(config, seed):
    """A Hugging Face model; the same one for the same seed."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # large enough for attention to be far from uniform; biases too
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def load(config, seed, tokenizer, model_class="TransformerBridge", dtype=torch.float32):
    """The same model in one of TransformerLens' classes."""
    if (config.model_type, model_class) == ("gemma2", "HookedTransformer"):
        return hooked_gemma2(config, seed, tokenizer, dtype)
    with tempfile.TemporaryDirectory() as folder:
        random_model(config, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return load_model(folder, model_class=model_class, dtype=dtype, tokenizer=copy.deepcopy(tokenizer))


def hooked_gemma2(config, seed, tokenizer, dtype):
    """As load_model makes a HookedTransformer. It cannot: TransformerLens knows Gemma 2's config by hub names only."""
    convert = import_module("transformer_lens.pretrained.weight_conversions").convert_gemma_weights
    cfg = import_module("transformer_lens").HookedTransformerConfig(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_ctx=CONTEXT,
        d_head=config.head_dim,
        n_heads=config.num_attention_heads,
        n_key_value_heads=config.num_key_value_heads,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
        act_fn="gelu_pytorch_tanh",
        eps=config.rms_norm_eps,
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        use_normalization_before_and_after=True,
        positional_embedding_type="rotary",
        rotary_dim=config.head_dim,
        rotary_base=config.rope_parameters["rope_theta"],
        use_attn_scale=True,
        window_size=config.sliding_window,
        use_local_attn=True,
        attn_types=["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
        attn_scores_soft_cap=config.attn_logit_softcapping or -1.0,
        output_logits_soft_cap=config.final_logit_softcapping or -1.0,
        original_architecture="Gemma2ForCausalLM",
        model_name="random-gemma-2",
        dtype=dtype,
        device="cpu",
    )
    state = convert(random_model(config, seed).to(dtype), cfg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer=copy.deepcopy(tokenizer))
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


# ----------------------------------------------------------------------------------------------------- random prompts


@dataclass(frozen=True)
class Case:
    """Prompts, and how they are replayed."""

    sequences: list[list[int]]
    masks: int
    batch_size: int
    injection: Injection
    seed: int

    def masks_and_values(self, cfg):
        """Random masks, two of which are each other's complement, and large values."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (cfg.n_layers, cfg.n_heads)
        masks = torch.rand(self.masks, *shape, generator=generator) < 0.5
        masks[1] = ~masks[0]
        return masks, 3 * torch.randn(*shape, cfg.d_head, generator=generator)


@st.composite
def cases(draw):
    """Prompts of 2 tokens up to the whole context, at least one beyond every window, some with a common beginning."""
    seed = draw(st.integers(0, 2**31))
    common = draw(st.sampled_from([0, 0, 9, 20]))
    lengths = draw(st.lists(st.integers(max(2, common + 1), CONTEXT), min_size=0, max_size=4))
    lengths.append(draw(st.integers(max(12, common + 1), CONTEXT)))
    tokens = torch.randint(0, VOCABULARY, (len(lengths), CONTEXT), generator=torch.Generator().manual_seed(seed))
    tokens[1:, :common] = tokens[0, :common]
    order = draw(st.permutations(lengths))
    return Case(
        [row[:length] for row, length in zip(tokens.tolist(), order, strict=True)],
        masks=draw(st.integers(2, 5)),
        batch_size=draw(st.sampled_from([1, 2, 3, 32])),
        injection=Injection(
            mode=draw(st.sampled_from(["replace", "add"])), strength=draw(st.sampled_from([1.0, 0.6, -1.0]))
        ),
        seed=seed,
    )


# Left out: Qwen2's windows on a HookedTransformer, which reads those models as if they had none; and GPT-Neo on a bridge,
# where Hugging Face counts windows in slots, padding included (see test_replay.py and test_prefixes.py).
MODELS = [(family, "TransformerBridge") for family in CONFIGS if family != "gpt_neo"]
if HookedTransformer is not None:
    MODELS += [(family, "HookedTransformer") for family in CONFIGS if family != "qwen2_sliding"]
every_model = pytest.mark.parametrize(("family", "model_class"), MODELS)


def examples(count):
    """So few, as each builds a model; every run draws others."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_close(found, expected, dtype):
    assert found.shape == expected.shape
    off = float((found - expected).abs().max() / expected.std())
    assert off <= TOLERANCE[dtype], f"off by {off:.2g} standard deviations"


def assert_masks_matter(logits, dtype):
    """The largest effect of a mask on a logit is beyond what is tolerated."""
    effect = (logits.amax(dim=1) - logits.amin(dim=1)).amax() / logits.std()
    assert effect > 3 * TOLERANCE[dtype]


@every_model
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@given(data=st.data())
@examples(2)
def test_the_replay_gives_what_one_plain_pass_per_prompt_and_mask_gives(tokenizer, family, model_class, dtype, data):
    config, case = data.draw(CONFIGS[family]), data.draw(cases())
    try:
        model = load(config, case.seed, tokenizer, model_class, dtype)
    except ModelMismatchError:
        assert dtype != torch.float32
        reject()  # of random weights the rounding alone may be larger than that of any model that was trained
    masks, values = case.masks_and_values(model.cfg)
    batches = [pad([sequence]) for sequence in case.sequences]
    logits = torch.empty(len(batches), len(masks), VOCABULARY)
    for number, mask in enumerate(masks):
        with steer(model, mask, values, injection=case.injection):
            logits[:, number] = torch.cat([last_logits(model, batch) for batch in batches]).float()
    with steer(model, masks[-1], values, injection=case.injection):
        heads = torch.cat([read_batch(model, batch) for batch in batches]).float()
    assert_masks_matter(logits, dtype)
    sides = torch.stack([logits[..., 5], logits[..., 6:8].logsumexp(dim=-1)], dim=-1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        replay = Replay(model, case.sequences, VERDICTS, injection=case.injection, batch_size=case.batch_size)
        assert_close(replay.logits(masks, values), logits, dtype)
        assert_close(replay.verdict_logits(masks, values), sides, dtype)
        assert_close(replay.log_probs(masks, values), sides - logits.logsumexp(dim=-1, keepdim=True), dtype)
        assert_close(replay.hook_z(masks, values)[:, -1], heads, dtype)
    assert replay.exact


@every_model
@given(data=st.data())
@examples(2)
def test_the_replay_gives_what_raw_hugging_face_models_with_overwritten_heads_give(
    tokenizer, family, model_class, data
):
    config, case = data.draw(CONFIGS[family]), data.draw(cases())
    model = load(config, case.seed, tokenizer, model_class)
    masks, values = case.masks_and_values(model.cfg)
    replay = Replay(model, case.sequences, VERDICTS, injection=case.injection, batch_size=case.batch_size)
    found = replay.logits(masks, values)

    raw, name = random_model(config, case.seed), OUTPUT_PROJECTION.get(family, "model.layers.{}.self_attn.o_proj")
    current = {}

    def overwrite(layer):
        def before(_, inputs):
            z = inputs[0].clone()
            heads = z[0, -1].view(model.cfg.n_heads, model.cfg.d_head)
            for head in current["mask"][layer].nonzero()[:, 0]:
                left = 1.0 if case.injection.mode == "add" else 1.0 - case.injection.strength
                heads[head] = left * heads[head] + case.injection.strength * values[layer, head]
            return z

        return before

    for layer in range(model.cfg.n_layers):
        raw.get_submodule(name.format(layer)).register_forward_pre_hook(overwrite(layer))
    expected = torch.empty_like(found)
    with torch.no_grad():
        for number, current["mask"] in enumerate(masks):
            for row, sequence in enumerate(case.sequences):
                expected[row, number] = raw(torch.tensor([sequence])).logits[0, -1]
    assert_masks_matter(expected, torch.float32)
    assert_close(found, expected, torch.float32)


@every_model
@given(data=st.data())
@examples(2)
def test_reading_on_after_a_common_beginning_gives_what_reading_whole_prompts_gives(
    tokenizer, family, model_class, data
):
    config, case = data.draw(CONFIGS[family]), data.draw(cases())
    model = load(config, case.seed, tokenizer, model_class)
    masks, values = case.masks_and_values(model.cfg)
    shared = data.draw(st.integers(2, CONTEXT // 2))
    first = data.draw(st.integers(1, shared - 1))
    beginning = (case.sequences[0] * CONTEXT)[:shared]
    rests = [sequence[: CONTEXT - shared] for sequence in case.sequences]
    with steer(model, masks[0], values, injection=case.injection):
        reader = language_model(model)
        past = [reader.prefill(pad([beginning[:first]]))]
        past.append(reader.prefill(pad([beginning[first:]]), past))
        found = reader.last_logits_after(past, pad(rests))
        expected = torch.cat([last_logits(model, pad([beginning + rest])) for rest in rests])
    assert_close(found, expected, torch.float32)
