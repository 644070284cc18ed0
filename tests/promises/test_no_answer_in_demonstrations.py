"""Nothing is judged with its own answer among its demonstrations."""

from __future__ import annotations

import warnings

import pytest
from promises.asking_support import CHATML, byte_level, saying

from arm_lens import GenerativeJudge, LabelledResponse, PreferencePair
from arm_lens.judges.endpoint import EndpointJudge, EndpointOptions
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import OwnAnswerWarning, questions_of, sample_demonstrations
from arm_lens.judges.template import JudgeTemplate


@pytest.fixture(scope="module")
def model():
    return saying(byte_level(CHATML), context=2048)


@pytest.mark.parametrize("prompt", ["question", "  question\n", [{"role": "user", "content": "question"}]])
def test_a_question_among_its_own_demonstrations_is_said_with_its_row(model, prompt):
    shown = [LabelledResponse("question", "an answer", True), LabelledResponse("other", "an answer", False)]
    judge = GenerativeJudge(model, examples=shown)
    with pytest.warns(OwnAnswerWarning, match="^example 1: the question is among its own demonstrations") as caught:
        judge.score(["new", prompt, "question"], ["an answer", "an  answer", "another"])
    assert sum(one.category is OwnAnswerWarning for one in caught) == 1


def test_a_pair_is_its_own_answer_in_either_order(model):
    judge = GenerativeJudge(model, examples=[PreferencePair("q", "a", "b")], question=QuestionOptions(layout="ranked"))
    for one, other in (("a", "b"), ("b ", "a")):
        with pytest.warns(OwnAnswerWarning, match="pair 0"):
            judge.prefer("q", one, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnAnswerWarning)
        judge.prefer("q", "a", "c")


def test_another_response_to_the_same_prompt_is_not_its_own_answer(model):
    judge = GenerativeJudge(model, examples=[LabelledResponse("q", "a", True)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnAnswerWarning)
        judge.score(["q"], ["b"])


@pytest.mark.parametrize("layout", ["scalar", "ranked"])
def test_demonstrations_are_never_about_the_texts_that_are_judged_even_if_they_were_read_twice(layout):
    rows = [PreferencePair(f"question {i}", f"good {i}", f"bad {i}") for i in range(12)]
    template = JudgeTemplate()
    test = questions_of(rows, template, layout, seed=0)
    pool = questions_of([*rows, *rows], template, layout, seed=1)  # read again, and each row twice
    for seed in range(5):
        for question, context in zip(test, sample_demonstrations(pool, test, 8, seed=seed), strict=True):
            assert len(context) == 8
            assert question.about not in [one.about for one in context]


def test_a_pool_of_repeated_questions_gives_as_many_demonstrations_as_it_has():
    pool = questions_of([LabelledResponse("q", "r", True)] * 3 + [LabelledResponse("p", "r", False)], JudgeTemplate())
    contexts = sample_demonstrations(pool, pool, 3, seed=0)
    assert [len(one) for one in contexts] == [1, 1, 1, 3]


def test_an_endpoint_knows_what_it_was_shown(model):
    shown = [LabelledResponse(f"p {number}", f"r {number}", number % 2 == 0, id=f"row {number}") for number in range(6)]
    open_to_all = EndpointOptions(api_key_env=None)
    asked = EndpointJudge("name", examples=shown[:3], endpoint=open_to_all)
    for judge in (asked, GenerativeJudge(model, examples=shown[:3])):
        assert judge.fitted_among(shown) == ("row 0", "row 1", "row 2")
    assert EndpointJudge("name", endpoint=open_to_all).fitted_among(shown) == ()
