"""An endpoint's answers on disk, so that nothing that was paid for is asked twice.

An answer is kept under a key that hashes everything that determined the request. The file is an SQLite database in
write-ahead mode (https://sqlite.org/wal.html) and every answer is a transaction of its own: a run may be killed at any
moment, two runs may share a file, and where both asked for the same, the answer that came first is the one that both
use. The mode does not work on network file systems.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

APPLICATION_ID = 0x41524D4C
"""Marks an SQLite file as one of answers: "ARML"."""
FORMAT = 1
HEADER = b"SQLite format 3\0"
FILE_NAME = "answers.sqlite"
"""Of the file in a folder that was given in place of a file."""
BUSY_SECONDS = 60.0
"""How long to wait for another process that is writing."""


class AnswersFileError(ValueError):
    """A file of answers cannot be used."""


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
    """Answers by key; safe to use from several threads, and from several processes on one file.

    Args:
        path: a file, made if missing, or a folder to keep one in; None keeps answers in memory.

    Raises:
        AnswersFileError: naming the file, if it is damaged or not a file of answers. A file that is not ours is not
            changed.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path / FILE_NAME if path is not None and path.is_dir() else path
        self._lock = threading.Lock()
        with self._explained():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._refuse_other_files(self.path)
            self._connection = sqlite3.connect(
                self.path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._close = weakref.finalize(self, self._connection.close)
            self._prepare()

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there."""
        found: dict[str, Answer] = {}
        with self._lock, self._explained():
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                query = f"SELECT key, answer FROM answers WHERE key IN ({','.join('?' * len(some))})"
                found.update((key, Answer.from_json(text)) for key, text in self._connection.execute(query, some))
        return found

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer, unless there is one already; the one that is kept is returned."""
        with self._lock, self._explained():
            self._connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, answer.to_json()))
            row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return Answer.from_json(row[0])

    def __len__(self) -> int:
        with self._lock, self._explained():
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Let go of the file; also done when the store is no longer used."""
        self._close()

    @staticmethod
    def _refuse_other_files(path: Path) -> None:
        """SQLite takes any file of less than 512 bytes for an empty one, and writes over it."""
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(len(HEADER)) != HEADER:
                    raise AnswersFileError(f"{path} is not a file of an endpoint's answers")

    def _prepare(self) -> None:
        run = self._connection.execute
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            run("BEGIN IMMEDIATE")  # of two processes that find a new file, one writes and the other sees it written
            try:
                is_new = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if is_new:
                    run("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID")
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run(f"PRAGMA user_version = {FORMAT}")
            finally:
                run("COMMIT")
            if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise AnswersFileError(f"{self.path} is an SQLite database, but not one of an endpoint's answers")
        version = run("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise AnswersFileError(f"{self.path} has answers in format {version}; this arm_lens reads format {FORMAT}")
        give_up = time.monotonic() + BUSY_SECONDS
        while run("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            try:
                run("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:  # SQLite does not wait for a busy file here
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the file where SQLite would not."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise AnswersFileError(f"the answers in {self.path} cannot be read or written: {error}") from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise AnswersFileError(f"an answer in {self.path} is damaged: {error!r}") from error
