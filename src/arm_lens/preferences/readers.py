"""Reading preference data, and reporting everything that cannot be read at once, with its source, row and field."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from arm_lens.preferences.formats.general import COLUMNS, EXPECTED, GENERAL
from arm_lens.preferences.formats.registry import Format, TieError, format_named, known_formats, recognise
from arm_lens.preferences.formats.rows import Record, Table
from arm_lens.preferences.messages import PreferenceFieldError
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem, unreadable
from arm_lens.preferences.sources import PreferenceSource, open_tables
from arm_lens.preferences.types import Preference


def read_preferences(
    source: PreferenceSource,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    criterion: str | None = None,
    split: str | None = None,
    on_error: Literal["raise", "warn"] = "raise",
    ties: Literal["warn", "drop", "raise"] = "warn",
) -> list[Preference]:
    r"""Read the preferences in a file, table or data set, in order.

    In the general format, ``trl``, a row is a pair (``prompt, chosen, rejected``), a pair whose prompt is what both
    ``chosen`` and ``rejected`` begin with (messages, or transcripts like HH-RLHF's), or a labelled response (``prompt,
    completion`` or ``response``, ``label``). A source may mix these. ``criterion`` and ``id`` are read if present; every
    other column goes into the metadata. A row without an id is given one, such as ``file.jsonl:3`` or ``row 3``.

    The published benchmarks are recognised by their fields: ``rewardbench``, ``rewardbench-2``,
    ``multimodal-rewardbench``, ``llmbar``, ``evalbiasbench``, ``pandalm``, ``xstest``. If several formats fit, the one
    whose fields include those of all others is chosen. The metadata of their preferences holds ``format``, ``subset``
    (if the benchmark has subsets) and every column that is not used elsewhere. ``hh-rlhf`` has the same fields as
    ``trl``, so it has to be named. How a row is read:

    - ``rewardbench-2``: a pair for every combination of a chosen and a rejected answer; ``metadata["item"]`` is the same
      for all pairs of a prompt. If one answer is invalid, the whole prompt is left out.
    - ``llmbar``: a file, or the benchmark's folder with all its ``dataset.json`` files; the subset is the file's folder.
    - ``evalbiasbench``: a pair in which response1 is the better one; the subset is the kind of bias.
    - ``pandalm``: the majority of three annotators. A tie, or no majority, is not a preference: see ``ties``. Responses
      that are true or false in the JSON are read as those words, and listed in ``metadata["converted"]``.
    - ``xstest``: a labelled response, True if the model complied with a safe prompt, or refused an unsafe one at least
      in part.
    - ``multimodal-rewardbench``: the texts only, and the path of the image as ``metadata["image"]``. Judges do not read
      images yet, and a `PreferenceDataWarning` says so.

    Args:
        source: the path of a ``.jsonl``, ``.json`` (a list of records), ``.csv`` or ``.parquet`` file, the text formats
            also compressed (``.gz``); ``hf://owner/name`` for a data set that ``datasets.load_dataset`` can load; a data
            frame; a Hugging Face ``Dataset``; any rows that are mappings; or a ``DatasetDict`` or other mapping from
            splits to such rows.
        format: the format, if it should not be recognised; one of `known_formats`.
        columns: from our names to the source's, for columns with other names: ``{"prompt": "question"}``. Implies the
            format ``trl``.
        criterion: used for rows that have none.
        split: which split to read, if the source has several.
        on_error: with ``warn``, rows that cannot be read are listed in a `PreferenceDataWarning` and left out.
        ties: what to do with rows whose annotators prefer neither response: ``warn`` leaves them out and counts them in
            a `PreferenceDataWarning`; ``drop`` leaves them out silently; ``raise`` treats them as rows that cannot be
            read.

    Raises:
        PreferenceDataError: if rows cannot be read; it lists all of them, and holds the preferences that could be read.
            Also if the source as a whole is damaged or empty, or its columns do not fit the format, or any format.
        FileNotFoundError: if there is no such file.
        ImportError: for ``hf://`` if the library ``datasets`` is not installed.
        ValueError: for an unknown format, extension or split, or a misspelt name in ``columns``.
    """
    columns = dict(columns or {})
    _check_options(format, columns, on_error, ties)
    tables = open_tables(source, split, format)
    source_format = _format_of(tables, format, columns)
    good: list[Preference] = []
    problems: list[PreferenceProblem] = []
    tied: list[PreferenceProblem] = []
    row_of_id: dict[str, tuple[str, int]] = {}
    for table in tables:
        for row in table.rows:
            try:
                if row.fault:
                    raise PreferenceFieldError("", row.fault)
                cells = {column: _to_python(cell) for column, cell in _rename(row.cells, columns).items()}
                record = Record(table, row.number, cells, format=source_format.name, criterion=criterion or "")
                examples = source_format.read(record)
                _check_ids(examples, table, row_of_id)
            except PreferenceFieldError as fault:
                problem = PreferenceProblem(source=table.name, row=row.number, field=fault.field, message=fault.reason)
                (tied if isinstance(fault, TieError) and ties != "raise" else problems).append(problem)
            else:
                good += examples
                row_of_id |= {example.id: (table.name, row.number) for example in examples}
    n_rows = sum(len(table.rows) for table in tables)
    messages: list[str] = []
    if tied and ties == "warn":
        reasons = Counter(tie.message for tie in tied).items()
        counted = ", ".join(f"{count} because {reason}" for reason, count in reasons)
        messages.append(f"{len(tied)} of {n_rows} rows state no preference and were left out: {counted}")
    error = PreferenceDataError(problems, good, n_rows)
    if problems and on_error == "warn":
        messages.append(str(error))
    n_images = sum(source_format.image in example.metadata for example in good) if source_format.image else 0
    if n_images:
        messages.append(f"{n_images} of {len(good)} preferences are about an image; judges read only the text")
    for message in messages:
        warnings.warn(PreferenceDataWarning(message), stacklevel=2)
    if problems and on_error == "raise":
        raise error
    return good


def _check_options(format: str | None, columns: Mapping[str, str], on_error: str, ties: str) -> None:
    for name, value, allowed in (("on_error", on_error, ("raise", "warn")), ("ties", ties, ("warn", "drop", "raise"))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, not one of {', '.join(map(repr, allowed))}")
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"columns maps {unknown[0]!r}, which is not one of {', '.join(COLUMNS)}")
    if format is not None:
        format_named(format)
        if columns and format != GENERAL:
            raise ValueError(f"columns are for the format {GENERAL!r}; the columns of {format!r} have fixed names")


def _format_of(tables: Sequence[Table], name: str | None, columns: Mapping[str, str]) -> Format:
    """The format of the tables. Wrong columns are reported once, not for every row."""
    formats = {_format_of_table(table, name, columns): table.name for table in tables}
    if len(formats) > 1:
        listed = ", ".join(f"{source} is {format.name}" for format, source in formats.items())
        raise ValueError(f"the files of a folder must have one format: {listed}")
    return next(iter(formats))


def _format_of_table(table: Table, name: str | None, columns: Mapping[str, str]) -> Format:
    if not table.rows:
        raise unreadable(table.name, "holds no rows")
    found = list(dict.fromkeys(column for row in table.rows for column in row.cells))
    if not found:
        return format_named(name or GENERAL)  # no row could be parsed; each says why
    listed = ", ".join(found)
    for ours, column in columns.items():
        if column not in found:
            message = f"has no column {column!r}, which columns maps {ours!r} to; its columns are: {listed}"
            raise unreadable(table.name, message)
    format = format_named(name or GENERAL)
    if name is None and not columns:
        try:
            format = recognise(found) or format
        except ValueError as error:
            raise unreadable(table.name, f"{error}; its columns are: {listed}") from error
    missing = format.missing(_rename(dict.fromkeys(found), columns))
    if missing and format.name == GENERAL:
        benchmarks = ", ".join(other for other in known_formats() if other != GENERAL)
        message = f"has the columns {listed}; expected {EXPECTED}, or the columns of {benchmarks}"
        raise unreadable(table.name, message + "; map other names with columns={'prompt': ...}")
    if missing:
        message = f"is not {format.name}, which also needs {', '.join(missing)}; its columns are: {listed}"
        raise unreadable(table.name, message)
    return format


def _rename(cells: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The cells under our names for the columns; ``columns`` goes from our names to the user's."""
    others = {column: cell for column, cell in cells.items() if column not in columns.values()}
    # With {"prompt": "question"}, a user's column called "prompt" is not the prompt, but must not be lost.
    others = {f"{column} (column)" if column in columns else column: cell for column, cell in others.items()}
    return others | {name: cells[column] for name, column in columns.items() if column in cells}


def _to_python(cell: Any) -> Any:
    """The cell as plain Python types; None if it has no value: NaN, NaT or pandas' NA."""
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return None
    return _plain(cell)


def _plain(value: Any) -> Any:
    """Numpy scalars unwrapped and arrays as lists, recursively."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(item) for item in value]
    return value


def _check_ids(examples: Sequence[Preference], table: Table, row_of_id: Mapping[str, tuple[str, int]]) -> None:
    for example in examples:
        if example.id in row_of_id:
            source, number = row_of_id[example.id]
            where = f"row {number}" if source == table.name else f"row {number} of {source}"
            raise PreferenceFieldError("id", f"is {example.id!r}, which {where} already has")
