"""Writing preference data to files from which `read_preferences` reads equal preferences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from arm_lens.preferences.decoding import SUFFIX_OF
from arm_lens.preferences.formats.rows import looks_like_messages
from arm_lens.preferences.formats.vision import without_images
from arm_lens.preferences.images import images_in, marks_in
from arm_lens.preferences.tables import check_extension, compressed, encoded, json_text
from arm_lens.preferences.types import LabelledResponse, Preference, TiedPair, text_of
from arm_lens.storage import write_bytes

pa: Any = pyarrow  # its annotations are too incomplete to be checked against

_CONTENTS = ("prompt", "chosen", "rejected", "response_a", "response_b", "completion")
_ORDER = ("id", "criterion", *_CONTENTS, "images", "winner", "label", "metadata")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def write_preferences(examples: Iterable[Preference | TiedPair], path: str | Path) -> None:
    """Write preferences to a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, also compressed (``.gz``, ...).

    `read_preferences` reads equal preferences from the file, provided that they have ids (those without are given their
    row's) and that their metadata holds JSON types only; ties are read with ``ties="keep"``. The columns are TRL's, so that
    other tools can read them; pairs without a prompt, and ties, are written as two responses and a winner. The metadata is
    one object, written as JSON text in tables. The file is written as a whole or not at all.

    Images are in TRL's column ``images``: within a ``.parquet`` file as their bytes, otherwise as the paths of files in a
    folder next to it, ``pairs.images`` for ``pairs.jsonl``; move them together. If they stand at the beginning of the
    prompt, it is written without them, as in TRL; if they stand elsewhere, their marks stay in the texts.

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
    records = [_with_images_apart(_record(example)) for example in examples]
    for record in records:
        _check(record, has_prompt="prompt" in records[0])
    columns = [name for name in _ORDER if any(name in record for record in records)]
    records = _with_image_cells(records, path, extension)
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


def _with_images_apart(record: dict[str, Any]) -> dict[str, Any]:
    """The fields with the images in one of their own, and the prompt without those that it begins with if that is all."""
    texts = {name: record[name] for name in _CONTENTS if name in record}
    images = [image for text in texts.values() for image in images_in(text_of(text))]
    if not images:
        return record
    bare = texts | ({"prompt": without_images(record["prompt"], images)} if "prompt" in record else {})
    if bare["prompt"] and not any(marks_in(text_of(text)) for text in bare.values()):
        return record | bare | {"images": images}
    return record | {"images": list(dict.fromkeys(images))}


def _with_image_cells(records: list[dict[str, Any]], path: Path, extension: str) -> list[dict[str, Any]]:
    """The records with images as cells: their bytes, or the paths of files that are written next to the table."""
    folder = path.with_name(f"{path.name.partition('.')[0]}.images")
    written = list[dict[str, Any]]()
    for record in records:
        if "images" not in record:
            written.append(record)
            continue
        names = [f"{image.digest}{SUFFIX_OF[image.format]}" for image in record["images"]]
        cells: list[Any] = [f"{folder.name}/{name}" for name in names]
        for name, image in zip(names, record["images"], strict=True):
            file = folder / name
            if extension != ".parquet" and not (file.is_file() and file.read_bytes() == image.content):
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes(file, image.content)
        if extension == ".parquet":
            cells = [
                {"bytes": image.content, "path": name} for name, image in zip(names, record["images"], strict=True)
            ]
        written.append(record | {"images": cells})
    return written


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
    is_messages = name in (*_CONTENTS, "images") and not isinstance(value, str)
    return json_text(value) if name == "metadata" or (is_messages and extension != ".parquet") else value


def _schema(records: list[dict[str, Any]], columns: list[str]) -> Any:
    """The Arrow types of columns of messages; a column that mixes them with text has them as JSON text."""
    types = {name: _MESSAGES for name in _CONTENTS if not any(isinstance(record.get(name), str) for record in records)}
    types["images"] = _IMAGES
    return pa.schema([(name, types[name]) for name in columns if name in types])
