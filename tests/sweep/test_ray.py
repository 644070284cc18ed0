"""A sweep on a Ray cluster gives the bytes of one process, whichever worker or driver is killed meanwhile."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from sweep.sweep_support import CLUSTER, TINY, contents, count_parts, driver, grid_of, ray_workers, wait_for

from arm_lens.benchmark import run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.sweep import run_sweep

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
GRID = {**TINY, "samples": 3, "studies": [{"kind": "world", "criteria": ["polite", "safe"]}]}
N_RUNS = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster of two workers on this machine, which this process is connected to."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(**CLUSTER)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a sweep in one process."""
    out = tmp_path_factory.mktemp("one")
    results = run_sweep(grid_of(**GRID), out)
    assert results.complete and count_parts(out) == N_RUNS
    return out


def test_a_killed_worker_and_a_killed_driver_change_no_byte(cluster, undisturbed, tmp_path):
    out, grid = tmp_path / "out", tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(GRID), encoding="utf-8")
    first = driver(grid, out, cluster)
    try:
        wait_for(lambda: count_parts(out) >= 2)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = count_parts(out)
    assert done < N_RUNS, "the driver was killed too late to tell anything"
    wait_for(lambda: not ray_workers(), seconds=30)  # none outlives its driver
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_sweep, grid_of(**GRID), out, ray=cluster)
        wait_for(lambda: count_parts(out) > done and ray_workers())
        ray_workers()[0].kill()
        results = running.result()
    assert results.complete and contents(out) == contents(undisturbed)


def test_failures_and_reward_models_come_back_from_a_cluster(cluster, tmp_path):
    values = {**{name: TINY[name] for name in ("demonstrations", "readings", "test_items", "n_examples")},
              "studies": [{"kind": "world", "criteria": ["polite"]}], "keep_reward_models": True, "lead": "arm_all_heads",
              "judges": ["arm_all_heads", "length", {"judge": "voting", "votes": 0}]}  # fmt: skip
    config = BenchmarkConfig.model_validate(values)
    for name, address in (("ray", cluster), ("here", None)):
        with pytest.warns(UserWarning, match="a part is missing, 1 of them failed"):
            results = run_benchmark(config, tmp_path / name, progress=False, ray=address)
        assert "voting needs at least one vote" in results.missing["error"].iloc[0]
    files = [contents(tmp_path / name) for name in ("ray", "here")]
    failures = [[name for name in some if name.startswith("failures")] for some in files]
    assert [len(some) for some in failures] == [1, 1]
    assert b"Traceback" in files[0].pop(failures[0][0]) and b"Traceback" in files[1].pop(failures[1][0])
    assert files[0] == files[1] and any(name.startswith("reward_models") for name in files[0])
