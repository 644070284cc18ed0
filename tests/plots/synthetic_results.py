"""Small made-up results with the columns of a real run. Not a test file."""

from __future__ import annotations

import numpy as np
import pandas as pd

CRITERIA = ("answers", "safe", "polite", "positive", "brief", "detailed", "list", "emphatic")
SKILL = {"zero_shot": 0.15, "few_shot": 0.9, "arm_all_heads": 0.7, "arm_random_heads": 0.75, "arm_reinforce": 1.6}
CELL = ["benchmark", "subset", "unit", "judge", "n_examples", "noise"]


def make_items(criteria=CRITERIA, seeds=(0, 1, 2), n=400, judges=tuple(SKILL), texts=True) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frames = []
    for difficulty, criterion in enumerate(criteria):
        labels = random.random(n) < 0.5
        for judge in judges:
            for seed in seeds:
                strength = SKILL[judge] * (0.5 + 0.15 * difficulty) + 0.15 * random.normal()
                logit = strength * np.where(labels, 1, -1) + random.normal(0, 1, n)
                reward = 1 / (1 + np.exp(-1.5 * logit))
                frames.append(
                    pd.DataFrame(
                        {
                            "benchmark": "criteria",
                            "subset": criterion,
                            "unit": "response",
                            "judge": judge,
                            "n_examples": 0 if judge == "zero_shot" else 64,
                            "noise": 0.0,
                            "sample": 0,
                            "seed": seed,
                            "item": np.arange(n),
                            "label": labels,
                            "reward": reward,
                            "correct": ((reward > 0.5) == labels).astype(float),
                        }
                    )
                )
    items = pd.concat(frames, ignore_index=True)
    if texts:
        items["prompt"] = [f"Where can I leave my bicycle number {item} overnight?" for item in items["item"]]
        items["response"] = [
            f"You may leave bicycle {item} in the shed behind the library; it is locked from ten in the evening."
            for item in items["item"]
        ]
    return items


def make_rows(items: pd.DataFrame) -> pd.DataFrame:
    rows = items.groupby([*CELL, "sample", "seed"], sort=False)["correct"].agg(["mean", "count"]).reset_index()
    rows = rows.rename(columns={"mean": "accuracy", "count": "n"})
    half = 1.96 * np.sqrt(rows["accuracy"] * (1 - rows["accuracy"]) / rows["n"])
    rows["ci_low"], rows["ci_high"] = (rows["accuracy"] - half).clip(0), (rows["accuracy"] + half).clip(upper=1)
    return rows


def make_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds."""
    return rows.groupby(CELL, sort=False)[["accuracy", "ci_low", "ci_high", "n"]].mean().reset_index()


def make_heads(criteria=CRITERIA, seeds=(0, 1, 2), n_layers=6, n_heads=8) -> pd.DataFrame:
    random = np.random.default_rng(1)
    records = []
    for criterion in criteria:
        liking = random.normal(-1.6, 1.8, (n_layers, n_heads))
        for seed in seeds:
            p = 1 / (1 + np.exp(-(liking + random.normal(0, 0.8, liking.shape))))
            records += [
                (criterion, seed, layer, head, float(p[layer, head]), bool(p[layer, head] > 0.5))
                for layer in range(n_layers)
                for head in range(n_heads)
            ]
    return pd.DataFrame(records, columns=["criterion", "seed", "layer", "head", "probability", "selected"])


def make_history(criteria=CRITERIA, seeds=(0, 1, 2), steps=200) -> pd.DataFrame:
    random = np.random.default_rng(2)
    frames = []
    for difficulty, criterion in enumerate(criteria):
        for seed in seeds:
            step = np.arange(steps)
            rise = 1 - np.exp(-step / 40)
            reward = -0.7 + (0.25 + 0.04 * difficulty) * rise + random.normal(0, 0.01, steps) + 0.02 * random.normal()
            expected = 13 - 4 * rise + random.normal(0, 0.3)
            frames.append(
                pd.DataFrame(
                    {
                        "criterion": criterion,
                        "seed": seed,
                        "step": step,
                        "reward": reward,
                        "entropy": 0.58 - 0.5 * rise,
                        "expected_heads": expected,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def make_results(criteria=CRITERIA, seeds=(0, 1, 2), n=400, n_layers=6, n_heads=8) -> dict[str, pd.DataFrame]:
    items = make_items(criteria, seeds, n)
    return {
        "rows": make_rows(items),
        "summary": make_summary(make_rows(items)),
        "items": items,
        "heads": make_heads(criteria, seeds, n_layers, n_heads),
        "history": make_history(criteria, seeds),
    }
