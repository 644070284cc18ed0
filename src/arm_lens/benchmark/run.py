"""Running a benchmark: every judge on every task, part by part, here or in several processes.

Tables and figures are made of the parts alone, in the order of the plan, and are the same bytes whatever happened on the way:
however often a run was stopped, and however many processes were at it. Nothing that a result depends on is left to the
machine's state: threads and memory are those of the configuration.

Processes come from loky, whose pools survive neither a worker's death nor Ctrl-C in silence; beyond that each worker looks
after its parent, so that none is left at work when the run itself was killed.
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

from arm_lens.benchmark.config import BenchmarkConfig, BenchmarkConfigError
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import check_judges, model_of, verdicts_of
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
from arm_lens.judges.base import FittedJudge

WORKER_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
"""What a worker reads once, when its libraries are loaded. What it remembers of prompts grows, within ``memory_gib``: that is
no leak, for which loky would start it afresh."""


class BenchmarkJudgeError(ValueError):
    """A judge failed on a task; both are named, and what it failed of is the cause."""


def run_parts(config: BenchmarkConfig, out: str | Path, *, progress: bool = True) -> BenchmarkItems:
    """Run what is missing of a benchmark, and gather all of it.

    Args:
        config: what is run.
        out: folder, which nobody else writes to meanwhile (`arm_lens.storage.locked`); parts in it that were made with the
            same judge, data, model and version are not run again.
        progress: show a progress bar.

    Raises:
        ChildProcessError: if one of several workers died; parts that were finished are kept.
        BenchmarkConfigError: if a judge is unknown, or has other options.
        BenchmarkJudgeError: if a judge cannot be run on the data; parts that were finished are kept.
        ValueError: naming the study, if its data does not suffice.
    """
    check_judges(config)
    check_kept(config)
    out = Path(out)
    with settled(config):
        parts = parts_of(config, name_of_weights(model_of(config)))
    missing = missing_parts(parts, out)
    bar = tqdm(total=len(parts), initial=len(parts) - len(missing), unit="part", disable=not progress)
    with bar:
        if missing and config.n_workers == 1:
            _run_here(config, out, missing, bar)
        elif missing:
            _run_in_workers(config, out, missing, bar)
    return gather(read_parts(parts, out))


def check_kept(config: BenchmarkConfig) -> None:
    """Refuse to keep reward models of a lead judge that is not fitted.

    Raises:
        BenchmarkConfigError: naming the judge.
    """
    for choice in [*config.judges, *(one for study in config.studies for one in study.judges or ())]:
        if config.keep_reward_models and choice.label == config.lead and not issubclass(choice.spec.judge, FittedJudge):
            raise BenchmarkConfigError(
                f"keep_reward_models saves what the lead judge fits, but {config.lead!r} is not fitted; name another lead"
            )


def _run_here(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    with settled(config):
        runner = Runner(config, out)
        for group in _by_task(missing):
            for part in group:
                bar.set_postfix_str(f"{part.choice.label}: {part.task.title}"[:70])
                runner.run(part)
                bar.update()


def _run_in_workers(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    """Tasks spread over processes; the bar is moved by the parts that appear."""
    pool = ProcessPoolExecutor(
        config.n_workers,
        initializer=_start,
        initargs=(config, out, os.getpid()),
        env=WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(config.threads)},
    )
    groups = [[part.digest for part in group] for group in _by_task(missing)]
    wanted, store, seen = {part.digest for part in missing}, store_in(out), 0
    before = wanted & store.found().keys()  # parts that lack their reward model
    try:
        futures = [pool.submit(_work, group) for group in groups]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            done = len(wanted & store.found().keys() - before)
            bar.update(done - seen)
            seen = done
            for future in finished:
                future.result()
    except BaseException as error:  # Ctrl-C among them: workers are in the middle of something
        pool.shutdown(kill_workers=True)
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                "a process that was at work ended without a word, perhaps for want of memory; what was finished is kept: "
                "run again, with fewer workers"
            ) from error
        raise
    pool.shutdown()


class Runner:
    """Runs parts one after another, and keeps what they share.

    Args:
        config: what is run.
        out: the run's folder.
    """

    def __init__(self, config: BenchmarkConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.model = model_of(config)
        self._shared = shared_readings()

    def run(self, part: Part) -> None:
        """Make one part, and keep it.

        Raises:
            BenchmarkJudgeError: naming the judge and the task.
        """
        try:
            spec, options = part.choice.spec, part.choice.parsed
            with self._shared:
                verdicts, judge = verdicts_of(
                    spec, options, part.task, self.model, self.config, part.seed, self.out / "answers"
                )
            items = items_of(part.task, part.choice.label, part.seed, verdicts)
            save_part(part, items, verdicts.fit, judge, self.out)
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise BenchmarkJudgeError(f"{part.choice.label} on {part.task.title}: {kind}{error}") from error


def _by_task(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts in groups that share a task; in the order of the plan, so that groups with the same test are neighbours."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.task.digest, []).append(part)
    return list(groups.values())


_WORKER: tuple[Runner, dict[str, Part]]
"""Of a worker process: its runner, and all parts by their digests."""
_FOR_GOOD = ExitStack()
"""Contexts that a worker process does not leave. Without a name that lasts they would end with the function that entered
them."""


def _start(config: BenchmarkConfig, out: Path, parent: int) -> None:
    """Make a process ready to work, and have it end when the one that started it is gone."""
    global _WORKER

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    _FOR_GOOD.enter_context(settled(config))
    runner = Runner(config, out)
    _WORKER = runner, {part.digest: part for part in parts_of(config, name_of_weights(runner.model))}


def _work(digests: Sequence[str]) -> None:
    runner, parts = _WORKER
    for digest in digests:
        runner.run(parts[digest])


@contextmanager
def settled(config: BenchmarkConfig) -> Iterator[None]:
    """Within, nothing that a result depends on is left to the machine's state: neither threads nor free memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with memory_limit(int(config.memory_gib * 2**30)):
            yield
    finally:
        torch.set_num_threads(threads)
