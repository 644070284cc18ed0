"""A study of heads: its tables agree with the functions they come from, what is finished is kept, runs can be studied."""

from __future__ import annotations

from dataclasses import fields

import pandas as pd
import pytest

from arm_lens import ActivationRewardModel, Greedy, HeadSet, Reinforce
from arm_lens.attribution import MEASURES, injection_effects, scores_of
from arm_lens.evaluation import DemoOptions, run_demo
from arm_lens.judge_model import labelled_responses
from arm_lens.study import HeadStudy, study_heads, study_run

CRITERIA = ("positive", "polite", "brief/list")


@pytest.fixture(scope="module")
def rewards(judge):
    return {
        name: ActivationRewardModel.fit(
            judge,
            labelled_responses(name.split("/")[0], 20, split="train", seed=0),
            criterion=name,
            selector=Greedy(max_heads=3),
            readings=4,
            shots=4,
            batch_size=5,
        )
        for name in CRITERIA
    }


@pytest.fixture(scope="module")
def examples():
    return {name: labelled_responses(name.split("/")[0], 12, split="test", seed=1) for name in CRITERIA}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(rewards, examples, kept):
    return study_heads(rewards, examples, out=kept, standard_error=0.1, random_draws=2)


def test_every_head_has_every_measure_of_every_criterion(study):
    counts = study.attributions.groupby(["criterion", "measure", "outcome"]).size()
    assert (counts == 48).all()
    assert set(study.attributions["criterion"]) == set(CRITERIA) and set(study.attributions["measure"]) == set(MEASURES)
    assert len(counts) == 3 * (8 * 3 + 1)


def test_heads_are_attributed_on_one_half_and_rankings_judged_on_the_other(study, rewards, examples):
    some = examples["polite"]
    met, not_met = [one for one in some if one.label], [one for one in some if not one.label]
    first = [*met[: len(met) // 2], *not_met[: len(not_met) // 2]]
    expected = injection_effects(rewards["polite"].objective(first)).values["gap"]
    found = scores_of(study.attributions, "injection", "gap")["polite"].values
    assert float((found - expected).abs().max()) < 1e-5
    rest = study.curve[(study.curve["criterion"] == "polite") & (study.curve["heads"] == 0)]
    assert set(rest["n"]) == {len(some) - len(first)} and rest["accuracy"].nunique() == 1


def test_tables_hold_pairs_of_criteria_and_the_chosen_heads(study, rewards):
    assert len(study.overlap) == len(study.rank_correlation) == 3
    assert set(study.transfer["used_for"]) == set(CRITERIA) and set(study.depth["name"]) == set(CRITERIA)
    chosen = study.heads[study.heads["selected"]].groupby("criterion").size()
    assert {name: len(reward.heads) for name, reward in rewards.items()} == chosen.to_dict()
    assert study.stability.empty and study.trajectory.empty  # one seed; a search without trajectory


def test_a_study_comes_back_from_disk(study, kept):
    again = HeadStudy.load(kept)
    for field in fields(HeadStudy):
        ours, theirs = getattr(study, field.name), getattr(again, field.name)
        assert ours.empty == theirs.empty
        if not ours.empty:
            pd.testing.assert_frame_equal(ours, theirs)


def test_what_is_finished_is_not_made_again_and_what_changed_is(study, rewards, examples, kept):
    def parts():
        return {path: path.stat().st_mtime_ns for path in (kept / "parts").rglob("*.parquet")}

    before = parts()
    assert len(before) == 9
    again = study_heads(rewards, examples, out=kept, standard_error=0.1, random_draws=2)
    assert parts() == before
    pd.testing.assert_frame_equal(again.attributions, study.attributions)
    study_heads(rewards, examples | {"polite": examples["polite"][:8]}, out=kept, standard_error=0.1, random_draws=2)
    after = parts()
    assert len(after) == 12 and all(after[path] == when for path, when in before.items())


def test_a_folder_without_a_study_names_the_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"heads\.parquet is missing"):
        HeadStudy.load(tmp_path)


def test_a_criterion_without_examples_is_named(rewards, examples):
    with pytest.raises(ValueError, match="study 'polite'"):
        study_heads(rewards, examples | {"polite": []})
    with pytest.raises(ValueError, match="no reward models"):
        study_heads({}, {})


def test_given_heads_are_studied_without_a_search(rewards, examples):
    given = {name: rewards[name].with_heads(HeadSet.of(6, 8, [(3, 2), (4, 0)])) for name in CRITERIA[:1]}
    study = study_heads(given, examples, standard_error=0.2, random_draws=2)
    assert "selection_probability" not in set(study.attributions["measure"]) and study.overlap.empty


def test_the_reward_models_of_a_run_are_studied_on_its_items(judge, tmp_path):
    options = DemoOptions(
        criteria=("positive",), seeds=(0, 1), examples=12, test_items=20, shots=1, random_draws=1,
        selector=Reinforce(steps=3), 
    )  # fmt: skip
    results = run_demo(tmp_path, options=options, model=judge, progress=False)
    study = study_run(tmp_path, model=judge, examples=12, standard_error=0.3)
    assert set(study.attributions["n"]) <= {0, 6}
    assert len(study.stability) == 1 and study.trajectory["step"].max() == 2
    pd.testing.assert_frame_equal(study.heads, results.heads)
    assert (tmp_path / "study" / "attributions.parquet").exists()
