"""The best of n responses, and the first that is good enough: chosen by the reward, and by nothing else."""

from __future__ import annotations

import copy
import itertools
import math

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from arm_lens.engine import PromptTooLongError
from arm_lens.judges import LengthJudge, RandomJudge, SkippedWarning
from arm_lens.reward.sampling import NoneFoundWarning, Sampler, best_of, rejection_sampling

PROMPTS = ["the garden", "a river near the bridge", "the garden"]
CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Counting:
    """A generator that writes increasing numbers, whatever the prompt."""

    def __init__(self):
        self.numbers, self.calls = itertools.count(), []

    def __call__(self, prompt, count):
        self.calls.append((prompt, count))
        return [str(next(self.numbers)) for _ in range(count)]


def by_number(*, prompts, completions, **columns):
    """The last digit, so that ten and zero tie."""
    return [float(int(one) % 10) for one in completions]


def best(frame):
    return frame[frame["rank"] == 1]


def test_the_best_is_the_one_with_the_highest_reward_and_of_equal_ones_the_first():
    found = best_of(Counting(), by_number, ["x", "y"], 15)
    assert list(found.columns) == ["item", "prompt", "response", "reward", "rank", "n"]
    assert best(found)["response"].tolist() == ["9", "19"]  # 29 ties with 19 and came later
    first = found[found["item"] == 0]
    assert first["rank"].tolist() == list(range(1, 16))
    assert first["response"].tolist() == [*"9 8 7 6 5 4 14 3 13 2 12 1 11 0 10".split()]
    assert first["reward"].is_monotonic_decreasing
    assert set(found["n"]) == {15} and found["prompt"].tolist() == ["x"] * 15 + ["y"] * 15


def test_a_response_without_a_reward_comes_last():
    def reward(*, prompts, completions):
        return [None if one == "2" else -float(one) for one in completions]

    found = best_of(Counting(), reward, ["x"], 4)
    assert found["response"].tolist() == ["0", "1", "3", "2"]
    assert found["reward"].isna().tolist() == [False] * 3 + [True]


def test_the_reward_of_the_best_of_n_is_the_maximum_of_n():
    """Of n uniform rewards the largest is n / (n + 1) on average."""
    for n in (1, 4):
        rewards = best(best_of(Counting(), RandomJudge(seed=n), [f"prompt {i}" for i in range(1000)], n))["reward"]
        deviation = math.sqrt(n / ((n + 1) ** 2 * (n + 2)) / len(rewards))
        assert abs(rewards.mean() - n / (n + 1)) < 4 * deviation


def test_the_first_response_above_the_threshold_is_taken_and_the_rest_is_said():
    generator = Counting()
    with pytest.warns(NoneFoundWarning, match=r"above 5 was found in 5 tries for 1 of 3 prompts: prompt 0"):
        found = rejection_sampling(generator, by_number, ["x", "y", "z"], threshold=5.0, tries=5, at_a_time=4)
    assert list(found.columns) == ["item", "prompt", "response", "reward", "tries"]
    assert found["response"].tolist() == [None, "6", "9"]
    assert found["tries"].tolist() == [5, 2, 1]
    assert [count for prompt, count in generator.calls if prompt == "x"] == [4, 1]
    assert math.isnan(found["reward"][0]) and found["reward"][1] == 6


@pytest.fixture(scope="module")
def sampler(model_of):
    return Sampler(model=model_of("llama"), max_tokens=4, seed=3)


def test_the_same_seed_gives_the_same_responses_whatever_the_batch_size(sampler, model_of):
    whole = best_of(sampler, LengthJudge(), PROMPTS, 5)
    for size in (1, 3):
        other = Sampler(model=model_of("llama"), max_tokens=4, seed=3, batch_size=size)
        pd.testing.assert_frame_equal(best_of(other, LengthJudge(), PROMPTS, 5), whole)
    other = best_of(Sampler(model=model_of("llama"), max_tokens=4, seed=4), LengthJudge(), PROMPTS, 5)
    assert set(other["response"]) != set(whole["response"])
    alone = best_of(sampler, LengthJudge(), PROMPTS[1:2], 5)
    assert alone["response"].tolist() == whole[whole["item"] == 1]["response"].tolist()
    # The same prompt twice has other responses, not the same ones again.
    assert set(whole[whole["item"] == 0]["response"]) != set(whole[whole["item"] == 2]["response"])


def test_rejection_sampling_does_not_depend_on_how_many_are_tried_at_a_time(sampler):
    whole = best_of(sampler, LengthJudge(), PROMPTS, 6)
    threshold = whole["reward"].quantile(0.8)
    frames = [
        rejection_sampling(sampler, LengthJudge(), PROMPTS, threshold=threshold, tries=6, at_a_time=size)
        for size in (1, 4)
    ]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    for row in frames[0].itertuples():
        drawn = [sampler(row.prompt, 1, first=6 * (row.item == 2) + i)[0] for i in range(row.tries)]
        assert drawn[-1] == row.response and len(row.response) == row.reward > threshold
        assert all(len(one) <= threshold for one in drawn[:-1])


def test_without_temperature_it_writes_what_the_model_itself_generates(folder_of, tokenizer, model_of):
    raw = AutoModelForCausalLM.from_pretrained(folder_of("llama"), attn_implementation="eager")
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("the garden", add_special_tokens=False).input_ids]])
    written = raw.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    sampler = Sampler(model=model_of("llama"), max_tokens=6, temperature=0.0)
    assert sampler("the garden", 2) == [tokenizer.decode(written, skip_special_tokens=True)] * 2


def test_a_conversation_goes_through_the_chat_template(folder_of, tokenizer):
    raw, own = AutoModelForCausalLM.from_pretrained(folder_of("llama")), copy.deepcopy(tokenizer)
    conversation = [{"role": "user", "content": "the garden"}]
    with pytest.raises(ValueError, match="has no chat template"):
        best_of((raw, own), LengthJudge(), [conversation], 2)
    own.chat_template = CHAT
    sampler = Sampler(model=(raw, own), max_tokens=4, temperature=0.0)
    text = own.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    ids = own(text, add_special_tokens=False, return_tensors="pt").input_ids
    written = raw.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert sampler(conversation, 1) == sampler("the garden", 1) == [own.decode(written, skip_special_tokens=True)]


def test_what_cannot_be_sampled_is_refused(sampler):
    for call, words in (
        (lambda: best_of(Counting(), by_number, ["x"], 0), "n must be at least 1"),
        (lambda: best_of(Counting(), by_number, "x", 2), "pass a list"),
        (lambda: best_of(Counting(), by_number, ["x", None], 2), "prompt 2 is None"),
        (lambda: best_of(lambda prompt, count: ["a"], by_number, ["x"], 2), r"return 2 texts and returned \['a'\]"),
        (lambda: best_of(Counting(), lambda **texts: [1.0], ["x"], 2), "return 2 rewards and returned 1"),
        (lambda: rejection_sampling(Counting(), by_number, ["x"], threshold=math.nan), "NaN"),
        (lambda: rejection_sampling(Counting(), by_number, ["x"], threshold=1.0, at_a_time=0), "at_a_time"),
        (lambda: best_of(3, by_number, ["x"], 2), "TransformerBridge"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    with pytest.raises(PromptTooLongError, match="the prompt"):
        sampler("garden " * 600, 1)


def test_a_response_that_a_judge_cannot_judge_is_named(model_of):
    from arm_lens import GenerativeJudge

    with pytest.warns(SkippedWarning, match="row 1"):
        found = best_of(
            lambda prompt, count: ["warm", "garden " * 600][:count], GenerativeJudge(model_of("llama")), ["x"], 2
        )
    assert found["reward"].isna().tolist() == [False, True]
