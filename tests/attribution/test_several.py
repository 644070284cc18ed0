"""Several measures at once agree with each by itself, and what cannot be measured is refused before anything is."""

from __future__ import annotations

import pytest

from arm_lens import ActivationRewardModel, HeadSet, Reinforce
from arm_lens.attribution import (
    MEASURES,
    ablation,
    attribute,
    direct_logit_attribution,
    gradient_attribution,
    head_gating,
    injection_effects,
    integrated_gradients,
    leave_one_out_effects,
    scores_of,
    selection_probabilities,
    shapley_values,
)
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.selection import Greedy, SoftGate

pytestmark = pytest.mark.slow


def fit(judge, selector):
    examples = labelled_responses("polite", 16, split="train", seed=0)
    return ActivationRewardModel.fit(
        judge,
        examples,
        selector=selector,
        reading=ReadingOptions(readings=4, demonstrations=2),
        question=QuestionOptions(batch_size=5),
    )


@pytest.fixture(scope="module")
def reward(judge):
    return fit(judge, Reinforce(steps=5, masks=8))


@pytest.fixture(scope="module")
def held_out():
    return labelled_responses("polite", 8, split="test", seed=1)


def test_each_measure_is_that_of_its_own_function(reward, held_out):
    frame = attribute(reward, held_out, standard_error=0.1, seed=3)
    objective = reward.objective(held_out)
    alone = {
        "shapley": shapley_values(objective, standard_error=0.1, seed=3),
        "leave_one_out": leave_one_out_effects(objective, reward.heads),
        "injection": injection_effects(objective),
        "head_gating": head_gating(objective, seed=3),
        "ablation_zero": ablation(objective, "zero"),
        "ablation_mean": ablation(objective, "mean"),
        "ablation_resample": ablation(objective, "resample", seed=3),
        "ablation_optimal": ablation(objective, "optimal", seed=3),
        "integrated_gradients": integrated_gradients(objective),
        "gradient": gradient_attribution(objective),
        "direct": direct_logit_attribution(objective),
        "selection_probability": selection_probabilities(reward.selection),
    }
    assert list(frame["measure"].unique()) == list(MEASURES) == list(alone)
    assert {one.criterion for measure, one in alone.items() if measure != "selection_probability"} == {"polite"}
    assert set(frame["criterion"]) == {"polite"}
    for measure, attribution in alone.items():
        found = scores_of(frame, measure, "gap")["polite"].values
        assert float((found - attribution.head_scores("gap").values).abs().max()) < 1e-4, measure


def test_measures_come_in_the_order_they_were_asked_for(reward, held_out, tmp_path):
    kept = tmp_path / "shapley.pt"
    wanted = ["gradient", "shapley", "injection"]
    frame = attribute(reward, held_out, measures=wanted, standard_error=0.2, checkpoint=kept)
    assert list(frame["measure"].unique()) == wanted and kept.exists()


def test_only_some_heads_are_measured_and_by_every_measure(reward, held_out):
    heads = HeadSet.of(6, 8, [(0, 3), (2, 1), (2, 5), (4, 4)])
    cheap = [one for one in MEASURES if one not in ("head_gating", "ablation_optimal")]
    frame = attribute(reward, held_out, measures=cheap, heads=heads, layers=[2, 4])
    assert set(frame["measure"]) == set(cheap)
    for _, rows in frame.groupby(["measure", "outcome"]):
        assert len(rows) == 48
        known = rows[rows["score"].notna()]
        assert list(zip(known["layer"], known["head"], strict=True)) == [(2, 1), (2, 5), (4, 4)]


def test_what_cannot_be_measured_is_refused(judge, reward, held_out):
    with pytest.raises(ValueError, match="no measure 'shapely'; there are shapley"):
        attribute(reward, held_out, measures=["shapely"])
    with pytest.raises(ValueError, match="measures is empty"):
        attribute(reward, held_out, measures=[])
    given = reward.with_heads(HeadSet.of(6, 8, [(1, 2)]))
    with pytest.raises(ValueError, match="no selection probability"):
        attribute(given, held_out, measures=["selection_probability"])
    with pytest.raises(ValueError, match="the reward model moves all heads by soft gates"):
        attribute(fit(judge, SoftGate(steps=2)), held_out)


def test_a_search_without_probabilities_has_none(judge, held_out):
    wanted = attribute(fit(judge, Greedy(max_heads=1)), held_out, heads=[(1, 2), (3, 4)])["measure"].unique()
    assert set(wanted) == set(MEASURES) - {"selection_probability"}
