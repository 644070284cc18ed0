"""How long attribution takes on the bundled judge model, and how precise it is.

    python scripts/bench_attribution.py --out DIR

For a few seeds: Shapley values of all heads until no sampling error on accuracy or probability exceeds 0.01; all pairwise
interactions of the chosen heads, enumerated; and every other measure, on 40 held-out replies. Medians over seeds. A
full pass over the same prompts is timed beside them: what a mask would cost without the replay. Writes
bench_attribution.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from measuring import machine

from arm_lens import ActivationRewardModel, HeadSet, load_model
from arm_lens.attribution import (
    ablation,
    direct_logit_attribution,
    gradient_attribution,
    head_gating,
    injection_effects,
    integrated_gradients,
    interactions,
    layer_ablation,
    leave_one_out_effects,
    shapley_values,
)
from arm_lens.attribution.shapley import ShapleySampler
from arm_lens.engine import ModelLike
from arm_lens.engine.reading import read_batch
from arm_lens.engine.tokens import pad
from arm_lens.judge_model import labelled_responses
from arm_lens.storage import write_text

BLOCK, FULL = "Shapley values, one block of orders", "a full pass over the prompts"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--criterion", default="positive")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replies", type=int, default=40)
    options = parser.parse_args()
    model = load_model()
    rows = [row for seed in range(options.seeds) for row in measured(model, options.criterion, options.replies, seed)]
    table = pd.DataFrame(rows).groupby("what", sort=False).median(numeric_only=True)
    print(table.round(4).to_string(na_rep=""))
    full, replayed = table.loc[FULL, "seconds"], table.loc[BLOCK, "seconds"] / table.loc[BLOCK, "masks"]
    print(
        f"One mask: {1000 * full:.1f} ms by a full pass, {1000 * replayed:.2f} ms by the replay, {full / replayed:.0f} to 1."
    )
    print(f"{options.seeds} seeds, {options.replies} replies, {torch.get_num_threads()} threads.")
    measures = table["seconds"].drop([FULL, BLOCK]).rename_axis("what").reset_index().assign(full_pass_seconds=full)
    options.out.mkdir(parents=True, exist_ok=True)
    meta = {**machine("cpu", "float32"), "seeds": options.seeds, "replies": options.replies}
    found = {"meta": meta, "measures": measures.to_dict(orient="records")}
    write_text(options.out / "bench_attribution.json", json.dumps(found, indent=1) + "\n")


def measured(model: ModelLike, criterion: str, replies: int, seed: int) -> list[dict[str, object]]:
    """One seed: what was done, in how many seconds, and what belongs to it."""
    examples = labelled_responses(criterion, 40, split="train", seed=seed)
    reward = ActivationRewardModel.fit(model, examples, seed=seed)
    objective = reward.objective(labelled_responses(criterion, replies, split="test", seed=seed))
    everyone = HeadSet.all(*objective.shape)
    objective.margins(everyone.mask[None])  # prompts are read once, before anything is timed
    whole = pad(objective.replay.sequences)
    sampler = ShapleySampler(objective, everyone, seed=seed)
    runs: dict[str, Callable[[], object]] = {
        FULL: lambda: read_batch(model, whole),
        BLOCK: lambda: sampler.sample(sampler.block),
        "Shapley values of all heads": lambda: shapley_values(objective, seed=seed),
        "interactions of the chosen heads": lambda: interactions(objective, reward.heads, exact=True),
        "injection": lambda: injection_effects(objective),
        "leave one out": lambda: leave_one_out_effects(objective, reward.heads),
        "head gating": lambda: head_gating(objective, seed=seed),
        "integrated gradients": lambda: integrated_gradients(objective),
        "gradient": lambda: gradient_attribution(objective),
        "direct": lambda: direct_logit_attribution(objective),
        "ablation, zero": lambda: ablation(objective, "zero"),
        "ablation, mean": lambda: ablation(objective, "mean"),
        "ablation, resample": lambda: ablation(objective, "resample"),
        "ablation, optimal": lambda: ablation(objective, "optimal"),
        "ablation of MLPs, mean": lambda: layer_ablation(objective, "mean"),
    }
    rows: list[dict[str, object]] = []
    for what, run in runs.items():
        started = time.monotonic()
        found = run()
        row: dict[str, object] = {"what": what, "seconds": time.monotonic() - started}
        if what == BLOCK:
            row["masks"] = sampler.block * (len(everyone) - 1)
        if what.startswith("Shapley values of"):
            row["error"] = max(float(found.sampling_errors[one].max()) for one in ("accuracy", "probability"))
        if what.startswith("interactions"):
            row["heads"] = len(reward.heads)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
