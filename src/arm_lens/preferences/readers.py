"""Reading preference data, and reporting everything that cannot be read at once, with its source, row and field."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from arm_lens.preferences.formats import Format, Record, TieError, format_named
from arm_lens.preferences.opening import GENERAL, format_of, open_tables
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem, describe
from arm_lens.preferences.rows import COLUMNS, rename
from arm_lens.preferences.sources import PreferenceSource, Row, Table
from arm_lens.preferences.types import Preference, PreferenceFieldError


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
    source_format = format_of(tables, format, columns)
    result = _Result()
    for table in tables:
        _read_rows(table, source_format, columns, criterion or "", ties, result)
    messages = [_describe_ties(result)] if ties == "warn" and result.ties else []
    if result.problems and on_error == "warn":
        messages.append(describe(result.problems, n_rows=result.n_rows))
    image = source_format.image
    n_images = sum(image in example.metadata for example in result.good) if image else 0
    if n_images:
        messages.append(f"{n_images} of {len(result.good)} preferences are about an image; judges read only the text")
    for message in messages:
        warnings.warn(PreferenceDataWarning(message), stacklevel=2)
    if result.problems and on_error == "raise":
        raise PreferenceDataError(result.problems, result.good, result.n_rows)
    return result.good


@dataclass
class _Result:
    good: list[Preference] = field(default_factory=list)
    problems: list[PreferenceProblem] = field(default_factory=list)
    ties: list[PreferenceProblem] = field(default_factory=list)
    row_of_id: dict[str, tuple[str, int]] = field(default_factory=dict)
    """From each id to its source and row."""
    n_rows: int = 0


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


def _read_rows(
    table: Table, format: Format, columns: Mapping[str, str], criterion: str, ties: str, result: _Result
) -> None:
    """Add the preferences of every row to the result: all that a row holds, or one problem."""
    for row in table.rows:
        result.n_rows += 1
        try:
            examples = _read_row(table, row, format, columns, criterion)
            for example in examples:
                _check_id(example.id, table, result)
        except PreferenceFieldError as error:
            problem = PreferenceProblem(source=table.name, row=row.number, field=error.field, message=error.reason)
            result.problems.append(problem)
        except TieError as error:
            tie = PreferenceProblem(source=table.name, row=row.number, message=str(error))
            (result.problems if ties == "raise" else result.ties).append(tie)
        else:
            result.row_of_id |= {example.id: (table.name, row.number) for example in examples}
            result.good += examples


def _read_row(table: Table, row: Row, format: Format, columns: Mapping[str, str], criterion: str) -> list[Preference]:
    if row.cells is None:
        raise PreferenceFieldError("", row.fault)
    record = Record(
        format=format.name,
        cells=rename(row.cells, columns),
        default_id=f"{table.id_prefix}{row.number}",
        number=row.number,
        path=table.path,
        criterion=criterion,
        text_cells=table.text_cells,
    )
    return format.read(record)


def _check_id(id: str, table: Table, result: _Result) -> None:
    if id in result.row_of_id:
        source, number = result.row_of_id[id]
        where = f"row {number}" if source == table.name else f"row {number} of {source}"
        raise PreferenceFieldError("id", f"is {id!r}, which {where} already has")


def _describe_ties(result: _Result) -> str:
    reasons = Counter(tie.message for tie in result.ties)
    counted = ", ".join(f"{count} because {reason}" for reason, count in reasons.items())
    return f"{len(result.ties)} of {result.n_rows} rows state no preference and were left out: {counted}"
