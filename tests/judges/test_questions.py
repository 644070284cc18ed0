from __future__ import annotations

from collections import Counter

import pytest

from arm_lens import JudgeTemplate, LabelledResponse, PreferencePair, PromptTooLongError
from arm_lens.engine.verdict_tokens import resolve_verdicts
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import (
    Question,
    encode_questions,
    in_turn,
    questions_of,
    sample_demonstrations,
    verdicts_of,
)

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", ranked="request: {prompt} {response_a} , {response_b}",
    cue=" verdict:", separator=" ", yes=("Yes",), no=("No",), first=("warm",), second=("cold",), chat=False,
)  # fmt: skip
PAIRS = [PreferencePair(f"garden {i}", f"warm {i}", f"cold {i}", id=f"pair {i}") for i in range(40)]


def test_a_pair_gives_a_question_that_is_met_and_one_that_is_not():
    questions = questions_of(PAIRS[:1], TEMPLATE)
    assert [(one.text, one.positive) for one in questions] == [
        ("request: garden 0 reply: warm 0", True),
        ("request: garden 0 reply: cold 0", False),
    ]


def test_ranked_questions_show_the_chosen_response_first_half_the_time_and_know_where_it_is():
    questions = questions_of(PAIRS, TEMPLATE, "ranked", seed=1)
    for number, one in enumerate(questions):
        first, second = (f"warm {number}", f"cold {number}") if one.positive else (f"cold {number}", f"warm {number}")
        assert one.text == f"request: garden {number} {first} , {second}"
    assert sum(one.positive for one in questions) == 20
    assert questions == questions_of(PAIRS, TEMPLATE, "ranked", seed=1)


def test_a_single_response_cannot_be_ranked_and_is_named():
    with pytest.raises(ValueError, match="row 3 is a single labelled response"):
        questions_of([LabelledResponse("p", "r", True, id="row 3")], TEMPLATE, "ranked")


def test_prompts_hold_the_worked_examples_with_their_verdicts_and_end_before_the_verdict(model_of, tokenizer):
    questions = questions_of(PAIRS[:1], TEMPLATE)
    options = QuestionOptions(template=TEMPLATE)
    (ids,) = encode_questions(model_of("llama"), options, questions[:1], demonstrations=[questions[1:]])
    words = tokenizer.convert_ids_to_tokens(ids)
    assert words[0] == "<bos>"
    assert words[-1] == "verdict:"
    assert words[words.index("verdict:") + 1] == "no"


def test_each_layout_has_its_verdicts(tokenizer):
    scalar, ranked = (resolve_verdicts(tokenizer, *verdicts_of(TEMPLATE, layout)) for layout in ("scalar", "ranked"))
    assert tokenizer.convert_ids_to_tokens([*scalar.positive, *scalar.negative]) == ["yes", "no"]
    assert tokenizer.convert_ids_to_tokens([*ranked.positive, *ranked.negative]) == ["warm", "cold"]


def test_the_example_whose_prompt_is_too_long_is_named(model_of):
    long = PreferencePair("garden " * 600, "warm", "cold", id="file.jsonl:12")
    with pytest.raises(
        PromptTooLongError, match=r"file\.jsonl:12/chosen: the prompt has 60\d tokens.*on_too_long='clip'"
    ):
        encode_questions(
            model_of("llama"), QuestionOptions(template=TEMPLATE), questions_of([*PAIRS[:2], long], TEMPLATE)
        )


def test_worked_examples_are_distinct_and_never_the_question_itself():
    pool = [Question(str(i), bool(i % 2), str(i)) for i in range(9)]
    for question, demonstrations in zip(pool, sample_demonstrations(pool, pool, 8, seed=0), strict=True):
        assert question not in demonstrations
        assert len(set(demonstrations)) == 8
    assert sample_demonstrations(pool, pool, 3, seed=0) == sample_demonstrations(pool, pool, 3, seed=0)
    assert sample_demonstrations(pool, pool, 3, seed=0) != sample_demonstrations(pool, pool, 3, seed=1)


@pytest.mark.parametrize("positive", [100, 150, 199])
@pytest.mark.parametrize("count", [64, 200, 464])
def test_questions_are_asked_in_turn_and_a_choice_of_a_sorted_file_has_its_share_of_each_kind(positive, count):
    pool = [Question(str(i), i < positive, str(i)) for i in range(200)]
    asked = in_turn(pool, count, seed=0)
    turns, rest = divmod(count, 200)
    times = Counter(asked)
    assert len(asked) == count and asked[: 200 * turns] == pool * turns
    assert set(times.values()) <= {turns, turns + 1} and sum(times[one] == turns + 1 for one in pool) == rest
    chosen = asked[200 * turns :]
    assert abs(sum(one.positive for one in chosen) - rest * positive / 200) <= 1
    assert asked == in_turn(pool, count, seed=0) and (not rest or asked != in_turn(pool, count, seed=1))
    if rest:  # from beginning to end, not the first ones
        assert max(int(one.text) for one in chosen if one.positive) > 0.8 * positive


def test_too_small_a_pool_is_an_error_with_both_numbers():
    pool = [Question(str(i), True, str(i)) for i in range(3)]
    with pytest.raises(ValueError, match="5 demonstrations are wanted for 0, but there are 2 others"):
        sample_demonstrations(pool, pool, 5, seed=0)
