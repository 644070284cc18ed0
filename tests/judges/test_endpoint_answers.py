"""Answers on disk: nothing lost, nothing doubled, nothing of anybody else's touched."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from arm_lens.judges.endpoint.answers import MARKER, Answer, AnswersFileError, AnswerStore, AnswerToken
from arm_lens.storage import write_sealed

FULL = Answer("Yes “é”\ufffd", "stop", 12, 1, (AnswerToken("Yes", -0.1, (("Yes", -0.1), ("No", -9999.0))),))
BARE = Answer("", "length", None, None)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_kept_is_what_was_put_also_after_opening_again(tmp_path):
    store = AnswerStore(tmp_path / "new" / "folder")
    assert store.put("full", FULL) == FULL
    assert store.put("bare", BARE) == BARE
    again = AnswerStore(tmp_path / "new" / "folder")
    assert again.get(["bare", "unknown", "full"]) == {"full": FULL, "bare": BARE}
    assert len(again) == 2


def test_the_first_of_two_answers_to_the_same_request_stays(tmp_path):
    one, two = AnswerStore(tmp_path), AnswerStore(tmp_path)
    one.put("a", FULL)
    assert two.put("a", BARE) == FULL
    assert one.get(["a"]) == {"a": FULL}


@pytest.mark.parametrize("on_disk", [False, True])
def test_many_keys_are_looked_up_at_once(tmp_path, on_disk):
    store = AnswerStore(tmp_path if on_disk else None)
    keys = [str(number) for number in range(400)]
    for key in keys[::2]:
        store.put(key, BARE)
    assert set(store.get(keys)) == set(keys[::2]) and len(store) == 200


@pytest.mark.parametrize("content", [b"some notes\n" * 100, b"SQLite format 3\0" + b"\7" * 4096, b""])
def test_a_file_or_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_bytes(content)
    with pytest.raises(AnswersFileError, match=r"mine is no folder of an endpoint's answers: it holds notes"):
        AnswerStore(tmp_path / "mine")
    with pytest.raises(AnswersFileError, match=r"notes is a file"):
        AnswerStore(tmp_path / "mine" / "notes")
    with pytest.raises(AnswersFileError, match=r"notes.* cannot be read or written"):
        AnswerStore(tmp_path / "mine" / "notes" / "answers")
    assert contents(tmp_path) == {"mine/notes": content}


def test_answers_in_a_later_format_are_refused(tmp_path):
    write_sealed(tmp_path / MARKER, b'{"format": 2}\n')
    with pytest.raises(AnswersFileError, match=r'names another format than this arm_lens reads: \{"format": 1\}'):
        AnswerStore(tmp_path)


def test_a_damaged_answer_is_named_in_the_error_and_the_others_are_not_harmed(tmp_path):
    store = AnswerStore(tmp_path)
    for key in ("one", "two"):
        store.put(key, FULL)
    (path,) = tmp_path.rglob("one.json")
    whole = path.read_bytes()
    for place in (0, 20, 80, len(whole) - 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for touch in (lambda: store.get(["one"]), lambda: store.put("one", BARE)):
            with pytest.raises(AnswersFileError, match=r"one\.json was changed or damaged.*delete it to ask again"):
                touch()
        assert path.read_bytes() != whole and store.get(["two"]) == {"two": FULL}
    path.unlink()
    assert store.put("one", BARE) == BARE
    (tmp_path / MARKER).write_text("{}")
    with pytest.raises(AnswersFileError, match=r"answers\.json was changed or damaged"):
        AnswerStore(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"text": "Yes"}', "[]", "null"])
def test_what_is_no_answer_is_named_in_the_error(tmp_path, text):
    store = AnswerStore(tmp_path)
    store.put("a", BARE)
    (path,) = tmp_path.rglob("a.json")
    write_sealed(path, text.encode())
    with pytest.raises(AnswersFileError, match=r"a\.json is not an answer"):
        store.get(["a"])


def test_folders_of_answers_may_be_copied_into_each_other(tmp_path):
    one, two = AnswerStore(tmp_path / "one"), AnswerStore(tmp_path / "two")
    one.put("a", FULL)
    two.put("b", BARE)
    for name, content in contents(tmp_path / "two").items():
        (tmp_path / "one" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes(content)
    assert AnswerStore(tmp_path / "one").get(["a", "b"]) == {"a": FULL, "b": BARE}


def test_threads_share_a_store(tmp_path):
    store = AnswerStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(str(number % 50), BARE), range(200)))
    assert len(store) == 50


def write(folder, first, barrier, queue):
    barrier.wait()
    store = AnswerStore(folder)
    queue.put([(str(number), store.put(str(number), Answer(f"{first}", "stop", 1, 1)).text)
               for number in range(first, first + 60)])  # fmt: skip


def test_processes_that_start_at_once_on_a_new_folder_all_find_their_answers(tmp_path):
    forks = multiprocessing.get_context("fork")
    barrier, queue = forks.Barrier(4), forks.Queue()
    running = [
        forks.Process(target=write, args=(tmp_path / "answers", first, barrier, queue)) for first in (0, 30, 60, 0)
    ]
    for process in running:
        process.start()
    seen = [pair for _ in running for pair in queue.get(timeout=60)]
    for process in running:
        process.join(timeout=60)
    kept = AnswerStore(tmp_path / "answers").get([str(number) for number in range(120)])
    assert len(kept) == 120 and len(seen) == 240
    for number, text in seen:  # each process uses what the folder holds, whoever wrote it
        assert kept[number].text == text
