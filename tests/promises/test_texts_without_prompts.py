"""Text classification is a use: texts with a label, and no prompt, or one prompt for all."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens.preferences import (
    LabelledResponse,
    OverlapError,
    OverlapWarning,
    PreferenceDataError,
    PreferencePair,
    check_overlap,
    clusters,
    find_overlap,
    read_preferences,
    split_preferences,
    unpair,
    write_preferences,
)
from arm_lens.preferences.overlap import known_among, text_digests

TWEETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tweets"


@pytest.mark.slow
@pytest.mark.skipif(not TWEETS.is_dir(), reason=f"the published tweets are not at {TWEETS}")
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("emotion", {"joy": True, "anger": False}),
        ("irony", {"ironic": True, "not ironic": False}),
        ("sentiment", {"positive": True, "negative": False}),
    ],
)
def test_tweets_are_read_by_one_line_the_right_way_round(name, labels):
    for part in ("train", "test"):
        path = TWEETS / f"{name}_{part}.jsonl"
        examples = read_preferences(path, labels=labels)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert [(one.response, one.label) for one in examples] == [(row["text"], labels[row["label"]]) for row in rows]
        assert {one.prompt for one in examples} == {""}
        with pytest.raises(PreferenceDataError, match="Pass labels="):
            read_preferences(path)
        parts = split_preferences(examples, {"pool": 100, "test": 200}, seed=0)
        assert {key: len(part) for key, part in parts.items()} == {"pool": 100, "test": 200}
        assert abs(sum(one.label for one in parts["pool"]) - 100 * sum(one.label for one in examples) / len(rows)) <= 1
        assert not {one.response for one in parts["pool"]} & {one.response for one in parts["test"]}


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "Is this text glad?"])
@settings(max_examples=60, derandomize=True, deadline=None)
@given(texts=st.lists(st.integers(0, 12), min_size=4, max_size=40), seed=st.integers(0, 99))
def test_no_text_is_in_two_parts_if_prompts_are_absent_or_all_the_same(prompt, texts, seed):
    examples = [LabelledResponse(prompt, f"text {n}" + " " * (i % 2), n % 3 == 0) for i, n in enumerate(texts)]
    if len(set(texts)) < 2:
        return
    parts = split_preferences(examples, {"a": 0.5, "b": 0.5}, seed=seed)
    assert Counter(one for part in parts.values() for one in part) == Counter(examples)
    seen = [{one.response.strip() for one in part} for part in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_pairs_that_share_a_response_belong_together():
    pairs = [PreferencePair("", f"t {a}", f"t {b}") for a, b in ((1, 2), (3, 4), (2, 5), (6, 7), (4, 6))]
    first, second, third, fourth, fifth = clusters(pairs)
    assert first == third != second
    assert second == fourth == fifth
    several = [PreferencePair(f"q {n % 2}", "t 1", f"t {n + 2}") for n in range(4)]
    assert clusters(several) == ["q 0", "q 1", "q 0", "q 1"]


def test_only_rows_without_a_prompt_may_lack_one(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert [one.prompt for one in read_preferences(rows)] == ["", ""]
    assert [one.prompt for one in read_preferences([row | {"prompt": ""} for row in rows])] == ["", ""]
    with pytest.raises(PreferenceDataError, match="data, row 2, field prompt: is missing"):
        read_preferences([rows[0] | {"prompt": "p"}, rows[1]])
    with pytest.raises(PreferenceDataError, match="data, row 2, field prompt: is blank"):
        read_preferences([rows[0] | {"prompt": "p"}, rows[1] | {"prompt": " "}])


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_examples_without_prompts_are_written_and_read_again(tmp_path, name):
    examples = [LabelledResponse("", "a", True, id="1"), PreferencePair("", "b", "c", id="2")]
    write_preferences(examples, tmp_path / name)
    assert read_preferences(tmp_path / name) == examples
    assert [one.prompt for one in unpair(examples)] == ["", "", ""]
    with pytest.raises(ValueError, match="has a prompt and others have none"):
        write_preferences([*examples, LabelledResponse("p", "a", True, id="3")], tmp_path / name)


# Overlap of examples and test


def test_overlap_names_the_rows_of_both_sides_whatever_the_white_space():
    examples = [
        LabelledResponse("Who is  it?", "Ann.\n", True, id="e1"),
        LabelledResponse("Who is it?", "Bob.", False, id="e2"),
        PreferencePair("What?", "this", "that", id="e3"),
    ]
    test = [
        LabelledResponse("Who\tis it?", " Ann.", False, id="t1"),  # the same text, whatever its label
        LabelledResponse("Who was it?", "Bob.", False, id="t2"),  # another prompt
        LabelledResponse("What?", "that", True),
    ]
    found = find_overlap(examples, test)
    assert (found.examples, found.test) == (("e1", "e3"), ("t1", "test item 3"))
    with pytest.raises(
        OverlapError, match=r"2 of the test's responses .* t1, test item 3 in the test, e1, e3 in the ex"
    ):
        check_overlap(examples, test)
    with pytest.warns(OverlapWarning, match="t1, test item 3"):
        assert check_overlap(examples, test, on_overlap="warn") == found
    assert not check_overlap(examples[1:2], test)


def test_accents_that_are_written_in_two_ways_are_one_text():
    composed, divided = (unicodedata.normalize(form, "Où est le café\u00a0?") for form in ("NFC", "NFD"))
    assert composed != divided
    examples, test = ([LabelledResponse(text, text, True, id=text)] for text in (composed, divided))
    assert find_overlap(examples, test).test == (divided,)
    assert len(set(clusters([*examples, *test]))) == 1
    assert known_among(test, text_digests(examples)) == (divided,)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    sides=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8), min_size=2, max_size=2),
)
def test_overlap_is_what_the_definition_says(sides):
    examples, test = (
        [LabelledResponse(f"p {p}", f"r {r}", True, id=f"{side} {n}") for n, (p, r) in enumerate(pairs)]
        for side, pairs in enumerate(sides)
    )
    are_lone = [len(side) > 1 and len({p for p, _ in side}) == 1 for side in sides]

    def overlap(pair: tuple[int, int], others: list[tuple[int, int]]) -> bool:
        return pair in others or (all(are_lone) and pair[1] in {r for _, r in others})

    found = find_overlap(examples, test)
    assert set(found.examples) == {f"0 {n}" for n, pair in enumerate(sides[0]) if overlap(pair, sides[1])}
    assert set(found.test) == {f"1 {n}" for n, pair in enumerate(sides[1]) if overlap(pair, sides[0])}


@pytest.mark.parametrize(
    ("first", "second"), [("", "Is it glad?"), ("Is it glad?", ""), ("Is it glad?", "Glad or sad?")]
)
def test_classified_texts_are_recognised_under_another_prompt_for_all(first, second):
    examples, test = (
        [LabelledResponse(prompt, f"Text {n}.", n % 2 == 0, id=f"{n}") for n in numbers]
        for prompt, numbers in ((first, range(4)), (second, range(3, 7)))
    )
    assert find_overlap(examples, test).test == known_among(test, text_digests(examples)) == ("3",)
    with pytest.raises(OverlapError, match=r"3 in the test, 3 in the examples"):
        check_overlap(examples, test)
    if not (first and second):  # a part of the data that has the prompt does not give away the other
        assert clusters([*examples, *test])[3] == clusters([*examples, *test])[4]
    if first:  # prompts differ: answers, not texts
        assert not find_overlap([*examples, LabelledResponse("Is it blue?", "Text 9.", True)], test)
