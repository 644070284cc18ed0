"""What the command line declares of data means what it means in `read_preferences`."""

from __future__ import annotations

import base64
import json
from dataclasses import fields

import pytest
import typer
from typer.main import get_command

from arm_lens.cli import app
from arm_lens.cli.flags import Data, Rows
from arm_lens.cli.spelling import as_fields, as_options
from arm_lens.preferences import PreferenceDataError, read_preferences

GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
SHARED = {"split", "column", "on_error", "limit", "allow_urls", "allow_any_path"}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("fit", SHARED | {"format", "label", "winner"}),
        ("evaluate", SHARED | {"format", "label", "winner"}),
        ("score", SHARED),  # which needs no labels
    ],
)
def test_every_command_that_reads_data_has_the_options_of_the_reader(command, expected):
    own = {parameter.name for parameter in get_command(app).commands[command].params}
    assert expected <= own
    assert {one.name for one in fields(Data)} == SHARED | {"format", "label", "winner"}


@pytest.mark.parametrize(
    ("rows", "flags", "options"),
    [
        (
            [{"text": f"t {n}", "label": ("joy", "anger", "fear")[n % 3]} for n in range(6)],
            Data(label=["joy=yes", "anger=no", "fear=drop"]),
            {"labels": {"joy": True, "anger": False, "fear": "drop"}},
        ),
        (
            [{"text": f"t {n}", "stars": n} for n in range(6)],
            Data(column=["label=stars"], label=[">= 4"], limit=5),
            {"columns": {"label": "stars"}, "labels": ">= 4", "limit": 5},
        ),
        (
            [{"q": "q", "left": f"a {n}", "right": f"b {n}", "who": ("A>B", "B>A", "A=B")[n % 3]} for n in range(6)],
            Data(
                column=["prompt=q", "response_a=left", "response_b=right", "winner=who"],
                winner=["A>B=A", "B>A=B", "A=B=tie"],
            ),
            {
                "columns": {"prompt": "q", "response_a": "left", "response_b": "right", "winner": "who"},
                "winner": {"A>B": "A", "B>A": "B", "A=B": "tie"},
            },
        ),
        (
            [{"prompt": "p", "chosen": "c", "rejected": "r", "subset": "x"}] * 2,
            Data(format="trl", on_error="skip"),
            {"format": "trl", "on_error": "skip"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::arm_lens.preferences.PreferenceDataWarning")
def test_flags_are_the_options_of_the_reader(tmp_path, rows, flags, options):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    expected = read_preferences(path, **options)
    assert expected
    assert flags.read(str(path)) == expected


def test_columns_by_position_and_splits_are_those_of_the_reader(tmp_path):
    (tmp_path / "x.csv").write_text("a,yes\nb,no\n")
    assert [one.label for one in Data(column=["text=1", "label=2"]).read(str(tmp_path / "x.csv"))] == [True, False]
    assert Rows(column=["text=1"]).arguments == {
        "split": None,
        "columns": {"text": 1},
        "on_error": "raise",
        "limit": None,
        "allow_urls": False,
        "allow_any_path": False,
    }
    (tmp_path / "x.json").write_text(json.dumps({name: [{"text": name, "label": 1}] for name in ("train", "test")}))
    assert [one.response for one in Data(split="test").read(str(tmp_path / "x.json"))] == ["test"]


def test_examples_and_validation_may_be_of_another_split_of_the_same_data(tmp_path):
    rows = {name: [{"text": name, "label": 1}] for name in ("train", "test")}
    (tmp_path / "x.json").write_text(json.dumps(rows))
    reader, path = Data(split="test"), str(tmp_path / "x.json")
    assert [one.response for one in (*reader.read(path), *reader.read(path, "train"))] == ["test", "train"]
    commands = get_command(app).commands
    for command, option in (("fit", "validation_split"), ("evaluate", "examples_split")):
        assert option in {parameter.name for parameter in commands[command].params}


def test_data_of_which_nothing_is_left_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "t", "label": "other"}))
    with pytest.raises(ValueError, match="no preference is left; every row that was read is a tie or left out"):
        Data(label=["other=drop"]).read(str(tmp_path / "x.jsonl"))


def test_several_columns_of_metadata_are_named_one_by_one(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": "r", "label": 1, "preference": 2}))
    with pytest.raises(PreferenceDataError) as caught:
        Data(column=["metadata=label"]).read(str(path))
    assert "--column metadata=label --column metadata=preference" in as_options(str(caught.value))
    flags = Data(column=["metadata=label", "metadata=preference"])
    assert flags.read(str(path)) == read_preferences(path, columns={"metadata": ["label", "preference"]})


def test_the_error_about_labels_can_be_followed_on_the_command_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"t {n}", "label": ("it's", "not so")[n % 2]}) for n in range(4)))
    with pytest.raises(PreferenceDataError) as caught:
        Data().read(str(path))
    said = as_options(str(caught.value))
    assert """--label 'it'"'"'s=...' --label 'not so=...'""" in said
    assert [one.label for one in Data(label=["it's=yes", "not so=no"]).read(str(path))] == [True, False, True, False]


def test_what_images_may_be_read_is_said_by_the_options_that_errors_name(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "a.gif").write_bytes(base64.b64decode(GIF))
    path = tmp_path / "data" / "x.jsonl"
    path.write_text(json.dumps({"image": "../a.gif", "text": "a box", "label": True}))
    with pytest.raises(PreferenceDataError) as caught:
        Data().read(str(path))
    assert "pass --allow-any-path to read it" in as_options(str(caught.value))
    assert "pass allow_any_path: true to read it" in as_fields(str(caught.value))
    [example] = Data(allow_any_path=True).read(str(path))
    assert example == read_preferences(path, allow_any_path=True)[0]
    path.write_text(json.dumps({"image": "https://127.0.0.1/a.gif", "text": "a box", "label": True}))
    with pytest.raises(PreferenceDataError) as caught:
        Data().read(str(path))
    assert "pass --allow-urls to open it" in as_options(str(caught.value))
    with pytest.raises(PreferenceDataError, match="cannot be downloaded"):
        Data(allow_urls=True).read(str(path))


@pytest.mark.parametrize("flags", [Data(label=["joy"]), Data(label=["joy=maybe"]), Data(column=["prompt"])])
def test_flags_that_say_nothing_are_refused(flags):
    with pytest.raises(typer.BadParameter):
        _ = flags.arguments
