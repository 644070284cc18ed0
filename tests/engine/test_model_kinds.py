"""Every kind of model that is accepted gives the same numbers, is left as it was, and is let go of."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import transformers
from conftest import HOOKED
from tests_support import OUTPUT_PROJECTION
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import HeadSet, load_model, steer
from arm_lens.attribution.direct import direct_contributions
from arm_lens.attribution.reading import attention_rows
from arm_lens.engine import (
    Replay,
    VerdictTokens,
    describe,
    fingerprint,
    language_model,
    last_logits,
    mean_heads,
    pad,
    read_batch,
)
from arm_lens.engine.kv_segments import NewTokens
from arm_lens.judge_model.tokenizer import build_tokenizer

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27]]
VERDICTS = VerdictTokens((5,), (6, 7))
KINDS = ["bridge", "hooked", "bare", "with its tokenizer", "adapter"]
FAMILIES = ["llama", "gpt2", "qwen3", "gpt_neox"]
every_family = pytest.mark.parametrize("model_family", FAMILIES)


@pytest.fixture
def plain(folder_of):
    """plain(family): a Hugging Face model as a user loads it."""

    def load(family="llama", **options):
        return AutoModelForCausalLM.from_pretrained(folder_of(family), **options)

    return load


@pytest.fixture
def of_kind(model_of, plain, tokenizer):
    """of_kind(kind, family): a model of one of `KINDS`."""

    def make(kind, family="llama"):
        if kind == "bridge":
            return model_of(family)
        if kind == "hooked":
            return model_of(family, "HookedTransformer") if HOOKED else pytest.skip("no HookedTransformer here")
        if kind == "bare":
            return plain(family)
        pair = (plain(family), tokenizer)
        return language_model(pair) if kind == "adapter" else pair

    return make


def logits_of(model, sequences=SEQUENCES):
    with torch.no_grad():
        return [model(torch.tensor([sequence])).logits[0] for sequence in sequences]


# ------------------------------------------------------------------------------------------ one meaning


@every_family
@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_give_the_logits_of_hugging_face(of_kind, plain, kind, model_family):
    model, expected = of_kind(kind, model_family), logits_of(plain(model_family))
    last = torch.stack([one[-1] for one in expected])
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES)), last, atol=1e-4, rtol=1e-4)
    everywhere = language_model(model).logits(pad(SEQUENCES, side="right"))
    for found, one in zip(everywhere, expected, strict=True):
        torch.testing.assert_close(found[: len(one)], one, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_logits_after_segments_are_those_of_whole_prompts_and_so_are_some_rows_of_them(of_kind, plain, kind):
    model = language_model(of_kind(kind))
    common, rests = [1, 9, 30, 41], [[52, 8], [77, 3, 4]]
    expected = torch.stack([one[-1] for one in logits_of(plain(), [common + rest for rest in rests])])
    past = [model.prefill(pad([common[:2]]))]
    past.append(model.prefill(pad([common[2:]]), past))
    torch.testing.assert_close(model.last_logits_after(past, pad(rests)), expected, atol=1e-4, rtol=1e-4)
    new, wanted = NewTokens.following(pad([[52]]), past), torch.tensor([5, 7])
    torch.testing.assert_close(model.extend(new, rows=wanted), model.extend(new)[..., wanted])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_of_itself_what_its_config_says(of_kind, plain, kind):
    model, config = language_model(of_kind(kind, "qwen3")), plain("qwen3").config
    assert (model.n_layers, model.n_heads, model.d_head) == (3, 4, config.head_dim)
    assert (model.n_key_value_heads, model.d_model, model.d_mlp) == (2, config.hidden_size, config.intermediate_size)
    assert (model.d_vocab, model.n_ctx) == (config.vocab_size, config.max_position_embeddings)
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert describe(model) == model.info and model.info.architecture == "Qwen3ForCausalLM"
    assert len(model.blocks) == 3 and [model.hook_z(layer) for layer in range(3)]
    assert str(describe(model).name) in repr(model)


@pytest.mark.slow
def test_a_wrapped_model_is_found_again_under_its_name(plain, tokenizer):
    model = plain()
    again = load_model(describe((model, tokenizer)).name)
    torch.testing.assert_close(fingerprint(again), fingerprint(model), atol=1e-6, rtol=1e-6)


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "nothing",
    [torch.nn.Linear(2, 2), "a/name", None, (), ("a", "b"), AutoModelForCausalLM],
    ids=lambda one: str(one)[:9],
)
def test_anything_else_is_refused_saying_what_is_accepted(nothing):
    with pytest.raises(TypeError, match=r"TransformerBridge.*HookedTransformer.*load_model.*\(model, tokenizer\)"):
        language_model(nothing)
    with pytest.raises(TypeError, match="TransformerBridge"):
        mean_heads(nothing, SEQUENCES)


def test_a_name_or_a_tuple_is_refused_saying_what_was_given():
    with pytest.raises(TypeError, match=r"not str; load_model\('a/name'\) loads one$"):
        language_model("a/name")
    with pytest.raises(TypeError, match=r"not \(str, Linear\)$"):
        language_model(("a", torch.nn.Linear(2, 2)))


def test_a_second_that_is_no_tokenizer_is_refused(plain):
    with pytest.raises(TypeError, match="second of the tuple is a str"):
        language_model((plain(), "a/name"))


def test_a_bare_model_whose_tokenizer_is_nowhere_is_refused_naming_the_remedy():
    config = transformers.LlamaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    with pytest.raises(TypeError, match=r"no tokenizer of this LlamaForCausalLM.*\(model, tokenizer\)"):
        language_model(transformers.LlamaForCausalLM(config))


def test_a_transformer_lens_model_takes_no_second_tokenizer(model_of, tokenizer):
    with pytest.raises(TypeError, match="only a Hugging Face model is given a tokenizer"):
        language_model(model_of("llama"), tokenizer)


def test_the_inside_of_a_bridge_is_not_wrapped_again(folder_of, tokenizer):
    bridge = load_model(folder_of("llama"))
    with pytest.raises(TypeError, match="part of a TransformerBridge"):
        language_model(bridge.original_model, tokenizer)


# ------------------------------------------------------------------------------------------ one adapter a model


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_model_has_the_same_adapter(of_kind, kind):
    raw = of_kind(kind)
    model = language_model(raw)
    assert language_model(raw) is model and language_model(model) is model
    assert language_model(model.raw) is model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bridge", "hooked", "bare"])
def test_what_was_found_out_outlives_the_adapter(of_kind, kind):
    raw = of_kind(kind, "qwen2")
    findings = language_model(raw).findings
    gc.collect()
    assert findings.adapter() is None
    assert language_model(raw).findings is findings


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bridge", "hooked", "bare", "with its tokenizer"])
def test_a_model_that_nobody_holds_is_let_go(folder_of, plain, tokenizer, kind):
    if kind == "hooked" and not HOOKED:
        pytest.skip("no HookedTransformer here")
    classes = {"bridge": "TransformerBridge", "hooked": "HookedTransformer"}
    raw = load_model(folder_of("llama"), model_class=classes[kind]) if kind in classes else plain()
    model = (raw, tokenizer) if kind == "with its tokenizer" else raw
    Replay(model, SEQUENCES, VERDICTS).verdict_logits(torch.zeros(1, 3, 4, dtype=torch.bool), torch.zeros(3, 4, 12))
    adapter = language_model(model)
    gone = [weakref.ref(raw), weakref.ref(adapter), weakref.ref(adapter._lens)]
    del raw, model, adapter
    gc.collect()
    assert [one() for one in gone] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_noticed_and_those_that_libraries_connect_modules_by_are_not(of_kind, kind):
    model = language_model(of_kind(kind))
    model.last_logits(pad(SEQUENCES))  # bridges connect some modules at first use
    assert not model.is_hooked() and not model.has_foreign_hooks()
    with model.hooked({1: lambda z: None}):
        assert model.is_hooked() and not model.has_foreign_hooks()
    with model._lens.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z)]):
        assert model.is_hooked() and model.has_foreign_hooks()
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        handle = getattr(model.blocks[1], register)(lambda *_: None)
        assert model.is_hooked()
        handle.remove()
    assert not model.is_hooked() and not model.has_foreign_hooks()


# ------------------------------------------------------------------------------------------ plain Hugging Face models


def state_of(model):
    """Everything about a Hugging Face model that could be changed."""
    return (
        {
            name: (id(weight), weight.clone(), weight.requires_grad)
            for name, weight in model.state_dict(keep_vars=True).items()
        },
        {name: (id(module), module.training, sorted(vars(module))) for name, module in model.named_modules()},
        {
            name: [dict(module._forward_hooks), dict(module._forward_pre_hooks)]
            for name, module in model.named_modules()
        },
        copy.deepcopy(model.config.to_dict()),
        model.config._attn_implementation,
    )


def assert_same_state(now, then):
    assert now[0].keys() == then[0].keys() and now[1:] == then[1:]
    for name, (identity, weight, learns) in then[0].items():
        assert now[0][name][0] == identity and now[0][name][2] == learns
        assert torch.equal(now[0][name][1], weight)


@every_family
@pytest.mark.parametrize("training", [False, True])
def test_a_hugging_face_model_is_used_and_left_as_it_was(plain, model_of, tokenizer, model_family, training):
    model = plain(model_family).train(training)
    own = (tokenizer.padding_side, tokenizer.pad_token, dict(tokenizer.init_kwargs))
    before = state_of(model)
    expected = model_of(model_family)
    means, heads = mean_heads((model, tokenizer), SEQUENCES), HeadSet.of(3, 4, [(0, 1), (2, 3)])
    torch.testing.assert_close(means.values, mean_heads(expected, SEQUENCES).values, atol=1e-5, rtol=1e-4)
    values = means.values + 0.3
    with steer(model, heads, values):
        found = last_logits(model, pad(SEQUENCES))
    with steer(expected, heads, values):
        torch.testing.assert_close(found, last_logits(expected, pad(SEQUENCES)), atol=1e-4, rtol=1e-4)
    replay = Replay((model, tokenizer), SEQUENCES, VERDICTS)
    torch.testing.assert_close(replay.logits(heads.mask[None], values)[:, 0], found, atol=1e-4, rtol=1e-4)
    assert replay.exact
    contributions, gaps = direct_contributions((model, tokenizer), SEQUENCES, VERDICTS)
    others = direct_contributions(expected, SEQUENCES, VERDICTS)
    torch.testing.assert_close(contributions, others[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(gaps, others[1], atol=1e-4, rtol=1e-3)
    for row, other in zip(
        attention_rows(model, SEQUENCES, 1, 2), attention_rows(expected, SEQUENCES, 1, 2), strict=True
    ):
        torch.testing.assert_close(row, other, atol=1e-5, rtol=1e-4)
    assert_same_state(state_of(model), before)
    assert (tokenizer.padding_side, tokenizer.pad_token, dict(tokenizer.init_kwargs)) == own


def test_one_that_is_first_used_without_gradients_can_be_differentiated_later(plain, tokenizer):
    model = plain()
    with torch.inference_mode():
        language_model((model, tokenizer)).last_logits(pad(SEQUENCES))
    contributions, _ = direct_contributions(model, SEQUENCES, VERDICTS)
    torch.testing.assert_close(contributions, direct_contributions((plain(), tokenizer), SEQUENCES, VERDICTS)[0])


def test_its_weights_are_not_held_twice(plain, tokenizer):
    model = plain()
    ours = {weight.data_ptr() for weight in language_model((model, tokenizer)).parameters() if weight.ndim > 1}
    assert ours <= {weight.data_ptr() for weight in model.parameters()}  # a bridge may add a bias of zeros


@pytest.mark.parametrize("change", ["step", "cast", "exchange"])
def test_weights_that_changed_are_noticed(plain, tokenizer, change):
    model = plain()
    before = fingerprint((model, tokenizer))
    with torch.no_grad():
        if change == "step":
            model.model.layers[0].self_attn.v_proj.weight.mul_(1.1)
        elif change == "cast":
            model.bfloat16()
        else:
            model.model.layers[0].self_attn.v_proj.weight = torch.nn.Parameter(torch.randn(24, 32))
    after = read_batch(model, pad(SEQUENCES[:1]))
    seen = []
    projection = model.get_submodule(OUTPUT_PROJECTION["llama"].format(2))
    handle = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1]))
    logits_of(model, SEQUENCES[:1])
    handle.remove()
    close = {"atol": 0.05, "rtol": 0.05} if change == "cast" else {"atol": 1e-5, "rtol": 1e-4}
    assert after.dtype == seen[0].dtype
    torch.testing.assert_close(after[:, 2].flatten(1), seen[0], **close)
    moved = (fingerprint(model) - before).abs().max()
    assert 0 < moved < 0.05 if change == "cast" else moved > 0.01


def test_hooks_of_torch_on_it_take_part(plain, tokenizer):
    model = plain()
    without = last_logits((model, tokenizer), pad(SEQUENCES))
    handle = model.model.norm.register_forward_hook(lambda module, inputs, output: 2 * output)
    with_hook = last_logits((model, tokenizer), pad(SEQUENCES))
    adapter = language_model((model, tokenizer))
    assert language_model(model) is adapter and adapter.is_hooked()
    handle.remove()
    torch.testing.assert_close(with_hook, 2 * without, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last_logits((model, tokenizer), pad(SEQUENCES)), without)


@pytest.mark.slow
def test_a_hook_that_holds_the_model_does_not_keep_it_alive(plain, tokenizer):
    model = plain()
    model.model.norm.register_forward_hook(lambda module, inputs, output, held=model: output)
    last_logits((model, tokenizer), pad(SEQUENCES))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_bare_model_keeps_the_tokenizer_it_was_given_and_takes_another(plain, tokenizer, folder_of):
    model, other = plain(), AutoTokenizer.from_pretrained(folder_of("llama"))
    other.add_tokens(["<another>"])
    adapter = language_model((model, other))
    assert adapter.tokenizer is other and language_model(model) is adapter
    assert language_model((model, tokenizer)).tokenizer is tokenizer
    assert language_model(model, other).tokenizer is other


def test_a_tokenizer_that_was_never_saved_will_do(plain):
    built = build_tokenizer(512)
    model = language_model((plain(), built))
    assert model.encode(["the garden is warm"], chat=False) == [
        [built.bos_token_id, *built.encode("the garden is warm", add_special_tokens=False)]
    ]
