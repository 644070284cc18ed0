"""Causal measures on heads that are planted, against closed forms; and on arbitrary games, against definitions."""

from __future__ import annotations

import itertools
import math
import time
from functools import partial

import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from planted_circuit import BASE, DIRECT, GAINS, HINDRANCE, REDUNDANT, SYNERGY, planted_circuit

from arm_lens import HeadScores, HeadSet, Selection
from arm_lens.attribution import (
    ShapleySampler,
    ablation,
    accuracy_by_heads,
    exact_shapley_values,
    gradient_attribution,
    injection_effects,
    interactions,
    leave_one_out_effects,
    outcomes_of,
    selection_probabilities,
    shapley_values,
)
from arm_lens.attribution.result import Attribution, clustered_error
from arm_lens.storage import DamagedFileError

CLOSE = 0.03  # the planted model's norm and bends are not quite what the closed forms take them for


@pytest.fixture(scope="module", params=[0, 1])
def circuit(request, tokenizer, tmp_path_factory):
    return planted_circuit(tokenizer, tmp_path_factory, seed=request.param)


@pytest.fixture(scope="module")
def objective(circuit):
    return circuit.objective()


@pytest.fixture(scope="module")
def exact(objective):
    """Of all twelve heads, readers included."""
    return exact_shapley_values(objective, HeadSet.all(3, 4))


class Game:
    """An arbitrary margin for every set of heads of a model of 2 layers of 3 heads and each of 5 examples."""

    shape = (2, 3)

    def __init__(self, seed, clusters=(0, 1, 2, 3, 4)):
        self.clusters = list(clusters)
        self.of = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))
        self.questions = 0

    def __len__(self):
        return 5

    def margins(self, masks, examples=None):
        self.questions += len(masks)
        return self.of[:, (masks.flatten(1) * 2 ** torch.arange(6)).sum(dim=1)]

    def mean(self, outcome, heads):
        """The outcome of a set of heads numbered 0 to 5."""
        return float(outcomes_of(self.of)[outcome].mean(dim=0)[sum(2**head for head in heads)])


def of(attribution, circuit, name, outcome="gap"):
    return float(attribution.values[outcome][circuit.head[name]])


# ------------------------------------------------------------------------------------------------- planted heads


def test_the_planted_model_does_what_it_is_said_to_do(circuit, objective):
    names = [name for name in circuit.head if circuit.head[name] in circuit.constants]
    sets = [one for size in range(len(names) + 1) for one in itertools.combinations(names, size)]
    found = objective.margins(torch.stack([circuit.players(*one).mask for one in sets]))
    expected = torch.tensor([circuit.margins(one) for one in sets]).T
    assert float((found - expected).abs().max()) < 2 * CLOSE


def test_heads_alone_have_their_planted_effects(circuit, objective):
    found = injection_effects(objective)
    expected = GAINS | {"redundant 1": REDUNDANT, "redundant 2": REDUNDANT, "synergetic 1": 0.0, "synergetic 2": 0.0}
    expected |= {"reader": -BASE, "direct": -DIRECT, "hindering": -HINDRANCE, "leaning": 0.0}
    for name, effect in expected.items():
        assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), name


def test_a_head_left_out_of_all_takes_with_it_what_no_other_does(circuit, objective):
    found = leave_one_out_effects(objective, circuit.constants)
    expected = GAINS | {"redundant 1": 0.0, "redundant 2": 0.0, "synergetic 1": SYNERGY, "synergetic 2": SYNERGY}
    for name, effect in expected.items():
        assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), name


def test_a_head_outside_of_a_set_is_credited_with_what_it_would_add(circuit, objective):
    found = leave_one_out_effects(objective, circuit.players("weak", "redundant 1", "synergetic 1"))
    expected = {"helpful": GAINS["helpful"], "redundant 2": 0.0, "synergetic 2": SYNERGY, "weak": GAINS["weak"]}
    for name, effect in expected.items():
        assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), name


def test_shapley_values_share_what_pairs_do_together(circuit, objective):
    found = shapley_values(objective, circuit.constants)
    expected = GAINS | {name: REDUNDANT / 2 for name in ("redundant 1", "redundant 2")}
    expected |= {name: SYNERGY / 2 for name in ("synergetic 1", "synergetic 2")}
    for name, effect in expected.items():
        assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), name


@pytest.mark.parametrize("outcome", ["accuracy", "probability", "gap"])
@pytest.mark.parametrize("measure", ["injection", "leave_one_out", "shapley"])
def test_signs_and_order_are_the_planted_ones_on_every_outcome(circuit, objective, measure, outcome):
    found = {
        "injection": lambda: injection_effects(objective),
        "leave_one_out": lambda: leave_one_out_effects(objective, circuit.players("harmful")),
        "shapley": lambda: shapley_values(objective, circuit.constants),
    }[measure]()
    value = {name: of(found, circuit, name, outcome) for name in circuit.head}
    assert value["helpful"] > 0 > value["harmful"]
    assert value["helpful"] >= value["weak"] >= 0 >= value["slightly harmful"] >= value["harmful"]
    assert value["redundant 1"] == pytest.approx(value["redundant 2"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["accuracy", "probability", "gap"])
def test_shapley_values_sum_to_the_total_effect(objective, exact, outcome):
    everyone = HeadSet.all(3, 4)
    ends = outcomes_of(objective.margins(torch.stack([HeadSet.none(3, 4).mask, everyone.mask])))[outcome].mean(dim=0)
    sampler = ShapleySampler(objective, everyone, seed=0)
    sampler.sample(6)
    for found in (exact, sampler.result()):
        assert float(found.values[outcome].sum()) == pytest.approx(float(ends[1] - ends[0]), abs=1e-6)


@pytest.mark.slow
def test_sampled_shapley_values_lie_within_three_standard_errors_of_exact_ones(objective, exact):
    found = shapley_values(objective, HeadSet.all(3, 4), exact=False, standard_error=0.02, seed=3)
    for outcome in found.outcomes:
        off = (found.values[outcome] - exact.values[outcome]).abs()
        assert bool((off <= 3 * found.sampling_errors[outcome] + 1e-4).all()), outcome
        assert float(found.sampling_errors[outcome].max()) > 0


@pytest.mark.parametrize("context", ["shapley", "within", "alone"])
def test_planted_pairs_interact_and_others_do_not(circuit, objective, context):
    found = interactions(objective, circuit.constants, context=context)
    planted = {
        frozenset(("redundant 1", "redundant 2")): -REDUNDANT,
        frozenset(("synergetic 1", "synergetic 2")): SYNERGY,
    }
    name = {head: name for name, head in circuit.head.items()}
    for i, j in itertools.combinations(range(8), 2):
        expected = planted.get(frozenset((name[found.heads[i]], name[found.heads[j]])), 0.0)
        assert float(found.values["gap"][i, j]) == pytest.approx(expected, abs=CLOSE)


def test_ablations_of_the_unsteered_model_have_their_planted_signs(circuit, objective):
    expected = {
        "reader": BASE,
        "direct": DIRECT,
        "hindering": HINDRANCE,
        "leaning": 0.0,
        "helpful": 0.0,
        "harmful": 0.0,
    }
    for kind in ("zero", "mean", "resample"):
        found = ablation(objective, kind, resamples=11)
        for name, effect in expected.items():
            if kind == "resample" and name in ("reader", "direct", "hindering"):
                # Another reply's signal is the opposite one 6 times of 11, and the same 5 times.
                effect *= 12 / 11
            assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), (kind, name)
        accuracy = {name: of(found, circuit, name, "accuracy") for name in circuit.head}
        assert accuracy["reader"] > 0 > accuracy["hindering"] and accuracy["direct"] > 0 == accuracy["helpful"]
        if kind != "resample":  # another place's leaning is as bad
            assert accuracy["leaning"] < 0


def test_the_gradient_has_planted_signs_and_overlooks_what_needs_two(circuit, objective):
    found = gradient_attribution(objective)
    expected = GAINS | {"redundant 1": REDUNDANT, "redundant 2": REDUNDANT, "synergetic 1": 0.0, "reader": -BASE}
    for name, effect in expected.items():
        assert of(found, circuit, name) == pytest.approx(effect, abs=CLOSE), name


# ------------------------------------------------------------------------------------------------- arbitrary games


def brute_force_shapley(game, outcome, player, players):
    others = [one for one in players if one != player]
    total = 0.0
    for order in itertools.permutations([*others, player]):
        before = order[: order.index(player)]
        total += game.mean(outcome, (*before, player)) - game.mean(outcome, before)
    return total / math.factorial(len(players))


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["accuracy", "probability", "gap"])
@pytest.mark.parametrize("players", [(0, 1, 2, 3, 4, 5), (1, 4, 5), (2,)])
def test_exact_shapley_values_average_over_all_orders(players, outcome):
    game = Game(1)
    found = exact_shapley_values(game, HeadSet.of(2, 3, [divmod(player, 3) for player in players]))
    for player in range(6):
        value = float(found.values[outcome][divmod(player, 3)])
        if player in players:
            assert value == pytest.approx(brute_force_shapley(game, outcome, player, players), abs=1e-6)
        else:
            assert math.isnan(value)


def test_sampling_errors_are_as_large_as_the_errors_are():
    everyone, ratios = HeadSet.all(2, 3), []
    for seed in range(12):
        game = Game(seed)
        exact = exact_shapley_values(game, everyone).values
        sampler = ShapleySampler(game, everyone, seed=seed)
        sampler.sample(60)
        found = sampler.result()
        ratios += [((found.values[one] - exact[one]) / found.sampling_errors[one]).flatten() for one in found.outcomes]
    squared = float(torch.cat(ratios).square().mean())
    assert 0.7 < squared < 1.4


def test_antithetic_orders_are_more_precise_than_their_number():
    game, everyone = Game(3), HeadSet.all(2, 3)
    game.of = (torch.tensor([[1.0, -2.0, 0.5, 3.0, 1.5, -1.0]] * 5) @ sets_of_six()) ** 2 / 4  # pairs, and no more
    exact = exact_shapley_values(game, everyone).values["gap"]
    sampler = ShapleySampler(game, everyone, seed=0)
    sampler.sample(2)
    assert torch.allclose(sampler.result().values["gap"], exact, atol=1e-5)  # one order and its reverse tell all of it


def sets_of_six():
    return ((torch.arange(64)[None] >> torch.arange(6)[:, None]) % 2).float()


def test_an_interrupted_sampling_goes_on_to_the_same_values(tmp_path):
    everyone = HeadSet.all(2, 3)
    whole = shapley_values(Game(5), everyone, exact=False, standard_error=0.0, max_permutations=1000)

    class Interrupted(Game):
        def margins(self, masks, examples=None):
            if self.questions > 1200:
                raise KeyboardInterrupt
            return super().margins(masks, examples)

    kept = tmp_path / "shapley.pt"
    options = {"exact": False, "standard_error": 0.0, "checkpoint": kept}
    with pytest.raises(KeyboardInterrupt):
        shapley_values(Interrupted(5), everyone, max_permutations=1000, **options)
    again = Game(5)
    resumed = shapley_values(again, everyone, max_permutations=1000, **options)
    assert again.questions < 5 * 1000 - 900
    for outcome in whole.outcomes:
        assert torch.equal(whole.values[outcome], resumed.values[outcome])
        assert torch.equal(whole.sampling_errors[outcome], resumed.sampling_errors[outcome])


def test_an_interrupted_sampler_keeps_what_it_had():
    game, everyone = Game(2), HeadSet.all(2, 3)
    sampler, twin = ShapleySampler(game, everyone, seed=1), ShapleySampler(game, everyone, seed=1)
    sampler.sample(10)
    twin.sample(10)
    twin.sample(10)
    questions, game.margins = game.margins, lambda masks: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        sampler.sample(10)
    game.margins = questions
    assert sampler.permutations == 10
    sampler.sample(10)
    assert torch.equal(sampler.result().values["gap"], twin.result().values["gap"])


@pytest.mark.parametrize("other", ["examples", "heads", "seed"])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, other):
    kept, everyone = tmp_path / "shapley.pt", HeadSet.all(2, 3)
    shapley_values(Game(5), everyone, exact=False, max_permutations=10, checkpoint=kept)
    game, heads, seed = Game(5), everyone, 0
    if other == "examples":
        game = Game(6)
    elif other == "heads":
        heads = HeadSet.of(2, 3, [(0, 0), (1, 2)])
    else:
        seed = 1
    with pytest.raises(ValueError, match="other heads, examples, means or another seed"):
        shapley_values(game, heads, exact=False, seed=seed, max_permutations=10, checkpoint=kept)


def test_a_checkpoint_of_means_that_agree_on_no_and_all_heads_is_refused(tmp_path):
    class Other(Game):
        def margins(self, masks, examples=None):
            some = masks.sum(dim=(1, 2)) % 6 != 0  # neither none nor all
            return super().margins(masks, examples) + 0.5 * some

    kept, everyone = tmp_path / "shapley.checkpoint", HeadSet.all(2, 3)
    shapley_values(Game(5), everyone, exact=False, max_permutations=10, checkpoint=kept)
    with pytest.raises(ValueError, match="other heads, examples, means or another seed"):
        shapley_values(Other(5), everyone, exact=False, max_permutations=10, checkpoint=kept)


@pytest.mark.parametrize("place", [0, 40, 200, 1500, -1])
def test_a_damaged_checkpoint_is_refused_and_named(tmp_path, place):
    kept, everyone = tmp_path / "shapley.checkpoint", HeadSet.all(2, 3)
    shapley_values(Game(5), everyone, exact=False, max_permutations=10, checkpoint=kept)
    content = bytearray(kept.read_bytes())
    content[place] ^= 1
    for damaged in (bytes(content), bytes(content)[:place], b"somebody's notes", b""):
        kept.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"shapley\.checkpoint was changed or damaged"):
            shapley_values(Game(5), everyone, exact=False, max_permutations=10, checkpoint=kept)
        assert kept.read_bytes() == damaged


def test_sampling_stops_when_it_is_precise_enough_and_not_before():
    game, everyone = Game(7), HeadSet.all(2, 3)
    errors = []
    for wanted in (0.03, 0.015):
        found = shapley_values(game, everyone, exact=False, standard_error=wanted)
        errors.append(max(float(found.sampling_errors[outcome].max()) for outcome in ("accuracy", "probability")))
        assert wanted / 2 < errors[-1] <= wanted


class Triple:
    """A large model in which any one of three heads is as good as all of them."""

    shape = (8, 64)
    heads = ((0, 7), (1, 3), (5, 63))

    def __init__(self):
        self.clusters, self.questions = list(range(4)), 0

    def __len__(self):
        return 4

    def margins(self, masks, examples=None):
        self.questions += len(masks)
        any_of = torch.stack([masks[:, layer, head] for layer, head in self.heads]).any(dim=0)
        return (2.0 * any_of.float() - 1.0).expand(4, -1).contiguous()


@pytest.mark.parametrize("seed", range(4))
def test_agreement_of_the_first_few_orders_is_not_taken_for_precision(seed):
    found = shapley_values(Triple(), standard_error=0.03, seed=seed)
    for head in Triple.heads:
        error = float(found.sampling_errors["accuracy"][head])
        assert error > 0 and abs(float(found.values["accuracy"][head]) - 1 / 3) < 3 * error + 0.01
    assert float(found.values["accuracy"].sum()) == pytest.approx(1.0)


def test_sampled_interactions_stop_where_they_are_told_and_need_every_pair():
    game = Game(0)
    with pytest.raises(ValueError, match=r"5 orders are too few for 6 heads: .* came up less than twice"):
        interactions(game, HeadSet.all(2, 3), exact=False, max_permutations=5)
    assert game.questions == 5 * (7 + 5)


def test_a_checkpoint_is_read_on_though_batches_changed_the_last_digits(tmp_path):
    kept, everyone = tmp_path / "shapley.pt", HeadSet.all(2, 3)
    first = shapley_values(Game(5), everyone, exact=False, max_permutations=10, checkpoint=kept)
    game = Game(5)
    game.of = game.of + 1e-5 * torch.randn(5, 64)
    again = shapley_values(game, everyone, exact=False, max_permutations=10, checkpoint=kept)
    assert torch.equal(first.values["gap"], again.values["gap"])


@pytest.mark.parametrize("outcome", ["accuracy", "probability", "gap"])
def test_interactions_are_second_differences(outcome):
    game, everyone = Game(4), HeadSet.all(2, 3)

    def difference(i, j, others):
        return (
            game.mean(outcome, {i, j, *others}) - game.mean(outcome, {i, *others})
            - game.mean(outcome, {j, *others}) + game.mean(outcome, others)
        )  # fmt: skip

    found = {context: interactions(game, everyone, context=context) for context in ("alone", "within", "shapley")}
    for i, j in itertools.combinations(range(6), 2):
        rest = [one for one in range(6) if one not in (i, j)]
        sizes = [
            sum(difference(i, j, some) for some in itertools.combinations(rest, size)) / math.comb(4, size)
            for size in range(5)
        ]
        expected = {"alone": difference(i, j, ()), "within": difference(i, j, rest), "shapley": sum(sizes) / 5}
        for context, value in expected.items():
            assert float(found[context].values[outcome][i, j]) == pytest.approx(value, abs=1e-6), context
            assert float(found[context].values[outcome][j, i]) == pytest.approx(value, abs=1e-6), context


def test_sampled_interactions_lie_within_three_standard_errors_of_exact_ones():
    ratios = []
    for seed in range(4):
        game, everyone = Game(seed), HeadSet.all(2, 3)
        exact = interactions(game, everyone)
        found = interactions(game, everyone, exact=False, standard_error=0.05, seed=seed)
        for outcome in found.values:
            off = (found.values[outcome] - exact.values[outcome]) / found.sampling_errors[outcome]
            ratios.append(off[~off.isnan()])
    ratios = torch.cat(ratios)
    assert len(ratios) == 4 * 3 * 30
    assert float((ratios.abs() > 3).float().mean()) < 0.01 and 0.7 < float(ratios.square().mean()) < 1.4


# ------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("clusters", [(0, 1, 2, 3, 4), (0, 0, 1, 1, 2), ("a", "b", "b", "b", "a")])
def test_standard_errors_are_those_of_a_clustered_regression_on_a_constant(clusters):
    values = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = [sorted(set(clusters)).index(one) for one in clusters]
    fit = sm.OLS(values.numpy(), [1.0] * 5).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert float(clustered_error(values[:, None], clusters)[0]) == pytest.approx(float(fit.bse[0]))


def test_one_cluster_tells_nothing_of_others():
    assert math.isnan(float(clustered_error(torch.randn(4, 1), ["a"] * 4)[0]))
    assert float(clustered_error(torch.full((7, 1), 1 / 3), list("abcdefg"))[0]) == 0  # and not what rounding leaves
    assert math.isnan(float(clustered_error(torch.tensor([[math.nan], [1.0]]), ["a", "b"])[0]))


def test_frames_hold_a_row_per_outcome_and_head_with_interval_and_n():
    frame = injection_effects(Game(0, clusters=(0, 0, 1, 1, 2)), criterion="polite").frame()
    assert len(frame) == 3 * 6 and set(frame["criterion"]) == {"polite"} and set(frame["n"]) == {5}
    game = Game(0)
    for row in frame.itertuples():
        expected = game.mean(row.outcome, [row.layer * 3 + row.head]) - game.mean(row.outcome, [])
        assert row.score == pytest.approx(expected, abs=1e-6)
    # Student's t with two degrees of freedom; or what three clusters without exception allow.
    varied = frame[frame["se"] > 0]
    assert ((varied["ci_high"] - varied["score"]) / varied["se"]).to_numpy() == pytest.approx(4.3027, abs=1e-3)
    alike = frame[(frame["se"] == 0) & (frame["outcome"] == "accuracy")]
    assert (alike["ci_high"] - alike["score"]).to_numpy() == pytest.approx(1 - 0.025 ** (1 / 3))


def test_no_change_in_a_few_examples_is_no_certainty():
    found = Attribution.of({"accuracy": torch.zeros(12, 1, 1)}, range(12), measure="odd").frame().iloc[0]
    assert found["ci_low"] < -0.2 and found["ci_high"] > 0.2
    assert (1 - found["ci_high"]) ** 12 == pytest.approx(0.025)  # as many changes would have gone unseen so often


def test_heads_that_were_not_measured_are_never_at_the_top():
    found = exact_shapley_values(Game(1), HeadSet.of(2, 3, [(0, 2), (1, 1)]))
    assert found.head_scores("gap").top(2) == HeadSet.of(2, 3, [(0, 2), (1, 1)])
    with pytest.raises(ValueError, match="top 3 of 2 heads"):
        found.head_scores("gap").top(3)


def test_an_outcome_that_was_not_measured_is_named():
    found = Attribution.of({"gap": torch.rand(5, 2, 3)}, range(5), measure="odd")
    with pytest.raises(ValueError, match="'odd' was measured on 'gap', not on 'accuracy'"):
        found.head_scores("accuracy")


def test_selection_probabilities_answer_for_every_outcome():
    values = torch.rand(2, 3)
    selection = Selection(HeadSet.none(2, 3), HeadScores("selection probability", values), pd.DataFrame())
    found = selection_probabilities(selection)
    other = Selection(HeadSet.none(2, 3), HeadScores("gain when the head was added", values), pd.DataFrame())
    with pytest.raises(ValueError, match="'gain when the head was added', which is not a probability"):
        selection_probabilities(other)
    assert torch.allclose(found.head_scores("gap").values, values) and set(found.frame()["outcome"]) == {"search"}


# ------------------------------------------------------------------------------------------------- number of heads


def test_the_accuracy_of_the_top_heads_is_that_of_their_set(circuit, objective):
    order = ["helpful", "redundant 1", "weak", "harmful"]
    scores = torch.zeros(3, 4)
    for place, name in enumerate(order):
        scores[circuit.head[name]] = 10.0 - place
    found = accuracy_by_heads(objective, {"planted": HeadScores("planted", scores)}, sizes=[0, 1, 2, 3, 4])
    planted = found[found["ranking"] == "planted"].set_index("heads")
    for size in range(5):
        margins = torch.tensor(circuit.margins(order[:size]))
        assert planted.loc[size, "accuracy"] == pytest.approx(float((margins > 0).float().mean()))
        assert planted.loc[size, "ci_low"] <= planted.loc[size, "accuracy"] <= planted.loc[size, "ci_high"]


def test_heads_without_a_score_come_last_and_random_orders_are_a_control():
    game = Game(0)
    values = torch.tensor([[float("nan"), -3.0, -1.0], [-2.0, float("nan"), -4.0]])
    found = accuracy_by_heads(game, {"some": HeadScores("some", values)}, random_rankings=3).set_index(
        ["ranking", "heads"]
    )
    first = [2, 3, 1, 5]
    for size in (0, 1, 2, 3, 4):
        assert found.loc[("some", size), "accuracy"] == pytest.approx(game.mean("accuracy", first[:size]), abs=1e-6)
    for size in (0, 6):  # every order begins and ends alike
        assert found.loc[("random", size), "accuracy"] == pytest.approx(found.loc[("some", size), "accuracy"])


# ------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_measured_is_said():
    game = Game(0)
    for refused in (ShapleySampler, shapley_values, exact_shapley_values):
        with pytest.raises(ValueError, match="no heads"):
            refused(game, HeadSet.none(2, 3))
    with pytest.raises(ValueError, match="on 'accuracy', 'probability', 'gap', not on 'search'"):
        interactions(game, HeadSet.all(2, 3)).matrix("search")
    with pytest.raises(ValueError, match="no order"):
        ShapleySampler(game, HeadSet.all(2, 3)).result()
    with pytest.raises(ValueError, match="two heads, not 1"):
        interactions(game, HeadSet.of(2, 3, [(0, 0)]))

    class Large(Game):
        shape = (4, 6)

    for refused in (exact_shapley_values, partial(interactions, exact=True)):
        started = time.process_time()
        with pytest.raises(ValueError, match="16 heads can be enumerated, not 24"):
            refused(Large(0), HeadSet.all(4, 6))
        assert time.process_time() - started < 1, "their sets were made first"
    with pytest.raises(ValueError, match="'random'"):
        accuracy_by_heads(game, {"random": HeadScores("x", torch.rand(2, 3))})
