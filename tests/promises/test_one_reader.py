"""A cell means the same at every door, and what is written has it as it was."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferenceDataWarning,
    PreferencePair,
    read_preferences,
    read_responses,
    write_preferences,
)
from arm_lens.preferences.tables import encoded

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
ANSWER = [{"role": "assistant", "content": "Hi."}]
ROWS = [
    {"id": 9007199254740993, "prompt": MESSAGES, "response": ANSWER, "label": True, "note": "=1+1"},
    {"id": 9007199254740994, "prompt": "plain", "response": 'say "hi",\r\nthen\tgo', "label": False, "note": "NA"},
]
EXPECTED = [
    LabelledResponse(MESSAGES, ANSWER, True, id="9007199254740993", metadata={"note": "=1+1"}),
    LabelledResponse("plain", 'say "hi",\r\nthen\tgo', False, id="9007199254740994", metadata={"note": "NA"}),
]
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
FORMATS = ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet"]


def texts(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(
        [{key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()} for row in rows]
    )


def content(name: str, rows: list[dict], *, header: bool = True) -> bytes:
    """Rows as other programs write them."""
    if name == "x.jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    if name == "x.json":
        return json.dumps(rows).encode()
    if name == "x.parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(texts(rows)), sink)
        return sink.getvalue().to_pybytes()
    return texts(rows).to_csv(index=False, header=header, sep="\t" if name == "x.tsv" else ",").encode()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_file_gives_the_same_preferences(tmp_path, name, suffix):
    path = tmp_path / (name + suffix)
    path.write_bytes(COMPRESS[suffix](content(name, ROWS)))
    assert read_preferences(path) == EXPECTED
    assert read_preferences(str(path), limit=1) == EXPECTED[:1]


def test_frames_and_rows_in_memory_give_the_same_preferences():
    assert read_preferences(ROWS) == EXPECTED
    assert read_preferences(texts(ROWS)) == EXPECTED  # as a frame that was read from CSV
    assert read_preferences(pd.DataFrame(ROWS)) == EXPECTED


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_file_without_a_header_row_is_read_by_position(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(content(name, ROWS, header=False))
    columns = {"id": 1, "prompt": 2, "response": 3, "label": 4}
    found = read_preferences(path, columns=columns)
    assert [one.metadata for one in found] == [{"5": "=1+1"}, {"5": "NA"}]
    assert [(one.prompt, one.response, one.label, one.id) for one in found] == [
        (one.prompt, one.response, one.label, one.id) for one in EXPECTED
    ]
    with pytest.raises(PreferenceDataError, match="if the file has no header row, map positions, such as columns="):
        read_preferences(path)
    with pytest.raises(ValueError, match="columns mixes names and positions"):
        read_preferences(path, columns={"prompt": 1, "response": "response"})
    path.write_text("a\tb\nc\td\te\n" if name == "x.tsv" else "a,b\nc,d,e\n")
    with pytest.raises(PreferenceDataError, match="row 2: has 3 cells, but row 1 has 2"):
        read_preferences(path, columns={"text": 1, "label": 2}, labels={"b": True, "d": False})


def test_positions_in_a_file_with_names_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(content("x.jsonl", ROWS))
    with pytest.raises(PreferenceDataError, match="has named fields: map columns by name, not by position"):
        read_preferences(tmp_path / "x.jsonl", columns={"text": 1, "label": 2})
    (tmp_path / "x.jsonl").write_text('["a", true]\n["b", false]')
    assert [one.label for one in read_preferences(tmp_path / "x.jsonl", columns={"text": 1, "label": 2})] == [
        True,
        False,
    ]


def test_a_tsv_with_stray_quotes_is_read_as_it_stands_and_one_with_quoted_cells_as_csv(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"What" a day\tyes\n say "no"\tno\n')
    assert [one.response for one in read_preferences(path)] == ['"What" a day', ' say "no"']
    path.write_text('text\tlabel\n"a\tb\tc\nd"\tyes\n"d ""e"""\tno\n')
    assert [one.response for one in read_preferences(path)] == ["a\tb\tc\nd", 'd "e"']


def test_a_tsv_in_which_a_quote_may_take_in_whole_lines_is_refused(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"hello world\t1\nfoo\t0\nbar"\t1\nlast\t0\n')  # three rows, or one
    with pytest.raises(PreferenceDataError, match="can be read in two ways: row 1 has a cell in quotes"):
        read_preferences(path)
    path.write_text(path.read_text().replace("text\tlabel", '"text"\t"label"'))
    assert [one.response for one in read_preferences(path)] == ["hello world\t1\nfoo\t0\nbar", "last"]


@pytest.mark.parametrize("content", ["0,1\ngood,1\nbad,0\n", ",0,1\n0,good,1\n1,bad,0\n", "1,2\ngood,1\nbad,0\n"])
def test_numbers_of_columns_are_no_row(tmp_path, content):
    (tmp_path / "x.csv").write_text(content)
    last = content.split("\n")[0].count(",") + 1
    with pytest.raises(PreferenceDataError, match="row 1: numbers the columns: write names into it"):
        read_preferences(tmp_path / "x.csv", columns={"text": last - 1, "label": last})


def test_columns_of_a_frame_whose_names_are_written_alike_are_refused():
    frame = pd.DataFrame([["a", 1, 0]], columns=["text", "label", 1]).rename(columns={"label": "1"})
    with pytest.raises(PreferenceDataError, match="two columns are named '1'"):
        read_preferences(frame, columns={"label": "1"})


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_carriage_return_in_a_cell_ends_no_row(tmp_path, name, end):
    """pandas and csv write one without quotes, if lines end otherwise."""
    texts = ["a\rb", "\rc", "d\r", "e", "f"] + ([] if end == "\r" else ["g\nh\ni\n\nj", "k\r\nl"])
    frame = pd.DataFrame({"text": texts, "label": "yes", "note": [*texts[1:], "last"]})
    path, separator = tmp_path / name, "," if name == "x.csv" else "\t"
    path.write_bytes(frame.to_csv(index=False, sep=separator, lineterminator=end).encode())
    read = read_preferences(path)
    assert [(one.response, one.metadata["note"]) for one in read] == list(zip(texts, frame["note"], strict=True))
    path.write_bytes(frame[["text"]].head(5).to_csv(index=False, sep=separator, lineterminator=end).encode())
    if not (name == "x.tsv" and end == "\r"):  # a cell in quotes that goes over lines, each of them complete
        assert list(read_responses(path).responses) == texts[:5]


def test_a_file_with_every_character_of_private_use_is_read_or_refused(tmp_path):
    every = "".join(map(chr, range(0xE000, 0xF900)))
    (tmp_path / "x.csv").write_text(f"text\n{every}\n", newline="")
    assert read_responses(tmp_path / "x.csv").responses == (every,)
    (tmp_path / "x.csv").write_text(f"text\na\rb\n{every}\n", newline="")
    with pytest.raises(PreferenceDataError, match="is damaged: row 1 has a carriage return in a cell without"):
        read_responses(tmp_path / "x.csv")


def test_splits_are_not_kinds_of_bias(tmp_path):
    """EvalBiasBench lists pairs by the kind of bias; in its pairs the first response is the better one."""
    row = {"instruction": "q", "response1": "a", "response2": "b"}
    for source in ({"train": [row], "test": [row]}, tmp_path / "x.json"):
        (tmp_path / "x.json").write_text(json.dumps({"Train": [row], "Dev": [row]}))
        with pytest.raises(ValueError, match=r"has the splits .*; pass split="):
            read_preferences(source)
    assert [pair.metadata["subset"] for pair in read_preferences({"length": [row], "order": [row]})] == [
        "length",
        "order",
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv"])
def test_utf_16_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(content(name, ROWS).decode().encode("utf-16"))
    with pytest.raises(PreferenceDataError, match="it looks like UTF-16: save it as UTF-8"):
        read_preferences(tmp_path / name)


def test_messages_are_messages_however_their_json_is_indented():
    rows = [{"prompt": json.dumps(MESSAGES, indent=indent), "response": "r", "label": 1} for indent in (None, 1, 4)]
    assert [one.prompt for one in read_preferences(rows)] == [tuple(MESSAGES)] * 3


def test_messages_of_another_kind_are_refused_as_lists_and_as_json():
    other = [{"from": "human", "value": "Hello?"}]
    for prompt in (other, json.dumps(other), json.dumps(other, indent=1)):
        with pytest.raises(PreferenceDataError, match="row 1, field prompt: has no 'role' in message 1"):
            read_preferences([{"prompt": prompt, "response": "r", "label": 1}])


def test_rows_without_any_cell_are_named_where_they_are_read_and_where_they_are_scored():
    for read in (read_preferences, read_responses):
        with pytest.raises(PreferenceDataError, match="2 of 2 rows could not be read"):
            read([{}, {}])
    with pytest.raises(PreferenceDataError, match="row 1: has named fields: map columns by name, not by position"):
        read_responses([{"text": "a"}], columns={"text": 1})


def test_a_response_that_is_given_twice_is_refused_where_it_is_read_and_where_it_is_scored():
    rows = [{"prompt": "p", "response": "a", "completion": "b", "label": 1}]
    for read in (read_preferences, read_responses):
        with pytest.raises(PreferenceDataError, match="field response: is given twice, as completion and as response"):
            read(rows)
        read(rows, columns={"metadata": "completion"})


@pytest.mark.parametrize("name", ["question", "Prompt", "instruction ", "user_input"])
def test_a_prompt_under_another_name_is_not_left_out(name):
    """Its responses would be judged as texts without a prompt."""
    rows = [{name: f"q {n}", "response": f"r {n}", "label": n % 2} for n in range(4)]
    compared = [{name: "q", "response_a": "a", "response_b": "b", "winner": "A"}]
    pairs = [{name: "q", "chosen": "a", "rejected": "b"}]
    for read, source in ((read_preferences, rows), (read_responses, rows), (read_preferences, compared)):
        with pytest.raises(PreferenceDataError) as caught:
            read(source)
        assert f"has no prompts, but a column {name!r} that looks like them" in str(caught.value)
        assert f"'prompt': {name!r}" in str(caught.value) and f"'metadata': {name!r}" in str(caught.value)
        read(source, columns={"metadata": name})
    with pytest.raises(PreferenceDataError, match="has no prompts, but a column"):
        read_preferences(pairs)
    assert [one.prompt for one in read_preferences(rows, columns={"prompt": name})] == [f"q {n}" for n in range(4)]
    assert read_responses(rows, columns={"prompt": name}).prompts == tuple(f"q {n}" for n in range(4))


@pytest.mark.parametrize("name", FORMATS)
def test_ids_stay_exact(tmp_path, name):
    ids = ["007", "9007199254740993", "1e5", "1.0", "True", "12345678901234567890123"]
    write_preferences([PreferencePair("p", "c", "r", id=id) for id in ids], tmp_path / name)
    assert [one.id for one in read_preferences(tmp_path / name)] == ids
    numbers = [{"id": 2**62 + n, "text": f"t {n}", "label": 1} for n in range(3)]
    (tmp_path / name).write_bytes(content(name, numbers))
    assert [one.id for one in read_preferences(tmp_path / name)] == [str(2**62 + n) for n in range(3)]


def test_rows_that_cannot_be_read_are_left_out_and_named_if_that_is_declared(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,yes\nHow is it?,yes,a note\nb,no\n")
    with pytest.warns(PreferenceDataWarning, match="x.csv, row 2: has 3 cells, but the header has 2"):
        assert [one.id for one in read_preferences(path, on_error="skip")] == ["x.csv:1", "x.csv:3"]
    with pytest.raises(ValueError, match="limit is 0"):
        read_preferences(path, limit=0)


# Responses that are scored


@pytest.mark.parametrize("name", FORMATS)
def test_responses_that_are_scored_are_read_alike_and_their_cells_stay(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(content(name, ROWS))
    table = read_responses(path)
    assert table.columns == ("id", "prompt", "response", "label", "note")
    assert table.prompts == tuple(one.prompt for one in EXPECTED)
    assert table.responses == tuple(one.response for one in EXPECTED)
    as_text = str if name in ("x.csv", "x.tsv") else lambda cell: cell
    assert [row["id"] for row in table.rows] == [as_text(9007199254740993), as_text(9007199254740994)]
    prompt = MESSAGES if name in ("x.jsonl", "x.json") else json.dumps(MESSAGES)
    assert [row["prompt"] for row in table.rows] == [prompt, "plain"]
    assert [row["note"] for row in table.rows] == ["=1+1", "NA"]


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_what_is_written_of_them_has_the_same_columns_and_cells(tmp_path, source, target):
    (tmp_path / source).write_bytes(content(source, ROWS))
    table = read_responses(tmp_path / source)
    (tmp_path / f"again-{target}").write_bytes(
        encoded(table.rows, table.columns, Path(target).suffix, schema=table.schema)
    )
    again = read_responses(tmp_path / f"again-{target}")
    assert (again.columns, again.prompts, again.responses) == (table.columns, table.prompts, table.responses)
    cells = [[cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()] for row in table.rows]
    assert [
        [cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()] for row in again.rows
    ] == cells


def test_a_parquet_file_keeps_its_types(tmp_path):
    schema = pa.schema(
        [("text", pa.large_string()), ("n", pa.int16()), ("when", pa.timestamp("ms")), ("x", pa.float32())]
    )
    rows = [{"text": "a", "n": 3, "when": pd.Timestamp("2026-01-02"), "x": None}, {"text": "b", "x": 0.1}]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "x.parquet")
    table = read_responses(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(encoded(table.rows, table.columns, ".parquet", schema=table.schema))
    assert pq.read_table(tmp_path / "y.parquet").equals(pq.read_table(tmp_path / "x.parquet"))
    lines = encoded(table.rows, table.columns, ".jsonl").decode().splitlines()
    assert json.loads(lines[0]) == {"text": "a", "n": 3, "when": "2026-01-02T00:00:00", "x": None}


def test_json_has_no_literal_that_is_not_json(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "score": NaN, "nested": [NaN, {"b": NaN}]}\n')
    table = read_responses(tmp_path / "x.jsonl")
    line = encoded(table.rows, table.columns, ".jsonl").decode()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "text": "a", "score": None, "nested": [None, {"b": None}],
    }  # fmt: skip
    with pytest.raises(ValueError, match="row 1, column 'score' cannot be written as JSON"):
        encoded([{"score": float("inf")}], ["score"], ".jsonl")


def test_cells_that_only_arrow_has_stay_what_they_were(tmp_path):
    columns = {
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "nan": pa.array([float("nan"), None], pa.float32()),
        "nested": pa.array([[{"a": float("nan")}], None]),
        "decimal": pa.array([Decimal("1.10"), None]),
        "day": pa.array([date(2026, 1, 2), None]),
    }
    pq.write_table(pa.table({"text": ["a", "b"], **columns}), tmp_path / "x.parquet")
    table = read_responses(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(encoded(table.rows, table.columns, ".parquet", schema=table.schema))
    before, after = (pq.read_table(tmp_path / name) for name in ("x.parquet", "y.parquet"))
    assert before.schema == after.schema and repr(before.to_pylist()) == repr(after.to_pylist())
    header, first, second = csv.reader(encoded(table.rows, table.columns, ".csv").decode().splitlines())
    assert dict(zip(header, first, strict=True)) == {
        "text": "a", "map": '[["k", 1]]', "nan": "", "nested": '[{"a": null}]', "decimal": "1.10", "day": "2026-01-02",
    }  # fmt: skip
    assert second == ["b", "", "", "", "", ""]
