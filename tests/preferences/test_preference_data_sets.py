"""Reading what people really publish."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from arm_lens.preferences import PreferenceDataError, labelled, read_preferences, split_preferences

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published data sets are not at {DATA}")

HH = DATA / "hh-rlhf" / "test.jsonl.gz"
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@pytest.fixture(scope="module")
def hh():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(HH)
    return caught.value


def test_hh_rlhf_is_read_but_for_four_rows_whose_chosen_answer_is_empty(hh):
    assert [(problem.row, problem.field) for problem in hh.problems] == [(n, "chosen") for n in (87, 517, 926, 1104)]
    assert len(hh.good) == 2308
    rows = gzip.decompress(HH.read_bytes()).decode().split("\n")
    assert all(
        json.loads(rows[problem.row - 1])["chosen"].rstrip().endswith("\n\nAssistant:") for problem in hh.problems
    )


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


def test_hh_rlhf_is_split_exactly_although_some_prompts_occur_twice(hh):
    prompts = Counter(json.dumps(pair.prompt) for pair in hh.good)
    assert max(prompts.values()) == 2
    parts = split_preferences(labelled(hh.good), {"shots": 128, "validation": 256, "test": 2000}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"shots": 128, "validation": 256, "test": 2000}
    assert all(sum(example.label for example in part) * 2 == len(part) for part in parts.values())
    seen = [{json.dumps(example.prompt) for example in part} for part in parts.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))


@pytest.mark.parametrize(
    ("subset", "n"),
    [
        ("Natural", 100),
        ("Adversarial/Neighbor", 134),
        ("Adversarial/GPTInst", 92),
        ("Adversarial/GPTOut", 47),
        ("Adversarial/Manual", 46),
    ],
)
def test_every_row_of_llmbar_makes_a_pair(subset, n):
    records = json.loads((DATA / "llmbar" / subset / "dataset.json").read_text())
    rows = [
        {
            "prompt": record["input"],
            "chosen": record[f"output_{record['label']}"],
            "rejected": record[f"output_{3 - record['label']}"],
            "subset": subset,
        }
        for record in records
    ]
    pairs = read_preferences(rows, criterion="follows the instruction")
    assert len(pairs) == n
    assert all(pair.metadata == {"subset": subset} for pair in pairs)
    assert [pair.chosen for pair in pairs] == [row["chosen"] for row in rows]


def test_the_csv_of_xstest_is_read_with_its_own_column_names():
    path = DATA / "xstest" / "xstest_v2_completions_gpt4.csv"
    examples = read_preferences(path, columns={"label": "agreement"}, criterion="annotators agree")
    assert Counter(example.label for example in examples) == {True: 443, False: 7}
    assert examples[0].id == "v2-1"
    assert set(examples[0].metadata) == {"type", "annotation_1", "annotation_2", "final_label"}
    assert any("\n" in example.response for example in examples)
