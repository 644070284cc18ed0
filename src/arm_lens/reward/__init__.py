"""Activation Reward Models: fitting, denoised means, the reward model itself, and sums of reward models."""

from arm_lens.judges.options import Denoise
from arm_lens.reward.algebra import RewardSum
from arm_lens.reward.model import ActivationRewardModel, FitWarning
from arm_lens.reward.records import FitRecord

__all__ = ["ActivationRewardModel", "Denoise", "FitRecord", "FitWarning", "RewardSum"]
