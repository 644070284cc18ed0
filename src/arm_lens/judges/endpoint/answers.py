"""An endpoint's answers on disk, so that nothing that was paid for is asked twice.

An answer is stored under a key that hashes everything that determined the request, in a file of its own that is written
as a whole and flushed, and never over another. A run may be killed at any moment; two runs may share a folder, and if both
asked for the same, both use the answer that came first. Folders may be copied into each other.

Why not diskcache? By default it evicts the oldest entries beyond a gigabyte; and whatever its ``Disk``, it unpickles a
value that is marked as pickled, so that whoever can write the folder runs code (CVE-2025-69872, not fixed in any release).
SQLite in write-ahead mode, which it builds on, does not work on the network disks of clusters. Answers need neither a
query nor an eviction, and files are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from arm_lens.storage import DamagedFileError, read_sealed, write_sealed

MARKER = "answers.json"
"""The file by which a folder of answers is recognised."""
FORMAT = b'{"format": 1}\n'


LogProb = Annotated[float, Field(le=0.01, allow_inf_nan=False)]
"""A log-probability, as rounded by an endpoint."""
Count = Annotated[int, Field(ge=0, le=10**9)]


class AnswersFileError(ValueError):
    """A folder of answers cannot be used; the message says why."""


@dataclass(frozen=True)
class AnswerToken:
    """One token of an answer, and the alternatives."""

    text: str
    logprob: LogProb
    """Natural logarithm of the token's probability."""
    top: tuple[tuple[str, LogProb], ...]
    """The likeliest tokens at this position with their log-probabilities."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered to one request."""

    text: str
    finish: str
    """Why the answer ended there: ``stop``, ``length`` (it was cut off), ``content_filter`` or the endpoint's own."""
    prompt_tokens: Count | None
    """None if the endpoint did not count."""
    completion_tokens: Count | None
    tokens: tuple[AnswerToken, ...] | None = None
    """None if the endpoint gave no log-probabilities."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """From `to_json`; a ValueError if it is anything else."""
        return _ANSWER.validate_json(text, strict=True)


_ANSWER = TypeAdapter(Answer)


def explained(error: ValueError) -> str:
    """What is wrong, in a line: the field, if a field is."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")


class AnswerStore:
    """Answers by key; safe to use from several threads, and from several processes on one folder.

    Args:
        folder: made if missing; None stores answers in memory.

    Raises:
        AnswersFileError: naming the path, if it is damaged or not a folder of answers. Foreign files are not changed.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path, self._memory = folder, dict[str, Answer]()
        if folder is not None:
            with _explained(folder):
                self._open(folder)

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The stored answers to these keys."""
        if self.path is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        files = {key: self._file(self.path, key) for key in keys}
        return {key: self._read(path) for key, path in files.items() if path.exists()}

    def put(self, key: str, answer: Answer) -> Answer:
        """Store an answer unless the key has one; return the stored one."""
        if self.path is None:
            return self._memory.setdefault(key, answer)
        path = self._file(self.path, key)
        with _explained(path):
            write_sealed(path, answer.to_json().encode(), over=False)
        return self._read(path)

    def __len__(self) -> int:
        if self.path is None:
            return len(self._memory)
        return sum(1 for one in self.path.glob("??/*.json") if not one.name.startswith("."))  # a kill may leave such

    @staticmethod
    def _open(folder: Path) -> None:
        marker = folder / MARKER
        if folder.exists() and not folder.is_dir():
            raise AnswersFileError(f"{folder} is a file; an endpoint's answers need a folder")
        if not marker.exists() and folder.exists():
            others = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
            if others and not marker.exists():  # which another process may have put there meanwhile
                raise AnswersFileError(f"{folder} is no folder of an endpoint's answers: it holds {others[0]}")
        write_sealed(marker, FORMAT, over=False)
        if read_sealed(marker) != FORMAT:
            raise AnswersFileError(f"{marker} names another format than this arm_lens reads: {FORMAT.decode().strip()}")

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / f"{key:_>2}"[-2:] / f"{key}.json"  # no folder becomes too large to list

    @staticmethod
    def _read(path: Path) -> Answer:
        with _explained(path):
            return Answer.from_json(read_sealed(path).decode())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Name the file in errors."""
    try:
        yield
    except OSError as error:
        raise AnswersFileError(f"the answers in {path} cannot be read or written: {error}") from error
    except DamagedFileError as error:
        raise AnswersFileError(f"{error}; delete it to ask again") from error
    except ValueError as error:
        raise AnswersFileError(f"{path} is not an answer: {explained(error)}; delete it to ask again") from error
