"""Writing preference data to files from which `read_preferences` reads equal preferences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from arm_lens.preferences.formats.rows import looks_like_messages
from arm_lens.preferences.tables import check_extension, compressed, encoded, json_text
from arm_lens.preferences.types import LabelledResponse, Preference, TiedPair
from arm_lens.storage import write_bytes

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

_CONTENTS = ("prompt", "chosen", "rejected", "response_a", "response_b", "completion")
_ORDER = ("id", "criterion", *_CONTENTS, "winner", "label", "metadata")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write_preferences(examples: Iterable[Preference | TiedPair], path: str | Path) -> None:
    """Write preferences to a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, also compressed (``.gz``, ...).

    `read_preferences` reads equal preferences from the file, provided that they have ids (those without are given their
    row's) and that their metadata holds JSON types only; ties are read with ``ties="keep"``. The columns are TRL's, so that
    other tools can read them; pairs without a prompt, and ties, are written as two responses and a winner. The metadata is
    one object, written as JSON text in tables. The file is written as a whole or not at all.

    Raises:
        ValueError: for an unknown extension, no examples, a repeated id, or content that could not be read back from
            this format.
    """
    path = Path(path)
    extension = check_extension(path)
    examples = list(examples)
    if not examples:
        raise ValueError(f"{path}: there are no preferences to write")
    repeated = [id for id, count in Counter(example.id for example in examples).items() if id and count > 1]
    if repeated:
        raise ValueError(f"{path}: the id {repeated[0]!r} occurs more than once, so the file could not be read back")
    records = [_record(example) for example in examples]
    for record in records:
        _check(record, has_prompt="prompt" in records[0])
    columns = [name for name in _ORDER if any(name in record for record in records)]
    if extension not in (".jsonl", ".json"):
        records = [{name: _cell(name, value, extension) for name, value in record.items()} for record in records]
    write_bytes(path, compressed(encoded(records, columns, extension, schema=_schema(records, columns)), path))


def _record(example: Preference | TiedPair) -> dict[str, Any]:
    """The fields that have a value, by column."""
    record: dict[str, Any] = {"prompt": example.prompt}
    if isinstance(example, LabelledResponse):
        record |= {"completion": example.response, "label": example.label}
    elif isinstance(example, TiedPair):
        record |= {"response_a": example.response_a, "response_b": example.response_b, "winner": "tie"}
    elif example.prompt:
        record |= {"chosen": example.chosen, "rejected": example.rejected}
    else:
        record |= {"response_a": example.chosen, "response_b": example.rejected, "winner": "A"}
    record |= {"criterion": example.criterion, "id": example.id, "metadata": example.metadata}
    return {name: value for name, value in record.items() if value is False or value}


def _check(record: Mapping[str, Any], *, has_prompt: bool) -> None:
    """Refuse what would be read back as something else."""
    if ("prompt" in record) != has_prompt:
        raise ValueError(f"{_describe(record)} has a prompt and others have none, or the reverse: write two files")
    for name in _CONTENTS:
        if isinstance(record.get(name), str) and looks_like_messages(record[name]):
            about = f"the {name} of {_describe(record)}"
            raise ValueError(f"{about} is text that would be read back as messages: pass it as a list of messages")
    try:
        json_text(record.get("metadata"))
    except ValueError as error:
        raise ValueError(f"the metadata of {_describe(record)} {error}") from error


def _describe(record: Mapping[str, Any]) -> str:
    return repr(record["id"]) if "id" in record else f"the example with the prompt {record.get('prompt', '')!r:.60}"


def _cell(name: str, value: Any, extension: str) -> Any:
    """A value as a cell of a table: metadata as JSON text, and so messages if cells are text."""
    is_messages = name in _CONTENTS and not isinstance(value, str)
    return json_text(value) if name == "metadata" or (is_messages and extension != ".parquet") else value


def _schema(records: list[dict[str, Any]], columns: list[str]) -> Any:
    """The Arrow types of columns of messages; a column that mixes them with text has them as JSON text."""
    types = {name: _MESSAGES for name in _CONTENTS if not any(isinstance(record.get(name), str) for record in records)}
    return pa.schema([(name, types[name]) for name in columns if name in types])
