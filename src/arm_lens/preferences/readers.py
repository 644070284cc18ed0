"""Reading preference data, so that what cannot be read is told with its place, all at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem, describe
from arm_lens.preferences.rows import COLUMNS, EXPECTED, is_recognisable, read_row, rename
from arm_lens.preferences.sources import PreferenceSource, Table, open_table
from arm_lens.preferences.types import Preference, PreferenceFieldError


def read_preferences(
    source: PreferenceSource,
    *,
    columns: Mapping[str, str] | None = None,
    criterion: str | None = None,
    split: str | None = None,
    on_error: Literal["raise", "warn"] = "raise",
) -> list[Preference]:
    r"""The preferences in a file, table or data set, in order.

    A row is a pair (``prompt, chosen, rejected``), a pair whose prompt is the shared beginning of ``chosen`` and
    ``rejected`` (messages, or transcripts like HH-RLHF's), or a labelled response (``prompt, completion`` or
    ``response``, ``label``); the forms may be mixed. ``criterion`` and ``id`` are read if they are there, every other
    column goes to the metadata. A row without an id gets one from its place: ``file.jsonl:3``, ``row 3``.

    Args:
        source: the path of a ``.jsonl``, ``.json`` (a list of records), ``.csv`` or ``.parquet`` file, the text formats
            also with ``.gz`` after it; a data frame; a Hugging Face ``Dataset``; any rows that are mappings; or a
            ``DatasetDict`` or other mapping of splits to such rows.
        columns: our name to the source's, for columns that are called otherwise: ``{"prompt": "question"}``.
        criterion: of the rows that name none.
        split: which split of a source that has several.
        on_error: with ``warn``, rows that cannot be read are named in a `PreferenceDataWarning` and left out.

    Raises:
        PreferenceDataError: if rows cannot be read; it lists all of them, and holds the rows that were read well. Also
            if the source as a whole is damaged, empty, or has columns that make no preference.
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown extension, an unknown split, or a misspelt name in ``columns``.
    """
    columns = dict(columns or {})
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"columns maps {unknown[0]!r}, which is not one of {', '.join(COLUMNS)}")
    if on_error not in ("raise", "warn"):
        raise ValueError(f"on_error is {on_error!r}, neither 'raise' nor 'warn'")
    table = open_table(source, split=split)
    _check_columns(table, columns)
    good, problems = _read_rows(table, columns, criterion or "")
    if problems and on_error == "raise":
        raise PreferenceDataError(problems, good)
    if problems:
        warnings.warn(PreferenceDataWarning(describe(problems, n_good=len(good))), stacklevel=2)
    return good


def _check_columns(table: Table, columns: Mapping[str, str]) -> None:
    """Columns that fit no row are one mistake, not one for each row."""
    if not table.rows:
        raise PreferenceDataError([PreferenceProblem(source=table.name, message="holds no rows")])
    found = list(dict.fromkeys(column for row in table.rows for column in row.cells or ()))
    listed = ", ".join(found)
    if not found:
        return  # no row could be parsed; each says why
    for name, column in columns.items():
        if column not in found:
            message = f"has no column {column!r}, which columns maps {name!r} to; its columns are: {listed}"
            raise PreferenceDataError([PreferenceProblem(source=table.name, message=message)])
    if not is_recognisable(rename(dict.fromkeys(found), columns)):
        message = f"has the columns {listed}; expected are {EXPECTED}; name others with columns={{'prompt': ...}}"
        raise PreferenceDataError([PreferenceProblem(source=table.name, message=message)])


def _read_rows(
    table: Table, columns: Mapping[str, str], criterion: str
) -> tuple[list[Preference], list[PreferenceProblem]]:
    good: list[Preference] = []
    problems: list[PreferenceProblem] = []
    row_of: dict[str, int] = {}
    for row in table.rows:
        try:
            if row.cells is None:
                raise PreferenceFieldError("", row.fault)
            example = read_row(
                rename(row.cells, columns),
                criterion=criterion,
                default_id=f"{table.id_prefix}{row.number}",
                text_cells=table.text_cells,
            )
            if example.id in row_of:
                raise PreferenceFieldError("id", f"is {example.id!r}, as in row {row_of[example.id]} already")
        except PreferenceFieldError as error:
            problems.append(
                PreferenceProblem(source=table.name, row=row.number, field=error.field, message=error.reason)
            )
        else:
            row_of[example.id] = row.number
            good.append(example)
    return good, problems
