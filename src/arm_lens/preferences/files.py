"""The bytes and the JSON of files from strangers, bounded before they take memory.

A file is decompressed piece by piece and refused as soon as it exceeds a limit, so that a small file never becomes a
large one. JSON is bounded in depth, and numbers that Python or JSON cannot express, repeated keys and halves of
characters are
errors: the first would be a traceback, the others would change silently what was said.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow

from arm_lens.preferences.messages import MAX_DEPTH
from arm_lens.preferences.problems import unreadable

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

MAX_BYTES = 2**30
"""How many bytes a file may have after it is decompressed, unless the caller allows more."""
MAX_ROW_BYTES = 2**24
"""How many bytes a line of text, and how many characters a cell, may have."""
MAX_ROWS = 5_000_000
"""How many rows a file may have."""
MAX_VALUES = 30_000_000
"""How many values a JSON file may have; each takes tens of bytes of memory, and two in the file."""

_PIECE = 2**20
_MAX_DICTIONARY = 2**28
"""How much memory the decompression of ``.xz`` may take."""
_HALF_CHARACTER = re.compile(r"\\u[dD][89abcdefABCDEF]")


class JsonError(ValueError):
    """Text that is not JSON, or JSON that cannot be read exactly; the message follows the name of what has it."""


def _gunzipped(data: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        yield from iter(lambda: file.read(_PIECE), b"")


def _streams(data: bytes, opened: Callable[[], Any], padding: bytes) -> Iterator[bytes]:
    """Compressed streams, which may follow each other, padded; what is no stream is an error, and not left out."""
    while data.strip(padding):
        decompressor = opened()
        piece = decompressor.decompress(data, max_length=_PIECE)
        while not decompressor.eof:
            if not piece and decompressor.needs_input:
                raise EOFError("it ends in the middle")
            yield piece
            piece = decompressor.decompress(b"", max_length=_PIECE)
        yield piece
        data = decompressor.unused_data.lstrip(padding)


def _bunzipped(data: bytes) -> Iterator[bytes]:
    return _streams(data, bz2.BZ2Decompressor, b"\0")


def _unxzed(data: bytes) -> Iterator[bytes]:
    return _streams(data, lambda: lzma.LZMADecompressor(memlimit=_MAX_DICTIONARY), b"\0")


def _unzstded(data: bytes) -> Iterator[bytes]:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as file:
        yield from iter(lambda: file.read(_PIECE), b"")


_DECOMPRESS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    ".gz": _gunzipped,
    ".bz2": _bunzipped,
    ".xz": _unxzed,
    ".zst": _unzstded,
}

COMPRESSIONS = tuple(_DECOMPRESS)
"""Extensions of compressed files."""


def file_format(path: Path) -> str:
    """The extension that names a file's format, ignoring that of its compression."""
    is_compressed = path.suffix.lower() in COMPRESSIONS
    return Path(path.stem if is_compressed else path.name).suffix.lower()


def content_of(path: Path, name: str, max_bytes: int) -> bytes:
    """A file's bytes, decompressed if its extension says so.

    Args:
        path: the file.
        name: what errors call it.
        max_bytes: how many there may be, before and after decompression.

    Raises:
        PreferenceDataError: if there are more, or if the compressed data is damaged.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    limit = f"{max_bytes:,} bytes"
    if len(data) > max_bytes:
        raise unreadable(name, f"has more than {limit}; pass max_bytes=... to read it")
    decompress = _DECOMPRESS.get(path.suffix.lower())
    if decompress is None:
        return data
    content = bytearray()
    try:
        for piece in decompress(data):
            content += piece
            if len(content) > max_bytes:
                raise unreadable(name, f"has more than {limit} when it is decompressed; pass max_bytes=... to read it")
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise unreadable(name, f"is damaged: {error}") from error
    return bytes(content)


def parse_json(data: bytes) -> Any:
    """The value that JSON in UTF-8 states; NaN, which is not JSON but which pandas and Python write, is None.

    Raises:
        JsonError: if it is not JSON, or cannot be read exactly.
    """
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
    except RecursionError as error:
        raise JsonError(f"is nested more than {MAX_DEPTH} levels deep") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"is not JSON: {error}{utf16_hint(data)}") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"is not JSON: {error}") from error
    except JsonError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise JsonError(f"has a number that cannot be read: {error}") from error
    if _HALF_CHARACTER.search(text):
        _check_characters(value)
    return value


def utf16_hint(data: bytes) -> str:
    """What to do with data that is not UTF-8, if it begins as UTF-16 does; otherwise ``""``."""
    begins = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "; it looks like UTF-16: save it as UTF-8" if begins else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise JsonError(f"has the key {next(key for key in keys if keys.count(key) > 1)!r:.80} twice")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise JsonError(f"has the number {text:.40}, which is too large")
    return value


def _constant(name: str) -> None:
    if name != "NaN":
        raise JsonError(f"has {name}, which is not a number in JSON")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise JsonError(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def _check_characters(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = ascii(value[error.start])
            raise JsonError(f"has {found}, half of a character that is not text") from error
    elif isinstance(value, list):
        for item in value:
            _check_characters(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_characters(key)
            _check_characters(item)
