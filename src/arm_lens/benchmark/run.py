"""Running a benchmark: every judge on every task, part by part, in this process, in several, or on a Ray cluster.

Tables and figures are made of the parts alone, in the order of the plan, and are the same bytes however often a run was
stopped, and wherever its parts were run (`arm_lens.benchmark.back_ends`).

Judges are compared on the same tasks only. So a judge of which some part failed stands in the tables with the subsets and
settings in which it has all of its samples and seeds, and the others are listed as missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from arm_lens.benchmark.back_ends import BackEnd, LocalProcesses, ThisProcess
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.judging import check_judges, check_tasks
from arm_lens.benchmark.parts import PART_FIELDS, BenchmarkItems, Part, gather, missing_parts, read_parts, store_in
from arm_lens.benchmark.ray_cluster import RayCluster
from arm_lens.benchmark.runner import (
    BenchmarkJudgeError,
    Run,
    batches_of,
    failure_of,
    failures_in,
    judge_error,
    settled,
)
from arm_lens.display import counted
from arm_lens.safe_text import printable

__all__ = ["BenchmarkJudgeError", "Progress", "back_end_of", "complete", "run_missing", "run_parts", "settled"]
SECONDS_BETWEEN = 0.2
"""How often the folder is looked at, at most."""


@dataclass(frozen=True)
class Progress:
    """How far parts are."""

    total: int
    done: frozenset[str]
    """The digests of the parts that are stored."""
    failed: frozenset[str]
    running: tuple[str, ...]
    """The titles of the tasks that are being worked on."""
    seconds_left: float | None
    """At the speed so far; None before the first part is finished."""


Watch = Callable[[Progress], None]


def back_end_of(config: BenchmarkConfig, out: Path, ray: str | None = None) -> BackEnd:
    """A Ray cluster at an address (`RayCluster`), or as many processes as the configuration has workers."""
    if ray is not None:
        return RayCluster(out, ray)
    return ThisProcess(out) if config.n_workers == 1 else LocalProcesses(out, config.n_workers)


def run_parts(
    config: BenchmarkConfig, out: str | Path, *, progress: bool = True, ray: str | None = None
) -> BenchmarkItems:
    """Run the missing parts of a benchmark, and gather all parts.

    Args:
        config: what is run.
        out: a folder that no other process writes to meanwhile (`arm_lens.storage.locked`); parts in it that were made with
            the same judge, data, model and versions are not run again.
        progress: show a progress bar.
        ray: the address of a Ray cluster to run parts on, see `RayCluster`; by default they are run on this machine.

    Raises:
        ChildProcessError: if workers died again and again before anything was finished.
        BenchmarkConfigError: if a judge is unknown, or has other options; before a model is loaded, as all that is wrong with
            data.
        OverlapError: naming the task, if an example is tested.
        BenchmarkJudgeError: if a judge failed and ``config.on_failure`` is ``stop``, or no judge succeeded in any setting;
            finished parts are stored.
        ValueError: naming the study, if it has too little data.
    """
    check_judges(config)
    tasks = plan(config)
    check_tasks(tasks)
    with back_end_of(config, Path(out), ray) as back_end:
        run = back_end.plan(config, tasks)
        with tqdm(total=len(run.parts), unit="part", disable=not progress) as bar:

            def watch(now: Progress) -> None:
                bar.set_postfix_str(printable("; ".join(now.running))[:70], refresh=False)
                bar.update(len(now.done) + len(now.failed) - bar.n)

            run_missing([run], back_end, watch)
    return complete(run, Path(out))


def run_missing(runs: Sequence[Run], back_end: BackEnd, watch: Watch) -> None:
    """Run the parts of some configurations that are not stored yet, those that failed before included.

    Raises:
        BenchmarkJudgeError: if a judge failed and its configuration's ``on_failure`` is ``stop``.
    """
    out, parts = back_end.out, {part.digest: (part, run.config) for run in runs for part in run.parts}
    missing = {part.digest for part in missing_parts([part for part, _ in parts.values()], out)}
    lacking = [path for digest, path in store_in(out).found().items() if digest in missing]  # their reward models
    for path in (*lacking, *failures_in(out).found().values()):
        path.unlink()
    started, seen = time.monotonic(), [0.0]

    def tick(running: Iterable[str]) -> None:
        now, running = time.monotonic(), tuple(running)
        failed = parts.keys() & failures_in(out).found().keys()
        for digest in failed:
            part, config = parts[digest]
            if config.on_failure == "stop" and (known := failure_of(digest, out)) is not None:
                raise judge_error(part, known)
        if running and now - seen[0] < SECONDS_BETWEEN:
            return
        seen[0] = now
        done = parts.keys() & store_in(out).found().keys()
        finished = len(missing & (done | failed))
        left = (now - started) / finished * (len(missing) - finished) if finished else None
        watch(Progress(len(parts), frozenset(done), frozenset(failed - done), running, left))

    back_end.run([batch for run in runs for batch in batches_of(run, missing)], tick)
    tick(())


def complete(run: Run, out: Path) -> BenchmarkItems:
    """Gather the parts of the settings in which a judge has all samples and seeds; the others are ``missing``.

    Raises:
        BenchmarkJudgeError: if no judge has any; with the first failure.
    """
    missing = missing_parts(run.parts, out)
    lacking = {_setting(part) for part in missing}
    whole = [part for part in run.parts if _setting(part) not in lacking]
    if not whole:
        for part in missing:
            if (known := failure_of(part.digest, out)) is not None:
                raise judge_error(part, known)
        raise BenchmarkJudgeError(f"{counted(len(missing), 'part')} of the run went missing from {out}: run it again")
    return replace(gather(read_parts(whole, out)), missing=missing_table(missing, out))


def missing_table(missing: Sequence[Part], out: Path) -> pd.DataFrame:
    """One row per part that is not stored: the columns of `PART_FIELDS`, and error, which is empty if it was not run."""
    rows: list[dict[str, Any]] = []
    for part in missing:
        known = failure_of(part.digest, out)
        rows.append({**part.fields, "error": "" if known is None else printable(known["error"])})
    return pd.DataFrame(rows, columns=[*PART_FIELDS, "error"])


def _setting(part: Part) -> tuple[Any, ...]:
    """What a judge is compared in: all columns of `PART_FIELDS` except sample and seed."""
    return tuple(value for name, value in part.fields.items() if name not in ("sample", "seed"))
