"""Scores of the kind that responses are compared by order them as `prefer` does, in the reward functions of trainers too."""

from __future__ import annotations

import warnings

import pytest
import torch
from promises.asking_support import CHATML, byte_level, saying

from arm_lens import LabelledResponse
from arm_lens.judges import fit_judge
from arm_lens.judges.options import ReadingOptions

EVERY = (
    "generative",
    "few_shot",
    "voting",
    "sav",
    "probe",
    "arm_all_heads",
    "likelihood",
    "length",
    "random",
    "constant",
)
EXAMPLES = [LabelledResponse(f"garden {i}", f"warm {i}", bool(i % 2)) for i in range(8)]
A = ["warm", "No", "cold and warm", "it is"]
B = ["cold", "Yes, it is", "request", "it is not"]
PROMPTS = ["garden", "reply", "what?", "?"]


@pytest.fixture(scope="module", params=EVERY)
def judge(request):
    model = saying(byte_level(CHATML), context=1024)
    options = {"demonstrations": 1} if request.param == "few_shot" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_judge(request.param, model, EXAMPLES, options, reading=ReadingOptions(demonstrations=1, readings=4))


@pytest.mark.filterwarnings("ignore")
def test_margins_are_differences_of_scores_of_the_kind_gap(judge):
    one, other = (judge.score(PROMPTS, texts, kind="gap") for texts in (A, B))
    torch.testing.assert_close(judge.margins(PROMPTS, A, B), one - other, check_dtype=False, atol=1e-5, rtol=1e-4)
    sign = {1.0: "a", -1.0: "b", 0.0: "tie"}
    expected = [sign[value] for value in judge.margins(PROMPTS, A, B).sign().tolist()]
    assert [comparison.preferred for comparison in judge.prefer(PROMPTS, A, B)] == expected


@pytest.mark.filterwarnings("ignore")
def test_the_kind_of_score_is_an_option_of_the_reward_function_too(judge):
    for kind in ("reward", "gap"):
        function = judge.reward_function(kind)
        assert function(prompts=PROMPTS, completions=A) == pytest.approx(judge.score(PROMPTS, A, kind=kind).tolist())
    assert judge.reward_function().__name__ == judge.__name__ != judge.reward_function("gap").__name__
    assert judge(prompts=PROMPTS, completions=A) == judge.reward_function()(prompts=PROMPTS, completions=A)


@pytest.mark.filterwarnings("ignore")
def test_a_kind_that_the_judge_does_not_give_is_refused_by_name_before_a_pass(judge):
    every = ("reward", "probability", "two_way", "gap")
    assert {"reward", "gap"} <= set(judge.score_kinds) <= set(every)
    match = f"the {judge.kind} gives scores of the kinds 'reward'.*'gap', not "
    with pytest.raises(ValueError, match=match + "'logit'"):
        judge.check_kind("logit")
    for kind in (one for one in every if one not in judge.score_kinds):
        with pytest.raises(ValueError, match=match):
            judge.score(PROMPTS, A, kind=kind)
        with pytest.raises(ValueError, match=match):
            judge.reward_function(kind)


def test_the_default_says_where_it_may_differ():
    from arm_lens import GenerativeJudge

    assert "`prefer` compares log-odds" in " ".join(GenerativeJudge.score.__doc__.split())
