"""Which search for heads is best: `python scripts/bench_searches.py --data DIR --out DIR`, or `--model bundled --out DIR`.

Every search is given the same means and the same few labelled examples, on which it maximises the same reward (of the two
verdicts, the log-probability of the right one), and is judged on held-out examples: what the reward is there, against the
forward passes that the search took. On a real model the tasks are tweets (positive, joy or anger, ironic;
docs/real_models.md says where the files come from), on the bundled one three of its criteria; each draw has other examples.

Writes bench_searches.json and bench_searches.png. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
from measuring import claim, digest_of_files, kept, machine
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from arm_lens import GenerativeJudge, load_model, read_preferences, split_preferences
from arm_lens.benchmark import real_model
from arm_lens.benchmark.parts import name_of_weights
from arm_lens.engine.language_model import language_model
from arm_lens.engine.protocol import LanguageModel
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import questions_of
from arm_lens.plots import save_figure
from arm_lens.preferences import Preference
from arm_lens.reward.fitting import judging_objective, means_and_objective
from arm_lens.selection import JudgingObjective, PooledObjective, selector_of
from arm_lens.storage import write_text

TASKS = {
    "joy": ("emotion", {"joy": True, "anger": False}, "The tweet expresses joy."),
    "positive": ("sentiment", {"positive": True, "negative": False}, "The tweet is positive."),
    "ironic": ("irony", {"ironic": True, "not ironic": False}, "The tweet is ironic."),
}
"""Name -> name of the files, meaning of their labels, criterion in words."""
CRITERIA = ("polite", "answers", "brief")
"""Of the bundled model."""
SEARCHES: dict[str, dict[str, Any]] = {
    "no head": {"kind": "fixed_heads", "heads": []},
    "REINFORCE": {"kind": "reinforce"},
    "top effect": {"kind": "top_effect"},
    "greedy, up to 12": {"kind": "greedy", "max_heads": 12},
    "hard-concrete": {"kind": "hard_concrete"},
    "soft gates, discrete": {"kind": "soft_gate", "discrete": True},
    "REINFORCE, patience 20": {"kind": "reinforce", "patience": 20},
    "REINFORCE, control variate": {"kind": "reinforce", "control_variate": True},
    "REINFORCE, start from slopes": {"kind": "reinforce", "warm_start": "slopes"},
    "REINFORCE, cold start": {"kind": "reinforce", "warm_start": None},
    "REINFORCE, cold start at 0.27": {
        "kind": "reinforce",
        "warm_start": None,
        "initial_logit": -1.0,
        "head_penalty": 0.01,
    },
    "published": {"kind": "published"},
    "all heads": {"kind": "all_heads"},
}


def examples_of(task: str, draw: int, options: argparse.Namespace) -> tuple[str, list[Preference], list[Preference]]:
    """The criterion in words, the few examples of a draw, and the held-out ones, which are the same for every draw."""
    if options.model == "bundled":
        few = labelled_responses(task, options.examples, split="train", seed=draw)
        return "", few, labelled_responses(task, options.held_out, split="test", seed=0)
    stem, labels, text = TASKS[task]
    train, test = (
        read_preferences(options.data / "tweets" / f"{stem}_{part}.jsonl", labels=labels, criterion=task)
        for part in ("train", "test")
    )
    few = split_preferences(train, {"few": options.examples}, seed=draw)["few"]
    return text, few, split_preferences(test, {"many": options.held_out}, seed=0)["many"]


def problem(
    model: LanguageModel, task: str, draw: int, options: argparse.Namespace
) -> tuple[PooledObjective, JudgingObjective]:
    """The objective of a fit, and the same means on held-out examples."""
    text, few, many = examples_of(task, draw, options)
    judge = GenerativeJudge(model, question=QuestionOptions(criterion_text=text, batch_size=8))
    means, objective = means_and_objective(judge, few, ReadingOptions(seed=draw), reward="two_way")
    questions = questions_of(many, judge.template, judge.layout, seed=0)
    return objective, judging_objective(judge, questions, means, reward="two_way")


def found_by(search: str, objective: PooledObjective, held: JudgingObjective, draw: int) -> dict[str, Any]:
    """What a search finds, and what it is worth on the examples and held out."""
    started = time.perf_counter()
    found = selector_of(SEARCHES[search]).select(objective, seed=draw)
    seconds = time.perf_counter() - started
    margins = held.margins(found.heads.mask[None])[:, 0]
    gaps = margins.where(held.labels, -margins)
    return {
        "passes": found.passes, "seconds": seconds, "heads": len(found.heads),
        "reward": float(objective(found.heads.mask[None])[0]), "held_out": float(held(found.heads.mask[None])[0]),
        "accuracy": float((margins > 0).float().mean()), "auc": float(roc_auc_score(held.labels.numpy(), gaps.numpy())),
        "steps": len(found.history), "chosen": [list(head) for head in found.heads],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the tweets; not for the bundled model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model", default=None, help="hub name, folder, GGUF file or 'bundled'; by default SmolLM2-135M-Instruct"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tasks", nargs="+", help="by default all")
    parser.add_argument("--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=100)
    options = parser.parse_args()
    bundled = options.model == "bundled"
    if not bundled and options.data is None:
        parser.error("--data is missing: the folder with the tweets")
    options.out.mkdir(parents=True, exist_ok=True)
    known = list(CRITERIA if bundled else TASKS)
    tasks = options.tasks or known
    if unknown := [task for task in tasks if task not in known]:
        parser.error(f"there is no task {unknown[0]!r}; there are {', '.join(known)}")
    model = language_model(load_model() if bundled else load_model(options.model or real_model(), dtype=options.dtype))
    meta = machine(str(model.device), str(model.dtype).removeprefix("torch."))
    data = None if bundled else digest_of_files(options.data / "tweets")
    sizes = {"examples": options.examples, "held_out": options.held_out}
    claim(options.out, {**meta, "weights": name_of_weights(model), "data": data, **sizes})
    rows = []
    for draw, task in tqdm(list(itertools.product(range(options.draws), tasks)), desc="searches"):
        objectives = functools.cache(functools.partial(problem, model, task, draw, options))  # read if needed
        for search in options.searches:
            found = kept(
                options.out, f"{task} {draw} {search}", lambda s=search, o=objectives, d=draw: found_by(s, *o(), d)
            )
            rows.append({"task": task, "draw": draw, "search": search, **found})
    table = pd.DataFrame(rows)
    numbers = table.drop(columns=["task", "draw", "chosen"]).groupby("search", sort=False)
    summary = numbers.mean().assign(held_out_sem=numbers["held_out"].sem()).reset_index()
    print(summary.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    by_task = table.pivot_table(index="search", columns="task", values=["held_out", "auc"], sort=False)
    print(by_task.to_string(float_format=lambda x: f"{x:.3f}"))
    result = {"meta": meta, "rows": rows, "summary": summary.to_dict(orient="records")}
    write_text(options.out / "bench_searches.json", json.dumps(result, indent=1).replace("NaN", "null") + "\n")
    figure = px.scatter(
        summary[summary["passes"] > 1], x="passes", y="held_out", error_y="held_out_sem", color="search", symbol="search",
        template="plotly_white",
        labels={"passes": "forward passes of every example", "held_out": "reward on held-out examples (nats)", "search": ""},
    )  # fmt: skip
    figure.update_traces(marker_size=10)
    figure.add_hline(
        float(summary.loc[summary["search"] == "no head", "held_out"].iloc[0]),
        line_dash="dot",
        annotation_text="no head",
    )
    save_figure(figure, options.out / "bench_searches.png")


if __name__ == "__main__":
    main()
