"""Direct logit attribution against the weights of raw Hugging Face modules, by hand, and heads of known effect."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
import transformers
from planted_circuit import DIRECT, HINDRANCE, planted_circuit
from scipy.special import expit
from tests_support import no_graph_left
from transformers.pytorch_utils import Conv1D

from arm_lens import HeadSet, load_model, steer
from arm_lens.attribution.direct import direct_contributions, direct_logit_attribution
from arm_lens.engine import Replay, VerdictTokens, last_logits, pad, read_batch
from arm_lens.selection import JudgingObjective

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
TOKENS = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


class Parts(NamedTuple):
    """Where a Hugging Face model keeps what the direct path goes through."""

    layer: str
    projection: str
    final_norm: str
    embeddings: tuple[str, ...]
    after_attention: str | None = None
    """A norm between the output projection and the residual stream."""
    writes_last: str = "mlp"
    """What else a layer writes to the stream."""


LLAMA = Parts("model.layers.{}", "self_attn.o_proj", "model.norm", ("model.embed_tokens",))
SANDWICH = LLAMA._replace(after_attention="post_attention_layernorm", writes_last="post_feedforward_layernorm")
PARTS = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gpt2": Parts("transformer.h.{}", "attn.c_proj", "transformer.ln_f", ("transformer.wte", "transformer.wpe")),
    "gpt_neox": Parts("gpt_neox.layers.{}", "attention.dense", "gpt_neox.final_layer_norm", ("gpt_neox.embed_in",)),
    "bloom": Parts(
        "transformer.h.{}", "self_attention.dense", "transformer.ln_f", ("transformer.word_embeddings_layernorm",),
        writes_last="mlp.dense_4h_to_h",
    ),
    "odd gpt2": Parts("transformer.h.{}", "attn.c_proj", "transformer.ln_f", ("transformer.wte", "transformer.wpe")),
    "gemma2": SANDWICH,
    "olmo2": SANDWICH,
}  # fmt: skip
OTHERS = {
    "bloom": transformers.BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=4),
    "odd gpt2": transformers.GPT2Config(**TOKENS, n_embd=15, n_layer=3, n_head=3),
    "gemma2": transformers.Gemma2Config(
        **TOKENS, **SMALL, num_key_value_heads=2, head_dim=12, query_pre_attn_scalar=12, final_logit_softcapping=2.0
    ),
    "olmo2": transformers.Olmo2Config(**TOKENS, **SMALL, num_key_value_heads=2),
}


def loaded(folder):
    """The Hugging Face model in float64, without TransformerLens."""
    auto = transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def raw_of(folder_of):
    models = {}

    def load(family):
        if family not in models:
            models[family] = loaded(folder_of(family))
        return models[family]

    return load


class ByHand(NamedTuple):
    """Of each prompt."""

    heads: torch.Tensor
    others: torch.Tensor
    """What embeddings, MLPs and biases contribute, together."""
    gaps: torch.Tensor


def by_hand(model, parts, verdicts=VERDICTS):
    """From weights (output projection, the norm behind it, final norm, unembedding rows); a pass per unpadded prompt."""
    n_layers, n_heads = model.config.num_hidden_layers, model.config.num_attention_heads
    layers = [parts.layer.format(layer) for layer in range(n_layers)]
    entering, leaving, handles = {}, {}, []

    def watch(name):
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda _, given: entering.update({name: given[0][0, -1]})))
        handles.append(module.register_forward_hook(lambda _, __, made: leaving.update({name: made[0, -1]})))
        return module

    projections = [watch(f"{layer}.{parts.projection}") for layer in layers]
    norms = [watch(f"{layer}.{parts.after_attention}") for layer in layers] if parts.after_attention else []
    final = watch(parts.final_norm)
    for name in (*parts.embeddings, *(f"{layer}.{parts.writes_last}" for layer in layers)):
        watch(name)

    def through(norm, x, at):
        """A norm's linear map, with the scale that it has at ``at``."""
        if isinstance(norm, torch.nn.LayerNorm):
            x, at = x - x.mean(dim=-1, keepdim=True), at - at.mean(dim=-1, keepdim=True)
        eps = next(getattr(norm, key) for key in ("eps", "variance_epsilon") if hasattr(norm, key))
        weight = 1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
        return weight * x / (at.square().mean(dim=-1, keepdim=True) + eps).sqrt()

    heads, others, gaps = [], [], []
    for sequence in SEQUENCES:
        logits = model(torch.tensor([sequence])).logits[0, -1]
        positive, negative = logits[list(verdicts.positive)], logits[list(verdicts.negative)]
        gaps.append(positive.logsumexp(dim=0) - negative.logsumexp(dim=0))
        slopes = torch.zeros_like(logits)
        slopes[list(verdicts.positive)] = positive.softmax(dim=0)
        slopes[list(verdicts.negative)] = -negative.softmax(dim=0)
        if cap := getattr(model.config, "final_logit_softcapping", None):
            slopes = slopes * (1 - (logits / cap) ** 2)
        read = slopes @ model.get_output_embeddings().weight
        stream, each = entering[parts.final_norm], []
        rest = sum(leaving[name] for name in (*parts.embeddings, *(f"{layer}.{parts.writes_last}" for layer in layers)))
        for number, (layer, projection) in enumerate(zip(layers, projections, strict=True)):
            weight = projection.weight if isinstance(projection, Conv1D) else projection.weight.T
            z = entering[f"{layer}.{parts.projection}"].unflatten(-1, (n_heads, -1))
            written = torch.einsum("hd,hdm->hm", z, weight.unflatten(0, (n_heads, -1)))
            if norms:
                written = through(norms[number], written, entering[f"{layer}.{parts.after_attention}"])
            each.append(through(final, written, stream) @ read)
            rest = rest + (0 if projection.bias is None else projection.bias)
        heads.append(torch.stack(each))
        bias = getattr(final, "bias", None)
        others.append((through(final, rest, stream) + (0 if bias is None else bias)) @ read)
        if (of_logits := model.get_output_embeddings().bias) is not None:
            others[-1] = others[-1] + slopes @ of_logits
    for handle in handles:
        handle.remove()
    return ByHand(torch.stack(heads), torch.stack(others), torch.stack(gaps))


# ------------------------------------------------------------------------------------------ against weights


def test_contributions_are_those_of_the_weights_by_hand(model_of, raw_of, family, model_class):
    expected = by_hand(raw_of(family), PARTS[family])
    model = model_of(family, model_class)
    found, gaps = direct_contributions(model, SEQUENCES, VERDICTS, batch_size=3)
    assert (expected.heads.abs() > 1e-2).sum() >= 24
    torch.testing.assert_close(found.double(), expected.heads, **CLOSE)
    torch.testing.assert_close(gaps.double(), expected.gaps, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("model_family", list(OTHERS))
def test_norms_behind_the_attention_softcaps_parts_that_add_the_stream_and_odd_widths_are_told_right(
    fresh, tmp_path, model_family
):
    model = fresh(OTHERS[model_family])
    expected = by_hand(loaded(tmp_path), PARTS[model_family])
    found, gaps = direct_contributions(model, SEQUENCES, VERDICTS)
    assert (expected.heads.abs() > 1e-3).sum() >= 18
    torch.testing.assert_close(found.double(), expected.heads, **CLOSE)
    torch.testing.assert_close(gaps.double(), expected.gaps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "gpt_neox", "bloom", "olmo2"])
def test_heads_and_everything_else_add_up_to_the_gap(model_of, fresh, raw_of, tmp_path, model_family):
    """With one spelling a verdict and no softcap, where the gap is linear in the logits."""
    model = fresh(OTHERS[model_family]) if model_family in OTHERS else model_of(model_family)
    raw = loaded(tmp_path) if model_family in OTHERS else raw_of(model_family)
    single = VerdictTokens((5,), (6,))
    found, gaps = direct_contributions(model, SEQUENCES, single)
    others = by_hand(raw, PARTS[model_family], single).others
    assert others.abs().max() > 1e-2
    torch.testing.assert_close(found.double().sum(dim=(1, 2)) + others, gaps.double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_family", ["llama", "gpt2"])
def test_folded_norms_and_centred_weights_give_the_same(model_of, raw_of, model_family, model_class):
    model = copy.deepcopy(model_of(model_family, model_class))
    options = {"fold_ln": True, "center_writing_weights": model_family == "gpt2", "center_unembed": True}
    if model_class == "HookedTransformer":
        state = {name: weight.clone() for name, weight in model.state_dict().items()}
        model.load_and_process_state_dict(state, fold_value_biases=False, **options)
    else:
        model.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False, **options)
    found, gaps = direct_contributions(model, SEQUENCES, VERDICTS)
    expected = by_hand(raw_of(model_family), PARTS[model_family])
    torch.testing.assert_close(found.double(), expected.heads, **CLOSE)
    torch.testing.assert_close(gaps.double(), expected.gaps, atol=1e-4, rtol=0)


def test_in_half_precision_contributions_are_nearly_those_of_the_weights(folder_of, raw_of, tokenizer):
    model = load_model(folder_of("llama"), dtype=torch.bfloat16, tokenizer=copy.deepcopy(tokenizer))
    found, gaps = direct_contributions(model, SEQUENCES, VERDICTS)
    expected = by_hand(raw_of("llama"), PARTS["llama"])
    assert found.dtype == gaps.dtype == torch.float32
    off = (found.double() - expected.heads).abs().max()
    assert off < 0.05 * expected.heads.abs().max()


# ------------------------------------------------------------------------------------------ what it says


def test_the_outcomes_are_what_the_margin_loses(model_of, raw_of):
    model, raw = model_of("llama"), raw_of("llama")
    logits = raw(torch.tensor(SEQUENCES[:1])).logits[0, -1]
    rival = int((logits - logits[5]).abs().argsort()[1])  # so close that a head decides
    verdicts = VerdictTokens((5,), (rival,))
    objective = JudgingObjective(
        Replay(model, SEQUENCES, verdicts), torch.zeros(3, 4, 12), LABELS, clusters=[0, 0, 1, 2]
    )
    found = direct_logit_attribution(objective, criterion="warmth")
    by_weights = by_hand(raw, PARTS["llama"], verdicts)
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    given = sign[:, None, None] * by_weights.heads
    margin = (sign * by_weights.gaps)[:, None, None].expand_as(given)
    turned = (margin > 0).double() - (margin - given > 0).double()
    assert turned.abs().max() == 1
    probability = torch.from_numpy(expit(margin.numpy()) - expit((margin - given).numpy()))
    for outcome, expected in {"gap": given, "probability": probability, "accuracy": turned}.items():
        torch.testing.assert_close(found.values[outcome], expected.mean(dim=0), **CLOSE)
    assert (found.measure, found.criterion, found.n, found.n_clusters) == ("direct", "warmth", 4, 3)


def test_only_what_planted_heads_write_to_the_verdict_themselves_is_counted(tokenizer, tmp_path_factory):
    circuit = planted_circuit(tokenizer, tmp_path_factory)
    found = direct_logit_attribution(circuit.objective())
    for name, head in circuit.head.items():
        # The reader acts through an MLP; the leaning helps as often as it hurts; the others write nothing unsteered.
        expected = {"direct": DIRECT, "hindering": HINDRANCE}.get(name, 0.0)
        assert float(found.values["gap"][head]) == pytest.approx(expected, abs=0.01), name
        for outcome in ("probability", "accuracy"):
            assert float(found.values[outcome][head]) * expected >= -1e-6, name


def test_what_is_written_while_steering_is_what_is_attributed(model_of, model_class):
    """With another z at the last layer the contribution is linear in it, but for the final norm's scale."""
    model = model_of("llama", model_class)
    z, values = read_batch(model, pad(SEQUENCES[:1]))[0], torch.zeros(3, 4, 12)
    plain, _ = direct_contributions(model, SEQUENCES[:1], VERDICTS)
    with steer(model, HeadSet.of(3, 4, [(2, 1)]), values):
        silent, _ = direct_contributions(model, SEQUENCES[:1], VERDICTS)
    with steer(model, HeadSet.of(3, 4, [(2, 1)]), z.clone()):
        same, _ = direct_contributions(model, SEQUENCES[:1], VERDICTS)
    assert silent[0, 2, 1] == 0 and plain[0, 2, 1].abs() > 1e-3
    torch.testing.assert_close(same, plain, atol=1e-5, rtol=1e-4)


def test_how_prompts_are_batched_does_not_matter(model_of, model_class):
    model = model_of("gpt2", model_class)
    first, *others = (direct_contributions(model, SEQUENCES, VERDICTS, batch_size=size) for size in (4, 1, 3))
    for contributions, gaps in others:
        torch.testing.assert_close(contributions, first[0], **CLOSE)
        torch.testing.assert_close(gaps, first[1], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------ refusals, and what is left


def test_a_norm_of_an_unknown_kind_is_refused_by_name(model_of, monkeypatch):
    class TanhNorm(torch.nn.Module):
        def forward(self, x):
            return torch.tanh(x)

    model = model_of("llama")
    monkeypatch.setitem(model.original_model.model._modules, "norm", TanhNorm())
    with pytest.raises(ValueError, match="direct path cannot be followed: TanhNorm is neither"):
        direct_contributions(model, SEQUENCES, VERDICTS)


def test_there_must_be_a_prompt_and_a_model_of_transformer_lens(model_of):
    with pytest.raises(ValueError, match="no prompt"):
        direct_contributions(model_of("llama"), [], VERDICTS)
    with pytest.raises(TypeError, match="TransformerBridge"):
        direct_contributions(torch.nn.Linear(2, 2), SEQUENCES, VERDICTS)


def hooks_on(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_neither_gradient_nor_graph_nor_hook_is_left(model_of, model_class):
    model = model_of("gpt2", model_class)
    weights, plain, hooks = list(model.parameters()), last_logits(model, pad(SEQUENCES)), hooks_on(model)
    with no_graph_left(), torch.inference_mode():
        found, gaps = direct_contributions(model, SEQUENCES, VERDICTS)
    assert not (found.requires_grad or gaps.requires_grad)
    assert all(weight.grad is None and weight.requires_grad for weight in weights)
    with pytest.raises(IndexError):  # within the pass
        direct_contributions(model, [[1, 10**6]], VERDICTS)
    assert all(weight.requires_grad for weight in weights)
    assert hooks_on(model) == hooks
    assert torch.equal(last_logits(model, pad(SEQUENCES)), plain)
