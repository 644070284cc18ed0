"""Prompts and responses without a label, for scoring: read as `read_preferences` reads them, with all cells as they were."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arm_lens.preferences.fields import PreferenceFieldError
from arm_lens.preferences.files import MAX_BYTES
from arm_lens.preferences.formats.general import RESPONSES, response_column, text_is_response
from arm_lens.preferences.formats.rows import Reading, Record, Row
from arm_lens.preferences.formats.undeclared import images_elsewhere, prompt_elsewhere, twice_but_for_case
from arm_lens.preferences.formats.vision import IMAGE_COLUMNS, with_images
from arm_lens.preferences.messages import Prompt, as_prompt, as_response
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem, unreadable
from arm_lens.preferences.readers import Columns, OnError, are_positions, cells_of, column_names, metadata_columns
from arm_lens.preferences.sources import Opening, PreferenceSource, image_reader, open_tables


@dataclass(frozen=True, kw_only=True)
class ResponseTable:
    """The rows of a table that have a response, with their cells as they were."""

    columns: tuple[str, ...]
    """The table's columns, by its own names and in its own order."""
    rows: tuple[Mapping[str, Any], ...]
    """The cells by column, without those that have no value."""
    prompts: tuple[Prompt, ...]
    """The prompt of each row; empty texts if no row has one."""
    responses: tuple[Prompt, ...]
    schema: Any = None
    """The Arrow types of the columns, if the source has them."""

    def __len__(self) -> int:
        return len(self.rows)


def read_responses(
    source: PreferenceSource,
    *,
    columns: Columns | None = None,
    split: str | None = None,
    on_error: OnError = "raise",
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    allow_urls: bool = False,
    allow_any_path: bool = False,
) -> ResponseTable:
    """Read the prompts and responses in a file or table, in order; options are those of `read_preferences`.

    The response is in the column ``response``, ``completion`` or ``text``, the prompt in ``prompt``, images in ``image`` or
    ``images``; if no row has a prompt or an image, all prompts are empty. A table may have no rows.

    Raises:
        PreferenceDataError: if rows cannot be read; it lists all of them. Also if the source as a whole cannot be read.
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown extension or split, or a misspelt name in ``columns``.
    """
    names, metadata = column_names(columns or {}), metadata_columns(columns or {})
    unknown = [name for name in names if name not in ("prompt", "metadata", *RESPONSES, *IMAGE_COLUMNS)]
    if unknown:
        raise ValueError(
            f"columns maps {unknown[0]!r}; of responses that are scored, prompt, image and response are read"
        )
    how = Opening(split=split, positional=are_positions(columns or {}), limit=limit, max_bytes=max_bytes)
    table, *others = open_tables(source, how)
    if others:
        raise unreadable(str(source), f"has {len(others) + 1} files; score one at a time")
    found = list(dict.fromkeys(column for row in table.rows for column in row.cells)) or list(table.columns)
    missing = [column for column in (*names.values(), *metadata) if column not in found]
    known = cells_of(Row(number=0, cells=dict.fromkeys(found)), names, metadata=metadata)
    expected = next((name for name in RESPONSES if name in known), "")
    if (missing or not expected) and (found or not table.rows):
        wanted = missing[0] if missing else "response"
        listed = ", ".join(found)[:1000] or "no columns"
        how_to = "" if missing else "; name the one by columns={'response': ...}, or --column response=..."
        raise unreadable(table.name, f"has no column {wanted!r}; it has {listed}{how_to}")
    renamed = [cells_of(row, names, metadata=metadata) for row in table.rows]
    has_prompts = any(cells.get("prompt") not in (None, "") for cells in renamed)
    reading = Reading(
        format="",
        columns=names,
        has_prompts=has_prompts,
        has_images=any(cells.get(name) not in (None, "", []) for cells in renamed for name in IMAGE_COLUMNS),
        as_image=image_reader(table, allow_urls=allow_urls, allow_any_path=allow_any_path),
        metadata=metadata,
        text_is_response=text_is_response(map(_filled, renamed), names),
    )
    elsewhere = images_elsewhere(renamed, reading) or ("" if has_prompts else prompt_elsewhere(renamed, reading))
    if message := twice_but_for_case(renamed, reading) or elsewhere:
        raise unreadable(table.name, message)
    good: list[tuple[Mapping[str, Any], Prompt, Prompt]] = []
    problems: list[PreferenceProblem] = []
    for row, cells in zip(table.rows, renamed, strict=True):
        try:
            prompt, response = _texts(row, Record(table, row.number, cells, reading))
        except PreferenceFieldError as fault:
            where = names.get(fault.field, fault.field)
            problems.append(PreferenceProblem(source=table.name, row=row.number, field=where, message=fault.reason))
        else:
            good.append((row.cells, prompt, response))
    error = PreferenceDataError(problems, n_rows=len(table.rows))
    if problems and on_error == "raise":
        raise error
    if problems:
        warnings.warn(PreferenceDataWarning(error.report()), stacklevel=2)
    return ResponseTable(
        columns=tuple(found),
        rows=tuple(cells for cells, _, _ in good),
        prompts=tuple(prompt for _, prompt, _ in good),
        responses=tuple(response for _, _, response in good),
        schema=table.schema,
    )


def _filled(cells: Mapping[str, Any]) -> set[str]:
    return {name for name, cell in cells.items() if cell is not None and cell != ""}


def _texts(row: Row, record: Record) -> tuple[Prompt, Prompt]:
    if row.fault:
        raise PreferenceFieldError("", row.fault)
    field = response_column(record)
    record = with_images(record, responses=(field,))
    filled, reading = record.filled(), record.reading
    needed = ["prompt"] if reading.has_prompts else ["image"] if reading.has_images and "prompt" not in filled else []
    for name in (*needed, field):
        if name not in filled:
            raise PreferenceFieldError(name, "is missing")
    prompt = (
        as_prompt("prompt", record.part("prompt").value, read_image=record.read_image) if "prompt" in filled else ""
    )
    return prompt, as_response(field, record.part(field).value, read_image=record.read_image)
