"""Activation Reward Models: few-shot reward models made by reading attention heads instead of training.

>>> from arm_lens import ActivationRewardModel, load_model, read_preferences
>>> model = load_model("meta-llama/Llama-3.2-1B-Instruct")
>>> reward = ActivationRewardModel.fit(model, read_preferences("preferences.jsonl"))
>>> reward.score(["How do I boil an egg?"], ["Eight minutes in simmering water."])
"""

from importlib import import_module
from types import ModuleType

from arm_lens.engine.language_model import describe, last_logits
from arm_lens.engine.loading import load_model
from arm_lens.engine.protocol import ModelInfo
from arm_lens.engine.reading import HeadMeans, RunningMean, fingerprint, mean_heads, read_batch, read_heads
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import Injection, steer
from arm_lens.engine.tokens import PromptTooLongError, TokenBatch, pad
from arm_lens.engine.verdict_tokens import VerdictScores, VerdictTokenError, VerdictTokens, resolve_verdicts
from arm_lens.heads import Head, HeadScores, HeadSet
from arm_lens.judges.artefact import WrongModelError
from arm_lens.judges.base import Comparison, Judge, PositionBias
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import Denoise, QuestionOptions, ReadingOptions
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import (
    LabelledResponse,
    PreferencePair,
    read_preferences,
    split_preferences,
    unpair,
    write_preferences,
)
from arm_lens.reward.model import ActivationRewardModel
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
    "Judge",
    "JudgeTemplate",
    "JudgingObjective",
    "LabelledResponse",
    "ModelInfo",
    "PositionBias",
    "PreferencePair",
    "PromptTooLongError",
    "QuestionOptions",
    "ReadingOptions",
    "Reinforce",
    "Replay",
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
    "unpair",
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
