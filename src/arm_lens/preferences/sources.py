"""Sources of preference data: files, tables and data sets, all opened as numbered rows of named cells.

pyarrow, pandas and json do the parsing. A row that cannot be parsed is not skipped but becomes a row with a fault, so
that later rows keep their numbers and no row is lost.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet

from arm_lens.preferences.problems import PreferenceDataError, PreferenceProblem

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

PreferenceSource: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A path, ``hf://`` and the name of a data set on the hub, a data frame, rows that are mappings (such as a Hugging Face
``Dataset``), or a mapping from splits to rows."""

KeyField: TypeAlias = Callable[[Mapping[str, Any]], str]
"""Given an object that may hold lists of rows by a key, the field that the keys stand for; empty if it does not."""

HUB = "hf://"
"""Prefix of the name of a data set on the hub."""

TEXT_CELLS = (".csv", ".parquet")
"""File formats in which a column may be limited to text, so that conversations are written as JSON."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a source: its cells by column, or the fault that made it unreadable."""

    number: int
    cells: Mapping[str, Any] | None = None
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a source, and what is needed to read them."""

    name: str
    """Name of the source in problems."""
    rows: Sequence[Row]
    id_prefix: str
    """A row without an id gets this prefix and its number."""
    text_cells: bool = False
    """Whether a cell may hold a conversation as JSON text."""
    path: tuple[str, ...] = ()
    """The parts of the file's path, if it is a file."""


def open_table(source: PreferenceSource, *, split: str | None, key_field: KeyField) -> Table:
    """The rows of any source that `read_preferences` accepts, except a folder."""
    if isinstance(source, str) and source.startswith(HUB):
        return _open_hub(source, split)
    if isinstance(source, Mapping):
        field = key_field(source) if split is None else ""
        if field:
            return Table(name="data", rows=_rows_by_key(source, field), id_prefix="row ")
        rows, name = _pick_split(source, split), f"split {split}"
        return Table(name=name, rows=_rows_of(rows, name), id_prefix="row ")
    if split is not None:
        raise ValueError(f"split={split!r} was given, but the source has no splits")
    if isinstance(source, (str, Path)):
        return open_file(Path(source), key_field=key_field)
    name = "data frame" if isinstance(source, pd.DataFrame) else "data"
    return Table(name=name, rows=_rows_of(source, name), id_prefix="row ")


def is_folder(source: PreferenceSource) -> bool:
    """Whether the source is the path of an existing folder."""
    return isinstance(source, (str, Path)) and not str(source).startswith(HUB) and Path(source).is_dir()


def file_format(path: Path) -> str:
    """The extension that names the file's format, ignoring ``.gz``."""
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def is_missing(cell: Any) -> bool:
    """Whether a cell has no value: None, NaN, NaT, pandas' NA or empty text."""
    if isinstance(cell, str):
        return not cell
    return pd.api.types.is_scalar(cell) and bool(pd.isna(cell))


def to_python(cell: Any) -> Any:
    """The cell as plain Python types: numpy scalars unwrapped and arrays as lists, recursively."""
    if isinstance(cell, np.generic):
        return cell.item()
    if isinstance(cell, Mapping):
        return {key: to_python(value) for key, value in cell.items()}
    if isinstance(cell, (np.ndarray, list, tuple)):
        return [to_python(value) for value in cell]
    return cell


def _pick_split(splits: Mapping[str, Any], split: str | None) -> Any:
    if split is not None and split in splits:
        return splits[split]
    if {"prompt", "chosen", "completion"} & set(splits):
        raise ValueError(
            f"the source is one mapping with the keys {_listed(splits)}: "
            "put a single row into a list, and columns into a pandas.DataFrame"
        )
    remedy = "pass split=... to choose one" if split is None else f"there is no split {split!r}"
    raise ValueError(f"the source has the splits {_listed(splits)}; {remedy}")


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
    return Table(name=name, rows=_rows_of(loaded, name), id_prefix="row ")


def _rows_by_key(lists: Mapping[str, Any], field: str) -> list[Row]:
    """The rows of all lists, numbered consecutively, each with its key as the value of the field."""
    rows: list[Row] = []
    for key, records in lists.items():
        for record in records:
            row = _row(len(rows) + 1, record)
            if row.cells is not None and row.cells.get(field, key) != key:
                fault = f"is listed under the key {key!r}, but its {field} is {row.cells[field]!r}"
                row = Row(number=row.number, fault=fault)
            rows.append(row if row.cells is None else Row(number=row.number, cells={field: key, **row.cells}))
    return rows


def _rows_of(source: Any, name: str) -> list[Row]:
    if isinstance(source, pd.DataFrame):
        repeated = source.columns[source.columns.duplicated()]
        if len(repeated):
            problem = PreferenceProblem(source=name, message=f"two columns are named {repeated[0]!r}")
            raise PreferenceDataError([problem])
        source = source.to_dict("records")
    if hasattr(source, "with_format"):  # a Hugging Face data set may return tensors; we want plain rows
        source = source.with_format(None)
    if not isinstance(source, Iterable):
        raise TypeError(f"preferences cannot be read from a {type(source).__name__}: pass a path, table or rows")
    return [_row(number, record) for number, record in enumerate(source, start=1)]


def _row(number: int, record: object) -> Row:
    if isinstance(record, Mapping):
        return Row(number=number, cells={str(column): cell for column, cell in record.items()})
    return Row(number=number, fault=f"is a {type(record).__name__}, not named fields")


def open_file(path: Path, *, key_field: KeyField, name: str = "") -> Table:
    """The rows of a file; ``name`` (by default the file's) is what problems call it."""
    name = name or path.name
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (for a data set on the hub, use hf://owner/name)")
    if not path.is_file():
        raise ValueError(f"{path}: is a folder, not a file")
    extension = file_format(path)
    parse = _PARSERS.get(extension)
    if parse is None:
        raise ValueError(f"{path}: files with the extension {extension!r} cannot be read, only {_listed(_PARSERS)}")
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        rows = list(parse(data, key_field)) if data.strip() else []
    except _PARSE_ERRORS as error:
        raise PreferenceDataError([PreferenceProblem(source=name, message=f"is damaged: {error}")]) from error
    except _UnreadableError as error:
        raise PreferenceDataError([PreferenceProblem(source=name, message=str(error))]) from error
    text_cells = extension in TEXT_CELLS
    return Table(name=name, rows=rows, id_prefix=f"{name}:", text_cells=text_cells, path=path.absolute().parts)


_PARSE_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowInvalid, pd.errors.ParserError, UnicodeDecodeError)
"""Raised by the parsers for files that are truncated, in another format, or not in UTF-8."""


class _UnreadableError(Exception):
    """The file as a whole cannot be read."""


def _parse_jsonl(data: bytes, _: KeyField) -> Iterator[Row]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            yield Row(number=number, fault=f"is not JSON: {error}")
        else:
            yield _row(number, record)


def _parse_json(data: bytes, key_field: KeyField) -> Iterator[Row]:
    try:
        records = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; if it has one record per line, name it .jsonl" if error.msg == "Extra data" else ""
        raise _UnreadableError(f"is not JSON: {error}{hint}") from error
    if isinstance(records, dict) and (field := key_field(records)):
        return iter(_rows_by_key(records, field))
    if not isinstance(records, list):
        keys = f" with the keys {_listed(records)}" if isinstance(records, dict) else ""
        raise _UnreadableError(f"should hold a list of records, but is of type {type(records).__name__}{keys}")
    return (_row(number, record) for number, record in enumerate(records, start=1))


def _parse_csv(data: bytes, _: KeyField) -> Iterator[Row]:
    if data.count(b'"') % 2:
        # pyarrow takes everything after an unclosed quote as one cell; pandas' tokenizer says where the quote opens.
        pd.read_csv(io.BytesIO(data), dtype=str, usecols=[0], on_bad_lines="skip")
    faults: list[Row] = []

    def record_fault(row: Any) -> str:
        fault = f"has {row.actual_columns} cells, but the header has {row.expected_columns}: {row.text[:80]!r}"
        faults.append(Row(number=row.number - 1, fault=fault))  # pyarrow counts the header as row 1
        return "skip"

    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    header = next(cells for cells in csv.reader(text) if cells)
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise _UnreadableError(f"two columns are named {repeated[0]!r}")
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        # One block, since a cell may be long; one thread, since otherwise pyarrow does not report row numbers.
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=record_fault),
        # Everything is read as text: 'NA', '1' and 'true' are words unless a field needs another type.
        convert_options=pa.csv.ConvertOptions(column_types={name: pa.string() for name in header}),
    )
    faulty = {row.number: row for row in faults}
    good = iter(table.to_pylist())
    numbers = range(1, table.num_rows + len(faults) + 1)
    return (faulty[number] if number in faulty else _row(number, next(good)) for number in numbers)


def _parse_parquet(data: bytes, _: KeyField) -> Iterator[Row]:
    records = pa.parquet.read_table(pa.BufferReader(data)).to_pylist()
    return (_row(number, record) for number, record in enumerate(records, start=1))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


_PARSERS: Mapping[str, Callable[[bytes, KeyField], Iterator[Row]]] = {
    ".jsonl": _parse_jsonl,
    ".json": _parse_json,
    ".csv": _parse_csv,
    ".parquet": _parse_parquet,
}
