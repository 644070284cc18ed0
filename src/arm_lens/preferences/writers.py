"""Writing preference data to files from which `read_preferences` reads equal preferences."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

from arm_lens.preferences.formats.general import looks_like_messages
from arm_lens.preferences.sources import TEXT_CELLS, file_format
from arm_lens.preferences.types import LabelledResponse, Preference

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

_CONTENTS = ("prompt", "chosen", "rejected", "completion")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write_preferences(examples: Iterable[Preference], path: str | Path) -> None:
    """Write preferences to a ``.jsonl``, ``.csv`` or ``.parquet`` file; the first two may be compressed (``.gz``).

    `read_preferences` reads equal preferences from the file, provided that they have ids (those without are given their
    row's) and that their metadata holds JSON types only. The columns are TRL's, so that other tools can read them. The
    metadata is one object, written as JSON text in ``.csv`` and ``.parquet``.

    Raises:
        ValueError: for an unknown extension, no examples, a repeated id, or content that could not be read back from
            this format.
    """
    path = Path(path)
    extension = file_format(path)
    encode = {".jsonl": _to_jsonl, ".csv": _to_csv, ".parquet": _to_parquet}.get(extension)
    if encode is None or (extension == ".parquet" and path.suffix == ".gz"):
        raise ValueError(f"{path}: preferences can only be written to .jsonl, .csv or .parquet")
    examples = list(examples)
    if not examples:
        raise ValueError(f"{path}: there are no preferences to write")
    repeated = [id for id, count in Counter(example.id for example in examples).items() if id and count > 1]
    if repeated:
        raise ValueError(f"{path}: the id {repeated[0]!r} occurs more than once, so the file could not be read back")
    records = [_record(example) for example in examples]
    if extension in TEXT_CELLS:
        for record in records:
            _check_texts(record)
    data = encode(records)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _record(example: Preference) -> dict[str, Any]:
    """The fields that have a value, by column."""
    record: dict[str, Any] = {"prompt": example.prompt}
    if isinstance(example, LabelledResponse):
        record |= {"completion": example.response, "label": example.label}
    else:
        record |= {"chosen": example.chosen, "rejected": example.rejected}
    record |= {"criterion": example.criterion, "id": example.id, "metadata": example.metadata}
    return {name: value for name, value in record.items() if value is False or value}


def _json(value: Any, record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {_describe(record)} cannot be written as JSON: {error}") from error


def _check_texts(record: Mapping[str, Any]) -> None:
    """Refuse text that would be read back as a conversation, or reported as an invalid one."""
    for name in _CONTENTS:
        if isinstance(record.get(name), str) and looks_like_messages(record[name]):
            raise ValueError(
                f"the {name} of {_describe(record)} is text that would be read back as messages; write .jsonl instead"
            )


def _describe(record: Mapping[str, Any]) -> str:
    return repr(record["id"]) if "id" in record else f"the example with the prompt {record['prompt']!r:.60}"


def _texts(record: Mapping[str, Any], *, unless: Collection[str] = ()) -> dict[str, Any]:
    """The record with its values as text, those that are not text as JSON, except for some columns."""
    return {
        name: value if name in unless or isinstance(value, str) else _json(value, record)
        for name, value in record.items()
    }


def _to_jsonl(records: list[dict[str, Any]]) -> bytes:
    return "".join(_json(record, record) + "\n" for record in records).encode()


def _to_csv(records: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, _columns(records), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_texts(record) for record in records)
    return out.getvalue().encode()


def _to_parquet(records: list[dict[str, Any]]) -> bytes:
    # A column has one type: if it mixes text and conversations, the conversations become JSON text.
    types = {name: _MESSAGES for name in _CONTENTS if not any(isinstance(record.get(name), str) for record in records)}
    types["label"] = pa.bool_()
    schema = pa.schema([(name, types.get(name, pa.string())) for name in _columns(records)])
    out = io.BytesIO()
    rows = [_texts(record, unless=types) for record in records]
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()


def _columns(records: list[dict[str, Any]]) -> list[str]:
    """The columns that at least one record has, in a fixed order."""
    order = ("id", "criterion", "prompt", "chosen", "rejected", "completion", "label", "metadata")
    return [name for name in order if any(name in record for record in records)]
