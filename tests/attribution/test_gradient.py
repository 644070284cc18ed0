"""Gradient attribution against autograd on raw Hugging Face modules, finite differences and heads of known effect."""

from __future__ import annotations

import warnings
import weakref
from functools import partial

import pytest
import torch
from planted_circuit import BASE, DIRECT, GAINS, HINDRANCE, REDUNDANT, planted_circuit
from scipy.special import expit
from tests_support import OUTPUT_PROJECTION, no_graph_left

from arm_lens import HeadSet, Injection
from arm_lens.attribution import (
    ablation,
    accuracy_by_heads,
    direct_logit_attribution,
    exact_shapley_values,
    injection_effects,
    interactions,
    leave_one_out_effects,
    shapley_values,
)
from arm_lens.attribution.gradient import gradient_attribution
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad
from arm_lens.engine.gates import gap_slopes, gated_verdicts
from arm_lens.engine.replay import SlowReplayWarning
from arm_lens.engine.variants import Piece
from arm_lens.selection import JudgingObjective, PooledObjective

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
INJECTIONS = [Injection(strength=0.5), Injection(mode="add"), Injection(mode="add", strength=0.5)]
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def values_for(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = language_model(model)
    return torch.randn(model.n_layers, model.n_heads, model.d_head, generator=generator)


def raw_slopes(model, family, values, injection=None):
    """(What would be written - z) . d gap / d z and the gap: a whole, unpadded pass per prompt, a leaf at every z."""
    injection, values = injection or Injection(), values.double()
    slopes, gaps = [], []
    for sequence in SEQUENCES:
        seen, leaves = [], []

        def leaf(_, inputs, seen=seen, leaves=leaves):
            z = inputs[0]
            seen.append(z[:, -1].detach())
            leaves.append(torch.zeros_like(seen[-1]).requires_grad_())  # added, so that earlier leaves act on z as well
            return (torch.cat([z[:, :-1], (z[:, -1] + leaves[-1])[:, None]], dim=1),)

        places = [model.get_submodule(OUTPUT_PROJECTION[family].format(layer)) for layer in range(len(values))]
        handles = [place.register_forward_pre_hook(leaf) for place in places]
        try:
            logits = model(torch.tensor([sequence])).logits[0, -1]
        finally:
            for handle in handles:
                handle.remove()
        gap = logits[5] - logits[6:8].logsumexp(dim=-1)
        down = torch.stack(torch.autograd.grad(gap, leaves))[:, 0].unflatten(-1, values.shape[1:])
        z = torch.stack(seen)[:, 0].unflatten(-1, values.shape[1:])
        step = injection.strength * (values if injection.mode == "add" else values - z)
        slopes.append((step * down).sum(dim=-1))
        gaps.append(gap.detach())
    return torch.stack(slopes), torch.stack(gaps)


# ------------------------------------------------------------------------------------------ against raw modules


def test_slopes_are_those_of_autograd_on_the_raw_model(model_of, raw_of, family, model_class):
    model = model_of(family, model_class)
    values = values_for(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        slopes, gaps = gap_slopes(Replay(model, SEQUENCES, VERDICTS, batch_size=3), values)
    expected, expected_gaps = raw_slopes(raw_of(family), family, values)
    assert (expected.abs() > 1e-2).sum() >= 24
    torch.testing.assert_close(slopes.double(), expected, **CLOSE)
    torch.testing.assert_close(gaps.double(), expected_gaps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda one: f"{one.mode} {one.strength}")
def test_what_is_written_and_how_strongly_counts(model_of, raw_of, model_class, injection):
    model = model_of("llama", model_class)
    values = values_for(model)
    slopes, _ = gap_slopes(Replay(model, SEQUENCES, VERDICTS, injection=injection), values)
    torch.testing.assert_close(slopes.double(), raw_slopes(raw_of("llama"), "llama", values, injection)[0], **CLOSE)


@pytest.mark.parametrize("model_family", ["llama", "gpt2"])
def test_where_the_replay_is_refused_whole_passes_give_the_same(
    model_of, raw_of, model_family, model_class, monkeypatch
):
    model = model_of(model_family, model_class)
    values = values_for(model)
    monkeypatch.setattr(type(language_model(model)), "no_extension", lambda *_: "as if it were of another kind")
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowReplayWarning)
        slopes, _ = gap_slopes(replay, values)
    assert not replay.exact
    torch.testing.assert_close(slopes.double(), raw_slopes(raw_of(model_family), model_family, values)[0], **CLOSE)


def test_the_outcomes_are_those_of_the_linearised_margin(model_of, raw_of):
    model = model_of("llama")
    values = 3 * values_for(model)  # far enough for verdicts to turn
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values, LABELS, clusters=[0, 0, 1, 2])
    found = gradient_attribution(objective, criterion="warmth")
    slopes, gaps = raw_slopes(raw_of("llama"), "llama", values)
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    gained, margin = sign[:, None, None] * slopes, (sign * gaps)[:, None, None].expand_as(slopes)
    turned = (margin + gained > 0).double() - (margin > 0).double()
    assert turned.min() == -1 and turned.max() == 1
    probability = torch.from_numpy(expit((margin + gained).numpy()) - expit(margin.numpy()))
    for outcome, expected in {"gap": gained, "probability": probability, "accuracy": turned}.items():
        torch.testing.assert_close(found.values[outcome], expected.mean(dim=0), **CLOSE)
    assert (found.measure, found.criterion, found.n, found.n_clusters) == ("gradient", "warmth", 4, 3)


def test_every_table_has_the_name_of_the_objectives_criterion(model_of):
    model = model_of("llama")

    def objective(criterion):
        return JudgingObjective(
            Replay(model, SEQUENCES, VERDICTS, batch_size=4), values_for(model), LABELS, criterion=criterion
        )

    heads = HeadSet.of(*objective("").shape, [(0, 0), (1, 1)])
    measures = {
        "gradient": gradient_attribution,
        "direct": direct_logit_attribution,
        "injection": injection_effects,
        "leave one out": partial(leave_one_out_effects, chosen=heads),
        "ablation": partial(ablation, kind="zero"),
        "shapley": partial(shapley_values, heads=heads, standard_error=0.5),
        "exact": partial(exact_shapley_values, heads=heads),
        "interactions": partial(interactions, heads=heads),
    }
    warm, both = objective("warmth"), PooledObjective([objective("warmth"), objective("warmth")])
    for name, measure in measures.items():
        assert set(measure(warm).frame()["criterion"]) == {"warmth"}, name
        assert set(measure(warm, criterion="other").frame()["criterion"]) == {"other"}, name
    curve = accuracy_by_heads(warm, {"gradient": gradient_attribution(warm).head_scores("gap")}, random_rankings=0)
    assert set(curve["criterion"]) == {"warmth"}
    assert injection_effects(both).criterion == "warmth"
    assert PooledObjective([warm, objective("cold")]).criterion == ""


# ------------------------------------------------------------------------------------------ against other computations


@pytest.mark.parametrize("model_family", ["llama", "gpt2"])
def test_a_slope_is_the_limit_of_what_a_replayed_gate_does(model_of, model_family, model_class):
    """By five points, whose error is of the fourth order: 0.02 ** 4, and float32's rounding divided by 0.02."""
    model, step = model_of(model_family, model_class), 0.02
    values = values_for(model)
    replay = Replay(model, SEQUENCES, VERDICTS)
    slopes, _ = gap_slopes(replay, values)
    heads = [(0, 1), (1, 3), (2, 0), (2, 2)]
    gates = torch.zeros(4, len(heads), 3, 4)
    for place, (layer, head) in enumerate(heads):
        gates[:, place, layer, head] = torch.tensor([2, 1, -1, -2]) * step
    verdicts = replay.verdict_logits(gates.flatten(0, 1), values).double()
    two, one, minus_one, minus_two = (verdicts[..., 0] - verdicts[..., 1]).unflatten(1, (4, -1)).unbind(dim=1)
    expected = (8 * (one - minus_one) - (two - minus_two)) / (12 * step)
    found = torch.stack([slopes[:, layer, head] for layer, head in heads], dim=1)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("normalised", [True, False])
def test_gates_of_their_own_give_each_prompt_the_verdicts_and_the_gradient_of_its_gates(
    model_of, model_class, normalised
):
    model = model_of("gpt2", model_class)
    values, gates = values_for(model), torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    found = gated_verdicts(replay, gates, values, normalised)
    slopes = torch.autograd.grad(found[:, 0].sum(), gates)[0]
    for example, one in enumerate(gates.detach()):
        one = one.clone().requires_grad_()
        expected = gated_verdicts(replay, one, values, normalised)[example]
        torch.testing.assert_close(found[example], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(slopes[example], torch.autograd.grad(expected[0], one)[0], atol=1e-5, rtol=1e-4)


def test_gates_of_their_own_for_another_number_of_prompts_are_refused(model_of):
    replay = Replay(model_of("llama"), SEQUENCES, VERDICTS)
    with pytest.raises(ValueError, match="gates for 3 prompts, but 4 prompts"):
        gated_verdicts(replay, torch.zeros(3, 3, 4), values_for(replay.model), False)


def test_how_prompts_are_batched_and_kept_does_not_matter(model_of, model_class):
    model = model_of("gpt2", model_class)
    shared = [[1, *range(10, 22), *sequence] for sequence in SEQUENCES]  # a beginning that is read once
    options = ({"batch_size": 4}, {"batch_size": 1}, {"batch_size": 2, "memory_budget": 0})
    first, *others = (gap_slopes(Replay(model, shared, VERDICTS, **each), values_for(model)) for each in options)
    for slopes, gaps in others:
        torch.testing.assert_close(slopes, first[0], **CLOSE)
        torch.testing.assert_close(gaps, first[1], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------ on heads of known effect


def test_each_planted_head_has_the_slope_that_it_was_given(tokenizer, tmp_path_factory):
    circuit = planted_circuit(tokenizer, tmp_path_factory)
    found = gradient_attribution(circuit.objective())
    expected = dict.fromkeys(circuit.head, 0.0) | GAINS | {"redundant 1": REDUNDANT, "redundant 2": REDUNDANT}
    # Writing a mean of 0 takes away what these heads say; of the leaning, which helps as often as it hurts, nothing.
    expected |= {"direct": -DIRECT, "hindering": -HINDRANCE, "reader": -BASE}
    for name, head in circuit.head.items():
        assert float(found.values["gap"][head]) == pytest.approx(expected[name], abs=0.03), name
        for outcome in ("probability", "accuracy"):
            assert float(found.values[outcome][head]) * expected[name] >= -1e-6, name


# ------------------------------------------------------------------------------------------ nothing is left behind


def test_neither_gradient_nor_graph_nor_hook_is_left(model_of, model_class):
    model = model_of("gpt2", model_class)  # on a bridge its attention remembers the last pattern
    weights, plain = list(model.parameters()), last_logits(model, pad(SEQUENCES))
    weights[0].requires_grad_(False)  # as a user may have set it
    wanted = [weight.requires_grad for weight in weights]
    try:
        objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values_for(model), LABELS)
        with no_graph_left():
            found = gradient_attribution(objective)
        assert [weight.requires_grad for weight in weights] == wanted
        assert all(weight.grad is None for weight in weights)
        with pytest.raises(RuntimeError):  # within the pass
            gap_slopes(objective.replay, values_for(model)[..., :5])
        assert [weight.requires_grad for weight in weights] == wanted
    finally:
        weights[0].requires_grad_(True)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert torch.equal(last_logits(model, pad(SEQUENCES)), plain)
    assert not any(one.requires_grad for one in found.values.values())


def test_the_graph_of_a_batch_is_gone_before_the_next_is_made(model_of, model_class, monkeypatch):
    model, kept, at_start = model_of("llama", model_class), weakref.WeakSet(), []
    passes = Piece.verdict_logits

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor
            kept.add(self)

    def counted(*arguments):
        at_start.append(len(kept))
        return passes(*arguments)

    monkeypatch.setattr(Piece, "verdict_logits", counted)
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=1)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda one: one.tensor):
        gap_slopes(replay, values_for(model))
    assert at_start == [0, 0, 0, 0]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same(model_of, model_class, mode):
    model = model_of("llama", model_class)
    expected, _ = gap_slopes(Replay(model, SEQUENCES, VERDICTS), values_for(model))
    with mode():
        found, _ = gap_slopes(Replay(model, SEQUENCES, VERDICTS), values_for(model))
    torch.testing.assert_close(found, expected)
