"""The scores of the benchmarks about images are accuracies over their items, as published."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from arm_lens.benchmark import BenchmarkConfig, BenchmarkResults, run_benchmark
from arm_lens.evaluation import multimodal_rewardbench_scores, vl_rewardbench_scores
from arm_lens.evaluation.multimodal import PUBLISHED
from arm_lens.evaluation.statistics.intervals import wilson
from arm_lens.preferences import PreferenceDataWarning
from arm_lens.reports import write_report


def rows_of(items: pd.DataFrame, by=()) -> pd.DataFrame:
    groups = items.groupby(["subset", *by])["correct"].agg(["mean", "size"]).reset_index()
    ends = [wilson(share, n) for share, n in zip(groups["mean"], groups["size"], strict=True)]
    groups[["ci_low", "ci_high"]] = ends
    return groups.rename(columns={"mean": "accuracy", "size": "n"})


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    counts = PUBLISHED | {"safety/bias": 100, "safety/toxicity": 30, "vqa": 200}
    subsets = [subset for subset, n in counts.items() for _ in range(n)]
    return pd.DataFrame({"subset": subsets, "correct": rng.choice([0, 0.5, 1], len(subsets))})


def test_categories_and_overall_are_means_over_items(items):
    scores = multimodal_rewardbench_scores(rows_of(items)).set_index("section")
    assert list(scores.index) == [
        "general correctness",
        "general preference",
        "knowledge",
        "reasoning",
        "safety",
        "VQA",
        "overall",
    ]
    by_category = items.groupby(items["subset"].str.partition("/")[0])["correct"].mean()
    for section in ("knowledge", "reasoning", "safety"):
        assert scores["score"][section] == pytest.approx(by_category[section])
    assert scores["score"]["overall"] == pytest.approx(items["correct"].mean())
    assert scores["n"]["overall"] == len(items) and scores["n"]["reasoning"] == 1098
    assert (scores["score"] == scores["score_of_present"]).all() and not scores["partial"].map(len).any()
    low, high = wilson(items["correct"].mean(), len(items))
    assert scores["ci_low"]["overall"] == pytest.approx(low, abs=2e-3)
    assert scores["ci_high"]["overall"] == pytest.approx(high, abs=2e-3)


def test_published_scores_of_a_model_add_up():
    """Of Claude 3.5 Sonnet: reasoning 0.668 from mathematics 0.686 and coding 0.651 (README and paper)."""
    rows = pd.DataFrame({"subset": ["reasoning/math", "reasoning/coding"], "accuracy": [0.686, 0.651], "n": [514, 584]})
    scores = multimodal_rewardbench_scores(rows.assign(ci_low=0.6, ci_high=0.7)).set_index("section")
    assert scores["score"]["reasoning"] == pytest.approx(0.668, abs=1e-3)


def test_what_is_missing_is_counted(items):
    short = items[(items["subset"] != "safety/toxicity")].drop(items.index[items["subset"] == "knowledge"][:30])
    scores = multimodal_rewardbench_scores(rows_of(short)).set_index("section")
    assert np.isnan(scores["score"]["safety"]) and np.isnan(scores["score"]["overall"])
    bias = short[short["subset"] == "safety/bias"]["correct"].mean()
    assert scores["score_of_present"]["safety"] == pytest.approx(bias)
    assert scores["missing"]["overall"] == ["safety/toxicity"]
    assert scores["partial"]["knowledge"] == scores["partial"]["overall"] == ["knowledge (600 of 630)"]


def test_vl_rewardbench_has_a_macro_average_and_runs_are_apart():
    rng = np.random.default_rng(1)
    items = pd.DataFrame(
        {
            "subset": rng.choice(["general", "hallucination", "reasoning"], 500, p=[0.2, 0.5, 0.3]),
            "correct": rng.integers(0, 2, 500),
            "judge": rng.choice(["a", "b"], 500),
        }
    )
    scores = vl_rewardbench_scores(rows_of(items, ["judge"]), by=["judge"]).set_index(["judge", "section"])
    for judge, own in items.groupby("judge"):
        groups = own.groupby("subset")["correct"].mean()
        assert scores["score"][judge, "overall"] == pytest.approx(own["correct"].mean())
        assert scores["score"][judge, "macro average"] == pytest.approx(groups.mean())
        assert scores["score"][judge, "reasoning"] == pytest.approx(groups["reasoning"])
    some = rows_of(items[items["subset"] != "general"], ["judge"])
    macro = vl_rewardbench_scores(some, by=["judge"]).set_index(["judge", "section"])["score_of_present"][
        "a", "macro average"
    ]
    groups = items[(items["judge"] == "a") & (items["subset"] != "general")].groupby("subset")["correct"].mean()
    assert macro == pytest.approx(groups.mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="ci_low"), "no column 'ci_low'"),
        (lambda rows: rows.assign(subset="safety"), "unknown subsets: safety"),
        (lambda rows: pd.concat([rows, rows]), "occurs twice"),
        (lambda rows: rows.assign(accuracy=rows["accuracy"].where(rows["subset"] != "vqa")), "accuracy of vqa .*: nan"),
        (lambda rows: rows.assign(accuracy=100 * rows["accuracy"]), "not between 0 and 1"),
        (lambda rows: rows.assign(ci_low=rows["ci_low"].where(rows["subset"] != "vqa")), "accuracy of vqa"),
    ],
)
def test_rows_that_are_not_a_run_are_refused(items, change, message):
    with pytest.raises(ValueError, match=message):
        multimodal_rewardbench_scores(change(rows_of(items)))


@pytest.mark.slow
def test_a_benchmark_of_images_has_its_published_scores_and_counts_what_is_missing(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(20):
        Pillow.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    kinds = [("knowledge", "mmmu"), ("safety", "pairs"), ("reasoning", "mathvista"), ("reasoning", "EMMA-Coding")]
    rows = [
        {
            "ID": f"{kinds[number % 4][1]}_{number}",
            "Category": kinds[number % 4][0],
            "Text": "Describe it.",
            "Image": f"images/{number}.png",
            "Output1": "short",
            "Output2": "a longer answer",
            "Better": "Output1" if number % 3 else "Output2",
        }
        for number in range(24)
    ]
    (tmp_path / "all_data.json").write_text(json.dumps(rows))
    study = {
        "kind": "preferences",
        "name": "images",
        "path": str(tmp_path / "all_data.json"),
        "on_error": "skip",
        "pool": 8,
    }
    config = BenchmarkConfig.model_validate(
        {"judges": ["length"], "lead": "length", "n_examples": [4], "studies": [study]}
    )
    with pytest.warns(
        PreferenceDataWarning, match="4 of 24 rows could not be read, 4 of them because an image is missing"
    ):
        results = run_benchmark(config, tmp_path / "out")
    scores = results.sections.set_index("section")
    items = results.items[results.items["unit"] == "pair"]
    assert scores["score_of_present"]["overall"] == pytest.approx(items["correct"].mean())
    assert scores["n"]["overall"] == len(items) and "vqa" in scores["missing"]["overall"]
    reasoning = items[items["subset"].str.startswith("reasoning")]
    assert scores["score"]["reasoning"] == pytest.approx(reasoning["correct"].mean())
    write_report(results, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    again = BenchmarkResults.load(tmp_path / "out")
    pd.testing.assert_frame_equal(again.sections, results.sections)
    write_report(again, tmp_path / "again")
    section = re.compile('<section id="sections">.*?</section>', re.DOTALL)
    shown = section.search(page)
    assert shown and shown[0] == section.search((tmp_path / "again" / "report.html").read_text())[0]
    assert "\ufdd0" not in page and "2 x 2]" in page and "general preference" in page
