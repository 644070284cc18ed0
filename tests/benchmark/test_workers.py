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

from arm_lens.benchmark import MissingPartsWarning, read_config, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import PARTS
from arm_lens.registry import JUDGES

CONFIG = {
    "judges": ["length", {"judge": "voting", "demonstrations": 0, "votes": 2, "seeds": 5}],
    "lead": "length",
    "test_items": 60,
    "workers": 2,
    "studies": [{"kind": "world", "criteria": ["polite", "safe", "list"]}],
}
RUN = """
import sys
from arm_lens.benchmark import MissingPartsWarning, read_config, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
if __name__ == "__main__":
    run_benchmark(read_config(sys.argv[1]), sys.argv[2], progress=False)
"""

FATAL = """
import os, signal
from pydantic import BaseModel
from arm_lens.judges.controls import LENGTH
from dataclasses import replace

def fit(context, options):
    os.kill(os.getpid(), signal.SIGKILL)

SPEC = replace(LENGTH, name="fatal", fit=fit)
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
def test_a_worker_that_dies_costs_nothing_but_time(config, tmp_path):
    alone, out, short = tmp_path / "alone", tmp_path / "out", read_config(config).model_copy(update={"test_items": 15})
    run_benchmark(short.model_copy(update={"workers": 1}), alone, progress=False)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_benchmark, short, out, progress=False)
        wait_for(lambda: parts_in(out))
        workers_of(os.getpid())[0].kill()
        results = running.result()
    assert results.missing.empty and not list(out.glob("failures/*")) and not workers_of(os.getpid())
    assert parts_in(out) == parts_in(alone)  # whose names have digests of their bytes
    assert (out / "results.json").read_bytes() == (alone / "results.json").read_bytes()


@pytest.mark.slow
def test_a_part_that_kills_each_worker_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    """The judge comes from an installed package, which workers find as well."""
    package = tmp_path / "site"
    (package / "fatal-1.dist-info").mkdir(parents=True)
    (package / "fatal.py").write_text(FATAL, encoding="utf-8")
    (package / "fatal-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fatal\nVersion: 1\n")
    (package / "fatal-1.dist-info" / "entry_points.txt").write_text("[arm_lens.judges]\nfatal = fatal:SPEC\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.syspath_prepend(package)
    _ = JUDGES["length"]
    monkeypatch.setitem(JUDGES._by_name, "fatal", __import__("fatal").SPEC)
    values = {**CONFIG, "judges": ["length", "fatal"], "test_items": 4, "retries": 0}
    config = BenchmarkConfig.model_validate(values | {"studies": [{"kind": "world", "criteria": ["polite"]}]})
    with pytest.warns(MissingPartsWarning, match="a part is missing, 1 of them failed"):
        results = run_benchmark(config, tmp_path / "out", progress=False)
    assert set(results.items["judge"]) == {"length"} and list(results.missing["judge"]) == ["fatal"]
    assert "its worker ended without an error 2 times" in results.missing["error"].iloc[0]


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
