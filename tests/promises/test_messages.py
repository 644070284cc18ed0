"""Messages are checked alike at every door: what a judge cannot read is refused in words, and what it can is in the text."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferenceFieldError,
    PreferencePair,
    as_prompts,
    read_preferences,
    text_of,
)

USER = {"role": "user", "content": "Tidy up."}


def call(name, arguments=None, **rest):
    return {"type": "function", "function": {"name": name, "arguments": {} if arguments is None else arguments}, **rest}


def answer(*calls, content: str | None = "", **rest):
    first = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    return [first, {"role": "tool", "content": "done", **rest}, {"role": "assistant", "content": "Done."}]


REFUSED = [
    ([{"role": "assistant", "content": None}], "no 'content' in message 1"),
    ([{"role": "assistant"}], "no 'content' in message 1"),
    ([{"role": "assistant", "content": None, "tool_calls": []}], "no 'content' in message 1"),
    ([{"role": "assistant", "content": 7}], "'content' that is not text in message 1"),
    ([{"role": "assistant", "content": ["hi"]}], "'content' that is not text in message 1"),
    (
        [{"role": "assistant", "content": [{"type": "image"}]}],
        "has a place for an image in message 1, but no image",
    ),
    ([{"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}], "an image in message 1 that is {}"),
    ([{"role": "assistant", "content": [{"type": "image", "image": "no.png"}]}], "an image in message 1 that names an"),
    ([{"role": "assistant", "content": "the mark \ufdd0"}], "U+FDD0 at character 10, which is not text"),
    ([{"role": "assistant", "content": [{"type": "input_audio"}]}], "part of type 'input_audio'"),
    ([{"role": "assistant", "content": [{"type": "text", "text": None}]}], "part without a text of its own"),
    ([{"role": "assistant", "content": "x", "audio": {"id": "a"}}], "'audio' in message 1"),
    ([{"role": "assistant", "content": "x", "name": "Ann"}], "'name' in message 1"),
    ([{"role": "assistant", "content": "x", "tool_calls": ["f"]}], "tool call without the name of a function"),
    ([{"role": "assistant", "content": "x", "tool_calls": [{"function": {"arguments": {}}}]}], "without the name"),
    ([{"role": "assistant", "content": "x", "tool_calls": [call("f") | {"custom": 1}]}], "tool call with 'custom'"),
    ([{"role": "assistant", "content": "x", "tool_calls": [call("f", {"x": float("nan")})]}], "that is not JSON"),
    ([{"role": "assistant", "content": "\ud83d"}], "half of a character"),
    ("\ud83d", "half of a character"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_every_door_refuses_with_the_same_words(value, message):
    doors = {
        "LabelledResponse": lambda: LabelledResponse("p", value, True),
        "PreferencePair": lambda: PreferencePair("p", value, "other"),
        "as_prompts": lambda: as_prompts("response", [value]),
    }
    if not isinstance(value, str):  # text is put into a question as it is
        doors |= {"text_of": lambda: text_of(value, "response")}
    reasons = set()
    for door in doors.values():
        with pytest.raises(PreferenceFieldError) as caught:
            door()
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    assert message in reasons.pop()


@pytest.mark.parametrize("value", [None, float("nan"), 7, {"role": "user", "content": "x"}, b"text"])
def test_what_is_neither_text_nor_messages_is_refused(value):
    for door in (lambda: text_of(value, "response"), lambda: as_prompts("response", [value])):
        with pytest.raises(PreferenceFieldError, match=r"^response.* is .*, not text or a list of messages"):
            door()
    with pytest.raises(
        PreferenceDataError, match=r"data, row 2, field response: (is missing|is .*, not text or a list)"
    ):
        read_preferences([{"prompt": "p", "response": one, "label": True} for one in ("text", value)])


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet"])
def test_every_file_names_row_and_field(tmp_path, name):
    rows = [
        {"prompt": "p", "chosen": [{"role": "assistant", "content": text}], "rejected": "r"} for text in ("c", None)
    ]
    path, frame = tmp_path / name, pd.DataFrame(rows)
    if name.endswith(".csv"):
        frame.assign(chosen=frame["chosen"].map(json.dumps)).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=name.endswith("l"))
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(path)
    (problem,) = caught.value.problems
    assert (problem.row, problem.field) == (2, "chosen")
    assert "no 'content' in message 1" in problem.message


def test_different_tool_calls_are_different_texts():
    answers = [
        answer(call("list_files")),
        answer(call("delete_all")),
        answer(call("list_files", {"path": "/"})),
        answer(call("list_files", {"path": None, "all": True})),
        answer(call("list_files", "not JSON")),
        answer(call("list_files", '"not JSON"')),
        answer(call("list_files", id="1")),
        answer(call("list_files"), call("delete_all")),
        answer(call("delete_all"), call("list_files")),
        answer(call("list_files"), content="Let me look."),
        answer(call("list_files"), name="list_files"),
        answer(call("list_files"), tool_call_id="1"),
    ]
    assert len({text_of(one) for one in answers}) == len(answers)
    assert len({text_of(LabelledResponse("p", one, True).response) for one in answers}) == len(answers)


def test_one_call_written_in_several_ways_is_one_text():
    ways = [
        [{"role": "assistant", "content": content, "tool_calls": [one]}]
        for content in ("", None)
        for one in (
            call("f", {"a": 1, "b": [2]}),
            call("f", '{"b": [2], "a": 1}'),
            {"name": "f", "arguments": {"a": 1, "b": [2]}},
            call("f", {"a": 1, "b": [2], "filled in by Arrow": None}) | {"id": None},
        )
    ]
    assert {text_of(way) for way in ways} == {'<tool_call>{"name": "f", "arguments": {"a": 1, "b": [2]}}</tool_call>'}


def test_calls_stand_below_the_text_and_tools_say_who_they_are():
    text = text_of([USER, *answer(call("f", id="7"), content="Wait.", name="f", tool_call_id="7")])
    assert text == (
        'User: Tidy up.\n\nAssistant: Wait.\n<tool_call>{"name": "f", "arguments": {}, "id": "7"}</tool_call>'
        "\n\nTool: [f, 7] done\n\nAssistant: Done."
    )


def test_text_parts_are_read_as_their_texts():
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief.", "image": None}]
    assert text_of([{"role": "system", "content": parts}]) == "Be\nbrief."
    (pair,) = read_preferences(
        [{"prompt": [{"role": "user", "content": parts}], "chosen": answer(call("f")), "rejected": answer(call("g"))}]
    )
    assert pair.prompt == ({"role": "user", "content": "Be\nbrief."},)
    assert text_of(pair.chosen) != text_of(pair.rejected)


def test_a_pair_that_differs_only_in_its_tool_calls_comes_through_a_parquet_file(tmp_path):
    rows = [{"prompt": [USER], "chosen": answer(call("f", {"a": 1})), "rejected": answer(call("g", {"b": 2}))}]
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text(json.dumps(rows[0]))
    (from_parquet,), (from_jsonl,) = read_preferences(tmp_path / "x.parquet"), read_preferences(tmp_path / "x.jsonl")
    assert (from_parquet.chosen, from_parquet.rejected) == (from_jsonl.chosen, from_jsonl.rejected)


keys = st.sampled_from(
    ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "image", "id"]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
values = st.recursive(
    leaves, lambda one: st.lists(one, max_size=3) | st.dictionaries(keys, one, max_size=4), max_leaves=9
)


@pytest.mark.slow
@settings(max_examples=400, derandomize=True, deadline=None)
@given(value=values | st.lists(st.dictionaries(keys, values, min_size=1, max_size=4), max_size=2))
def test_anything_else_is_refused_or_text_that_says_neither_none_nor_a_python_object(value):
    try:
        text = text_of(value)
    except PreferenceFieldError:
        return
    given_text = json.dumps(value, ensure_ascii=False, default=str)
    for mark in ("None", "{'", "['", "b'", "nan"):
        assert mark not in text or mark in given_text.replace("null", "")
