"""Rows as bytes, in the format that a file's name says, such that `open_tables` reads the same cells again.

Cells are written as they are, also those that a spreadsheet would take for a formula: these are files for programs, and
a cell that was changed for a spreadsheet would not be the same when it is read again. (Tables of results are for
people, and neutralise such cells: `arm_lens.safe_text`.) In ``.csv`` and ``.tsv`` every cell is text and quoted;
what is not text is written as JSON.
"""

from __future__ import annotations

import base64
import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet

from arm_lens.preferences.files import COMPRESSIONS, file_format
from arm_lens.preferences.readers import to_python
from arm_lens.preferences.sources import EXTENSIONS

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

_DIALECTS: dict[str, type[csv.Dialect]] = {".csv": csv.excel, ".tsv": csv.excel_tab}
_WRITTEN = (str, bytes, datetime.date, datetime.time, Decimal, UUID)
"""What is text, or is written as text in JSON."""
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}


def check_extension(path: Path) -> str:
    """The extension that names the file's format, for a file that is to be written.

    Raises:
        ValueError: if the format is unknown; the message lists those that are known.
    """
    extension = file_format(path)
    if extension not in EXTENSIONS:
        known = f"{', '.join(EXTENSIONS)}, each also compressed ({', '.join(COMPRESSIONS)})"
        raise ValueError(f"{path}: files can only be written to {known}")
    return extension


def is_appendable(extension: str, path: Path) -> bool:
    """Whether rows can be added to the end of a file of a format."""
    return extension in (".jsonl", *_DIALECTS) and path.suffix.lower() not in COMPRESSIONS


def compressed(data: bytes, path: Path) -> bytes:
    """The bytes as the file's name says: compressed or as they are."""
    compress = _COMPRESS.get(path.suffix.lower())
    return data if compress is None else compress(data)


def encoded(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    extension: str,
    *,
    header: bool = True,
    schema: Any = None,
) -> bytes:
    """Rows as the bytes of a file.

    Args:
        rows: cells by column. A cell that is missing is left out of JSON, and empty in a table.
        columns: the columns in their order.
        extension: of the file format.
        header: for ``.csv`` and ``.tsv``, whether the names of the columns come first.
        schema: for ``.parquet``, the Arrow types of columns that have one; those of others follow from their cells.

    Raises:
        ValueError: naming the row and the column, if a cell cannot be written.
    """
    if extension == ".parquet":
        return _parquet(rows, columns, schema)
    if extension in _DIALECTS:
        return _cells(rows, columns, _DIALECTS[extension], header=header)
    lines = [_json({name: row[name] for name in columns if name in row}, number) for number, row in enumerate(rows, 1)]
    if extension == ".jsonl":
        return "".join(f"{line}\n" for line in lines).encode()
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode() if lines else b"[]\n"


def json_text(value: Any) -> str:
    """A value as JSON: times in ISO 8601, decimal numbers and UUIDs as text, bytes (of images) as ``data:`` URIs.

    Raises:
        ValueError: if it cannot be written, such as a number that is not finite, or half of a character.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    return text


def _plain(value: object) -> str:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"data:;base64,{base64.b64encode(value).decode()}"
    if isinstance(value, _WRITTEN):
        return str(value)
    raise TypeError(f"a value is of type {type(value).__name__}")


def _json(row: Mapping[str, Any], number: int) -> str:
    try:
        return json_text(to_python(row))
    except ValueError:
        for column, cell in row.items():
            _text(cell, column, number)
        raise


def _text(cell: Any, column: str, number: int) -> str:
    """A cell as text, that which is not text as JSON; times and decimal numbers without its quotes."""
    cell = to_python(cell)
    if cell is None:
        return ""
    try:
        return _utf8(_plain(cell)) if isinstance(cell, _WRITTEN) else json_text(cell)
    except ValueError as error:
        raise ValueError(f"row {number}, column {column!r} {error}") from error


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot be written as text: {error.reason}") from error
    return text


def _cells(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], dialect: type[csv.Dialect], *, header: bool
) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, dialect, quoting=csv.QUOTE_ALL, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow(_text(row.get(column), column, number) for column in columns)
    return out.getvalue().encode()


def _parquet(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], schema: Any) -> bytes:
    """A column without a type that mixes text and other values becomes text, with the others as JSON."""
    known = {} if schema is None else {name: schema.field(name) for name in schema.names}
    fields, arrays = [], []
    for column in columns:
        cells = [row.get(column) for row in rows]
        try:
            if column in known:
                array = pa.array(cells, known[column].type)
            elif any(isinstance(cell, str) for cell in cells):
                array = pa.array(
                    [None if cell is None else _text(cell, column, number) for number, cell in enumerate(cells, 1)],
                    pa.string(),
                )
            else:
                array = pa.array(cells)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"the column {column!r} cannot be written: {error}") from error
        arrays.append(array)
        fields.append(known.get(column) or pa.field(column, array.type))
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, None if schema is None else schema.metadata))
    out = io.BytesIO()
    pa.parquet.write_table(table, out)
    return out.getvalue()
