"""Optimal constants against a search in one dimension on planted heads, and against L-BFGS on a raw Hugging Face model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_circuit import BASE, DIRECT, HINDRANCE, PLACES, planted_circuit
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

from arm_lens.attribution import ablation, optimal_constants
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.selection import JudgingObjective

VERDICTS = VerdictTokens((5,), (6, 7))
N = 6


def sequences(count=N):
    generator = torch.Generator().manual_seed(2)
    return [[1, *torch.randint(3, 200, (3 + number % 3,), generator=generator).tolist()] for number in range(count)]


def objective_of(model, count=N, **options):
    labels = [number % 3 != 0 for number in range(count)]
    return JudgingObjective(Replay(model, sequences(count), VERDICTS), torch.zeros(3, 4, 12), labels, **options)


@pytest.fixture(scope="module", params=[0, 1])
def circuit(request, tokenizer, tmp_path_factory):
    return planted_circuit(tokenizer, tmp_path_factory, seed=request.param)


def costs(margins, unsteered, cost):
    """In nats per example."""
    if cost == "labels":
        return -np.log(expit(margins))
    right, now = expit(unsteered), expit(margins)
    return xlogy(right, right / now) + xlogy(1 - right, (1 - right) / (1 - now))


@pytest.mark.parametrize("cost", ["verdicts", "labels"])
def test_planted_heads_cost_what_a_search_in_one_dimension_finds(circuit, cost):
    """A constant in the place of what these heads say is a lean towards Yes, of any size, and nothing else."""
    found = optimal_constants(circuit.objective(), cost=cost)
    lean = np.array([sign * lean for lean in PLACES.values() for sign in (1, -1)])
    towards_yes = np.array([1, -1] * len(PLACES))
    unsteered = BASE + DIRECT + HINDRANCE + lean
    says = {"reader": BASE, "direct": DIRECT, "hindering": HINDRANCE, "leaning": lean}
    for name, said in says.items():
        best = minimize_scalar(
            lambda constant, said=said: costs(unsteered - said + constant * towards_yes, unsteered, cost).mean(),
            bounds=(-4, 4), method="bounded",
        )  # fmt: skip
        head = circuit.head[name]
        assert float(found.cost[head]) == pytest.approx(best.fun, abs=5e-3 if cost == "labels" else 2e-3), name
        assert float(found.cost[head]) <= min(float(found.zero_cost[head]), float(found.mean_cost[head])) + 1e-9
    silent = [circuit.head[name] for name in ("helpful", "harmful", "synergetic 1")]
    if cost == "verdicts":  # what they say is 0 for every question
        assert max(float(found.cost[head].abs()) for head in silent) < 1e-6


@pytest.mark.parametrize("cost", ["verdicts", "labels"])
def test_no_constant_costs_more_than_zero_or_the_mean(model_of, model_class, cost):
    found = optimal_constants(objective_of(model_of("llama", model_class)), cost=cost)
    least = torch.minimum(found.zero_cost, found.mean_cost)
    assert (found.cost <= least).all() and float((least - found.cost).max()) > 1e-3
    assert cost == "labels" or (found.cost > -1e-7).all()


def test_the_constants_cost_what_they_are_said_to_cost(model_of):
    objective = objective_of(model_of("llama"))
    found, sets = optimal_constants(objective), torch.eye(12, dtype=torch.bool).reshape(12, 3, 4)
    unsteered = objective.margins(torch.zeros(1, 3, 4, dtype=torch.bool)).double().numpy()
    margins = objective.margins(sets, values=found.values).double().numpy()
    expected = costs(margins, unsteered, "verdicts").mean(axis=0)
    np.testing.assert_allclose(found.cost.flatten().numpy(), expected, atol=1e-6)
    lost = ablation(objective, "optimal", folds=1).values["gap"].flatten().numpy()
    np.testing.assert_allclose(lost, (unsteered - margins).mean(axis=0), atol=1e-5)


@pytest.mark.slow
def test_lbfgs_on_the_raw_model_finds_nothing_cheaper(model_of, raw_of):
    """With more examples than numbers in a constant."""
    count, raw, (layer, head) = 24, raw_of("llama"), (1, 2)
    objective = objective_of(model_of("llama"), count)
    found = optimal_constants(objective, heads=[(layer, head)])
    sign = torch.where(objective.labels, 1.0, -1.0).double()

    def margins(constant):
        def write(_, args):
            z = args[0].unflatten(-1, (4, 12))
            last = torch.cat([z[:, -1:, :head], constant.expand(len(z), 1, 1, 12), z[:, -1:, head + 1 :]], dim=2)
            return (torch.cat([z[:, :-1], last], dim=1).flatten(-2),)

        place = raw.get_submodule(f"model.layers.{layer}.self_attn.o_proj")
        handle = None if constant is None else place.register_forward_pre_hook(write)
        logits = torch.stack([raw(torch.tensor([one])).logits[0, -1] for one in sequences(count)])
        if handle:
            handle.remove()
        return sign * (logits[:, 5] - logits[:, 6:8].logsumexp(dim=-1))

    target = torch.sigmoid(margins(None)).detach()
    least = torch.special.entr(target) + torch.special.entr(1 - target)
    constant = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([constant], max_iter=40, line_search_fn="strong_wolfe")

    def cost():
        optimizer.zero_grad()
        now = margins(constant)
        value = (torch.nn.functional.softplus(now) - target * now - least).mean()
        value.backward()
        return value

    optimizer.step(cost)
    best, cheapest_start = float(cost().detach()), float(torch.minimum(found.zero_cost, found.mean_cost)[layer, head])
    assert float(found.cost[layer, head]) <= best + 0.05 * (cheapest_start - best) and best < 0.7 * cheapest_start


def test_all_heads_at_once_and_one_by_one_are_equal(model_of):
    objective = objective_of(model_of("llama"))
    together = optimal_constants(objective)
    for head in [(0, 1), (2, 3)]:
        alone = optimal_constants(objective, heads=[head])
        assert float(alone.cost[head]) == pytest.approx(float(together.cost[head]), abs=1e-6)
        assert int(alone.cost.isnan().sum()) == 11 and bool(alone.values[0, 0].isnan().all())


def test_with_folds_an_example_is_judged_with_the_constant_of_the_others(model_of):
    model, clusters = model_of("llama"), ["a", "a", "b", "b", "c", "c"]
    objective = objective_of(model, clusters=clusters)
    found = ablation(objective, "optimal", folds=3, seed=1, heads=[(1, 2)])
    lost = []
    for cluster in "abc":
        inside = [number for number, one in enumerate(clusters) if one == cluster]
        others = [number for number in range(N) if number not in inside]
        rest = JudgingObjective(
            Replay(model, [sequences()[number] for number in others], VERDICTS),
            torch.zeros(3, 4, 12),
            objective.labels[others].tolist(),
        )
        constants = optimal_constants(rest, heads=[(1, 2)]).values.nan_to_num()
        mask = torch.zeros(2, 3, 4, dtype=torch.bool)
        mask[1, 1, 2] = True
        margins = objective.margins(mask, inside, values=constants)
        lost.append(margins[:, 0] - margins[:, 1])
    assert float(found.values["gap"][1, 2]) == pytest.approx(float(torch.cat(lost).mean()), abs=1e-4)
    within = ablation(objective, "optimal", heads=[(1, 2)], folds=1)
    assert abs(float(within.values["gap"][1, 2] - found.values["gap"][1, 2])) > 1e-3
    with pytest.raises(
        ValueError, match="folds is 1, or from 2 to the number of clusters of examples, which is 3; not 4"
    ):
        ablation(objective, "optimal", folds=4)


def test_constants_for_all_tokens_are_refused(model_of):
    objective = objective_of(model_of("llama"))
    with pytest.raises(ValueError, match="pass positions='last'"):
        ablation(objective, "optimal", positions="all")
