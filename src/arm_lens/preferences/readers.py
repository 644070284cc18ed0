"""Reading preference data, and reporting everything that cannot be read at once, with its source, row and field."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd

from arm_lens.preferences.fields import PreferenceFieldError
from arm_lens.preferences.files import MAX_BYTES, file_format
from arm_lens.preferences.formats.general import COLUMNS, EXPECTED, GENERAL, PAIR, text_is_response
from arm_lens.preferences.formats.registry import Format, format_named, known_formats, recognise
from arm_lens.preferences.formats.rows import Reading, Record, Row, Table
from arm_lens.preferences.formats.undeclared import check_declared, check_recognised, proposal
from arm_lens.preferences.formats.vision import IMAGE_COLUMNS
from arm_lens.preferences.overlap import contradictions
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem, unreadable
from arm_lens.preferences.sources import Opening, PreferenceSource, image_reader, open_tables
from arm_lens.preferences.types import Preference, TiedPair
from arm_lens.preferences.verdicts import DroppedRowError, Labels, TieError, Verdicts, Winner, value_text

Columns: TypeAlias = Mapping[str, str | int | Sequence[str | int]]
"""From our names for columns to the source's, or to their positions, counted from 1, if there is no header row. Several
columns may be metadata: ``{"metadata": ["label", "winner"]}``."""
OnError: TypeAlias = Literal["raise", "skip"]
MAX_CONTRADICTIONS = 5
"""Contradictory rows that a warning names."""


@overload
def read_preferences(
    source: PreferenceSource,
    format: str | None = None,
    *,
    columns: Columns | None = None,
    labels: Labels = None,
    winner: Winner = None,
    criterion: str | None = None,
    split: str | None = None,
    on_error: OnError = "raise",
    ties: Literal["warn", "drop", "raise"] = "warn",
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    allow_urls: bool = False,
    allow_any_path: bool = False,
) -> list[Preference]: ...


@overload
def read_preferences(
    source: PreferenceSource,
    format: str | None = None,
    *,
    columns: Columns | None = None,
    labels: Labels = None,
    winner: Winner = None,
    criterion: str | None = None,
    split: str | None = None,
    on_error: OnError = "raise",
    ties: Literal["keep"],
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    allow_urls: bool = False,
    allow_any_path: bool = False,
) -> list[Preference | TiedPair]: ...


def read_preferences(
    source: PreferenceSource,
    format: str | None = None,
    *,
    columns: Columns | None = None,
    labels: Labels = None,
    winner: Winner = None,
    criterion: str | None = None,
    split: str | None = None,
    on_error: OnError = "raise",
    ties: Literal["warn", "drop", "raise", "keep"] = "warn",
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    allow_urls: bool = False,
    allow_any_path: bool = False,
) -> list[Preference] | list[Preference | TiedPair]:
    r"""Read the preferences in a file, table or data set, in order.

    In the general format, ``trl``, a row is a pair (``prompt, chosen, rejected``), a pair whose prompt is what both
    ``chosen`` and ``rejected`` begin with (messages, or transcripts like HH-RLHF's), two responses and which of them won
    (``prompt, response_a, response_b, winner``), or a labelled response (``prompt, completion`` or ``response``, ``label``;
    without prompts, texts that are classified: ``text, label``). A source may mix these. ``criterion`` and ``id`` are read if
    present, and images: a column ``image`` or ``images`` with paths, bytes, ``data:`` URIs or images of Pillow, which stand
    where messages have parts ``{"type": "image"}``, or else at the beginning of the prompt. Every other column goes into the
    metadata. A row without an id is given one, such as ``file.jsonl:3`` or ``row 3``. A cell means the same in every format
    of files: messages may be lists or JSON text.

    The published benchmarks are recognised by their fields, and have fixed meanings of labels: ``rewardbench``,
    ``rewardbench-2``, ``m-rewardbench``, ``multimodal-rewardbench``, ``vl-rewardbench``, ``rm-bench``, ``judgebench``,
    ``auto-j``, ``llmbar``, ``evalbiasbench``, ``pandalm``, ``xstest``. If several formats fit, the one whose fields include
    those of all others is chosen. The metadata of their preferences holds ``format``, ``subset`` (if the benchmark has
    subsets) and every column that is not used elsewhere. ``hh-rlhf`` has the same fields as ``trl``, so it has to be named.
    How a row is read:

    - ``rewardbench-2``: a pair for every combination of a chosen and a rejected answer; ``metadata["item"]`` is the same
      for all pairs of a prompt. If one answer is invalid, the whole prompt is left out.
    - ``rm-bench``: the same, of three styles each; ``metadata["level"]`` is easy, normal or hard.
    - ``llmbar``: a file, or the benchmark's folder with all its ``dataset.json`` files; the subset is the file's folder.
    - ``evalbiasbench``: a pair in which response1 is the better one; the subset is the kind of bias.
    - ``pandalm``: the majority of three annotators. A tie, or no majority, is not a preference: see ``ties``. Responses
      that are true or false in the JSON are read as those words, and listed in ``metadata["converted"]``.
    - ``xstest``: a labelled response, True if the model complied with a safe prompt, or refused an unsafe one at least
      in part.
    - ``multimodal-rewardbench``: a pair about an image, which is published apart: put the images where the paths in the
      file say. The subset is the category, divided as published (``reasoning/math``, ``safety/bias``).
    - ``vl-rewardbench``: a pair about an image; the subset is ``general``, ``hallucination`` or ``reasoning``.

    Args:
        source: the path of a ``.jsonl``, ``.json`` (a list of records, or an object with one for each split), ``.csv``,
            ``.tsv`` or ``.parquet`` file, also compressed (``.gz``, ``.bz2``, ``.xz``, ``.zst``); ``hf://owner/name`` or
            ``hf://owner/name:configuration`` for a data set that ``datasets.load_dataset`` can load; a data frame; a
            Hugging Face ``Dataset``; any rows that are mappings; or a ``DatasetDict`` or other mapping from splits to such
            rows.
        format: the format, if it should not be recognised; one of `known_formats`.
        columns: from our names to the source's, for columns with other names: ``{"prompt": "question"}``; or to the
            positions of columns, counted from 1, for a file without a header row: ``{"text": 1, "label": 2}``. Implies the
            format ``trl``. What would have a meaning and is only metadata: ``{"metadata": ["label", "question"]}``.
        labels: what labels mean, if they are not yes, no, true, false, 1 or 0: ``{"joy": True, "anger": False}``; or from
            which rating on a response meets the criterion: ``">= 4"``. ``"drop"`` leaves rows out.
        winner: what the column ``winner`` means, if it is not A, B, tie or a column's name: ``{"A>B": "A", "B>A": "B",
            "A=B": "tie"}``. With ``chosen`` and ``rejected``, A is the chosen one. If each outcome has a column that is true
            or false, by their names: ``{"a_wins": "A", "b_wins": "B", "tie": "tie"}``.
        criterion: used for rows that have none.
        split: which split to read, if the source has several.
        on_error: with ``skip``, rows that cannot be read are listed in a `PreferenceDataWarning` and left out.
        ties: what to do with rows whose annotators prefer neither response: ``warn`` leaves them out and counts them in
            a `PreferenceDataWarning`; ``drop`` leaves them out silently; ``raise`` treats them as rows that cannot be
            read; ``keep`` returns each as a `TiedPair`.
        limit: how many rows to read, from the first; by default all.
        max_bytes: how many bytes a file may have after it is decompressed.
        allow_urls: open the ``https://`` addresses of images.
        allow_any_path: read images from anywhere. By default their paths are relative to the folder of the data, and may not
            lead out of it; of rows in memory, that is the current folder, and a data set on the hub names no files here.

    Warns:
        PreferenceDataWarning: of rows that are left out; and of rows about the same texts, with the same criterion, of which
            one says the opposite of the other.

    Raises:
        PreferenceDataError: if rows cannot be read; it lists all of them, and holds the preferences that could be read.
            Also if the source as a whole is damaged, too large or empty, if its columns do not fit the format, or any
            format, or if labels or winners have values that nothing declares.
        FileNotFoundError: if there is no such file.
        ImportError: for ``hf://`` if the library ``datasets`` is not installed, or for images if Pillow is not.
        ValueError: for an unknown format, extension or split, or a misspelt name in ``columns``, ``labels`` or ``winner``.
    """
    names, metadata = column_names(columns or {}), metadata_columns(columns or {})
    verdicts = Verdicts(labels, winner)
    _check_options(format, columns or {}, on_error, ties, limit)
    if format not in (None, GENERAL) and not (labels is None and winner is None):
        raise ValueError(f"labels and winner are for the format {GENERAL!r}; those of {format!r} have fixed meanings")
    is_general = format is None and not (columns or labels is not None or winner is not None)
    how = Opening(split=split, format=format, positional=are_positions(columns or {}), limit=limit, max_bytes=max_bytes)
    tables = open_tables(source, how)
    source_format = _format_of(tables, format if is_general else format or GENERAL, names, metadata, verdicts)
    good: list[Preference | TiedPair] = []
    problems: list[PreferenceProblem] = []
    tied: list[PreferenceProblem] = []
    row_of_id: dict[str, tuple[str, int]] = {}
    for table in tables:
        renamed = [cells_of(row, names, table.class_names, metadata) for row in table.rows]
        if verdicts.are_columns({column for cells in renamed for column in cells}):
            renamed = [verdicts.with_winner(cells) if cells else cells for cells in renamed]
        filled = [{key: cell for key, cell in cells.items() if cell is not None and cell != ""} for cells in renamed]
        reading = Reading(
            format=source_format.name,
            criterion=criterion or "",
            verdicts=verdicts,
            columns=names,
            has_prompts=source_format.name != GENERAL or any("prompt" in cells for cells in filled),
            has_images=any(cells.get(name) not in (None, []) for cells in filled for name in IMAGE_COLUMNS),
            as_image=image_reader(table, allow_urls=allow_urls, allow_any_path=allow_any_path),
            text_is_response=text_is_response(filled, names),
            has_winners="winner" in names or any(cells.keys() >= {"winner", *PAIR} for cells in filled),
            metadata=metadata,
            label_names=() if "label" in metadata else table.class_names.get(names.get("label", "label"), ()),
            keep_ties=ties == "keep",
        )
        is_recognised = format is None and source_format.name != GENERAL
        message = check_declared(filled, reading) if source_format.name == GENERAL else ""
        if message := message or (check_recognised(filled, source_format) if is_recognised else ""):
            raise unreadable(table.name, message)
        for row, cells in zip(table.rows, renamed, strict=True):
            try:
                if row.fault:
                    raise PreferenceFieldError("", row.fault)
                examples = source_format.read(Record(table, row.number, cells, reading))
                _check_ids(examples, table, row_of_id)
            except DroppedRowError:
                continue
            except PreferenceFieldError as fault:
                field = names.get(fault.field, fault.field)
                problem = PreferenceProblem(source=table.name, row=row.number, field=field, message=fault.reason)
                (tied if isinstance(fault, TieError) and ties != "raise" else problems).append(problem)
            else:
                good += examples
                row_of_id |= {example.id: (table.name, row.number) for example in examples}
    n_rows = sum(len(table.rows) for table in tables)
    messages: list[str] = []
    if tied and ties in ("warn", "keep"):
        reasons = Counter(tie.message for tie in tied).items()
        counted = ", ".join(f"{count} because {reason}" for reason, count in reasons)
        messages.append(f"{len(tied)} of {n_rows} rows state no preference and were left out: {counted}")
    error = PreferenceDataError(problems, good, n_rows)
    if problems and on_error == "skip":
        messages.append(error.report())
    if both := contradictions(good):
        more = f", and {len(both) - MAX_CONTRADICTIONS} more" if len(both) > MAX_CONTRADICTIONS else ""
        listed = ", ".join(
            f"{_place_of(row_of_id[later], tables)} contradicts {_place_of(row_of_id[earlier], tables)}"
            for earlier, later in both[:MAX_CONTRADICTIONS]
        )
        count = f"{len(both)} of {len(good)} preferences contradict another one about the same texts"
        messages.append(f"{count}, and are kept: {listed}{more}")
    for message in messages:
        warnings.warn(PreferenceDataWarning(message), stacklevel=2)
    if problems and on_error == "raise":
        raise error
    return good


def _place_of(row: tuple[str, int], tables: Sequence[Table]) -> str:
    """A row in words; with its source if there are several."""
    source, number = row
    return f"row {number}" if len(tables) == 1 else f"row {number} of {source}"


def cells_of(
    row: Row,
    names: Mapping[str, str],
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    metadata: Sequence[str] = (),
) -> dict[str, Any]:
    """The cells of a row under our names, as plain Python types.

    Args:
        row: the row.
        names: from our names to the source's.
        class_names: by the source's names, what numbers stand for: 0 for the first name. (Read as 0 and 1, the labels
            of a data set whose first class is the positive one would be turned round.)
        metadata: the source's names of several columns that are metadata, whatever their names.
    """
    cells = {column: to_python(cell) for column, cell in row.cells.items()}
    for column, known in class_names.items():
        if isinstance(cell := cells.get(column), int):
            cells[column] = known[cell] if 0 <= cell < len(known) else None
    return _rename(cells, names, metadata)


def are_positions(columns: Columns) -> bool:
    """Whether columns are given by position, because there is no header row."""
    kinds = {isinstance(column, int) for column in _given(columns)}
    if len(kinds) > 1:
        raise ValueError(f"columns mixes names and positions: {dict(columns)}")
    return kinds == {True}


def column_names(columns: Columns) -> dict[str, str]:
    """The source's columns by our names, except those that are only metadata; a position is the name of a column without one.

    Raises:
        ValueError: if two of our names are mapped to one column, or a name to neither a name nor a position.
    """
    for ours, column in columns.items():
        for one in column if isinstance(column, (list, tuple)) and ours == "metadata" else [column]:
            if isinstance(one, bool) or not isinstance(one, (str, int)) or one == 0:
                raise ValueError(f"columns maps {ours!r} to {column!r}, neither a name nor a position counted from 1")
    repeated = [column for column, count in Counter(_given(columns)).items() if count > 1]
    if repeated:
        raise ValueError(f"columns maps two of our names to {repeated[0]!r}")
    return {ours: str(column) for ours, column in columns.items() if isinstance(column, (str, int))}


def metadata_columns(columns: Columns) -> tuple[str, ...]:
    """The source's names of the columns that are only metadata, if they are given as a list."""
    listed = columns.get("metadata")
    return tuple(map(str, listed)) if isinstance(listed, (list, tuple)) else ()


def _given(columns: Columns) -> list[str | int]:
    """All columns of the source that have a name of ours."""
    return [one for column in columns.values() for one in ([column] if isinstance(column, (str, int)) else column)]


def _check_options(format: str | None, columns: Columns, on_error: str, ties: str, limit: int | None) -> None:
    known = (("on_error", on_error, ("raise", "skip")), ("ties", ties, ("warn", "drop", "raise", "keep")))
    for name, value, allowed in known:
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, not one of {', '.join(map(repr, allowed))}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; at least one row has to be read")
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"columns maps {unknown[0]!r}, which is not one of {', '.join(COLUMNS)}")
    if format is not None:
        format_named(format)
        if columns and format != GENERAL:
            raise ValueError(f"columns are for the format {GENERAL!r}; the columns of {format!r} have fixed names")


def _format_of(
    tables: Sequence[Table], name: str | None, columns: Mapping[str, str], metadata: Sequence[str], verdicts: Verdicts
) -> Format:
    """The format of the tables. Wrong columns are reported once, not for every row."""
    formats: dict[Format, str] = {}
    for table in tables:
        formats.setdefault(_format_of_table(table, name, columns, metadata, verdicts), table.name)
    if len(formats) > 1:
        listed = ", ".join(f"{source} is {format.name}" for format, source in formats.items())
        raise ValueError(f"the files of a folder must have one format: {listed}")
    return next(iter(formats))


def _format_of_table(
    table: Table, name: str | None, columns: Mapping[str, str], metadata: Sequence[str], verdicts: Verdicts
) -> Format:
    if not table.rows:
        raise unreadable(table.name, "holds no rows")
    found = list(dict.fromkeys(column for row in table.rows for column in row.cells))
    if not found:
        return format_named(name or GENERAL)  # no row could be parsed; each says why
    listed = ", ".join(found)[:1000]
    for ours, column in (*columns.items(), *(("metadata", column) for column in metadata)):
        if column not in found:
            message = f"has no column {column!r}, which columns maps {ours!r} to; its columns are: {listed}"
            raise unreadable(table.name, message)
    format = format_named(name or GENERAL)
    if name is None and not columns:
        try:
            format = recognise(found, _first_cells(table)) or format
        except ValueError as error:
            raise unreadable(table.name, f"{error}; its columns are: {listed}") from error
    known = _rename(dict.fromkeys(found), columns, metadata)
    missing = format.missing({*known, "winner"} if verdicts.are_columns(known) else known)
    if missing and format.name == GENERAL:
        benchmarks = ", ".join(other for other in known_formats() if other != GENERAL)
        message = f"has the columns {listed}; expected {EXPECTED}, or the columns of {benchmarks}"
        hint = proposal(found, lambda column: _values(table, column), columns)
        hint = hint or "; map other names with columns={'prompt': ...}"
        if table.path and file_format(table.path) in (".csv", ".tsv"):
            hint += "; if the file has no header row, map positions, such as columns={'text': 1, 'label': 2}"
        raise unreadable(table.name, message + hint)
    if missing:
        message = f"is not {format.name}, which also needs {', '.join(missing)}; its columns are: {listed}"
        raise unreadable(table.name, message)
    return format


def _first_cells(table: Table) -> dict[str, Any]:
    return next({column: to_python(cell) for column, cell in row.cells.items()} for row in table.rows if row.cells)


def _values(table: Table, column: str) -> Counter[str]:
    """The values of a column as text, counted; long texts are all one value."""
    cells = (cells_of(row, {}, table.class_names).get(column) for row in table.rows)
    return Counter(value_text(cell)[:100] for cell in cells if isinstance(cell, (str, int, float)) and cell != "")


def _rename(cells: Mapping[str, Any], columns: Mapping[str, str], metadata: Sequence[str]) -> dict[str, Any]:
    """The cells under our names for the columns; ``columns`` goes from our names to the user's."""
    used = {*columns.values(), *metadata}
    others = {column: cell for column, cell in cells.items() if column not in used}
    # With {"prompt": "question"}, a user's column called "prompt" is not the prompt, but must not be lost.
    ours = {*columns, "metadata"} if metadata else columns.keys()
    others = {f"{column} (column)" if column in ours else column: cell for column, cell in others.items()}
    others |= {name: cells[column] for name, column in columns.items() if column in cells}
    if metadata:
        others["metadata"] = {name: cells[name] for name in metadata if cells.get(name) not in (None, "")}
    return others


def to_python(cell: Any) -> Any:
    """The cell as plain Python types, with None for what has no value: NaN, NaT or pandas' NA."""
    if isinstance(cell, (str, bool, int)):  # the common cases, quickly
        return cell
    if isinstance(cell, np.generic):
        cell = cell.item()
    if pd.api.types.is_scalar(cell):
        return None if pd.isna(cell) else cell
    if isinstance(cell, Mapping):
        return {key: to_python(item) for key, item in cell.items()}
    if isinstance(cell, (np.ndarray, list, tuple)):
        return [to_python(item) for item in cell]
    return cell


def _check_ids(
    examples: Sequence[Preference | TiedPair], table: Table, row_of_id: Mapping[str, tuple[str, int]]
) -> None:
    for example in examples:
        if example.id in row_of_id:
            source, number = row_of_id[example.id]
            where = f"row {number}" if source == table.name else f"row {number} of {source}"
            raise PreferenceFieldError("id", f"is {example.id!r}, which {where} already has")
