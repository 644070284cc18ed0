"""Activation Reward Models: few-shot reward models made by reading attention heads instead of training.

>>> from arm_lens import ActivationRewardModel, load_model, read_preferences
>>> model = load_model("meta-llama/Llama-3.2-1B-Instruct")
>>> reward = ActivationRewardModel.fit(model, read_preferences("preferences.jsonl"))
>>> reward.score(["How do I boil an egg?"], ["Eight minutes in simmering water."])

Further names are in the packages: `arm_lens.engine` reads and steers models, `arm_lens.judges` and `arm_lens.selection`
have every judge and every way of choosing heads, `arm_lens.benchmark`, `arm_lens.attribution`, `arm_lens.comparison`,
`arm_lens.study`, `arm_lens.plots` and `arm_lens.reports` work with the results.
"""

from importlib.metadata import version

from arm_lens.engine import Injection, PromptTooLongError, load_model, steer
from arm_lens.heads import Head, HeadScores, HeadSet
from arm_lens.judges.artefact import WrongModelError
from arm_lens.judges.base import Comparison, Judge
from arm_lens.judges.by_name import load_judge
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
from arm_lens.selection import PUBLISHED, Reinforce, Selection

__version__ = version("arm-lens")

__all__ = [
    "PUBLISHED",
    "ActivationRewardModel",
    "Comparison",
    "Denoise",
    "GenerativeJudge",
    "Head",
    "HeadScores",
    "HeadSet",
    "Injection",
    "Judge",
    "JudgeTemplate",
    "LabelledResponse",
    "PreferencePair",
    "PromptTooLongError",
    "QuestionOptions",
    "ReadingOptions",
    "Reinforce",
    "Selection",
    "SparseAttentionVectors",
    "WrongModelError",
    "load_judge",
    "load_model",
    "read_preferences",
    "split_preferences",
    "steer",
    "unpair",
    "write_preferences",
]
