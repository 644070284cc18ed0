"""Labels mean what their owner says: declared in one way, and never turned round or made metadata silently."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from arm_lens.preferences import (
    PreferenceDataError,
    PreferenceDataWarning,
    TiedPair,
    known_formats,
    read_preferences,
    read_responses,
    split_preferences,
    unpair,
    write_preferences,
)

COLUMNS = {"prompt": "q", "response_a": "left", "response_b": "right", "winner": "who"}
AS_PAIRS = {"prompt": "q", "chosen": "left", "rejected": "right", "winner": "who"}


def compared(*winners):
    return [{"q": f"q {n}", "left": f"left {n}", "right": f"right {n}", "who": who} for n, who in enumerate(winners)]


def error_of(source, **options):
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("columns", [COLUMNS, AS_PAIRS])
@pytest.mark.parametrize(
    ("winner", "values"),
    [
        ({"A>B": "A", "B>A": "B", "A=B": "tie"}, ("A>B", "B>A", "A=B")),
        ({0: "A", 1: "B", 2: "tie"}, (0, 1, 2)),
        ({0: "A", 1: "B", 2: "tie"}, ("0", "1", "2")),
        ({"1": "B", "0": "A", "2": "tie"}, (0.0, 1.0, 2.0)),
        ({"first": "a", "second": "b", "neither": "TIE"}, ("first", "second", "neither")),
        (None, ("A", "B", "tie")),
        (None, ("left", "right", "tie")),
        ({True: "A", False: "B", "": "tie", "None": "tie"}, (True, False, None)),
    ],
)
def test_the_declared_winner_is_the_chosen_response(columns, winner, values):
    rows = compared(*values)
    if values[2] is None:
        rows, expected = rows[:2], "left right"
    else:
        expected = "left right tie"
    examples = read_preferences(rows, columns=columns, winner=winner, ties="keep")
    found = ["tie" if isinstance(one, TiedPair) else one.chosen.split()[0] for one in examples]
    assert " ".join(found) == expected
    assert all("who" not in one.metadata and "label" not in one.metadata for one in examples)


@pytest.mark.parametrize("form", (COLUMNS, AS_PAIRS))
@pytest.mark.parametrize("name", ("label", "winner", "preference", "Preferred"))
def test_a_column_that_looks_like_a_winner_and_is_not_mapped_is_an_error_with_its_values_and_the_option(form, name):
    rows = [{name if key == "who" else key: cell for key, cell in row.items()} for row in compared("A>B", "B>A", "A>B")]
    columns = {ours: theirs for ours, theirs in form.items() if theirs != "who"}
    message = error_of(rows, columns=columns)
    assert "'A>B' (2), 'B>A' (1)" in message
    assert "winner={'A>B': 'A', 'B>A': 'B'}" in message
    if form is AS_PAIRS:
        assert f"column {name!r} that looks as if it said which response won" in message or name == "winner"
        assert name == "winner" or (f"'winner': {name!r}" in message and "where A is left and B is right" in message)


def test_values_alone_give_a_winner_away_and_following_the_message_reads_it_the_right_way_round():
    rows = compared("A>B", "B>A")
    columns = {ours: theirs for ours, theirs in AS_PAIRS.items() if theirs != "who"}
    message = error_of(rows, columns=columns)
    option = message[message.index("winner={") + len("winner=") : message.index(", where A")]
    first, second = read_preferences(rows, columns=columns | {"winner": "who"}, winner=eval(option))
    assert (first.chosen, second.chosen) == ("left 0", "right 1")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("preference_strength", (-2, 2, 1)),  # HelpSteer2
        ("safer_response_id", (0, 1, 0)),  # PKU-SafeRLHF
        ("a_wins", (True, False, True)),
        ("isBetterFirst", ("yes", "no", "yes")),
        ("preference_score", tuple(n / 97 for n in range(40))),
        ("gold", ("1", "2", "1")),
        ("annotation", ("A>B", "B>A", "A=B")),
    ],
)
def test_columns_that_say_who_won_by_a_word_of_their_name_are_errors_whatever_else_a_row_has(name, values):
    for extra in ({}, {"response": "left"}, {"text": "left"}):
        rows = [
            {"prompt": f"q {n}", "chosen": "a", "rejected": "b", name: value, **extra} for n, value in enumerate(values)
        ]
        message = error_of(rows)
        assert f"has a column {name!r} that looks as if it said which response won" in message
        assert read_preferences(rows, columns={"metadata": name})[0].metadata == {name: values[0], **extra}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("subset", ("a", "b", "a")),
        ("group_id", ("A", "B", "A")),
        ("preference_statement", ("The first response is better because it is correct, and it is short too.",) * 3),
        ("all_preferences", ([1], [2], [3])),
        ("chosen_score", (1.5, 2.5, 3.5)),
        ("labelling_model", ("gpt-4", "gpt-4", "gpt-4")),
    ],
)
def test_columns_that_say_something_else_are_metadata(name, values):
    rows = [{"prompt": f"q {n}", "chosen": "a", "rejected": "b", name: value} for n, value in enumerate(values)]
    assert [pair.metadata for pair in read_preferences(rows)] == [{name: value} for value in values]


def test_a_pair_without_a_winner_is_no_win_of_the_first():
    rows = compared("A", None, "B", "")
    for columns in (AS_PAIRS, COLUMNS):
        message = error_of(rows, columns=columns)
        assert "row 2, field who: is missing" in message and "row 4, field who: is missing" in message
    unnamed = [{"prompt": "q", "chosen": "a", "rejected": f"b {n}", "winner": w} for n, w in enumerate(("A", None))]
    assert "row 2, field winner: is missing" in error_of(unnamed)


def one_hot(*winners):
    marks = ({name: int(name == f"winner_{who}") for name in OUTCOMES} for who in winners)
    return [{"prompt": f"q {n}", "response_a": "left", "response_b": "right", **one} for n, one in enumerate(marks)]


OUTCOMES = {"winner_model_a": "A", "winner_model_b": "B", "winner_tie": "tie"}


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_column_for_each_outcome_is_declared_by_their_names(tmp_path, name):
    frame, path = pd.DataFrame(one_hot("model_b", "model_a", "tie")), tmp_path / name
    if name == "x.jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path) if name == "x.parquet" else frame.to_csv(path, index=False)
    first, second, tie = read_preferences(path, winner=OUTCOMES, ties="keep")
    assert (first.chosen, second.chosen, tie.metadata) == ("right", "left", {})
    as_pairs = {"chosen": "response_a", "rejected": "response_b"}
    assert read_preferences(path, columns=as_pairs, winner=OUTCOMES, ties="keep") == [first, second, tie]
    for columns in ({}, as_pairs):
        message = error_of(path, columns=columns)
        assert f"winner={OUTCOMES}" in message
    # One of the columns alone would make the tie a win of B.
    columns = {"winner": "winner_model_a"}
    assert "'winner_tie' that looks as if it said which rows are ties" in error_of(
        path, columns=columns, winner={1: "A", 0: "B"}
    )


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ((1, 1, 0), "'winner_model_a, winner_model_b'"),
        ((0, 0, 0), "'none of them'"),
        ((0.5, 0.5, 0), "'winner_model_a=0.5'"),
    ],
)
def test_outcomes_of_which_not_one_is_true_are_refused(marks, said):
    row = one_hot("model_a")[0] | dict(zip(OUTCOMES, marks, strict=True))
    assert f"has values in the column 'winner' that winner does not map: {said}" in error_of([row], winner=OUTCOMES)


def test_whole_conversations_are_compared_as_pairs_of_them_are():
    ask = {"role": "user", "content": "q"}
    says = [[ask, {"role": "assistant", "content": text}] for text in ("left", "right")]
    rows = [{"conversation_a": says[0], "conversation_b": says[1], "winner": who} for who in ("model_a", "model_b")]
    rows.append({"conversation_a": says[0], "conversation_b": says[0], "winner": "tie (bothbad)"})
    winner = {"model_a": "A", "model_b": "B", "tie (bothbad)": "tie"}
    message = error_of(rows)
    assert "'response_a': 'conversation_a', 'response_b': 'conversation_b', 'winner': 'winner'" in message
    columns = {"response_a": "conversation_a", "response_b": "conversation_b"}
    first, second, tie = read_preferences(rows, columns=columns, winner=winner, ties="keep")
    assert (first.prompt, first.chosen, second.rejected) == ((ask,), tuple(says[0][1:]), tuple(says[0][1:]))
    assert second.chosen == tuple(says[1][1:]) and tie.response_a == tie.response_b == tuple(says[0][1:])
    assert read_preferences(
        rows[:2], columns={"chosen": "conversation_a", "rejected": "conversation_b"}, winner=winner
    ) == [
        first,
        second,
    ]


@pytest.mark.parametrize("name", ["Label", "label ", "TEXT", "Prompt"])
def test_columns_that_differ_only_in_case_are_not_chosen_from(name):
    rows = [{"prompt": "p", "text": "t", "label": 1, name: "x"}]
    for read in (read_preferences, read_responses):
        with pytest.raises(PreferenceDataError, match=f"has a column {name!r} as well as {name.strip().lower()!r}"):
            read(rows)
        read(rows, columns={"metadata": name})


def test_several_columns_can_be_declared_to_be_metadata():
    rows = [{"prompt": "p", "chosen": "c", "rejected": "r", "label": 1, "preference": "x", "metadata": "m", "id": 7}]
    assert "{..., 'metadata': ['label', 'preference']}" in error_of(rows, columns={"metadata": "label"})
    (pair,) = read_preferences(rows, columns={"metadata": ["label", "preference", "id"]})
    assert pair.metadata == {"label": 1, "preference": "x", "id": 7, "metadata (column)": "m"}
    assert pair.id == "row 1"
    with pytest.raises(PreferenceDataError, match="has no column 'labels', which columns maps 'metadata' to"):
        read_preferences(rows, columns={"metadata": ["label", "labels"]})
    with pytest.raises(ValueError, match="columns maps two of our names to 'label'"):
        read_preferences(rows, columns={"metadata": ["label"], "winner": "label"})


def test_such_a_column_can_be_declared_to_be_metadata():
    rows = [{"prompt": "p", "chosen": f"c {n}", "rejected": "r", "label": n} for n in range(3)]
    assert "looks as if it said which response won" in error_of(rows)
    pairs = read_preferences(rows, columns={"metadata": "label"})
    assert [pair.metadata for pair in pairs] == [{"label": 0}, {"label": 1}, {"label": 2}]
    other = [{"prompt": "p", "chosen": f"c {n}", "rejected": "r", "topic": "code"} for n in range(3)]
    assert read_preferences(other)[0].metadata == {"topic": "code"}


def test_exchanged_columns_are_refused_where_names_would_be_turned_round():
    rows = [{"prompt": "p", "response_A": "a", "response_B": "b", "winner": "A"}]
    columns = {"response_a": "response_B", "response_b": "response_A"}
    assert "columns exchanges them" in error_of(rows, columns=columns)
    columns = {"chosen": "response_B", "rejected": "response_A", "winner": "winner"}
    assert "columns exchanges them: map chosen to response_A" in error_of(rows, columns=columns)
    del columns["winner"]
    (pair,) = read_preferences(rows, columns=columns | {"metadata": "winner"})  # the second one is always better
    assert pair.chosen == "b"


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.tsv", "x.parquet"])
@pytest.mark.parametrize(
    ("labels", "values", "meanings"),
    [
        ({"joy": True, "anger": False}, ["joy", "anger", "joy"], [True, False, True]),
        ({"joy": "yes", "anger": "no", "fear": "drop"}, ["joy", "fear", "anger"], [True, False]),
        ({1: False, 0: True}, [1, 0, 1], [False, True, False]),
        (None, [True, False, True], [True, False, True]),
        (None, ["True", "FALSE", "yes"], [True, False, True]),
        (">= 4", [3, 4, 5], [False, True, True]),
        ("> 4", [3.5, 4, 4.5], [False, False, True]),
        ("<= -1", [-1, 0, -2], [True, False, True]),
        ("<4", ["3", "4.0", "5"], [True, False, False]),
        (None, [1.0, 0.0, 1.0], [True, False, True]),
        ({0: True, 1: False}, [0.0, 1.0, 0.0], [True, False, True]),
        ({True: False, False: True}, [True, False, True], [False, True, False]),
        ({"True": False, "False": True}, ["true", "FALSE", "True"], [False, True, False]),
    ],
)
def test_declared_labels_mean_the_same_in_every_file(tmp_path, name, labels, values, meanings):
    path, frame = tmp_path / name, pd.DataFrame({"text": [f"t {n}" for n in range(3)], "label": values})
    if name == "x.jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif name == "x.parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if name == "x.tsv" else ",")
    assert [one.label for one in read_preferences(path, labels=labels)] == meanings


def test_labels_that_nothing_declares_are_an_error_with_values_and_options_also_if_odd_rows_may_be_skipped():
    rows = [{"text": f"t {n}", "label": label} for n, label in enumerate(("joy", "anger", "joy", "fear"))]
    for on_error in ("raise", "skip"):
        message = error_of(rows, on_error=on_error)
        assert "'joy' (2), 'anger' (1), 'fear' (1)" in message
        assert "labels={'joy': ..., 'anger': ..., 'fear': ...}" in message
        assert "'fear' (1)" in error_of(rows, labels={"joy": True, "anger": False}, on_error=on_error)
    three = [{"text": f"t {n}", "label": n % 3} for n in range(6)]
    assert "'0' (2), '1' (2), '2' (2)" in error_of(three, on_error="skip")


def test_classes_of_a_data_set_are_labels_by_name_whatever_their_numbers(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["glad", "sad"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]}, features=features)
    data.to_parquet(tmp_path / "x.parquet")
    for source in (data, datasets.DatasetDict({"train": data}), tmp_path / "x.parquet"):
        split = "train" if isinstance(source, dict) else None
        assert "'glad' (2), 'sad' (1)" in error_of(source, split=split)
        read = read_preferences(source, split=split, labels={"glad": True, "sad": False})
        assert [one.label for one in read] == [True, False, True]
    assert [row["label"] for row in read_responses(tmp_path / "x.parquet").rows] == [0, 1, 0]  # as they were


def test_a_class_whose_name_is_a_number_is_not_yes_because_no_row_has_the_other(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["1", "2"])})
    data = datasets.Dataset.from_dict({"text": ["bad", "worse"], "label": [0, 0]}, features=features)  # stars of Yelp
    data.to_parquet(tmp_path / "x.parquet")
    for source in (data, tmp_path / "x.parquet"):
        message = error_of(source)
        assert "the classes '1', '2' in the column 'label', and nothing declares what they mean" in message
        assert "Pass labels={'1': ..., '2': ...} with True, False or 'drop' for each" in message
        assert [one.label for one in read_preferences(source, labels={"1": False})] == [False, False]


def test_two_of_three_classes_are_not_read_as_no_and_yes():
    rows = [{"prompt": "p", "response": f"t {n}", "label": n % 3} for n in range(60)]
    assert "threshold such as labels='>= 4'" in error_of(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {}}, "labels maps nothing"),
        ({"labels": {"joy": "maybe"}}, "labels maps 'joy' to 'maybe'; write True, False or 'drop'"),
        ({"labels": {"1": True, 1: False}}, "labels maps '1' twice"),
        ({"labels": "four"}, "neither a mapping nor a threshold such as '>= 4'"),
        ({"winner": {"A>B": "first"}}, "winner maps 'A>B' to 'first'; write 'A', 'B', 'tie' or 'drop'"),
        ({"labels": {"a": True}, "format": "llmbar"}, "those of 'llmbar' have fixed meanings"),
    ],
)
def test_declarations_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_preferences([{"text": "t", "label": 1}], **options)


@pytest.mark.parametrize("rating", ["inf", "1_0", float("inf"), "nan", "4 stars", "4,5", True])
def test_what_is_not_a_finite_number_is_not_compared_with_a_threshold(rating):
    assert "not a number that can be >= 4" in error_of([{"text": "t", "label": rating}], labels=">= 4")


def test_a_declaration_that_applies_to_nothing_is_refused():
    pairs = [{"prompt": "p", "chosen": "c", "rejected": "r"}]
    assert "has no labels" in error_of(pairs, labels={"joy": True})
    assert "has no column winner" in error_of(pairs, winner={"x": "A"})


def test_ties_are_left_out_counted_refused_or_returned_as_ties():
    rows = compared("A", "tie", "B")
    with pytest.warns(PreferenceDataWarning, match="1 of 3 rows state no preference and were left out"):
        assert len(read_preferences(rows, columns=COLUMNS)) == 2
    assert len(read_preferences(rows, columns=COLUMNS, ties="drop")) == 2
    assert "the winner is a tie" in error_of(rows, columns=COLUMNS, ties="raise")
    examples = read_preferences(rows, columns=COLUMNS, ties="keep")
    assert [type(one).__name__ for one in examples] == ["PreferencePair", "TiedPair", "PreferencePair"]
    with pytest.raises(
        ValueError, match="'row 2' is a tie, which states no preference: leave ties out with ties='drop'"
    ):
        unpair(iter(examples))
    with pytest.raises(ValueError, match="'row 2' is a tie"):
        split_preferences(iter(examples), {"a": 0.5, "b": 0.5}, seed=0)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv.gz", "x.parquet"])
def test_ties_are_written_and_read_again(tmp_path, name):
    examples = read_preferences(compared("A", "tie", "B"), columns=COLUMNS, ties="keep")
    write_preferences(examples, tmp_path / name)
    assert read_preferences(tmp_path / name, ties="keep") == examples


# Published formats with a fixed meaning


def judgebench(label):
    row = {"pair_id": "7", "original_id": "1", "source": "mmlu-pro-law", "question": "q", "response_model": "m"}
    return row | {"response_A": "first", "response_B": "second", "label": label}


def auto_j(label):
    return {"scenario": "planning", "label": label, "prompt": "q", "response 1": "first", "response 2": "second"}


def test_judgebench_and_auto_j_are_recognised_and_read_the_right_way_round(tmp_path):
    cases = [(judgebench, ("A>B", "B>A"), "mmlu-pro-law"), (auto_j, (0, 1), "planning")]
    for make, labels, subset in cases:
        for label, chosen in zip(labels, ("first", "second"), strict=True):
            (tmp_path / "x.jsonl").write_text(json.dumps(make(label)))
            pd.DataFrame([make(label)]).to_csv(tmp_path / "x.csv", index=False)
            for source in (tmp_path / "x.jsonl", tmp_path / "x.csv", [make(label)]):
                (pair,) = read_preferences(source)
                assert (pair.prompt, pair.chosen, pair.metadata["subset"]) == ("q", chosen, subset)
    assert read_preferences([judgebench("A>B")])[0].id == "7"
    assert error_of([judgebench("A")]).endswith("field label: is 'A', not one of A>B, B>A, A=B")
    own = {name: cell for name, cell in auto_j(1).items() if name != "scenario"}  # 1 may be the first response here
    assert "response 1 and response 2 look like two responses" in error_of([own])
    assert read_preferences([own], format="auto-j")[0].chosen == "second"
    assert error_of([auto_j(3)]).endswith("field label: is 3 (int), not one of 0, 1, 2")
    with pytest.warns(PreferenceDataWarning, match="the label is 2, a tie"):
        assert read_preferences([auto_j(2)]) == []
    (tie,) = read_preferences([auto_j(2)], ties="keep")
    assert (tie.response_a, tie.response_b) == ("first", "second")


@pytest.mark.parametrize(
    ("row", "format", "column"),
    [
        ({"instruction": "i", "input": "q", "output_1": "a", "output_2": "b", "label": 1}, "llmbar", "instruction"),
        (
            {"bias": "length", "instruction": "q", "response1": "a", "response2": "b", "winner": 2},
            "evalbiasbench",
            "winner",
        ),
        (auto_j(0) | {"better": 2}, "auto-j", "better"),
    ],
)
def test_the_columns_of_a_benchmark_beside_a_winner_or_another_prompt_are_not_taken_for_it(row, format, column):
    message = error_of([row])
    assert f"has the columns of {format}, and a column {column!r} that looks" in message
    assert f"Pass format={format!r} if it is {format}" in message
    assert read_preferences([row], format=format)[0].metadata[column] == row[column]


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.parquet"])
def test_rm_bench_is_recognised_by_its_three_styles_in_every_file(tmp_path, name):
    row = {"id": "3", "prompt": "q", "chosen": ["c1", "c2", "c3"], "rejected": ["r1", "r2", "r3"], "domain": "chat"}
    frame = pd.DataFrame([row])
    if name == "x.csv":
        frame.assign(**{side: frame[side].map(json.dumps) for side in ("chosen", "rejected")}).to_csv(
            tmp_path / name, index=False
        )
    else:
        frame.to_parquet(tmp_path / name) if name == "x.parquet" else (tmp_path / name).write_text(json.dumps([row]))
    pairs = read_preferences(tmp_path / name)
    assert [pair.id for pair in pairs] == [f"3/{i}-{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
    assert all(pair.chosen == f"c{pair.id[2]}" and pair.rejected == f"r{pair.id[4]}" for pair in pairs)
    levels = {pair.id[2:]: pair.metadata["level"] for pair in pairs}
    assert [levels[key] for key in ("1-1", "1-3", "3-1", "2-3")] == ["normal", "hard", "easy", "hard"]
    assert {pair.metadata["subset"] for pair in pairs} == {"chat"}


def test_m_rewardbench_keeps_languages_apart():
    base = {"id": 5, "prompt": "p", "chosen": "c", "rejected": "r", "chosen_model": "m", "rejected_model": "n"}
    rows = [base | {"language": language, "subset": "hep-cpp"} for language in ("arb_Arab", "deu_Latn")]
    pairs = read_preferences(rows)
    assert [pair.id for pair in pairs] == ["arb_Arab/hep-cpp/5", "deu_Latn/hep-cpp/5"]
    assert [pair.metadata["language"] for pair in pairs] == ["arb_Arab", "deu_Latn"]
    assert {pair.metadata["format"] for pair in pairs} == {"m-rewardbench"}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (
            {"instruction": "i", "answer_1": "a", "answer_2": "b", "better": "2"},
            "columns={'prompt': 'instruction', 'response_a': 'answer_1', 'response_b': 'answer_2', 'winner': 'better'}",
        ),
        ({"query": "i", "output a": "a", "output b": "b"}, "'response_a': 'output a', 'response_b': 'output b'"),
        ({"tweet": "hello", "mood": "glad"}, "tweet and mood look like texts with a label"),
        ({"query": "i", "good": "a", "bad": "b"}, "columns={'prompt': 'query', 'chosen': 'good', 'rejected': 'bad'}"),
    ],
)
def test_unknown_columns_are_said_to_be_what_they_look_like(row, found):
    rows = [row, {key: value[::-1] + "x" for key, value in row.items()}]
    message = error_of(rows)
    assert found in message
    assert all(name in message for name in known_formats() if name != "trl")


def test_what_a_declaration_leaves_out_is_said_apart_from_what_it_has():
    rows = [{"text": f"text {label} {n}", "label": label} for label in ("joy", "anger", "fear") for n in range(2)]
    found = "has values in the column 'label' that labels does not map: 'anger' (2), 'fear' (2), next to 'joy' (2)"
    assert found in error_of(rows, labels={"joy": True})


def test_ids_and_columns_with_another_value_in_each_row_are_not_taken_for_labels():
    rows = [{"id": f"00{n % 2}", "text": f"text {n}", "author": f"person {n}"} for n in range(6)]
    message = error_of(rows)
    assert "text looks like texts, but no column like their labels: pass columns={'label': ...}" in message
    marked = [row | {"mood": "glad" if n % 2 else "sad"} for n, row in enumerate(rows)]
    assert "columns={'label': 'mood'}, labels={'sad': ..., 'glad': ...}" in error_of(marked)
    plain = [{"tweet": row["text"], "label": n % 2} for n, row in enumerate(rows)]
    assert error_of(plain).endswith("tweet and label look like texts with a label: pass columns={'response': 'tweet'}")
