"""Sources of preference data: files, tables and data sets, all opened as numbered rows of named cells.

csv, json and pyarrow do the parsing. A row that cannot be parsed is not skipped but becomes a row with a fault, so
that later rows keep their numbers and no row is lost. How large a source may be is stated in `arm_lens.preferences.files`.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow.parquet

from arm_lens.preferences.delimited import Literal, check_names, divided_row, is_grid, lines, parse_cells
from arm_lens.preferences.files import (
    COMPRESSIONS,
    MAX_BYTES,
    MAX_ROW_BYTES,
    MAX_ROWS,
    MAX_VALUES,
    JsonError,
    content_of,
    file_format,
    parse_json,
)
from arm_lens.preferences.formats.registry import registered
from arm_lens.preferences.formats.rows import Row, Table
from arm_lens.preferences.images import Image, as_image
from arm_lens.preferences.problems import PreferenceDataError, unreadable
from arm_lens.safe_text import printable

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

PreferenceSource: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Any] | Iterable[Any]
"""A path, ``hf://`` and the name of a data set on the hub, a data frame, rows that are mappings (such as a Hugging Face
``Dataset``), or a mapping from splits to rows. If columns are given by position, rows may be lists."""

HUB = "hf://"
"""Prefix of the name of a data set on the hub."""

EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""The file formats; each may also be compressed."""


_SPLITS = frozenset({"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval"})
"""What splits are called, and the kinds of rows that a format lists by key are not."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a source is opened."""

    split: str | None = None
    """Which split to read, if there are several."""
    format: str | None = None
    """The format, if it was named."""
    positional: bool = False
    """Whether cells are known by their position, counted from 1, because there are no names."""
    limit: int | None = None
    """How many rows to read; None for all."""
    max_bytes: int = MAX_BYTES
    """How many bytes a file may have after it is decompressed."""


def image_reader(table: Table, *, allow_urls: bool, allow_any_path: bool) -> Callable[..., Image]:
    """How the images of a table are read: from the folder of its file, or for rows in memory from the current folder."""
    return partial(
        as_image,
        base=table.path.parent if table.path else Path(),
        allow_urls=allow_urls,
        allow_any_path=allow_any_path,
        allow_paths=allow_any_path or not table.name.startswith(HUB),
    )


def open_tables(source: PreferenceSource, how: Opening) -> list[Table]:
    """The tables of a source: one, or for a folder one per file that belongs to the format (or, without one, to any)."""
    tables, left = [], how.limit
    for table in _tables(source, how):
        rows = table.rows if left is None else table.rows[:left]
        left = None if left is None else left - len(rows)
        tables.append(replace(table, rows=rows))
        if left == 0:
            break
    return tables


def _tables(source: PreferenceSource, how: Opening) -> Iterator[Table]:
    if isinstance(source, str) and source.startswith(HUB):
        yield _open_hub(source, how)
    elif isinstance(source, Mapping):
        yield _table_of(source, "data", how)
    elif isinstance(source, (str, Path)) and not Path(source).is_dir():
        yield _open_file(Path(source), Path(source).name, how)
    else:
        if how.split is not None:
            raise ValueError(f"split={how.split!r} was given, but the source has no splits")
        if isinstance(source, (str, Path)):
            yield from _open_folder(Path(source), how)
        else:
            name = "data frame" if isinstance(source, pd.DataFrame) else "data"
            yield _table(source, name, how)


def _table_of(source: Mapping[str, Any], name: str, how: Opening, *, is_file: bool = False) -> Table:
    """The rows of a mapping: lists of rows by a key that a format reads as a field, or splits."""
    field = _key_field(source, how.format) if how.split is None else ""
    if field:
        return Table(name=name, rows=_rows_by_key(source, field))
    if is_file and not (source and all(isinstance(rows, list) for rows in source.values())):
        keys = f" with the keys {', '.join(map(str, source))}"[:200]
        raise unreadable(name, f"should hold a list of records, but is of type dict{keys}")
    rows = _pick_split(source, how.split)
    return _table(rows, f"{name}, split {how.split}" if is_file else f"split {how.split}", how)


def _open_folder(path: Path, how: Opening) -> Iterator[Table]:
    files = sorted({file for one in registered(how.format) for pattern in one.files for file in path.glob(pattern)})
    if not files:
        names = ", ".join(one.name for one in registered() if one.files)
        raise ValueError(f"{path}: is a folder without the files of a format that is read from a folder ({names})")
    for file in files:
        yield _open_file(file, file.relative_to(path).as_posix(), how)


def _key_field(lists: Mapping[str, Any], format: str | None) -> str:
    """The field that the keys stand for, if a format (any, or the named one) is an object of lists by key; or ``""``."""
    columns: set[str] = set()
    if not _SPLITS.isdisjoint(map(str.lower, map(str, lists))):
        return ""
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
    names = printable(", ".join(map(str, splits)))[:1000]
    if {"prompt", "chosen", "completion"} & set(splits):
        raise ValueError(
            f"the source is one mapping with the keys {names}: "
            "put a single row into a list, and columns into a pandas.DataFrame"
        )
    remedy = "pass split=... to choose one" if split is None else f"there is no split {split!r}"
    raise ValueError(f"the source has the splits {names}; {remedy}")


def _open_hub(source: str, how: Opening) -> Table:
    """A data set on the hub, or in a local folder that ``datasets`` can load."""
    try:
        import datasets
    except ImportError as error:
        message = f"{source} needs the datasets library, which is not installed: pip install 'arm-lens[datasets]'"
        raise ImportError(message) from error
    path, _, config = source.removeprefix(HUB).partition(":")
    try:
        loaded: Any = datasets.load_dataset(path, config or None, split=how.split)
    except (ValueError, OSError, LookupError, datasets.exceptions.DatasetsError) as error:
        # No such data set, configuration or split, or no connection.
        remedy = "; a configuration is named by hf://owner/name:configuration" if "config" in str(error).lower() else ""
        raise unreadable(source, f"cannot be loaded: {str(error).strip()[:500]}{remedy}") from error
    split = how.split
    if isinstance(loaded, Mapping):  # no split was given
        if len(loaded) != 1:
            _pick_split(loaded, None)
        split, loaded = next(iter(loaded.items()))
    return _table(loaded, f"{source}, split {split}", how)


def _table(rows: Any, name: str, how: Opening) -> Table:
    """The table of rows in memory."""
    features = getattr(rows, "features", None)
    known = {column: feature.names for column, feature in (features or {}).items() if hasattr(feature, "int2str")}
    return Table(name=name, rows=_rows_of(rows, name, how), class_names=known)


def _rows_by_key(lists: Mapping[str, Any], field: str) -> list[Row]:
    """The rows of all lists, numbered consecutively, each with its key as the value of the field."""
    rows: list[Row] = []
    for key, record in ((key, record) for key, records in lists.items() for record in records):
        row = _row(len(rows) + 1, {field: key, **record}, Opening())
        if row.cells[field] != key:
            fault = f"is listed under the key {key!r}, but its {field} is {row.cells[field]!r}"
            row = Row(number=row.number, fault=fault)
        rows.append(row)
    return rows


def _rows_of(source: Any, name: str, how: Opening) -> list[Row]:
    if isinstance(source, pd.DataFrame):
        check_names(map(str, source.columns), name)
        source = source.to_dict("records")
    if hasattr(source, "with_format"):  # a Hugging Face data set may return tensors; we want plain rows
        source = _with_encoded_images(source.with_format(None))
    if not isinstance(source, Iterable) or isinstance(source, (str, bytes)):
        raise TypeError(f"preferences cannot be read from a {type(source).__name__}: pass a path, table or rows")
    return [_row(number, record, how) for number, record in enumerate(islice(source, how.limit), start=1)]


def _with_encoded_images(source: Any) -> Any:
    """A Hugging Face data set that gives images as their bytes, which are decoded within our bounds."""
    for column, feature in (getattr(source, "features", None) or {}).items():
        inner = getattr(feature, "feature", feature)
        if type(inner).__name__ == "Image" and getattr(inner, "decode", False):
            encoded = replace(inner, decode=False)
            source = source.cast_column(column, encoded if inner is feature else replace(feature, feature=encoded))
    return source


def _row(number: int, record: object, how: Opening) -> Row:
    if isinstance(record, Mapping):
        if how.positional:
            return Row(number=number, fault="has named fields: map columns by name, not by position")
        return Row(number=number, cells={str(column): cell for column, cell in record.items()})
    if how.positional and isinstance(record, (list, tuple)):
        return Row(number=number, cells={str(position): cell for position, cell in enumerate(record, start=1)})
    return Row(number=number, fault=f"is a {type(record).__name__}, not named fields")


def _open_file(path: Path, name: str, how: Opening) -> Table:
    """The rows of a file; ``name`` is what problems call it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (for a data set on the hub, use hf://owner/name)")
    extension = file_format(path)
    if extension not in EXTENSIONS:
        known = f"{', '.join(EXTENSIONS)}, each also compressed ({', '.join(COMPRESSIONS)})"
        raise ValueError(f"{path}: files with the extension {extension!r} cannot be read, only {known}")
    if how.split is not None and extension != ".json":
        raise ValueError(f"split={how.split!r} was given, but the source has no splits")
    data = content_of(path, name, how.max_bytes)
    if extension == ".json":
        table = _parse_json(data, name, how) if data.strip() else Table(name=name, rows=[])
    else:
        parse = {".jsonl": _parse_jsonl, ".csv": _parse_csv, ".tsv": _parse_tsv, ".parquet": _parse_parquet}[extension]
        table = Table(name=name, rows=list(islice(_bounded(parse(data, name, how), name), how.limit)))
        if extension != ".jsonl":
            table = replace(table, **_stated(data, name, how, extension, empty=not table.rows))
    return replace(table, path=path.absolute())


def _stated(data: bytes, name: str, how: Opening, extension: str, *, empty: bool) -> dict[str, Any]:
    """What a file states of its columns: their Arrow types, or the names of those of an empty table."""
    if extension == ".parquet":
        schema = pa.parquet.read_schema(pa.BufferReader(data)) if data.strip() else None
        known = {} if schema is None else _class_names(schema)
        return {"schema": schema, "columns": schema.names if schema is not None else (), "class_names": known}
    if not empty or how.positional:
        return {}
    dialect = csv.excel if extension == ".csv" else csv.excel_tab
    return {"columns": next((cells for cells in csv.reader(lines(data), dialect) if cells), [])}


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of classes that Hugging Face's ``datasets`` writes into a Parquet file."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"].items()
        return {
            column: list(map(str, feature["names"]))
            for column, feature in features
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, AttributeError, JsonError):  # written by another program
        return {}


def _bounded(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """The rows, as long as there are not too many of them, and not too many values in them."""
    n_values = 0
    for count, row in enumerate(rows):
        n_values += sum(map(_n_values, row.cells.values()))
        if count == MAX_ROWS or n_values > MAX_VALUES:
            raise unreadable(name, f"has more than {MAX_ROWS:,} rows or {MAX_VALUES:,} values; divide it")
        yield row


def _n_values(value: Any) -> int:
    """How many values are in a value; each takes tens of bytes, but may have only two in a file."""
    if isinstance(value, dict):
        return 1 + sum(map(_n_values, value.values()))
    return 1 + sum(map(_n_values, value)) if isinstance(value, list) else 1


def _parse_json(data: bytes, name: str, how: Opening) -> Table:
    if _n_marks(data) > MAX_VALUES and _n_marks(_STRING.sub(b"", data)) > MAX_VALUES:
        raise unreadable(name, f"has more than {MAX_VALUES:,} values; divide it")
    try:
        records = parse_json(data)
    except JsonError as error:
        hint = "; if it has one record per line, name it .jsonl" if "Extra data" in str(error) else ""
        raise unreadable(name, f"{error}{hint}") from error
    if isinstance(records, dict):
        return _table_of(records, name, how, is_file=True)
    if how.split is not None:
        raise ValueError(f"split={how.split!r} was given, but the source has no splits")
    if not isinstance(records, list):
        raise unreadable(name, f"should hold a list of records, but is of type {type(records).__name__}")
    return Table(name=name, rows=_rows_of(records, name, how))


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _n_marks(data: bytes) -> int:
    """How many values JSON may have, before it is parsed."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _parse_jsonl(data: bytes, name: str, how: Opening) -> Iterator[Row]:
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number, line, start = number + 1, data[start : min(end, start + MAX_ROW_BYTES + 1)], end + 1
        if not line.strip():
            continue
        if len(line) > MAX_ROW_BYTES:
            yield Row(number=number, fault=f"has more than {MAX_ROW_BYTES:,} bytes")
            continue
        try:
            yield _row(number, parse_json(line), how)
        except JsonError as error:
            yield Row(number=number, fault=str(error))


def _parse_csv(data: bytes, name: str, how: Opening) -> Iterator[Row]:
    return parse_cells(data, name, csv.excel, positional=how.positional)


def _parse_tsv(data: bytes, name: str, how: Opening) -> Iterator[Row]:
    """Cells in quotes as in CSV; unless a quote would be misplaced and the lines are cells as they are, as many in each.

    If both would do, and a cell in quotes would take in the next lines, it is refused: rows could be lost.
    """
    try:
        rows = list(_bounded(parse_cells(data, name, csv.excel_tab, positional=how.positional), name))
    except PreferenceDataError:
        if not is_grid(data):
            raise
        return iter(list(_bounded(parse_cells(data, name, Literal, positional=how.positional), name)))
    number = divided_row(data, rows)
    if number and is_grid(data) and not data.startswith((b'"', codecs.BOM_UTF8 + b'"')):
        raise unreadable(
            name,
            f"can be read in two ways: row {number} has a cell in quotes that goes over several lines, but every line is "
            "complete with its quotes as text; put every cell in quotes, also those of the first row, or save it as .jsonl",
        )
    return iter(rows)


def _parse_parquet(data: bytes, name: str, how: Opening) -> Iterator[Row]:
    """The rows, a few at a time: a value that is stored once may be meant a million times."""
    if not data.strip():
        return
    number, size = 0, 0
    try:
        file = pa.parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        check_names(file.schema_arrow.names, name)
        groups = range(file.metadata.num_row_groups)  # (pyarrow ends the process if the metadata of a chunk is damaged)
        largest = max((file.metadata.row_group(index).total_byte_size for index in groups), default=1)
        at_a_time = min(max(how.max_bytes // max(largest, 1), 16), 1024)  # no value is larger than its row group
        for batch in file.iter_batches(batch_size=at_a_time, use_threads=False):
            for record in batch.to_pylist():
                number, size = number + 1, size + _size(record)
                if size > how.max_bytes:
                    message = (
                        f"has more than {how.max_bytes:,} bytes when it is decompressed; pass max_bytes=... to read it"
                    )
                    raise unreadable(name, message)
                yield _row(number, record, how)
    except PreferenceDataError:
        raise
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        # What pyarrow raises for a damaged file depends on which bytes are damaged.
        raise unreadable(name, f"is damaged: {error}") from error


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 8
