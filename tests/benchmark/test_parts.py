"""Which parts a run has, every judge as often as there is reason to; and the workers that make them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch

from arm_lens.benchmark import BenchmarkConfigError, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.parts import PARTS, parts_of, save_part
from arm_lens.benchmark.runner import OtherModelError, Workplace, batches_of
from arm_lens.engine.memory import default_budget

WORLD = {"kind": "world", "criteria": ["polite"]}


def config_of(*judges, study=WORLD, **run):
    small = {"n_examples": [4], "demonstrations": 2, "readings": 4, "test_items": 5, "batch_size": 4}
    return BenchmarkConfig.model_validate({**small, "judges": judges, "studies": [study], **run})


def test_judges_that_learn_nothing_are_run_once_and_seeds_are_for_what_is_random():
    names = [
        "zero_shot", "length", "random", "likelihood", "voting_rationale", "few_shot", "sav", "probe", "arm_all_heads",
        "arm_reinforce", "voting", {"judge": "few_shot", "name": "bare", "demonstrations": 0},
        {"judge": "arm_random_heads", "seeds": 5}, {"judge": "endpoint", "model": "m"},
        {"judge": "endpoint", "name": "shown", "model": "m", "demonstrations": 2},
    ]  # fmt: skip
    config = config_of(*names, n_examples=[3, 5], noise=[0.0, 0.4], samples=2, seeds=3)
    parts = parts_of(config, "weights")
    counts = Counter(part.choice.label for part in parts)
    settings = 2 * 2 * 2
    assert counts == {
        **dict.fromkeys(["zero_shot", "length", "likelihood", "bare", "endpoint"], 1),
        **dict.fromkeys(["random", "voting_rationale"], 3),
        **dict.fromkeys(["few_shot", "sav", "probe", "arm_all_heads", "shown"], settings),
        **dict.fromkeys(["arm_reinforce", "voting"], 3 * settings),
        "arm_random_heads": 5 * settings,
    }
    for part in parts:
        bare = counts[part.choice.label] in (1, 3)
        assert (part.task.n_examples == 0) == bare and (part.task.examples == ()) == bare
    assert len({part.digest for part in parts}) == len(parts)


def test_a_part_is_another_with_another_model_option_or_setting():
    def digests(weights="weights", **run):
        judges = run.pop("judges", [{"judge": "sav", "heads": 4}])
        return {part.digest for part in parts_of(config_of(*judges, **run), weights)}

    others = [
        digests(weights="others"), digests(demonstrations=3), digests(readings=5), digests(batch_size=5),
        digests(dtype="bfloat16"),
        digests(judges=[{"judge": "sav", "heads": 5}]), digests(n_examples=[5]), digests(noise=[0.5]),
        digests(judges=[{"judge": "sav", "name": "x", "heads": 4}]), digests(test_items=4),
        digests(threads=2), digests(study={**WORLD, "criteria": ["safe"]}),
    ]  # fmt: skip
    assert len(set.union(digests(), *others)) == 1 + len(others)
    assert digests() == digests(workers=2) == digests(title="another") == digests(samples=1)


def test_files_of_parts_have_names_that_every_file_system_takes(tmp_path):
    study = {**WORLD, "name": "論" * 120 + "/.."}
    (part,) = parts_of(config_of("length", study=study), "weights")
    save_part(part, pd.DataFrame({"item": ["a"]}), {}, None, tmp_path)
    (path,) = (tmp_path / PARTS).iterdir()
    assert len(path.name.encode()) < 255 and path.name.isascii()


def test_seeds_that_are_tied_to_samples_are_one_each_save_where_a_judge_has_its_own():
    judges = ["zero_shot", "few_shot", {"judge": "arm_random_heads", "seeds": 4}, "arm_reinforce", "voting"]
    tied = parts_of(config_of(*judges, samples=3, seeds="sample"), "weights")
    where = {label: [(part.task.sample, part.seed) for part in tied if part.choice.label == label]
             for label in ("zero_shot", "few_shot", "arm_random_heads", "arm_reinforce", "voting")}  # fmt: skip
    assert where["zero_shot"] == [(0, 0)]
    assert where["few_shot"] == [(0, 0), (1, 0), (2, 0)]
    assert where["arm_reinforce"] == where["voting"] == [(0, 0), (1, 1), (2, 2)]
    assert where["arm_random_heads"] == [(sample, seed) for sample in range(3) for seed in range(4)]
    # Random heads are compared with the search that has the sample's seed: with another one they are others.
    assert [part.task.first_seed for part in tied if part.choice.label == "arm_random_heads"][::4] == [0, 1, 2]
    free = parts_of(config_of(*judges, samples=3), "weights")
    shared = {part.digest for part in tied} & {part.digest for part in free}
    assert {part.task.sample for part in tied if part.digest in shared} == {0}


def names_of(**run):
    """Lead part -> the name of its reward model."""
    config = config_of("arm_reinforce", "zero_shot", keep_reward_models=True, **run)
    parts = parts_of(config, "weights")
    assert all((part.reward_model is None) == (part.choice.label == "zero_shot") for part in parts)
    return [part.reward_model for part in parts if part.reward_model]


def test_reward_models_have_short_names_that_tell_them_apart():
    assert names_of(samples=2, seeds="sample") == ["polite-0", "polite-1"]
    assert names_of(seeds=2) == ["polite-0", "polite-1"]
    assert names_of(samples=2, seeds=2) == [f"polite-sample_{sample}-{seed}" for sample in (0, 1) for seed in (0, 1)]
    assert names_of(n_examples=[3, 5], noise=[0, 0.5]) == [
        f"polite-n_examples_{size}-noise_{noise}-0" for size in (3, 5) for noise in ("0", "0.5")
    ]
    many = {"kind": "hacking", "biases": ["length"], "mappings": ["standard", "flipped"]}
    assert names_of(study=many) == ["length_standard-0", "length_flipped-0"]


def test_two_studies_of_one_criterion_keep_two_reward_models():
    studies = [WORLD, {**WORLD, "name": "a/b"}, {**WORLD, "name": "a b"}]
    values = {"judges": ["arm_reinforce"], "studies": studies, "keep_reward_models": True}
    names = [part.reward_model for part in parts_of(BenchmarkConfig.model_validate(values), "weights")]
    assert names == ["world-polite-0", "a_b-polite-0", "a_b-polite-0-2"]


def test_a_lead_judge_that_is_not_fitted_keeps_no_reward_models(tmp_path):
    config = config_of("length", lead="length", keep_reward_models=True)
    with pytest.raises(BenchmarkConfigError, match="the lead judge fits, but 'length' is not fitted"):
        run_benchmark(config, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.slow
def test_parts_are_run_with_the_threads_and_the_memory_that_were_given(tmp_path):
    config = config_of("length", threads=2, memory_gib=0.25)
    before = torch.get_num_threads()
    with Workplace(tmp_path) as workplace:
        workplace.plan(config, plan(config))
        assert default_budget(torch.device("cpu")) == 2**28 and torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_a_worker_with_another_model_or_version_than_was_planned_ends_the_run(tmp_path):
    config = config_of("length")
    with Workplace(tmp_path) as workplace:
        run = workplace.plan(config, plan(config))
        (batch,) = batches_of(
            replace(run, made_of=("weights of another model", *run.made_of[1:])), {run.parts[0].digest}
        )
        with pytest.raises(OtherModelError, match="is another one on a worker than where the run was planned"):
            workplace.run(batch, batch.parts[0])
    assert not list(tmp_path.rglob("*.*"))
