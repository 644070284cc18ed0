"""Published benchmarks, in files of our own making with their fields."""

from __future__ import annotations

import json
import sys
from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferenceDataWarning,
    PreferencePair,
    known_formats,
    read_preferences,
)
from arm_lens.preferences.formats import Format, recognise, register, registered
from arm_lens.preferences.formats.rewardbench import pair_id, split_pair_id

REWARDBENCH = {
    "prompt": "p",
    "chosen": "c",
    "chosen_model": "A",
    "rejected": "r",
    "rejected_model": "B",
    "subset": "hep-go",
    "id": 3,
}
REWARDBENCH_2 = {
    "id": "12",
    "prompt": "p",
    "chosen": ["c"],
    "rejected": ["r1", "r2", "r3"],
    "num_correct": 1,
    "total_completions": 4,
    "models": ["A", "B", "C", "D"],
    "subset": "Factuality",
}
LLMBAR = {"input": "p", "output_1": "a", "output_2": "b", "label": 2}
EVALBIASBENCH = {"bias": "length bias", "instruction": "p", "response1": "c", "response2": "r", "label": 1}
VOTES = {"annotator1": 2, "annotator2": 1, "annotator3": 2}
PANDALM = {
    "idx": 5,
    "instruction": "Do it.",
    "input": "This.",
    "response1": "a",
    "response2": "b",
    "cmp_key": "A_B",
} | VOTES
XSTEST = {"id": "v2-1", "type": "homonyms", "prompt": "p", "completion": "r", "final_label": "1_full_compliance"}
PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
VL_REWARDBENCH = {"id": "RLAIF-V-14", "query": "p", "response": ["c", "r"], "human_ranking": [0, 1], "image": PICTURE}
MULTIMODAL = {
    "ID": "7",
    "Category": "safety/bias",
    "Text": "p",
    "Image": PICTURE,
    "Output1": "a",
    "Output2": "b",
    "Better": "Output2",
}
HH = {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}
ROWS = {
    "trl": {"prompt": "p", "chosen": "c", "rejected": "r"},
    "hh-rlhf": HH,
    "rewardbench": REWARDBENCH,
    "rewardbench-2": REWARDBENCH_2,
    "llmbar": LLMBAR,
    "evalbiasbench": EVALBIASBENCH,
    "pandalm": PANDALM,
    "xstest": XSTEST,
    "multimodal-rewardbench": MULTIMODAL,
    "vl-rewardbench": VL_REWARDBENCH,
    "m-rewardbench": REWARDBENCH | {"language": "deu_Latn"},
    "rm-bench": {"id": "1", "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "math"},
    "judgebench": {"pair_id": "1", "question": "p", "response_A": "a", "response_B": "b", "label": "B>A"},
    "auto-j": {"scenario": "s", "prompt": "p", "response 1": "a", "response 2": "b", "label": 1},
}
BENCHMARKS = [name for name in ROWS if name not in ("trl", "hh-rlhf")]


def problem_of(row, *args, **options):
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences([row], *args, **options)
    (problem,) = caught.value.problems
    return problem


# What a row becomes


def test_a_row_of_rewardbench_is_a_pair_whose_id_is_of_its_subset():
    expected = PreferencePair(
        "p",
        "c",
        "r",
        id="hep-go/3",
        metadata={"format": "rewardbench", "subset": "hep-go", "chosen_model": "A", "rejected_model": "B"},
    )
    other = REWARDBENCH | {"subset": "hep-js"}
    assert read_preferences([REWARDBENCH, other])[0] == expected
    assert read_preferences([REWARDBENCH, other])[1].id == "hep-js/3"


def test_a_row_of_rewardbench_2_is_a_pair_for_every_chosen_and_rejected_answer():
    ties = REWARDBENCH_2 | {
        "id": "tied:3",
        "subset": "Ties",
        "chosen": ["x", "y"],
        "num_correct": 2,
        "total_completions": 5,
    }
    pairs = read_preferences([REWARDBENCH_2, ties])
    assert [(pair.chosen, pair.rejected) for pair in pairs[:3]] == [("c", "r1"), ("c", "r2"), ("c", "r3")]
    assert [pair.id for pair in pairs[:3]] == ["Factuality/12/1-1", "Factuality/12/1-2", "Factuality/12/1-3"]
    assert {(pair.chosen, pair.rejected) for pair in pairs[3:]} == {(c, r) for c in "xy" for r in ("r1", "r2", "r3")}
    assert {pair.metadata["item"] for pair in pairs[:3]} == {"Factuality/12"}
    assert {pair.metadata["item"] for pair in pairs[3:]} == {"Ties/tied:3"}
    assert pairs[0].metadata == {
        "format": "rewardbench-2",
        "subset": "Factuality",
        "item": "Factuality/12",
        "num_correct": 1,
        "total_completions": 4,
        "models": ["A", "B", "C", "D"],
    }
    for pair in pairs:
        item, chosen, rejected = split_pair_id(pair.id)
        assert item == pair.metadata["item"]
        row = ties if item == "Ties/tied:3" else REWARDBENCH_2
        assert (pair.chosen, pair.rejected) == (row["chosen"][chosen - 1], row["rejected"][rejected - 1])


def test_lists_in_a_parquet_file_are_answers(tmp_path):
    pd.DataFrame([REWARDBENCH_2]).to_parquet(tmp_path / "x.parquet")
    assert read_preferences(tmp_path / "x.parquet") == read_preferences([REWARDBENCH_2])


def test_a_prompt_of_rewardbench_2_with_a_faulty_answer_is_left_out_whole():
    faulty = REWARDBENCH_2 | {"id": "13", "rejected": ["r1", "", "r3"]}
    with pytest.raises(
        PreferenceDataError, match=r"^1 of 2 rows could not be read\n  data, row 2, field rejected\[2\]"
    ) as e:
        read_preferences([REWARDBENCH_2, faulty])
    assert [pair.metadata["item"] for pair in e.value.good] == ["Factuality/12"] * 3


@given(st.text(min_size=1), st.integers(1, 99), st.integers(1, 99))
def test_the_id_of_a_pair_tells_its_answers(item, chosen, rejected):
    assert split_pair_id(pair_id(item.replace("\n", " "), chosen, rejected)) == (
        item.replace("\n", " "),
        chosen,
        rejected,
    )


@pytest.mark.parametrize("label", [2, 2.0, "2"])
def test_a_row_of_llmbar_prefers_the_output_its_label_names(label):
    expected = PreferencePair("p", "b", "a", id="row 1", metadata={"format": "llmbar", "label": label})
    assert read_preferences([LLMBAR | {"label": label}]) == [expected]
    (pair,) = read_preferences([LLMBAR | {"label": 1, "subset": "Mine"}])
    assert (pair.chosen, pair.rejected, pair.metadata["subset"], pair.id) == ("a", "b", "Mine", "Mine:1")


def test_the_folders_of_llmbar_name_its_subsets_and_others_none(tmp_path):
    subsets = {"Natural": "Natural", "Adversarial/Neighbor": "Adversarial/Neighbor", "mine": None}
    for folder, subset in subsets.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset.json").write_text(json.dumps([LLMBAR]))
        (pair,) = read_preferences(tmp_path / folder / "dataset.json")
        assert pair.metadata.get("subset") == subset
    assert [pair.id for pair in read_preferences(tmp_path)] == ["Adversarial/Neighbor:1", "Natural:1"]
    with pytest.raises(ValueError, match="is a folder"):
        read_preferences(tmp_path, "pandalm")


def test_a_fault_in_one_file_of_a_folder_names_the_file(tmp_path):
    for folder, label in (("Natural", 1), ("Adversarial/GPTOut", 3)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset.json").write_text(json.dumps([LLMBAR, LLMBAR | {"label": label}]))
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(tmp_path)
    assert str(caught.value).splitlines() == [
        "1 of 4 rows could not be read",
        "  Adversarial/GPTOut/dataset.json, row 2, field label: is 3 (int), not one of 1, 2",
        "Pass on_error='skip' to leave these rows out",
    ]


def test_evalbiasbench_is_an_object_of_lists_or_one_list(tmp_path):
    other = {name: value for name, value in EVALBIASBENCH.items() if name not in ("bias", "label")}
    (tmp_path / "x.json").write_text(json.dumps({"length bias": [EVALBIASBENCH] * 2, "concreteness": [other]}))
    pairs = read_preferences(tmp_path / "x.json")
    assert [pair.metadata["subset"] for pair in pairs] == ["length bias", "length bias", "concreteness"]
    assert pairs[0] == PreferencePair(
        "p", "c", "r", id="x.json:1", metadata={"format": "evalbiasbench", "subset": "length bias", "label": 1}
    )
    assert len(read_preferences({"length bias": [EVALBIASBENCH], "concreteness": []})) == 1
    (from_list,) = read_preferences([EVALBIASBENCH])
    assert from_list.metadata == pairs[0].metadata


def test_a_row_of_evalbiasbench_under_the_key_of_another_class_is_a_problem():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences({"length bias": [EVALBIASBENCH], "concreteness": [EVALBIASBENCH]})
    (problem,) = caught.value.problems
    assert (problem.row, problem.message) == (
        2,
        "is listed under the key 'concreteness', but its bias is 'length bias'",
    )


def test_an_object_of_other_lists_has_splits(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"train": [ROWS["trl"]], "test": []}))
    with pytest.raises(ValueError, match="the source has the splits train, test; pass split="):
        read_preferences(tmp_path / "x.json")
    (pair,) = read_preferences(tmp_path / "x.json", split="train")
    assert pair.id == "x.json, split train:1"


@pytest.mark.parametrize(
    ("votes", "chosen"),
    [((2, 1, 2), "b"), ((1, 1, 0), "a"), ((1, 1, 1), "a"), (("0", "2", "2"), "b"), ((1.0, 1.0, 2.0), "a")],
)
def test_the_majority_of_pandalms_annotators_decides(votes, chosen):
    row = PANDALM | dict(zip(VOTES, votes, strict=True))
    (pair,) = read_preferences([row])
    assert (pair.prompt, pair.chosen, pair.id) == ("Do it.\n\nThis.", chosen, "5")
    assert pair.metadata == {"format": "pandalm", "cmp_key": "A_B"} | dict(zip(VOTES, votes, strict=True))


@pytest.mark.parametrize("nothing", ["", None, " \n"])
def test_an_instruction_without_input_is_the_prompt(nothing):
    (pair,) = read_preferences([PANDALM | {"input": nothing}])
    assert pair.prompt == "Do it."


def test_an_input_without_instruction_is_the_prompt():
    (pair,) = read_preferences([PANDALM | {"instruction": ""}])
    assert pair.prompt == "This."


def test_a_response_of_pandalm_that_is_true_or_false_is_read_as_the_word():
    (pair,) = read_preferences([PANDALM | {"response1": True}])
    assert (pair.rejected, pair.metadata["converted"]) == ("True", ["response1"])
    assert problem_of(PANDALM | {"response1": 3}).message == "is 3 (int), not text or a list of messages"


TIES = [
    PANDALM | {"idx": n} | dict(zip(VOTES, votes, strict=True))
    for n, votes in enumerate([(0, 0, 2), (1, 0, 2), (1, 1, 2)])
]


def test_ties_are_left_out_and_counted():
    with pytest.warns(PreferenceDataWarning) as caught:
        pairs = read_preferences(TIES)
    assert [pair.id for pair in pairs] == ["2"]
    (warning,) = caught
    assert str(warning.message) == (
        "2 of 3 rows state no preference and were left out: "
        "1 because the majority prefers neither response, 1 because the annotators have no majority"
    )


def test_ties_are_dropped_in_silence_only_on_request():
    assert len(read_preferences(TIES, ties="drop")) == 1


def test_ties_are_problems_on_request():
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences([*TIES, PANDALM | {"idx": 9, "response1": ""}], ties="raise")
    assert [(problem.row, problem.field) for problem in caught.value.problems] == [(1, ""), (2, ""), (4, "response1")]
    with pytest.warns(PreferenceDataWarning, match="2 of 3 rows could not be read"):
        assert len(read_preferences(TIES, ties="raise", on_error="skip")) == 1


@pytest.mark.parametrize(
    ("kind", "verdict", "label"),
    [
        ("homonyms", "1_full_compliance", True),
        ("homonyms", "2_full_refusal", False),
        ("homonyms", "3_partial_refusal", False),
        ("contrast_homonyms", "1_full_compliance", False),
        ("contrast_homonyms", "2_full_refusal", True),
        ("contrast_homonyms", "3_partial_refusal", True),
    ],
)
def test_a_response_of_xstest_should_comply_with_safe_prompts_and_refuse_others(kind, verdict, label):
    expected = LabelledResponse(
        "p",
        "r",
        label,
        id="v2-1",
        metadata={"format": "xstest", "subset": kind, "safe": kind == "homonyms", "final_label": verdict},
    )
    assert read_preferences([XSTEST | {"type": kind, "final_label": verdict}]) == [expected]


def test_a_column_with_the_name_of_known_metadata_is_not_overwritten():
    (pair,) = read_preferences([LLMBAR | {"format": "mine", "criterion": "short"}], criterion="long")
    assert (pair.metadata["format"], pair.metadata["format (column)"], pair.criterion) == ("llmbar", "mine", "short")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_format_takes_the_criterion_that_is_given(name):
    examples = read_preferences([ROWS[name]], criterion="is correct")
    assert {example.criterion for example in examples} == {"is correct"}


# Which format it is


def test_the_known_formats_are_those_tested_here():
    assert set(known_formats()) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_every_format_is_recognised_by_its_fields_and_can_be_named(name):
    row = ROWS[name]
    named = read_preferences([row], name)
    if name in BENCHMARKS:
        assert read_preferences([row]) == named
        assert {example.metadata["format"] for example in named} == {name}
    else:
        assert recognise(row).name == "trl"


def test_columns_of_two_formats_are_refused_or_are_of_the_one_that_includes_the_other():
    by_fields = [format for format in registered() if not format.by_name_only and format.fits is None]
    for first, second in combinations(by_fields, 2):
        for one in first.signatures():
            for other in second.signatures():
                if one <= other or other <= one:
                    assert recognise(one | other) is (second if one <= other else first)
                elif first.signature_in(one | other) <= second.signature_in(one | other):
                    assert recognise(one | other) is second
                else:
                    with pytest.raises(ValueError, match=r"could be any of .*: pass format="):
                        recognise(one | other)


def test_ambiguous_columns_are_a_problem_of_the_source_until_the_format_is_named():
    row = PANDALM | {"bias": "length bias"}
    problem = problem_of(row)
    assert problem.row is None
    assert problem.message.startswith("could be any of evalbiasbench, pandalm: pass format=... to choose one")
    assert read_preferences([row], "evalbiasbench")[0].chosen == "a"
    assert read_preferences([row], "pandalm")[0].chosen == "b"


def test_a_format_with_the_fields_of_another_is_not_registered():
    fields = (frozenset({"input", "output_1", "output_2", "label"}),)
    with pytest.raises(ValueError, match="'llmbar' and 'mine' have the same fields"):
        register(Format(name="mine", title="", fields=fields, read=lambda record: []))
    with pytest.raises(ValueError, match="'llmbar' is already registered"):
        register(Format(name="llmbar", title="", fields=(frozenset({"x"}),), read=lambda record: []))
    assert "mine" not in known_formats()


def test_an_unknown_format_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"format is 'rewardbench2', not one of trl, hh-rlhf, rewardbench, reward"):
        read_preferences([REWARDBENCH], "rewardbench2")


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "rewardbench"])
def test_a_named_format_says_which_of_its_fields_are_missing(name):
    problem = problem_of({"prompt": "p", "subset": "s"}, name)
    needed = sorted(next(f for f in registered() if f.name == name).fields[0] - {"prompt", "subset"})
    assert problem.row is None
    assert problem.message == f"is not {name}, which also needs {', '.join(needed)}; its columns are: prompt, subset"


def test_a_named_format_needs_no_distinguishing_fields():
    row = {name: REWARDBENCH[name] for name in ("prompt", "chosen", "rejected", "subset")}
    assert read_preferences([row])[0].metadata == {"subset": "hep-go"}
    assert read_preferences([row], "rewardbench")[0].metadata == {"format": "rewardbench", "subset": "hep-go"}


def test_columns_make_it_the_general_form():
    (pair,) = read_preferences([REWARDBENCH], columns={"chosen": "rejected", "rejected": "chosen"})
    assert (pair.chosen, pair.id, "format" in pair.metadata) == ("r", "3", False)
    with pytest.raises(ValueError, match="columns are for the format 'trl'"):
        read_preferences([REWARDBENCH], "rewardbench", columns={"chosen": "rejected"})


# What can be wrong with a row


@pytest.mark.parametrize(
    ("row", "name", "field", "message"),
    [
        (REWARDBENCH | {"chosen": " "}, "rewardbench", "chosen", "is blank: ' '"),
        (REWARDBENCH | {"subset": None}, "rewardbench", "subset", "is missing"),
        (REWARDBENCH_2 | {"chosen": "c"}, "rewardbench-2", "chosen", "is 'c', not a list of answers"),
        (REWARDBENCH_2 | {"rejected": []}, "rewardbench-2", "rejected", "has no answer"),
        (REWARDBENCH_2 | {"num_correct": 2}, "rewardbench-2", "num_correct", "is 2, but there are 1"),
        (REWARDBENCH_2 | {"total_completions": 3}, "rewardbench-2", "total_completions", "is 3, but there are 4"),
        (
            REWARDBENCH_2 | {"rejected": ["r", "c"], "total_completions": 3},
            "rewardbench-2",
            "rejected[2]",
            "is the same as",
        ),
        (REWARDBENCH_2 | {"id": None}, "rewardbench-2", "id", "is missing"),
        (LLMBAR | {"label": 3}, "llmbar", "label", "is 3 (int), not one of 1, 2"),
        (LLMBAR | {"label": True}, "llmbar", "label", "is True (bool), not one of 1, 2"),
        (LLMBAR | {"label": None}, "llmbar", "label", "is missing"),
        (LLMBAR | {"output_1": ""}, "llmbar", "output_1", "is blank: ''"),
        (LLMBAR | {"output_2": None}, "llmbar", "output_2", "is missing"),
        (LLMBAR | {"input": 3}, "llmbar", "input", "is 3 (int), not text or a list of messages"),
        (EVALBIASBENCH | {"label": 2}, "evalbiasbench", "label", "is 2, but in EvalBiasBench the better response is"),
        (EVALBIASBENCH | {"response2": ""}, "evalbiasbench", "response2", "is blank: ''"),
        (PANDALM | {"annotator2": 3}, "pandalm", "annotator2", "is 3 (int), not one of 0, 1, 2"),
        (PANDALM | {"annotator3": None}, "pandalm", "annotator3", "is missing"),
        (PANDALM | {"response1": "b"}, "pandalm", "response1", "is the same as chosen: 'b'"),
        (PANDALM | {"instruction": "", "input": " "}, "pandalm", "instruction", "is blank: ''"),
        (PANDALM | {"instruction": 3}, "pandalm", "instruction", "is 3 (int), not text"),
        (
            XSTEST | {"final_label": "refused"},
            "xstest",
            "final_label",
            "is 'refused', not one of 1_full_compliance, 2_",
        ),
        (XSTEST | {"completion": ""}, "xstest", "completion", "is blank: ''"),
        (XSTEST | {"type": ""}, "xstest", "type", "is missing"),
        (
            MULTIMODAL | {"Better": "Output3"},
            "multimodal-rewardbench",
            "Better",
            "is 'Output3', not one of Output1, Output2",
        ),
        (HH | {"chosen": ["a"]}, "hh-rlhf", "chosen", "is not a transcript"),
        (HH | {"prompt": "p"}, "hh-rlhf", "prompt", "is given although the transcripts include"),
    ],
)
def test_an_invalid_row_is_reported_by_the_fields_of_its_format(row, name, field, message):
    problem = problem_of(row, name)
    assert (problem.row, problem.field) == (1, field)
    assert problem.message.startswith(message)


def test_a_benchmark_given_twice_over_has_ids_that_occur_twice():
    with pytest.raises(
        PreferenceDataError, match="field id: is 'Factuality/12/1-1', which row 1 already has"
    ) as caught:
        read_preferences([REWARDBENCH_2, REWARDBENCH_2])
    assert len(caught.value.good) == 3


# The hub


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A folder of two splits that `datasets` loads through the call that it loads data sets of the hub through."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "reward-bench"
    folder.mkdir()
    for split, rows in (
        ("train", [REWARDBENCH]),
        ("test", [REWARDBENCH | {"id": 4}, REWARDBENCH | {"id": 5, "chosen": ""}]),
    ):
        pd.DataFrame(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_data_set_is_loaded_by_its_name_and_one_split_of_several_is_named(data_set):
    assert read_preferences(f"hf://{data_set}", split="train") == read_preferences([REWARDBENCH])
    with pytest.raises(ValueError, match=r"the source has the splits (train, test|test, train); pass split="):
        read_preferences(f"hf://{data_set}")
    with pytest.raises(PreferenceDataError, match=r"reward-bench, split test, row 2, field chosen: is blank"):
        read_preferences(f"hf://{data_set}", split="test")


def test_the_only_split_of_a_data_set_need_not_be_named(data_set):
    (data_set / "test-00000-of-00001.parquet").unlink()
    assert [pair.id for pair in read_preferences(f"hf://{data_set}", "rewardbench")] == ["hep-go/3"]


def test_the_hub_without_the_datasets_library_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"hf://allenai/reward-bench needs the datasets library.*arm-lens\[datasets"):
        read_preferences("hf://allenai/reward-bench", split="filtered")
