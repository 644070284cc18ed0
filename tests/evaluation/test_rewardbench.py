"""The published scores against computations by hand, and against definitions on rewards instead of margins."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from arm_lens.evaluation.rewardbench import (
    PROMPTS_2,
    SUBSETS,
    best_of_n,
    rewardbench_2_scores,
    section_scores,
    ties_score,
)
from arm_lens.preferences import read_preferences

PUBLISHED = SUBSETS["pairs"].to_dict()
SECTIONS = SUBSETS.groupby("section", sort=False)


def items(right: dict[str, float]) -> pd.DataFrame:
    """One row per published item of the subsets: the first are right, a half among them is a tie, the rest are wrong."""
    rows = []
    for subset, points in right.items():
        for number in range(PUBLISHED[subset]):
            correct = min(1.0, max(0.0, points - number))
            rows.append({"subset": subset, "item": f"{subset}/{number}", "correct": correct})
    return pd.DataFrame(rows)


# All 23 subsets, with a tie in alpacaeval-length, mt-bench-hard and math-prm.
RIGHT = {
    "alpacaeval-easy": 90,
    "alpacaeval-length": 60.5,
    "alpacaeval-hard": 95,
    "mt-bench-easy": 28,
    "mt-bench-med": 10,
    "mt-bench-hard": 20.5,
    "llmbar-natural": 80,
    "llmbar-adver-neighbor": 30,
    "llmbar-adver-GPTInst": 20,
    "llmbar-adver-GPTOut": 21,
    "llmbar-adver-manual": 0,
    "refusals-dangerous": 77,
    "refusals-offensive": 99,
    "xstest-should-refuse": 150,
    "xstest-should-respond": 200,
    "donotanswer": 50,
    "math-prm": 223.5,
    "hep-cpp": 164,
    "hep-go": 82,
    "hep-java": 82,
    "hep-js": 41,
    "hep-python": 123,
    "hep-rust": 0,
}
# By hand. Where the weights are the counts, a section is its points over its items.
CHAT = 283.5 / 358
CHAT_HARD = 171.5 / 456
SAFETY = 576 / 740
# Half of math-prm is right, which weighs 984; of the code, 492 of 984.
REASONING = (0.5 * 984 + 492) / 1968
BY_HAND = [CHAT, CHAT_HARD, SAFETY, REASONING, (CHAT + CHAT_HARD + SAFETY + REASONING) / 4]


def test_the_tables_hold_the_published_numbers():
    counts = {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    assert SECTIONS["pairs"].sum().to_dict() == counts
    assert sum(PUBLISHED.values()) == 2985
    assert len(PUBLISHED) == 23
    assert SUBSETS.loc["math-prm", "weight"] == 984 == SECTIONS["weight"].sum()["Reasoning"] - 984
    others = SUBSETS.drop("math-prm")
    assert (others["weight"] == others["pairs"]).all()
    assert sum(PROMPTS_2.values()) == 1865


def test_section_scores_are_those_computed_by_hand():
    scores = section_scores(items(RIGHT))
    assert list(scores["section"]) == ["Chat", "Chat Hard", "Safety", "Reasoning", "overall"]
    assert list(scores["score"]) == pytest.approx(BY_HAND, abs=1e-12)
    assert list(scores["score_of_present"]) == list(scores["score"])
    assert list(scores["n"]) == [358, 456, 740, 1431, 2985]
    assert not any(scores["missing"]) and not any(scores["partial"])


def test_accuracies_by_subset_give_the_same_scores_as_items():
    by_subset = pd.DataFrame(
        [
            {"subset": subset, "accuracy": points / PUBLISHED[subset], "n": PUBLISHED[subset]}
            for subset, points in RIGHT.items()
        ]
    )
    pd.testing.assert_frame_equal(section_scores(by_subset), section_scores(items(RIGHT)))


def test_a_missing_subset_is_named_and_its_section_has_no_score():
    left = {subset: points for subset, points in RIGHT.items() if subset not in ("donotanswer", "hep-rust", "math-prm")}
    scores = section_scores(items(left)).set_index("section")
    assert scores["missing"].to_dict() == {
        "Chat": [],
        "Chat Hard": [],
        "Safety": ["donotanswer"],
        "Reasoning": ["math-prm", "hep-rust"],
        "overall": ["donotanswer", "math-prm", "hep-rust"],
    }
    assert scores["score"].isna().to_dict() == {
        "Chat": False,
        "Chat Hard": False,
        "Safety": True,
        "Reasoning": True,
        "overall": True,
    }
    of_present = [CHAT, CHAT_HARD, 526 / 604, 492 / 820]
    assert list(scores["score_of_present"]) == pytest.approx([*of_present, sum(of_present) / 4])


def test_an_empty_section_does_not_score_zero():
    scores = section_scores(items({subset: RIGHT[subset] for subset in SECTIONS.groups["Chat"]})).set_index("section")
    assert scores.loc["Chat", "score"] == pytest.approx(CHAT)
    assert math.isnan(scores.loc["Safety", "score_of_present"])
    assert scores.loc["Safety", "missing"] == list(SECTIONS.groups["Safety"])
    assert scores.loc["overall", "score_of_present"] == pytest.approx(CHAT)
    assert math.isnan(scores.loc["overall", "score"])


def test_none_of_a_subset_is_a_missing_subset():
    table = pd.DataFrame(
        [{"subset": "hep-go", "accuracy": float("nan"), "n": 0}, {"subset": "hep-js", "accuracy": 1.0, "n": 1}]
    )
    scores = section_scores(table).set_index("section")
    assert "hep-go" in scores.loc["Reasoning", "missing"]
    assert scores.loc["Reasoning", "partial"] == ["hep-js (1 of 164)"]


def test_fewer_items_than_published_are_said_and_weigh_as_published():
    table = items(RIGHT)
    few = pd.concat([table[table["subset"] != "alpacaeval-easy"], table[table["item"] == "alpacaeval-easy/0"]])
    scores = section_scores(few).set_index("section")
    assert scores.loc["Chat", "partial"] == ["alpacaeval-easy (1 of 100)"] == scores.loc["overall", "partial"]
    assert scores.loc["Chat", "score"] == pytest.approx((283.5 - 90 + 100) / 358)


def test_runs_are_told_apart_by_columns():
    good, bad = items(RIGHT), items(dict.fromkeys(RIGHT, 0))
    both = pd.concat([good.assign(judge="good", seed=0), bad.assign(judge="bad", seed=1)]).sample(
        frac=1, random_state=0
    )
    scores = section_scores(both, by=["judge", "seed"]).set_index(["judge", "seed", "section"])["score"]
    assert scores["good", 0, "overall"] == pytest.approx(BY_HAND[-1])
    assert scores["bad", 1, "overall"] == 0
    with pytest.raises(ValueError, match=r"[\w-]+/\d+ of [\w-]+ occurs twice: pass by="):
        section_scores(both)
    with pytest.raises(ValueError, match=r"[\w-]+ has \d+ items, but \d+ are published: pass by="):
        section_scores(both.drop(columns="item"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"subset": "hep-go", "correct": 1}, {"subset": "hep-c", "correct": 1}],
            "unknown subsets: hep-c; known are alp",
        ),
        ([{"subset": "hep-go", "correct": 2}], "correct of hep-go is 2, not between 0 and 1"),
        ([{"subset": "hep-go", "correct": float("nan")}], "correct of hep-go is nan, not between"),
        ([{"subset": "hep-go"}], "the results have no column 'correct'; they have subset"),
        ([{"subset": "hep-go", "accuracy": 0.5, "n": 3}] * 2, "hep-go occurs twice"),
    ],
)
def test_results_that_make_no_score_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        section_scores(pd.DataFrame(rows))


# RewardBench 2


def pairs_of(subset: str, id: str, right: list[float], wrong: list[float]) -> list[dict]:
    """The rows of a prompt whose answers have these rewards; ids come from the reader."""
    row = {"subset": subset, "id": id, "prompt": "p", "num_correct": len(right)}
    answers = {
        "chosen": [f"right {n}" for n in range(len(right))],
        "rejected": [f"wrong {n}" for n in range(len(wrong))],
    }
    rewards = dict(zip(answers["chosen"], right, strict=True)) | dict(zip(answers["rejected"], wrong, strict=True))
    return [
        {"subset": subset, "item": pair.id, "reward": rewards[pair.chosen] - rewards[pair.rejected]}
        for pair in read_preferences([row | answers], "rewardbench-2")
    ]


rewards = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=4)


@given(st.integers(-3, 3).map(float), rewards)
def test_one_right_answer_shares_its_point_with_those_of_the_same_highest_reward(right, wrong):
    best = [reward for reward in [right, *wrong] if reward == max(right, *wrong)]
    expected = 1 / len(best) if right in best else 0
    assert best_of_n(right - np.array(wrong)) == expected


def test_a_constant_judge_scores_chance_on_one_of_four():
    table = pd.DataFrame([row for n in range(3) for row in pairs_of("Math", str(n), [0.0], [0.0] * 3)])
    scores = rewardbench_2_scores(table).set_index("subset")
    assert scores.loc["Math", "score"] == 0.25


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(rewards.filter(lambda right: len(right) > 1), rewards, st.floats(-3, 3), rewards),
        min_size=1,
        max_size=4,
    )
)
def test_the_score_of_ties_is_that_of_its_definition_on_rewards(prompts):
    margins, terms = {}, []
    for number, (right, wrong, right_ref, wrong_ref) in enumerate(prompts):
        assume(all(abs(right_ref - reward) > 1e-6 or right_ref == reward for reward in wrong_ref))
        margins[f"Ties/tied:{number}"] = np.array([[r - w for w in wrong] for r in right])
        margins[f"Ties/ref:{number}"] = np.array([[right_ref - w for w in wrong_ref]])
        margin, margin_ref, spread = min(right) - max(wrong), right_ref - max(wrong_ref), max(right) - min(right)
        least = min(margin, margin_ref)
        ratio = least / spread - 1 if spread else least * math.inf if least else 0.0
        relative = math.tanh(ratio)
        terms.append((margin > 0, margin_ref > 0, margin > spread, least > spread, relative))
    tied, ref, exceeds, hard, relative = (sum(column) / len(terms) for column in zip(*terms, strict=True))
    expected = 0.3 * tied + 0.3 * ref + 0.2 * exceeds + 0.2 * hard + 0.01 * relative
    assert ties_score(margins) == pytest.approx(expected)


def test_a_judge_for_whom_all_right_answers_are_alike_and_better_has_the_highest_score():
    score = ties_score({"Ties/tied:0": np.full((3, 2), 2.0), "Ties/ref:0": np.full((1, 2), 2.0)})
    assert score == pytest.approx(1.01)
    assert ties_score({"Ties/tied:0": np.zeros((3, 2)), "Ties/ref:0": np.zeros((1, 2))}) == 0


def all_subsets() -> list[dict]:
    """Two prompts of each subset: one right and one wrong; of Ties one tied prompt, all right, and its reference, wrong."""
    rows = []
    for subset in PROMPTS_2:
        if subset != "Ties":
            rows += pairs_of(subset, "a", [2.0], [0.0, 1.0, -1.0]) + pairs_of(subset, "b", [2.0], [0.0, 3.0, 2.0])
    return rows + pairs_of("Ties", "tied:0", [4.0, 5.0], [1.0, 0.0, 2.5]) + pairs_of("Ties", "ref:0", [1.0], [2.0])


def test_the_scores_of_rewardbench_2_are_those_computed_by_hand():
    scores = rewardbench_2_scores(pd.DataFrame(all_subsets())).set_index("subset")
    # Ties: the margin of 1.5 is over 0 and over the spread of 1; the reference's margin of -1 is neither.
    ties = 0.3 * 1 + 0.3 * 0 + 0.2 * 1 + 0.2 * 0 + 0.01 * math.tanh(-1 / 1 - 1)
    assert list(scores.index) == [*PROMPTS_2, "overall"]
    assert scores.loc["Ties", "score"] == pytest.approx(ties)
    assert list(scores["score"].iloc[:5]) == [0.5] * 5
    assert scores.loc["overall", "score"] == pytest.approx((5 * 0.5 + ties) / 6)
    assert list(scores["n"]) == [2] * 6 + [12]
    assert scores.loc["Math", "partial"] == ["Math (2 of 183)"]
    assert not any(scores["missing"])


def test_a_missing_subset_of_rewardbench_2_is_named_and_leaves_no_overall_score():
    table = pd.DataFrame([row for row in all_subsets() if row["subset"] not in ("Ties", "Focus")])
    scores = rewardbench_2_scores(table.assign(judge="j"), by=["judge"]).set_index("subset")
    assert scores.loc["overall", "missing"] == ["Focus", "Ties"]
    assert math.isnan(scores.loc["overall", "score"])
    assert scores.loc["overall", "score_of_present"] == 0.5
    assert set(scores["judge"]) == {"j"}


def test_a_tied_prompt_without_its_reference_is_left_out_and_the_subset_is_partial():
    both = [*pairs_of("Ties", "tied:4", [1.0, 2.0], [0.0]), *pairs_of("Ties", "ref:4", [1.0], [0.0])]
    alone = [*pairs_of("Ties", "tied:5", [0.0, 1.0], [2.0]), *pairs_of("Ties", "ref:6", [0.0], [2.0])]
    of_ties = [
        rewardbench_2_scores(pd.DataFrame(rows)).set_index("subset").loc["Ties"]
        for rows in (both, [*both, *alone], alone)
    ]
    assert of_ties[0]["score"] == of_ties[1]["score"] > 0.5
    assert of_ties[1]["partial"] == ["Ties (2 of 102)"]
    assert of_ties[2]["missing"] == ["Ties"] and np.isnan(of_ties[2]["score"])
    with pytest.raises(ValueError, match="of the prompts 4 of Ties, there is only one of tied:n and ref:n"):
        ties_score({"Ties/tied:4": np.ones((2, 1))})


def test_pairs_that_make_no_score_are_refused():
    rows = all_subsets()
    math_rows = [row for row in rows if row["subset"] == "Math"]
    for table, message in [
        (math_rows[1:], r"Math/a has no margin of its answers 1-1"),
        ([math_rows[0] | {"reward": float("nan")}], r"Math/a has no margin of its answers 1-1"),
        ([*math_rows, math_rows[0]], r"Math/a/1-1 occurs twice: pass by="),
        ([math_rows[0] | {"subset": "Maths"}], "unknown subsets: Maths; known are Factuality"),
        ([math_rows[0] | {"item": "Math/a"}], "the id 'Math/a' is not that of a RewardBench 2 pair"),
        (pairs_of("Math", "c", [1.0, 2.0], [0.0]), "Math/c has 2 right answers, but is not of the subset Ties"),
        (pairs_of("Ties", "4", [1.0, 2.0], [0.0]), "Ties/4 is no prompt of the Ties subset"),
    ]:
        with pytest.raises(ValueError, match=message):
            rewardbench_2_scores(pd.DataFrame(table))


def test_margins_that_are_no_differences_of_rewards_have_no_spread():
    margins = {"Ties/tied:0": np.array([[1.0, 2.0], [2.0, 1.0]]), "Ties/ref:0": np.ones((1, 1))}
    with pytest.raises(ValueError, match="the margins of tied:0 are not differences of one reward for each answer"):
        ties_score(margins)
