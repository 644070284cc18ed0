"""The public names; `__init__.py` imports each when it is first used."""

from . import attribution as attribution
from . import benchmark as benchmark
from . import comparison as comparison
from . import display as display
from . import engine as engine
from . import evaluation as evaluation
from . import judge_model as judge_model
from . import judges as judges
from . import plots as plots
from . import preferences as preferences
from . import reports as reports
from . import reward as reward
from . import selection as selection
from . import study as study
from . import sweep as sweep
from .engine import Injection, PromptTooLongError, load_model, steer
from .heads import Head, HeadScores, HeadSet
from .judges.artefact import UnconfirmedModelError, WrongModelError
from .judges.base import Comparison, Judge
from .judges.by_name import load_judge
from .judges.generative import GenerativeJudge
from .judges.options import Denoise, QuestionOptions, ReadingOptions
from .judges.sav import SparseAttentionVectors
from .judges.template import JudgeTemplate
from .preferences import (
    LabelledResponse,
    PreferencePair,
    read_preferences,
    split_preferences,
    unpair,
    write_preferences,
)
from .reward.model import ActivationRewardModel
from .selection import PUBLISHED, Reinforce, Selection

__version__: str

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
    "UnconfirmedModelError",
    "WrongModelError",
    "load_judge",
    "load_model",
    "read_preferences",
    "split_preferences",
    "steer",
    "unpair",
    "write_preferences",
]
