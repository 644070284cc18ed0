"""An endpoint's answers on disk, so that nothing that was paid for is asked twice.

An answer is kept under a key that hashes everything that determined the request, in a file of its own that is written
whole and flushed, and never over another: a run may be killed at any moment, two runs may share a folder, and where both
asked for the same, the answer that came first is the one that both use. Folders may be copied into each other.

Why not diskcache? Written for caches, it evicts what is oldest beyond a gigabyte unless told otherwise; and whatever its
``Disk``, it unpickles a value that is marked as pickled, so that whoever can write the folder runs code
(CVE-2025-69872, with no release that mends it). SQLite in write-ahead mode, which it builds on, does not work on network
disks, where clusters keep their files. Answers need neither a query nor an eviction, and files are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from arm_lens.storage import DamagedFileError, read_sealed, write_sealed

MARKER = "answers.json"
"""In every folder of answers: by it they are known from folders of something else."""
FORMAT = b'{"format": 1}\n'


class AnswersFileError(ValueError):
    """A folder of answers cannot be used; the message names what is wrong in it."""


@dataclass(frozen=True)
class AnswerToken:
    """One token of an answer, and what might have stood in its place."""

    text: str
    logprob: float
    """Natural logarithm of the token's probability."""
    top: tuple[tuple[str, float], ...]
    """The likeliest tokens at this place with their log-probabilities."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered to one request."""

    text: str
    finish: str
    """Why the answer ended there: ``stop``, ``length`` (it was cut off), ``content_filter`` or the endpoint's own."""
    prompt_tokens: int | None
    """None if the endpoint did not count."""
    completion_tokens: int | None
    tokens: tuple[AnswerToken, ...] | None = None
    """None if the endpoint gave no log-probabilities."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """From `to_json`."""
        fields = json.loads(text)
        if fields["tokens"] is not None:
            fields["tokens"] = tuple(
                AnswerToken(token["text"], token["logprob"], tuple((piece, value) for piece, value in token["top"]))
                for token in fields["tokens"]
            )
        return cls(**fields)


class AnswerStore:
    """Answers by key; safe to use from several threads, and from several processes on one folder.

    Args:
        folder: made if missing; None keeps answers in memory.

    Raises:
        AnswersFileError: naming the path, if it is damaged or holds something else. What is not ours is not changed.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path, self._memory = folder, dict[str, Answer]()
        if folder is not None:
            with _explained(folder):
                self._open(folder)

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there."""
        if self.path is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        found = ((key, self._read(path)) for key in keys if (path := self._file(self.path, key)).exists())
        return dict(found)

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer, unless there is one already; the one that is kept is returned."""
        if self.path is None:
            return self._memory.setdefault(key, answer)
        path = self._file(self.path, key)
        with _explained(path):
            write_sealed(path, answer.to_json().encode(), over=False)
        return self._read(path)

    def __len__(self) -> int:
        return len(self._memory) if self.path is None else sum(1 for _ in self.path.glob("??/*.json"))

    @staticmethod
    def _open(folder: Path) -> None:
        marker = folder / MARKER
        if folder.exists() and not folder.is_dir():
            raise AnswersFileError(f"{folder} is a file; an endpoint's answers are kept in a folder")
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
    """Name the file where Python would not."""
    try:
        yield
    except OSError as error:
        raise AnswersFileError(f"the answers in {path} cannot be read or written: {error}") from error
    except DamagedFileError as error:
        raise AnswersFileError(f"{error}; delete it to ask again") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise AnswersFileError(f"the answer in {path} is none: {error!r}; delete it to ask again") from error
