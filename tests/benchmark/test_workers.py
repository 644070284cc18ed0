"""Worker processes: a dead one is told and costs nothing that was finished; none outlives the run it works for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import yaml

from arm_lens.benchmark import read_config, run_benchmark
from arm_lens.benchmark.parts import PARTS

CONFIG = {
    "judges": ["length", {"judge": "voting", "demonstrations": 0, "votes": 2, "seeds": 15}],
    "lead": "length",
    "test_items": 60,
    "workers": 2,
    "studies": [{"kind": "world", "criteria": ["polite", "safe", "list"]}],
}
RUN = """
import sys
from arm_lens.benchmark import read_config, run_benchmark
if __name__ == "__main__":
    run_benchmark(read_config(sys.argv[1]), sys.argv[2], progress=False)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return path


def workers_of(process):
    """The processes that work for another, once they are at it."""
    return [one for one in psutil.Process(process).children(recursive=True) if "LokyProcess" in " ".join(one.cmdline())]


def wait_for(condition, seconds=240.0):
    """What the condition gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    pytest.fail("waited in vain")


def parts_in(out):
    return {path.name for path in (out / PARTS).glob("*.parquet")}


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_what_was_finished_is_kept(config, tmp_path):
    out = tmp_path / "out"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_benchmark, read_config(config), out, progress=False)
        wait_for(lambda: parts_in(out))
        workers_of(os.getpid())[0].kill()
        with pytest.raises(ChildProcessError, match="what was finished is kept: run again, with fewer workers"):
            running.result()
    kept = parts_in(out)
    assert kept
    assert not workers_of(os.getpid())
    results = run_benchmark(read_config(config).model_copy(update={"workers": 1}), out, progress=False)
    assert kept <= parts_in(out) and results.tables.summary["n_seeds"].max() == 15


@pytest.mark.slow
@pytest.mark.parametrize("with_what", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_run(config, tmp_path, with_what):
    out = tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(config), str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        wait_for(lambda: parts_in(out))
        workers = workers_of(run.pid)
        assert len(workers) == 2
        run.send_signal(with_what)
        assert run.wait(timeout=60) != 0
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
    finally:
        run.kill()
        run.wait()
