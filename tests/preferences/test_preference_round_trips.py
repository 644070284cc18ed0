from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arm_lens.preferences import (
    LabelledResponse,
    Preference,
    PreferencePair,
    read_preferences,
    text_of,
    write_preferences,
)

FORMATS = ["x.jsonl", "x.jsonl.gz", "x.json.zst", "x.csv", "x.tsv.xz", "x.parquet"]

texts = st.text(min_size=1, max_size=12).filter(str.strip)
tricky = st.sampled_from(["NA", "None", "nan", "1", "true", "a,b", 'say "hi"', "x\r\ny\rz\n", " padded ", "[{x}]", "{"])
content = texts | tricky


def conversations(last: str) -> st.SearchStrategy:
    roles = st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=2)
    if last == "assistant":
        roles = st.just(["assistant"]) | st.just([])
    return roles.flatmap(
        lambda before: st.tuples(
            *(
                st.builds(lambda role, text: {"role": role, "content": text}, st.just(r), content)
                for r in [*before, last]
            )
        )
    )


prompts = content | conversations("user")
responses = content | conversations("assistant")
json_values = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | content
)
metadata = st.dictionaries(
    st.text(max_size=4) | st.just("prompt"), json_values | st.lists(json_values, max_size=2), max_size=2
)
shared = {"criterion": st.just("") | content, "metadata": metadata}


single = st.fixed_dictionaries({"prompt": prompts, "response": responses, "label": st.booleans(), **shared})
pair = st.fixed_dictionaries({"prompt": prompts, "chosen": responses, "rejected": responses, **shared})


def example(fields: dict, number: int) -> Preference:
    """Of drawn fields, with an id and, in a pair, two responses that differ."""
    if "label" in fields:
        return LabelledResponse(**fields, id=f"nr {number}")
    if text_of(fields["chosen"]).strip() == text_of(fields["rejected"]).strip():
        fields = fields | {"chosen": text_of(fields["rejected"]) + " or not"}
    return PreferencePair(**fields, id=f"nr {number}")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(single | pair, min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path, name, drawn):
    written = [example(fields, number) for number, fields in enumerate(drawn)]
    write_preferences(written, tmp_path / name)
    assert read_preferences(tmp_path / name) == written


@pytest.mark.parametrize("name", FORMATS)
def test_examples_without_an_id_get_that_of_their_row(tmp_path, name):
    write_preferences([PreferencePair("p", "c", "r"), PreferencePair("p", "c", "r", id="mine")], tmp_path / name)
    assert [pair.id for pair in read_preferences(tmp_path / name)] == [f"{name}:1", "mine"]


def test_the_files_are_such_as_other_tools_read(tmp_path):
    conversation = ({"role": "user", "content": "hi"},)
    write_preferences([PreferencePair(conversation, "c", "r", id="a", metadata={"n": 1})], tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame["prompt"][0].tolist() == list(conversation)
    write_preferences([LabelledResponse("p", "c", False)], tmp_path / "x.jsonl")
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"prompt": "p", "completion": "c", "label": False}


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl"])
@pytest.mark.parametrize("text", ['[{"role": "user", "content": "hi"}]', '[{"role": broken'])
def test_text_that_would_be_read_as_messages_is_refused(tmp_path, name, text):
    with pytest.raises(ValueError, match="the prompt of 'a' is text that would be read back as messages"):
        write_preferences([PreferencePair(text, "c", "r", id="a")], tmp_path / name)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    pair = PreferencePair("p", "c", "r", id="a")
    with pytest.raises(ValueError, match="the id 'a' occurs more than once"):
        write_preferences([pair, pair], tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="no preferences to write"):
        write_preferences([], tmp_path / "x.jsonl")
    for value in (object(), float("nan")):
        for name in ("x.jsonl", "x.csv"):
            with pytest.raises(ValueError, match="the metadata of 'a' cannot be written as JSON"):
                write_preferences([PreferencePair("p", "c", "r", id="a", metadata={"v": value})], tmp_path / name)
    for name in ("x.yaml", "x.parquet.zip", "x"):
        with pytest.raises(ValueError, match=r"only be written to \.jsonl, \.json, \.csv, \.tsv, \.parquet"):
            write_preferences([pair], tmp_path / name)
    assert not list(tmp_path.iterdir())
