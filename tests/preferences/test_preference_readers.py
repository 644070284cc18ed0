from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferenceDataWarning,
    PreferencePair,
    PreferenceProblem,
    read_preferences,
    read_responses,
)

ROW = {"prompt": "p", "chosen": "c", "rejected": "r"}
USER = {"role": "user", "content": "Name a prime."}
SEVEN = {"role": "assistant", "content": "7"}
NINE = {"role": "assistant", "content": "9"}


def file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problem_of(source, **options) -> PreferenceProblem:
    """The only problem in a source."""
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(source, **options)
    (problem,) = caught.value.problems
    return problem


# Forms of rows


def test_a_pair_keeps_its_criterion_id_and_every_other_column():
    row = ROW | {"criterion": "polite", "id": 7, "source": "web", "turns": 2}
    expected = PreferencePair("p", "c", "r", criterion="polite", id="7", metadata={"source": "web", "turns": 2})
    assert read_preferences([row]) == [expected]


def test_a_labelled_response_may_be_called_completion_or_response():
    rows = [{"prompt": "p", "completion": "r", "label": True}, {"prompt": "p", "response": "r", "label": True}]
    first, second = read_preferences(rows)
    assert (first.response, second.response) == ("r", "r")


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", "TRUE", " Yes ", "1", np.True_, np.int64(1)])
def test_labels_that_mean_true(label):
    (example,) = read_preferences([{"prompt": "p", "completion": "r", "label": label}])
    assert example.label is True


@pytest.mark.parametrize("label", [False, 0, 0.0, "false", "No", "0", np.False_])
def test_labels_that_mean_false(label):
    (example,) = read_preferences([{"prompt": "p", "completion": "r", "label": label}])
    assert example.label is False


def test_the_messages_both_responses_share_are_the_prompt():
    (pair,) = read_preferences([{"chosen": [USER, SEVEN], "rejected": [USER, NINE]}])
    assert (pair.prompt, pair.chosen, pair.rejected) == ((USER,), (SEVEN,), (NINE,))


def test_a_prompt_that_repeats_what_the_conversations_share_is_accepted_in_each_form():
    shared = {"chosen": [SEVEN | {"role": "system"}, USER, SEVEN], "rejected": [SEVEN | {"role": "system"}, USER, NINE]}
    whole = shared["chosen"][:2]
    for prompt in (USER["content"], whole, "System: 7\n\nUser: Name a prime."):
        (pair,) = read_preferences([{"prompt": prompt, **shared}])
        assert (pair.prompt, pair.chosen) == (tuple(whole), (SEVEN,))
    problem = problem_of([{"prompt": "Name a square.", **shared}])
    assert (problem.field, problem.message[:7]) == ("prompt", "differs")


def test_transcripts_share_their_prompt_up_to_the_last_common_answer():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A prime?\n\nAssistant: "
    (pair,) = read_preferences([{"chosen": start + "It is 7", "rejected": start + "It is 9\n\nAssistant: or not"}])
    assert pair.prompt == (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "A prime?"},
    )
    assert pair.chosen == ({"role": "assistant", "content": "It is 7"},)
    assert [message["content"] for message in pair.rejected] == ["It is 9", "or not"]


def test_a_transcript_beside_an_explicit_prompt_stays_text():
    text = "\n\nHuman: Hi\n\nAssistant: "
    (pair,) = read_preferences([{"prompt": "p", "chosen": text + "a", "rejected": text + "b"}])
    assert (pair.prompt, pair.chosen) == ("p", text + "a")


def test_forms_may_be_mixed_row_by_row():
    rows = [ROW, {"prompt": "p", "completion": "c", "label": 0}, {"chosen": [USER, SEVEN], "rejected": [USER, NINE]}]
    assert [type(example) for example in read_preferences(rows)] == [PreferencePair, LabelledResponse, PreferencePair]


def test_a_label_beside_a_pair_is_metadata_only_if_it_is_declared_to_be():
    assert "looks as if it said which response won" in problem_of([ROW | {"label": 2}]).message
    (pair,) = read_preferences([ROW | {"label": 2}], columns={"metadata": "label"})
    assert pair.metadata == {"label": 2}


def test_a_metadata_column_is_joined_with_the_other_columns():
    (pair,) = read_preferences([ROW | {"metadata": {"a": 1, "gone": None}, "b": 2}])
    assert pair.metadata == {"a": 1, "gone": None, "b": 2}
    (pair,) = read_preferences([ROW | {"metadata": "a remark"}])
    assert pair.metadata == {"metadata": "a remark"}


# Options


def test_columns_renames_what_is_called_otherwise():
    rows = [{"question": "p", "better": "c", "worse": "r"}]
    (pair,) = read_preferences(rows, columns={"prompt": "question", "chosen": "better", "rejected": "worse"})
    assert (pair.prompt, pair.chosen, pair.rejected, pair.metadata) == ("p", "c", "r", {})


def test_columns_can_exchange_chosen_and_rejected():
    (pair,) = read_preferences([ROW], columns={"chosen": "rejected", "rejected": "chosen"})
    assert (pair.chosen, pair.rejected) == ("r", "c")


def test_a_column_in_whose_stead_another_is_read_is_kept_in_the_metadata():
    (pair,) = read_preferences([ROW | {"question": "q"}], columns={"prompt": "question"})
    assert (pair.prompt, pair.metadata) == ("q", {"prompt (column)": "p"})


def test_the_criterion_given_is_for_rows_that_name_none():
    rows = [ROW, ROW | {"criterion": None}, ROW | {"criterion": "short"}]
    criteria = [pair.criterion for pair in read_preferences(rows, criterion="polite")]
    assert criteria == ["polite", "polite", "short"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"promt": "question"}}, "'promt', which is not one of prompt, chosen"),
        ({"columns": {"prompt": "question"}}, "no column 'question', which columns maps 'prompt' to.*prompt, chosen"),
        ({"split": "train"}, "split='train' was given, but the source has no splits"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_preferences([ROW], **options)


# Sources


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.csv", "x.parquet"])
def test_every_kind_of_file_is_read_and_numbered(tmp_path, name):
    path, frame = tmp_path / name, pd.DataFrame([ROW, ROW | {"id": "mine"}])
    if name.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines="jsonl" in name)
    expected = [PreferencePair("p", "c", "r", id=f"{name}:1"), PreferencePair("p", "c", "r", id="mine")]
    assert read_preferences(path) == expected
    assert read_preferences(str(path)) == expected


def test_lines_are_numbered_as_in_the_file_and_blank_ones_are_no_rows(tmp_path):
    path = file(tmp_path, "x.jsonl", "\ufeff" + json.dumps(ROW) + "\r\n\n" + json.dumps(ROW))
    assert [pair.id for pair in read_preferences(path)] == ["x.jsonl:1", "x.jsonl:3"]


def test_text_in_a_csv_stays_text(tmp_path):
    path = file(tmp_path, "x.csv", "prompt,chosen,rejected,id,note,empty\nNA,None,nan,007,true,\n1,1.0,1e5,,,\n")
    first, second = read_preferences(path)
    assert first == PreferencePair("NA", "None", "nan", id="007", metadata={"note": "true"})
    assert second == PreferencePair("1", "1.0", "1e5", id="x.csv:2")


def test_messages_in_a_csv_are_read_and_other_brackets_are_text(tmp_path):
    frame = pd.DataFrame({"prompt": [json.dumps([USER]), "[{x} for x]"], "chosen": ["7", "a"], "rejected": ["9", "b"]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    first, second = read_preferences(tmp_path / "x.csv")
    assert (first.prompt, second.prompt) == ((USER,), "[{x} for x]")


def test_conversations_in_a_parquet_file_become_messages(tmp_path):
    odd = {"role": "assistant", "content": "7", "name": None}  # as arrow fills up keys that only others have
    pd.DataFrame([{"chosen": [USER, odd], "rejected": [USER, NINE], "score": 0.5}]).to_parquet(tmp_path / "x.parquet")
    from_file = read_preferences(tmp_path / "x.parquet")
    assert from_file == [PreferencePair([USER], [SEVEN], [NINE], id="x.parquet:1", metadata={"score": 0.5})]
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert isinstance(frame["chosen"][0], np.ndarray)
    (from_frame,) = read_preferences(frame)
    assert from_frame == PreferencePair([USER], [SEVEN], [NINE], id="row 1", metadata={"score": 0.5})


def test_gaps_in_a_data_frame_are_missing_and_its_numbers_are_pythons():
    frame = pd.DataFrame(
        {
            "prompt": ["p", "p"],
            "completion": ["a", "b"],
            "label": [1, np.nan],
            "chosen": [np.nan, "c"],
            "rejected": [None, "r"],
            "id": [4, np.nan],
            "when": [pd.NaT, pd.NaT],
            "score": np.array([1, 2], dtype=np.int16),
        }
    )
    single, pair = read_preferences(frame)
    assert single == LabelledResponse("p", "a", True, id="4", metadata={"score": 1})
    assert pair == PreferencePair("p", "c", "r", id="row 2", metadata={"score": 2, "completion": "b"})
    assert type(single.metadata["score"]) is int


def test_a_hugging_face_data_set_is_read_whatever_format_it_gives():
    datasets = pytest.importorskip("datasets")
    rows = [{"chosen": [USER, SEVEN], "rejected": [USER, NINE], "margin": 3}]
    expected = [PreferencePair([USER], [SEVEN], [NINE], id="row 1", metadata={"margin": 3})]
    data = datasets.Dataset.from_list(rows)
    assert read_preferences(data) == expected
    assert read_preferences(data.to_iterable_dataset()) == expected
    for kind in ("numpy", "pandas"):
        (pair,) = read_preferences(data.with_format(kind))
        assert pair == expected[0]
        assert type(pair.metadata["margin"]) is int


def test_of_several_splits_one_must_be_named():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list([ROW]), "test": datasets.Dataset.from_list([])})
    assert len(read_preferences(splits, split="train")) == 1
    with pytest.raises(ValueError, match="the splits train, test; pass split="):
        read_preferences(splits)
    with pytest.raises(ValueError, match="the splits train, test; there is no split 'dev'"):
        read_preferences(splits, split="dev")


def test_problems_in_a_split_name_the_split():
    problem = problem_of({"train": [ROW, ROW | {"chosen": ""}]}, split="train")
    assert (problem.source, problem.row, problem.field) == ("split train", 2, "chosen")


def test_one_mapping_is_not_taken_for_splits():
    with pytest.raises(ValueError, match="one mapping with the keys prompt, chosen, rejected: put a single row into"):
        read_preferences(ROW)


def test_rows_may_come_from_a_generator():
    assert len(read_preferences(row for row in [ROW, ROW])) == 2


@pytest.mark.slow
def test_the_optional_datasets_library_is_not_imported():
    package = Path(sys.modules["arm_lens.preferences"].__file__).parent
    code = (
        "import importlib.util, sys, types\n"
        "sys.modules['arm_lens'] = types.ModuleType('arm_lens')\n"  # the rest of the package imports what it likes
        f"sys.modules['arm_lens'].__path__ = [{str(package.parent)!r}]\n"
        "from arm_lens.preferences import read_preferences\n"
        f"read_preferences([{ROW!r}])\n"
        "print([name for name in ('datasets', 'torch', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# What can be wrong with a row


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"prompt": "p", "chosen": "c"}, "rejected", "is missing"),
        ({"prompt": "p", "chosen": "c", "rejected": None}, "rejected", "is missing"),
        ({"prompt": "p", "chosen": float("nan"), "rejected": "r"}, "chosen", "is missing"),
        ({"prompt": " ", "chosen": "c", "rejected": "r"}, "prompt", "is blank: ' '"),
        ({"prompt": "p", "chosen": 42, "rejected": "r"}, "chosen", "is 42 (int), not text or a list of messages"),
        ({"prompt": "p", "chosen": "c", "rejected": "c"}, "rejected", "is the same as chosen: 'c'"),
        ({"chosen": "c", "rejected": "r"}, "prompt", "is missing, and chosen and rejected are not transcripts"),
        ({"chosen": "c", "rejected": [USER, NINE]}, "prompt", "is missing, and chosen and rejected are not both"),
        ({"chosen": [SEVEN], "rejected": [NINE]}, "prompt", "is missing, and chosen and rejected share no first"),
        ({"chosen": [USER, SEVEN], "rejected": [USER, SEVEN]}, "rejected", "is the same as chosen"),
        ({"chosen": [USER], "rejected": [USER, SEVEN]}, "chosen", "has no message with any text: []"),
        ({"chosen": [USER, USER], "rejected": [USER, SEVEN]}, "chosen", "begins with a message from 'user'"),
        ({"prompt": [{"text": "hi"}], "chosen": "c", "rejected": "r"}, "prompt", "has no 'role' in message 1"),
        ({"prompt": ["hi"], "chosen": "c", "rejected": "r"}, "prompt", "has 'hi' as message 1, not a role and"),
        ({"prompt": "p", "completion": "c"}, "label", "is missing"),
        ({"prompt": "p", "label": True}, "completion", "is missing"),
        ({"completion": "c", "label": True}, "prompt", "is missing"),
        ({"prompt": "p", "completion": "c", "label": "maybe"}, "label", "is 'maybe', not one of true, false"),
        ({"prompt": "p", "completion": "c", "label": 2}, "label", "is 2 (int), not one of true"),
        ({"prompt": "p", "completion": "c", "response": "c", "label": 1}, "response", "is given twice"),
        (ROW | {"completion": "c", "label": 1}, "", "could be a pair (chosen, rejected) as well as a labelled"),
        (ROW | {"criterion": 3}, "criterion", "is 3 (int), not text"),
        (ROW | {"id": ["a"]}, "id", "is ['a'], neither text nor a number"),
        (ROW | {"metadata": "{broken"}, "metadata", "looks like a JSON object, but is not"),
        (ROW | {"metadata": {"a": 1}, "a": 2}, "metadata", "has 'a', which is also a column"),
        (ROW | {"id": "first"}, "id", "is 'first', which row 1 already has"),
        (
            {"prompt": "p", "note": "n"},
            "",
            "is not a preference: it has values for prompt, note; expected prompt, chosen",
        ),
        ({}, "", "is not a preference: it has values for no column"),
    ],
)
def test_a_bad_row_is_reported_with_its_number_field_and_fault(row, field, message):
    # The first and third rows are good, so that neither is all of the data unreadable nor the number that of the end.
    rows = [ROW | {"id": "first"}, row, ROW, {"prompt": "p", "completion": "c", "label": 1}]
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(rows)
    (problem,) = caught.value.problems
    assert (problem.source, problem.row, problem.field) == ("data", 2, field)
    assert problem.message.startswith(message)
    assert str(problem) in str(caught.value)
    assert [example.id for example in caught.value.good] == ["first", "row 3", "row 4"]


def test_broken_json_on_a_line_is_a_problem_of_that_line(tmp_path):
    lines = [json.dumps(ROW).encode(), b'{"prompt": "p"', b"\xff", b"[1]", json.dumps(ROW).encode()]
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(file(tmp_path, "x.jsonl", b"\n".join(lines)))
    assert [problem.row for problem in caught.value.problems] == [2, 3, 4]
    kinds = [problem.message.split(":")[0] for problem in caught.value.problems]
    assert kinds == ["is not JSON", "is not JSON", "is a list, not named fields"]
    assert [pair.id for pair in caught.value.good] == ["x.jsonl:1", "x.jsonl:5"]


def test_a_row_with_too_many_or_too_few_cells_keeps_its_number(tmp_path):
    text = 'prompt,chosen,rejected\np,c,r\n\np,c,r,?\n"p\nq",c,r\np,c\np,c,r\n'
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(file(tmp_path, "x.csv", text))
    described = [(problem.row, problem.message) for problem in caught.value.problems]
    assert described == [
        (2, "has 4 cells, but the header has 3: 'p,c,r,?'"),
        (4, "has 2 cells, but the header has 3: 'p,c'"),
    ]
    assert [pair.id for pair in caught.value.good] == ["x.csv:1", "x.csv:3", "x.csv:5"]


@pytest.mark.parametrize("cell", ['[{"role": "user"', "[{'role': 'user', 'content': 'hi'}]"])
def test_messages_in_a_csv_that_are_not_json_are_a_problem(tmp_path, cell):
    pd.DataFrame([ROW, ROW | {"chosen": cell}]).to_csv(tmp_path / "x.csv", index=False)
    problem = problem_of(tmp_path / "x.csv")
    assert (problem.row, problem.field) == (2, "chosen")
    assert problem.message.startswith("looks like a list of messages, but is not JSON")


def test_all_problems_are_counted_and_the_first_twenty_listed():
    rows = [ROW | {"chosen": ""}] * 25 + [ROW] * 3
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(rows)
    lines = str(caught.value).splitlines()
    assert lines[0] == "25 of 28 rows could not be read"
    assert lines[1] == "  data, row 1, field chosen: is missing"
    assert lines[20:] == [
        "  data, row 20, field chosen: is missing", "  and 5 more", "Pass on_error='skip' to leave these rows out",
    ]  # fmt: skip
    assert (len(caught.value.problems), len(caught.value.good)) == (25, 3)


def test_the_error_survives_a_pickle():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences([ROW, {}])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.problems, again.good, str(again)) == (caught.value.problems, caught.value.good, str(caught.value))


def test_on_request_bad_rows_are_a_warning_and_the_good_ones_come_back():
    with pytest.warns(
        PreferenceDataWarning, match="1 of 3 rows could not be read\n  data, row 2, field chosen"
    ) as caught:
        good = read_preferences([ROW, ROW | {"chosen": ""}, ROW], on_error="skip")
    assert len(caught) == 1 and "on_error" not in str(caught[0].message)
    assert [pair.id for pair in good] == ["row 1", "row 3"]


def test_rows_can_be_left_out_if_there_are_others():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences([ROW | {"chosen": ""}] * 2)
    assert "on_error" not in str(caught.value)


# What can be wrong with a source


def test_columns_that_make_no_preference_are_one_problem_that_lists_them():
    problem = problem_of([{"question": "p", "answer": "a"}] * 3)
    assert problem.row is None
    assert problem.message.startswith("has the columns question, answer; expected prompt, chosen, rejected")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", "", "holds no rows"),
        ("x.jsonl", "\n \n", "holds no rows"),
        ("x.json", "[]", "holds no rows"),
        ("x.csv", "", "holds no rows"),
        ("x.csv", "prompt,chosen,rejected\n", "holds no rows"),
        ("x.parquet", "", "holds no rows"),
        ("x.json", '{"a": 1}\n{"a": 2}', "is not JSON: Extra data.*one record per line, name it .jsonl"),
        ("x.json", '[{"a": 1', "is not JSON: Expecting"),
        ("x.json", '{"train": 1}', "should hold a list of records, but is of type dict with the keys train"),
        ("x.json", "3", "should hold a list of records, but is of type int"),
        ("x.json", b"[\xff]", "is not JSON: 'utf-8' codec"),
        (
            "x.csv",
            b"prompt,chosen,rejected\np,\xff,r\n",
            "is damaged: line 2 is not text in UTF-8: it has the byte 0xff",
        ),
        ("x.csv", "prompt,chosen,prompt\na,b,c\n", "two columns are named 'prompt'"),
        ("x.csv", 'prompt,chosen,rejected\np,c,"r\np,c,r\n', "is damaged: row 1 opens a quote that is never closed"),
        ("x.parquet", "no parquet", "is damaged"),
        ("x.jsonl.gz", "no gzip", "is damaged"),
        ("x.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_why(tmp_path, name, data, message):
    with pytest.raises(PreferenceDataError, match=f"^{name}: {message}") as caught:
        read_preferences(file(tmp_path, name, data))
    assert caught.value.problems[0].row is None
    with pytest.raises(PreferenceDataError):  # not a row that could be left out
        read_preferences(tmp_path / name, on_error="skip")


def test_a_missing_file_a_folder_and_an_unknown_extension_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        read_preferences(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is a folder"):
        read_preferences(tmp_path)
    with pytest.raises(
        ValueError, match=r"extension '.txt' cannot be read, only .jsonl, .json, .csv, .tsv, .parquet, each"
    ):
        read_preferences(file(tmp_path, "x.txt", "p"))


def test_a_data_frame_with_two_columns_of_one_name_is_refused():
    frame = pd.DataFrame([["p", "c", "r", "q"]], columns=["prompt", "chosen", "rejected", "prompt"])
    assert problem_of(frame).message == "two columns are named 'prompt'"


def test_no_rows_at_all_are_an_error():
    assert problem_of([]).message == "holds no rows"


def test_rows_that_contradict_each_other_are_named_and_kept():
    rows = [
        {"text": "fine", "label": True},
        {"text": "bad", "label": False},
        {"text": " fine\n", "label": False},
        {"text": "bad", "label": False},  # said twice
    ]
    with pytest.warns(PreferenceDataWarning, match="1 of 4 preferences contradict.*: row 3 contradicts row 1$"):
        assert len(read_preferences(rows)) == 4


def test_pairs_in_both_orders_contradict_each_other_unless_the_criterion_differs(recwarn):
    turned = {"prompt": "p", "chosen": "r", "rejected": "c"}
    with pytest.warns(PreferenceDataWarning, match="row 2 contradicts row 1"):
        read_preferences([ROW, turned])
    recwarn.clear()
    read_preferences([{**ROW, "criterion": "brief"}, {**turned, "criterion": "polite"}, {**turned, "prompt": "q"}])
    assert not recwarn.list


def test_of_many_contradictions_the_first_are_named():
    rows = [{"text": f"text {number % 9}", "label": number < 9} for number in range(18)]
    with pytest.warns(PreferenceDataWarning, match="9 of 18 .*row 10 contradicts row 1, .*row 14.*, and 4 more$"):
        read_preferences(rows)


@pytest.mark.parametrize("columns", [None, {"response": "answer"}])
def test_a_blank_response_is_missing_and_not_the_text_of_another_column(columns):
    name = "answer" if columns else "response"
    rows = [
        {"prompt": "p", name: "r", "text": "a passage", "label": 1},
        {"prompt": "q", name: None, "text": "another passage", "label": 0},
    ]
    for some in (rows, [rows[0], {key: cell for key, cell in rows[1].items() if key != name}]):
        problem = problem_of(some, columns=columns)
        assert problem.row == 2 and "is missing" in problem.message
        with pytest.raises(PreferenceDataError, match=r"row 2.*is missing"):
            read_responses(some, columns=columns)
    with pytest.warns(PreferenceDataWarning):
        (one,) = read_preferences(rows, columns=columns, on_error="skip")
    assert one.response == "r" and one.metadata == {"text": "a passage"}
