"""The replay against one hooked full pass per mask."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
import transformers
from conftest import HOOKED

from arm_lens import Injection, load_model, steer
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad, read_batch
from arm_lens.engine.kv_segments import NewTokens
from arm_lens.engine.memory import MASKS_PER_PASS
from arm_lens.engine.model_info import Reach
from arm_lens.engine.replay import SlowReplayWarning

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
VERDICTS = VerdictTokens((5,), (6, 7))
TOLERANCE = 1e-4  # float32
VOCABULARY = 96
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def problem(model, masks=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    return torch.rand(masks, *shape, generator=generator) < 0.4, torch.randn(
        *shape, model.cfg.d_head, generator=generator
    )


def one_full_pass_per_mask(model, masks, values, injection=None, sequences=SEQUENCES):
    logits = []
    for mask in masks:
        with steer(model, mask, values, injection=injection):
            logits.append(torch.cat([last_logits(model, pad([sequence])) for sequence in sequences]))
    return torch.stack(logits, dim=1)


def heads_of_full_passes(model, mask, values):
    with steer(model, mask, values):
        return torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES])


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def blind_at_the_end(z, hook):
    """A user's hook: whatever the heads found at the last position is forgotten."""
    z = z.clone()
    z[:, -1] = 0
    return z


@pytest.mark.slow
@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_replay_gives_what_a_full_pass_per_mask_gives(model_of, model_family, model_class, batch_size):
    model = model_of(model_family, model_class)
    masks, values = problem(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)  # these families have an exact replay
        replay = Replay(model, SEQUENCES, VERDICTS, batch_size=batch_size)
    found = replay.logits(masks, values)
    expected = one_full_pass_per_mask(model, masks, values)
    assert (expected.std(dim=1) > 10 * TOLERANCE).any()  # the masks make a difference
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("injection", [Injection(mode="add", strength=0.7), Injection(strength=0.5)])
def test_every_way_of_writing_is_replayed(model_of, model_class, injection):
    model = model_of("llama", model_class)
    masks, values = problem(model)
    found = Replay(model, SEQUENCES, VERDICTS, injection=injection).logits(masks, values)
    expected = one_full_pass_per_mask(model, masks, values, injection)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_asking_again_gives_the_same_and_other_masks_leave_no_trace(model_of, model_class):
    model = model_of("llama", model_class)
    replay = Replay(model, SEQUENCES, VERDICTS)
    masks, values = problem(model)
    first = replay.logits(masks, values)
    replay.logits(*problem(model, masks=9, seed=1))
    replay.logits(masks[:2], values, [3, 0])
    assert torch.equal(replay.logits(masks, values), first)


def test_examples_can_be_picked_in_any_order_and_twice(model_of, model_class):
    model = model_of("qwen2", model_class)
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=2)
    masks, values = problem(model)
    whole = replay.logits(masks, values)
    picked = replay.logits(masks, values, [3, 0, 3])
    torch.testing.assert_close(picked, whole[[3, 0, 3]], atol=TOLERANCE, rtol=0)


def test_no_heads_replay_the_unsteered_model(model_of, model_class):
    model = model_of("gpt2", model_class)
    _, values = problem(model)
    nothing = torch.zeros(1, model.cfg.n_layers, model.cfg.n_heads, dtype=torch.bool)
    plain = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
    found = Replay(model, SEQUENCES, VERDICTS).logits(nothing, values)[:, 0]
    torch.testing.assert_close(found, plain, atol=TOLERANCE, rtol=0)


def test_verdict_log_probabilities_add_up_the_spellings(model_of):
    model = model_of("llama")
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    p = replay.logits(masks, values).softmax(dim=-1)
    expected = torch.stack([p[..., 5], p[..., 6] + p[..., 7]], dim=-1).log()
    torch.testing.assert_close(replay.log_probs(masks, values), expected)


@pytest.mark.slow
def test_more_masks_than_go_into_one_pass(model_of, model_class):
    model = model_of("llama", model_class)
    masks, values = problem(model, masks=MASKS_PER_PASS + 3)
    found = Replay(model, SEQUENCES, VERDICTS).logits(masks, values, [1])
    assert_same(found, one_full_pass_per_mask(model, masks, values, sequences=SEQUENCES[1:2]))


# ------------------------------------------------------------------------------------------ models that are not replayed


@pytest.mark.slow
def test_models_that_cannot_be_replayed_are_read_in_full_and_say_so_once(fresh, architecture):
    model = fresh(*architecture)
    masks, values = problem(model)
    expected = one_full_pass_per_mask(model, masks, values)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):  # of the second replay nothing new can be said
            replay = Replay(model, SEQUENCES, VERDICTS, batch_size=2)
            assert_same(replay.logits(masks, values), expected)
            assert_same(replay.hook_z(masks[:1], values)[:, 0], heads_of_full_passes(model, masks[0], values))
            assert not replay.exact
    said = [str(one.message) for one in caught if issubclass(one.category, SlowReplayWarning)]
    assert len(said) == 1 and model.original_model.__class__.__name__ in said[0]


@pytest.fixture(params=["bloom", "mpt", "llama4"])
def architecture(request):
    """Distances between slots (ALiBi, twice) and attention in chunks."""
    if request.param == "bloom":
        return (transformers.BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=4),)
    if request.param == "mpt":
        return (transformers.MptConfig(vocab_size=VOCABULARY, d_model=32, n_heads=4, n_layers=3, max_seq_len=64),)
    shape = SMALL | {"num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 4}
    return (transformers.Llama4TextConfig(**shape, no_rope_layers=[1, 0, 1, 0]),)


def test_so_is_a_hooked_transformer_with_alibi(fresh):
    if not HOOKED:
        pytest.skip("this TransformerLens has no HookedTransformer")
    model = fresh(transformers.BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=4), "HookedTransformer")
    masks, values = problem(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    with pytest.warns(SlowReplayWarning, match="alibi"):
        found = replay.logits(masks, values)
    assert_same(found, one_full_pass_per_mask(model, masks, values))


# ------------------------------------------------------------------------------------------ the check before use


@pytest.mark.slow
def test_masks_that_would_see_each_other_get_a_row_each(fresh, model_class, monkeypatch):
    """As in a model that makes its own attention mask and takes the masks' copies of a token for a sequence."""
    model = fresh(transformers.LlamaConfig(**SMALL), model_class)
    masks, values = problem(model)
    expected = one_full_pass_per_mask(model, masks, values)
    seen = NewTokens.visible

    def siblings_too(new, window, together=None):
        siblings = new.positions[:, :, None] == new.positions[:, None, :]
        return seen(dataclasses.replace(new, sees=new.sees | siblings), window, together)

    monkeypatch.setattr(NewTokens, "visible", siblings_too)
    replay = Replay(model, SEQUENCES, VERDICTS)
    assert_same(replay.logits(masks, values), expected)
    monkeypatch.setattr("arm_lens.engine.replay.differs", lambda *_: None)
    monkeypatch.setattr(language_model(model).findings, "replayed", Reach())
    trusting = Replay(model, SEQUENCES, VERDICTS).logits(masks, values)
    assert (trusting - expected).abs().max() > 100 * TOLERANCE  # it was the check that helped


@pytest.mark.slow
def test_where_windows_are_counted_in_slots_each_mask_gets_a_row(fresh):
    shape = {"hidden_size": 32, "num_layers": 4, "num_heads": 4, "intermediate_size": 128, "window_size": 4}
    shape |= {"attention_types": [[["global", "local"], 2]], "max_position_embeddings": 64}
    model = fresh(transformers.GPTNeoConfig(**TOKENS, **shape))
    masks, values = problem(model)
    expected = one_full_pass_per_mask(model, masks, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
        assert_same(replay.logits(masks, values), expected)
        assert_same(replay.logits(masks[:3], values, [2, 0]), expected[[2, 0], :3])
    assert replay.exact


@pytest.mark.slow
def test_a_model_that_carries_more_from_token_to_token_than_keys_and_values_is_found_out(fresh, model_class):
    model = fresh(transformers.LlamaConfig(**SMALL), model_class)
    masks, values = problem(model)

    def add_token_before(_, inputs, embedded):
        return embedded + torch.nn.functional.pad(embedded, (0, 0, 1, -1))

    handle = model.embed.register_forward_hook(add_token_before)
    try:
        replay = Replay(model, SEQUENCES, VERDICTS, batch_size=1)
        with pytest.warns(SlowReplayWarning, match="logits differ"):
            found = replay.logits(masks, values)
        assert_same(found, one_full_pass_per_mask(model, masks, values))
        assert not replay.exact
    finally:
        handle.remove()


@pytest.mark.slow
def test_with_a_hook_of_the_users_that_acts_on_whole_prompts_they_are_read_in_full(fresh, model_class):
    model = fresh(transformers.LlamaConfig(**SMALL), model_class)
    masks, values = problem(model)
    model.blocks[0].attn.hook_z.add_hook(blind_at_the_end)
    replay = Replay(model, SEQUENCES, VERDICTS)
    with pytest.warns(SlowReplayWarning):
        found = replay.logits(masks, values)
    assert_same(found, one_full_pass_per_mask(model, masks, values))
    model.reset_hooks()
    replay = Replay(model, SEQUENCES, VERDICTS)
    assert_same(replay.logits(masks, values), one_full_pass_per_mask(model, masks, values))
    assert replay.exact  # nothing was held against the model


@pytest.mark.slow
def test_a_hook_of_the_users_in_the_last_layer_acts_on_every_mask(fresh, model_class):
    model = fresh(transformers.LlamaConfig(**SMALL), model_class)
    masks, values = problem(model)
    model.blocks[model.cfg.n_layers - 1].attn.hook_z.add_hook(blind_at_the_end)
    found = Replay(model, SEQUENCES, VERDICTS).logits(masks, values)
    assert_same(found, one_full_pass_per_mask(model, masks, values))


def test_masks_are_tried_on_a_steered_model(model_of, model_class):
    model = model_of("llama", model_class)
    masks, values = problem(model)
    Replay(model, SEQUENCES, VERDICTS).logits(masks, values)  # that the unsteered model is replayed is known
    with steer(model, ~masks[0], -values):
        found = Replay(model, SEQUENCES, VERDICTS).logits(masks, values)
        assert_same(found, one_full_pass_per_mask(model, masks, values))


@pytest.mark.slow
@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_rotary_embeddings_that_change_with_the_length_of_the_prompt_are_not_replayed(fresh, rope_type):
    rope = {"rope_type": rope_type, "rope_theta": 100.0, "factor": 4.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16}
    model = fresh(transformers.LlamaConfig(**SMALL | {"max_position_embeddings": 16}, rope_parameters=rope))
    tokens = torch.randint(3, VOCABULARY, (3, 30), generator=torch.Generator().manual_seed(0)).tolist()
    sequences = [tokens[0][:8], tokens[1][:17], tokens[2]]
    masks, values = problem(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowReplayWarning)
        found = Replay(model, sequences, VERDICTS, batch_size=1).logits(masks, values)
    assert_same(found, one_full_pass_per_mask(model, masks, values, sequences=sequences))


def test_a_prompt_of_one_token_is_refused(model_of):
    with pytest.raises(ValueError, match="two tokens"):
        Replay(model_of("llama"), [[1]], VERDICTS)


def test_gaps_of_models_in_half_precision_are_not_rounded_to_its_steps(model_class):
    model = load_model(model_class=model_class, dtype=torch.bfloat16)
    masks = torch.eye(48, dtype=torch.bool).reshape(48, 6, 8)
    values = 0.1 * torch.randn(6, 8, model.cfg.d_head, generator=torch.Generator().manual_seed(0))
    verdicts = Replay(model, [[1, 9, 30, 41, 52], [1, 77, 14, 80]], VERDICTS).verdict_logits(masks, values)
    gaps = (verdicts[..., 0] - verdicts[..., 1]).flatten()
    assert len(gaps.unique()) > 80  # of 96; of logits in bfloat16 there are 17
