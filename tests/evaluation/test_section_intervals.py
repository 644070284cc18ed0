"""Intervals of section scores, against closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from arm_lens.evaluation.rewardbench import SUBSETS, rewardbench_2_scores, section_scores
from arm_lens.evaluation.rm_bench import rm_bench_sections
from arm_lens.evaluation.section_intervals import with_intervals, with_intervals_2

pytestmark = pytest.mark.slow

TRUE = {subset: 0.55 + 0.4 * index / 23 for index, subset in enumerate(SUBSETS.index)}


def results(generator: np.random.Generator, subsets: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Items with these true accuracies, and their subsets' rows."""
    counts = SUBSETS["pairs"]
    items, rows = [], []
    for subset in subsets:
        correct = generator.random(counts[subset]) < TRUE[subset]
        low, high = proportion_confint(correct.sum(), len(correct), method="wilson")
        items.append(pd.DataFrame({"judge": "j", "subset": subset, "correct": correct.astype(float)}))
        rows.append({"judge": "j", "subset": subset, "accuracy": correct.mean(), "ci_low": low, "ci_high": high})
    return pd.concat(items, ignore_index=True), pd.DataFrame(rows)


def scored(generator: np.random.Generator, subsets: list[str]) -> pd.DataFrame:
    items, rows = results(generator, subsets)
    return with_intervals(section_scores(items, by=["judge"]), rows, by=["judge"]).set_index("section")


def test_intervals_of_sections_and_of_the_overall_score_cover_the_truth():
    generator = np.random.default_rng(0)
    truth = {
        section: np.average([TRUE[subset] for subset in part.index], weights=part["weight"])
        for section, part in SUBSETS.groupby("section", sort=False)
    }
    truth["overall"] = np.mean(list(truth.values()))
    covered = {section: 0 for section in truth}
    for _ in range(300):
        table = scored(generator, list(TRUE))
        for section, value in truth.items():
            covered[section] += table.loc[section, "ci_low"] <= value <= table.loc[section, "ci_high"]
    for section, count in covered.items():
        assert 0.92 <= count / 300 <= 0.98, section


def test_a_missing_subset_leaves_an_interval_of_what_is_there():
    table = scored(np.random.default_rng(1), [subset for subset in TRUE if subset not in ("donotanswer", "math-prm")])
    assert np.isnan(table.loc["Safety", "score"]) and table.loc["Safety", "missing"] == ["donotanswer"]
    assert table.loc["Safety", "ci_low"] < table.loc["Safety", "score_of_present"] < table.loc["Safety", "ci_high"]
    assert table[["ci_low", "ci_high"]].notna().all().all()


def test_scores_over_prompts_have_wilsons_interval():
    rows = [
        {"judge": "j", "subset": "Math", "item": f"Math/{n}/1-{wrong}", "reward": 1.0 if n < 30 else -1.0}
        for n in range(40)
        for wrong in (1, 2, 3)
    ]
    table = with_intervals_2(rewardbench_2_scores(pd.DataFrame(rows), by=["judge"]), by=["judge"]).set_index("subset")
    expected = proportion_confint(30, 40, method="wilson")
    assert (table.loc["Math", "ci_low"], table.loc["Math", "ci_high"]) == pytest.approx(expected)
    assert np.isnan(table.loc["Ties", "ci_low"]) and "Ties" in table.loc["overall", "missing"]


def test_the_interval_of_ties_covers_its_score_which_exceeds_one():
    rewards = {"tied": {"1-1": 2.0, "2-1": 2.0}, "ref": {"1-1": 2.0}}
    rows = [
        {"judge": "j", "subset": "Ties", "item": f"Ties/{kind}:{n}/{pair}", "reward": reward}
        for n in range(20)
        for kind, pairs in rewards.items()
        for pair, reward in pairs.items()
    ]
    ties = (
        with_intervals_2(rewardbench_2_scores(pd.DataFrame(rows), by=["judge"]), by=["judge"])
        .set_index("subset")
        .loc["Ties"]
    )
    assert ties["score"] == pytest.approx(1.01)
    assert 0.8 < ties["ci_low"] < 1 and ties["score"] <= ties["ci_high"] <= 1.01 + 1e-9


@pytest.mark.parametrize("scores", [rewardbench_2_scores, rm_bench_sections])
def test_runs_without_a_seed_are_runs(scores):
    rows = [
        {"judge": "j", "seed": np.nan, "subset": subset, "item": f"{prefix}{n}/{i}-{k}", "reward": 1.0, "correct": 1.0}
        for subset, prefix, firsts in (("Math", "Math/", (1,)), ("math", "math ", (1, 2, 3)))
        if (subset == "Math") == (scores is rewardbench_2_scores)
        for n in range(9)
        for i in firsts
        for k in (1, 2, 3)
    ]
    by = ["judge", "seed"]
    found = scores(pd.DataFrame(rows), by=by)
    found = with_intervals_2(found, by=by) if scores is rewardbench_2_scores else found
    own = found[found["n"] > 0].iloc[0]
    assert own["score_of_present"] == 1 and 0.5 < own["ci_low"] < own["ci_high"] == 1
