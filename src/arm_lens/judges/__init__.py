"""The other judges, each a reward model: `score` and `prefer`, as an Activation Reward Model has them.

`arm_lens.GenerativeJudge` (zero-shot, few-shot, ranked) and `arm_lens.SparseAttentionVectors` stand by themselves.
"""

from arm_lens.judges.controls import ConstantJudge, LengthJudge, RandomJudge
from arm_lens.judges.endpoint import EndpointJudge
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.voting import Rationale, VotingJudge

__all__ = [
    "ConstantJudge",
    "EndpointJudge",
    "HeadProbe",
    "LengthJudge",
    "LikelihoodJudge",
    "RandomJudge",
    "Rationale",
    "VotingJudge",
]
