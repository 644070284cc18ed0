"""Damaged and hostile files: every one is read rightly or refused with the one error that names the file.

``ARM_LENS_FUZZ`` says how many mutated files each reader is given; by default a few hundred.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferencePair,
    TiedPair,
    read_preferences,
    read_responses,
    text_of,
    write_preferences,
)
from arm_lens.preferences.tables import encoded

COUNT = int(os.environ.get("ARM_LENS_FUZZ", "200"))
MAX_BYTES = 2**22
USER = {"role": "user", "content": "Tidy up, plé😂ase."}
CALL = {"type": "function", "function": {"name": "list", "arguments": {"path": "/"}}}
RECORDS = [
    {"prompt": "Name a prime.", "chosen": "7", "rejected": "9", "id": 9007199254740993, "score": 0.25},
    {"prompt": [USER], "chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}], "rejected": 'No.\n"x"'},
    {"prompt": "Is it so?", "response": "Yes, it is.", "label": True, "metadata": {"a": [1, {"b": None}]}},
    {"prompt": "q", "response_a": "one", "response_b": "two", "winner": "tie", "criterion": "is short"},
]
VALUES = [
    *(None, True, False, 0, -1, 2**63, 10**400, 1e308, -0.0, "", " ", "\u0000", "\ud83d", "é" * 50, "A>B", "tie", "2"),
    *([], {}, [[]], [{}], [USER], {"role": "user"}, '[{"role":', "[{'role': 'user'}]", "{", "NaN", "=1+1", "\t", "\r"),
]
FRAGMENTS = [
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"\\ud83d",
        b"\\u0000",
        b"\xff",
        b"\x00",
        b"\xef\xbb\xbf",
    ),
    *(
        b"[" * 5000,
        b"{" * 3000,
        b'{"a":' * 2000,
        b'"',
        b"'",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b"\\",
        b"null",
        b"true",
        b'"a": 1, ',
    ),
]


def as_json(values: object) -> bytes:
    return json.dumps(values).encode()


def with_texts(records: list[dict]) -> pd.DataFrame:
    """The records as a table, with messages as JSON text and everything else as it is."""
    texts = [
        {key: json.dumps(cell) if isinstance(cell, (list, dict)) else cell for key, cell in record.items()}
        for record in records
    ]
    return pd.DataFrame(texts, dtype=object)


def as_table(records: list[dict], separator: str) -> bytes:
    return with_texts(records).to_csv(index=False, sep=separator).encode("utf-8", "surrogatepass")


def as_parquet(records: list[dict]) -> bytes:
    out = io.BytesIO()
    with_texts(records).to_parquet(out)
    return out.getvalue()


def as_nested_parquet(records: list[dict]) -> bytes:
    out = io.BytesIO()
    pd.DataFrame(
        [{"prompt": [USER], "response": [{"role": "assistant", "content": "x"}], "label": True}] * 3
    ).to_parquet(out)
    return out.getvalue()


WRITERS = {
    "x.jsonl": lambda records: b"\n".join(map(as_json, records)),
    "x.json": as_json,
    "x.csv": lambda records: as_table(records, ","),
    "x.tsv": lambda records: as_table(records, "\t"),
    "x.parquet": as_parquet,
    "y.parquet": as_nested_parquet,
    "x.jsonl.gz": lambda records: gzip.compress(b"\n".join(map(as_json, records)), mtime=0),
    "x.jsonl.bz2": lambda records: bz2.compress(b"\n".join(map(as_json, records))),
    "x.json.xz": lambda records: lzma.compress(as_json(records)),
    "x.csv.zst": lambda records: pa.compress(as_table(records, ","), codec="zstd", asbytes=True),
}


def mutated_records(rng: random.Random) -> list[dict]:
    """Records with swapped types, exchanged columns and other values."""
    records = [dict(record) for record in rng.sample(RECORDS, rng.randint(1, 4))]
    for _ in range(rng.randint(0, 3)):
        record = rng.choice(records)
        key = rng.choice([*record, "label", "winner", "metadata", "id", "text", "chosen"])
        record[key] = rng.choice([*VALUES, rng.choice(RECORDS).get(key)])
        if rng.random() < 0.2:
            record.pop(rng.choice(list(record)), None)
    return records


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut out, repeated or inserted."""
    content = bytearray(data)
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(len(content) + 1) if content else 0
        match rng.randrange(5):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                del content[place : place + rng.choice([1, 2, 8, len(content)])]
            case 2:
                content[place:place] = content[place : place + rng.randint(1, 60)]
            case 3:
                content[place:place] = rng.choice(FRAGMENTS)
            case 4 if place < len(content):
                content[place] = rng.randrange(256)
    return bytes(content)


def mutant(name: str, seed: int) -> bytes:
    """A mutated file, always the same for the same seed."""
    rng = random.Random(f"{name} {seed}")
    records = mutated_records(rng) if rng.random() < 0.6 else RECORDS
    try:
        data = WRITERS[name](records)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError):  # not everything can be written
        data = WRITERS[name](RECORDS)
    return data if rng.random() < 0.2 else mutated_bytes(rng, data)


def check(path: Path, **options: object) -> bool:
    """Whether a file was read; what was read is consistent and can be written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            examples = read_preferences(path, ties="keep", max_bytes=MAX_BYTES, **options)
        except PreferenceDataError as error:
            assert path.name in str(error)
            assert "Traceback" not in str(error) and len(str(error)) < 40_000
            examples = error.good
        except ValueError as error:  # an object of lists that look like splits
            assert "has the splits" in str(error) and path.name.startswith("x.json")
            return False
    for example in examples:
        assert isinstance(example, (PreferencePair, LabelledResponse, TiedPair))
        assert text_of(example.prompt) is not None and example.id
    return bool(examples)


def check_responses(path: Path) -> bool:
    """Whether the responses of a file were read; what was read can be written as JSON, and is read again."""
    try:
        table = read_responses(path, max_bytes=MAX_BYTES)
    except PreferenceDataError as error:
        assert path.name in str(error)
        return False
    except ValueError as error:  # as above
        assert "has the splits" in str(error)
        return False
    again = path.with_name("again.jsonl")
    again.write_bytes(encoded(table.rows, table.columns, ".jsonl"))
    if len(table):
        found = read_responses(again, columns=None)
        assert (found.prompts, found.responses) == (table.prompts, table.responses)
    return bool(len(table))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_the_responses_of_a_mutated_file_are_read_and_written_or_refused_with_the_one_error(tmp_path, name):
    path = tmp_path / name
    for seed in range(COUNT):
        path.write_bytes(mutant(name, seed))
        try:
            check_responses(path)
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_mutated_file_is_read_or_refused_with_the_one_error(tmp_path, name):
    path, n_read = tmp_path / name, 0
    for seed in range(COUNT):
        path.write_bytes(mutant(name, seed))
        try:
            n_read += check(path, **({"on_error": "skip"} if seed % 3 == 0 else {}))
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}")
            raise
    assert 0 < n_read < COUNT  # both happen


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "y.parquet"])
def test_the_file_that_is_mutated_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(WRITERS[name](RECORDS))
    pair, calls, single, tie = read_preferences(tmp_path / name, ties="keep")
    assert (pair.chosen, pair.id) == ("7", "9007199254740993")
    assert text_of(calls.chosen) == '<tool_call>{"name": "list", "arguments": {"path": "/"}}</tool_call>'
    assert (single.label, single.metadata["a"]) == (True, [1, {"b": None}])
    assert isinstance(tie, TiedPair)
    write_preferences([pair, calls, single, tie], tmp_path / f"again-{name}")
    assert read_preferences(tmp_path / f"again-{name}", ties="keep") == [pair, calls, single, tie]
