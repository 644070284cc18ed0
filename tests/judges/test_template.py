"""Templates and verdict tokens, on tokenizers of three kinds made here."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from arm_lens import JudgeTemplate
from arm_lens.engine import VerdictTokenError, VerdictTokens, resolve_verdicts
from arm_lens.engine.verdict_tokens import verdict_scores

CORPUS = [
    "Answer: Yes",
    "Answer: No",
    "Yes",
    "No",
    "yes no",
    "A or B",
    "Response A:",
    "Response B:",
    "the cat sat",
] * 50


@pytest.fixture(scope="module")
def byte_level():
    """GPT-2's kind: the leading space belongs to the token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def sentencepiece_like():
    """Llama 2's kind: every word starts with a mark for the space in front of it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def decoded(tokenizer, ids):
    return {tokenizer.decode([one]).strip() for one in ids}


def test_every_single_token_spelling_is_found_with_and_without_the_leading_space(byte_level):
    found = resolve_verdicts(byte_level, ["Yes"], ["No"])
    words = {byte_level.convert_ids_to_tokens(one) for one in found.positive}
    assert {"Yes", "ĠYes", "yes"} <= words
    assert decoded(byte_level, found.positive) == {"Yes", "yes"}
    assert decoded(byte_level, found.negative) == {"No", "no"}


def test_a_letter_is_no_article(byte_level):
    found = resolve_verdicts(byte_level, ["A"], ["B"])
    assert decoded(byte_level, found.positive) == {"A"}
    assert decoded(byte_level, found.negative) == {"B"}


def test_the_space_mark_of_sentencepiece_is_found(sentencepiece_like):
    found = resolve_verdicts(sentencepiece_like, ["Yes"], ["No"])
    assert sentencepiece_like.convert_ids_to_tokens(list(found.positive))[0] == "▁Yes"


def test_the_token_that_follows_the_cue_is_among_those_found(byte_level, sentencepiece_like):
    for tokenizer in (byte_level, sentencepiece_like):
        template = JudgeTemplate(chat=False)
        question = template.question("the cat", "sat")
        prompt = template.render(tokenizer, question)
        demonstrations = template.render(tokenizer, question, examples=[(question, "Yes")])
        before, after = tokenizer.encode(prompt), tokenizer.encode(demonstrations)
        assert after[: len(before)] == before
        assert after[len(before)] in resolve_verdicts(tokenizer, ["Yes"], ["No"]).positive


def test_a_verdict_of_several_tokens_is_an_error_that_says_which(byte_level):
    with pytest.raises(VerdictTokenError, match=r"'Absolutely'.*\['A', "):
        resolve_verdicts(byte_level, ["Absolutely"], ["No"])


def test_a_verdict_the_tokenizer_does_not_know_is_an_error_not_the_unknown_token(tokenizer):
    with pytest.raises(VerdictTokenError, match="Absolutely"):
        resolve_verdicts(tokenizer, ["Absolutely"], ["No"])


def test_a_token_that_spells_both_verdicts_is_an_error(tokenizer):
    with pytest.raises(VerdictTokenError, match="both"):
        resolve_verdicts(tokenizer, ["Yes"], ["yes", "No"])


def test_the_three_scores_agree_with_the_softmax_over_the_whole_vocabulary(generator):
    logits = torch.randn(5, 11, generator=generator)
    scores = verdict_scores(logits, VerdictTokens((2, 3), (7,)))
    p = logits.double().exp() / logits.double().exp().sum(dim=-1, keepdim=True)
    yes, no = p[:, 2] + p[:, 3], p[:, 7]
    torch.testing.assert_close(scores.probability.double(), yes, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scores.two_way.double(), yes / (yes + no), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scores.gap.double(), (yes / no).log(), atol=1e-5, rtol=1e-5)


def test_extreme_logits_give_finite_scores():
    scores = verdict_scores(torch.tensor([[1000.0, -1000.0, 0.0]]), VerdictTokens((0,), (1,)))
    assert torch.isfinite(scores.gap).all()
    assert float(scores.probability) == 1.0


def test_a_base_model_reads_examples_in_order_then_the_question_up_to_the_cue(tokenizer):
    template = JudgeTemplate(
        header="C={criterion};", scalar="[{prompt}|{response}]", cue=" ->", separator=" ", chat=False
    )
    text = template.render(
        tokenizer,
        template.question("p", "r"),
        examples=[(template.question("a", "b"), "Yes"), (template.question("c", "d"), "No")],
        criterion="short",
    )
    assert text == "C=short;[a|b] -> Yes [c|d] -> No [p|r] ->"


def test_an_unnamed_criterion_leaves_the_header_out(tokenizer):
    template = JudgeTemplate(chat=False)
    assert "Criterion" not in template.render(tokenizer, template.question("p", "r"))


def test_a_chat_model_gets_examples_as_turns_and_the_header_once(tokenizer):
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    template = JudgeTemplate(header="C={criterion};", scalar="[{prompt}|{response}]")
    text = template.render(chatty, template.question("p", "r"), examples=[("[a|b]", "Yes")], criterion="short")
    assert text == "<user>C=short;[a|b]</user><assistant>Yes</assistant><user>[p|r]</user><assistant>"


def test_asking_a_base_tokenizer_as_a_chat_model_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="no chat template"):
        JudgeTemplate(chat=True).render(tokenizer, "question")


def test_braces_in_texts_are_left_as_they_are():
    template = JudgeTemplate(scalar="{prompt}|{response}|{other}")
    assert template.question("{response}", "{prompt} {x}") == "{response}|{prompt} {x}|{other}"


def test_conversations_are_flattened_into_the_question():
    template = JudgeTemplate(scalar="{prompt}|{response}")
    turns = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})
    assert template.question(turns, ({"role": "assistant", "content": "bye"},)) == "User: hi\n\nAssistant: hello|bye"


def test_the_ranked_question_shows_both_responses_in_the_order_given():
    template = JudgeTemplate(ranked="{prompt}:{response_a}<{response_b}")
    assert template.ranked_question("p", "one", "two") == "p:one<two"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scalar": "{prompt}"}, "{response}"),
        ({"ranked": "{prompt} {response_a}"}, "{response_b}"),
        ({"header": "no slot"}, "{criterion}"),
        ({"scalar": "{promt} {response}"}, "{promt}, and only {prompt} and {response} are filled in there"),
        ({"scalar": "{criterion}: {response}"}, "'scalar' text has {criterion}"),
        ({"ranked": "{response_a} {response_b} {response}"}, "'ranked' text has {response}"),
        ({"header": "{criterion} {Criterion}"}, "{Criterion}, and only {criterion}"),
        ({"yes": ()}, "'yes'"),
    ],
)
def test_a_template_that_lacks_something_is_refused_by_name(wrong, said):
    with pytest.raises(ValueError, match=said):
        JudgeTemplate(**wrong)


def test_a_template_without_a_ranked_question_says_so():
    with pytest.raises(ValueError, match="no ranked question"):
        JudgeTemplate(ranked=None).ranked_question("p", "a", "b")


def test_without_a_prompt_nothing_stands_where_it_would():
    template = JudgeTemplate()
    assert template.question("", "It rains.") == template.question("Weather?", "It rains.").removeprefix(
        "Prompt:\nWeather?\n\n"
    )
    assert "Prompt" not in template.ranked_question("", "It rains.", "It snows.")
    inline = JudgeTemplate(scalar="request: {prompt} reply: {response}")
    assert inline.question("", "It rains.") == "request:  reply: It rains."


@pytest.mark.parametrize("name", ["yes", "no", "first", "second"])
def test_a_spelling_is_not_taken_for_its_letters(name):
    with pytest.raises(ValueError, match=f"the template's '{name}'"):
        JudgeTemplate.from_dict({name: "Yes"})
    assert getattr(JudgeTemplate.from_dict({name: ["Yes"]}), name) == ("Yes",)
