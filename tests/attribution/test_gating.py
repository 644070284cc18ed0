"""Causal head gating on planted heads, against soft gates of one fit, and what its tables say."""

from __future__ import annotations

import math

import pytest
import torch
from planted_circuit import planted_circuit

from arm_lens import HeadSet
from arm_lens.attribution import head_gating
from arm_lens.attribution.gating import _Gated, _resampled
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.selection import JudgingObjective

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
FITS = 10


def roles_of(found, circuit):
    name = {head: name for name, head in circuit.head.items()}
    table = found.roles()
    return table.set_index(table.apply(lambda row: name[row["layer"], row["head"]], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_heads_have_their_roles_in_ten_fits_of_ten(tokenizer, tmp_path_factory, seed):
    """In each, another start and another sample of the examples."""
    circuit = planted_circuit(tokenizer, tmp_path_factory, seed=seed)
    found = head_gating(circuit.objective(), fits=FITS, seed=seed)
    table = roles_of(found, circuit)
    for role, names in {
        "facilitating": ["helpful", "weak"],
        "interfering": ["harmful", "reader"],
    }.items():
        for name in names:
            assert table.loc[name, role] == 1.0 and table.loc[name, "role"] == role, name
            score = {"facilitating": 1.0, "interfering": -1.0}[role]
            assert float(found.values["search"][circuit.head[name]]) == pytest.approx(score, abs=0.15)
    one, other = (circuit.head[name] for name in ("redundant 1", "redundant 2"))
    assert (found.gates_open[:, one[0], one[1]] > 0.9).all() and (found.gates_open[:, other[0], other[1]] > 0.9).all()
    # One head's worth of the two is enough, in every fit; which one it is depends on the fit.
    both = found.gates_closed[:, one[0], one[1]] + found.gates_closed[:, other[0], other[1]]
    assert both.tolist() == pytest.approx([1.0] * FITS, abs=0.15)
    assert table.loc[["redundant 1", "redundant 2"], "facilitating"].between(0.05, 0.95).all()
    assert (table.loc[["redundant 1", "redundant 2"], "interfering"] == 0).all()
    assert float(found.errors["search"][one]) > 2 * float(found.errors["search"][circuit.head["helpful"]])


@pytest.mark.slow
@pytest.mark.parametrize(("gates", "seed"), [("zero", 0), ("mean", 1)])
def test_heads_that_the_model_uses_are_facilitating_and_idle_ones_irrelevant(tokenizer, tmp_path_factory, gates, seed):
    circuit = planted_circuit(tokenizer, tmp_path_factory, seed=seed)
    found = head_gating(circuit.objective(), gates, fits=FITS)
    table = roles_of(found, circuit)
    for role, names in {
        "facilitating": ["reader", "direct"],
        "interfering": ["hindering"],
        "irrelevant": ["helpful", "weak", "harmful", "redundant 1", "synergetic 2"],
    }.items():
        for name in names:
            assert table.loc[name, role] == 1.0, name
    assert found.measure == f"head_gating_{gates}"


@pytest.mark.parametrize("gates", ["injection", "zero", "mean"])
def test_the_reward_and_its_gradient_are_those_of_one_setting_at_a_time(model_of, model_class, gates):
    model = model_of("llama", model_class)
    values = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))
    replay, eligible = Replay(model, SEQUENCES, VERDICTS), torch.ones(3, 4, dtype=torch.bool)
    eligible[1, 2] = False
    objective = JudgingObjective(replay, values, LABELS, "probability")
    weights = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.5, 1.0], [1.5, 1.0]])
    settings = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1))
    settings = (settings * eligible).requires_grad_()
    found = _Gated(objective, gates, eligible, weights).gated(settings)
    slopes = torch.autograd.grad(found.sum(), settings)[0]
    z = replay.hook_z(torch.zeros(1, 3, 4, dtype=torch.bool), values)[:, 0]
    written = {"injection": values, "zero": torch.zeros_like(values), "mean": z.mean(dim=0)}[gates]
    alone = JudgingObjective(replay, written, LABELS, "two_way")
    for place, setting in enumerate(settings.detach()):
        setting.requires_grad_()
        rewards = weights[:, place] * alone.gated(setting if gates == "injection" else (1 - setting) * eligible)
        torch.testing.assert_close(found[:, place], rewards, atol=1e-5, rtol=1e-5)
        expected = torch.autograd.grad(rewards.sum(), setting)[0]
        torch.testing.assert_close(slopes[place][eligible], expected[eligible], atol=1e-5, rtol=1e-4)


def test_whole_clusters_are_sampled():
    weights = _resampled(["a", "b", "a", "c", "b", "b"], 200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.mean(dim=0), torch.ones(200))
    assert torch.equal(weights[0], weights[2]) and torch.equal(weights[1], weights[5])
    assert not torch.equal(weights[0], weights[1])
    absent = (weights[3] == 0).float().mean()  # one of three clusters, in three draws
    assert float(absent) == pytest.approx((2 / 3) ** 3, abs=0.1)


def test_what_is_found_is_in_the_tables(model_of):
    model = model_of("llama")
    values = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values, LABELS, criterion="warm")
    some = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    found = head_gating(objective, heads=some, fits=3, steps=4, seed=5)
    again = head_gating(objective, heads=some, fits=3, steps=4, seed=5)
    other = head_gating(objective, heads=some, fits=3, steps=4, seed=6)
    assert torch.equal(found.gates_closed.nan_to_num(), again.gates_closed.nan_to_num())
    assert not torch.equal(found.gates_closed.nan_to_num(), other.gates_closed.nan_to_num())
    scores = found.gates_open + found.gates_closed - 1
    torch.testing.assert_close(found.values["search"][some.mask], scores.mean(dim=0).double()[some.mask])
    torch.testing.assert_close(found.errors["search"][some.mask], scores.double().std(dim=0)[some.mask])
    ratio = found.errors["search"][some.mask] / found.sampling_errors["search"][some.mask]
    assert ratio.tolist() == pytest.approx([math.sqrt(3)] * 2)
    assert bool(found.values["search"][~some.mask].isnan().all())
    table = found.roles()
    assert list(zip(table["layer"], table["head"], strict=True)) == [(0, 1), (2, 3)]
    assert (table[["facilitating", "irrelevant", "interfering"]].sum(axis=1) - 1).abs().max() < 1e-9
    assert set(table["criterion"]) == {"warm"} and set(table["n_fits"]) == {3}
    assert set(found.frame()["outcome"]) == {"search"} and "by 3 fits" in repr(found)
    with pytest.raises(ValueError, match="at least 2 fits"):
        head_gating(objective, fits=1)
