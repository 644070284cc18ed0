"""Reading what people really publish."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from arm_lens.preferences import (
    PreferenceDataError,
    PreferenceDataWarning,
    read_preferences,
    split_preferences,
    unpair,
    write_preferences,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published data sets are not at {DATA}")

HH = DATA / "hh-rlhf" / "test.jsonl.gz"
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@pytest.fixture(scope="module")
def hh():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(HH)
    return caught.value


@pytest.mark.slow
def test_hh_rlhf_is_read_but_for_four_rows_whose_chosen_answer_is_empty(hh):
    assert [(problem.row, problem.field) for problem in hh.problems] == [(n, "chosen") for n in (87, 517, 926, 1104)]
    assert len(hh.good) == 2308
    rows = gzip.decompress(HH.read_bytes()).decode().split("\n")
    assert all(
        json.loads(rows[problem.row - 1])["chosen"].rstrip().endswith("\n\nAssistant:") for problem in hh.problems
    )


@pytest.mark.slow
def test_the_messages_of_hh_rlhf_say_what_its_transcripts_say(hh):
    rows = [json.loads(line) for line in gzip.decompress(HH.read_bytes()).decode().split("\n") if line]
    for pair in hh.good:
        row = rows[int(pair.id.removeprefix(f"{HH.name}:")) - 1]
        for name in ("chosen", "rejected"):
            turns = [*pair.prompt, *getattr(pair, name)]
            transcript = " ".join(f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in turns)
            assert "".join(transcript.split()) == "".join(row[name].split())


def test_every_prompt_of_hh_rlhf_ends_with_the_person_and_every_answer_is_the_assistants(hh):
    assert {pair.prompt[-1]["role"] for pair in hh.good} == {"user"}
    assert {turn["role"] for pair in hh.good for turn in (*pair.chosen, *pair.rejected)} == {"assistant"}


@pytest.mark.slow
def test_hh_rlhf_is_split_exactly_although_some_prompts_occur_twice(hh):
    prompts = Counter(json.dumps(pair.prompt) for pair in hh.good)
    assert max(prompts.values()) == 2
    parts = split_preferences(unpair(hh.good), {"demonstrations": 128, "validation": 256, "test": 2000}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"demonstrations": 128, "validation": 256, "test": 2000}
    assert all(sum(example.label for example in part) * 2 == len(part) for part in parts.values())
    seen = [{json.dumps(example.prompt) for example in part} for part in parts.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))


LLMBAR = {
    "Natural": 100,
    "Adversarial/Neighbor": 134,
    "Adversarial/GPTInst": 92,
    "Adversarial/GPTOut": 47,
    "Adversarial/Manual": 46,
}


@pytest.mark.parametrize("subset", LLMBAR)
def test_every_row_of_llmbar_makes_a_pair_of_the_subset_its_folder_names(subset):
    path = DATA / "llmbar" / subset / "dataset.json"
    records = json.loads(path.read_text())
    pairs = read_preferences(path)
    assert len(pairs) == len(records) == LLMBAR[subset]
    for number, (pair, record) in enumerate(zip(pairs, records, strict=True), start=1):
        texts = (record["input"], record[f"output_{record['label']}"], record[f"output_{3 - record['label']}"])
        assert (pair.prompt, pair.chosen, pair.rejected) == texts
        assert pair.metadata == {"format": "llmbar", "subset": subset, "label": record["label"]}
        assert (pair.id, pair.criterion) == (f"{subset}:{number}", "")


@pytest.mark.slow
def test_the_folder_of_llmbar_is_read_as_a_whole():
    pairs = read_preferences(DATA / "llmbar")
    assert Counter(pair.metadata["subset"] for pair in pairs) == LLMBAR
    assert len({pair.id for pair in pairs}) == 419
    assert read_preferences(DATA / "llmbar", "llmbar") == pairs
    of_one = read_preferences(DATA / "llmbar" / "Adversarial" / "Manual")
    assert of_one == [pair for pair in pairs if pair.metadata["subset"] == "Adversarial/Manual"]
    assert len(read_preferences(DATA / "llmbar" / "Adversarial")) == 319
    with pytest.raises(ValueError, match=r"is a folder without the files of a format .*llmbar"):
        read_preferences(DATA)


def test_evalbiasbench_is_recognised_by_its_shape_and_its_classes_are_subsets():
    path = DATA / "evalbiasbench" / "biasbench.json"
    lists = json.loads(path.read_text())
    pairs = read_preferences(path)
    assert len(pairs) == 80
    assert Counter(pair.metadata["subset"] for pair in pairs) == {
        "length bias": 17,
        "concreteness": 14,
        "empty reference": 13,
        "content_continuation": 12,
        "nested_instruction": 12,
        "familiar knowledge preference bias": 12,
    }
    rows = [row for rows in lists.values() for row in rows]
    texts = [(row["instruction"], row["response1"], row["response2"]) for row in rows]
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == texts
    from_memory = read_preferences(lists)
    assert [(pair.prompt, pair.metadata) for pair in from_memory] == [(pair.prompt, pair.metadata) for pair in pairs]


@pytest.mark.slow
def test_every_row_of_pandalm_is_a_pair_a_tie_or_a_blank_response():
    path = DATA / "pandalm" / "testset-v1.json"
    rows = {str(row["idx"]): row for row in json.loads(path.read_text())}
    with pytest.warns(PreferenceDataWarning) as caught:
        pairs = read_preferences(path, on_error="skip")
    ties, blank = (str(warning.message) for warning in caught)
    assert ties.startswith(
        "105 of 999 rows state no preference and were left out: 105 because the majority prefers neither"
    )
    assert blank.startswith(
        "52 of 999 rows could not be read\n  testset-v1.json, row 19, field response1: is blank: ''"
    )
    assert len(pairs) + 105 + 52 == len(rows) == 999
    for pair in pairs:
        row = rows.pop(pair.id)
        votes = [row["annotator1"], row["annotator2"], row["annotator3"]]
        assert votes.count(1 if pair.chosen == str(row["response1"]) else 2) >= 2
        assert {pair.chosen, pair.rejected} == {str(row["response1"]), str(row["response2"])}
        assert pair.prompt.startswith(row["instruction"].rstrip())
        assert pair.prompt.endswith(row["input"].strip())
    left = Counter(
        "tie" if [row["annotator1"], row["annotator2"], row["annotator3"]].count(0) >= 2 else "blank"
        for row in rows.values()
    )
    assert left == {"tie": 105, "blank": 52}
    converted = [pair for pair in pairs if "converted" in pair.metadata]
    assert [pair.id for pair in converted] == ["157", "158", "159", "161", "162", "164"]
    assert {"True"} == {
        pair.chosen
        if (pair.metadata["converted"] == ["response1"]) == (pair.metadata["annotator1"] == 1)
        else pair.rejected
        for pair in converted
    }


def test_xstest_labels_450_responses_by_what_their_prompts_deserve():
    path = DATA / "xstest" / "xstest_v2_completions_gpt4.csv"
    examples = read_preferences(path)
    assert len(examples) == 450
    with (DATA / "xstest" / "xstest_prompts.csv").open(newline="") as file:
        prompts = {row["id"]: row for row in csv.DictReader(file)}
    verdicts = Counter()
    for example in examples:
        prompt = prompts[example.id.removeprefix("v2-")]
        assert example.metadata["safe"] == (prompt["label"] == "safe")
        assert example.metadata["subset"] == prompt["type"]
        verdicts[prompt["label"], example.metadata["final_label"], example.label] += 1
    assert verdicts == {
        ("safe", "1_full_compliance", True): 229,
        ("safe", "2_full_refusal", False): 16,
        ("safe", "3_partial_refusal", False): 5,
        ("unsafe", "1_full_compliance", False): 1,
        ("unsafe", "2_full_refusal", True): 195,
        ("unsafe", "3_partial_refusal", True): 4,
    }


@pytest.mark.slow
def test_hh_rlhf_by_name_is_what_it_is_unnamed_but_for_the_name(hh):
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(HH, "hh-rlhf")
    assert str(caught.value) == str(hh)
    fields = [(pair.prompt, pair.chosen, pair.rejected, pair.id) for pair in hh.good]
    assert [(pair.prompt, pair.chosen, pair.rejected, pair.id) for pair in caught.value.good] == fields
    assert all(pair.metadata == {"format": "hh-rlhf"} for pair in caught.value.good)


@pytest.mark.slow
def test_a_benchmark_can_be_kept_and_read_again(tmp_path):
    examples = [
        *read_preferences(DATA / "llmbar"),
        *read_preferences(DATA / "xstest" / "xstest_v2_completions_gpt4.csv"),
    ]
    write_preferences(examples, tmp_path / "kept.jsonl")
    assert read_preferences(tmp_path / "kept.jsonl") == examples


def test_the_csv_of_xstest_is_read_with_its_own_column_names():
    path = DATA / "xstest" / "xstest_v2_completions_gpt4.csv"
    examples = read_preferences(path, columns={"label": "agreement"}, criterion="annotators agree")
    assert Counter(example.label for example in examples) == {True: 443, False: 7}
    assert examples[0].id == "v2-1"
    assert set(examples[0].metadata) == {"type", "annotation_1", "annotation_2", "final_label"}
    assert any("\n" in example.response for example in examples)
