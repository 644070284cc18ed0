"""The published search beside the default one, on the bundled model: `python scripts/compare_selection.py --out FILE`.

For every criterion and seed both searches get the same means and the same validation examples. Printed and written: test
accuracy, heads in the set, seconds, and how far sets of different seeds agree (mean pairwise Jaccard), beside the
agreement of random sets of the same sizes per layer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from arm_lens import (
    PUBLISHED,
    ActivationRewardModel,
    GenerativeJudge,
    HeadSet,
    Reinforce,
    load_model,
    reinforce,
    split_preferences,
)
from arm_lens.judge_model import CRITERIA, labelled_responses
from arm_lens.questions import questions_of
from arm_lens.reward import judging_objective

SEARCHES = {"published": PUBLISHED, "default": Reinforce()}


def run(criterion: str, seed: int, *, examples: int, test_items: int) -> list[dict[str, object]]:
    """A row per search."""
    model = load_model()
    judge = GenerativeJudge(model, batch_size=4)
    shown = labelled_responses(criterion, examples, split="train", seed=seed)
    parts = split_preferences(shown, {"read": 0.5, "validation": 0.5}, seed=seed)
    asked = questions_of(labelled_responses(criterion, test_items, split="test", seed=1_000_000), judge.template)
    labels = torch.tensor([question.positive for question in asked])
    nothing = HeadSet.none(model.cfg.n_layers, model.cfg.n_heads)
    bare = ActivationRewardModel.fit(model, parts["read"], selector=nothing, seed=seed, batch_size=4)
    chosen_on = questions_of(parts["validation"], judge.template)
    rows = []
    for name, options in SEARCHES.items():
        started = time.perf_counter()
        objective = judging_objective(judge, chosen_on, bare.means)
        found = reinforce(
            objective, nothing.n_layers, nothing.n_heads, n_examples=len(objective), options=options, seed=seed
        )
        seconds = time.perf_counter() - started
        right = (bare.with_heads(found.heads).verdict(asked).gap > 0) == labels
        rows.append(
            {
                "criterion": criterion,
                "seed": seed,
                "search": name,
                "accuracy": float(right.float().mean()),
                "n": test_items,
                "heads": found.heads.to_list(),
                "seconds": seconds,
            }
        )
    return rows


def agreement(frame: pd.DataFrame, n_layers: int, n_heads: int) -> tuple[float, float]:
    """Mean pairwise Jaccard of the seeds' sets, and of random sets of the same size per layer."""
    generator, found, chance = torch.Generator().manual_seed(0), [], []
    for _, rows in frame.groupby("criterion"):
        sets = [HeadSet.of(n_layers, n_heads, [(a, b) for a, b in heads]) for heads in rows["heads"]]
        for one, two in itertools.combinations(sets, 2):
            found.append(one.jaccard(two))
            chance += [one.random_like(generator).jaccard(two.random_like(generator)) for _ in range(20)]
    return sum(found) / len(found), sum(chance) / len(chance)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the rows")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=40, help="labelled replies; half are read, half choose")
    parser.add_argument("--test-items", type=int, default=400)
    arguments = parser.parse_args()
    jobs = list(itertools.product(CRITERIA, range(arguments.seeds)))
    rows = []
    for criterion, seed in tqdm(jobs):
        rows += run(criterion, seed, examples=arguments.examples, test_items=arguments.test_items)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    frame = pd.DataFrame(rows)
    model = load_model()
    table = []
    for name, part in frame.groupby("search", sort=False):
        jaccard, chance = agreement(part, model.cfg.n_layers, model.cfg.n_heads)
        table.append(
            {
                "search": name,
                "accuracy": part["accuracy"].mean(),
                "worst": part["accuracy"].min(),
                "heads": part["heads"].map(len).mean(),
                "jaccard": jaccard,
                "jaccard by chance": chance,
                "median seconds": part["seconds"].median(),
            }
        )
    print(pd.DataFrame(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
