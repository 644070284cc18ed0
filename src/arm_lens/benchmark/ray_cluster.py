"""Parts on a Ray cluster, whose nodes need no common disk (``pip install 'arm-lens[ray]'``).

Each worker is an actor with the resources of the configuration. It works in a folder of its own, whose new files go to the
driver with each part; only the driver writes to the run's folder. A worker that is lost, with its node or by a kill, costs
the part that it was running, which is tried again on a new one, up to ``retries`` times. Ray ends the workers of a driver
that is gone.

Nodes need the same packages as the driver, and the model under the same name; the data travels. Without a GPU where the
command runs, set ``dtype`` and leave out ``device``: the model is loaded on workers alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arm_lens.benchmark.back_ends import PATIENCE, BackEnd, LostWorkerError, Tick
from arm_lens.benchmark.config import BenchmarkConfig, Resources
from arm_lens.benchmark.data import Task
from arm_lens.benchmark.parts import PARTS, REWARD_MODELS
from arm_lens.benchmark.runner import ANSWERS, FAILURES, Batch, Run, Workplace, record_failure
from arm_lens.storage import write_bytes

LOCAL = "local"
"""The address of a cluster on this machine alone, which ends with the run."""
Files = dict[str, bytes]
"""Files by their paths within a folder."""


class RayCluster(BackEnd):
    """Workers on a Ray cluster.

    Args:
        out: the folder of the run.
        address: as for ``ray.init``: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``; or `LOCAL`. If this process is connected
            to a cluster already, that one is used.
    """

    def __init__(self, out: Path, address: str) -> None:
        super().__init__(out)
        self.address, self._connected_here = address, False
        self._idle: dict[tuple[Resources, int], Any] = {}  # a worker by resources and threads, which has planned

    def __enter__(self) -> RayCluster:
        ray = _ray()
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own: dict[str, Any] = {"include_dashboard": False} if self.address == LOCAL else {}
            ray.init(self.address, log_to_driver=False, **own)
            self._connected_here = True
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._idle.values():
            _ray().kill(actor)
        if self._connected_here:
            _ray().shutdown()

    def plan(self, config: BenchmarkConfig, tasks: Sequence[Task]) -> Run:
        """The same, by a worker: only workers need what it takes to load the model."""
        ray = _ray()
        for attempt in range(config.retries + 1):
            actor = self._worker(config)
            try:
                run: Run = _result(actor.plan.remote(config, list(tasks)))
            except _lost(ray) as error:
                ray.kill(actor)
                if attempt == config.retries:
                    raise LostWorkerError(attempt + 1) from error
            else:
                self._idle[_kind(config)] = actor
                return run
        raise AssertionError

    def run(self, batches: Sequence[Batch], tick: Tick) -> None:
        """Run all parts; as many workers as the cluster has room for."""
        ray = _ray()
        queue, lost, working = deque(batches), Counter[str](), dict[Any, _Turn]()
        try:
            while queue or working:
                while queue and len(working) < (room := _room(queue[0].config.resources)):
                    turn = self._begin(queue.popleft(), workers=room)
                    working[turn.next()] = turn
                finished, _ = ray.wait(list(working), timeout=PATIENCE)
                for reference in finished:
                    turn = working.pop(reference)
                    try:
                        self._receive(_result(reference))
                        turn.done += 1
                    except _lost(ray):
                        self._lose(turn, lost)
                    if (following := self._following(turn, queue)) is not None:
                        working[following.next()] = following
                tick([turn.batch.title for turn in working.values()])
        finally:
            for turn in working.values():
                ray.kill(turn.actor)

    def _begin(self, batch: Batch, *, workers: int, actor: Any | None = None) -> _Turn:
        """Give a batch to a worker, by default a new one of so many, which share the limits of an endpoint."""
        batch = replace(batch, config=batch.config.model_copy(update={"workers": workers}))
        actor = self._worker(batch.config) if actor is None else actor
        actor.begin.remote(batch, dict(_files(self.out, [ANSWERS])))
        return _Turn(actor, batch)

    def _following(self, turn: _Turn, queue: deque[Batch]) -> _Turn | None:
        """The rest of a batch, or the next one by the same worker, if it is alive and has the right resources."""
        old, workers = turn.batch.config, turn.batch.config.n_workers
        if turn.done < len(turn.batch.parts):
            left = replace(turn.batch, parts=turn.batch.parts[turn.done :])
            return self._begin(left, workers=workers) if turn.actor is None else turn
        if turn.actor is None:
            return None
        if queue and _kind(queue[0].config) == _kind(old):
            return self._begin(queue.popleft(), workers=workers, actor=turn.actor)
        _ray().kill(turn.actor)
        return None

    def _worker(self, config: BenchmarkConfig) -> Any:
        """A worker with a configuration's resources."""
        return self._idle.pop(_kind(config), None) or _actor(config)

    def _lose(self, turn: _Turn, lost: Counter[str]) -> None:
        """Count a lost worker; its part is recorded as failed if it was tried often enough."""
        _ray().kill(turn.actor)  # it may only be out of reach
        turn.actor, part = None, turn.batch.parts[turn.done]
        lost[part.digest] += 1
        if lost[part.digest] > turn.batch.config.retries:
            record_failure(part, LostWorkerError(lost[part.digest]), self.out)
            turn.done += 1

    def _receive(self, files: Files) -> None:
        """Write what a worker made, the part itself last: what is not whole is made again."""
        for folder in {Path(name).parent for name in files if name.startswith(REWARD_MODELS)}:
            if len(folder.parts) == 2:
                shutil.rmtree(self.out / folder, ignore_errors=True)
        for name in sorted(files, key=lambda name: name.startswith(PARTS)):
            if not (name.startswith(ANSWERS) and (self.out / name).exists()):
                write_bytes(self.out / name, files[name])


@dataclass(eq=False)
class _Turn:
    """A worker with its batch, and how many of the batch's parts are done."""

    actor: Any
    batch: Batch
    done: int = 0

    def next(self) -> Any:
        return self.actor.run.remote(self.done)


class _Worker:
    """What runs on the cluster: a process with one model."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="arm-lens-"))
        self._workplace = Workplace(self._folder)

    def plan(self, config: BenchmarkConfig, tasks: Sequence[Task]) -> Run:
        return self._workplace.plan(config, tasks)

    def begin(self, batch: Batch, answers: Files) -> None:
        self._batch = batch
        for name, content in answers.items():
            if not (self._folder / name).exists():
                write_bytes(self._folder / name, content)

    def run(self, index: int) -> Files:
        """Run one part of the batch; what it made, which is deleted here (except answers of endpoints)."""
        self._workplace.run(self._batch, self._batch.parts[index])
        made = dict(_files(self._folder, [PARTS, REWARD_MODELS, FAILURES, ANSWERS]))
        for name in (PARTS, REWARD_MODELS, FAILURES):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        return made


def _files(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The files in some folders of a folder that are not hidden."""
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("a Ray cluster needs the package ray: pip install 'arm-lens[ray]'") from error
    return ray


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """The errors by which Ray says that a worker, or what it returned, is gone."""
    known = ray.exceptions
    return (known.RayActorError, known.OutOfMemoryError, known.WorkerCrashedError, known.ObjectLostError)


def _actor(config: BenchmarkConfig) -> Any:
    """A new worker with a configuration's resources."""
    given = config.resources
    memory = {} if given.memory_gib is None else {"memory": int(given.memory_gib * 2**30)}
    environment = {"env_vars": {"OMP_NUM_THREADS": str(config.threads), "TOKENIZERS_PARALLELISM": "false"}}
    options = {"num_cpus": given.num_cpus, "num_gpus": given.num_gpus, "runtime_env": environment, **memory}
    return _ray().remote(_Worker).options(**options).remote()


def _kind(config: BenchmarkConfig) -> tuple[Resources, int]:
    """What a worker is made with."""
    return config.resources, config.threads


def _room(given: Resources) -> int:
    """How many workers the cluster has room for; one at least, for which Ray waits."""
    wanted = {"CPU": given.num_cpus, "GPU": given.num_gpus, "memory": (given.memory_gib or 0) * 2**30}
    return max(1, sum(_fit(node["Resources"], wanted) for node in _ray().nodes() if node["Alive"]))


def _fit(node: Mapping[str, float | int], wanted: Mapping[str, float | int]) -> int:
    return min(int(node.get(name, 0) // count) for name, count in wanted.items() if count)


def _result(promised: Any) -> Any:
    """What a worker returned; its exceptions are raised as they were there."""
    ray = _ray()
    try:
        return ray.get(promised)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
