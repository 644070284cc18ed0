"""The demonstration, cut down: the same heads as direct fits, with reward models that are kept."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from arm_lens import ActivationRewardModel, HeadSet, Reinforce
from arm_lens.benchmark import DEMONSTRATION, BenchmarkResults, head_frames, read_config, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import REWARD_MODELS
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions

pytestmark = pytest.mark.slow

CRITERIA, SAMPLES, TESTED, READINGS = ("polite", "list"), 2, 20, 8
SEARCH = {"steps": 5, "threshold": 0.3}  # below the usual one, so that a short search finds some heads and not others


def cut(**more) -> BenchmarkConfig:
    """The demonstration with fewer of everything that takes time, and nothing else changed."""
    values = read_config(DEMONSTRATION).model_dump(exclude_unset=True)
    for choice in values["judges"]:
        if "selector" in choice:
            choice["selector"].get("like", choice["selector"]).update(SEARCH)
        if "seeds" in choice:
            choice["seeds"] = 3
    values["studies"][0]["criteria"] = CRITERIA
    values |= {"samples": SAMPLES, "test_items": TESTED, "readings": READINGS, "workers": 1}
    return BenchmarkConfig.model_validate(values | more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and its results."""
    out = tmp_path_factory.mktemp("demonstration")
    return out, run_benchmark(cut(), out, progress=False)


@pytest.fixture(scope="module")
def direct(judge):
    """The reward model of each criterion and seed, fitted by hand."""
    return {
        (criterion, seed): ActivationRewardModel.fit(
            judge,
            labelled_responses(criterion, 40, split="train", seed=seed),
            question=QuestionOptions(batch_size=5),
            reading=ReadingOptions(demonstrations=8, readings=READINGS, seed=seed),
            selector=Reinforce(**SEARCH),
        )
        for criterion in CRITERIA
        for seed in range(SAMPLES)
    }


def test_the_heads_are_those_of_direct_fits(run, direct):
    heads = run[1].of_lead("heads")
    for (criterion, seed), reward in direct.items():
        assert 0 < len(reward.heads) < 48
        own = heads[(heads["criterion"] == criterion) & (heads["seed"] == seed)].reset_index(drop=True)
        expected, history = head_frames(reward)
        pd.testing.assert_frame_equal(own[expected.columns], expected)
        chosen = own[own["selected"]]
        assert list(zip(chosen["layer"], chosen["head"], strict=True)) == [
            tuple(head) for head in reward.heads.to_list()
        ]
        steps = run[1].of_lead("history")
        steps = steps[(steps["criterion"] == criterion) & (steps["seed"] == seed)].reset_index(drop=True)
        pd.testing.assert_frame_equal(steps[history.columns], history)


def test_rewards_are_those_of_direct_fits_on_the_promised_replies(run, direct):
    items = run[1].of_lead("items")
    for (criterion, seed), reward in direct.items():
        test = labelled_responses(criterion, TESTED, split="test", seed=1_000_000)
        own = items[(items["subset"] == criterion) & (items["seed"] == seed)]
        assert own["response"].tolist() == [one.response for one in test]
        assert own["label"].tolist() == [one.label for one in test]
        expected = reward.score([one.prompt for one in test], [one.response for one in test], kind="two_way")
        assert own["reward"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_reward_models_are_kept_under_their_criterion_and_seed(run, direct, judge):
    out, results = run
    assert {path.name for path in (out / REWARD_MODELS).iterdir()} == {f"{name}-{seed}" for name, seed in direct}
    for (criterion, seed), expected in direct.items():
        kept = ActivationRewardModel.load(out / REWARD_MODELS / f"{criterion}-{seed}", judge)
        assert kept.heads == expected.heads and bool((kept.means.values == expected.means.values).all())
        assert (kept.record.criterion, kept.record.seed) == (criterion, seed)
        assert kept.record == expected.record
    assert set(results.fits["reward_model"].dropna()) == {f"{name}-{seed}" for name, seed in direct}


def test_random_heads_are_as_many_per_layer_as_that_sample_has(run):
    heads = run[1].heads
    per_layer = heads.groupby(["criterion", "judge", "sample", "seed", "layer"])["selected"].sum()
    for criterion in CRITERIA:
        for sample in range(SAMPLES):
            lead = per_layer[criterion, "arm_reinforce", sample, sample]
            sets = [per_layer[criterion, "arm_random_heads", sample, seed] for seed in range(3)]
            assert all(one.equals(lead) for one in sets)
    drawn = heads[heads["judge"] == "arm_random_heads"].groupby(["criterion", "sample", "seed"])["selected"].agg(tuple)
    assert drawn.groupby(["criterion", "sample"]).nunique().gt(1).all()


def test_every_judge_is_there_and_the_lead_varies_with_the_sample_alone(run):
    summary = run[1].tables.summary.set_index(["judge", "subset"])
    assert set(summary.index.get_level_values("judge")) == {
        "zero_shot", "few_shot", "arm_all_heads", "arm_random_heads", "arm_reinforce"}  # fmt: skip
    lead, random = summary.loc["arm_reinforce"], summary.loc["arm_random_heads"]
    assert (lead["n_samples"] == SAMPLES).all() and (lead["n_seeds"] == 1).all() and lead["sd_samples"].notna().all()
    assert (random["n_samples"] == SAMPLES).all() and (random["n_seeds"] == 3).all()
    assert (summary["n"] == TESTED).all() and (summary["unit"] == "response").all()


def test_results_are_the_same_when_read_back(run):
    out, results = run
    again = BenchmarkResults.load(out)
    for name in ("items", "heads", "history", "texts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(results, name), check_dtype=False)
    assert again.checks == results.checks and again.meta["title"] == results.meta["title"]


@pytest.mark.parametrize("spoil", ["delete", "replace", "damage"])
def test_a_reward_model_that_is_missing_or_anothers_is_made_again(run, tmp_path, spoil):
    reference, _ = run
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / REWARD_MODELS / "polite-1"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.stat().st_size}
    others = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir() if "polite" not in path.name
    }
    if spoil == "damage":
        path = max(folder.iterdir(), key=lambda one: one.stat().st_size)
        path.write_bytes(path.read_bytes()[:-4] + b"spoi")
    else:
        shutil.rmtree(folder)
        if spoil == "replace":
            shutil.copytree(tmp_path / REWARD_MODELS / "polite-0", folder)
    run_benchmark(cut(), tmp_path, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.stat().st_size} == files
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir() if "polite" not in path.name}
    assert now == others


def test_parts_that_were_made_without_keeping_are_made_again_with_their_reward_models(run, tmp_path):
    reference, _ = run
    lead = {"judge": "arm_reinforce", "selector": SEARCH | {"examples_per_step": None}}
    world = {"kind": "world", "name": "criteria", "unit": "response", "criteria": ["polite"]}
    few = {"samples": 1, "judges": [lead], "studies": [world]}
    run_benchmark(cut(**few, keep_reward_models=False), tmp_path, progress=False)
    assert not (tmp_path / REWARD_MODELS).exists()
    run_benchmark(cut(**few), tmp_path, force=True, progress=False)
    (kept,) = (tmp_path / REWARD_MODELS).iterdir()
    files = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (reference / REWARD_MODELS / "polite-0").iterdir()}


def test_heads_that_were_given_are_tables_too(direct):
    reward = next(iter(direct.values()))
    heads, history = head_frames(reward.with_heads(HeadSet.all(reward.heads.n_layers, reward.heads.n_heads)))
    assert heads["selected"].all() and (heads["by"] == "given").all() and heads["probability"].isna().all()
    assert history.empty
