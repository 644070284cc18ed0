"""The bundled judge model, on sentence frames and word combinations it was not trained on."""

from __future__ import annotations

import pytest
import torch
from conftest import HOOKED

from arm_lens import GenerativeJudge, describe, last_logits, load_model, pad
from arm_lens.judge_model import CRITERIA, CRITERION_WORDING, labelled_responses
from arm_lens.models import BUNDLED_NAME
from arm_lens.questions import draw_contexts, encode_questions, questions_of

ITEMS = 120


def accuracy(judge, criterion, shots):
    asked = questions_of(labelled_responses(criterion, ITEMS, split="test", seed=77), judge.template)
    pool = questions_of(labelled_responses(criterion, 60, split="test", seed=78), judge.template)
    gaps = judge.verdict(asked, shown=draw_contexts(pool, asked, shots, seed=0)).gap
    return float(((gaps > 0) == torch.tensor([one.positive for one in asked])).float().mean())


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
        assert accuracy(GenerativeJudge(judge, wording=CRITERION_WORDING[criterion]), criterion, 0) >= 0.90


@pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_both_model_classes_agree(judge):
    asked = questions_of(labelled_responses("polite", 8, split="test", seed=0), GenerativeJudge(judge).template)
    batch = pad(encode_questions(judge, GenerativeJudge(judge).template, asked))
    hooked = load_model(model_class="HookedTransformer")
    torch.testing.assert_close(last_logits(hooked, batch), last_logits(judge, batch), atol=1e-4, rtol=0)


def test_it_is_loaded_without_an_argument_and_knows_its_name_and_template(judge):
    assert describe(judge).name == BUNDLED_NAME
    assert GenerativeJudge(judge).template.cue == "\nVerdict:"


def test_it_judges_one_response_at_a_time_and_says_so(judge):
    with pytest.raises(ValueError, match="no ranked question"):
        GenerativeJudge(judge, layout="ranked")
