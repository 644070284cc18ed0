"""From verdicts to tables: statistics, section scores, warning signs. Nothing here knows a judge, a file or a figure.

From verdicts (one row per item and judge) `benchmark_tables` makes accuracies with intervals, paired comparisons and
calibration, and `health` looks for warning signs. `hacking_items` makes counterbalanced reward-hacking items of any pairs;
`section_scores` adds up RewardBench as published, `rm_bench_scores` RM-Bench, and `multimodal_rewardbench_scores` and
`vl_rewardbench_scores` the benchmarks about images. Verdicts come from `arm_lens.benchmark`.
"""

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
from arm_lens.evaluation.multimodal import multimodal_rewardbench_scores, vl_rewardbench_scores
from arm_lens.evaluation.rewardbench import rewardbench_2_scores, section_scores
from arm_lens.evaluation.rm_bench import rm_bench_scores, rm_bench_sections
from arm_lens.evaluation.statistics import Estimate, accuracy
from arm_lens.evaluation.tables import BenchmarkTables, benchmark_tables

__all__ = [
    "MAPPINGS",
    "PAIR_CELLS",
    "RESPONSE_CELLS",
    "BenchmarkTables",
    "Check",
    "Estimate",
    "accuracy",
    "benchmark_tables",
    "hacking_examples",
    "hacking_items",
    "health",
    "multimodal_rewardbench_scores",
    "rewardbench_2_scores",
    "rm_bench_scores",
    "rm_bench_sections",
    "section_scores",
    "vl_rewardbench_scores",
    "world_hacking_examples",
    "world_hacking_items",
]
