"""What each judge costs: `python scripts/bench_judges.py --data DIR --out DIR`, of SmolLM2 on tweets of joy and anger.

Every judge of `arm-lens benchmark real-full` is fitted to the same examples and judges the same texts, and none finds what
was read for another, as it does in a benchmark. Seconds are those of the processors. Passes are floating-point operations
(matrix products and attention, forwards and backwards, as PyTorch counts them) in multiples of what the zero-shot judge takes
for a text, so that long prompts, cached prefixes and gradients count as what they cost. Counting slows a judge down, so it is
done in another call than timing, and both come after one that makes the checks of a model that is seen for the first time
(before a fit that searches for heads there is no such call: the checks are a small part of it).

Writes bench_judges.json. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measuring import claim, kept, machine
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

from arm_lens.benchmark import REAL_FULL, BenchmarkConfig, JudgeChoice, read_config, real_model
from arm_lens.benchmark.data import Task, plan
from arm_lens.benchmark.judging import context_of, model_of, verdicts_by
from arm_lens.benchmark.parts import name_of_weights
from arm_lens.benchmark.run import settled
from arm_lens.engine.protocol import LanguageModel
from arm_lens.judges.base import Judge
from arm_lens.storage import write_text

SDPA_ON_A_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # PyTorch counts those of GPUs only


def _sdpa_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def operations(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its floating-point operations."""
    with FlopCounterMode(display=False, custom_mapping={SDPA_ON_A_CPU: _sdpa_flops}) as counter:
        returned = call()
    return returned, float(counter.get_total_flops())


def processor_seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the seconds of all processors."""
    started = time.process_time()
    return call(), time.process_time() - started


def cost_of(choice: JudgeChoice, task: Task, model: LanguageModel, config: BenchmarkConfig) -> dict[str, Any]:
    """Operations and seconds of a fit to the task's examples, and of judging its test."""

    def fit() -> Judge:
        return choice.spec.fit(context_of(choice, task, model, config, task.first_seed), choice.parsed)

    def ask(judge: Judge) -> None:
        verdicts_by(judge, task.test, choice.score_kind)

    if not choice.judge.startswith("arm_"):
        fit()
    judge, fit_operations = operations(fit)
    ask(judge)
    _, judge_operations = operations(partial(ask, judge))
    judge, fit_seconds = processor_seconds(fit)
    _, judge_seconds = processor_seconds(partial(ask, judge))
    return {
        "judge": choice.label, "examples": len(task.examples), "texts": len(task.test.texts),
        "fit_operations": fit_operations, "fit_seconds": fit_seconds,
        "judge_operations": judge_operations, "judge_seconds": judge_seconds,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=None, help="hub name, folder or GGUF file; by default SmolLM2-135M-Instruct")
    parser.add_argument("--study", default="joy or anger, part by part", help="one of real-full's; its judges too")
    parser.add_argument("--texts", type=int, default=50)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = read_config(REAL_FULL, data=options.data)
    study = next(one for one in config.studies if one.name == options.study)
    own = {choice.label: choice for choice in (*config.choices, *config.judges_of(study))}
    study = study.model_copy(update={"n_examples": (20,), "samples": 1, "test_items": options.texts})
    config = config.model_copy(update={"studies": (study,), "model": str(options.model or real_model())})
    (task,) = plan(config)
    with settled(config):
        model = model_of(config)
        meta = machine(str(model.device), str(model.dtype).removeprefix("torch."))
        claim(options.out, {**meta, "weights": name_of_weights(model), "task": task.digest})
        rows = [
            kept(options.out, label, lambda choice=choice: cost_of(choice, task, model, config))
            for label, choice in tqdm(own.items(), desc="judges")
        ]
    table = with_passes(pd.DataFrame(rows))
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    result = {"meta": meta, "rows": table.to_dict(orient="records")}
    write_text(options.out / "bench_judges.json", json.dumps(result, indent=1) + "\n")


def with_passes(table: pd.DataFrame) -> pd.DataFrame:
    """The costs, with ``fit_passes`` and ``judge_passes`` (per text), and ``judge_seconds`` per text."""
    zero_shot = table[table["judge"] == "zero_shot"].iloc[0]
    one_pass = zero_shot["judge_operations"] / zero_shot["texts"]
    return pd.DataFrame(
        {
            "judge": table["judge"],
            "fit_passes": table["fit_operations"] / one_pass,
            "fit_seconds": table["fit_seconds"],
            "passes_per_text": table["judge_operations"] / table["texts"] / one_pass,
            "seconds_per_text": table["judge_seconds"] / table["texts"],
        }
    )


if __name__ == "__main__":
    main()
