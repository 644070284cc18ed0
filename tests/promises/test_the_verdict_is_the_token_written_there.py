"""The verdict that is read is the token that the model would write at that place."""

from __future__ import annotations

import warnings

import pytest
import torch
from promises.asking_support import CHATML, KINDS, LLAMA_2, VICUNA, ZEPHYR, byte_level, llama_2, saying

from arm_lens import GenerativeJudge, JudgeTemplate, LabelledResponse
from arm_lens.engine.steering import steer
from arm_lens.engine.tokens import encode_text
from arm_lens.engine.verdict_tokens import VerdictPieceWarning, VerdictTokenError, resolve_verdicts
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, encode_questions, render_question, verdict_tokens_of
from arm_lens.judges.verdict_mass import VerdictMassWarning

pytestmark = pytest.mark.tl4

CHATS = {"base": None, "chatml": CHATML, "zephyr": ZEPHYR, "llama-2": LLAMA_2, "vicuna": VICUNA}


def followed_by(tokenizer, text, word):
    """The first token that a text has if a word follows and not without it, from the tokenizer alone."""
    alone = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.encode(text + word, add_special_tokens=False)
    same = next(number for number, pair in enumerate(zip([*alone, None], whole, strict=False)) if pair[0] != pair[1])
    return same, whole[same:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chat", CHATS)
def test_the_token_that_follows_the_prompt_is_read_whatever_the_tokenizer(kind, chat):
    tokenizer = KINDS[kind](CHATS[chat])
    options = QuestionOptions(template=JudgeTemplate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdicts = verdict_tokens_of(tokenizer, options)
    text = str(render_question(tokenizer, options, Question(JudgeTemplate().question("garden", "warm"), True, "")))
    for word, side in (("Yes", verdicts.positive), ("No", verdicts.negative)):
        read = text.removesuffix(verdicts.overlap)
        for space in (" ", "") if not verdicts.overlap else (verdicts.overlap,):
            same, after = followed_by(tokenizer, read, space + word)
            if len(after) == 1:
                assert same == len(tokenizer.encode(read, add_special_tokens=False))
                assert after[0] in side
    assert not set(verdicts.positive) & set(verdicts.negative)
    assert tokenizer.unk_token_id not in (*verdicts.positive, *verdicts.negative)


def test_a_sentencepiece_tokenizer_spells_yes_otherwise_after_a_line_break_and_that_is_read():
    tokenizer = llama_2(ZEPHYR)
    model = saying(tokenizer, "Yes", strength=9.0)  # the token without a space, as after a line break
    assert float(GenerativeJudge(model).score(["q"], ["r"])) > 0.99


def test_the_prompt_is_read_without_white_space_that_is_one_token_with_the_verdict():
    tokenizer = byte_level(VICUNA)
    options = QuestionOptions(template=JudgeTemplate())
    assert verdict_tokens_of(tokenizer, options).overlap == " "
    model = saying(tokenizer)
    (ids,) = encode_questions(model, options, [Question("q", True, "")])
    rendered = str(render_question(tokenizer, options, Question("q", True, "")))
    assert rendered.endswith("ASSISTANT: ")
    for word, side in (("Yes", "positive"), ("No", "negative")):
        whole = tokenizer.encode(rendered + word, add_special_tokens=False)
        assert whole[:-1] == ids
        assert whole[-1] in getattr(verdict_tokens_of(tokenizer, options), side)


def test_letters_that_are_one_token_with_the_verdict_are_refused_in_words():
    tokenizer = byte_level()
    with pytest.raises(VerdictTokenError, match=r"ends in 'Answer: Y'.*one token with the verdict 'es'"):
        resolve_verdicts(tokenizer, ["es"], ["No"], before="Answer: Y")


def test_a_verdict_of_several_tokens_is_read_by_its_first_with_a_warning_and_never_by_a_letter():
    tokenizer = byte_level()
    with pytest.warns(VerdictPieceWarning, match="'warmish' is several tokens"):
        found = resolve_verdicts(tokenizer, ["warmish"], ["No"], before="Answer:")
    pieces = [tokenizer.decode([one]).strip() for one in found.positive]
    assert "warm" in pieces and all("warmish".startswith(one) and len(one) > 1 for one in pieces)
    with pytest.raises(VerdictTokenError, match="'Zebra' cannot be read from one token"):
        resolve_verdicts(tokenizer, ["Zebra"], ["No"], before="Answer:")


def test_verdicts_that_begin_alike_are_an_error_that_names_both():
    tokenizer = byte_level()
    with (
        pytest.warns(VerdictPieceWarning),
        pytest.raises(VerdictTokenError, match="'Yessir' and 'Yes' begin with the same"),
    ):
        resolve_verdicts(tokenizer, ["Yessir"], ["Yes"], before="Answer:")


def test_tokens_follow_the_chat_template_its_settings_and_the_tokenizer():
    tokenizer = llama_2(ZEPHYR)
    options = QuestionOptions(template=JudgeTemplate())
    after_break = set(verdict_tokens_of(tokenizer, options).positive)
    assert tokenizer.convert_tokens_to_ids("Yes") in after_break
    tokenizer.chat_template = VICUNA  # the same tokenizer, another template: nothing old is used
    assert verdict_tokens_of(tokenizer, options).overlap == " "
    tokenizer.chat_template = ZEPHYR
    assert set(verdict_tokens_of(tokenizer, options).positive) == after_break
    other = QuestionOptions(template=JudgeTemplate(yes=("No",), no=("Yes",)))
    assert set(verdict_tokens_of(tokenizer, other).negative) == after_break


def test_the_score_is_the_probability_of_those_tokens_steered_or_not():
    tokenizer = llama_2(ZEPHYR)
    model = saying(tokenizer)
    judge = GenerativeJudge(model)
    prompts, responses = ["q", "what?"], ["r", "this"]
    values = torch.full((1, 2, 8), 0.5)
    heads = torch.ones(1, 2, dtype=torch.bool)
    for steered in (False, True):
        expected = []
        for number, both in enumerate(zip(prompts, responses, strict=True)):
            rendered = render_question(
                tokenizer, judge.question, Question(judge.template.question(*both), True, str(number))
            )
            ids = torch.tensor([encode_text(tokenizer, rendered)])
            tokens = [followed_by(tokenizer, str(rendered), space + word)[1]
                      for word in ("Yes", "YES", "yes") for space in ("", " ")]  # fmt: skip
            single = sorted({one[0] for one in tokens if len(one) == 1})
            with steer(model, heads, values) if steered else torch.no_grad():
                expected.append(model(ids)[0, -1].softmax(dim=-1)[single].sum())
        with steer(model, heads, values) if steered else torch.no_grad():
            found = judge.score(prompts, responses)
        torch.testing.assert_close(found, torch.stack(expected).detach(), atol=1e-6, rtol=1e-4)


def test_a_model_that_would_rather_say_something_else_is_reported_once_with_what_it_would_say():
    tokenizer = byte_level(CHATML)
    model = saying(tokenizer, "A", strength=9.0)
    judge = GenerativeJudge(model)
    with pytest.warns(VerdictMassWarning, match="rather write 'A' \\(") as caught:
        judge.score(["q", "p"], ["r", "s"])
        judge.score(["q"], ["other"])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert judge.verdict_mass.n == 3
    assert judge.verdict_mass.mean == pytest.approx(float(judge.verdicts(["q"], ["r"]).mass.mean()))
    assert judge.verdict_mass.mean < 0.1
    assert judge.verdict_mass.preferred[0][0] == "A"


def test_a_model_that_gives_verdicts_is_not_warned_of():
    tokenizer = byte_level(CHATML)
    judge = GenerativeJudge(saying(tokenizer, "ĠNo", strength=9.0), examples=[LabelledResponse("x", "y", True)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge.score(["q"], ["r"])
    assert judge.verdict_mass.mean > 0.9 and judge.verdict_mass.preferred == ()
