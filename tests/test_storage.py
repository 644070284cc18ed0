"""The one store: nothing half written is ever read, nothing damaged is believed, and nobody else's file is touched."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from killing import Victims

from arm_lens import storage
from arm_lens.storage import (
    DamagedFileError,
    Growing,
    Store,
    StoreBusyError,
    digest_of,
    growing,
    locked,
    read_sealed,
    replacing,
    write_bytes,
    write_json,
    write_sealed,
    write_text,
)

LOADED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("storage", sys.argv[1])
storage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(storage)
"""


@pytest.fixture
def victims():
    """victims(source): processes that know ``storage`` and can be killed."""
    made = []

    def make(source):
        made.append(Victims(LOADED + source, storage.__file__))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ------------------------------------------------------------------------------------------ whole or not at all

REWRITES = """
import os
def victim(path):
    for number in range(10**9):
        letter = (os.getpid() + number) % 256
        storage.write_bytes(path, bytes([letter]) * 300_000)
"""


@pytest.mark.slow
def test_a_file_that_is_killed_over_and_over_is_always_one_of_those_that_were_written(victims, tmp_path):
    path, found = tmp_path / "file.bin", set()
    path.write_bytes(b"old" * 100_000)
    for _ in victims(REWRITES).kill_at_random(60, 0.05, str(path), state=path.read_bytes):
        content = path.read_bytes()
        assert content == b"old" * 100_000 or content == content[:1] * 300_000
        found.add(content[:1])
    assert len(found) > 2, "the kills came too early to tell anything"
    with locked(tmp_path):
        assert {one.name for one in tmp_path.iterdir()} == {"file.bin", storage.LOCK}


def test_what_was_written_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    happened, flush, rename, link = [], os.fsync, os.replace, os.link

    def flushed(descriptor):
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        happened.append(("flush", where, None if os.path.isdir(where) else Path(where).read_bytes()))
        flush(descriptor)

    def noted(name, function):
        def call(one, other):
            happened.append((name, str(one), str(other)))
            function(one, other)

        return call

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", noted("replace", rename))
    monkeypatch.setattr(os, "link", noted("link", link))
    write_bytes(tmp_path / "new" / "x.bin", b"content")
    folder = str(tmp_path / "new")
    (made, first, named, last) = happened
    assert made == ("flush", str(tmp_path), None)  # the new folder's name
    assert first == ("flush", named[1], b"content") and named == ("replace", first[1], folder + "/x.bin")
    assert last == ("flush", folder, None)
    happened.clear()
    write_sealed(tmp_path / "new" / "y", b"content", over=False)
    assert [what for what, *_ in happened] == ["flush", "link", "flush"]
    happened.clear()
    with growing(tmp_path / "z", {}) as file:
        happened.clear()
        file.append(b"piece")
    assert happened[0] == ("flush", str(tmp_path / "z"), b"piece")
    assert happened[2][0] == "replace" and happened[2][2].endswith("z.made-of.json")


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "x.txt", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x.txt") as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.txt", {"accuracy": float("nan")})
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x.txt", "old")]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_permissions_that_the_user_gives_new_files_and_keep_those_they_had(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "plain").write_text("x")
        write_text(tmp_path / "one", "x")
        write_sealed(tmp_path / "two", b"x")
        write_sealed(tmp_path / "three", b"x", over=False)
        Store(tmp_path).put("d" * 20, b"x")
        write_text(tmp_path / "private", "x").chmod(0o600)
        write_text(tmp_path / "private", "y")
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes.pop("private") == 0o600 and set(modes.values()) == {0o666 & ~mask}


def test_a_symbolic_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far" / "file.txt")
    for text in ("one", "two"):
        write_text(tmp_path / "near", text)
        assert (tmp_path / "near").is_symlink() and (tmp_path / "far" / "file.txt").read_text() == text


def test_names_may_be_long_and_writers_that_go_by_the_extension_see_it(tmp_path):
    name = "é" * 120 + ".csv"
    with replacing(tmp_path / name) as aside:
        assert aside.suffix == ".csv" and aside.parent == tmp_path
        aside.write_text("x")
    assert (tmp_path / name).read_text() == "x"


# ------------------------------------------------------------------------------------------ sealed files


@settings(max_examples=60, deadline=None)
@example(content=b"", place=80, change=1)  # the newline alone is missing
@given(content=st.binary(max_size=200), place=st.integers(min_value=0), change=st.integers(1, 255))
def test_a_sealed_file_is_read_back_and_any_changed_or_missing_byte_is_refused(
    tmp_path_factory, content, place, change
):
    path = write_sealed(tmp_path_factory.getbasetemp() / "sealed.bin", content)
    assert read_sealed(path) == content
    whole = path.read_bytes()
    place %= len(whole)
    for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :], whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"sealed\.bin was changed or damaged"):
            read_sealed(path)


def test_of_two_that_write_once_the_first_stays(tmp_path):
    path = tmp_path / "answers" / "x"
    barrier = threading.Barrier(8)

    def write(content):
        barrier.wait()
        write_sealed(path, content, over=False)
        assert read_sealed(path) in contents

    contents = [bytes([65 + number]) * 50_000 for number in range(8)]
    threads = [threading.Thread(target=write, args=(one,)) for one in contents]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    first = read_sealed(path)
    write_sealed(path, b"late", over=False)
    assert read_sealed(path) == first and [one.name for one in path.parent.iterdir()] == ["x"]


# ------------------------------------------------------------------------------------------ locks


@pytest.mark.slow
def test_a_second_process_is_kept_out_at_once_or_after_waiting_and_let_in_when_the_first_is_killed(victims, tmp_path):
    source = """
import time
def victim(folder):
    with storage.locked(folder):
        open(folder + "/inside", "w").close()
        time.sleep(100)
"""
    one = victims(source)
    with one.running(str(tmp_path)) as child:
        while not (tmp_path / "inside").exists():
            pass
        for wait in (0.0, 0.1):
            with pytest.raises(StoreBusyError, match=f"writing to {tmp_path}"), locked(tmp_path, wait=wait):
                pass
        os.kill(child, 9)
        with locked(tmp_path, wait=10.0):
            pass


def test_threads_and_calls_of_one_process_keep_each_other_out_too(tmp_path):
    with locked(tmp_path):
        with pytest.raises(StoreBusyError), locked(tmp_path):
            pass
        with locked(tmp_path / "within"):
            pass
    with locked(tmp_path):
        pass


def test_a_lock_takes_away_what_was_left_unfinished_and_nothing_else(tmp_path):
    users = [tmp_path / "notes.unfinished", tmp_path / ".notes.unfinished.txt", tmp_path / ".unfinished"]
    left = [tmp_path / f".{'a' * 32}.unfinished.json", tmp_path / "parts" / f".{'0' * 32}.unfinished"]
    other = tmp_path / "study" / "parts" / f".{'b' * 32}.unfinished"  # of another run, which has a lock of its own
    for one in [*users, *left, other]:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("x")
    with locked(tmp_path / "study" / "elsewhere"):
        pass
    (tmp_path / "study" / storage.LOCK).touch()
    with locked(tmp_path):
        assert all(one.exists() for one in [*users, other]) and not any(one.exists() for one in left)


# ------------------------------------------------------------------------------------------ entries

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(one=JSON, two=JSON)
def test_digests_are_the_same_for_the_same_content_alone(one, two):
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (digest_of(one) == digest_of(two)) is same
    if isinstance(one, dict):
        assert digest_of(dict(reversed(one.items()))) == digest_of(one)
    assert digest_of({"options": one}) != digest_of({"options": [one]})


def test_digests_are_not_those_of_types_alone_and_of_nothing_unknown():
    values = [1, 1.0, "1", True, [1], None, "null", "", [], {}]
    assert len({digest_of(value) for value in values}) == len(values)
    with pytest.raises(TypeError):
        digest_of({"weights": object()})


def test_an_entry_is_found_by_what_it_depends_on(tmp_path):
    store = Store(tmp_path / "parts", ".bin")
    assert "a" * 20 not in store and store.found() == {} and not (tmp_path / "parts").exists()
    with pytest.raises(KeyError, match="has no entry"):
        store.read("a" * 20)
    one = store.put("a" * 20, b"one", name="a/b: c*[x] é.bin")
    two = store.put("b" * 20, b"two", name="a/b: c*[x] é.bin")
    assert one.parent == two.parent == tmp_path / "parts"
    assert (store.read("a" * 20), store.read("b" * 20), store.found()) == (
        b"one", b"two", {"a" * 20: one, "b" * 20: two},
    )  # fmt: skip
    again = store.put("a" * 20, b"other")
    assert not one.exists() and store.found()["a" * 20] == again and store.read("a" * 20) == b"other"
    assert "a" * 20 in store and "c" * 20 not in store and 3 not in store


def test_a_damaged_entry_is_refused_and_named_unless_a_whole_one_is_beside_it(tmp_path):
    store = Store(tmp_path, ".bin")
    path = store.put("a" * 20, b"the content", name="part")
    path.write_bytes(b"the c0ntent")
    with pytest.raises(DamagedFileError, match=r"part a{20}\..*\.bin was changed or damaged.* delete it"):
        store.read("a" * 20)
    # as after a kill between the new file and the old one's removal
    kept = path.read_bytes()
    whole = store.put("a" * 20, b"made again", name="part")
    path.write_bytes(kept)
    assert store.read("a" * 20) == b"made again" and whole.exists()


@pytest.mark.parametrize("frame", [pd.DataFrame({"x": [1, 2], "y": ["a", None]}), pd.DataFrame()], ids=["two", "empty"])
def test_a_table_is_made_once_and_is_then_as_it_was(tmp_path, frame):
    store, made = Store(tmp_path), []

    def make():
        made.append(1)
        return frame

    first, second = (store.frame("e" * 20, make, name="table") for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert len(made) == 1 and len(first) == len(frame) and list(first.columns) == list(frame.columns)
    store.put_frame("f" * 20, frame, about={"seed": 3})
    assert store.read_frame("f" * 20)[1] == {"seed": 3}


@pytest.mark.slow
def test_the_same_table_has_the_same_bytes_in_every_process(tmp_path):
    source = (
        LOADED
        + """
import pandas as pd
frame = pd.DataFrame({"x": [1.5, 2.5], "y": ["a", "b"]})
print(storage.Store(sys.argv[2]).put_frame("a" * 20, frame, about={"seed": 1}).name)
"""
    )
    names = {
        subprocess.run([sys.executable, "-c", source, storage.__file__, str(tmp_path / one)], capture_output=True,
                       text=True, check=True, env=os.environ | {"PYTHONHASHSEED": one}).stdout
        for one in ("1", "2")
    }  # fmt: skip
    assert len(names) == 1


# ------------------------------------------------------------------------------------------ files that grow

GROWS = """
def victim(path, pieces):
    with storage.growing(path, {"data": "x"}) as file:
        for number in range(file.pieces, pieces):
            file.append(b"%d," % number * 4000 + b"\\n")
"""


@pytest.mark.slow
def test_a_file_that_grows_goes_on_after_every_kill_and_is_the_same_in_the_end(victims, tmp_path):
    source = victims(GROWS)
    path, pieces = tmp_path / "out.jsonl", 200
    seconds = min([source.run(str(tmp_path / name), pieces) for name in ("whole.jsonl", "again.jsonl")])
    lengths = []

    def size():
        return path.stat().st_size if path.exists() else 0

    for _ in source.kill_at_random(25, 0.1 * seconds, str(path), pieces, state=size):
        lengths.append(size())
    assert len(set(lengths)) > 3, "the kills came too early or too late to tell anything"
    source.run(str(path), pieces)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(path.read_bytes().splitlines()) == pieces


def test_reading_what_was_listed_lists_no_folder_and_finds_what_was_put_since(tmp_path, monkeypatch):
    store, other = Store(tmp_path, ".bin"), Store(tmp_path, ".bin")
    digests = [f"{number:020x}" for number in range(20)]
    for digest in digests:
        store.put(digest, digest.encode())
    assert set(store.found()) == set(digests)
    listed = []
    monkeypatch.setattr(
        Store, "_files", lambda self, digest, of=Store._files: listed.append(digest) or of(self, digest)
    )
    assert [store.read(digest) for digest in digests] == [digest.encode() for digest in digests] and not listed
    other.put(digests[3], b"new")
    assert store.read(digests[3]) == b"new"
    path = store.found()[digests[4]]
    path.write_bytes(b"damaged")
    with pytest.raises(DamagedFileError, match="was changed or damaged"):
        store.read(digests[4])


def test_half_a_piece_goes_and_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "out"
    one = Growing(path, {"data": [1, 2]})
    one.append(b"first\n")
    one.append(b"second\n")
    path.write_bytes(path.read_bytes() + b"thi")
    again = Growing(path, {"data": [1, 2]})
    assert again.pieces == 2 and path.read_bytes() == b"first\nsecond\n"
    again.append(b"third\n")
    for damaged in (b"First\nsecond\nthird\n", b"first\nsecond\n", b""):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="out was changed"):
            Growing(path, {"data": [1, 2]})
        assert path.read_bytes() == damaged


def test_a_file_of_other_origin_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "out"
    Growing(path, {"data": "x", "seed": 1}).append(b"first\n")
    with pytest.raises(ValueError, match=r"out was made of something else \(seed\)"):
        Growing(path, {"data": "x", "seed": 2})
    (tmp_path / "notes").write_text("mine")
    ours = '"made_of": {"data": "x"}'
    damaged = ['{"pieces": 0, "length": 0, "made_of": 3}', f'{{"pieces": 0, "length": 0, {ours}}}',
               f'{{"pieces": 0, "length": -3, "sha256": "", {ours}}}']  # fmt: skip
    with pytest.raises(FileExistsError, match=r"was not written by this program"):
        Growing(tmp_path / "notes", {"data": "x"})
    for content in ("", "[]", "{}", "[" * 100_000, *damaged):
        (tmp_path / "notes.made-of.json").write_text(content)
        with pytest.raises(ValueError, match=r"notes was made of something else \(data\)"):
            Growing(tmp_path / "notes", {"data": "x"})
    assert (tmp_path / "notes").read_text() == "mine" and path.read_bytes() == b"first\n"
    path.unlink()
    Growing(path, {"data": "x", "seed": 2}).append(b"new\n")
    assert path.read_bytes() == b"new\n"


def test_a_file_in_which_nothing_was_made_is_anybodys(tmp_path):
    path = tmp_path / "out"
    Growing(path, {"seed": 1})
    Growing(path, {"seed": 2}).append(b"first\n")
    assert Growing(path, {"seed": 2}).pieces == 1 and path.read_bytes() == b"first\n"


def test_nobody_else_adds_meanwhile(tmp_path):
    with growing(tmp_path / "out", {}) as file, growing(tmp_path / "other", {}):
        file.append(b"x")
        with pytest.raises(StoreBusyError, match="out"), growing(tmp_path / "out", {}):
            pass
