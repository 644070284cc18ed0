"""A benchmark that is killed, again and again, gives the same bytes in the end as one that is left alone."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.run import BenchmarkBusyError

CONFIG = {
    "judges": [
        "zero_shot", "voting", {"judge": "arm_reinforce", "options": {"steps": 6}, "seeds": 2}, "sav", "probe", "length",
    ],
    "n_examples": [4],
    "samples": 2,
    "demonstrations": 2,
    "readings": 2,
    "test_items": 6,
    "studies": [
        {"kind": "world", "criteria": ["polite"]},
        {"kind": "hacking", "biases": ["length"], "mappings": ["standard"], "samples": 1},
    ],
}  # fmt: skip
KILLS = 20


def run(values: dict, out: str) -> None:
    """In a process of its own."""
    from arm_lens.benchmark.results import run_benchmark

    run_benchmark(BenchmarkConfig.model_validate(values), out, progress=False)


@pytest.fixture(scope="module")
def processes():
    """Processes that start in no time, because what they import is imported already, and nothing is used yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["arm_lens.benchmark"])
    return context


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The folder of a run that was left alone, and the seconds it took."""
    out = tmp_path_factory.mktemp("undisturbed")
    finish(processes, out)
    shutil.rmtree(out)  # the first one waits for the server to be ready
    started = time.monotonic()
    finish(processes, out)
    return out, time.monotonic() - started


def finish(processes, out: Path, config: dict = CONFIG) -> None:
    process = processes.Process(target=run, args=(config, str(out)))
    process.start()
    process.join()
    assert process.exitcode == 0


def contents(out: Path) -> dict[str, bytes]:
    """Everything a reader is given, and the parts."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def test_twenty_kills_at_random_moments_change_no_byte(processes, undisturbed, tmp_path):
    reference, seconds = undisturbed
    moments = random.Random(0)
    killed, rounds, out = 0, 0, tmp_path / "0"
    while killed < KILLS:
        process = processes.Process(target=run, args=(CONFIG, str(out)))
        process.start()
        process.join(timeout=moments.uniform(0.05, 0.9) * seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
            for part in (out / "parts").glob("*.parquet"):
                pq.read_table(part)  # whole, or not there
            continue
        assert process.exitcode == 0
        assert contents(out) == contents(reference)
        rounds += 1
        out = tmp_path / str(rounds)  # and from the beginning
    finish(processes, out)
    assert contents(out) == contents(reference)


def test_two_workers_give_the_same_bytes_as_one(processes, undisturbed, tmp_path):
    finish(processes, tmp_path, {**CONFIG, "workers": 2})
    assert contents(tmp_path) == contents(undisturbed[0])


def test_a_run_with_one_more_judge_runs_that_one_only(processes, undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    finish(processes, tmp_path, {**CONFIG, "judges": [*CONFIG["judges"], "constant"]})
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert len(new) == 2 and all("constant" in name for name in new)


def test_two_runs_at_once_in_a_folder_are_refused(tmp_path):
    from filelock import FileLock

    from arm_lens.benchmark import run_benchmark

    with FileLock(tmp_path / ".lock"), pytest.raises(BenchmarkBusyError, match="another process"):
        run_benchmark(BenchmarkConfig.model_validate(CONFIG), tmp_path, progress=False)
