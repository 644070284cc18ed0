"""Which parts a run has, every judge as often as there is reason to; and the workers that make them."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.run import _start, parts_of
from arm_lens.engine.memory import default_budget

WORLD = {"kind": "world", "criteria": ["polite"]}


def config_of(*judges, study=WORLD, **run):
    small = {"n_examples": [4], "demonstrations": 2, "readings": 4, "test_items": 5, "batch_size": 4}
    return BenchmarkConfig.model_validate({**small, "judges": judges, "studies": [study], **run})


def test_judges_that_learn_nothing_are_run_once_and_seeds_are_for_what_is_random():
    names = [
        "zero_shot", "length", "random", "likelihood", "voting_rationale", "few_shot", "sav", "probe", "arm_all_heads",
        "arm_reinforce", "voting", {"judge": "few_shot", "name": "bare", "options": {"demonstrations": 0}},
        {"judge": "arm_random_heads", "seeds": 5}, {"judge": "endpoint", "options": {"model": "m"}},
        {"judge": "endpoint", "name": "shown", "options": {"model": "m", "demonstrations": 2}},
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
        judges = run.pop("judges", [{"judge": "sav", "options": {"heads": 4}}])
        return {part.digest for part in parts_of(config_of(*judges, **run), weights)}

    others = [
        digests(weights="others"), digests(demonstrations=3), digests(readings=5), digests(batch_size=5), digests(dtype="bfloat16"),
        digests(judges=[{"judge": "sav", "options": {"heads": 5}}]), digests(n_examples=[5]), digests(noise=[0.5]),
        digests(judges=[{"judge": "sav", "name": "x", "options": {"heads": 4}}]), digests(test_items=4),
        digests(threads=2), digests(study={**WORLD, "criteria": ["safe"]}),
    ]  # fmt: skip
    assert len(set.union(digests(), *others)) == 1 + len(others)
    assert digests() == digests(workers=2) == digests(title="another") == digests(samples=1)


def test_files_of_parts_have_names_that_every_file_system_takes(tmp_path):
    study = {**WORLD, "name": "論" * 120 + "/.."}
    (part,) = parts_of(config_of("length", study=study), "weights")
    path = part.path(tmp_path)
    assert path.parent == tmp_path / "parts" and len(path.name.encode()) < 255 and path.name.isascii()


def test_workers_keep_to_the_threads_and_the_memory_that_were_given(tmp_path):
    config = config_of("length", threads=2, memory_gib=0.25)
    context = get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=_start, initargs=(config, tmp_path, os.getpid())
    ) as pool:
        assert pool.submit(default_budget, torch.device("cpu")).result() == 2**28
        assert pool.submit(torch.get_num_threads).result() == 2
