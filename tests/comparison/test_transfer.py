"""Heads of one criterion used for another, against steering the model the slow way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from arm_lens import ActivationRewardModel, HeadSet, Injection, LabelledResponse
from arm_lens.comparison import transfer
from arm_lens.evaluation import accuracy
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.selection import Greedy, SoftGate

pytestmark = pytest.mark.slow

CRITERIA = ("positive", "brief")


@pytest.fixture(scope="module")
def rewards(judge):
    return {
        criterion: ActivationRewardModel.fit(
            judge,
            labelled_responses(criterion, 20, split="train", seed=1),
            criterion=criterion,
            selector=Greedy(max_heads=6),
            reading=ReadingOptions(demonstrations=8, readings=12),
            reward="two_way",
            question=QuestionOptions(batch_size=6),
        )
        for criterion in CRITERIA
    }


@pytest.fixture(scope="module")
def examples():
    return {criterion: labelled_responses(criterion, 30, split="test", seed=2) for criterion in CRITERIA}


@pytest.fixture(scope="module")
def table(rewards, examples):
    return transfer(rewards, examples, random_sets=3, seed=5)


def slow(reward, questions):
    """Whether each verdict is right, by full passes of the steered model."""
    gaps = reward.score([one.prompt for one in questions], [one.response for one in questions], kind="gap")
    return ((gaps > 0) == torch.tensor([one.label for one in questions])).double().numpy()


def value(table, heads_of, used_for):
    row = table[(table["heads_of"] == heads_of) & (table["used_for"] == used_for)]
    assert len(row) == 1
    return row.iloc[0]


@pytest.mark.slow
def test_heads_of_one_criterion_write_the_means_of_the_other(rewards, examples, table):
    for a in CRITERIA:
        for b in CRITERIA:
            row = value(table, a, b)
            correct = slow(rewards[b].with_heads(rewards[a].heads), examples[b])
            assert row["accuracy"] == pytest.approx(correct.mean())
            assert (row["means_of"], row["n"]) == (b, 30)
    assert rewards["positive"].heads != rewards["brief"].heads
    assert value(table, "positive", "positive")["accuracy"] > value(table, "none", "positive")["accuracy"]


def test_the_interval_is_that_of_clustered_accuracies(rewards, examples, table):
    correct = slow(rewards["brief"], examples["brief"])
    prompts = [one.prompt for one in examples["brief"]]
    numbers = torch.tensor([prompts.index(prompt) for prompt in prompts]).numpy()
    expected = accuracy(correct, clusters=numbers, seed=5)
    row = value(table, "brief", "brief")
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_the_controls_are_random_heads_within_layers_and_no_heads(rewards, examples, table):
    for b in CRITERIA:
        generator = torch.Generator().manual_seed(5)
        random = [rewards[b].with_heads(rewards[b].heads.random_like(generator)) for _ in range(3)]
        expected = [slow(one, examples[b]).mean() for one in random]
        assert value(table, "random heads", b)["accuracy"] == pytest.approx(sum(expected) / 3)
        nothing = rewards[b].with_heads(HeadSet.none(6, 8))
        assert value(table, "none", b)["accuracy"] == pytest.approx(slow(nothing, examples[b]).mean())
        assert value(table, "none", b)["means_of"] == "none"


def test_with_the_means_of_the_heads_the_whole_reward_model_is_put_to_the_other_criterion(rewards, examples):
    changed = rewards | {"positive": replace(rewards["positive"], injection=Injection(mode="add"))}
    questions = examples["brief"]
    assert (
        slow(changed["positive"], questions).mean() != slow(rewards["positive"], questions).mean()
    )  # its way of writing matters
    table = transfer(changed, {"brief": examples["brief"]}, means="of the heads", random_sets=1)
    for a in CRITERIA:
        row = value(table, a, "brief")
        assert row["accuracy"] == pytest.approx(slow(changed[a], examples["brief"]).mean())
        assert row["means_of"] == a
    assert value(table, "random heads", "brief")["means_of"] == "brief"
    assert set(table["used_for"]) == {"brief"}


def test_responses_to_one_prompt_count_as_one(rewards, examples):
    questions = examples["brief"]
    prompts = sorted({one.prompt for one in questions})[:3]
    by_label = sorted(questions, key=lambda one: one.label)  # a prompt's verdicts are then right or wrong together
    repeated = [LabelledResponse(prompts[number // 10], one.response, one.label) for number, one in enumerate(by_label)]
    apart, together = (
        value(transfer(rewards, {"brief": some}, random_sets=1), "none", "brief") for some in (questions, repeated)
    )
    assert together["n"] == apart["n"] == 30
    assert together["ci_high"] - together["ci_low"] > 1.5 * (apart["ci_high"] - apart["ci_low"])


def test_soft_gates_have_no_set_of_heads(rewards, examples):
    gates = torch.full((6, 8), 0.4)
    selection = replace(rewards["brief"].selection, gates=gates)
    soft = replace(rewards["brief"], selection=selection)
    with pytest.raises(ValueError, match=r"'brief' moves all heads by soft gates"):
        transfer(rewards | {"brief": soft}, examples)
    assert SoftGate(discrete=True).discrete  # what the message recommends is there


def test_examples_need_their_reward_model_and_names_of_controls_are_taken(rewards, examples):
    with pytest.raises(ValueError, match=r"examples for 'safe', but no such reward model: 'positive', 'brief'"):
        transfer(rewards, {"safe": examples["brief"]})
    with pytest.raises(ValueError, match=r"no reward model may be called 'none'"):
        transfer(rewards | {"none": rewards["brief"]}, examples)
    with pytest.raises(ValueError, match=r"no examples"):
        transfer(rewards, {})


def test_reward_models_of_another_model_are_refused(rewards, examples, model_of):
    other = ActivationRewardModel.fit(
        model_of("llama"),
        labelled_responses("brief", 6, split="train", seed=1),
        selector=HeadSet.of(3, 4, [(0, 0)]),
        reading=ReadingOptions(readings=1, demonstrations=1),
        question=QuestionOptions(template=rewards["brief"].judge.template),
    )
    with pytest.raises(ValueError, match=r"'positive' is of a model of 6 layers of 8.*'other' of one of 3 layers of 4"):
        transfer(rewards | {"other": other}, examples)
