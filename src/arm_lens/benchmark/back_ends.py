"""Where parts are run: in this process, or in several of this machine; `arm_lens.benchmark.ray_cluster` is the third place.

A back end is given batches of parts that do not depend on each other. It stores each part, or a record of its failure, in
the run's folder, and calls ``tick`` now and then with the titles of the batches that are being run. What is in the folder
is all that a run knows of its progress, so it may be killed at any moment.

Processes come from loky, whose pools notice the death of a worker and Ctrl-C; in addition, each worker watches its parent
and ends if the run itself was killed. If a worker dies, loky ends the others too, and what they worked on is tried again. A
part that was among it more than ``retries`` times is tried once more while no other part runs, and only if the worker dies
then, too, is it recorded as failed.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from threading import Thread

from loky import ProcessPoolExecutor

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import Task
from arm_lens.benchmark.parts import Part, store_in
from arm_lens.benchmark.runner import Batch, Run, Workplace, failures_in, record_failure

WORKER_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
"""Read once, when a worker loads its libraries. loky restarts a worker whose memory grows; what is remembered of prompts
grows within ``memory_gib`` and is not a leak."""
PATIENCE = 0.5
"""Seconds between two looks at the workers."""
Tick = Callable[[Iterable[str]], None]


class LostWorkerError(ChildProcessError):
    """The worker that ran a part ended without an error, perhaps for lack of memory."""

    def __init__(self, times: int) -> None:
        super().__init__(
            f"its worker ended without an error {times} times, perhaps for lack of memory; use fewer workers, or give each "
            "more memory"
        )


class BackEnd(ABC):
    """A place where parts are run: a context, at whose end no worker is left.

    Args:
        out: the folder of the run.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> BackEnd:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def plan(self, config: BenchmarkConfig, tasks: Sequence[Task]) -> Run:
        """All parts of a configuration with these tasks; its model is loaded for it."""
        with Workplace(self.out) as workplace:
            return workplace.plan(config, tasks)

    @abstractmethod
    def run(self, batches: Sequence[Batch], tick: Tick) -> None:
        """Run all parts of the batches, each until it is stored or its failure is; an exception of ``tick`` ends it."""

    def left_of(self, batch: Batch) -> tuple[Part, ...]:
        """The parts of a batch that are neither stored nor recorded as failed, in order."""
        known = {**store_in(self.out).found(), **failures_in(self.out).found()}
        return tuple(part for part in batch.parts if part.digest not in known)


class ThisProcess(BackEnd):
    """Parts one after another, here."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._workplace = Workplace(out)

    def __exit__(self, *error: object) -> None:
        self._workplace.__exit__()

    def plan(self, config: BenchmarkConfig, tasks: Sequence[Task]) -> Run:
        """The same; the model is not loaded again to run parts."""
        return self._workplace.plan(config, tasks)

    def run(self, batches: Sequence[Batch], tick: Tick) -> None:
        """Run all parts."""
        for batch in batches:
            for part in batch.parts:
                tick([batch.title])
                self._workplace.run(batch, part)
        tick([])


class LocalProcesses(BackEnd):
    """Batches spread over processes of this machine, each with a model of its own.

    Args:
        out: the folder of the run.
        count: how many processes.
    """

    def __init__(self, out: Path, count: int) -> None:
        super().__init__(out)
        self.count = count

    def run(self, batches: Sequence[Batch], tick: Tick) -> None:
        """Run all parts.

        Raises:
            ChildProcessError: if workers die again and again before anything is finished.
        """
        queue, suspects, lost = deque(batches), deque[Batch](), Counter[str]()
        retries, in_vain = max((batch.config.retries for batch in batches), default=0), 0
        while queue or suspects:
            alone = not queue
            if alone:
                queue.append(suspects.popleft())
            before = self._finished()
            for batch in self._until_broken(queue, min(self.count, len(queue)), tick):
                if not (left := self.left_of(batch)):
                    continue
                first, *rest = left
                lost[first.digest] += 1
                if alone:
                    record_failure(first, LostWorkerError(lost[first.digest]), self.out)
                elif lost[first.digest] > batch.config.retries:
                    suspects.append(replace(batch, parts=(first,)))
                else:
                    rest = list(left)
                if rest:
                    queue.appendleft(replace(batch, parts=tuple(rest)))
            in_vain = 0 if self._finished() > before else in_vain + 1
            if in_vain > retries + 2:
                raise ChildProcessError(
                    "worker processes end without an error before anything is finished, perhaps for lack of memory; run "
                    "again, with fewer workers"
                )

    def _finished(self) -> int:
        return len(store_in(self.out).found()) + len(failures_in(self.out).found())

    def _until_broken(self, queue: deque[Batch], count: int, tick: Tick) -> list[Batch]:
        """Run batches until the queue is empty or a worker dies; the batches that were being run then."""
        threads = max(batch.config.threads for batch in queue)
        pool = ProcessPoolExecutor(
            count,
            initializer=_start,
            initargs=(self.out, os.getpid()),
            env=WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
        )
        working: dict[Future[None], Batch] = {}
        try:
            while queue or working:
                while queue and len(working) < count:
                    future = pool.submit(_work, queue[0])  # which a dead pool refuses
                    working[future] = queue.popleft()
                finished, _ = wait(working, timeout=PATIENCE, return_when=FIRST_COMPLETED)
                tick([batch.title for batch in working.values()])
                for future in finished:
                    future.result()
                    del working[future]
        except BrokenProcessPool:
            pool.shutdown(kill_workers=True)
            return list(working.values())
        except BaseException:  # also Ctrl-C: workers must not go on
            pool.shutdown(kill_workers=True)
            raise
        pool.shutdown()
        tick([])
        return []


_WORKPLACE: Workplace
"""That of a worker process."""


def _start(out: Path, parent: int) -> None:
    """Prepare a worker process, which ends when its parent is gone."""
    global _WORKPLACE

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    _WORKPLACE = Workplace(out)


def _work(batch: Batch) -> None:
    for part in batch.parts:
        _WORKPLACE.run(batch, part)
