"""Real training runs of TRL: judges are reward functions, what TRL logs is what they score, and the reward rises."""

from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from arm_lens import ActivationRewardModel, GenerativeJudge, load_model
from arm_lens.engine.model_info import bundled_model_path
from arm_lens.judge_model import World, labelled_responses
from arm_lens.judges.artefact import WrongModelError
from arm_lens.judges.options import ReadingOptions
from arm_lens.reward.sampling import Sampler, best_of

pytestmark = pytest.mark.slow

CHAT = (
    "{% for m in messages %}{{ ('request: ' if m.role == 'user' else 'reply: ') + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}reply:{% endif %}"
)
"""How the bundled model reads requests and replies; it writes replies after it, without a warm-up."""
TOKENS = 16
RUDE = ("stop bothering", "quit annoying", "leave me alone", "get lost")


def fitted(model):
    examples = labelled_responses("polite", 16, split="train", seed=0)
    reading = ReadingOptions(readings=8, demonstrations=4)
    return ActivationRewardModel.fit(model, examples, criterion="polite", selector="top_effect", reading=reading)


@pytest.fixture(scope="module")
def judge():
    return fitted(load_model())


@pytest.fixture
def policy():
    """A second copy of the weights."""
    return AutoModelForCausalLM.from_pretrained(bundled_model_path())


@pytest.fixture
def tokenizer():
    found = AutoTokenizer.from_pretrained(bundled_model_path())
    found.chat_template = CHAT
    return found


def requests(count, *, conversational, seed=5):
    world = World("train", seed)
    texts = [world.request(world.place()) for _ in range(count)]
    if conversational:
        return [[{"role": "user", "content": text}] for text in texts]
    return [f"request: {text} reply:" for text in texts]


def options(tmp_path, config, **changes):
    common = {
        "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "seed": 0,
        "logging_steps": 1, "disable_tqdm": True, "gradient_checkpointing": False, "max_completion_length": TOKENS,
        "per_device_train_batch_size": 48, "learning_rate": 5e-4, "lr_scheduler_type": "constant", "beta": 0.0,
    }  # fmt: skip
    return config(**(common | changes))


@pytest.mark.parametrize("conversational", [False, True], ids=["text", "conversational"])
def test_grpo_raises_the_reward_and_logs_what_the_judge_scores(judge, policy, tokenizer, tmp_path, conversational):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    second, scored = fitted(load_model()), []

    def direct(*, prompts, completions, trainer_state, log_extra, log_metric, topic, **columns):
        """What another copy of the judge scores, text by text; it has no weight in the training."""
        assert len(topic) == len(prompts) and callable(log_extra) and callable(log_metric)
        scored.append(float(second.score(prompts, completions).mean()))
        return [0.0] * len(prompts)

    if not conversational:
        tokenizer.chat_template = None
    held_out = requests(48, conversational=conversational, seed=6)

    def fresh():
        sampler = Sampler(model=(policy, tokenizer), max_tokens=TOKENS, seed=1)
        return best_of(sampler, second, held_out, 1)

    before = fresh()
    prompts = requests(96, conversational=conversational)
    trainer = GRPOTrainer(
        policy,
        reward_funcs=[judge, direct],
        args=options(tmp_path, GRPOConfig, num_generations=8, max_steps=8, reward_weights=[1.0, 0.0]),
        train_dataset=Dataset.from_dict({"prompt": prompts, "topic": list(range(len(prompts)))}),
        processing_class=tokenizer,
    )
    trainer.train()
    after = fresh()

    logged = [one["rewards/polite/mean"] for one in trainer.state.log_history if "reward" in one]
    assert len(logged) == 8
    assert logged == pytest.approx(scored, abs=1e-5)
    # Of fresh samples for requests that it was not trained on, with the same random numbers before and after.
    differences = after["reward"] - before["reward"]
    assert differences.mean() > 0.15 and differences.mean() > 5 * differences.sem()
    rude = [sum(any(words in text for words in RUDE) for text in frame["response"]) for frame in (before, after)]
    assert rude[1] < rude[0] / 2


def test_a_policy_that_is_the_judge_s_own_model_is_refused_once_it_has_moved(policy, tokenizer, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    trainer = GRPOTrainer(
        policy,
        reward_funcs=fitted((policy, tokenizer)),
        args=options(tmp_path, GRPOConfig, num_generations=4, max_steps=3, per_device_train_batch_size=8),
        train_dataset=Dataset.from_dict({"prompt": requests(8, conversational=True)}),
        processing_class=tokenizer,
    )
    with pytest.raises(WrongModelError, match=r"weights of .* have changed since this reward model was fitted"):
        trainer.train()
    assert trainer.state.global_step == 1  # the first rewards were those of the weights that it was fitted on


@pytest.mark.parametrize("name", ["RLOO", "online DPO"])
def test_other_trainers_take_the_same_callable(judge, policy, tokenizer, tmp_path, name, monkeypatch):
    import trl
    from datasets import Dataset

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    if name == "RLOO":
        trainer_class, config, own = trl.RLOOTrainer, trl.RLOOConfig, {"num_generations": 4}
    else:
        from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

        trainer_class, config = OnlineDPOTrainer, OnlineDPOConfig
        own = {"max_new_tokens": TOKENS, "max_length": 64, "beta": 0.1}
    arguments = {
        "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "seed": 0,
        "logging_steps": 1, "disable_tqdm": True, "gradient_checkpointing": False, "max_steps": 2,
        "per_device_train_batch_size": 8, "learning_rate": 1e-4,
    }  # fmt: skip
    if name == "RLOO":
        arguments["max_completion_length"] = TOKENS
    calls = []

    def recorded(*, prompts, completions, **columns):
        rewards = judge(prompts=prompts, completions=completions, **columns)
        calls.append((prompts, completions, rewards))
        return rewards

    trainer = trainer_class(
        policy,
        reward_funcs=[judge, recorded],
        args=config(**(arguments | own)),
        train_dataset=Dataset.from_dict({"prompt": requests(16, conversational=True)}),
        processing_class=tokenizer,
    )
    before = [weight.detach().clone() for weight in policy.parameters()]
    with contextlib.redirect_stdout(None):
        trainer.train()
    assert any(not torch.equal(one, two) for one, two in zip(before, policy.parameters(), strict=True))
    assert calls
    for prompts, completions, rewards in calls:
        assert rewards == pytest.approx(judge.score(prompts, completions).tolist(), abs=1e-5)
        assert None not in rewards


def test_a_judge_without_numbers_of_its_own_may_share_the_policy_s_weights(policy, tokenizer):
    judge = GenerativeJudge((policy, tokenizer))
    texts = requests(2, conversational=True), [[{"role": "assistant", "content": "thank you for asking."}]] * 2
    before = judge(prompts=texts[0], completions=texts[1])
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(0.9)
    after = judge(prompts=texts[0], completions=texts[1])
    assert after != before
    assert after == pytest.approx(GenerativeJudge((policy, tokenizer)).score(*texts).tolist(), abs=1e-6)
