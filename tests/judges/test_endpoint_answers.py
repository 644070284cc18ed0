"""Answers on disk: nothing lost, nothing doubled, nothing of anybody else's touched."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from arm_lens.judges.endpoint import answers as endpoint_answers
from arm_lens.judges.endpoint.answers import Answer, AnswersFileError, AnswerStore, AnswerToken

FULL = Answer("Yes “é”\ud800", "stop", 12, 1, (AnswerToken("Yes", -0.1, (("Yes", -0.1), ("No", float("-inf")))),))
BARE = Answer("", "length", None, None)


def test_what_is_kept_is_what_was_put_also_after_opening_again(tmp_path):
    file = tmp_path / "new" / "folder" / "answers.sqlite"
    store = AnswerStore(file)
    assert store.put("full", FULL) == FULL
    assert store.put("bare", BARE) == BARE
    store.close()
    again = AnswerStore(file)
    assert again.get(["bare", "unknown", "full"]) == {"full": FULL, "bare": BARE}
    assert len(again) == 2


def test_a_folder_is_as_good_as_a_file_in_it(tmp_path):
    AnswerStore(tmp_path).put("a", BARE)
    assert AnswerStore(tmp_path / endpoint_answers.FILE_NAME).get(["a"]) == {"a": BARE}


def test_the_first_of_two_answers_to_the_same_request_stays(tmp_path):
    one, two = AnswerStore(tmp_path), AnswerStore(tmp_path)
    one.put("a", FULL)
    assert two.put("a", BARE) == FULL
    assert one.get(["a"]) == {"a": FULL}


def test_many_keys_are_looked_up_at_once():
    store = AnswerStore(None)
    keys = [str(number) for number in range(1234)]
    for key in keys[::2]:
        store.put(key, BARE)
    assert set(store.get(keys)) == set(keys[::2])


@pytest.mark.parametrize("content", [b"some notes\n" * 100, b"SQLite format 3\0" + b"\7" * 4096, b"x"])
def test_a_file_that_holds_something_else_is_refused_and_left_alone(tmp_path, content):
    file = tmp_path / "notes"
    file.write_bytes(content)
    with pytest.raises(AnswersFileError, match="notes"):
        AnswerStore(file)
    assert file.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE answers (key, answer)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(AnswersFileError, match=r"shop\.sqlite is an SQLite database, but not one of"):
        AnswerStore(file)
    assert file.read_bytes() == before


def test_answers_in_a_later_format_are_refused(tmp_path):
    store = AnswerStore(tmp_path / "a")
    store._connection.execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(AnswersFileError, match="format 2; this arm_lens reads format 1"):
        AnswerStore(tmp_path / "a")


def test_a_damaged_file_is_named_in_the_error(tmp_path):
    file = tmp_path / "answers.sqlite"
    store = AnswerStore(file)
    for number in range(200):
        store.put(str(number), FULL)
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\0\5nonsense" * ((len(whole) - 4096) // 10))
    with pytest.raises(AnswersFileError, match=r"answers\.sqlite"):
        AnswerStore(file).get([str(number) for number in range(200)])


@pytest.mark.parametrize("text", ["{", '{"text": "Yes"}', "[]"])
def test_a_damaged_answer_is_named_in_the_error(tmp_path, text):
    store = AnswerStore(tmp_path)
    store._connection.execute("INSERT INTO answers VALUES ('a', ?)", (text,))
    with pytest.raises(AnswersFileError, match=r"an answer in .*answers\.sqlite is damaged"):
        store.get(["a"])


def test_a_folder_that_cannot_be_made_is_an_error_about_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AnswersFileError, match="cannot be read or written"):
        AnswerStore(tmp_path / "file" / "answers.sqlite")


def test_threads_share_a_store(tmp_path):
    store = AnswerStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(str(number % 50), BARE), range(200)))
    assert len(store) == 50


WRITER = """
import runpy, sys
module, file, first = runpy.run_path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
from pathlib import Path
print("ready", flush=True)
sys.stdin.readline()
store = module["AnswerStore"](Path(file))
for number in range(first, first + 60):
    kept = store.put(str(number), module["Answer"](f"{first}", "stop", 1, 1))
    print(number, kept.text)
"""


def test_processes_that_start_at_once_on_a_new_file_all_find_their_answers(tmp_path):
    file = tmp_path / "answers.sqlite"
    command = [sys.executable, "-c", WRITER, endpoint_answers.__file__, str(file)]
    running = [
        subprocess.Popen([*command, str(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for first in (0, 30, 60, 0)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    kept = AnswerStore(file).get([str(number) for number in range(120)])
    assert len(kept) == 120
    seen = [line.split() for output in outputs for line in output.splitlines()]
    assert len(seen) == 240
    for number, text in seen:  # each process uses what the file holds, whoever wrote it
        assert kept[number].text == text
