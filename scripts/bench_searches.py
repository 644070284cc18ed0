"""Which search for heads is best: `python scripts/bench_searches.py --data DIR --out DIR`.

Every search is given the same means and the same few labelled examples, on which it maximises the same reward (of the two
verdicts, the log-probability of the right one), and is judged on held-out examples: what the reward is there, against the
forward passes that the search took. Tasks are tweets (positive, joy or anger, ironic; docs/real_models.md says where the
files come from), the draws different examples.

Writes bench_searches.json and bench_searches.png. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
from measuring import kept, machine
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from arm_lens import GenerativeJudge, load_model, read_preferences, split_preferences
from arm_lens.benchmark import real_model
from arm_lens.engine.language_model import language_model
from arm_lens.engine.protocol import LanguageModel
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import questions_of
from arm_lens.plots import save_figure
from arm_lens.reward.fitting import judging_objective, means_and_objective
from arm_lens.selection import selector_of
from arm_lens.storage import write_text

TASKS = {
    "joy": ("emotion", {"joy": True, "anger": False}, "The tweet expresses joy."),
    "positive": ("sentiment", {"positive": True, "negative": False}, "The tweet is positive."),
    "ironic": ("irony", {"ironic": True, "not ironic": False}, "The tweet is ironic."),
}
"""Name -> name of the files, meaning of their labels, criterion in words."""
SEARCHES: dict[str, dict[str, Any]] = {
    "no head": {"kind": "fixed_heads", "heads": []},
    "all heads": {"kind": "all_heads"},
    "top effect": {"kind": "top_effect"},
    "greedy": {"kind": "greedy"},
    "soft gates, discrete": {"kind": "soft_gate", "discrete": True},
    "hard-concrete": {"kind": "hard_concrete"},
    "REINFORCE": {"kind": "reinforce"},
    "REINFORCE, cold start": {"kind": "reinforce", "warm_start": False},
    "REINFORCE, cold start at 0.27": {
        "kind": "reinforce",
        "warm_start": False,
        "initial_logit": -1.0,
        "head_penalty": 0.01,
    },
    "published": {"kind": "published"},
}


def problem(model: LanguageModel, data: Path, task: str, draw: int, examples: int, held_out: int) -> tuple[Any, Any]:
    """The objective of a fit, and the same means on held-out examples."""
    stem, labels, text = TASKS[task]
    judge = GenerativeJudge(model, question=QuestionOptions(criterion_text=text, batch_size=8))
    train, test = (
        read_preferences(data / "tweets" / f"{stem}_{part}.jsonl", labels=labels, criterion=task)
        for part in ("train", "test")
    )
    few = split_preferences(train, {"few": examples}, seed=draw)["few"]
    many = split_preferences(test, {"many": held_out}, seed=0)["many"]
    means, objective = means_and_objective(judge, few, ReadingOptions(seed=draw), reward="two_way")
    questions = questions_of(many, judge.template, judge.layout, seed=0)
    return objective, judging_objective(judge, questions, means, reward="two_way")


def compare(model: LanguageModel, options: argparse.Namespace, task: str, draw: int) -> list[dict[str, Any]]:
    """One row per search, on one draw of examples."""
    objective, held = problem(model, options.data, task, draw, options.examples, options.held_out)
    objective(objective.objectives[0].values.new_zeros(1, *objective.shape).bool().cpu())  # reads the prompts
    rows = []
    for name in options.searches:
        started = time.perf_counter()
        found = selector_of(SEARCHES[name]).select(objective, seed=draw)
        seconds = time.perf_counter() - started
        margins = held.margins(found.heads.mask[None])[:, 0]
        gaps = margins.where(held.labels, -margins)
        rows.append(
            {
                "task": task, "draw": draw, "search": name, "passes": found.passes, "seconds": seconds,
                "heads": len(found.heads), "reward": float(objective(found.heads.mask[None])[0]),
                "held_out": float(held(found.heads.mask[None])[0]), "accuracy": float((margins > 0).float().mean()),
                "auc": float(roc_auc_score(held.labels.numpy(), gaps.numpy())),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=None, help="hub name, folder or GGUF file; by default SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = language_model(load_model(options.model or real_model(), dtype=options.dtype))
    jobs = list(itertools.product(range(options.draws), options.tasks))
    rows = [
        row
        for draw, task in tqdm(jobs, desc="searches")
        for row in kept(options.out, f"{task} {draw}", lambda t=task, d=draw: compare(model, options, t, d))
    ]
    table = pd.DataFrame(rows)
    numbers = table.drop(columns=["task", "draw"]).groupby("search", sort=False)
    summary = numbers.mean().assign(held_out_sem=numbers["held_out"].sem()).reset_index()
    print(summary.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    meta = machine(str(model.device), str(model.dtype).removeprefix("torch."))
    result = {"meta": meta, "rows": rows, "summary": summary.to_dict(orient="records")}
    write_text(options.out / "bench_searches.json", json.dumps(result, indent=1).replace("NaN", "null") + "\n")
    figure = px.scatter(
        summary, x="passes", y="held_out", error_y="held_out_sem", text="search", log_x=True,
        labels={"passes": "forward passes of every example", "held_out": "reward on held-out examples (nats)"},
    )  # fmt: skip
    figure.update_traces(textposition="top center")
    save_figure(figure, options.out / "bench_searches.png")


if __name__ == "__main__":
    main()
