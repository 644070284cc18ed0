"""Running single parts: what a process remembers from one part to the next, and what is recorded of a part that fails.

Threads and memory, on which results could depend, are those of the configuration, in whichever process a part is run.

A judge that fails on a task is recorded in the folder ``failures/`` of the run, an entry with the traceback for each part.
Such an entry is no part of the results, and is deleted when the part is run again.
"""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import Task
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import check_images, model_of, verdicts_of
from arm_lens.benchmark.parts import NUMERICS, Part, name_of_weights, parts_of, save_part
from arm_lens.engine.memory import memory_limit
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import SharedReadings, shared_readings
from arm_lens.storage import Store, json_bytes

FAILURES, ANSWERS = "failures", "answers"
"""The folders of a run for parts that failed, and for answers of endpoints."""


class BenchmarkJudgeError(ValueError):
    """A judge failed on a task; the message names both."""


class OtherModelError(ValueError):
    """A worker has another model, or other versions of packages, than the run was planned with."""


@dataclass(frozen=True, eq=False)
class Run:
    """A configuration, and all of its parts with its model."""

    config: BenchmarkConfig
    made_of: tuple[str, ...]
    """The model's weights (`name_of_weights`) and the versions of `NUMERICS`."""
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Missing parts of one task, which one worker runs one after another, since they share readings."""

    config: BenchmarkConfig
    made_of: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def title(self) -> str:
        """The task in words."""
        return self.parts[0].task.title


def batches_of(run: Run, missing: Collection[str]) -> list[Batch]:
    """The parts with these digests by task, in the order of the plan, so that tasks with the same test are neighbours."""
    groups: dict[str, list[Part]] = {}
    for part in run.parts:
        if part.digest in missing:
            groups.setdefault(part.task.digest, []).append(part)
    return [Batch(run.config, run.made_of, tuple(group)) for group in groups.values()]


class Workplace:
    """Runs parts one after another in this process, and remembers the model and the readings of one configuration.

    A context; afterwards threads and memory are as before.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self._config: BenchmarkConfig | None = None
        self._left = ExitStack()

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def plan(self, config: BenchmarkConfig, tasks: Sequence[Task]) -> Run:
        """All parts of a configuration whose tasks are known.

        Raises:
            BenchmarkConfigError: naming a judge that cannot read the images in its data.
        """
        self._enter(config)
        check_images(config, tasks, self._model)
        return Run(config, self._made_of, tuple(parts_of(config, self._made_of[0], self._model, tasks=tasks)))

    def run(self, batch: Batch, part: Part) -> None:
        """Make a part and store it, or record why its judge failed.

        Raises:
            OtherModelError: if the model or a package is another one than the part was planned with.
        """
        self._enter(batch.config)
        if self._made_of != batch.made_of:
            raise OtherModelError(
                f"the model {batch.config.model or 'that is bundled'}, its device, or a version of {', '.join(NUMERICS)} is "
                "another one on a worker than where the run was planned; give all workers the same"
            )
        try:
            cache = self.out / ANSWERS
            with self._readings:
                verdicts, judge = verdicts_of(part.choice, part.task, self._model, batch.config, part.seed, cache)
            save_part(part, items_of(part.task, part.choice.label, part.seed, verdicts), verdicts.fit, judge, self.out)
        except Exception as error:
            record_failure(part, error, self.out)

    def _enter(self, config: BenchmarkConfig) -> None:
        if config == self._config:
            return
        self._leave()
        self._left.enter_context(settled(config))
        self._model: LanguageModel = model_of(config)
        self._readings: SharedReadings = shared_readings()
        self._made_of = (name_of_weights(self._model), *map(version, NUMERICS))
        self._config = config

    def _leave(self) -> None:
        if self._config is not None:
            del self._model, self._readings
            gc.collect()  # before another model is loaded
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self._config = None
        self._left.close()


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


# ------------------------------------------------------------------------------------------------------------- failures


def failures_in(out: Path) -> Store:
    """The store of what is known of the parts that failed, by the digests of the parts."""
    return Store(out / FAILURES, ".json")


def record_failure(part: Part, error: Exception, out: Path) -> None:
    """Store what is known of an error: the part, the message, notes that were added to it, and the traceback."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    record = {
        "part": part.fields,
        "error": _encodable(f"{kind}{error}" or type(error).__name__),
        "notes": [_encodable(note) for note in getattr(error, "__notes__", ())],
        "traceback": _encodable("".join(traceback.format_exception(error))),
    }
    failures_in(out).put(part.digest, json_bytes(record), name=part.title)


def _encodable(text: str) -> str:
    """A text in which halves of characters, which a message may quote from data, are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def failure_of(digest: str, out: Path) -> dict[str, Any] | None:
    """What `record_failure` stored of a part; None if nothing."""
    store = failures_in(out)
    return json.loads(store.read(digest)) if digest in store else None


def judge_error(part: Part, failure: dict[str, Any]) -> BenchmarkJudgeError:
    """An error that names judge and task, with the notes of the one that was recorded."""
    error = BenchmarkJudgeError(f"{part.choice.label} on {part.task.title}: {failure['error']}")
    for note in failure["notes"]:
        error.add_note(note)
    return error
