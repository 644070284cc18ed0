"""Running a benchmark: every judge on every task, kept part by part, and what comes of it all.

A *part* is what one judge with one seed says about one task. It is a Parquet file whose name holds a digest of everything
that it depends on, written under another name and then renamed, so that it is there whole or not at all. A run that was
killed goes on with the parts that are missing; a run with another judge or study reuses the parts it shares. The tables
and figures are made of the parts alone, in the order of the plan, and are the same bytes whatever happened on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from arm_lens.benchmark.config import BenchmarkConfig, JudgeChoice
from arm_lens.benchmark.data import Task, digest_of, plan
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.material import Material, Reads, model_of
from arm_lens.benchmark.verdicts import JUDGES, At, check_judges
from arm_lens.engine.memory import memory_limit
from arm_lens.engine.models import Model, device_of
from arm_lens.engine.reading import fingerprint
from arm_lens.judges.template import default_template

FIT_FIELDS = ("fit_accuracy", "n_heads", "heads", "position_bias", "inconsistent", "unparsed", "cost")
NUMERICS = ("arm-lens", "torch", "transformer-lens", "transformers", "scikit-learn")
"""Packages whose versions a result may depend on."""


class BenchmarkBusyError(RuntimeError):
    """Another process is writing to the folder."""


class BenchmarkJudgeError(ValueError):
    """A judge failed on a task; both are named, and what it failed of is the cause."""


@dataclass(frozen=True, eq=False)
class Part:
    """One judge with one seed on one task."""

    task: Task
    choice: JudgeChoice
    seed: int
    digest: str

    def path(self, out: Path) -> Path:
        """Where it is kept."""
        words = f"{self.task.title}, {self.choice.label}, seed {self.seed}"
        name = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in " .=-") else "_" for letter in words
        )
        return out / "parts" / f"{name[:150]} {self.digest}.parquet"


@dataclass(frozen=True, eq=False)
class BenchmarkItems:
    """What every judge said about every item, and how each fit went."""

    items: pd.DataFrame
    """One row per judge, setting, draw, seed and item; see `arm_lens.evaluation.tables`."""
    fits: pd.DataFrame
    """One row per judge, task and seed: the columns of `FIT_FIELDS`, as far as they apply."""


def run_parts(config: BenchmarkConfig, out: str | Path, *, progress: bool = True) -> BenchmarkItems:
    """Run what is missing of a benchmark, and gather all of it.

    Args:
        config: what is run.
        out: folder; parts in it that were made with the same judge, data, model and version are not run again.
        progress: show a progress bar.

    Raises:
        BenchmarkBusyError: if another process is at it.
        ChildProcessError: if one of several workers died; parts that were finished are kept.
        BenchmarkConfigError: if a judge is unknown, or has other options.
        BenchmarkJudgeError: if a judge cannot be run on the data; parts that were finished are kept.
        ValueError: naming the study, if its data does not suffice.
    """
    check_judges(config)
    out = Path(out)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    with _alone(out):
        for left_over in (out / "parts").glob("*.tmp"):
            left_over.unlink()
        with _settled(config):
            parts = parts_of(config, _name_of_weights(model_of(config)))
        missing = [part for part in parts if not part.path(out).exists()]
        bar = tqdm(total=len(parts), initial=len(parts) - len(missing), unit="part", disable=not progress)
        with bar:
            if missing and config.workers == 1:
                _run_here(config, out, missing, bar)
            elif missing:
                _run_in_workers(config, out, missing, bar)
        return _gather(parts, out)


def parts_of(config: BenchmarkConfig, weights: str) -> list[Part]:
    """Every part of a run, in order.

    Args:
        config: what is run.
        weights: what tells the model's weights from others.
    """
    model = [config.model_class, config.dtype, weights, *map(version, NUMERICS)]
    shared = [*model, config.demonstrations, config.readings, config.batch_size, config.threads, config.memory_gib]
    found: dict[str, Part] = {}
    for given in plan(config):
        for choice in given.judges:
            JUDGES[choice.judge].check_data(choice.options, given)
            task = given if JUDGES[choice.judge].learns(choice.options) else given.without_examples()
            for seed in range(_seeds(choice, task)):
                digest = digest_of([shared, task.digest, choice.judge, choice.label, choice.options, seed])
                found.setdefault(digest, Part(task, choice, seed, digest))
    return list(found.values())


def _seeds(choice: JudgeChoice, task: Task) -> int:
    """A judge in which nothing is random needs no second seed."""
    return (choice.seeds or task.seeds) if JUDGES[choice.judge].random else 1


def _name_of_weights(model: Model) -> str:
    """Of the weights, how they are asked, and on which kind of device."""
    questions = [default_template(model), model.tokenizer.chat_template, device_of(model).type]
    return hashlib.sha256(fingerprint(model).numpy().tobytes() + repr(questions).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------ running


def _run_here(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    with _settled(config):
        runner = Runner(config, out)
        for group in _by_task(missing):
            for part in group:
                bar.set_postfix_str(f"{part.choice.label}: {part.task.title}"[:70])
                runner.run(part)
                bar.update()
            runner.leave(group[0].task)


def _run_in_workers(config: BenchmarkConfig, out: Path, missing: Sequence[Part], bar: Any) -> None:
    """Tasks spread over processes; the bar is moved by the files that appear."""
    context = get_context("spawn")  # a fork would inherit the threads of torch in an unknown state
    pool = ProcessPoolExecutor(
        config.workers, mp_context=context, initializer=_start, initargs=(config, out, os.getpid())
    )
    digests = [[part.digest for part in group] for group in _by_task(missing)]
    try:
        futures = [pool.submit(_work, group) for group in digests]
        waiting, shown = set(futures), 0
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            done = sum(part.path(out).exists() for part in missing)
            bar.update(done - shown)
            shown = done
            for future in finished:
                future.result()
    except BaseException as error:
        processes = list((pool._processes or {}).values())  # the pool forgets them when it is shut down
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        if isinstance(error, BrokenExecutor):
            raise ChildProcessError(
                "a process that was at work ended without a word, perhaps for want of memory; what was finished is kept: run "
                "again, with fewer workers"
            ) from error
        raise
    pool.shutdown()


class Runner:
    """Runs parts one after another, and keeps what they share.

    Args:
        config: what is run.
        out: where parts are kept.
    """

    def __init__(self, config: BenchmarkConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.model = model_of(config)
        self._material: tuple[str, Material] | None = None
        self._reads: tuple[tuple[str, str], Reads] | None = None

    def run(self, part: Part) -> None:
        """Make one part, and keep it.

        Raises:
            BenchmarkJudgeError: naming the judge and the task.
        """
        try:
            at = At(self._material_of(part.task), part.seed, self.out / "answers.sqlite")
            verdicts = JUDGES[part.choice.judge].make(at, **part.choice.options)
            items = items_of(part.task, part.choice.label, part.seed, verdicts)
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise BenchmarkJudgeError(f"{part.choice.label} on {part.task.title}: {kind}{error}") from error
        fit = {name: verdicts.fit.get(name) for name in FIT_FIELDS}
        table = pa.Table.from_pandas(items, preserve_index=False).replace_schema_metadata({"fit": json.dumps(fit)})
        path = part.path(self.out)
        unfinished = path.with_name(f"{part.digest}.{os.getpid()}.tmp")
        pq.write_table(table, unfinished)
        unfinished.replace(path)

    def leave(self, task: Task) -> None:
        """Forget what only this task needed."""
        self._material = None

    def _material_of(self, task: Task) -> Material:
        if self._material is None or self._material[0] != task.digest:
            self._material = (task.digest, Material(self.model, task, self.config, self._reads_of(task)))
        return self._material[1]

    def _reads_of(self, task: Task) -> Reads:
        key = (task.test.texts_digest, task.criterion_text)
        if self._reads is None or self._reads[0] != key:
            self._reads = None  # free the old one first
            self._reads = (key, Material.reads_of(self.model, task.test, task.criterion_text, self.config))
        return self._reads[1]


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
    _FOR_GOOD.enter_context(_settled(config))
    runner = Runner(config, out)
    _WORKER = runner, {part.digest: part for part in parts_of(config, _name_of_weights(runner.model))}


def _work(digests: Sequence[str]) -> None:
    runner, parts = _WORKER
    for digest in digests:
        runner.run(parts[digest])
    runner.leave(parts[digests[0]].task)


@contextmanager
def _settled(config: BenchmarkConfig) -> Iterator[None]:
    """Within, nothing that a result depends on is left to the machine's state: neither threads nor free memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with memory_limit(int(config.memory_gib * 2**30)):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Within, no other process runs a benchmark in the folder."""
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BenchmarkBusyError(f"another process is running a benchmark in {out}") from error
    try:
        yield
    finally:
        lock.release()


# ------------------------------------------------------------------------------------------ gathering


def _gather(parts: Sequence[Part], out: Path) -> BenchmarkItems:
    tables, fits = [], []
    for part in parts:
        table = pq.read_table(part.path(out))
        fit = json.loads(table.schema.metadata[b"fit"])
        if any(value is not None for value in fit.values()):
            task = part.task
            where = {"benchmark": task.study, "subset": task.subset, "judge": part.choice.label}
            setting = {"n_examples": task.n_examples, "noise": task.noise, "sample": task.sample, "seed": part.seed}
            fits.append({**where, **setting, **fit})
        tables.append(table.replace_schema_metadata(None))
    return BenchmarkItems(pa.concat_tables(tables).to_pandas(), pd.DataFrame(fits))
