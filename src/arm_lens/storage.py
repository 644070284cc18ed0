"""The one store: everything that is written whole or not at all, and everything that resumes, goes through here.

Three promises, each kept in one place:

- *Whole or not at all.* `replacing` hands out a file beside the one to be written; when all is in it, it is flushed to
  disk and renamed over the old one. A process that is killed at any moment leaves the old file or the new one. What grows
  piece by piece (`Growing`) has after every kill a whole number of pieces.
- *Named by what it depends on.* An entry of a `Store` is found by a digest of everything that its content is a function
  of. Whoever finds it need not make it again; a result of other data, options, weights or versions has another name.
- *Checked before it is believed.* With what is kept goes a digest of its bytes: in the file's name (`Store`), in its first
  line (`write_sealed`), or beside it (`Growing`). A file that was changed or damaged is refused with its name, and never
  read as a result. The digest tells accidents, not attacks: who can write the file can write its digest.

`locked` keeps a second writer out of a folder. Files are created with the user's umask, so that others can read them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

UNFINISHED = ".unfinished"
"""In the names of files that are being written; after a kill they may be left over, and are never read."""
LOCK = ".lock"
LONGEST_NAME = 150
SEAL = b"arm_lens sha256 "
"""What a sealed file begins with; its digest and a line break follow, then what it holds."""


class StoreBusyError(RuntimeError):
    """Another process is writing there."""


class DamagedFileError(ValueError):
    """A file does not hold what was written to it; the message names it and says what to do."""


# -------------------------------------------------------------------------------------------------------------- digests


def digest_of(value: Any) -> str:
    """A short name for JSON-like content that is the same only for the same content: 20 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def digest_of_bytes(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


# -------------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write to that takes the place of ``path`` when the block ends without an exception.

    What was written is flushed to disk before it is renamed, and the folder after. The folder is made where missing. The
    file to write to ends as ``path`` does, for writers that go by it; where ``path`` is a symbolic link, what it leads to
    is replaced.
    """
    path = Path(os.path.realpath(path))
    _make_folder(path.parent)
    aside = path.with_name(f".{uuid4().hex}{UNFINISHED}{path.suffix}")
    try:
        yield aside
        _flush(aside)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, aside)  # what was private stays so
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


def write_frame(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write a table as Parquet, whole or not at all."""
    with replacing(path) as aside:
        frame.to_parquet(aside, index=False)
    return Path(path)


def write_sealed(path: str | Path, content: bytes, *, over: bool = True) -> Path:
    """Write a file whole or not at all, with the digest of what it holds in its first line; `read_sealed` reads it.

    Args:
        path: the file.
        content: what it holds.
        over: take the place of a file that is there; otherwise that one stays, also if another process puts it there at
            the same time.
    """
    sealed = SEAL + digest_of_bytes(content).encode() + b"\n" + content
    if over:
        return write_bytes(path, sealed)
    path = Path(path)
    _make_folder(path.parent)
    aside = path.with_name(f".{uuid4().hex}{UNFINISHED}")
    try:
        aside.write_bytes(sealed)
        _flush(aside)
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)  # unlike a rename it never takes the place of another file
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)
    return path


def read_sealed(path: str | Path) -> bytes:
    """What `write_sealed` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it holds anything else.
    """
    head, _, content = Path(path).read_bytes().partition(b"\n")
    if head != SEAL + digest_of_bytes(content).encode():
        raise DamagedFileError(f"{path} was changed or damaged since it was written, or is another program's file")
    return content


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are there after a loss of power as what is in them is."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, written to disk."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except PermissionError:
        if is_folder:  # Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network disks flush no folders
            raise
    finally:
        os.close(descriptor)


# -------------------------------------------------------------------------------------------------------------- locking


@contextlib.contextmanager
def locked(folder: str | Path, *, wait: float = 0.0, deep: bool = True) -> Iterator[None]:
    """Within, no other process writes to a folder; what killed ones left unfinished there is removed.

    Args:
        folder: made where missing.
        wait: so many seconds for another process to be done.
        deep: look for what was left unfinished in the folders within, too.

    Raises:
        StoreBusyError: if it is not.
    """
    folder = Path(folder)
    _make_folder(folder)
    with _lock(folder / LOCK, folder, wait):
        for left_over in _left_over(folder, deep):
            left_over.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _lock(lock_file: Path, what: Path, wait: float) -> Iterator[None]:
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise StoreBusyError(f"another process is writing to {what}; wait for it, or choose another place") from error
    try:
        yield
    finally:
        lock.release()


def _left_over(folder: Path, deep: bool) -> Iterator[Path]:
    """What was being written in a folder and those in it, but for those that have a lock of their own."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if deep and not (Path(where) / name / LOCK).exists()]
        yield from (Path(where) / name for name in files if name.startswith(".") and name[33:].startswith(UNFINISHED))


# ---------------------------------------------------------------------------------------------------------- what resumes


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
        return next(iter(self._files(digest)), None)

    def found(self) -> dict[str, Path]:
        """Every entry's file by its digest."""
        return {self._parts(path)[0]: path for path in reversed(self._files("*"))}

    def put(self, digest: str, content: bytes, *, name: str = "entry") -> Path:
        """Keep an entry's bytes; what was there under the same digest is replaced."""
        readable = "".join(one if one.isascii() and (one.isalnum() or one in " ,=-_") else "_" for one in name)
        file = f"{readable[:LONGEST_NAME]} {digest}.{digest_of_bytes(content)[:12]}{self.suffix}"
        path = write_bytes(self.folder / file, content)
        for other in self._files(digest):
            if other != path:
                other.unlink(missing_ok=True)
        return path

    def read(self, digest: str) -> bytes:
        """An entry's bytes.

        Raises:
            KeyError: if there is no such entry.
            DamagedFileError: if its file is not what was put.
        """
        files = self._files(digest)
        for path in files:  # two after a kill, if what was put again was not the same
            content = path.read_bytes()
            if digest_of_bytes(content)[:12] == self._parts(path)[1]:
                return content
        if not files:
            raise KeyError(f"{self.folder} has no entry {digest}")
        raise DamagedFileError(
            f"{files[0]} was changed or damaged since it was written; delete it to have it made again"
        )

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

    def _files(self, digest: str) -> list[Path]:
        return sorted(self.folder.glob(f"* {digest}.*{self.suffix}"))

    def _parts(self, path: Path) -> tuple[str, str]:
        """The two digests in a file's name."""
        entry, _, content = path.name.removesuffix(self.suffix).rpartition(".")
        return entry.rpartition(" ")[2], content


class Growing:
    """A file that grows piece by piece, and goes on after a kill with the piece that was not whole.

    Beside it lies ``NAME.made-of.json``: what the file is made of, how many pieces it has, their length and digest. It is
    written after each piece, so that what it says is always there; what the file holds beyond is half a piece, and goes.

    Args:
        path: the file.
        made_of: everything its content is a function of, JSON-like; another file is not gone on with.

    Raises:
        ValueError: if the file is there and made of something else, or nobody knows of what.
        DamagedFileError: if it is not what was written.
    """

    def __init__(self, path: str | Path, made_of: Mapping[str, Any]) -> None:
        self.path, self.pieces = Path(path), 0
        self._beside = self.path.with_name(self.path.name + ".made-of.json")
        self._made_of, self._digest, self._length = json.loads(json.dumps(made_of)), hashlib.sha256(), 0
        if self.path.exists():
            self._go_on()
        else:
            self._note()
            self.path.touch()

    def append(self, content: bytes) -> None:
        """Add a piece."""
        with self.path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(content)
        self._length, self.pieces = self._length + len(content), self.pieces + 1
        self._note()

    def _note(self) -> None:
        known = {"pieces": self.pieces, "length": self._length, "sha256": self._digest.hexdigest()}
        write_json(self._beside, {**known, "made_of": self._made_of})

    def _go_on(self) -> None:
        try:
            known = json.loads(self._beside.read_bytes())
            made_of, self.pieces, self._length = dict(known["made_of"]), int(known["pieces"]), int(known["length"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            made_of = {}
        if made_of != self._made_of:
            differing = sorted(
                key for key in {**made_of, **self._made_of} if made_of.get(key) != self._made_of.get(key)
            )
            raise ValueError(
                f"{self.path} was made of something else ({', '.join(differing)}); delete it or choose another file"
            )
        with self.path.open("r+b") as file:
            self._digest.update(file.read(self._length))
            if self._digest.hexdigest() != known["sha256"]:
                raise DamagedFileError(f"{self.path} was changed since it was written; delete it to have it made again")
            file.truncate(self._length)


@contextlib.contextmanager
def growing(path: str | Path, made_of: Mapping[str, Any]) -> Iterator[Growing]:
    """A `Growing` file that nobody else adds to meanwhile; errors as there.

    Raises:
        StoreBusyError: at once, if another process adds to it.
    """
    path = Path(path)
    _make_folder(path.parent)
    with _lock(path.with_name(f".{path.name}{LOCK}"), path, 0.0):
        yield Growing(path, made_of)
