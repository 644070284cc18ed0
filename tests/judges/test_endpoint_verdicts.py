"""A verdict is read where one stands, and nowhere else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_lens.evaluation.health import LEAST_MASS
from arm_lens.judges.endpoint.answers import Answer, AnswerToken
from arm_lens.judges.endpoint.verdicts import LEAST_LOGPROB, VerdictReader

YES_NO = VerdictReader(("Yes",), ("No",))
REASONED = VerdictReader(("Yes",), ("No",), rationale=True)
A_B = VerdictReader(("A",), ("B",))


def tokens(*likely: tuple[str, dict[str, float]]) -> tuple[AnswerToken, ...]:
    return tuple(
        AnswerToken(text, math.log(top[text]), tuple((token, math.log(p)) for token, p in top.items()))
        for text, top in likely
    )


def answer(*likely: tuple[str, dict[str, float]], finish: str = "stop") -> Answer:
    return Answer("".join(text for text, _ in likely), finish, 1, 1, tokens(*likely))


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("Yes", True), ("no", False), ("YES.", True), (" No,\n", False), ("**Yes**", True), ("`no`", False),
        ('"Yes"', True), ("'No'", False), ("Answer: Yes", True), ("**Answer:** No.", False), ("The answer is yes.", True),
        ("Final verdict: **No**", False), ("Answer:\nYes", True), ("Yes - it is short.", True), ("\\boxed{Yes}", True),
        ("No, it is not. There is no yes in it", False), ("Yes it does", True), ("No the tone is off", False),
        ("It does, so yes.", True), ("I would say no.", False), ("Yes/No? No", False), ("Yes or No? Yes.", True),
        ("<think>No... no.</think>\nYes", True), ("Yes。", None), ("", None), ("Maybe.", None), ("Yes/No", None),
        ("There is no reason to doubt it", None), ("Answer Yes or No.", None), ("Yesterday", None), ("Nonetheless.", None),
        ("Yes. On reflection, my answer: No.", None), ("It is polite? Yes. Is it true? No.", None),
        ("<think>I believe Yes.", None), ("I would not say yes to this one, not yes.", None), ("know.", None),
    ],
)  # fmt: skip
def test_a_plain_answer_is_read_as_a_person_would(text, verdict):
    assert YES_NO.read_text(text) is verdict


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("A", True), ("b", False), ("B.", False), ("(A)", True), ("Response B", False), ("Response A.", True),
        ("Answer: b", False), ("A: it is shorter", True), ("The better one is A.", True), ("**Response B**", False),
        ("A response like this is rude", None), ("As a rule, neither", None), ("It has a, b and c", None), ("AB", None),
        ("Response A is longer and response B is kinder", None), ("A and B.", None), ("A or B.", None),
        ("Neither A nor B.", None),
    ],
)  # fmt: skip
def test_a_letter_is_a_verdict_only_where_it_is_no_article(text, verdict):
    assert A_B.read_text(text) is verdict


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("It says no. That is rude.\nNo one would like it.\n\nYes", True), ("Because it is short.\n**Verdict: No**", False),
        ("Yes, the tone is right.\nNo, the facts are not.\nTherefore, no.", False), ("Reasons.\nSo yes.\n", True),
        ("Reasons.\nAnswer: Yes\nI hope this helps!", True), ("Yes, one could think so.\nBut who knows", None),
        ("The answer: No is tempting.\nAnswer: Yes", True),
    ],
)  # fmt: skip
def test_a_verdict_after_a_rationale_stands_on_the_last_line(text, verdict):
    assert REASONED.read_text(text) is verdict


def test_a_rationale_that_was_cut_off_holds_no_verdict():
    assert REASONED.read(Answer("It is short.\nYes", "stop", 1, 1)).positive is True
    assert REASONED.read(Answer("It is short.\nYes", "length", 1, 1)).positive is None


@pytest.mark.slow
@given(st.text(), st.sampled_from([YES_NO, REASONED, A_B]))
def test_no_text_breaks_the_reader(text, reader):
    assert reader.read_text(text) in (True, False, None)


def test_other_spellings_are_read_and_need_no_escaping():
    reader = VerdictReader(("c++", "True"), ("c--",))
    assert reader.read_text("Answer: C++.") is True
    assert reader.read_text("c--") is False
    assert reader.read_text("true!") is True


def test_probabilities_of_all_spellings_are_summed():
    reading = YES_NO.read(answer(("Yes", {"Yes": 0.6, " yes": 0.1, "No": 0.15, " NO": 0.05, "Maybe": 0.1})))
    assert reading.probability == pytest.approx(0.7 / 0.9)
    assert reading.log_odds == pytest.approx(math.log(0.7 / 0.2))


def test_probabilities_are_read_at_the_token_where_the_verdict_stands():
    bold = answer(("**", {"**": 0.9, "Yes": 0.1}), ("No", {"No": 0.8, "Yes": 0.2}), ("**", {"**": 1.0}))
    assert YES_NO.read(bold).probability == pytest.approx(0.2)
    later = answer(
        ("No", {"No": 1.0}), (" doubt", {" doubt": 1.0}), (": ", {": ": 1.0}), ("Yes", {"Yes": 0.7, "No": 0.3})
    )
    assert YES_NO.read_text(later.text) is True
    assert YES_NO.read(later).probability == pytest.approx(0.7)


def test_without_a_verdict_in_the_text_the_first_token_is_read_as_from_an_open_model():
    assert YES_NO.read(answer(("Hm", {"Hm": 0.5, "Yes": 0.3, "No": 0.1}))).probability == pytest.approx(0.75)
    assert YES_NO.read(answer(("Hm", {"Hm": 0.9, "Er": 0.1}))) == YES_NO.read(Answer("Hm", "stop", 1, 1))


def test_a_letter_among_the_likely_tokens_counts_only_in_its_own_case():
    assert A_B.read(answer(("B", {"B": 0.5, " a": 0.4, "A": 0.1}))).log_odds == pytest.approx(math.log(0.1 / 0.5))


@pytest.mark.parametrize(
    "top, other",
    [
        ({"Yes": 0.97, "Maybe": 0.02}, 0.01),  # what the list leaves over
        ({"Yes": 0.5, "Maybe": 0.02}, 0.02),  # no likelier than the least likely listed
        ({"Yes": 1.0}, math.exp(LEAST_LOGPROB)),
    ],
)
def test_an_unlisted_verdict_is_no_likelier_than_it_can_be(top, other):
    assert YES_NO.read(answer(("Yes", top))).log_odds == pytest.approx(math.log(top["Yes"] / other))


@pytest.mark.parametrize("least", [-9999.0, -math.inf])
def test_log_odds_are_finite_whatever_the_endpoint_sends(least):
    token = AnswerToken("Yes", 0.0, (("Yes", 0.0), ("No", least)))
    assert YES_NO.read(Answer("Yes", "stop", 1, 1, (token,))).log_odds == -LEAST_LOGPROB


@given(st.lists(st.floats(1e-6, 1), min_size=3, max_size=3))
def test_the_log_odds_are_those_of_the_listed_probabilities(weights):
    yes, no, rest = (weight / sum(weights) for weight in weights)
    reading = YES_NO.read(answer(("Hm", {"Yes": yes, "No": no, "Hm": rest})))
    if yes + no < LEAST_MASS:  # it would rather say "Hm"
        assert reading.log_odds is None
        return
    assert reading.log_odds == pytest.approx(math.log(yes) - math.log(no))
    assert reading.probability == pytest.approx(yes / (yes + no))
