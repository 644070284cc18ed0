"""Tiny grids, what a folder has in the end, and the workers of a Ray cluster on this machine. Not a test file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from arm_lens.benchmark.parts import PARTS
from arm_lens.storage import Store
from arm_lens.sweep import SweepGrid

TINY = {
    "demonstrations": 2,
    "readings": 2,
    "test_items": 6,
    "n_examples": [4],
    "retries": 20,
    "selectors": [{"kind": "reinforce", "steps": 3}, "top_effect"],
}
CLUSTER = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20, "log_to_driver": False}
COMMAND = "from arm_lens.cli import main; main()"


def grid_of(*criteria: str, **values: object) -> SweepGrid:
    """A grid of tiny fits on the bundled model."""
    return SweepGrid.model_validate(TINY | {"studies": [{"kind": "world", "criteria": criteria}]} | values)


def contents(out: Path) -> dict[str, bytes]:
    """Everything that is there in the end."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def count_parts(out: Path) -> int:
    return len(Store(out / PARTS).found())


def ray_workers() -> list[psutil.Process]:
    """The processes of this machine in which parts are run on a Ray cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            if " ".join(process.cmdline()).startswith("ray::_Worker"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def driver(grid: Path, out: Path, address: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, on a cluster."""
    command = [sys.executable, "-c", COMMAND, "sweep", str(grid), "--out", str(out), "--ray", address]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds: float = 240.0):
    """What the condition gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found
