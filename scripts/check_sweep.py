"""Check that a sweep on a Ray cluster of this machine gives the bytes of one process, whatever is killed meanwhile.

    python scripts/check_sweep.py --out /tmp/check_sweep

Runs the same grid of tiny fits of the bundled model in one process, in local processes, on a cluster of two workers, there
again with workers killed by SIGKILL at random moments, and there again with the driver killed and restarted; compares every
file of the folders, and prints what happened.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import ray
import yaml

from arm_lens.benchmark.parts import PARTS
from arm_lens.storage import Store

GRID = {
    "demonstrations": 2,
    "readings": 2,
    "test_items": 6,
    "n_examples": [4],
    "samples": 5,
    "retries": 20,
    "selectors": [{"kind": "reinforce", "steps": 3}, {"kind": "top_effect"}],
    "layers": ["all", "0-2"],
    "options": {"reward": ["two_way", "margin"]},
}
STAGES = ("local", "ray", "workers", "drivers")
COMMAND = "from arm_lens.cli import main; main()"


def grid_of(runs: int) -> dict[str, object]:
    """A grid of so many runs, a multiple of 40 (rounded up): each criterion has 40."""
    names = ["polite", "safe", "list", "positive", "answers", "brief", "detailed", "emphatic"][: -(-runs // 40)]
    return GRID | {"studies": [{"kind": "world", "criteria": names}]}


def start(grid: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    command = [sys.executable, "-c", COMMAND, "sweep", str(grid), "--out", str(out), *options]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end, which must be a good one."""
    if process.wait() != 0:
        raise SystemExit(f"the sweep ended with {process.returncode}")


def files_in(out: Path) -> dict[str, str]:
    """Every file in the folder with the digest of its bytes."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def count_parts(out: Path) -> int:
    """How many parts are stored, each of them whole."""
    return len(Store(out / PARTS).found())


def ray_workers() -> list[psutil.Process]:
    """The processes in which parts are run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("ray::_Worker"):
                found.append(process)
    return found


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def with_killed_workers(
    grid: Path, out: Path, address: str, kills: int, total: int, moments: random.Random
) -> list[int]:
    """Run, and kill a random worker so many times, each after a random number of further parts; parts at each kill."""
    running, killed = start(grid, out, "--ray", address), []
    while running.poll() is None and len(killed) < kills:
        after = count_parts(out) + moments.randint(0, max(1, total // (kills + 2)))
        while running.poll() is None and (count_parts(out) < after or not ray_workers()):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        if running.poll() is None and (workers := ray_workers()):
            with contextlib.suppress(psutil.Error):
                moments.choice(workers).kill()
                killed.append(count_parts(out))
    finish(running)
    return killed


def with_killed_drivers(
    grid: Path, out: Path, address: str, kills: int, total: int, moments: random.Random
) -> list[int]:
    """Kill the driver so many times, each after a random number of further parts, and start it again."""
    killed = []
    for _ in range(kills):
        before = count_parts(out)
        running = start(grid, out, "--ray", address)
        after = before + moments.randint(1, max(1, total // (kills + 2)))
        while running.poll() is None and count_parts(out) < after:
            time.sleep(0.01)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            killed.append(count_parts(out))
        running.wait()
        end = time.monotonic() + 30
        while ray_workers():
            if time.monotonic() > end:
                raise SystemExit("a worker outlives its driver")
            time.sleep(0.1)
    finish(start(grid, out, "--ray", address))
    return killed


def main() -> None:
    """Run all, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder; a run in one process that it has goes on, all else is made anew",
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10, help="of workers")
    parser.add_argument("--drivers", type=int, default=3, help="kills of the driver")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.stages:
        shutil.rmtree(given.out / name, ignore_errors=True)
    grid, moments = given.out / "grid.yaml", random.Random(given.seed)
    grid.write_text(yaml.safe_dump(grid_of(given.runs)), encoding="utf-8")
    reference: dict[str, str] = {}

    def compared(name: str, started: float, said: str = "") -> None:
        files = files_in(given.out / name)
        differ = sorted(path for path in {**files, **reference} if files.get(path) != reference.get(path))
        if differ:
            raise SystemExit(f"{name}: {len(differ)} files differ from those of one process: {differ[:5]}")
        print(f"{name}: {time.monotonic() - started:.0f} s, {len(files)} files, the same bytes{said}", flush=True)

    started = time.monotonic()
    finish(start(grid, given.out / "one"))
    total, reference = count_parts(given.out / "one"), files_in(given.out / "one")
    print(f"one process: {total} runs, {time.monotonic() - started:.0f} s, {len(reference)} files", flush=True)
    if "local" in given.stages:
        started = time.monotonic()
        finish(start(grid, given.out / "local", "--workers", "2"))
        compared("local", started)
    with cluster() as address:
        if "ray" in given.stages:
            started = time.monotonic()
            finish(start(grid, given.out / "ray", "--ray", address))
            compared("ray", started)
        if "workers" in given.stages:
            started = time.monotonic()
            killed = with_killed_workers(grid, given.out / "workers", address, given.kills, total, moments)
            compared("workers", started, f"; {len(killed)} workers killed, at {killed} parts")
        if "drivers" in given.stages:
            started = time.monotonic()
            killed = with_killed_drivers(grid, given.out / "drivers", address, given.drivers, total, moments)
            compared("drivers", started, f"; the driver killed {len(killed)} times, at {killed} parts")


if __name__ == "__main__":
    main()
