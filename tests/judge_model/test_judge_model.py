"""The bundled judge model, on sentence frames and word combinations it was not trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import HOOKED

from arm_lens import GenerativeJudge, load_model
from arm_lens.engine import BUNDLED_NAME, describe, last_logits, pad
from arm_lens.judge_model import CRITERIA, CRITERION_TEXT, labelled_responses, preference_pairs
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, encode_questions, questions_of, sample_demonstrations

pytestmark = pytest.mark.slow

ITEMS = 120
PAIRS = 60


def share_correct(judge, questions, pool, demonstrations):
    gaps = judge.verdict(questions, demonstrations=sample_demonstrations(pool, questions, demonstrations, seed=0)).gap
    return float(((gaps > 0) == torch.tensor([one.positive for one in questions])).float().mean())


def accuracy(judge, criterion, demonstrations):
    questions = questions_of(labelled_responses(criterion, ITEMS, split="test", seed=77), judge.template)
    pool = questions_of(labelled_responses(criterion, 60, split="test", seed=78), judge.template)
    return share_correct(judge, questions, pool, demonstrations)


def ranked_accuracy(judge, criterion, demonstrations):
    questions = questions_of(preference_pairs(criterion, PAIRS, split="test", seed=77), judge.template, "ranked")
    pool = questions_of(preference_pairs(criterion, 30, split="test", seed=78), judge.template, "ranked")
    return share_correct(judge, questions, pool, demonstrations)


@pytest.fixture(scope="module")
def few_shot(judge):
    return {name: accuracy(GenerativeJudge(judge), name, 8) for name in CRITERIA}


def test_eight_examples_are_enough_to_infer_every_criterion(few_shot):
    assert len(few_shot) >= 8
    assert sum(few_shot.values()) / len(few_shot) >= 0.95
    assert min(few_shot.values()) >= 0.90, few_shot


@pytest.mark.parametrize("criterion", CRITERIA)
def test_without_examples_it_can_only_guess(judge, criterion):
    assert accuracy(GenerativeJudge(judge), criterion, 0) <= 0.75


def test_a_named_criterion_needs_no_examples(judge):
    for criterion in ("polite", "answers", "detailed"):
        assert accuracy(GenerativeJudge(judge, question=CRITERION_TEXT[criterion]), criterion, 0) >= 0.90


def test_four_ranked_examples_are_enough_to_infer_every_criterion(judge):
    ranked = GenerativeJudge(judge, question=QuestionOptions(layout="ranked"))
    found = {name: ranked_accuracy(ranked, name, 4) for name in CRITERIA}
    assert sum(found.values()) / len(found) >= 0.93
    assert min(found.values()) >= 0.85, found


def test_without_ranked_examples_it_can_only_guess(judge):
    ranked = GenerativeJudge(judge, question=QuestionOptions(layout="ranked"))
    assert sum(ranked_accuracy(ranked, name, 0) for name in CRITERIA) / len(CRITERIA) <= 0.75


@pytest.mark.parametrize("criterion", ["polite", "answers", "detailed"])
def test_a_named_criterion_is_ranked_without_examples_and_mostly_alike_in_both_orders(judge, criterion):
    pairs = preference_pairs(criterion, PAIRS, split="test", seed=79)
    ranked = GenerativeJudge(judge, question=QuestionOptions(layout="ranked", criterion_text=CRITERION_TEXT[criterion]))
    ask = ranked.template.ranked_question
    chosen_first = ranked.verdict([Question(ask(p.prompt, p.chosen, p.rejected), True, "") for p in pairs]).gap
    chosen_second = ranked.verdict([Question(ask(p.prompt, p.rejected, p.chosen), False, "") for p in pairs]).gap
    assert ((chosen_first > 0).float().mean() + (chosen_second < 0).float().mean()) / 2 >= 0.90
    assert ((chosen_first > 0) == (chosen_second > 0)).float().mean() <= 0.15


def test_the_first_reply_counts_too(judge):
    """With the same second reply, a polite first reply gets a larger verdict gap than a rude one."""
    ranked = GenerativeJudge(judge, question=QuestionOptions(layout="ranked", criterion_text=CRITERION_TEXT["polite"]))
    pairs = preference_pairs("polite", PAIRS, split="test", seed=80)
    ask = ranked.template.ranked_question
    gaps = [
        ranked.verdict([Question(ask(p.prompt, first, p.rejected), True, "") for p in pairs]).gap
        for first in (pairs[0].chosen, pairs[0].rejected)
    ]
    assert (gaps[0] > gaps[1]).float().mean() >= 0.90


@pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer")
@pytest.mark.parametrize("layout", ["scalar", "ranked"])
def test_both_model_classes_agree(judge, layout):
    template = GenerativeJudge(judge).template
    questions = questions_of(preference_pairs("polite", 8, split="test", seed=0), template, layout)
    batch = pad(encode_questions(judge, QuestionOptions(template=template, layout=layout), questions))
    hooked = load_model(model_class="HookedTransformer")
    torch.testing.assert_close(last_logits(hooked, batch), last_logits(judge, batch), atol=1e-4, rtol=0)


def test_it_is_loaded_without_an_argument_and_knows_its_name_and_template(judge):
    assert describe(judge).name == BUNDLED_NAME
    assert GenerativeJudge(judge).template.cue == "\nVerdict:"


def test_a_template_without_a_ranked_question_is_refused(judge):
    template = replace(GenerativeJudge(judge).template, ranked=None)
    with pytest.raises(ValueError, match="no ranked question"):
        GenerativeJudge(judge, question=QuestionOptions(layout="ranked", template=template))
