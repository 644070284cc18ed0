"""The one store: all atomic writes and everything that resumes go through here.

Three promises, each implemented in one place:

- *Atomic.* `replacing` gives a temporary file next to the target; when it is complete, it is flushed to disk and renamed
  over the target. A process that is killed at any moment leaves the old file or the new one. A file that grows piece by
  piece (`Growing`) has a whole number of pieces after every kill.
- *Named by what it depends on.* An entry of a `Store` is found by a digest of everything that its content depends on.
  Whoever finds it need not compute it again; a result of other data, options, weights or versions has another name.
- *Checked when it is read.* A digest of a file's bytes is in its name (`Store`), in its first line (`write_sealed`), or in a
  file next to it (`Growing`). A file that was changed or damaged is refused by name and never read as a result. The digest
  detects accidents, not attacks: whoever can write the file can write its digest.

`locked` keeps a second writer out of a folder. Files are created with the user's umask, so that others can read them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

UNFINISHED = ".unfinished"
"""Part of the names of temporary files. A kill may leave them behind; they are never read."""
LOCK = ".lock"
LONGEST_NAME = 150
DEEPEST, LONGEST_INTEGER = 32, 18
"""Levels of nested JSON that `parse_json` accepts, and digits of an integer."""
SEAL = b"arm_lens sha256 "
"""The beginning of a sealed file; its digest, a line break and the content follow."""


class StoreBusyError(RuntimeError):
    """Another process is writing to the same place."""


class DamagedFileError(ValueError):
    """A file's content is not what was written to it; the message names the file and a remedy."""


# -------------------------------------------------------------------------------------------------------------- digests


def digest_of(value: Any) -> str:
    """A short name for JSON-like content, equal only for equal content: 20 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def digest_of_bytes(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


# -------------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: str | Path, *, over: bool = True) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when the block ends without an exception.

    The file is flushed to disk before it is renamed, and the folder afterwards. A missing folder is made. The temporary file
    has the suffix of ``path``, for writers that depend on it. If ``path`` is a symbolic link, its target is replaced.

    Args:
        path: the file.
        over: replace a file that is there; otherwise the file that was there first stays, also if another process writes it
            at the same time.
    """
    path = Path(os.path.realpath(path))
    _make_folder(path.parent)
    temporary = path.with_name(f".{uuid4().hex}{UNFINISHED}{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        if over:
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(path, temporary)  # a private file stays private
            os.replace(temporary, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # unlike a rename, a link never replaces a file
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file, UTF-8, atomically."""
    return write_bytes(path, text.encode("utf-8"))


def json_bytes(value: Any) -> bytes:
    """JSON, indented, as bytes.

    Raises:
        ValueError: if a number in it is not finite, which JSON cannot express.
    """
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8")


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON, indented, atomically; errors as for `json_bytes`."""
    return write_bytes(path, json_bytes(value))


def write_sealed(path: str | Path, content: bytes, *, over: bool = True) -> Path:
    """Write a file atomically, with the digest of its content in its first line; see `read_sealed` and `replacing`."""
    with replacing(path, over=over) as temporary:
        temporary.write_bytes(SEAL + digest_of_bytes(content).encode() + b"\n" + content)
    return Path(path)


def read_sealed(path: str | Path) -> bytes:
    """Read what `write_sealed` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if its content is anything else.
    """
    head, newline, content = Path(path).read_bytes().partition(b"\n")
    if head + newline != SEAL + digest_of_bytes(content).encode() + b"\n":
        raise DamagedFileError(f"{path} was changed or damaged since it was written, or is another program's file")
    return content


# -------------------------------------------------------------------------------------------------------------- reading


def read_regular(path: str | Path, *, most: int) -> bytes:
    """The bytes of a regular file, of which a symbolic link may be the name.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it has more than ``most`` bytes, or is something else: a folder, a pipe, a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise DamagedFileError(f"{path} is a folder, a pipe or a device, not a file")
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DamagedFileError(f"{path} has more than {most:,} bytes")
    return content


def parse_json(content: bytes, *, half_characters: bool = False) -> Any:
    r"""JSON that means the same to everybody who reads it.

    ``half_characters`` lets a text contain half of a character (``"\ud800"``), as at the end of a text that was cut.

    Raises:
        ValueError: if it is not JSON in UTF-8, has a key twice, a number that is not finite or an integer of more than 18
            digits, half of a character, or is nested more than `DEEPEST` levels.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_short,
        )
        if not half_characters:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} levels") from None
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels")
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [one for part in parts for one in part]
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {key[:80]!r} twice")
        found[key] = value
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"it contains {text}, which is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:20])


def _short(text: str) -> int:
    if len(text.lstrip("-")) > LONGEST_INTEGER:
        raise ValueError(f"it contains an integer of {len(text)} digits")
    return int(text)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, and flush their names to disk, so that they survive a loss of power."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
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
    """Within, no other process writes to a folder; temporary files that killed processes left there are removed.

    Args:
        folder: made if it is missing.
        wait: seconds to wait for another process to finish.
        deep: also remove temporary files in the folders within.

    Raises:
        StoreBusyError: if another process still writes there.
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
    """Temporary files in a folder and in the folders within, except those that have a lock of their own."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if deep and not (Path(where) / name / LOCK).exists()]
        yield from (Path(where) / name for name in files if name.startswith(".") and name[33:].startswith(UNFINISHED))


# ---------------------------------------------------------------------------------------------------------- what resumes


class Store:
    """Entries in a folder: each is a file, found by a digest of everything that it depends on.

    A file is called ``{name} {digest}.{digest of its bytes}{suffix}``: the name is for people, the rest for the store.

    Args:
        folder: made when the first entry is put.
        suffix: the suffix of the files.
    """

    def __init__(self, folder: str | Path, suffix: str = ".parquet") -> None:
        self.folder, self.suffix = Path(folder), suffix
        self._seen: dict[str, Path] = {}

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and bool(self._files(digest))

    def found(self) -> dict[str, Path]:
        """Every entry's file by its digest; `read` looks there first."""
        self._seen = {self._parts(path)[0]: path for path in reversed(self._files("*"))}
        return dict(self._seen)

    def put(self, digest: str, content: bytes, *, name: str = "entry") -> Path:
        """Store an entry's bytes; an entry with the same digest is replaced."""
        readable = re.sub(r"[^A-Za-z0-9 ,=_-]", "_", name)
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
            DamagedFileError: if its file was changed.
        """
        known = self._seen or self.found()
        with contextlib.suppress(KeyError, FileNotFoundError):
            return self._intact(known[digest])
        files = self._files(digest)
        for path in files:  # a kill may leave two, if an entry was put again with other bytes
            with contextlib.suppress(KeyError):
                return self._intact(path)
        if not files:
            raise KeyError(f"{self.folder} has no entry {digest}")
        raise DamagedFileError(
            f"{files[0]} was changed or damaged since it was written; delete it to have it made again"
        )

    def _intact(self, path: Path) -> bytes:
        """The bytes of a file; a KeyError if they are not those that were written."""
        content = path.read_bytes()
        if digest_of_bytes(content)[:12] != self._parts(path)[1]:
            raise KeyError(path)
        return content

    def put_frame(
        self, digest: str, frame: pd.DataFrame, *, name: str = "entry", about: Mapping[str, Any] | None = None
    ) -> Path:
        """Store a table as Parquet, together with a record."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), "about": json.dumps(about or {})})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return self.put(digest, buffer.getvalue(), name=name)

    def read_frame(self, digest: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Read a table and its record; errors as for `read`."""
        table = pq.read_table(io.BytesIO(self.read(digest)))
        return table.to_pandas(), json.loads(table.schema.metadata[b"about"])

    def frame(self, digest: str, make: Callable[[], pd.DataFrame], *, name: str = "entry") -> pd.DataFrame:
        """Read a table, or make and store it first; a new table is also read back, so that both are alike."""
        if digest not in self:
            self.put_frame(digest, make(), name=name)
        return self.read_frame(digest)[0]

    def _files(self, digest: str) -> list[Path]:
        return sorted(self.folder.glob(f"* {digest}.*{self.suffix}"))

    def _parts(self, path: Path) -> tuple[str, str]:
        """The two digests in a file's name: the entry's, and that of the bytes."""
        entry, _, content = path.name.removesuffix(self.suffix).rpartition(".")
        return entry.rpartition(" ")[2], content


class Growing:
    """A file that grows piece by piece, and continues after a kill with the piece that was not complete.

    ``NAME.made-of.json`` next to it records what the file is made of, the number of its pieces, their length and their
    digest. It is written after each piece, so the file always has what it records; anything beyond is part of a piece that
    was not completed, and is cut off.

    Args:
        path: the file.
        made_of: everything that the content depends on, JSON-like; a file made of something else is not continued, unless
            it has no piece yet.

    Raises:
        FileExistsError: if the file has no record of what it is made of: it is somebody else's.
        ValueError: if the file is made of something else.
        DamagedFileError: if the file was changed.
    """

    def __init__(self, path: str | Path, made_of: Mapping[str, Any]) -> None:
        self.path, self.pieces = Path(path), 0
        self._record = self.path.with_name(self.path.name + ".made-of.json")
        self._made_of, self._digest, self._length = json.loads(json.dumps(made_of)), hashlib.sha256(), 0
        if self.path.exists() and not self._record.exists():
            raise FileExistsError(errno.EEXIST, "exists, and was not written by this program", str(self.path))
        if self.path.exists():
            self._continue()
        else:
            self._write_record()
            self.path.touch()

    def append(self, content: bytes) -> None:
        """Add a piece."""
        with self.path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(content)
        self._length, self.pieces = self._length + len(content), self.pieces + 1
        self._write_record()

    def _write_record(self) -> None:
        known = {"pieces": self.pieces, "length": self._length, "sha256": self._digest.hexdigest()}
        write_json(self._record, {**known, "made_of": self._made_of})

    def _continue(self) -> None:
        try:
            known = parse_json(self._record.read_bytes())
            made_of, digest = dict(known["made_of"]), str(known["sha256"])
            self.pieces, self._length = int(known["pieces"]), int(known["length"])
        except (OSError, ValueError, LookupError, TypeError):
            made_of, digest = {}, ""
        if min(self.pieces, self._length) < 0:
            made_of = {}
        if made_of != self._made_of:
            if made_of and not (self.pieces or self._length or self.path.stat().st_size):  # nothing was made
                self._write_record()
                return
            differing = sorted(
                key for key in {**made_of, **self._made_of} if made_of.get(key) != self._made_of.get(key)
            )
            raise ValueError(
                f"{self.path} was made of something else ({', '.join(differing)}); delete it or choose another file"
            )
        with self.path.open("r+b") as file:
            self._digest.update(file.read(self._length))
            if self._digest.hexdigest() != digest:
                raise DamagedFileError(f"{self.path} was changed since it was written; delete it to have it made again")
            file.truncate(self._length)


@contextlib.contextmanager
def growing(path: str | Path, made_of: Mapping[str, Any]) -> Iterator[Growing]:
    """A `Growing` file to which no other process adds meanwhile; errors as there.

    Raises:
        StoreBusyError: at once, if another process adds to it.
    """
    path = Path(path)
    _make_folder(path.parent)
    with _lock(path.with_name(f".{path.name}{LOCK}"), path, 0.0):
        yield Growing(path, made_of)
