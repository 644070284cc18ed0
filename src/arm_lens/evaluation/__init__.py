"""Reward models measured on labelled items: methods side by side, with intervals, in tidy tables."""

from arm_lens.evaluation.demo import DemoOptions, run_demo
from arm_lens.evaluation.methods import METHODS, judge_items
from arm_lens.evaluation.results import RunResults
from arm_lens.evaluation.statistics import AccuracyEstimate, accuracy

__all__ = ["METHODS", "AccuracyEstimate", "DemoOptions", "RunResults", "accuracy", "judge_items", "run_demo"]
