"""Malformed messages, prompts that are too long and numbers that are none: an error or a warning that names the row, in every
judge, and never the end of a training run."""

from __future__ import annotations

import bisect
import math
import warnings

import pytest
import torch
from promises.asking_support import CHATML, byte_level, saying

from arm_lens import GenerativeJudge, LabelledResponse
from arm_lens.engine.protocol import NotFiniteError
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges import fit_judge
from arm_lens.judges.base import Comparison
from arm_lens.judges.checks import SkippedWarning, checked, scores_of_rest
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import ClippedPromptWarning, Question, encode_questions

LOCAL = ("generative", "few_shot", "voting", "sav", "probe", "arm_all_heads", "likelihood")
EVERY = (*LOCAL, "length", "random", "constant")
EXAMPLES = [LabelledResponse(f"garden {i}", f"warm {i}", bool(i % 2)) for i in range(8)]
LONG = "garden " * 500
BAD = {
    "None": (None, "None"),
    "a number": (7, "7"),
    "no content": ([{"role": "assistant"}], "content"),
    "None as content": ([{"role": "assistant", "content": None}], "content"),
    "an image": ([{"role": "assistant", "content": [{"type": "image"}]}], "image"),
}


@pytest.fixture(scope="module")
def model():
    return saying(byte_level(CHATML), context=512)


def judge_of(name, model, **question):
    reading = ReadingOptions(demonstrations=1, readings=4)
    options = {"demonstrations": 1} if name == "few_shot" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_judge(name, model, EXAMPLES, options, question=QuestionOptions(**question), reading=reading)


def quietly(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bad", BAD)
def test_a_text_that_is_none_is_refused_with_its_row_and_field(model, name, bad):
    value, named = BAD[bad]
    judge = judge_of(name, model)
    with pytest.raises(ValueError, match=f"example 1: the response .*{named}"):
        judge.score(["q", "q"], ["fine", value])
    with pytest.raises(ValueError, match=f"(pair|example) 1: the (first response|prompt|response) .*{named}"):
        judge.margins(["q", value], ["a", "b"], ["c", "d"])


@pytest.mark.parametrize("name", EVERY)
def test_one_text_instead_of_a_list_is_refused(model, name):
    with pytest.raises(ValueError, match="are one text; pass a list"):
        judge_of(name, model).score("q", "r")


@pytest.mark.parametrize("name", EVERY)
def test_different_tool_calls_are_different_texts(model, name):
    def talk(function):
        call = {"type": "function", "function": {"name": function, "arguments": {}}}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "done"},
                {"role": "assistant", "content": "Done."}]  # fmt: skip

    rewards = quietly(
        judge_of(name, model), prompts=["q", "q"], completions=[talk("list_files"), talk("delete_all_files")]
    )
    if name not in (
        "constant",
        "voting",
        "sav",
        "arm_all_heads",
    ):  # these have few values, or replace all that heads read
        assert rewards[0] != rewards[1]
    assert None not in rewards


@pytest.mark.parametrize("name", LOCAL)
def test_a_prompt_that_is_too_long_is_an_error_with_its_row_and_lengths_before_any_pass(model, name):
    judge = judge_of(name, model)
    passes = []
    handle = model.original_model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        with pytest.raises(PromptTooLongError, match=r"example 1: .* \d+ tokens.* 512"):
            judge.score(["q", LONG], ["a", "b"])
    finally:
        handle.remove()
    assert not passes


@pytest.mark.parametrize("name", LOCAL)
def test_skipped_rows_are_nan_with_one_warning_and_no_preference(model, name):
    judge, usual = judge_of(name, model, on_too_long="skip"), judge_of(name, model)
    with pytest.warns(SkippedWarning, match="example 1: no score") as caught:
        found = judge.score(["q", LONG, "p"], ["a", "b", "c"])
    assert sum(one.category is SkippedWarning for one in caught) == 1
    assert math.isnan(found[1])
    torch.testing.assert_close(found[[0, 2]], quietly(usual.score, ["q", "p"], ["a", "c"]))
    preferred = quietly(judge.prefer, ["q", LONG], ["a", "b"], ["b", "c"])
    assert preferred[1].preferred is None and preferred[0].preferred is not None
    assert quietly(judge.score, [LONG], ["a"]).isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_clipped_prompts_have_the_score_of_the_longest_that_fits(model, name):
    judge = judge_of(name, model, on_too_long="clip")
    with pytest.warns(ClippedPromptWarning, match="example 1"):
        found = judge.score(["q", LONG + "river"], ["a", "b"])
    assert torch.isfinite(found).all()
    if name in ("generative", "few_shot", "voting"):
        return  # their demonstrations go first
    unclipped = judge_of(name, model)
    text = LONG + "river"
    least = bisect.bisect(range(len(text)), 0, key=lambda count: not unclipped.too_long([text[count:]], ["b"]))
    # A word that is cut may be more tokens than a whole one.
    near = [text[count:] for count in range(least - 16, least + 16) if not unclipped.too_long([text[count:]], ["b"])]
    scores = quietly(unclipped.score, near, ["b"] * len(near))
    assert (scores - found[1]).abs().min() < 1e-5


def test_the_oldest_demonstrations_are_clipped_first_and_the_response_never(model):
    options = QuestionOptions(on_too_long="clip")
    demonstrations = [Question("old " * 300, True, "old"), Question("recent", False, "recent")]
    template = GenerativeJudge(model).template
    question = Question(template.question("PROMPT", "RESPONSE " * 20), True, "one")
    with pytest.warns(ClippedPromptWarning, match="one: "):
        (ids,) = encode_questions(model, options, [question], demonstrations=[demonstrations])
    text = model.tokenizer.decode(ids)
    assert "old old" not in text and "recent" in text and "PROMPT" in text and text.count("RESPONSE") == 20
    response = Question(template.question("PROMPT", "RESPONSE " * 500), True, "one")
    with pytest.raises(PromptTooLongError, match="one: "):
        encode_questions(model, options, [response], demonstrations=[demonstrations])


@pytest.mark.parametrize("name", LOCAL)
def test_a_training_run_gets_none_for_what_cannot_be_judged_and_one_warning_that_names_the_rows(model, name):
    judge = judge_of(name, model)
    bad = [one for one, _ in BAD.values()]
    prompts = ["q", *["q"] * len(bad), LONG, "p"]
    completions = ["a", *bad, "b", [{"role": "assistant", "content": "c"}]]
    with pytest.warns(
        SkippedWarning, match=r"row 1, row 2, row 3, row 4, row 5 and 1 more: no reward.*row 1: completion is None"
    ) as caught:
        rewards = judge(prompts=prompts, completions=completions, answer=["x"] * len(prompts))
    assert sum(one.category is SkippedWarning for one in caught) == 1
    assert [number for number, one in enumerate(rewards) if one is None] == [1, 2, 3, 4, 5, 6]
    expected = quietly(judge.score, ["q", "p"], ["a", "c"]).tolist()
    assert [rewards[0], rewards[-1]] == pytest.approx(expected)
    assert quietly(judge, prompts=[LONG], completions=["a"]) == [None]


# ------------------------------------------------------------------------------------------ not finite


@pytest.fixture(scope="module")
def judged_before(model):
    """Judges that were fitted while all was well."""
    return {name: judge_of(name, model) for name in LOCAL}


@pytest.fixture
def overflowing(model):
    """The model while its last layer's activations are beyond every dtype if a prompt contains a word."""
    word = model.tokenizer.encode("~", add_special_tokens=False)[-1]
    tokens = []
    embed, block = model.original_model.model.embed_tokens, model.original_model.model.layers[0]

    def overflow(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        rows = (tokens[-1] == word).any(dim=1)
        hidden = torch.where(rows[:, None, None], torch.nan, hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [
        embed.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0])),
        block.register_forward_hook(overflow),
    ]
    yield model
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", LOCAL)
def test_a_number_that_is_none_is_an_error_that_names_the_row_and_the_likely_cause(
    name, model, judged_before, overflowing
):
    judge = judged_before[name]
    for call, row in (
        (lambda: judge.score(["q", "q"], ["fine", "~"]), "example 1"),
        (lambda: judge.prefer("q", "fine", "~"), "(pair 0|example 1)"),
        (lambda: judge.gaps(["q", "q", "q"], ["~", "so", "~"]), "example 0"),
        (lambda: judge(prompts=["q", "q"], completions=["fine", "~"]), "example 1"),
    ):
        with pytest.raises(NotFiniteError, match=f"{row}: .*float32.* weights"):
            quietly(call)


def test_a_row_is_named():
    with pytest.raises(NotFiniteError, match=r"row 7: .*dtype=torch\.bfloat16"):
        checked(torch.tensor([1.0, math.inf]), ["row 6", "row 7"])
    with pytest.raises(NotFiniteError, match="example 0: "):
        checked(torch.tensor([[0.0, math.nan], [1.0, 1.0]]), "example")


@pytest.mark.parametrize("error", [NotFiniteError, ValueError])
def test_a_row_keeps_its_name_if_others_are_skipped(error):
    def scores(prompts, responses):
        raise error(f"example {responses.index('~')}: no number of 2 examples")

    texts = [LONG, "fine", LONG, "~"]
    with pytest.warns(SkippedWarning), pytest.raises(error, match=r"^example 3: no number of 2 examples$"):
        scores_of_rest(["q"] * 4, texts, {0: "too long", 2: "too long"}, scores)


def test_a_margin_that_is_not_a_number_is_no_tie():
    assert Comparison.of(math.nan).preferred is None
    assert Comparison.of(0.0).preferred == "tie"


def test_likelihood_of_a_conversation_reads_every_message(model):
    judge = LikelihoodJudge(model)
    talks = [
        [{"role": "user", "content": [{"type": "text", "text": one}]}, {"role": "assistant", "content": "ok"},
         {"role": "user", "content": "go"}]
        for one in ("this", "that")
    ]  # fmt: skip
    first, second = judge.score(talks, ["warm", "warm"]).tolist()
    assert first != second
