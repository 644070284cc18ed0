"""Sources of preference data: files, tables and data sets, all opened as numbered rows of named cells.

csv, json and pyarrow do the parsing. A row that cannot be parsed is not skipped but becomes a row with a fault, so
that later rows keep their numbers and no row is lost.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow.parquet

from arm_lens.preferences.formats.registry import registered
from arm_lens.preferences.formats.rows import Row, Table
from arm_lens.preferences.problems import unreadable

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

PreferenceSource: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A path, ``hf://`` and the name of a data set on the hub, a data frame, rows that are mappings (such as a Hugging Face
``Dataset``), or a mapping from splits to rows."""

HUB = "hf://"
"""Prefix of the name of a data set on the hub."""

_FORMATS = (".jsonl", ".json", ".csv", ".parquet")

TEXT_CELLS = (".csv", ".parquet")
"""File formats in which a column may be limited to text, so that conversations are written as JSON."""


def open_tables(source: PreferenceSource, split: str | None, format: str | None) -> list[Table]:
    """The tables of a source: one, or for a folder one per file that belongs to the format (or, without one, to any)."""
    if isinstance(source, str) and source.startswith(HUB):
        return [_open_hub(source, split)]
    if isinstance(source, Mapping):
        field = _key_field(source, format) if split is None else ""
        if field:
            return [Table(name="data", rows=_rows_by_key(source, field))]
        name = f"split {split}"
        return [Table(name=name, rows=_rows_of(_pick_split(source, split), name))]
    if split is not None:
        raise ValueError(f"split={split!r} was given, but the source has no splits")
    if not isinstance(source, (str, Path)):
        name = "data frame" if isinstance(source, pd.DataFrame) else "data"
        return [Table(name=name, rows=_rows_of(source, name))]
    path = Path(source)
    if not path.is_dir():
        return [_open_file(path, path.name, format)]
    files = sorted({file for one in registered(format) for pattern in one.files for file in path.glob(pattern)})
    if not files:
        names = ", ".join(one.name for one in registered() if one.files)
        raise ValueError(f"{path}: is a folder without the files of a format that is read from a folder ({names})")
    return [_open_file(file, file.relative_to(path).as_posix(), format) for file in files]


def file_format(path: Path) -> str:
    """The extension that names the file's format, ignoring ``.gz``."""
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def _key_field(lists: Mapping[str, Any], format: str | None) -> str:
    """The field that the keys stand for, if a format (any, or the named one) is an object of lists by key; or ``""``."""
    columns: set[str] = set()
    for rows in lists.values():
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            return ""
        columns.update(*rows)
    for one in registered(format):
        if one.key_field and (format or one.signature_in(columns | {one.key_field})):
            return one.key_field
    return ""


def _pick_split(splits: Mapping[str, Any], split: str | None) -> Any:
    if split is not None and split in splits:
        return splits[split]
    names = ", ".join(map(str, splits))
    if {"prompt", "chosen", "completion"} & set(splits):
        raise ValueError(
            f"the source is one mapping with the keys {names}: "
            "put a single row into a list, and columns into a pandas.DataFrame"
        )
    remedy = "pass split=... to choose one" if split is None else f"there is no split {split!r}"
    raise ValueError(f"the source has the splits {names}; {remedy}")


def _open_hub(source: str, split: str | None) -> Table:
    """A data set on the hub, or in a local folder that ``datasets`` can load."""
    try:
        import datasets
    except ImportError as error:
        message = f"{source} needs the datasets library, which is not installed: pip install 'arm-lens[datasets]'"
        raise ImportError(message) from error
    loaded: Any = datasets.load_dataset(source.removeprefix(HUB), split=split)
    if isinstance(loaded, Mapping):  # no split was given
        if len(loaded) != 1:
            _pick_split(loaded, None)
        split, loaded = next(iter(loaded.items()))
    name = f"{source}, split {split}"
    return Table(name=name, rows=_rows_of(loaded, name))


def _rows_by_key(lists: Mapping[str, Any], field: str) -> list[Row]:
    """The rows of all lists, numbered consecutively, each with its key as the value of the field."""
    rows: list[Row] = []
    for key, record in ((key, record) for key, records in lists.items() for record in records):
        row = _row(len(rows) + 1, {field: key, **record})
        if row.cells[field] != key:
            fault = f"is listed under the key {key!r}, but its {field} is {row.cells[field]!r}"
            row = Row(number=row.number, fault=fault)
        rows.append(row)
    return rows


def _rows_of(source: Any, name: str) -> list[Row]:
    if isinstance(source, pd.DataFrame):
        _check_names(source.columns, name)
        source = source.to_dict("records")
    if hasattr(source, "with_format"):  # a Hugging Face data set may return tensors; we want plain rows
        source = source.with_format(None)
    if not isinstance(source, Iterable):
        raise TypeError(f"preferences cannot be read from a {type(source).__name__}: pass a path, table or rows")
    return [_row(number, record) for number, record in enumerate(source, start=1)]


def _check_names(columns: Iterable[object], name: str) -> None:
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if repeated:
        raise unreadable(name, f"two columns are named {repeated[0]!r}")


def _row(number: int, record: object) -> Row:
    if isinstance(record, Mapping):
        return Row(number=number, cells={str(column): cell for column, cell in record.items()})
    return Row(number=number, fault=f"is a {type(record).__name__}, not named fields")


def _open_file(path: Path, name: str, format: str | None) -> Table:
    """The rows of a file; ``name`` is what problems call it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (for a data set on the hub, use hf://owner/name)")
    extension = file_format(path)
    if extension not in _FORMATS:
        raise ValueError(f"{path}: files with the extension {extension!r} cannot be read, only {', '.join(_FORMATS)}")
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        rows = _parse(data, extension, name, format) if data.strip() else []
    except (
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
        pa.ArrowInvalid,
        pd.errors.ParserError,
        UnicodeDecodeError,
    ) as error:
        # The file is truncated, in another format, or not in UTF-8.
        raise unreadable(name, f"is damaged: {error}") from error
    return Table(name=name, rows=rows, path=path.absolute(), text_cells=extension in TEXT_CELLS)


def _parse(data: bytes, extension: str, name: str, format: str | None) -> list[Row]:
    if extension == ".jsonl":
        return list(_parse_jsonl(data))
    if extension == ".csv":
        return list(_parse_csv(data, name))
    if extension == ".parquet":
        return _rows_of(pa.parquet.read_table(pa.BufferReader(data)).to_pylist(), name)
    try:
        records = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; if it has one record per line, name it .jsonl" if error.msg == "Extra data" else ""
        raise unreadable(name, f"is not JSON: {error}{hint}") from error
    if isinstance(records, dict) and (field := _key_field(records, format)):
        return _rows_by_key(records, field)
    if not isinstance(records, list):
        keys = f" with the keys {', '.join(records)}" if isinstance(records, dict) else ""
        raise unreadable(name, f"should hold a list of records, but is of type {type(records).__name__}{keys}")
    return _rows_of(records, name)


def _parse_jsonl(data: bytes) -> Iterator[Row]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _row(number, json.loads(line.decode("utf-8-sig")))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            yield Row(number=number, fault=f"is not JSON: {error}")


def _parse_csv(data: bytes, name: str) -> Iterator[Row]:
    """The rows as text: 'NA', '1' and 'true' are words unless a field needs another type."""
    if data.count(b'"') % 2:
        # csv takes everything after an unclosed quote as one cell; pandas' tokenizer says where the quote opens.
        pd.read_csv(io.BytesIO(data), dtype=str, usecols=[0], on_bad_lines="skip")
    csv.field_size_limit(max(csv.field_size_limit(), len(data)))  # a response may be longer than csv's limit
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    lines = (cells for cells in reader if cells)
    header = next(lines, [])
    _check_names(header, name)
    for number, cells in enumerate(lines, start=1):
        if len(cells) == len(header):
            yield _row(number, dict(zip(header, cells, strict=True)))
        else:
            fault = f"has {len(cells)} cells, but the header has {len(header)}: {','.join(cells)[:80]!r}"
            yield Row(number=number, fault=fault)
