"""Integrated gradients against gates that are opened one prompt at a time, and on planted heads."""

from __future__ import annotations

import pytest
import torch
from planted_circuit import GAINS, REDUNDANT, SYNERGY, planted_circuit

from arm_lens import HeadSet, Injection
from arm_lens.attribution import CompletenessWarning, injection_effects, integrated_gradients, outcomes_of
from arm_lens.engine import Replay, VerdictTokens, gated_verdicts
from arm_lens.selection import JudgingObjective

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
SOME = HeadSet.of(3, 4, [(0, 1), (1, 3), (2, 0), (2, 1)])


def objective_of(model, injection=None, **options):
    values = torch.randn(3, 4, model.cfg.d_head, generator=torch.Generator().manual_seed(3))
    return JudgingObjective(Replay(model, SEQUENCES, VERDICTS, injection=injection, **options), values, LABELS)


def effect(objective, heads, outcome):
    ends = outcomes_of(objective.margins(torch.stack([torch.zeros_like(heads.mask), heads.mask])))[outcome]
    return float((ends[:, 1] - ends[:, 0]).mean())


@pytest.mark.parametrize("injection", [Injection(), Injection(mode="add", strength=0.5)], ids=lambda one: one.mode)
def test_values_are_the_mean_slope_along_the_way(model_of, model_class, injection):
    objective = objective_of(model_of("llama", model_class), injection)
    found = integrated_gradients(objective, SOME, steps=3)
    sign, slopes = torch.where(objective.labels, 1.0, -1.0), {"gap": [], "probability": []}
    for share in (1 / 6, 3 / 6, 5 / 6):
        gates = (share * SOME.mask).requires_grad_()
        verdicts = gated_verdicts(objective.replay, gates, objective.values, False)
        margins = sign * (verdicts[:, 0] - verdicts[:, 1])
        for outcome, values in (("gap", margins), ("probability", torch.sigmoid(margins))):
            slopes[outcome].append(torch.autograd.grad(values.mean(), gates, retain_graph=True)[0])
    for outcome, parts in slopes.items():
        expected = torch.stack(parts).mean(dim=0).double()[SOME.mask]
        torch.testing.assert_close(found.values[outcome][SOME.mask], expected, atol=1e-5, rtol=1e-4)
        assert bool(found.values[outcome][~SOME.mask].isnan().all())
    assert found.outcomes == ("probability", "gap") and found.n == 4
    with pytest.raises(ValueError, match="on 'probability', 'gap', not on 'accuracy'"):
        found.head_scores("accuracy")


def test_they_add_up_to_the_effect_of_the_set_as_steps_grow(model_of, model_class):
    objective = objective_of(model_of("gpt2", model_class))
    everyone = HeadSet.all(3, 4)
    few, many = integrated_gradients(objective, steps=4), integrated_gradients(objective, steps=64)
    for outcome in ("gap", "probability"):
        total = effect(objective, everyone, outcome)
        assert abs(total) > 0.02
        assert float(many.values[outcome].sum()) == pytest.approx(total, abs=2e-3 * max(1, abs(total)))
        for found in (few, many):
            missing = total - float(found.values[outcome].sum())
            assert found.completeness_gap[outcome] == pytest.approx(missing, abs=1e-5)
    assert (
        abs(many.completeness_gap["gap"]) < abs(few.completeness_gap["gap"]) / 20
    )  # the midpoint rule: 1 / steps ** 2


def test_that_too_much_is_missing_is_said(model_of):
    objective = objective_of(model_of("llama"))
    strong = JudgingObjective(objective.replay, 20 * objective.values, LABELS)
    with pytest.warns(
        CompletenessWarning, match="of 12 heads with 1 step add up to .* on gap, where .* pass more steps"
    ):
        integrated_gradients(strong, steps=1)
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        integrated_gradients(objective, steps=0)


def test_a_head_alone_has_its_effect(model_of):
    objective = objective_of(model_of("llama"))
    found = integrated_gradients(objective, [(1, 3)], steps=200)
    alone = injection_effects(objective, heads=[(1, 3)])
    for outcome in ("gap", "probability"):
        assert float(found.values[outcome][1, 3]) == pytest.approx(float(alone.values[outcome][1, 3]), abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_pairs_share_and_others_have_their_gain(tokenizer, tmp_path_factory, seed):
    circuit = planted_circuit(tokenizer, tmp_path_factory, seed=seed)
    found = integrated_gradients(circuit.objective(), circuit.constants)
    expected = GAINS | {name: REDUNDANT / 2 for name in ("redundant 1", "redundant 2")}
    expected |= {name: SYNERGY / 2 for name in ("synergetic 1", "synergetic 2")}
    for name, head in circuit.head.items():
        value = float(found.values["gap"][head])
        assert value == pytest.approx(expected[name], abs=0.03) if name in expected else value != value, name


def test_batches_do_not_matter(model_of):
    model = model_of("llama")
    found = integrated_gradients(objective_of(model), steps=5)
    cut = integrated_gradients(objective_of(model, batch_size=1, memory_budget=1), steps=5)
    for outcome in found.outcomes:
        assert float((found.values[outcome] - cut.values[outcome]).abs().max()) < 1e-6
