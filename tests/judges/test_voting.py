"""Voting: how often the votes say yes, where they come from, and that the reasons are read before the verdict."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import transformers

from arm_lens import GenerativeJudge, load_model
from arm_lens.engine import bundled_model_path
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.base import Judge
from arm_lens.judges.controls import uniform_of
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.template import JudgeTemplate, default_template
from arm_lens.judges.voting import Rationale, VotingJudge

pytestmark = pytest.mark.slow

ITEMS = labelled_responses("polite", 6, split="test", seed=5)
PROMPTS, RESPONSES = [one.prompt for one in ITEMS], [one.response for one in ITEMS]
SHOWN = labelled_responses("polite", 4, split="train", seed=6)
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}<bos>{{ m.content }} {% else %}"
    "verdict: {{ m.content }}<pad>{% endif %}{% endfor %}{% if add_generation_prompt %}verdict:{% endif %}"
)


@pytest.fixture(scope="module")
def raw():
    """next_logits(tokens) of the bundled model, by Hugging Face alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(bundled_model_path()).eval()

    def next_logits(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0, -1].double().numpy()

    return next_logits


@pytest.fixture(scope="module")
def chat_model():
    """The bundled model behind a chat template. It ends turns with a token other than the end of the text."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(bundled_model_path())
    model = load_model(tokenizer=copy.deepcopy(tokenizer))
    model.tokenizer.chat_template = CHAT
    return model


def softmax(logits, temperature):
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def ids_of(tokenizer, text):
    return [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]


def spellings(tokenizer):
    return [tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")]


# ------------------------------------------------------------------------------------------ without reasons


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_expected_share_is_the_two_way_probability(judge, raw, temperature):
    seeds, votes = 60, 4
    yes, no = spellings(judge.tokenizer)
    template = default_template(judge)
    texts = [f"{template.question(p, r)}{template.cue}" for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    shares = np.stack([softmax(raw(ids_of(judge.tokenizer, text)), temperature)[[yes, no]] for text in texts])
    two_way, none = shares[:, 0] / shares.sum(axis=1), (1 - shares.sum(axis=1)) ** votes
    expected = two_way * (1 - none) + 0.5 * none  # with no vote at all it is one half

    questions = GenerativeJudge(judge)
    found = np.stack(
        [
            VotingJudge(questions, votes=votes, temperature=temperature, seed=seed).score(PROMPTS, RESPONSES).numpy()
            for seed in range(seeds)
        ]
    )
    assert set(np.unique((found * 12).round(4))) <= {0, 3, 4, 6, 8, 9, 12}  # shares of one to four votes
    error = found.std(axis=0) / seeds**0.5
    assert (error > 0).all()
    assert (np.abs(found.mean(axis=0) - expected) < 3 * error).all()


def test_many_votes_settle_at_the_two_way_probability(judge):
    questions = GenerativeJudge(judge, examples=SHOWN)
    expected = questions.score(PROMPTS, RESPONSES, kind="two_way")
    found = VotingJudge(questions, votes=4000).score(PROMPTS, RESPONSES)
    error = (expected * (1 - expected) / 4000).sqrt()
    assert ((found - expected).abs() <= 3.5 * error + 1e-3).all()


def test_votes_belong_to_the_texts_and_the_seed(judge):
    questions = GenerativeJudge(judge, question=QuestionOptions(batch_size=2))
    voting = VotingJudge(questions, votes=50, seed=1)
    together = voting.score(PROMPTS, RESPONSES)
    assert isinstance(voting, Judge)
    assert torch.equal(voting.score(PROMPTS[::-1], RESPONSES[::-1]), together.flip(0))
    assert torch.equal(torch.cat([voting.score([p], [r]) for p, r in zip(PROMPTS, RESPONSES, strict=True)]), together)
    assert torch.equal(VotingJudge(questions, votes=50, seed=1).score(PROMPTS, RESPONSES), together)
    assert not torch.equal(VotingJudge(questions, votes=50, seed=2).score(PROMPTS, RESPONSES), together)


def test_without_any_vote_it_is_undecided(judge):
    """Verdicts that the model has no mind to give."""
    template = dataclasses.replace(default_template(judge), yes=("mill",), no=("garden",))
    questions = GenerativeJudge(judge, question=QuestionOptions(template=template))
    scores = questions.verdicts(PROMPTS, RESPONSES)
    assert (scores.log_positive.exp() + scores.log_negative.exp()).max() < 0.005
    assert (scores.two_way - 0.5).abs().max() > 0.05
    found = VotingJudge(questions, votes=4).score(PROMPTS, RESPONSES)
    assert found.tolist() == [0.5] * len(PROMPTS)


# ------------------------------------------------------------------------------------------ with reasons


def reasons_and_verdicts(raw, before, after, key, *, votes, steps, temperature, stop, verdicts):
    """Every vote's reasons and P(yes), P(no) after them, by one full pass of the raw model for each token."""
    found = []
    for vote in range(votes):
        said = []
        for step in range(steps):
            passed = softmax(raw([*before, *said]), temperature).cumsum()
            token = int((passed <= uniform_of(*key, vote, step)).sum())
            if token in stop:
                break
            said.append(token)
        shares = softmax(raw([*before, *said, *after]), temperature)
        found.append((said, [float(shares[token]) for token in verdicts]))
    return found


def share_of(found, key):
    """Of the votes that the verdicts' own numbers give."""
    draws = [uniform_of(*key, vote, -1) for vote in range(len(found))]
    positive = sum(draw < shares[0] for draw, (_, shares) in zip(draws, found, strict=True))
    either = sum(draw < sum(shares) for draw, (_, shares) in zip(draws, found, strict=True))
    return positive / either if either else 0.5


@pytest.mark.parametrize("demonstrations", [(), SHOWN[:2]])
def test_a_base_models_verdict_follows_the_reasons_it_wrote(judge, raw, demonstrations):
    template, tokenizer = default_template(judge), judge.tokenizer
    rationale = Rationale(max_tokens=5, cue=" because", stop="e")
    stop = {number for token, number in tokenizer.get_vocab().items() if "e" in token} | {tokenizer.eos_token_id}
    examples = "".join(
        f"{template.question(one.prompt, one.response)}{template.cue} {'yes' if one.label else 'no'}\n"
        for one in demonstrations
    )
    questions = GenerativeJudge(judge, examples=demonstrations, question=QuestionOptions(batch_size=3))
    voting = VotingJudge(questions, votes=4, temperature=3.0, rationale=rationale, seed=7)
    found = voting.score(PROMPTS[:2], RESPONSES[:2])
    after = tokenizer.encode(template.cue, add_special_tokens=False)
    settings = {"votes": 4, "steps": 5, "temperature": 3.0, "stop": stop, "verdicts": spellings(tokenizer)}
    said, expected = [], []
    for prompt, response in zip(PROMPTS[:2], RESPONSES[:2], strict=True):
        question = template.question(prompt, response)
        key = (7, question)
        each = reasons_and_verdicts(
            raw, ids_of(tokenizer, examples + question + " because"), after, key, **settings
        )  # fmt: skip
        said += [len(one) for one, _ in each]
        expected.append([shares for _, shares in each])
        assert float(found[len(expected) - 1]) == pytest.approx(share_of(each, key))
    assert len(set(said)) > 1  # some end early
    questions = questions.scalar_questions(PROMPTS[:2], RESPONSES[:2])
    chances = voting._after_reasons(questions, rationale, False)
    torch.testing.assert_close(chances, torch.tensor(expected), atol=1e-5, rtol=1e-3)
    assert chances.std(dim=1).max() > 1e-3  # the reasons matter
    assert voting.judge.verdict_mass.n == 16  # four votes on two questions, twice
    assert voting.judge.verdict_mass.mean == pytest.approx(float(chances.sum(dim=-1).mean()), rel=1e-3)


def test_a_chat_models_verdict_follows_the_reasons_in_the_same_turn(chat_model, raw):
    tokenizer = chat_model.tokenizer
    template = dataclasses.replace(default_template(chat_model), chat=None)
    assert template.is_chat(tokenizer)
    rationale = Rationale(max_tokens=4, request=" reply: why", then=" so verdict:")
    questions = GenerativeJudge(chat_model, question=QuestionOptions(template=template), examples=SHOWN[:1])
    voting = VotingJudge(questions, votes=3, temperature=2.0, rationale=rationale, seed=8)
    first = SHOWN[0]
    verdict = "Yes" if first.label else "No"
    turn = f"<bos>{template.question(first.prompt, first.response)} verdict: {verdict}<pad>"
    question = template.question(PROMPTS[0], RESPONSES[0])
    before = tokenizer.encode(f"{turn}<bos>{question} reply: why verdict:", add_special_tokens=False)
    after = tokenizer.encode(" so verdict:", add_special_tokens=False)
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert voting.stop_tokens(Rationale()) == ends
    settings = {"votes": 3, "steps": 4, "temperature": 2.0, "stop": ends, "verdicts": spellings(tokenizer)}
    each = reasons_and_verdicts(raw, before, after, (8, question), **settings)
    chances = voting._after_reasons(questions.scalar_questions(PROMPTS[:1], RESPONSES[:1]), rationale, False)
    torch.testing.assert_close(chances[0], torch.tensor([one for _, one in each]), atol=1e-5, rtol=1e-3)
    found = voting.score(PROMPTS[:1], RESPONSES[:1])
    assert float(found) == pytest.approx(share_of(each, (8, question)))


def test_votes_with_reasons_belong_to_the_texts_and_the_seed(judge):
    rationale = Rationale(max_tokens=4)
    judges = [GenerativeJudge(judge, question=QuestionOptions(batch_size=size)) for size in (2, 16)]
    one, two = (VotingJudge(questions, votes=6, rationale=rationale, seed=1) for questions in judges)
    together = one.score(PROMPTS, RESPONSES)
    assert torch.equal(two.score(PROMPTS, RESPONSES), together)
    assert torch.equal(two.score(PROMPTS[3:][::-1], RESPONSES[3:][::-1]), together[3:].flip(0))
    other = VotingJudge(judges[1], votes=6, rationale=rationale, seed=2)
    assert not torch.equal(other.score(PROMPTS, RESPONSES), together)


def test_no_reasons_and_the_usual_cue_is_voting_without_reasons(judge):
    questions = GenerativeJudge(judge)
    plain = VotingJudge(questions, votes=30, seed=3).score(PROMPTS, RESPONSES)
    silent = VotingJudge(questions, votes=30, seed=3, rationale=Rationale(max_tokens=0, cue=""))
    assert torch.equal(silent.score(PROMPTS, RESPONSES), plain)


def test_a_token_that_reaches_from_the_question_into_the_cue_is_no_hindrance(judge):
    """The cue "ish verdict:" makes one word of "millish", which ends in no token of the cue."""
    template = JudgeTemplate(header="", scalar="request: {prompt} reply: {response}", cue="ish verdict:", chat=False)
    questions = GenerativeJudge(judge, question=QuestionOptions(template=template))
    voting = VotingJudge(questions, votes=2, rationale=Rationale(max_tokens=2, cue=" verdict:"))
    prompts = voting.reason_prompts(questions.scalar_questions(["garden"], ["mill"]), Rationale(cue=" verdict:"))
    assert prompts == [ids_of(judge.tokenizer, "request: garden reply: mill verdict:")]
    assert 0 <= float(voting.score(["garden"], ["mill"])) <= 1


def test_an_empty_stop_leaves_the_end_of_the_text_as_the_only_one(judge):
    rationale = Rationale(max_tokens=3, stop="")
    voting = VotingJudge(GenerativeJudge(judge), votes=4, temperature=3.0, rationale=rationale)
    questions = voting.judge.scalar_questions(PROMPTS[:1], RESPONSES[:1])
    chances = voting._after_reasons(questions, rationale, False)
    assert len({float(one) for one in chances[0, :, 0]}) > 1  # something was said


# ------------------------------------------------------------------------------------------ what is refused


def test_reasons_that_do_not_fit_are_refused_by_name(judge):
    template, n_ctx = default_template(judge), judge.cfg.n_ctx
    question = template.question(PROMPTS[0], RESPONSES[0])
    rationale = Rationale()
    after = len(judge.tokenizer.encode(template.cue, add_special_tokens=False))
    room = n_ctx - len(ids_of(judge.tokenizer, question + rationale.cue)) - after
    questions = GenerativeJudge(judge)
    long = VotingJudge(questions, votes=1, rationale=Rationale(max_tokens=room + 1))
    with pytest.raises(PromptTooLongError, match=f"example 0: question, reasons and cue may take {n_ctx + 1} tokens"):
        long.score(PROMPTS[:1], RESPONSES[:1])
    fits = VotingJudge(questions, votes=1, rationale=Rationale(max_tokens=room, stop="e"))  # most words hold one
    assert 0 <= float(fits.score(PROMPTS[:1], RESPONSES[:1])) <= 1
    with pytest.raises(PromptTooLongError, match="example 1"):
        VotingJudge(questions).score(["mill", "mill"], ["warm", "warm " * n_ctx])


@pytest.mark.parametrize("rationale", [None, Rationale(max_tokens=2)])
def test_nothing_to_judge_is_an_error(judge, rationale):
    with pytest.raises(ValueError, match="nothing to judge"):
        VotingJudge(GenerativeJudge(judge), rationale=rationale).score([], [])
    with pytest.raises(ValueError, match="2 prompts for 1 responses"):
        VotingJudge(GenerativeJudge(judge), rationale=rationale).score(["a", "b"], ["c"])


def test_a_ranked_judge_has_no_verdict_on_one_response(judge):
    with pytest.raises(ValueError, match="must be scalar"):
        VotingJudge(GenerativeJudge(judge, question=QuestionOptions(layout="ranked")))


@pytest.mark.parametrize(("votes", "temperature"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_votes_are_sampled_and_there_is_at_least_one(judge, votes, temperature):
    with pytest.raises(ValueError, match="at least one vote and a temperature above 0"):
        VotingJudge(GenerativeJudge(judge), votes=votes, temperature=temperature)
