"""Which rows stand side by side, and what they come to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plots.synthetic_benchmark import NO_EXAMPLES, make_comparisons, make_summary

from arm_lens.evaluation.main_setting import MainSetting, against, least_noise, main_rows, main_settings
from arm_lens.evaluation.standings import mean_over_subsets, spreads, standings
from arm_lens.plots import accuracy_by_examples

JUDGES = ("zero_shot", "few_shot", "arm_reinforce", "sav")
SUMMARY = make_summary(JUDGES, ("safe", "polite"), n=50)
CRITERIA = SUMMARY[SUMMARY["benchmark"] == "criteria"]


def test_the_main_setting_is_the_size_with_most_rows_and_no_noise():
    fewer = CRITERIA[~((CRITERIA["judge"] == "few_shot") & (CRITERIA["n_examples"] == 80))]
    assert main_settings(fewer[fewer["n_examples"] != 40])["criteria"] == MainSetting(20, 0.0)  # of equals the largest
    assert main_settings(fewer, n_examples=10)["criteria"] == MainSetting(10, 0.0)
    assert main_settings(fewer, n_examples=11)["criteria"] == main_settings(fewer)["criteria"]
    assert main_settings(CRITERIA[CRITERIA["n_examples"] == 0])["criteria"] == MainSetting(0, 0.0)


def test_main_rows_have_each_judge_once_per_subset_and_those_without_examples_too():
    main = main_rows(SUMMARY, main_settings(SUMMARY, n_examples=40))
    assert not main.duplicated(["benchmark", "subset", "judge"]).any()
    assert set(main["judge"]) == set(JUDGES)
    assert (main["n_examples"] == np.where(main["judge"].isin(NO_EXAMPLES), 0, 40)).all() and (main["noise"] == 0).all()


def test_a_judge_that_reads_examples_is_not_replaced_by_its_rows_without():
    both = pd.concat([CRITERIA, CRITERIA[CRITERIA["n_examples"] == 40].assign(n_examples=0, accuracy=0.0)])
    main = main_rows(both, {"criteria": MainSetting(40, 0.0)})
    assert (main.loc[main["judge"] == "sav", "n_examples"] == 40).all()


def test_an_empty_table_has_no_main_rows():
    assert main_rows(pd.DataFrame(), main_settings(SUMMARY)).empty


def test_against_turns_a_comparison_round():
    table = make_comparisons(CRITERIA[CRITERIA["noise"] == 0])
    turned = table.assign(
        judge=table["other"], other=table["judge"], difference=-table["difference"],
        ci_low=-table["ci_high"], ci_high=-table["ci_low"],
    )  # fmt: skip
    pd.testing.assert_frame_equal(against(turned, "arm_reinforce"), against(table, "arm_reinforce"))
    assert set(against(table, "arm_reinforce", "sav")["other"]) == {"sav"}
    assert against(table, "likelihood").empty


def rows(*values: tuple[str, str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["judge", "subset", "accuracy", "ci_low", "ci_high"])


def test_a_mean_over_independent_subsets_has_the_standard_error_of_one():
    random = np.random.default_rng(0)
    means, errors = [0.6, 0.8, 0.7], [0.02, 0.03, 0.06]
    samples = random.normal(means, errors, (200_000, 3))
    low, high = np.quantile(samples.mean(axis=1), [0.025, 0.975])
    table = rows(
        *(
            ("a", f"s{i}", m, m - 1.96 * e, m + 1.96 * e)
            for i, (m, e) in enumerate([(0.6, 0.02), (0.8, 0.03), (0.7, 0.06)])
        )
    )
    mean = mean_over_subsets(table).iloc[0]
    assert mean["accuracy"] == pytest.approx(0.7)
    assert (mean["ci_low"], mean["ci_high"]) == pytest.approx((low, high), abs=5e-4)


def test_cells_of_the_same_items_get_the_wide_interval():
    def interval(*cells):
        numbers = (0.6, 0.5, 0.7), (0.8, 0.6, 0.9)
        mean = mean_over_subsets(rows(*(("a", cell, *own) for cell, own in zip(cells, numbers, strict=True)))).iloc[0]
        return mean["ci_low"], mean["ci_high"]

    cells = [f"length | standard | {cell}" for cell in ("bias on chosen", "correct, plain")]
    assert interval(*cells) == pytest.approx((0.7 - 0.15, 0.7 + 0.1))
    independent = pytest.approx((0.7 - np.hypot(0.1, 0.2) / 2, 0.7 + np.hypot(0.1, 0.1) / 2))
    for own in ("maths | hard | 2023", "length | standard | x", "length | odd | bias on chosen"):  # not our benchmark's
        assert interval(cells[0], own) == interval("x", own) == independent


def test_a_judge_without_a_subset_has_no_mean():
    table = rows(("a", "x", 0.6, 0.5, 0.7), ("a", "y", 0.8, 0.6, 0.9), ("b", "x", 0.9, 0.8, 1.0))
    means = mean_over_subsets(table).set_index("judge")
    assert np.isnan(means.loc["b", ["accuracy", "ci_low", "ci_high"]].astype(float)).all()
    assert means["subsets"].to_dict() == {"a": 2, "b": 1}
    nothing = mean_over_subsets(table.assign(accuracy=table["accuracy"].where(table["judge"] != "a")))
    assert np.isnan(nothing["accuracy"].iloc[0])


def compared(other: str, *found: tuple[float, float]) -> list[dict[str, object]]:
    return [
        {"benchmark": "b", "subset": f"s{i}", "other": other, "difference": difference, "ci_low": difference - 0.1,
         "ci_high": difference + 0.1, "p_holm": p}
        for i, (difference, p) in enumerate(found)
    ]  # fmt: skip


def test_standings_count_significant_differences_only():
    table = pd.DataFrame(
        [
            *compared("beaten", (0.3, 0.01), (0.2, 0.2)),
            *compared("better", (-0.3, 0.01), (0.2, 0.05)),
            *compared("both", (-0.3, 0.01), (0.4, 0.01)),
            *compared("alike", (0.3, 0.9), (-0.3, np.nan)),
            *compared("one sample", (0.09, 0.001), (0.08, 0.001)),  # sure of these samples, with zero in the interval
        ]
    )
    found = standings(table)
    assert found["other"].to_list() == ["better", "alike", "both", "one sample", "beaten"]  # by the mean difference
    assert found.set_index("other")["standing"].to_dict() == {
        "beaten": "wins", "better": "loses", "both": "mixed", "alike": "open",
        "one sample": "open",
    }  # fmt: skip
    both = found.set_index("other").loc["both"]
    assert (both["better_on"], both["worse_on"], both["better"], both["worse"]) == (["s1"], ["s0"], 1, 1)
    assert both["difference"] == pytest.approx(0.05)


def test_spreads_are_pooled_over_subsets_and_name_the_largest():
    summary = pd.DataFrame(
        {
            "benchmark": "b", "subset": ["x", "y", "z", "x"], "judge": ["a", "a", "a", "fixed"],
            "n_samples": [3, 3, 3, 1], "n_seeds": [1, 1, 1, 1],
            "sd_samples": [0.03, 0.04, np.nan, np.nan], "sd_seeds": np.nan,
        }
    )  # fmt: skip
    table = spreads(summary)
    assert table["judge"].to_list() == ["a"]
    row = table.iloc[0]
    assert row["sd_samples"] == pytest.approx((0.0025 / 2) ** 0.5)
    assert (row["sd_samples_largest"], row["sd_samples_where"], row["n_samples"]) == (0.04, "y", 3)
    assert np.isnan(row["sd_seeds"]) and row["sd_seeds_where"] is None


def test_judges_without_examples_do_not_decide_the_noise_of_those_with():
    """All examples have flipped labels; a judge that is given none has no noise."""
    clean = CRITERIA[CRITERIA["noise"] == 0]
    flipped = clean.assign(noise=np.where(clean["n_examples"] > 0, 0.5, 0.0))
    settings = main_settings(flipped, n_examples=40)
    assert settings["criteria"] == MainSetting(40, 0.5)
    main = main_rows(flipped, settings)
    assert set(main["judge"]) == set(JUDGES) and len(main) == 2 * len(JUDGES)
    assert (main["noise"] == np.where(main["judge"].isin(NO_EXAMPLES), 0.0, 0.5)).all()
    pd.testing.assert_frame_equal(least_noise(flipped), flipped)
    assert least_noise(CRITERIA)["noise"].eq(0).all()
    drawn = accuracy_by_examples(flipped)  # which needs judges at two numbers of examples
    assert {trace.name for trace in drawn.data} >= {"Few-shot (in prompt)", "Zero-shot"}
