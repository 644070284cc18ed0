"""Metrics of saved judges: given as results are, given back as they were, and never without n and interval."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from arm_lens import GenerativeJudge, LabelledResponse, load_judge
from arm_lens.benchmark import judge_preferences
from arm_lens.judges.artefact import RECORD
from arm_lens.judges.metrics import metrics_frame, metrics_of
from arm_lens.preferences import PreferencePair

ROW = {"metric": "accuracy", "benchmark": "b", "subset": "s", "value": 0.5, "low": 0.25, "high": 0.75, "n": 8}


@pytest.fixture
def judge(model_of):
    return GenerativeJudge(model_of("llama"))


def results_of(**judges):
    words = ["garden", "river", "mill", "church"]
    test = [LabelledResponse(f"the {one}", f"{one} it is", bool(i % 2), id=one) for i, one in enumerate(words)]
    return judge_preferences(judges, test, benchmark="tickets")


def test_results_are_saved_and_come_back(judge, model_of, tmp_path):
    results = results_of(mine=judge)
    summary = results.tables.summary.iloc[0]
    expected = pd.DataFrame(
        [
            {"metric": name, "benchmark": "tickets", "subset": summary["subset"], "value": summary[name],
             "low": summary[f"{ends}_low"], "high": summary[f"{ends}_high"], "n": 4}
            for name, ends in (("accuracy", "ci"), ("auc", "auc"), ("brier", "brier"))
        ]
    )  # fmt: skip
    for given in (results, results.tables, results.tables.summary, expected, expected.to_dict("records")):
        saved = judge.save(tmp_path, metrics=given)
        loaded = load_judge(saved, model_of("llama"))
        pd.testing.assert_frame_equal(loaded.metrics, expected)
    again = loaded.save(tmp_path / "again")  # what it was loaded with goes with it
    assert (again / RECORD).read_bytes() == (saved / RECORD).read_bytes()
    assert judge.metrics.empty and list(judge.metrics.columns) == list(expected.columns)
    assert load_judge(judge.save(tmp_path / "none"), model_of("llama")).metrics.empty


def test_measures_that_pairs_do_not_have_are_left_out(judge):
    pairs = [PreferencePair(f"the {one}", "warm", "cold", id=one) for one in ("garden", "river", "mill")]
    found = metrics_frame(metrics_of(judge_preferences({"mine": judge}, pairs)))
    assert found.notna().all(axis=None)
    print(found)
    assert found["metric"].value_counts().to_dict() == {"accuracy": 2, "brier": 2, "auc": 1}  # as pairs and one by one


def test_results_of_several_judges_are_refused_with_a_way_out(judge):
    results = results_of(mine=judge, other=judge)
    with pytest.raises(
        ValueError, match=r"2 values of 'judge' .mine, other.; pass one of them, such as metrics="
    ) as error:
        metrics_of(results)
    code = str(error.value).rpartition("metrics=")[2]
    assert metrics_of(eval(code, {"results": results})) == metrics_of(results_of(mine=judge))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": float("nan")}, r"row 1 \(accuracy\): 'value' is nan, not a finite number"),
        ({"low": np.inf}, "'low' is inf"),
        ({"high": None}, "'high' is None"),
        ({"value": "0.5"}, "'value' is '0.5'"),
        ({"value": True}, "'value' is True"),
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"n": 2.5}, "n is 2.5, not a whole number"),
        ({"n": float("nan")}, "'n' is nan"),
        ({"low": 0.8}, "begins at 0.8 and ends at 0.75"),
        ({"metric": ""}, "metric: "),
        ({"subset": "a\x1b[2J"}, "subset: "),
        ({"f1": 1.0}, "the field 'f1' is unknown"),
    ],
    ids=str,
)
def test_a_number_that_is_none_is_refused_by_row_and_field(judge, tmp_path, change, reason):
    for given in ([ROW | change], pd.DataFrame([ROW | change], dtype=object)):
        with pytest.raises(ValueError, match=reason):
            judge.save(tmp_path / "judge", metrics=given)
    assert not (tmp_path / "judge").exists()


def test_a_number_without_n_or_interval_is_refused(judge):
    for field in ("n", "low", "high", "value"):
        with pytest.raises(ValueError, match=f"there is no '{field}'; every number has n and an interval"):
            metrics_of([{key: value for key, value in ROW.items() if key != field}])
    for given in ({"accuracy": 0.9}, 0.9, "accuracy", [0.9]):
        with pytest.raises(TypeError, match=r"metric, benchmark, subset, value, low, high, n"):
            metrics_of(given)
    with pytest.raises(ValueError, match="is there twice"):
        metrics_of([ROW, ROW])
    with pytest.raises(ValueError, match="lacks the column 'benchmark'"):
        metrics_of(pd.DataFrame({"accuracy": [0.9]}))


@pytest.mark.parametrize("value", [None, "NaN", "Infinity", [1], {"a": 1}, 10**400])
def test_forged_metrics_are_refused_when_read(judge, model_of, tmp_path, value):
    from arm_lens.judges.artefact import ArtefactError
    from arm_lens.storage import digest_of

    saved = judge.save(tmp_path, metrics=[ROW])
    record = json.loads((saved / RECORD).read_text())
    del record["digest"]
    record["metrics"][0]["value"] = value
    (saved / RECORD).write_text(json.dumps(record | {"digest": digest_of(record)}))
    with pytest.raises(ArtefactError, match=str(saved)):
        load_judge(saved, model_of("llama"))
