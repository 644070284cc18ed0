"""What the user hands over is what is used, and is left as it was: tokenizer, modes, hooks, gradients, dtype, device."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import GenerativeJudge, HeadSet, load_model, steer
from arm_lens.engine import Replay, VerdictTokens, fingerprint, language_model, last_logits, mean_heads, pad, read_batch

pytestmark = pytest.mark.tl4

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14]]
VERDICTS = VerdictTokens((5,), (6, 7))


# ------------------------------------------------------------------------------------------ tokenizers


@pytest.fixture
def own(folder_of):
    """A tokenizer that its user has changed since it was saved."""
    own = AutoTokenizer.from_pretrained(folder_of("llama"))
    own.chat_template = CHAT
    own.add_tokens(["<another>"])
    own.padding_side = "right"
    return own


def settings_of(tokenizer):
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return tokenizer.padding_side, tokenizer.chat_template, special, len(tokenizer), dict(tokenizer.init_kwargs)


def test_the_tokenizer_handed_to_load_model_is_the_one_that_is_used(folder_of, own, model_class):
    before = settings_of(own)
    model = load_model(folder_of("llama"), tokenizer=own, model_class=model_class)
    assert model.tokenizer is own
    assert language_model(model).tokenizer is own
    judge = GenerativeJudge(model)
    assert judge.template.is_chat(judge.model.tokenizer)
    assert settings_of(own) == before
    (ids,) = language_model(model).encode(["the <another> garden"], chat=True)
    assert own.convert_tokens_to_ids("<another>") in ids
    # TransformerLens' own methods know what this tokenizer does at the beginning of a text.
    assert model.cfg.tokenizer_prepends_bos == (own.encode("a")[0] == own.bos_token_id)
    tokens = model.to_tokens("the garden", prepend_bos=True)[0].tolist()
    assert tokens.count(own.bos_token_id) == 1


def test_the_tokenizer_handed_over_with_a_hugging_face_model_is_the_one_that_is_used(folder_of, own):
    before = settings_of(own)
    model = language_model((AutoModelForCausalLM.from_pretrained(folder_of("llama")), own))
    assert model.tokenizer is own and settings_of(own) == before
    assert GenerativeJudge(model).template.is_chat(own)


# ------------------------------------------------------------------------------------------ modes and weights


@pytest.fixture
def dropping(tmp_path, tokenizer):
    """dropping(model_class): a GPT-2 with dropout; None gives the Hugging Face model with its tokenizer."""
    shape = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.3)
    torch.manual_seed(0)
    raw = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **drops, bos_token_id=1, eos_token_id=2))
    with torch.no_grad():
        for parameter in raw.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    raw.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    def load(model_class):
        if model_class is None:
            return (AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer)
        return load_model(tmp_path, model_class=model_class, tokenizer=copy.deepcopy(tokenizer))

    return load


def module_of(model):
    return model[0] if isinstance(model, tuple) else model


def everything(model):
    """All kinds of passes, with the same numbers if they are functions of their input."""
    values = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    with steer(model, heads, values):
        steered = last_logits(model, pad(SEQUENCES))
    return [
        steered,
        last_logits(model, pad(SEQUENCES)),
        language_model(model).logits(pad(SEQUENCES))[:, -1],
        read_batch(model, pad(SEQUENCES)),
        mean_heads(model, SEQUENCES).values,
        fingerprint(model),
        Replay(model, SEQUENCES, VERDICTS).verdict_logits(heads.mask[None], values),
    ]


KINDS = [pytest.param(None, id="hugging face"), "TransformerBridge", "HookedTransformer"]


@pytest.fixture(params=KINDS)
def any_model(request, dropping):
    from conftest import HOOKED

    if request.param == "HookedTransformer" and not HOOKED:
        pytest.skip("this TransformerLens has no HookedTransformer")
    return dropping(request.param)


@pytest.mark.slow
def test_a_model_in_training_mode_is_read_without_dropout_and_left_in_its_modes(any_model):
    module = module_of(any_model)
    expected = everything(any_model)
    module.train()
    drops = [part for part in module.modules() if isinstance(part, torch.nn.Dropout)]
    for part in drops[::2]:  # a user may have frozen some parts
        part.eval()
    modes = [part.training for part in module.modules()]
    assert any(modes)
    for found, one in zip(everything(any_model), expected, strict=True):
        assert torch.equal(found, one)
    assert [part.training for part in module.modules()] == modes
    with torch.no_grad(), pytest.raises(RuntimeError, match="stop"), language_model(any_model).exclusive():
        assert not any(part.training for part in language_model(any_model).modules())
        raise RuntimeError("stop")
    assert [part.training for part in module.modules()] == modes


def test_gradients_dtype_and_device_of_weights_stay_as_they_were(any_model):
    module = module_of(any_model)
    for number, weight in enumerate(module.parameters()):
        weight.requires_grad_(number % 2 == 0)

    def state():
        return [
            (id(one), one.requires_grad, one.dtype, one.device, one._version, one.grad) for one in module.parameters()
        ]

    before, numbers = state(), [weight.clone() for weight in module.parameters()]
    everything(any_model)
    assert state() == before
    assert all(map(torch.equal, numbers, module.parameters()))


# ------------------------------------------------------------------------------------------ hooks


def test_hooks_that_were_there_act_and_are_there_afterwards(model_of, model_class, folder_of):
    model = load_model(folder_of("llama"), model_class=model_class)
    plain, called = last_logits(model, pad(SEQUENCES)), []

    def double(z, hook):
        called.append(len(z))
        return 2 * z

    model.add_hook("blocks.1.attn.hook_z", double)
    doubled = last_logits(model, pad(SEQUENCES))
    assert called == [2] and not torch.allclose(doubled, plain)
    heads = HeadSet.of(3, 4, [(2, 0)])
    with steer(model, heads, torch.ones(3, 4, 12)):
        steered = last_logits(model, pad(SEQUENCES))
    assert called == [2, 2] and not torch.allclose(steered, doubled)
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES)), doubled)
    assert len(model.hook_dict["blocks.1.attn.hook_z"].fwd_hooks) == 1
    model.reset_hooks()
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES)), plain)


def test_hooks_on_a_bridge_that_is_seen_for_the_first_time_are_not_called_by_the_comparison(folder_of):
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(folder_of("llama")), device="cpu")
    called = []
    bridge.add_hook("blocks.1.attn.hook_z", lambda z, hook: called.append(len(z)))
    bridge.add_hook("blocks.0.hook_resid_pre", lambda x, hook: (called.append(len(x)), 3 * x)[1])
    language_model(bridge)
    assert called == []
    last_logits(bridge, pad(SEQUENCES))
    assert called == [2, 2]
