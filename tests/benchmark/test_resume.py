"""A run that is killed, again and again, gives the same bytes in the end as one that is left alone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from killing import Victims

from arm_lens.benchmark import run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import PARTS
from arm_lens.storage import Store, StoreBusyError, locked

pytestmark = pytest.mark.slow

SMALL = {"n_examples": [4], "samples": 2, "demonstrations": 2, "readings": 2, "test_items": 6}
BENCHMARK = {
    **SMALL,
    "judges": [
        "zero_shot",
        "voting",
        {"judge": "arm_reinforce", "selector": {"steps": 6, "threshold": 0.3}, "seeds": 2},
        "sav",
        "probe",
        "length",
    ],
    "studies": [
        {"kind": "world", "criteria": ["polite"]},
        {"kind": "hacking", "biases": ["length"], "mappings": ["standard"], "samples": 1},
    ],
}
SEARCH = {"kind": "reinforce", "steps": 6, "threshold": 0.3}
DEMONSTRATION = {
    **SMALL,
    "n_examples": [12],
    "seeds": "sample",
    "keep_reward_models": True,
    "judges": [
        "zero_shot",
        "few_shot",
        "arm_all_heads",
        {"judge": "arm_random_heads", "selector": {"like": SEARCH}, "seeds": 2},
        {"judge": "arm_reinforce", "selector": SEARCH},
    ],
    "studies": [{"kind": "world", "name": "criteria", "criteria": ["polite"], "unit": "response"}],
}
KILLS = 20
RUN = """
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


@pytest.fixture(scope="module", params=[BENCHMARK, DEMONSTRATION], ids=["benchmark", "demonstration"])
def undisturbed(request, victims, tmp_path_factory):
    """A configuration, the folder of a run of it that was left alone, and the seconds that took."""
    out = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    victims.run(request.param, str(out))
    assert (out / "report.html").exists()
    return request.param, out, time.monotonic() - started


def contents(out: Path) -> dict[str, bytes]:
    """Everything that is kept in the end: what a reader is given, parts, and reward models."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(victims, undisturbed, tmp_path):
    config, reference, seconds = undisturbed
    out = tmp_path / "killed"
    for _ in victims.kill_at_random(KILLS, 0.9 * seconds, config, str(out)):
        store = Store(out / PARTS)
        for digest in store.found():
            store.read_frame(digest)  # whole, or not there
    victims.run(config, str(out))
    assert contents(out) == contents(reference)


def test_a_run_that_was_killed_between_results_and_tables_makes_them_again(victims, undisturbed):
    config, reference, _ = undisturbed
    out = reference.with_name(f"{reference.name}-cut")
    shutil.copytree(reference, out)
    whole = contents(reference)
    for name in ("tables/summary.csv", "tables/heads.parquet", "items.parquet", "report.html"):
        (out / name).unlink()
    victims.run(config, str(out))
    assert contents(out) == whole


def test_two_workers_give_the_same_bytes_as_one(victims, undisturbed, tmp_path):
    config, reference, _ = undisturbed
    victims.run({**config, "workers": 2}, str(tmp_path))
    assert contents(tmp_path) == contents(reference)


@pytest.fixture(scope="module")
def benchmark(victims, tmp_path_factory):
    """The folder of a finished run of `BENCHMARK`."""
    out = tmp_path_factory.mktemp("benchmark")
    victims.run(BENCHMARK, str(out))
    return out


def test_a_run_with_one_more_judge_runs_that_one_only(victims, benchmark, tmp_path):
    shutil.copytree(benchmark, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    victims.run({**BENCHMARK, "judges": [*BENCHMARK["judges"], "constant"]}, str(tmp_path))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert len(new) == 2 and all("constant" in name for name in new)


def test_two_runs_at_once_in_a_folder_are_refused(tmp_path):
    with locked(tmp_path), pytest.raises(StoreBusyError, match="another process"):
        run_benchmark(BenchmarkConfig.model_validate(BENCHMARK), tmp_path, progress=False)
