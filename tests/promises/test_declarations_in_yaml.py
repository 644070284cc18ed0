"""What a configuration declares of its data means what it means in `read_preferences`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml

from arm_lens.benchmark import BenchmarkConfigError, read_config
from arm_lens.benchmark.data import plan
from arm_lens.preferences import PreferenceDataError, read_preferences
from arm_lens.preferences.images import images_in

TWEETS = [{"text": f"Tweet number {n}.", "mood": ("joy", "anger", "fear")[n % 3]} for n in range(60)]
PAIRS = [
    {"q": f"Question {n}?", "response_A": f"good {n}", "response_B": f"bad {n}", "who": "A>B"}
    if n % 2
    else {"q": f"Question {n}?", "response_A": f"bad {n}", "response_B": f"good {n}", "who": "B>A"}
    for n in range(40)
]


def config(folder: Path, text: str):
    for name, rows in (("tweets.jsonl", TWEETS), ("pairs.jsonl", PAIRS)):
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    (folder / "run.yaml").write_text(text)
    return read_config(folder / "run.yaml")


HEAD = "judges: [length]\nlead: length\nn_examples: [6]\nstudies:\n"
TEXTS = """
  - kind: preferences
    name: tweets
    path: tweets.jsonl
    pool: 20
    columns: {label: mood}
    labels: {joy: yes, anger: no, fear: drop}
"""
CHOICES = """
  - kind: preferences
    name: choices
    path: pairs.jsonl
    pool: 10
    columns: {prompt: q, response_a: response_A, response_b: response_B, winner: who}
    winner: {"A>B": A, "B>A": B}
"""
HACKING = """
  - kind: hacking
    path: pairs.jsonl
    pool: 10
    biases: [length]
    mappings: [standard]
    test_items: 4
    columns: {prompt: q, chosen: response_A, rejected: response_B, winner: who}
    winner: {"A>B": A, "B>A": B}
"""


def test_texts_with_declared_labels_are_examples_and_tests_the_right_way_round(tmp_path):
    (task,) = plan(config(tmp_path, HEAD + TEXTS))
    mood = {row["text"]: row["mood"] for row in TWEETS}
    tested = [item.example for item in task.test.items]
    assert len(tested) + 20 == 40  # those with fear are left out
    for one in [*tested, *task.examples]:
        assert one.prompt == "" and one.label == (mood[one.response] == "joy")
    assert not {one.response for one in task.examples} & {one.response for one in tested}
    assert sum(one.label for one in task.examples) == 3


@pytest.mark.parametrize("study", [CHOICES, HACKING])
def test_declared_winners_are_chosen(tmp_path, study):
    (task,) = plan(config(tmp_path, HEAD + study))
    assert all("good" in one.chosen and "bad" in one.rejected for one in task.examples if study is CHOICES)
    assert task.examples and task.test.items


def test_what_is_not_declared_is_refused_in_the_words_of_the_reader(tmp_path):
    settings = config(tmp_path, HEAD + CHOICES.replace('winner: {"A>B": A, "B>A": B}', ""))
    with pytest.raises(PreferenceDataError) as caught:
        plan(settings)
    with pytest.raises(PreferenceDataError) as expected:
        columns = {"prompt": "q", "response_a": "response_A", "response_b": "response_B", "winner": "who"}
        read_preferences(tmp_path / "pairs.jsonl", columns=columns)
    assert str(caught.value) == str(expected.value)
    assert "winner={" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"labels": {"joy": "maybe"}}, "labels maps 'joy' to 'maybe'"),
        ({"labels": "four"}, "neither a mapping nor a threshold"),
        ({"winner": {"A>B": "first"}}, "winner maps 'A>B' to 'first'"),
        ({"on_error": "warn"}, "raise.*skip"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_declarations_that_mean_nothing_are_refused_before_anything_runs(tmp_path, changed, reason):
    study = yaml.safe_load(TEXTS)[0] | changed
    with pytest.raises(BenchmarkConfigError, match=reason):
        config(tmp_path, yaml.safe_dump({**yaml.safe_load(HEAD + TEXTS), "studies": [study]}))


def test_images_may_be_read_from_elsewhere_if_the_configuration_says_so(tmp_path):
    (tmp_path / "data").mkdir()
    gif = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    (tmp_path / "a.gif").write_bytes(base64.b64decode(gif))
    rows = [{"image": "../a.gif", "text": f"text {n}", "label": n % 2} for n in range(40)]
    (tmp_path / "data" / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    study = "\n  - {kind: preferences, name: x, path: data/x.jsonl, pool: 10"
    with pytest.raises(PreferenceDataError, match="leads out of the folder"):
        plan(config(tmp_path, HEAD + study + "}\n"))
    (task,) = plan(config(tmp_path, HEAD + study + ", allow_any_path: true}\n"))
    assert {len(images_in(item.example.prompt)) for item in task.test.items} == {1}


def test_a_limit_and_positions_are_read(tmp_path):
    (tmp_path / "x.csv").write_text("".join(f"text {n},{'yes' if n % 2 else 'no'}\n" for n in range(100)))
    text = HEAD + "\n  - {kind: preferences, name: x, path: x.csv, pool: 10, columns: {text: 1, label: 2}, limit: 30}\n"
    (task,) = plan(config(tmp_path, text))
    assert len(task.test.items) == 20
    assert all(item.example.label == (int(item.example.response.split()[1]) % 2 == 1) for item in task.test.items)


def test_true_and_false_are_not_one_and_zero(tmp_path):
    rows = [{"text": f"text {n}", "label": bool(n % 2)} for n in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = HEAD + "\n  - {kind: preferences, name: x, path: x.jsonl, pool: 10, labels: {true: no, false: yes}}\n"
    (task,) = plan(config(tmp_path, text))
    assert all(item.example.label == (int(item.example.response.split()[1]) % 2 == 0) for item in task.test.items)
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row | {"label": int(row["label"])}) for row in rows))
    with pytest.raises(PreferenceDataError, match="values in the column 'label' that labels does not map"):
        plan(config(tmp_path, text))


def test_several_columns_are_metadata(tmp_path):
    rows = [{"prompt": f"p {n}", "chosen": "c", "rejected": "r", "label": 1, "best": n % 2} for n in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    study = "{kind: preferences, name: x, path: x.jsonl, pool: 10, columns: {metadata: [label, best]}}"
    (task,) = plan(config(tmp_path, HEAD + f"\n  - {study}\n"))
    assert all(item.example.metadata.keys() >= {"label", "best"} for item in task.test.items)
