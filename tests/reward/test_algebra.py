"""Algebra on reward models: sums are linear in log-odds, unions write the means they say, and models are never mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arm_lens import (
    ActivationRewardModel,
    GenerativeJudge,
    HeadSet,
    Injection,
    JudgeTemplate,
    LabelledResponse,
    QuestionOptions,
)
from arm_lens.judges import load_judge
from arm_lens.judges.artefact import ArtefactError, WrongModelError
from arm_lens.judges.options import ReadingOptions
from arm_lens.reward import RewardSum

WORDS = ["garden", "river", "mill", "church", "hotel", "farm"]
PROMPTS, RESPONSES, OTHERS = (
    ["the garden", "a mill", "the farm"],
    ["warm", "it is cold", "."],
    ["cold", "it is", "farm"],
)


def fitted(model, name, heads, *, question=None, **options):
    examples = [LabelledResponse(f"{name} {one}", f"{one} it is", bool(i % 2), id=one) for i, one in enumerate(WORDS)]
    return ActivationRewardModel.fit(
        model, examples, criterion=name, selector=HeadSet.of(3, 4, heads), question=question,
        reading=ReadingOptions(readings=3, demonstrations=1), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(model_of):
    model = model_of("llama")
    return fitted(model, "warm", [(0, 1), (1, 2)]), fitted(model, "long", [(1, 2), (2, 3)], question="a long one")


def gaps(judge):
    return judge.score(PROMPTS, RESPONSES, kind="gap").double()


def test_a_sum_is_linear_in_the_log_odds_of_its_terms(pair):
    one, two = pair
    for judge, expected in (
        (2 * one - 0.5 * two, 2 * gaps(one) - 0.5 * gaps(two)),
        (one + two, gaps(one) + gaps(two)),
        (sum([one, two]), gaps(one) + gaps(two)),
        (-(one - two) * np.float64(3.0), 3 * (gaps(two) - gaps(one))),
        (np.float32(0.25) * one, gaps(one) / 4),
        ((one + two) - (one + two), torch.zeros(3)),
    ):
        torch.testing.assert_close(gaps(judge), expected.double(), atol=1e-4, rtol=0)
        assert torch.equal(judge.score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES, kind="gap"))
        margins = judge.margins(PROMPTS, RESPONSES, OTHERS)
        torch.testing.assert_close(
            margins, judge.score(PROMPTS, RESPONSES) - judge.score(PROMPTS, OTHERS), atol=1e-4, rtol=0
        )
    steered = RewardSum(((1.0, one), (-1.0, one.judge)))  # what steering does to the log-odds
    torch.testing.assert_close(gaps(steered), gaps(one) - gaps(one.judge), atol=1e-4, rtol=0)


def test_a_sum_is_a_reward_function_and_knows_what_it_was_fitted_on(pair):
    judge = 2 * pair[0] - 0.5 * pair[1]
    assert judge.__name__ == "2*warm-0.5*long"
    rewards = judge(prompts=PROMPTS, completions=RESPONSES)
    assert rewards == judge.score(PROMPTS, RESPONSES).tolist()
    known = [
        LabelledResponse("long mill", "mill it is", True, id="of the second"),
        LabelledResponse("x", "y", True, id="new"),
    ]
    assert judge.fitted_among(known) == ("of the second",)


def test_a_sum_is_saved_with_a_card_and_loaded(pair, model_of, tmp_path):
    judge = 2 * pair[0] - 0.5 * pair[1]
    saved = judge.save(tmp_path)
    for load in (load_judge, RewardSum.load):
        again = load(saved, model_of("llama"))
        assert torch.equal(again.score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES))
        assert [weight for weight, _ in again.terms] == [2.0, -0.5] and again.terms[0][1].record == pair[0].record
    card = (saved / "README.md").read_text()
    assert "**1. 2 &#42; warm:** 2 heads" in card and "**2. -0.5 &#42; long:** 2 heads" in card
    with pytest.raises(ArtefactError, match="holds a weighted sum of reward models, not a reward model"):
        ActivationRewardModel.load(saved, model_of("llama"))


def test_other_models_layouts_weights_and_things_are_refused(pair, model_of):
    other = fitted(model_of("gpt2"), "cold", [(0, 1)])
    for combine in (ActivationRewardModel.__add__, ActivationRewardModel.__or__, ActivationRewardModel.__and__):
        with pytest.raises(WrongModelError, match=r"'warm' and 'cold' are of different language models"):
            combine(pair[0], other)
    for weight in (float("nan"), float("inf"), 1e7):
        with pytest.raises(ValueError, match="a weight is a number between"):
            weight * pair[0]
    for thing in ("2", None, True, [1.0]):
        with pytest.raises(TypeError):
            pair[0] * thing
    for thing in (1.0, "x", GenerativeJudge):
        with pytest.raises(TypeError):
            pair[0] + thing
    with pytest.raises(ValueError, match="at least one term"):
        RewardSum(())
    template = JudgeTemplate(
        ranked="{prompt} {response_a} {response_b}", cue=" verdict:", first=("warm",), second=("cold",)
    )
    ranked = GenerativeJudge(model_of("llama"), question=QuestionOptions(layout="ranked", template=template))
    with pytest.raises(ValueError, match="only some terms of the sum are ranked"):
        RewardSum(((1.0, pair[0]), (1.0, ranked)))
    both = RewardSum(((1.0, ranked), (0.5, ranked)))
    expected = 1.5 * ranked.margins(PROMPTS, RESPONSES, OTHERS)
    torch.testing.assert_close(both.margins(PROMPTS, RESPONSES, OTHERS), expected, atol=1e-4, rtol=0)


def test_unions_and_intersections_write_the_means_they_say(pair):
    one, two = pair
    either, both = one | two, one & two
    assert either.heads == one.heads | two.heads and both.heads == one.heads & two.heads == HeadSet.of(3, 4, [(1, 2)])
    average = (one.means.values[1, 2] + two.means.values[1, 2]) / 2
    assert torch.equal(either.means.values[0, 1], one.means.values[0, 1])
    assert torch.equal(either.means.values[2, 3], two.means.values[2, 3])
    assert torch.equal(either.means.values[1, 2], average) and torch.equal(both.means.values[1, 2], average)
    assert either.record.criterion == "warm | long" and both.record.criterion == "warm & long"
    assert set(either.record.fitted_on) == {*one.record.fitted_on, *two.record.fitted_on}
    assert either.question == one.question and "with the question of the first" in either.record.notes[-1]
    assert torch.equal((one | one).score(PROMPTS, RESPONSES), one.score(PROMPTS, RESPONSES))
    with pytest.raises(ValueError, match="use with_injection"):
        one | two.with_injection(strength=0.5)


def test_strength_mode_and_threshold_change_without_a_refit(pair, model_of, tmp_path):
    one = pair[0]
    added = one.with_injection(strength=0.5, mode="add")
    refitted = fitted(model_of("llama"), "warm", [(0, 1), (1, 2)], injection=Injection(mode="add", strength=0.5))
    assert torch.equal(added.score(PROMPTS, RESPONSES), refitted.score(PROMPTS, RESPONSES))
    assert one.injection == Injection() and added.with_injection(mode="replace").injection.strength == 0.5
    nothing = one.with_injection(strength=0.0).score(PROMPTS, RESPONSES)
    torch.testing.assert_close(nothing, one.judge.score(PROMPTS, RESPONSES), atol=1e-5, rtol=0)
    strict = one.with_threshold(0.8)
    torch.testing.assert_close(gaps(strict), gaps(one) - np.log(4.0), atol=1e-5, rtol=0)
    two_way = one.score(PROMPTS, RESPONSES, kind="two_way")
    assert torch.equal(strict.score(PROMPTS, RESPONSES, kind="two_way") > 0.5, two_way > 0.8)
    again = load_judge(strict.save(tmp_path), model_of("llama"))
    assert torch.equal(again.score(PROMPTS, RESPONSES), strict.score(PROMPTS, RESPONSES))
    for number in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="a threshold is a probability between 0 and 1"):
            one.with_threshold(number)
