"""Benchmarks: judges side by side under one configuration, resumable, in tidy tables.

    config = read_config("benchmark.yaml")
    results = run_benchmark(config, "out")
    results.tables.summary  # accuracy of every judge with its interval, a DataFrame

``arm-lens benchmark demo`` runs the configuration at `DEMO`, ``arm-lens benchmark images`` the one at `IMAGES`,
``arm-lens benchmark real`` the one at `REAL` on the model that `real_model` downloads, ``arm-lens demo`` those at
`DEMONSTRATION` and `DEMONSTRATION_IMAGES`. Judges that are there already are set beside each other by
`judge_preferences`. Pages and figures are made from results by `arm_lens.reports`.
"""

from pathlib import Path

from arm_lens.benchmark.config import BenchmarkConfig, BenchmarkConfigError, JudgeChoice, UnconfirmedKeyError
from arm_lens.benchmark.config_file import read_config
from arm_lens.benchmark.data import check_files
from arm_lens.benchmark.given import controls_of, judge_preferences
from arm_lens.benchmark.parts import head_frames
from arm_lens.benchmark.prompts import ShownPrompt, prompts_of
from arm_lens.benchmark.results import BenchmarkResults, MissingPartsWarning, OtherRunError, run_benchmark
from arm_lens.benchmark.run import BenchmarkJudgeError
from arm_lens.benchmark.smollm2 import real_model
from arm_lens.benchmark.strict_yaml import YamlError
from arm_lens.registry import JUDGES

DEMO = Path(__file__).with_name("demo.yaml")
"""The configuration of the bundled benchmark: every judge that the bundled model can be."""
IMAGES = Path(__file__).with_name("images.yaml")
"""The configuration of the benchmark on pictures, of the bundled judge that sees."""
DEMONSTRATION = Path(__file__).with_name("demonstration.yaml")
"""The configuration of the demonstration: a reward model for each criterion of the bundled model, beside its controls."""
DEMONSTRATION_IMAGES = Path(__file__).with_name("demonstration_images.yaml")
"""The same of the bundled judge that sees, on pictures."""
REAL_FULL = Path(__file__).with_name("real_full.yaml")
"""The configuration of the benchmark that answers more questions about the same model, and takes hours."""
REAL = Path(__file__).with_name("real.yaml")
"""The configuration of the benchmark on a real model and public data, which it names and does not contain."""


__all__ = [
    "DEMO",
    "DEMONSTRATION",
    "DEMONSTRATION_IMAGES",
    "IMAGES",
    "JUDGES",
    "REAL",
    "REAL_FULL",
    "BenchmarkConfig",
    "BenchmarkConfigError",
    "BenchmarkJudgeError",
    "BenchmarkResults",
    "JudgeChoice",
    "MissingPartsWarning",
    "OtherRunError",
    "ShownPrompt",
    "UnconfirmedKeyError",
    "YamlError",
    "check_files",
    "controls_of",
    "head_frames",
    "judge_preferences",
    "prompts_of",
    "read_config",
    "real_model",
    "run_benchmark",
]
