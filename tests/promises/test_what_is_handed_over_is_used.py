"""What the user hands over is what is used, and is left as it was: tokenizer, modes, hooks, gradients, dtype, device."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch
import transformers
from promises.asking_support import VICUNA, ZEPHYR, llama_2, saying
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import GenerativeJudge, HeadSet, JudgeTemplate, load_model, steer
from arm_lens.engine import Replay, VerdictTokens, fingerprint, language_model, last_logits, mean_heads, pad, read_batch
from arm_lens.engine.tokens import encode_text
from arm_lens.judges.checks import SkippedWarning, scores_of_rest

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
    ids = encode_text(language_model(model).tokenizer, "the <another> garden")
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


# ------------------------------------------------------------------------------------------ changed after it was handed over


def halved(raw):
    with torch.no_grad():
        for weight in raw.parameters():
            weight.mul_(0.5)


def halved_behind_its_back(raw):  # as adapters are merged, and some optimisers step
    for weight in raw.parameters():
        weight.data.mul_(0.5)


def exchanged(raw):
    for module in raw.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(1.5 * weight.detach())
    raw.tie_weights()


def hooked(raw):
    raw.get_output_embeddings().register_forward_hook(lambda module, args, logits: logits.flip(-1))


CHANGES = [halved, halved_behind_its_back, exchanged, hooked, lambda raw: raw.test_hook.remove()]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])  # the latter two have their projections in one weight
@pytest.mark.parametrize("change", CHANGES, ids=["halved", "behind its back", "exchanged", "hooked", "unhooked"])
def test_a_hugging_face_model_is_used_as_it_is_now(folder_of, tokenizer, family, change):
    raw = AutoModelForCausalLM.from_pretrained(folder_of(family)).eval()
    hook = raw.get_output_embeddings().register_forward_hook(lambda module, args, logits: logits.roll(1, -1))
    raw.test_hook = hook
    model, tokens = language_model((raw, tokenizer)), torch.tensor([SEQUENCES[0]])

    def computed():
        with torch.no_grad():
            return raw(tokens).logits[:, -1]

    before = computed()
    torch.testing.assert_close(last_logits(model, pad(SEQUENCES[:1])), before, atol=1e-4, rtol=1e-4)
    change(raw)
    assert not torch.allclose(computed(), before, atol=1e-3)
    for same in (model, (raw, tokenizer)):
        torch.testing.assert_close(last_logits(same, pad(SEQUENCES[:1])), computed(), atol=1e-4, rtol=1e-4)


def test_a_forward_that_a_trainer_has_put_in_place_does_not_lead_past_the_hooks(folder_of, tokenizer):
    raw = AutoModelForCausalLM.from_pretrained(folder_of("llama")).eval()
    found = language_model((raw, tokenizer))
    heads, values, batch = HeadSet.of(3, 4, [(0, 1), (2, 3)]), torch.ones(3, 4, 12), pad(SEQUENCES)
    with steer(found, heads, values):
        before = last_logits(found, batch)
    own = raw.forward
    raw.forward = lambda *args, **kwargs: own(*args, **kwargs)  # which refers to the user's model, as that of TRL does
    for weight in raw.parameters():
        weight.data = weight.data.clone()  # as a move to another device does: the bridge is made anew
    with steer(found, heads, values):
        assert last_logits(found, batch).equal(before)
    assert not last_logits(found, batch).equal(before)
    assert "forward" in raw.__dict__


def test_a_model_without_a_name_has_no_folder(tokenizer, tmp_path, monkeypatch):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    raw = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**shape, vocab_size=len(tokenizer)))
    (tmp_path / "judge_template.json").write_text('{"scalar": "somebody else asks {response}"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    judge = GenerativeJudge((raw.eval(), tokenizer))
    assert judge.template == JudgeTemplate() and str(tmp_path) not in judge.model.info.name


def test_a_judge_follows_the_chat_template_of_its_tokenizer():
    tokenizer = llama_2(ZEPHYR)
    judge = GenerativeJudge(load_model(saying(tokenizer).cfg.model_name, tokenizer=tokenizer))
    before = judge.score(["q"], ["r"])
    tokenizer.chat_template = VICUNA
    after = judge.score(["q"], ["r"])
    assert torch.equal(after, GenerativeJudge(judge.model).score(["q"], ["r"])) and not torch.equal(after, before)


def test_columns_of_a_table_are_read_in_their_order_whatever_its_index():
    prompts, responses = (pd.Series([f"{what} {row}" for row in range(4)], index=[2, 0, 3, 1]) for what in "pr")
    judged = []

    def score(prompts, responses):
        judged.extend(zip(prompts, responses, strict=True))
        return torch.arange(3.0)

    with pytest.warns(SkippedWarning):
        scores = scores_of_rest(prompts, responses, {1: "too long"}, score)
    assert judged == [("p 0", "r 0"), ("p 2", "r 2"), ("p 3", "r 3")]
    assert scores.nan_to_num(-1).tolist() == [0, -1, 1, 2]
