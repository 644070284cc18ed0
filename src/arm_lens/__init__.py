"""Activation Reward Models: few-shot reward models made by reading attention heads instead of training.

>>> from arm_lens import ActivationRewardModel, load_model, read_preferences
>>> model = load_model("meta-llama/Llama-3.2-1B-Instruct")
>>> reward = ActivationRewardModel.fit(model, read_preferences("preferences.jsonl"))
>>> reward.score(["How do I boil an egg?"], ["Eight minutes in simmering water."])
"""

from importlib import import_module
from types import ModuleType

from arm_lens.activations import HeadMeans, RunningMean, fingerprint, mean_heads, read_batch, read_heads
from arm_lens.artefact import WrongModelError
from arm_lens.denoising import Denoise
from arm_lens.heads import Head, HeadScores, HeadSet
from arm_lens.judging import Comparison, GenerativeJudge, PositionBias, RewardModel
from arm_lens.models import ModelInfo, describe, last_logits, load_model
from arm_lens.preferences import (
    LabelledResponse,
    PreferencePair,
    labelled,
    read_preferences,
    split_preferences,
    write_preferences,
)
from arm_lens.prompts import JudgeTemplate, VerdictScores, VerdictTokenError, VerdictTokens, resolve_verdicts
from arm_lens.replay import Replay
from arm_lens.reward import ActivationRewardModel
from arm_lens.sav import SparseAttentionVectors
from arm_lens.selection import (
    PUBLISHED,
    Greedy,
    JudgingObjective,
    Reinforce,
    Selection,
    SoftGate,
    TopEffect,
    reinforce,
)
from arm_lens.steering import Injection, steer
from arm_lens.tokens import PromptTooLongError, TokenBatch, pad

__all__ = [
    "PUBLISHED",
    "ActivationRewardModel",
    "Comparison",
    "Denoise",
    "GenerativeJudge",
    "Greedy",
    "Head",
    "HeadMeans",
    "HeadScores",
    "HeadSet",
    "Injection",
    "JudgeTemplate",
    "JudgingObjective",
    "LabelledResponse",
    "ModelInfo",
    "PositionBias",
    "PreferencePair",
    "PromptTooLongError",
    "Reinforce",
    "Replay",
    "RewardModel",
    "RunningMean",
    "Selection",
    "SoftGate",
    "SparseAttentionVectors",
    "TokenBatch",
    "TopEffect",
    "VerdictScores",
    "VerdictTokenError",
    "VerdictTokens",
    "WrongModelError",
    "describe",
    "fingerprint",
    "labelled",
    "last_logits",
    "load_model",
    "mean_heads",
    "pad",
    "read_batch",
    "read_heads",
    "read_preferences",
    "reinforce",
    "resolve_verdicts",
    "split_preferences",
    "steer",
    "write_preferences",
]

_ROOMS = ("attribution", "baselines", "benchmark", "comparison", "evaluation", "judge_model", "plots", "study")


def __getattr__(name: str) -> ModuleType:
    """``arm_lens.plots`` and its like without an import of their own, and without the price of one until then."""
    if name in _ROOMS:
        return import_module(f"arm_lens.{name}")
    raise AttributeError(f"module 'arm_lens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
