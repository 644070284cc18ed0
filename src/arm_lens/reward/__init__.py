"""Activation Reward Models: fitting, denoised means, the reward model itself."""

from arm_lens.judges.options import Denoise
from arm_lens.reward.model import ActivationRewardModel, FitRecord, FitWarning

__all__ = ["ActivationRewardModel", "Denoise", "FitRecord", "FitWarning"]
