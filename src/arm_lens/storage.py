"""The one store: everything that is written whole or not at all, and everything that resumes, goes through here.

Three promises, each kept in one place:

- *Whole or not at all.* `replacing` hands out a file beside the one to be written; when all is in it, it is flushed to
  disk and renamed over the old one. A process that is killed at any moment leaves the old file or the new one.
- *Named by what it depends on.* An entry of a `Store` is found by a digest of everything that its content is a function
  of. Whoever finds it need not make it again; a result of other data, options, weights or versions has another name.
- *Checked before it is believed.* An entry's file name also holds a digest of its bytes. A file that was changed or
  damaged is refused with its name, and never read as a result.

`locked` keeps a second writer out of a folder. Files are created with the user's umask, so that others can read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

UNFINISHED = ".unfinished"
"""The suffix of files that are being written; after a kill they may be left over, and are never read."""
LOCK = ".lock"
LONGEST_NAME = 150


class StoreBusyError(RuntimeError):
    """Another process is writing to the folder."""


class DamagedFileError(ValueError):
    """A file does not hold what was written to it; the message names it and says what to do."""


def digest_of(value: Any) -> str:
    """A short name for JSON-like content that is the same only for the same content: 20 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def digest_of_bytes(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write to that takes the place of ``path`` when the block ends without an exception.

    What was written is flushed to disk before it is renamed, and the folder after. The folder is made where missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[:LONGEST_NAME]}.{uuid4().hex[:8]}{UNFINISHED}")
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all."""
    with replacing(path) as aside:
        aside.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file, UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all.

    Raises:
        ValueError: if a number in it is not finite, which JSON has no word for.
    """
    return write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, written to disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Within, no other process writes to a folder; what killed ones left unfinished there is removed.

    Raises:
        StoreBusyError: at once, if another process does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreBusyError(
            f"another process is writing to {folder}; wait for it, or choose another folder"
        ) from error
    try:
        for left_over in folder.rglob(f"*{UNFINISHED}"):
            left_over.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class Store:
    """Entries in a folder, each a file that is found by a digest of all that it depends on.

    A file is called ``{name} {digest}.{digest of its bytes}{suffix}``: the name is for people, the rest for the store.

    Args:
        folder: made when the first entry is put.
        suffix: of the files.
    """

    def __init__(self, folder: str | Path, suffix: str = ".parquet") -> None:
        self.folder, self.suffix = Path(folder), suffix

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and self.find(digest) is not None

    def find(self, digest: str) -> Path | None:
        """The file of an entry, if it is there."""
        return next(iter(sorted(self.folder.glob(f"* {digest}.*{self.suffix}"))), None)

    def found(self) -> dict[str, Path]:
        """Every entry's file by its digest."""
        every = sorted(self.folder.glob(f"* *.*{self.suffix}")) if self.folder.is_dir() else []
        return {path.name.removesuffix(self.suffix).rpartition(".")[0].rpartition(" ")[2]: path for path in every}

    def put(self, digest: str, content: bytes, *, name: str = "entry") -> Path:
        """Keep an entry's bytes; what was there under the same digest is replaced."""
        readable = "".join(one if one.isascii() and (one.isalnum() or one in " ,=-_") else "_" for one in name)
        file = f"{readable[:LONGEST_NAME]} {digest}.{digest_of_bytes(content)[:12]}{self.suffix}"
        path = write_bytes(self.folder / file, content)
        for other in self.folder.glob(f"* {digest}.*{self.suffix}"):
            if other != path:
                other.unlink(missing_ok=True)
        return path

    def read(self, digest: str) -> bytes:
        """An entry's bytes.

        Raises:
            KeyError: if there is no such entry.
            DamagedFileError: if its file is not what was put.
        """
        path = self.find(digest)
        if path is None:
            raise KeyError(f"{self.folder} has no entry {digest}")
        content = path.read_bytes()
        expected = path.name.removesuffix(self.suffix).rpartition(".")[2]
        if digest_of_bytes(content)[:12] != expected:
            raise DamagedFileError(
                f"{path} was changed or damaged since it was written; delete it to have it made again"
            )
        return content

    def put_frame(
        self, digest: str, frame: pd.DataFrame, *, name: str = "entry", about: Mapping[str, Any] | None = None
    ) -> Path:
        """Keep a table as Parquet, with a record beside its columns."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), "about": json.dumps(about or {})})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return self.put(digest, buffer.getvalue(), name=name)

    def read_frame(self, digest: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """A table and its record; errors as `read`."""
        table = pq.read_table(io.BytesIO(self.read(digest)))
        return table.to_pandas(), json.loads(table.schema.metadata[b"about"])

    def frame(self, digest: str, make: Callable[[], pd.DataFrame], *, name: str = "entry") -> pd.DataFrame:
        """The table of an entry, made and kept if it is not there; a fresh one is read back, so that both are alike."""
        if digest not in self:
            self.put_frame(digest, make(), name=name)
        return self.read_frame(digest)[0]
