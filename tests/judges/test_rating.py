"""The mean rating against raw Hugging Face logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from arm_lens import QuestionOptions
from arm_lens.engine.verdict_tokens import VerdictTokenError
from arm_lens.judges import RatingJudge
from arm_lens.judges.rating import RATING_TEMPLATE
from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import JUDGES

SPELLINGS = ("river", "mill", "church", "hotel", "farm")
TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", ranked=None,
    no=SPELLINGS[:-1], yes=SPELLINGS[-1:],
)  # fmt: skip
PROMPTS, RESPONSES = ["the school", "the bridge", "the market"], ["cold", "so cold .", "it is cold"]


@pytest.fixture(scope="module")
def judge(model_of):
    return RatingJudge.fit(model_of("llama"), question=QuestionOptions(template=TEMPLATE))


def test_the_reward_is_the_mean_rating_of_raw_logits(judge, raw_of, tokenizer):
    rows = tokenizer.convert_tokens_to_ids(list(SPELLINGS))
    expected, mass = [], []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        text = f"request: {prompt} reply: {response} verdict:"
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        with torch.no_grad():
            shares = raw_of("llama")(torch.tensor([tokens])).logits[0, -1].softmax(dim=-1)[rows].numpy()
        expected.append(shares / shares.sum())
        mass.append(shares.sum())
    found = judge.probabilities(PROMPTS, RESPONSES)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for kind in ("reward", "gap"):
        np.testing.assert_allclose(
            judge.score(PROMPTS, RESPONSES, kind=kind), np.array(expected) @ range(1, 6), atol=1e-4
        )
    assert judge.judge.verdict_mass.mean == pytest.approx(np.mean(mass), abs=1e-5)
    assert judge.threshold == 3 and judge.fitted_among([]) == ()


def test_a_rating_that_is_no_token_is_refused_by_name(model_of):
    with pytest.raises(VerdictTokenError, match="the verdict '5' cannot be read"):  # a tokenizer without digits
        RatingJudge.fit(model_of("llama"))


@pytest.mark.parametrize("change", [{"no": SPELLINGS[:-2]}, {"yes": ("yes", "farm")}])
def test_a_template_that_spells_other_than_five_ratings_is_refused(model_of, change):
    question = QuestionOptions(template=replace(TEMPLATE, **change))
    with pytest.raises(ValueError, match="a rating template spells 5 ratings"):
        RatingJudge.fit(model_of("llama"), question=question)


def test_ranked_ratings_are_refused_before_a_model_is_loaded():
    with pytest.raises(ValueError, match="use layout='scalar'"):
        JUDGES["rating"].check(JUDGES["rating"].parse({"layout": "ranked"}))
    assert RATING_TEMPLATE.no + RATING_TEMPLATE.yes == ("1", "2", "3", "4", "5")
