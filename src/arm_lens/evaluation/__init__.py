"""Reward models measured on labelled items: side by side, with intervals, in tidy tables.

From verdicts (one row per item and judge) `benchmark_tables` makes accuracies with intervals, paired comparisons and
calibration, and `health` looks for failure signs. `hacking_items` makes counterbalanced reward-hacking items of any pairs;
`section_scores` adds up RewardBench as published. `run_demo` is the demonstration; benchmarks as a whole are run by
`arm_lens.benchmark`.
"""

from arm_lens.evaluation.demo import DemoOptions, head_frames, run_demo
from arm_lens.evaluation.hacking import (
    MAPPINGS,
    PAIR_CELLS,
    RESPONSE_CELLS,
    hacking_examples,
    hacking_items,
    world_hacking_examples,
    world_hacking_items,
)
from arm_lens.evaluation.health import Check, health
from arm_lens.evaluation.methods import METHODS, judge_items
from arm_lens.evaluation.results import RunResults
from arm_lens.evaluation.rewardbench import rewardbench_2_scores, section_scores
from arm_lens.evaluation.statistics import AccuracyEstimate, accuracy
from arm_lens.evaluation.tables import BenchmarkTables, benchmark_tables

__all__ = [
    "MAPPINGS",
    "METHODS",
    "PAIR_CELLS",
    "RESPONSE_CELLS",
    "AccuracyEstimate",
    "BenchmarkTables",
    "Check",
    "DemoOptions",
    "RunResults",
    "accuracy",
    "benchmark_tables",
    "hacking_examples",
    "hacking_items",
    "head_frames",
    "health",
    "judge_items",
    "rewardbench_2_scores",
    "run_demo",
    "section_scores",
    "world_hacking_examples",
    "world_hacking_items",
]
