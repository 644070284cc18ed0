"""Files are bounded, and a wrong file is one clear error with the file and the row."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arm_lens.preferences import LabelledResponse, PreferenceDataError, read_preferences, sources, write_preferences

LINE = b'{"text": "' + b"a" * 1000 + b'", "label": true}\n'
COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def error_of(path: Path, **options: object) -> str:
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(path, **options)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_small_file_never_becomes_a_large_one(tmp_path, suffix):
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](LINE * 20_000))
    assert path.stat().st_size < 200_000
    assert "has more than 1,000,000 bytes when it is decompressed; pass max_bytes=..." in error_of(
        path, max_bytes=10**6
    )
    assert len(read_preferences(path, max_bytes=10**8, limit=3)) == 3


def peak_of(path: Path, max_bytes: int) -> int:
    """How many bytes a process takes that is refused a file, beyond what it takes for nothing."""
    package = Path(sys.modules["arm_lens.preferences"].__file__).parent
    code = (
        "import resource, sys, types\n"
        "sys.modules['arm_lens'] = types.ModuleType('arm_lens')\n"
        f"sys.modules['arm_lens'].__path__ = [{str(package.parent)!r}]\n"
        "from arm_lens.preferences import PreferenceDataError, read_preferences\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    read_preferences({str(path)!r}, max_bytes={max_bytes})\n"
        "except PreferenceDataError as error:\n"
        "    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
def test_memory_stays_near_the_limit_whatever_the_file_would_become(tmp_path, suffix):
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](LINE * 200_000))  # 200 megabytes
    assert peak_of(path, 2**24) < 2**27


@pytest.mark.slow
def test_a_value_that_a_parquet_file_has_once_and_means_many_times_is_counted_as_often(tmp_path):
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["a" * 100_000]))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": once, "label": [True] * 50_000}), path)
    assert path.stat().st_size < 50_000
    assert peak_of(path, 2**24) < 2**28


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b"[" * 100_000 + b"]" * 100_000, "x.json: is nested more than 64 levels deep"),
        ("x.jsonl", b"{}\n" + b'{"a": ' * 3000 + b"1" + b"}" * 3000, "row 2: is nested more than 64 levels deep"),
        (
            "x.jsonl",
            b'{"text": "a", "label": true, "n": ' + b"9" * 5000 + b"}",
            "row 1: has a number that cannot be read",
        ),
        ("x.jsonl", b'{"text": "a", "label": true, "n": 1e999}', "row 1: has the number 1e999, which is too large"),
        (
            "x.jsonl",
            b'{"text": "a", "label": true, "n": -Infinity}',
            "row 1: has -Infinity, which is not a number in JSON",
        ),
        ("x.jsonl", b'{"text": "a", "label": true, "label": false}', "row 1: has the key 'label' twice"),
        ("x.jsonl", b'{"text": "\\ud83d", "label": true}', r"row 1: has '\ud83d', half of a character"),
        ("x.jsonl", b'\n{"text": "\xff", "label": true}', "row 2: is not JSON: 'utf-8' codec"),
        (
            "x.jsonl",
            b'{"text": "a", "label": true, "id": 1e22}',
            "row 1, field id: is 1e+22 (float), a number that is not",
        ),
        ("x.jsonl", b'{"text": "' + b"a" * (2**24) + b'"}', "row 1: has more than 16,777,216 bytes"),
        ("x.json", b"[" + b"0," * 15_000_001 + b"0," * 15_000_001 + b"0]", "x.json: has more than 30,000,000 values"),
        ("x.csv", b"text,label\na,1\n" + b"a" * (2**24) + b",1", "row 2 has a line of more than 16,777,216 characters"),
        ("x.csv", b"," * (2**24 + 1), "the header has a line of more than 16,777,216 characters"),
        ("x.csv", b'text,label\na,1\n"b,1\nc,0\n', "x.csv: is damaged: row 2 opens a quote that is never closed"),
        ("x.csv", b'text,label\n"a"b,1\n', "row 1 has text after the closing quote of a cell"),
        (
            "x.csv",
            "text,label\na,1\n".encode("utf-16"),
            "line 1 is not text in UTF-8: it has the byte 0xff (invalid start",
        ),
        ("x.csv", "text,label\na,1\n".encode("utf-16"), "it looks like UTF-16: save it as UTF-8"),
        ("x.csv", b"text,label\na,1\nb,0\n\xfc,1\n", "line 4 is not text in UTF-8: it has the byte 0xfc"),
        ("x.csv", b"text,label\nHow is it?,yes,a note\n", "row 1: has 3 cells, but the header has 2"),
        ("x.tsv", b'text\tlabel\n"a" b\t1\tc\nd\t1\n', "row 1 has text after the closing quote"),
        ("x.parquet", b"PAR1" * 10, "x.parquet: is damaged"),
        ("x.jsonl.gz", b"{}", "x.jsonl.gz: is damaged: Not a gzipped file"),
        ("x.jsonl.bz2", b"{}" * 99, "x.jsonl.bz2: is damaged"),
        ("x.jsonl.bz2", bz2.compress(LINE) + LINE, "x.jsonl.bz2: is damaged"),
        ("x.jsonl.bz2", bz2.compress(LINE * 99)[:-9], "x.jsonl.bz2: is damaged: it ends in the middle"),
        ("x.jsonl.xz", b"{}" * 99, "x.jsonl.xz: is damaged"),
        ("x.jsonl.zst", b"{}" * 99, "x.jsonl.zst: is damaged"),
        ("x.jsonl.xz", lzma.compress(LINE * 99)[:-20], "x.jsonl.xz: is damaged: it ends in the middle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_file_is_one_clear_error(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    assert message in error_of(path)


@pytest.mark.slow
def test_many_small_values_are_counted_before_they_take_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_VALUES", 30_000)
    monkeypatch.setattr(sources, "MAX_ROWS", 5_000)
    lists = b'{"text": "a", "label": 1, "n": [' + b"[]," * 9_999 + b"[]]}\n"
    (tmp_path / "x.jsonl").write_bytes(lists * 2)
    assert len(read_preferences(tmp_path / "x.jsonl")) == 2
    for content in (lists * 3, b"{}\n" * 5_001):
        (tmp_path / "x.jsonl").write_bytes(content)
        assert "has more than 5,000 rows or 30,000 values" in error_of(tmp_path / "x.jsonl")
    (tmp_path / "x.csv").write_bytes(b"text,label,a,b,c,d,e\n" + b"a,1,,,,,\n" * 4_500)
    assert "has more than 5,000 rows or 30,000 values" in error_of(tmp_path / "x.csv")
    for content, is_read in (
        (b"," * 40_000, True),
        (rb"\"],\"[" * 9_000, True),
        (b'", "b": [' + b"0," * 40_000 + b'0], "c": "', False),
    ):
        (tmp_path / "x.json").write_bytes(b'[{"text": "' + content + b'", "label": 1}]')
        if is_read:  # marks within a text are no values
            assert len(read_preferences(tmp_path / "x.json")) == 1
        else:
            assert "has more than 30,000 values" in error_of(tmp_path / "x.json")


def test_a_row_after_a_wrong_one_is_read_and_the_wrong_one_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'{"text": ' + b"[" * 3000 + b'}\n{"text": "b", "label": 1}\n{"n": 1e999}\n' + b'{"text": "c", "label": 0}'
    )
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(path)
    assert [problem.row for problem in caught.value.problems] == [1, 3]
    assert [example.id for example in caught.value.good] == ["x.jsonl:2", "x.jsonl:4"]


def test_control_characters_of_a_file_never_reach_a_terminal(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,\x1b[2Jlabel\x07,\u202eevil\na,1,2\n", newline="")
    message = error_of(path)
    assert not {"\x1b", "\x07", "\u202e"} & set(message)
    assert r"\x1b[2Jlabel\x07" in message


def test_control_characters_of_a_name_never_reach_a_terminal():
    from arm_lens.display import frame_text, listed

    for text in (frame_text(pd.DataFrame({"judge\x1b[2J": ["a\x07", "\u202egp.exe"]})), listed(["a\x1b[31m", "b\x9b"])):
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
    assert r"judge\x1b[2J" in frame_text(pd.DataFrame({"judge\x1b[2J": [1]}))


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.json.gz"])
def test_files_are_written_as_a_whole_and_can_be_read_by_others(tmp_path, name, monkeypatch):
    before = os.umask(0o022)
    try:
        write_preferences([LabelledResponse("p", "r", True, id="a")], tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644
    old = (tmp_path / name).read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_preferences([LabelledResponse("p", "r", False, id="b")], tmp_path / name)
    monkeypatch.undo()
    assert (tmp_path / name).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [name]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.parquet", "x.jsonl"])
def test_preference_data_comes_back_as_it_was_also_if_a_cell_looks_like_a_formula(tmp_path, name):
    examples = [LabelledResponse("p", text, True, id=f"{n}", metadata={"t": text}) for n, text in enumerate(FORMULAS)]
    write_preferences(examples, tmp_path / name)
    assert read_preferences(tmp_path / name) == examples


def test_tables_of_results_have_no_cell_that_a_spreadsheet_would_compute():
    from arm_lens.safe_text import with_formulas, without_formulas

    frame = pd.DataFrame({"judge": [*FORMULAS, "plain"], "accuracy": [-0.5] * 8, "=2": [None] * 8})
    safe = without_formulas(frame)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in safe["judge"])
    assert all(cell.endswith(text) for cell, text in zip(safe["judge"], [*FORMULAS, "plain"], strict=True))
    assert safe["judge"].iloc[-1] == "plain"
    assert safe["accuracy"].tolist() == frame["accuracy"].tolist()
    assert list(safe.columns) == ["judge", "accuracy", "'=2"]
    assert frame["judge"].tolist() == [*FORMULAS, "plain"]  # the argument is unchanged
    tricky = frame.assign(judge=["'=1", "''-1", "'plain", "=1", "-", "", "'", "@"])
    pd.testing.assert_frame_equal(with_formulas(without_formulas(tricky)), tricky)
