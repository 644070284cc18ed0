"""A run that is killed, again and again, gives the same bytes in the end as one that is left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from killing import KILLS, Victims

from arm_lens.benchmark import run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import PARTS
from arm_lens.storage import Store, StoreBusyError, locked

pytestmark = pytest.mark.slow

SEARCH = {"kind": "reinforce", "steps": 6, "threshold": 0.3}
CONFIG = {
    "n_examples": [4],
    "samples": 2,
    "demonstrations": 2,
    "readings": 2,
    "test_items": 6,
    "keep_reward_models": True,
    "judges": [
        "zero_shot",
        "voting",
        {"judge": "arm_reinforce", "selector": SEARCH, "seeds": 2},
        "sav",
        "probe",
        "length",
    ],
    "studies": [
        {"kind": "world", "criteria": ["polite"]},
        {"kind": "hacking", "biases": ["length"], "mappings": ["standard"], "samples": 1},
        {
            "kind": "world",
            "name": "criteria",
            "criteria": ["polite"],
            "unit": "response",
            "n_examples": [12],
            "seeds": "sample",
            "judges": [
                "few_shot",
                "arm_all_heads",
                {"judge": "arm_random_heads", "selector": {"like": SEARCH}, "seeds": 2},
                {"judge": "arm_reinforce", "selector": SEARCH},
            ],
        },
    ],
}
"""All that a benchmark and the demonstration are made of: pairs, biases and single responses, judges of every kind, and
reward models that are stored."""
RUN = """
import plotly.graph_objects, sklearn.linear_model
from arm_lens.registry import JUDGES
list(JUDGES)  # all that a run imports when it needs it: imported once, it is there for every process
from arm_lens.benchmark import run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.reports import write_report

def victim(values, out):
    write_report(run_benchmark(BenchmarkConfig.model_validate(values), out, force=True, progress=False), out)
"""


@pytest.fixture(scope="module")
def victims():
    """Processes that start in no time, because what they import is imported already."""
    made = Victims(RUN)
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(victims, tmp_path_factory):
    """The folder of a run that was left alone."""
    out = tmp_path_factory.mktemp("undisturbed")
    victims.run(CONFIG, str(out))
    assert (out / "report.html").exists()
    return out


def contents(out: Path) -> dict[str, bytes]:
    """Everything that is kept in the end: what a reader is given, parts, and reward models."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def test_kills_at_random_moments_change_no_byte(victims, undisturbed, tmp_path):
    out, moments = tmp_path / "killed", random.Random(0)
    whole, seen = contents(undisturbed), []
    n_parts = len(Store(undisturbed / PARTS).found())
    step = -(-n_parts // (KILLS * 2 // 3))
    seconds = victims.run(CONFIG, str(undisturbed))  # from the start to the end, with all parts there
    for _ in range(KILLS):
        seen.append(len(Store(out / PARTS).found()))
        with victims.running(CONFIG, str(out)) as child:
            if seen[-1] < n_parts:  # killed soon after some more
                wait_for(lambda: len(Store(out / PARTS).found()) >= min(seen[-1] + step, n_parts))
                time.sleep(moments.uniform(0.0, 0.2))
            else:  # killed on the way to the tables and the report
                time.sleep(moments.uniform(0.2, 1.0) * seconds)
            os.kill(child, signal.SIGKILL)
        store = Store(out / PARTS)
        for digest in store.found():
            store.read_frame(digest)  # whole, or not there
    assert len(set(seen)) > KILLS / 4 and n_parts in seen, "the kills were all too early or too late to tell anything"
    victims.run(CONFIG, str(out))
    assert contents(out) == contents(undisturbed) == whole


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_run_that_was_killed_between_results_and_tables_makes_them_again(victims, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    for name in ("tables/summary.csv", "tables/heads.parquet", "items.parquet", "report.html"):
        (tmp_path / name).unlink()
    victims.run(CONFIG, str(tmp_path))
    assert contents(tmp_path) == contents(undisturbed)


def test_two_workers_give_the_same_bytes_as_one(victims, undisturbed, tmp_path):
    victims.run({**CONFIG, "workers": 2}, str(tmp_path))
    assert contents(tmp_path) == contents(undisturbed)


def test_a_run_with_one_more_judge_runs_that_one_only(victims, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / PARTS).iterdir()}
    victims.run({**CONFIG, "judges": [*CONFIG["judges"], "constant"]}, str(tmp_path))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / PARTS).iterdir()}
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert len(new) == 2 and all("constant" in name for name in new)


def test_two_runs_at_once_in_a_folder_are_refused(tmp_path):
    with locked(tmp_path), pytest.raises(StoreBusyError, match="another process"):
        run_benchmark(BenchmarkConfig.model_validate(CONFIG), tmp_path, progress=False)
