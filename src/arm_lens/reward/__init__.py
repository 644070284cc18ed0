"""Activation Reward Models: fitting, denoised means, the reward model itself, sums of reward models, and best-of-n."""

from arm_lens.judges.options import Denoise
from arm_lens.reward.algebra import RewardSum
from arm_lens.reward.model import ActivationRewardModel, FitWarning
from arm_lens.reward.records import FitRecord
from arm_lens.reward.sampling import NoneFoundWarning, Sampler, best_of, rejection_sampling

__all__ = [
    "ActivationRewardModel",
    "Denoise",
    "FitRecord",
    "FitWarning",
    "NoneFoundWarning",
    "RewardSum",
    "Sampler",
    "best_of",
    "rejection_sampling",
]
