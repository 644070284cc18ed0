"""Opening a source: its tables, and the one format that their columns have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arm_lens.preferences.formats import Format, format_named, known_formats, recognise, registered
from arm_lens.preferences.problems import PreferenceDataError, PreferenceProblem
from arm_lens.preferences.rows import EXPECTED, rename
from arm_lens.preferences.sources import PreferenceSource, Table, is_folder, open_file, open_table

GENERAL = "trl"
"""The only format whose columns can be renamed."""


def open_tables(source: PreferenceSource, split: str | None, format: str | None) -> list[Table]:
    """The tables of a source: one, or for a folder one per file that belongs to the format (or, without one, to any)."""
    formats = registered() if format is None else [format_named(format)]

    def key_field(lists: Mapping[str, Any]) -> str:
        return _key_field(lists, formats, is_named=format is not None)

    if not (isinstance(source, (str, Path)) and is_folder(source)):
        return [open_table(source, split=split, key_field=key_field)]
    folder = Path(source)
    files = sorted({path for one in formats for pattern in one.files for path in folder.glob(pattern)})
    if not files:
        names = ", ".join(one.name for one in registered() if one.files)
        raise ValueError(f"{folder}: is a folder without the files of a format that is read from a folder ({names})")
    if split is not None:
        raise ValueError(f"split={split!r} was given, but a folder of files has no splits")
    return [open_file(file, key_field=key_field, name=file.relative_to(folder).as_posix()) for file in files]


def _key_field(lists: Mapping[str, Any], formats: Sequence[Format], *, is_named: bool) -> str:
    """The field that the keys stand for, if one of the formats is an object of lists by key; otherwise empty."""
    if not all(isinstance(rows, list) for rows in lists.values()):
        return ""
    rows = [row for rows in lists.values() for row in rows]
    if not all(isinstance(row, Mapping) for row in rows):
        return ""
    columns = {column for row in rows for column in row}
    for format in formats:
        if format.key_field and (is_named or format.signature_in(columns | {format.key_field})):
            return format.key_field
    return ""


def format_of(tables: Sequence[Table], name: str | None, columns: Mapping[str, str]) -> Format:
    """The format of the tables. Wrong columns are reported once, not for every row."""
    formats = {_format_of_table(table, name, columns): table.name for table in tables}
    if len(formats) > 1:
        listed = ", ".join(f"{source} is {format.name}" for format, source in formats.items())
        raise ValueError(f"the files of a folder must have one format: {listed}")
    return next(iter(formats))


def _format_of_table(table: Table, name: str | None, columns: Mapping[str, str]) -> Format:
    def refuse(message: str) -> PreferenceDataError:
        return PreferenceDataError([PreferenceProblem(source=table.name, message=message)])

    if not table.rows:
        raise refuse("holds no rows")
    found = list(dict.fromkeys(column for row in table.rows for column in row.cells or ()))
    listed = ", ".join(found)
    if not found:
        return format_named(name or GENERAL)  # no row could be parsed; each says why
    for ours, column in columns.items():
        if column not in found:
            raise refuse(f"has no column {column!r}, which columns maps {ours!r} to; its columns are: {listed}")
    if name is None and not columns:
        try:
            format = recognise(found)
        except ValueError as error:
            raise refuse(f"{error}; its columns are: {listed}") from error
        if format is not None:
            return format
    format = format_named(name or GENERAL)
    missing = format.missing(rename(dict.fromkeys(found), columns))
    if missing and format.name == GENERAL:
        benchmarks = ", ".join(other for other in known_formats() if other != GENERAL)
        raise refuse(
            f"has the columns {listed}; expected {EXPECTED}, or the columns of {benchmarks}; "
            "map other names with columns={'prompt': ...}"
        )
    if missing:
        raise refuse(f"is not {format.name}, which also needs {', '.join(missing)}; its columns are: {listed}")
    return format
