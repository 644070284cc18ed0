"""The judges, each with `score` and `prefer`, as an Activation Reward Model has them.

`fit_judge` makes one by its name, `load_judge` reads one that was saved.
"""

from arm_lens.judges.artefact import ArtefactError, HooksNotSavedWarning, UnconfirmedModelError, WrongModelError
from arm_lens.judges.artefact_images import OtherPixelsWarning
from arm_lens.judges.base import Comparison, FittedJudge, Judge, SavableJudge
from arm_lens.judges.by_name import fit_judge, load_judge
from arm_lens.judges.calibrated import CalibratedJudge
from arm_lens.judges.chat import ChatTemplateError
from arm_lens.judges.checks import SkippedWarning
from arm_lens.judges.controls import ConstantJudge, LengthJudge, RandomJudge
from arm_lens.judges.endpoint import EndpointJudge, EndpointOptions
from arm_lens.judges.endpoint.answers import AnswersFileError
from arm_lens.judges.endpoint.errors import BudgetReachedError, EndpointError
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.head_picture import NoPictureWarning
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.options import Denoise, QuestionOptions, ReadingOptions
from arm_lens.judges.position_bias import PositionBias
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.questions import ClippedPromptWarning, OwnAnswerWarning, UnknownTokensWarning
from arm_lens.judges.rating import RatingJudge
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.turns import turn_rewards
from arm_lens.judges.verdict_mass import VerdictMassWarning
from arm_lens.judges.voting import Rationale, VotingJudge

__all__ = [
    "AnswersFileError",
    "ArtefactError",
    "BudgetReachedError",
    "CalibratedJudge",
    "ChatTemplateError",
    "ClippedPromptWarning",
    "Comparison",
    "ConstantJudge",
    "Denoise",
    "EndpointError",
    "EndpointJudge",
    "EndpointOptions",
    "FittedJudge",
    "GenerativeJudge",
    "HeadProbe",
    "HooksNotSavedWarning",
    "Judge",
    "LengthJudge",
    "LikelihoodJudge",
    "NoPictureWarning",
    "OtherPixelsWarning",
    "OwnAnswerWarning",
    "PositionBias",
    "QuestionOptions",
    "RandomJudge",
    "RatingJudge",
    "Rationale",
    "ReadingOptions",
    "SavableJudge",
    "SkippedWarning",
    "SparseAttentionVectors",
    "UnconfirmedModelError",
    "UnknownTokensWarning",
    "VerdictMassWarning",
    "VotingJudge",
    "WrongModelError",
    "fit_judge",
    "load_judge",
    "turn_rewards",
]
