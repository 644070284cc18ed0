"""Running a benchmark: every judge on every task, part by part, in this process or in several.

Tables and figures are made of the parts alone, in the order of the plan, and are the same bytes however often a run was
stopped and however many processes worked on it. Threads and memory, on which results could depend, are those of the
configuration.

Processes come from loky, whose pools notice the death of a worker and Ctrl-C; in addition, each worker watches its parent
and ends if the run itself was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from loky import ProcessPoolExecutor
from tqdm.auto import tqdm

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import check_judges, check_tasks, model_of, verdicts_of
from arm_lens.benchmark.parts import (
    BenchmarkItems,
    Part,
    gather,
    missing_parts,
    name_of_weights,
    parts_of,
    read_parts,
    save_part,
    store_in,
)
from arm_lens.engine.memory import memory_limit
from arm_lens.engine.sharing import shared_readings
from arm_lens.safe_text import printable

WORKER_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
"""Read once, when a worker loads its libraries. loky restarts a worker whose memory grows; what is remembered of prompts
grows within ``memory_gib`` and is not a leak."""


class BenchmarkJudgeError(ValueError):
    """A judge failed on a task; the message names both, and the cause is the error."""


def run_parts(config: BenchmarkConfig, out: str | Path, *, progress: bool = True) -> BenchmarkItems:
    """Run the missing parts of a benchmark, and gather all parts.

    Args:
        config: what is run.
        out: a folder that no other process writes to meanwhile (`arm_lens.storage.locked`); parts in it that were made with
            the same judge, data, model and versions are not run again.
        progress: show a progress bar.

    Raises:
        ChildProcessError: if one of several workers died; finished parts are stored.
        BenchmarkConfigError: if a judge is unknown, or has other options; before a model is loaded, as all that is wrong with
            data.
        OverlapError: naming the task, if an example is tested.
        BenchmarkJudgeError: if a judge cannot be run on the data; finished parts are stored.
        ValueError: naming the study, if it has too little data.
    """
    check_judges(config)
    tasks = plan(config)
    check_tasks(tasks)
    out = Path(out)
    with settled(config):
        model = model_of(config)
        parts = parts_of(config, name_of_weights(model), model, tasks=tasks)
    missing = missing_parts(parts, out)
    done = len(parts) - len(missing)
    with tqdm(total=len(parts), initial=done, unit="part", disable=not progress) as bar:
        if missing and config.n_workers == 1:
            _run_here(config, out, missing, bar)
        elif missing:
            _run_in_workers(config, out, missing, bar)
    return gather(read_parts(parts, out))


def _run_here(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    with settled(config):
        runner = Runner(config, out)
        for group in _by_task(missing):
            for part in group:
                bar.set_postfix_str(printable(f"{part.choice.label}: {part.task.title}"[:70]))
                runner.run(part)
                bar.update()


def _run_in_workers(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    """Spread tasks over processes; the progress bar counts the parts in the store."""
    pool = ProcessPoolExecutor(
        config.n_workers,
        initializer=_start,
        initargs=(config, out, os.getpid()),
        env=WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(config.threads)},
    )
    store, first = store_in(out), bar.n
    present = len(store.found())  # parts of other runs, and those that lack their reward model
    try:
        waiting = {pool.submit(_work, [part.digest for part in group]) for group in _by_task(missing)}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            bar.update(first + len(store.found()) - present - bar.n)
            for future in finished:
                future.result()
    except BaseException as error:  # also Ctrl-C: workers must not go on
        pool.shutdown(kill_workers=True)
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                "a worker process ended without an error, perhaps for lack of memory; what was finished is kept: run again, "
                "with fewer workers"
            ) from error
        raise
    pool.shutdown()


class Runner:
    """Runs parts one after another, and remembers what they share."""

    def __init__(self, config: BenchmarkConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.model = model_of(config)
        self._shared = shared_readings()

    def run(self, part: Part) -> None:
        """Make one part and store it; a BenchmarkJudgeError names judge and task."""
        try:
            choice, task, cache = part.choice, part.task, self.out / "answers"
            with self._shared:
                verdicts, judge = verdicts_of(choice, task, self.model, self.config, part.seed, cache)
            items = items_of(task, choice.label, part.seed, verdicts)
            save_part(part, items, verdicts.fit, judge, self.out)
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            failed = BenchmarkJudgeError(f"{part.choice.label} on {part.task.title}: {kind}{error}")
            for note in getattr(error, "__notes__", ()):
                failed.add_note(note)
            raise failed from error


def _by_task(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts grouped by task, in the order of the plan, so that groups with the same test are neighbours."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.task.digest, []).append(part)
    return list(groups.values())


_WORKER: tuple[Runner, dict[str, Part]]
"""The runner of a worker process, and all parts by their digests."""
_FOR_GOOD = ExitStack()
"""The contexts that a worker process does not leave; they would end with the last reference to them."""


def _start(config: BenchmarkConfig, out: Path, parent: int) -> None:
    """Prepare a worker process, which ends when its parent is gone."""
    global _WORKER

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    _FOR_GOOD.enter_context(settled(config))
    runner = Runner(config, out)
    _WORKER = runner, {part.digest: part for part in parts_of(config, name_of_weights(runner.model), runner.model)}


def _work(digests: Sequence[str]) -> None:
    runner, parts = _WORKER
    for digest in digests:
        runner.run(parts[digest])


@contextmanager
def settled(config: BenchmarkConfig) -> Iterator[None]:
    """A context with the configured threads and memory, on which results could depend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with memory_limit(int(config.memory_gib * 2**30)):
            yield
    finally:
        torch.set_num_threads(threads)
