"""Gates and the gradient with respect to them, against boolean masks, finite differences and raw Hugging Face models."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from tests_support import OUTPUT_PROJECTION

from arm_lens import HeadSet, Injection, steer
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad, read_batch
from arm_lens.engine.gates import gated_verdicts
from arm_lens.engine.replay import SlowReplayWarning
from arm_lens.selection import JudgingObjective, PooledObjective

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
INJECTIONS = [Injection(), Injection(strength=0.5), Injection(mode="add"), Injection(mode="add", strength=0.5)]
TOKENS = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

injections = pytest.mark.parametrize("injection", INJECTIONS, ids=lambda one: f"{one.mode} {one.strength}")
both_families = pytest.mark.parametrize("model_family", ["llama", "gpt2"])


def values_for(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_head, generator=generator)


def gates_for(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(model.cfg.n_layers, model.cfg.n_heads, generator=generator)


def weights_for(replay, seed=2):
    """Of the example and verdict, so that a gradient is that of a number to which each adds something else."""
    return torch.randn(len(replay), 2, generator=torch.Generator().manual_seed(seed))


def gradient(replay, gates, values, normalised, weights):
    gates = gates.clone().requires_grad_()
    verdicts = gated_verdicts(replay, gates, values, normalised)
    return verdicts.detach(), torch.autograd.grad((weights * verdicts).sum(), gates)[0]


# ------------------------------------------------------------------------------------------ gates as steering


@injections
@both_families
def test_gates_of_zero_and_one_are_boolean_masks_bit_for_bit(model_of, model_family, model_class, injection):
    model, mask = (
        model_of(model_family, model_class),
        torch.rand(3, 4, generator=torch.Generator().manual_seed(3)) < 0.5,
    )
    found = []
    for heads in (mask, mask.float()):
        with steer(model, heads, values_for(model), injection=injection):
            found.append((last_logits(model, pad(SEQUENCES)), read_batch(model, pad(SEQUENCES))))
    (logits, z), (gated_logits, gated_z) = found
    assert torch.equal(gated_z, z) and torch.equal(gated_logits, logits)
    plain = last_logits(model, pad(SEQUENCES))
    assert not torch.allclose(plain, logits)
    with steer(model, torch.zeros(3, 4), values_for(model), injection=injection):
        assert torch.equal(last_logits(model, pad(SEQUENCES)), plain)


@injections
@both_families
def test_the_replay_takes_gates_of_zero_and_one_for_masks_bit_for_bit(model_of, model_family, model_class, injection):
    model = model_of(model_family, model_class)
    masks = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    replay = Replay(model, SEQUENCES, VERDICTS, injection=injection, batch_size=2)
    values = values_for(model)
    for ask in (replay.verdict_logits, replay.log_probs, replay.hook_z):
        assert torch.equal(ask(masks.float(), values), ask(masks, values))


def test_a_gate_moves_a_head_so_far_towards_what_would_be_written(model_of, model_class):
    model = model_of("llama", model_class)
    values, gates = values_for(model), torch.zeros(3, 4)
    gates[0] = torch.tensor([0.0, 0.25, 0.5, 1.0])  # the first layer is not downstream of any
    plain = read_batch(model, pad(SEQUENCES))[:, 0]
    written = {
        Injection(): values[0].expand_as(plain),
        Injection(strength=0.5): (plain + values[0]) / 2,
        Injection(mode="add", strength=0.5): plain + values[0] / 2,
    }
    for injection, wanted in written.items():
        with steer(model, gates, values, injection=injection):
            found = read_batch(model, pad(SEQUENCES))[:, 0]
        expected = (1 - gates[0])[:, None] * plain + gates[0][:, None] * wanted
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@injections
def test_the_replay_and_plain_passes_agree_on_gates(model_of, model_class, injection):
    model = model_of("llama", model_class)
    gates = torch.stack([gates_for(model, seed) for seed in range(3)])
    replay = Replay(model, SEQUENCES, VERDICTS, injection=injection, batch_size=2)
    found = replay.logits(gates, values_for(model))
    for place, one in enumerate(gates):
        with steer(model, one, values_for(model), injection=injection):
            expected = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
        torch.testing.assert_close(found[:, place], expected, atol=1e-4, rtol=0)


def test_a_replay_with_another_injection_is_one_made_with_it_and_reads_nothing_again(model_of, monkeypatch):
    model, values = model_of("llama"), values_for(model_of("llama"))
    masks = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    replay = Replay(model, SEQUENCES, VERDICTS)
    before = replay.logits(masks, values)
    adding = Injection(mode="add", strength=0.5)
    expected = Replay(model, SEQUENCES, VERDICTS, injection=adding).logits(masks, values)
    other = replay.with_injection(adding)
    monkeypatch.setattr(type(replay.model), "prefill", None)  # what was read is kept
    assert torch.equal(other.logits(masks, values), expected)
    assert torch.equal(replay.logits(masks, values), before) and replay.injection == Injection()
    assert not torch.allclose(expected, before)


# ------------------------------------------------------------------------------------------ the gradient


def raw_verdicts(model, family, gates, values, injection, normalised):
    """One whole, unpadded pass per prompt, hooked at the output projections."""
    values = values.double()

    def moving(layer):
        def hook(_, inputs):
            z = inputs[0].unflatten(-1, tuple(values.shape[1:]))
            last, wanted = z[:, -1], values[layer]
            step = injection.strength * (wanted if injection.mode == "add" else wanted - last)
            moved = last + gates[layer][:, None] * step
            return (torch.cat([z[:, :-1], moved[:, None]], dim=1).flatten(-2),)

        return hook

    places = [model.get_submodule(OUTPUT_PROJECTION[family].format(layer)) for layer in range(len(values))]
    handles = [place.register_forward_pre_hook(moving(layer)) for layer, place in enumerate(places)]
    try:
        logits = torch.cat([model(torch.tensor([sequence])).logits[:, -1] for sequence in SEQUENCES])
    finally:
        for handle in handles:
            handle.remove()
    logits = logits.log_softmax(dim=-1) if normalised else logits
    return torch.stack([logits[:, 5], logits[:, 6:8].logsumexp(dim=-1)], dim=-1)


@injections
@both_families
@pytest.mark.parametrize("normalised", [True, False])
def test_verdicts_and_gradient_are_those_of_whole_passes_through_the_raw_model(
    model_of, raw_of, model_family, model_class, injection, normalised
):
    model = model_of(model_family, model_class)
    values, gates = values_for(model), gates_for(model)
    replay = Replay(model, SEQUENCES, VERDICTS, injection=injection, batch_size=3)
    weights = weights_for(replay)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        found, slope = gradient(replay, gates, values, normalised, weights)
    opened = gates.double().requires_grad_()
    expected = raw_verdicts(raw_of(model_family), model_family, opened, values, injection, normalised)
    expected_slope = torch.autograd.grad((weights.double() * expected).sum(), opened)[0]
    assert (expected_slope.abs() > 1e-2).sum() >= 6
    torch.testing.assert_close(found, expected.detach().float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(slope, expected_slope.float(), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@both_families
def test_the_gradient_is_the_limit_of_finite_differences(model_of, model_family, model_class):
    """By five points, whose error is of the fourth order: 0.02 ** 4, and float32's rounding divided by 0.02."""
    model = model_of(model_family, model_class)
    values, gates, step = values_for(model), gates_for(model), 0.02
    replay = Replay(model, SEQUENCES, VERDICTS)
    weights = weights_for(replay)
    _, slope = gradient(replay, gates, values, True, weights)

    def at(layer, head, moved):
        there = gates.clone()
        there[layer, head] += moved
        return float((weights * gated_verdicts(replay, there, values, True)).double().sum())

    for layer, head in [(0, 1), (1, 3), (2, 0), (2, 2)]:
        two, one, minus_one, minus_two = (at(layer, head, by * step) for by in (2, 1, -1, -2))
        expected = (8 * (one - minus_one) - (two - minus_two)) / (12 * step)
        assert float(slope[layer, head]) == pytest.approx(expected, abs=5e-4)


def test_the_gradient_where_no_gate_is_open_says_what_opening_one_would_do(model_of, raw_of, model_class):
    model, values = model_of("llama", model_class), values_for(model_of("llama"))
    replay = Replay(model, SEQUENCES, VERDICTS)
    weights = weights_for(replay)
    _, slope = gradient(replay, torch.zeros(3, 4), values, True, weights)
    opened = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    expected = raw_verdicts(raw_of("llama"), "llama", opened, values, Injection(), True)
    expected_slope = torch.autograd.grad((weights.double() * expected).sum(), opened)[0]
    torch.testing.assert_close(slope, expected_slope.float(), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_how_prompts_are_batched_and_kept_does_not_matter(model_of, model_class):
    model = model_of("gpt2", model_class)
    values, gates = values_for(model), gates_for(model)
    shared = [[1, *range(10, 22), *sequence] for sequence in SEQUENCES]  # a beginning that is read once
    results = []
    for options in ({"batch_size": 4}, {"batch_size": 1}, {"batch_size": 2, "memory_budget": 0}):
        replay = Replay(model, shared, VERDICTS, **options)
        results.append(gradient(replay, gates, values, True, weights_for(replay)))
    for verdicts, slope in results[1:]:
        torch.testing.assert_close(verdicts, results[0][0], atol=1e-4, rtol=0)
        torch.testing.assert_close(slope, results[0][1], atol=1e-4, rtol=1e-3)


def test_nothing_is_left_in_the_model(model_of, model_class):
    model = model_of("llama", model_class)
    weights = list(model.parameters())
    weights[0].requires_grad_(False)  # as a user may have set it
    wanted = [weight.requires_grad for weight in weights]
    before = [weight.detach().clone() for weight in weights]
    plain = last_logits(model, pad(SEQUENCES))
    try:
        gates = gates_for(model).requires_grad_()
        replay = Replay(model, SEQUENCES, VERDICTS)
        gated_verdicts(replay, gates, values_for(model), True).sum().backward()
        assert gates.grad is not None and gates.grad.abs().sum() > 0
        assert all(weight.grad is None for weight in weights)
        assert [weight.requires_grad for weight in weights] == wanted
        with pytest.raises((ValueError, TypeError)):
            gated_verdicts(replay, torch.zeros(2, 4), values_for(model), True)
        with pytest.raises(RuntimeError):  # within the pass
            gated_verdicts(replay, gates, values_for(model)[..., :5], True)
        assert [weight.requires_grad for weight in weights] == wanted
    finally:
        weights[0].requires_grad_(True)
    assert all(map(torch.equal, weights, before))
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert torch.equal(last_logits(model, pad(SEQUENCES)), plain)


# ------------------------------------------------------------------------------------------ without the replay


@both_families
def test_where_the_replay_is_refused_whole_passes_give_the_same(model_of, model_family, model_class, monkeypatch):
    model = model_of(model_family, model_class)
    values, gates = values_for(model), gates_for(model)
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    expected = gradient(replay, gates, values, True, weights_for(replay))
    monkeypatch.setattr(type(language_model(model)), "no_extension", lambda *_: "as if it were of another kind")
    whole = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowReplayWarning)
        found = gradient(whole, gates, values, True, weights_for(replay))
    assert replay.exact and not whole.exact
    torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_model_with_alibi_is_read_in_full_and_differentiated(fresh, model_class):
    model = fresh(transformers.BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=4), model_class)
    values, gates, step = values_for(model), gates_for(model), 0.02
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    weights = weights_for(replay)
    with pytest.warns(SlowReplayWarning):
        found, slope = gradient(replay, gates, values, True, weights)
    assert not replay.exact

    def whole_passes(gates):
        with steer(model, gates, values):
            logs = torch.cat([last_logits(model, pad([one])) for one in SEQUENCES]).double().log_softmax(dim=-1)
        return torch.stack([logs[:, 5], logs[:, 6:8].logsumexp(dim=-1)], dim=-1)

    torch.testing.assert_close(found, whole_passes(gates).float(), atol=1e-4, rtol=0)
    for layer, head in [(0, 1), (1, 3), (2, 0)]:
        up, down = gates.clone(), gates.clone()
        up[layer, head] += step
        down[layer, head] -= step
        expected = (weights * (whole_passes(up) - whole_passes(down))).sum() / (2 * step)
        assert float(slope[layer, head]) == pytest.approx(float(expected), abs=2e-3)
    assert slope.abs().max() > 0.05


# ------------------------------------------------------------------------------------------ as an objective


@pytest.mark.parametrize("kind", ["log_prob", "two_way", "margin"])
def test_the_gated_reward_at_gates_of_zero_and_one_is_that_of_the_mask(model_of, model_class, kind):
    model = model_of("llama", model_class)
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values_for(model), LABELS, kind)
    other = JudgingObjective(Replay(model, SEQUENCES[:2], VERDICTS), -values_for(model), LABELS[:2], kind)
    pooled = PooledObjective([objective, other])
    found = pooled.gated(heads.mask.float())
    torch.testing.assert_close(found, pooled.per_example(heads.mask[None])[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:4], objective.gated(heads.mask.float()))
    assert found.std() > 0.01


def test_the_gradient_of_a_pooled_reward_is_the_mean_of_its_examples(model_of):
    model = model_of("gpt2")
    values, gates = values_for(model), gates_for(model).requires_grad_()
    parts = [
        JudgingObjective(Replay(model, SEQUENCES[:1], VERDICTS), values, LABELS[:1], "margin"),
        JudgingObjective(Replay(model, SEQUENCES[1:], VERDICTS), values, LABELS[1:], "margin"),
    ]
    found = torch.autograd.grad(PooledObjective(parts).gated(gates).mean(), gates)[0]
    one, three = (torch.autograd.grad(part.gated(gates).mean(), gates)[0] for part in parts)
    torch.testing.assert_close(found, (one + 3 * three) / 4, atol=1e-6, rtol=1e-4)


def test_the_accuracy_is_refused(model_of):
    model = model_of("llama")
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values_for(model), LABELS, "accuracy")
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        PooledObjective([objective]).gated(gates_for(model))
