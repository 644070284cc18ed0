"""Keeping preference data in files that `read_preferences` gives back unchanged."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

from arm_lens.preferences.rows import conversation_in
from arm_lens.preferences.sources import TEXT_CELLS, file_format
from arm_lens.preferences.types import LabelledResponse, Preference

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

_CONTENTS = ("prompt", "chosen", "rejected", "completion")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write_preferences(examples: Iterable[Preference], path: str | Path) -> None:
    """Write preferences to a ``.jsonl``, ``.csv`` or ``.parquet`` file, the first two also with ``.gz`` after it.

    Reading the file gives equal preferences, provided they have ids (one without gets the id of its row) and metadata
    of JSON's own types. The columns are TRL's, so that other tools read them too; metadata is one object, as JSON text
    where the format has only text.

    Raises:
        ValueError: for an unknown extension, no examples, an id that occurs twice, or content that the format could not
            give back.
    """
    path = Path(path)
    extension = file_format(path)
    encode = {".jsonl": _to_jsonl, ".csv": _to_csv, ".parquet": _to_parquet}.get(extension)
    if encode is None or (extension == ".parquet" and path.suffix == ".gz"):
        raise ValueError(f"{path}: preferences are written to .jsonl, .csv or .parquet")
    examples = list(examples)
    if not examples:
        raise ValueError(f"{path}: there are no preferences to write")
    repeated = [id for id, count in Counter(example.id for example in examples).items() if id and count > 1]
    if repeated:
        raise ValueError(f"{path}: the id {repeated[0]!r} occurs more than once, and could not be read again")
    records = [_record(example) for example in examples]
    if extension in TEXT_CELLS:
        records = [_with_text_cells(record) for record in records]
    data = encode(records)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _record(example: Preference) -> dict[str, Any]:
    """The fields that hold something, under the names of the columns."""
    record: dict[str, Any] = {"prompt": example.prompt}
    if isinstance(example, LabelledResponse):
        record |= {"completion": example.response, "label": example.label}
    else:
        record |= {"chosen": example.chosen, "rejected": example.rejected}
    record |= {"criterion": example.criterion, "id": example.id, "metadata": example.metadata}
    return {name: value for name, value in record.items() if value is False or value}


def _json(value: Any, record: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {_named(record)} cannot be kept in JSON: {error}") from error
    return text


def _with_text_cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with metadata as JSON, after checking that no text in it would be read as a conversation."""
    for name in _CONTENTS:
        if isinstance(record.get(name), str):
            _check_plain(name, record)
    return {name: _json(value, record) if name == "metadata" else value for name, value in record.items()}


def _check_plain(name: str, record: Mapping[str, Any]) -> None:
    try:
        is_plain = conversation_in(record[name]) is None
    except json.JSONDecodeError:
        is_plain = False  # the reader would call it a broken conversation
    if not is_plain:
        raise ValueError(
            f"the {name} of {_named(record)} is text that would be read as messages from this format; write .jsonl"
        )


def _named(record: Mapping[str, Any]) -> str:
    return repr(record["id"]) if "id" in record else f"the example with the prompt {record['prompt']!r:.60}"


def _to_jsonl(records: list[dict[str, Any]]) -> bytes:
    return "".join(_json(record, record) + "\n" for record in records).encode()


def _to_csv(records: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, _columns(records), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, tuple) else value
            for name, value in record.items()
        }
        if "label" in record:
            cells["label"] = "true" if record["label"] else "false"
        writer.writerow(cells)
    return out.getvalue().encode()


def _to_parquet(records: list[dict[str, Any]]) -> bytes:
    arrays: dict[str, Any] = {}
    for name in _columns(records):
        cells = [record.get(name) for record in records]
        types = {type(cell) for cell in cells} - {type(None)}
        if types == {str, tuple}:
            # A column has one type: where texts and conversations are mixed, the latter become JSON text.
            cells = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, tuple) else cell for cell in cells]
        arrays[name] = pa.array(
            cells, _MESSAGES if types == {tuple} else pa.bool_() if types == {bool} else pa.string()
        )
    out = io.BytesIO()
    pa.parquet.write_table(pa.table(arrays), out)
    return out.getvalue()


def _columns(records: list[dict[str, Any]]) -> list[str]:
    """The columns that any record has, in one order."""
    order = ("id", "criterion", "prompt", "chosen", "rejected", "completion", "label", "metadata")
    return [name for name in order if any(name in record for record in records)]
