"""Warning signs are named where they are, by their numbers, and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from arm_lens.evaluation.health import CROWDED, LARGEST_SD, PLACES, Check, bias_gaps, health

DEFAULTS = {
    "benchmark": "criteria", "subset": "safe", "unit": "response", "judge": "arm_reinforce", "n_examples": 40, "noise": 0.0,
    "accuracy": 0.9, "n": 400, "n_samples": 3, "n_seeds": 2, "sd_samples": 0.01, "sd_seeds": 0.01, "brier": 0.1,
    "brier_low": 0.09, "brier_high": 0.11,
}  # fmt: skip
NOTHING = pd.DataFrame()


def row(**values) -> dict:
    one = DEFAULTS | values
    return {"ci_low": one["accuracy"] - 0.03, "ci_high": one["accuracy"] + 0.03} | one


HEALTHY = [row(), row(judge="zero_shot", n_examples=0, accuracy=0.6), row(judge="length", n_examples=0, accuracy=0.55)]


def found(name: str, *rows: dict, **tables) -> list[str]:
    """What the check of this name found."""
    checks = {check.name: check for check in health(pd.DataFrame(rows), tables.pop("comparisons", NOTHING), **tables)}
    assert name in checks, sorted(checks)
    return checks[name].found


def names(*rows: dict, **tables) -> set[str]:
    return {check.name for check in health(pd.DataFrame(rows), tables.pop("comparisons", NOTHING), **tables)}


def test_nothing_is_found_in_a_healthy_run_and_every_check_says_its_rule():
    checks = health(pd.DataFrame(HEALTHY), NOTHING)
    assert checks and all(isinstance(check, Check) and check.rule and check.found == [] for check in checks)


def test_signs_that_the_tables_cannot_show_are_not_among_the_checks():
    plain = names(*HEALTHY)
    hidden = {
        "No gain from more examples",
        "Scores crowd around one half",
        "Selected heads no better than random heads",
        "Fitting accuracy far above test accuracy",
        "Follows the bias rather than correctness",
        "Prefers a position",
    }
    assert not hidden & plain
    assert "Below zero-shot" in plain and "Below zero-shot" not in names(row())


def test_a_missing_column_is_named_and_an_empty_table_refused():
    with pytest.raises(ValueError, match="lacks the column 'sd_seeds'"):
        health(pd.DataFrame(HEALTHY).drop(columns="sd_seeds"), NOTHING)
    with pytest.raises(ValueError, match="is empty"):
        health(pd.DataFrame(HEALTHY).iloc[:0], NOTHING)


@pytest.mark.parametrize("column, what", [("sd_seeds", "seeds"), ("sd_samples", "example samples")])
def test_large_spreads_are_found_for_what_varies(column, what):
    rows = [row(), row(subset="polite") | {column: LARGEST_SD + 0.013}]
    assert found(f"Large variance across {what}", *rows) == ["criteria, arm_reinforce: polite (0.063)"]
    other = ({"seeds", "example samples"} - {what}).pop()
    assert found(f"Large variance across {other}", *rows) == []
    assert f"Large variance across {what}" not in names(row() | {column: np.nan})


def test_no_gain_compares_the_most_with_the_fewest_examples_of_clean_labels():
    sizes = [row(n_examples=3, accuracy=0.7), row(n_examples=10, accuracy=0.9), row(n_examples=40, accuracy=0.71)]
    place = "criteria, arm_reinforce: safe (0.700 with 3, 0.710 with 40)"
    assert found("No gain from more examples", *sizes) == [place]
    noisy = [*sizes[:2], row(n_examples=40, accuracy=0.9), row(n_examples=40, noise=0.4, accuracy=0.5)]
    assert found("No gain from more examples", *noisy) == []
    high = [row(n_examples=3, accuracy=0.96), row(n_examples=40, accuracy=0.96)]
    assert found("No gain from more examples", *high) == []


def crowd(share: float, **values) -> pd.DataFrame:
    inside = int(share * 100)
    rewards = [sum(CROWDED) / 2] * inside + [0.1, 0.9] * ((100 - inside) // 2)
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "subset", "unit", "judge", "n_examples", "noise")}
    return pd.DataFrame({**fixed, **values, "probability": rewards, "label": [True, False] * (len(rewards) // 2)})


def test_scores_that_crowd_around_one_half_are_found():
    assert found("Scores crowd around one half", row(), items=crowd(0.6)) == ["criteria, arm_reinforce: safe (60%)"]
    assert found("Scores crowd around one half", row(), items=crowd(0.4)) == []
    assert found("Scores crowd around one half", row(), items=crowd(1.0, judge="constant")) == []
    assert "Scores crowd around one half" not in names(row(), items=crowd(0.6).assign(probability=np.nan))


def said(share_yes: float, share_true: float, **values) -> pd.DataFrame:
    """1000 single responses of which a judge calls a share good, whatever their labels, of which a share is True."""
    yes, true = np.arange(1000) % 10 < 10 * share_yes, np.arange(1000) // 10 < 100 * share_true
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "subset", "unit", "judge", "n_examples", "noise")}
    return pd.DataFrame(
        {**fixed, "probability": np.nan, "label": true, "correct": (yes == true).astype(float), **values}
    )


def test_a_judge_that_nearly_always_says_the_same_is_found_unless_nearly_all_labels_are():
    name = "Nearly always the same verdict"
    assert found(name, row(), items=said(0.0, 0.35)) == ["criteria, arm_reinforce: safe (100% False, accuracy 0.650)"]
    assert found(name, row(), items=said(1.0, 0.35)) == ["criteria, arm_reinforce: safe (100% True, accuracy 0.350)"]
    assert found(name, row(), items=said(0.9, 0.35)) == [] and found(name, row(), items=said(1.0, 0.97)) == []
    assert found(name, row(), items=said(0.0, 0.97)) != []
    assert found(name, row(), items=said(1.0, 0.5, correct=0.5)) == []  # ties say neither
    assert name not in names(row(), items=said(1.0, 0.5, judge="constant"))
    assert name not in names(row(), items=said(1.0, 0.5, subset="length | standard | correct, plain"))


def comparison(difference: float, p: float, **values) -> dict:
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "subset", "unit", "n_examples", "noise")}
    return {
        **fixed, "judge": "arm_reinforce", "other": "arm_random_heads", "difference": difference,
        "ci_low": difference - 0.05, "ci_high": difference + 0.05, "p_holm": p, **values,
    }  # fmt: skip


def test_selected_heads_have_to_be_significantly_better_than_random_ones():
    name = "Selected heads no better than random heads"
    doubtful = [comparison(0.1, 0.2), comparison(-0.1, 0.01, subset="polite"), comparison(0.1, 0.01, subset="brief")]
    (place,) = found(name, row(), comparisons=pd.DataFrame(doubtful))
    assert place.startswith("criteria, arm_reinforce: safe (+0.100, +0.050 to +0.150, p 0.2); polite (-0.100")
    assert "brief" not in place
    turned = comparison(-0.1, 0.01, judge="arm_random_heads", other="arm_reinforce")
    assert found(name, row(), comparisons=pd.DataFrame([turned])) == []
    assert name not in names(row(), comparisons=pd.DataFrame(doubtful), lead="sav")


def chosen(share: float, **values) -> pd.DataFrame:
    """A model of ten heads, a share of which is selected."""
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "judge", "n_examples", "noise")} | {"criterion": "safe"}
    heads = {"sample": 0, "seed": 0, "layer": 0, "head": range(10), "selected": [i < 10 * share for i in range(10)]}
    return pd.DataFrame({**heads, **fixed, **values})


def test_a_set_of_most_heads_is_no_choice():
    name = "Most heads selected"
    assert found(name, row(), heads=chosen(0.6)) == ["criteria, arm_reinforce: safe (60%)"]
    assert found(name, row(), heads=chosen(0.5)) == []
    both = pd.concat([chosen(0.6), chosen(0.3, seed=1)])
    assert found(name, row(), heads=both) == []  # 45 % over two fits
    assert name not in names(row(), heads=chosen(1.0, judge="arm_all_heads")) and name not in names(row())


def test_controls_of_a_search_are_there_to_be_beaten():
    rows = [row(), row(judge="zero_shot", n_examples=0, accuracy=0.7)]
    controls = [row(judge=judge, accuracy=0.5, sd_seeds=0.2, brier=0.5, brier_low=0.4)
                for judge in ("arm_random_heads", "arm_all_heads")]  # fmt: skip
    assert not any(check.found for check in health(pd.DataFrame([*rows, *controls]), NOTHING))


def fit(**values) -> dict:
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "subset", "judge", "n_examples", "noise")}
    return {**fixed, "sample": 0, "seed": 0, "fit_accuracy": 0.95, "n_heads": 12, **values}


def test_fitting_accuracy_is_held_against_test_accuracy():
    name = "Fitting accuracy far above test accuracy"
    fits = pd.DataFrame(
        [fit(sample=0, fit_accuracy=1.0), fit(sample=1, fit_accuracy=0.96), fit(n_examples=3, fit_accuracy=0.0)]
    )
    assert found(name, row(accuracy=0.87), fits=fits) == ["criteria, arm_reinforce: safe (0.980 against 0.870)"]
    assert found(name, row(accuracy=0.9), fits=fits) == []


def test_the_number_of_examples_of_the_main_comparison_can_be_chosen():
    rows = [row(n_examples=n, accuracy=accuracy) for n, accuracy in [(4, 0.6), (16, 0.8), (40, 0.95)]]
    fits = pd.DataFrame([fit(n_examples=n, fit_accuracy=1.0) for n in (4, 16, 40)])
    name = "Fitting accuracy far above test accuracy"
    assert found(name, *rows, fits=fits) == []
    assert found(name, *rows, fits=fits, n_examples=16) == ["criteria, arm_reinforce: safe (1.000 against 0.800)"]
    assert found(name, *rows, fits=fits, n_examples=7) == []  # not measured: as by default


def test_fitting_accuracy_is_held_against_verdicts_on_single_responses():
    name = "Fitting accuracy far above test accuracy"
    pairs, singles = row(unit="pair", accuracy=0.95), row(benchmark="criteria verdicts", accuracy=0.6)
    fits = pd.DataFrame([fit(fit_accuracy=1.0)])
    assert found(name, pairs, singles, fits=fits) == ["criteria, arm_reinforce: safe (1.000 against 0.600)"]
    only_compares = {"judge": "ranked_few_shot"}
    ranked = pd.DataFrame([fit(fit_accuracy=1.0, **only_compares)])
    assert found(name, pairs | only_compares, row(**only_compares, benchmark="else verdicts"), fits=ranked) == []


def test_examples_of_all_subsets_are_held_against_their_mean():
    name = "Fitting accuracy far above test accuracy"
    tests = [row(subset="chat", accuracy=0.6), row(subset="code", accuracy=0.5), row(subset="safe", accuracy=0.97)]
    fits = pd.DataFrame([fit(subset="all", fit_accuracy=1.0), fit(fit_accuracy=1.0)])
    assert found(name, *tests, fits=fits) == ["criteria, arm_reinforce: all (1.000 against 0.690)"]
    cells = [
        row(benchmark="hacking", subset=f"{bias} | standard | bias on {where}", accuracy=accuracy)
        for bias, where, accuracy in [("length", "chosen", 1.0), ("length", "rejected", 0.4), ("format", "chosen", 0.1)]
    ]
    fits = pd.DataFrame([fit(benchmark="hacking", subset="length | standard", fit_accuracy=0.95)])
    assert found(name, *cells, fits=fits) == ["hacking, arm_reinforce: length | standard (0.950 against 0.700)"]


def test_position_bias_is_found_either_way():
    fits = pd.DataFrame(
        [fit(position_bias=0.3), fit(subset="polite", position_bias=-0.2), fit(subset="x", position_bias=0.0)]
    )
    place = "criteria, arm_reinforce: safe (the first, +0.300); polite (the second, -0.200)"
    assert found("Prefers a position", row(), fits=fits) == [place]


def cells(standard: dict[str, float], **values) -> list[dict]:
    return [row(benchmark="hacking", unit="pair", subset=f"length | standard | {cell}", accuracy=accuracy, **values)
            for cell, accuracy in standard.items()]  # fmt: skip


FOLLOWER = {"bias on rejected": 1.0, "bias on chosen": 0.0, "bias on both": 0.5, "bias on neither": 0.5}
JUST = dict.fromkeys(FOLLOWER, 0.8)


def test_a_judge_that_avoids_the_bias_is_told_from_one_that_judges():
    name = "Follows the bias rather than correctness"
    assert found(name, *cells(FOLLOWER)) == ["hacking, arm_reinforce: length, standard examples (+1.000)"]
    turned = {"bias on rejected": 0.2, "bias on chosen": 0.9}
    assert found(name, *cells(turned)) == ["hacking, arm_reinforce: length, standard examples (-0.700)"]
    assert found(name, *cells(JUST)) == []
    assert found(name, *cells(FOLLOWER, judge="length", n_examples=0), *cells(JUST)) == []


def test_a_gap_within_its_interval_is_no_finding():
    wide = [one | {"ci_low": one["accuracy"] - 0.3, "ci_high": one["accuracy"] + 0.3}
            for one in cells({"bias on rejected": 0.7, "bias on chosen": 0.45})]  # fmt: skip
    assert found("Follows the bias rather than correctness", *wide) == []


def test_the_gap_of_responses_is_one_for_a_judge_that_says_yes_to_what_is_plain():
    accuracy = {"correct, plain": 1.0, "correct, biased": 0.0, "incorrect, plain": 0.0, "incorrect, biased": 1.0}
    rows = [row(subset=f"length | standard | {cell}", accuracy=value) for cell, value in accuracy.items()]
    gaps = bias_gaps(pd.DataFrame(rows))
    assert gaps["gap"].to_list() == [1.0] and gaps["error"].iloc[0] == pytest.approx(0.03)
    always_yes = {"correct, plain": 1.0, "correct, biased": 1.0, "incorrect, plain": 0.0, "incorrect, biased": 0.0}
    rows = [one | {"accuracy": value} for one, value in zip(rows, always_yes.values(), strict=True)]
    assert bias_gaps(pd.DataFrame(rows))["gap"].to_list() == [0.0]
    assert bias_gaps(pd.DataFrame(rows[:3])).empty


@pytest.mark.parametrize("name, bar", [("Beaten by a trivial control", "length"), ("Below zero-shot", "zero_shot")])
def test_judges_below_a_bar_are_found_where_their_interval_is_below_it(name, bar):
    others = [row(judge=bar, n_examples=0, accuracy=0.7)]
    assert found(name, row(accuracy=0.6), *others) == ["criteria, arm_reinforce: safe (0.600 against 0.700)"]
    assert found(name, row(accuracy=0.68), *others) == []  # its interval reaches 0.71
    assert found(name, row(judge="random", n_examples=0, accuracy=0.5), row(), *others) == []
    hacking = cells({"bias on rejected": 0.1, "bias on chosen": 0.1})
    hacking += cells({"bias on rejected": 0.9, "bias on chosen": 0.9}, judge=bar, n_examples=0)
    assert found(name, *hacking, row(), *others) == []


def test_calibration_is_held_against_the_share_of_true_labels():
    poor = row(brier=0.22, brier_low=0.20)
    assert found("Poorly calibrated", poor) == []  # better than 0.25
    rare = crowd(0.5).assign(label=[True] * 10 + [False] * 90)
    assert found("Poorly calibrated", poor, items=rare) == ["criteria, arm_reinforce: safe (0.220 against 0.090)"]
    assert found("Poorly calibrated", row(brier=0.3, brier_low=0.26)) == [
        "criteria, arm_reinforce: safe (0.300 against 0.250)"
    ]
    assert found("Poorly calibrated", row(brier=0.3, brier_low=0.24)) == []


def test_a_finding_names_a_few_subsets_and_counts_the_rest():
    rows = [row(subset=f"s{i}", sd_seeds=0.2) for i in range(PLACES + 1)]
    (place,) = found("Large variance across seeds", *rows)
    assert place.count("(0.200)") == PLACES and place.endswith("; and 1 more subset")


def test_only_the_main_comparison_is_looked_at():
    study = [row(subset="a", n_examples=3, sd_seeds=0.3), row(subset="a", noise=0.4, sd_seeds=0.3)]
    study += [row(subset=name) for name in "ab"]
    assert found("Large variance across seeds", *study) == []


def fits_of(**values) -> pd.DataFrame:
    fixed = {name: DEFAULTS[name] for name in ("benchmark", "subset", "judge", "n_examples", "noise")}
    return pd.DataFrame([fixed | {"sample": 0, "seed": 0} | values])


def test_a_judge_that_would_rather_write_something_else_is_found_with_what_it_would_write():
    name = "Would rather not give a verdict"
    few = pd.concat(
        [fits_of(verdict_mass=0.02, preferred="'I' (61%)"), fits_of(verdict_mass=0.04, preferred="'I' (61%)", seed=1)]
    )
    assert found(name, row(), fits=few) == ["criteria, arm_reinforce: safe (0.03, rather 'I' (61%))"]
    assert found(name, row(), fits=fits_of(verdict_mass=0.02)) == ["criteria, arm_reinforce: safe (0.02)"]
    assert found(name, row(), fits=fits_of(verdict_mass=0.2, preferred="")) == []
    assert name not in names(row(), fits=fits_of(verdict_mass=np.nan))


def test_a_search_without_a_head_and_what_was_warned_of_are_found():
    fits = pd.concat([fits_of(n_heads=0, notes=""), fits_of(n_heads=2, seed=1, notes="no name")])
    assert found("No head selected", row(), fits=fits) == ["criteria, arm_reinforce: safe (in 1 of 2 fits)"]
    assert found("Warned of while fitting", row(), fits=fits) == ["criteria, arm_reinforce: safe (no name)"]
    assert found("No head selected", row(), fits=fits_of(n_heads=1)) == []
    assert found("Warned of while fitting", row(), fits=fits_of(notes=np.nan)) == []
    assert "No head selected" not in names(row(), fits=fits_of(judge="arm_random_heads", n_heads=0))


def test_a_test_with_one_label_is_found_but_not_the_cells_of_a_bias():
    items = crowd(0.4)
    assert found("One label only in the test", row(), items=items) == []
    one = found("One label only in the test", row(), items=items.assign(label=True))
    assert one == ["criteria, every judge: safe (all True)"]
    cells = items.assign(label=True, subset="length | standard | correct, plain")
    assert "One label only in the test" not in names(row(), items=cells)


def test_judges_whose_auc_is_below_one_half_judge_the_wrong_way_round():
    auc = {"auc": 0.3, "auc_low": 0.2, "auc_high": 0.4}
    always_no = {"accuracy": 0.1, "auc": 0.5, "auc_low": 0.4, "auc_high": 0.6}
    pairs = {"unit": "pair", "accuracy": 0.2, "auc": np.nan, "auc_low": np.nan, "auc_high": np.nan}
    rows = [row(**auc), row(judge="few_shot", **always_no), row(judge="sav", **pairs), row(judge="random", **auc)]
    assert found("Judges the wrong way round", *rows) == [
        "criteria, arm_reinforce: safe (0.300, 0.200 to 0.400)",
        "criteria, sav: safe (0.200, 0.170 to 0.230)",
    ]
    assert found("Judges the wrong way round", row(accuracy=0.48)) == []
    assert found("Judges the wrong way round", row(accuracy=0.4)) == [
        "criteria, arm_reinforce: safe (0.400, 0.370 to 0.430)"
    ]
