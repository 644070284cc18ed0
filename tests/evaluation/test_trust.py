"""A cheap measure is displayed with its agreement with a causal one, or with the words that it was not measured."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from plots.synthetic_attribution import make_attributions, make_trajectory
from plots.synthetic_cases import card

from arm_lens import HeadScores, HeadSet
from arm_lens.attribution import MEASURES, Attribution
from arm_lens.comparison import agreement
from arm_lens.evaluation.trust import CAUSAL, COLUMNS, STANDS_IN_FOR, trust_notes, with_trust
from arm_lens.plots import (
    attribution_maps,
    head_card_figure,
    head_matrix,
    selection_probabilities,
    selection_steps,
    selection_trajectories,
)
from arm_lens.plots.measures import MEASURES as STYLES
from arm_lens.plots.theme import PAGE, themed
from arm_lens.selection import Selection

MEASURED = ("shapley", "injection", "ablation_mean", "gradient", "direct", "selection_probability")
TABLE = make_attributions(("safe", "polite"), MEASURED, n_layers=4, n_heads=5)
TABLE.loc[TABLE["measure"] == "selection_probability", "n"] = 0
UNMEASURED = "their rank correlation was not measured"


def part(**columns: str) -> pd.DataFrame:
    table = TABLE
    for column, value in columns.items():
        table = table[table[column] == value]
    return table


def attribution(measure: str, seed: int, criterion: str = "safe", n: int = 9) -> Attribution:
    each = torch.randn(n, 4, 5, generator=torch.Generator().manual_seed(seed))
    return Attribution.of({"probability": each, "gap": 3 * each}, range(n), measure=measure, criterion=criterion)


def words(figure) -> str:
    return " ".join(note.text or "" for note in figure.layout.annotations).replace("<br>", " ").replace("−", "-")


def test_every_measure_is_either_cheap_or_causal_here_and_in_figures():
    assert {*CAUSAL, *STANDS_IN_FOR} == {*MEASURES} == {*STYLES} and not {*CAUSAL} & {*STANDS_IN_FOR}
    assert {measure for measure, style in STYLES.items() if not style.causal} == {*STANDS_IN_FOR}
    assert {*STANDS_IN_FOR.values()} <= {*CAUSAL}


def test_a_table_has_the_agreement_of_each_cheap_measure_with_the_measure_that_it_stands_in_for():
    found, agreed = with_trust(TABLE), agreement(TABLE)
    pd.testing.assert_frame_equal(found[TABLE.columns], TABLE)
    for (criterion, measure, outcome), rows in found.groupby(["criterion", "measure", "outcome"]):
        told = rows[COLUMNS].drop_duplicates()
        assert len(told) == 1
        if measure in CAUSAL:
            assert told["causal"].item() == "" and told["spearman"].isna().all()
            continue
        other = STANDS_IN_FOR[measure]
        on = "probability" if outcome == "search" else outcome
        expected = agreed[
            (agreed["criterion"] == criterion) & (agreed["outcome"] == on)
            & agreed["measure_a"].isin([measure, other]) & agreed["measure_b"].isin([measure, other])
        ]  # fmt: skip
        assert told["causal"].item() == other and told["compared"].item() == 20
        for column, name in (("spearman", "spearman"), ("spearman_low", "ci_low"), ("spearman_high", "ci_high")):
            assert told[column].item() == pytest.approx(expected[name].item()), (measure, column)


def test_without_that_measure_it_is_the_first_causal_one_of_the_same_examples():
    few = TABLE[~TABLE["measure"].isin(["injection"])]
    assert set(with_trust(few).query("measure == 'gradient'")["causal"]) == {"shapley"}
    other_examples = few.assign(n=few["n"].where(few["measure"] != "shapley", 41))
    assert set(with_trust(other_examples).query("measure == 'gradient'")["causal"]) == {"ablation_mean"}
    assert set(with_trust(other_examples).query("measure == 'selection_probability'")["causal"]) == {"shapley"}
    assert "causal" not in with_trust(TABLE[TABLE["measure"] == "shapley"])


def test_rows_of_one_head_still_have_what_was_found_on_all():
    every = with_trust(TABLE)
    one = every[(every["layer"] == 1) & (every["head"] == 2) & ~every["measure"].isin(CAUSAL)]
    pd.testing.assert_frame_equal(with_trust(one), one, check_dtype=False)
    assert trust_notes(one) == trust_notes(every[~every["measure"].isin(CAUSAL)])


def test_notes_say_what_is_known():
    one = with_trust(part(criterion="safe", outcome="probability"))
    row = one[one["measure"] == "gradient"].iloc[0]
    text = f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f}; 20 heads)"
    assert trust_notes(one)[0] == f"gradient is cheap: rank correlation with injection {text}."
    both = with_trust(part(outcome="probability"))
    rows = both[both["measure"] == "gradient"].drop_duplicates("criterion")
    low, high = rows["spearman_low"].min(), rows["spearman_high"].max()
    assert f"{rows['spearman'].min():.2f} to {rows['spearman'].max():.2f} in 2 criteria" in trust_notes(both)[0]
    assert f"(intervals within {low:.2f} to {high:.2f}; 20 heads)" in trust_notes(both)[0]
    alone = part(criterion="safe", outcome="probability", measure="direct")
    expected = f"direct is cheap and stands in for ablation_mean: {UNMEASURED}."
    assert trust_notes(alone) == trust_notes(with_trust(alone)) == [expected]
    constant = one.assign(score=one["score"].where(one["measure"] != "injection", 0.0)).drop(columns=COLUMNS)
    (note, *_) = trust_notes(with_trust(constant))
    assert note == "gradient is cheap and stands in for injection: their rank correlation has no value here."
    half = pd.concat([part(criterion="safe"), part(criterion="polite", measure="gradient")], ignore_index=True)
    assert ", not measured in 1 of 2 criteria." in trust_notes(with_trust(half).query("outcome == 'gap'"))[0]
    assert trust_notes(part(measure="shapley")) == []


def test_an_attribution_says_it_in_a_terminal_a_notebook_its_table_and_its_scores():
    gradient, injection = attribution("gradient", 0), attribution("injection", 1)
    for text in (repr(gradient), gradient._repr_html_()):
        assert UNMEASURED in " ".join(text.split())
    beside = gradient.beside(injection)
    (note,) = trust_notes(with_trust(pd.concat([gradient.frame(), injection.frame()], ignore_index=True)).head(20))
    for text in (repr(beside), beside._repr_html_()):
        assert note in " ".join(text.split()) and "injection" in note and "20 heads" in note
    frame = beside.frame()
    assert len(frame) == 40 and set(frame["causal"]) == {"injection"} and set(frame["measure"]) == {"gradient"}
    assert gradient.head_scores().name == "gradient on probability (cheap, not causal)"
    for text in (repr(injection), injection._repr_html_()):
        assert "cheap" not in text and "rank correlation" not in text


@pytest.mark.parametrize(
    "cheap, causal, message",
    [
        (attribution("injection", 0), attribution("shapley", 1), "put a cheap measure"),
        (attribution("gradient", 0), attribution("direct", 1), "beside a causal one"),
        (attribution("gradient", 0), attribution("injection", 1, n=8), "differ in examples: 9 and 8"),
        (attribution("gradient", 0), attribution("injection", 1, "polite"), "differ in the criterion: safe and polite"),
    ],
)
def test_only_a_cheap_measure_is_put_beside_a_causal_one_of_the_same_examples(cheap, causal, message):
    with pytest.raises(ValueError, match=message):
        cheap.beside(causal)


@pytest.mark.parametrize("measure", ["gradient", "direct", "selection_probability"])
@pytest.mark.parametrize("draw", [attribution_maps, head_matrix], ids=["maps", "matrix"])
def test_figures_of_scores_say_it(draw, measure):
    table = TABLE.assign(outcome="probability") if measure == "selection_probability" else TABLE
    table = table.drop_duplicates(["criterion", "measure", "outcome", "layer", "head"])
    with themed(PAGE):
        measured, alone = (words(draw(one, measure=measure)) for one in (table, table[table["measure"] == measure]))
        causal = words(draw(table, measure="injection"))
    assert re.search(r"is cheap: rank correlation with [\w ]+ 0\.\d\d to 0\.\d\d in 2 criteria", measured)
    assert UNMEASURED in alone and "is cheap" not in causal


def test_figures_of_a_search_say_that_probabilities_are_not_effects():
    trajectory = make_trajectory(("safe", "polite"), range(0, 50, 10), 4, 5)
    for figure in (selection_steps(trajectory), selection_trajectories(trajectory)):
        assert UNMEASURED in words(figure)
    values = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    history = pd.DataFrame({"step": [0], "reward": [0.0]})
    search = Selection(HeadSet.of(4, 5, [(0, 1)]), HeadScores("selection probability", values), history)
    shapley = attribution("shapley", 3)
    assert UNMEASURED in words(selection_probabilities({"safe": search}))
    known = words(selection_probabilities({"safe": search}, attributions={"safe": shapley}))
    scores = {name: one.flatten().numpy() for name, one in (("a", values), ("b", shapley.values["probability"]))}
    rho = pd.DataFrame(scores).corr("spearman").loc["a", "b"]
    assert f"rank correlation with Shapley value {rho:.2f} (" in known and UNMEASURED not in known


def test_a_head_card_as_a_figure_says_it():
    attention, tokens, scores = card()
    assert UNMEASURED in words(head_card_figure(attention, tokens, scores))
    cheap = scores["measure"] == "gradient"
    known = scores.assign(causal=np.where(cheap, "injection", ""), spearman=0.5, spearman_low=0.25, spearman_high=0.75)
    text = words(head_card_figure(attention, tokens, known.assign(compared=48)))
    assert "is cheap: rank correlation with Injected alone 0.50 to 0.50 in 8 criteria" in text
    assert UNMEASURED not in text
