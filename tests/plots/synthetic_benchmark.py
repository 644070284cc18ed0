"""Small made-up tables of a benchmark run, with the columns of a real one. Not a test file."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

SUBSETS = ("answers", "safe", "polite", "positive", "brief", "detailed", "list", "emphatic")
SKILL = {
    "zero_shot": 0.63, "few_shot": 0.86, "ranked_zero_shot": 0.6, "ranked_few_shot": 0.8, "voting": 0.84,
    "voting_rationale": 0.78, "likelihood": 0.56, "likelihood_ratio": 0.6, "arm_reinforce": 0.9,
    "arm_all_heads": 0.66, "arm_random_heads": 0.71, "arm_top_effect": 0.85, "arm_greedy": 0.88, "arm_soft_gate": 0.91,
    "arm_reinforce_denoised": 0.89, "arm_reinforce_add": 0.8, "sav": 0.87, "probe": 0.93, "length": 0.58,
    "random": 0.5, "constant": 0.5,
}  # fmt: skip
NO_EXAMPLES = ("zero_shot", "ranked_zero_shot", "likelihood", "likelihood_ratio", "length", "random", "constant")
STUDIED = ("arm_reinforce", "arm_random_heads", "few_shot", "sav", "probe")
GRADED = ("zero_shot", "few_shot", "arm_reinforce", "arm_all_heads", "arm_random_heads", "sav", "probe")
BIASES = ("length", "format", "positivity")
MAPPINGS = ("standard", "flipped", "balanced")
PAIR_CELLS = ("bias on rejected", "bias on chosen", "bias on both", "bias on neither")
RESPONSE_CELLS = ("correct, plain", "correct, biased", "incorrect, plain", "incorrect, biased")


def _row(benchmark, subset, unit, judge, n_examples, noise, accuracy, n, random):
    correct = round(float(np.clip(accuracy, 0, 1)) * n)
    p = correct / n
    low, high = _wilson(p, n)
    graded = judge in GRADED and unit == "response"
    brier = 0.25 - 0.3 * (p - 0.5) if graded else np.nan
    auc = min(1.0, p + 0.05) if graded else np.nan
    learns = n_examples > 0
    return {
        "benchmark": benchmark, "subset": subset, "unit": unit, "judge": judge, "n_examples": n_examples,
        "noise": noise, "accuracy": p, "ci_low": low, "ci_high": high, "n": n, "n_clusters": n // 2,
        "n_samples": 3 if learns else 1, "n_seeds": 2 if judge in ("arm_reinforce", "voting", "random") else 1,
        "sd_samples": float(random.uniform(0.005, 0.04)) if learns else np.nan,
        "sd_seeds": float(random.uniform(0.0, 0.03)) if judge in ("arm_reinforce", "voting", "random") else np.nan,
        "auc": auc, "auc_low": auc - 0.03, "auc_high": min(1.0, auc + 0.03),
        "brier": brier, "brier_low": brier - 0.02, "brier_high": brier + 0.02,
    }  # fmt: skip


def _wilson(p, n, z=1.96):
    middle, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def make_summary(
    judges=tuple(SKILL), subsets=SUBSETS, n=200, sizes=(3, 5, 10, 20, 40, 80), noises=(0.1, 0.2, 0.4), hacking=True
) -> pd.DataFrame:
    random = np.random.default_rng(0)
    records = []
    for index, subset in enumerate(subsets):
        for judge in judges:
            skill = SKILL.get(judge, 0.7) + 0.12 * np.sin(index * 2 + len(judge)) * (SKILL.get(judge, 0.7) != 0.5)
            one = 0 if judge in NO_EXAMPLES else 40
            records.append(_row("criteria", subset, "response", judge, one, 0.0, skill, n, random))
            if judge not in STUDIED:
                continue
            for size in sizes:
                if size != 40:
                    at = 0.5 + (skill - 0.5) * (1 - np.exp(-size / 12))
                    records.append(_row("criteria", subset, "response", judge, size, 0.0, at, n, random))
            for noise in noises:
                at = 0.5 + (skill - 0.5) * (1 - 1.6 * noise)
                records.append(_row("criteria", subset, "response", judge, 40, noise, at, n, random))
    for benchmark, cells, unit in (
        ("hacking", PAIR_CELLS, "pair"),
        ("hacking verdicts", RESPONSE_CELLS, "response"),
    ):
        for bias in BIASES if hacking else ():
            for mapping in MAPPINGS:
                for cell in cells:
                    for judge in judges:
                        skill = SKILL.get(judge, 0.7)
                        tricked = judge in ("sav", "probe", "few_shot") and mapping != "balanced"
                        way = {"bias on rejected": 1, "bias on chosen": -1, "correct, plain": 1}.get(cell, 0)
                        way = -1 if cell == "correct, biased" else way
                        sign = 1 if mapping == "standard" else -1
                        at = np.clip(skill + 0.6 * way * sign * tricked, 0, 1)
                        name = f"{bias} | {mapping} | {cell}"
                        one = 0 if judge in NO_EXAMPLES else 40
                        records.append(_row(benchmark, name, unit, judge, one, 0.0, at, 60, random))
    return pd.DataFrame(records)


def make_comparisons(summary: pd.DataFrame, lead="arm_reinforce") -> pd.DataFrame:
    records = []
    for (benchmark, subset, noise), rows in summary.groupby(["benchmark", "subset", "noise"], sort=False):
        for own in rows[rows["judge"] == lead].to_dict("records"):
            for other in rows[(rows["judge"] != lead) & rows["n_examples"].isin([0, own["n_examples"]])].to_dict(
                "records"
            ):
                gap = own["accuracy"] - other["accuracy"]
                error = np.sqrt(sum(one["accuracy"] * (1 - one["accuracy"]) / one["n"] for one in (own, other))) + 0.005
                p = float(np.exp(-0.5 * (gap / error) ** 2))
                records.append(
                    {
                        "benchmark": benchmark, "subset": subset, "unit": own["unit"],
                        "n_examples": own["n_examples"], "noise": noise, "judge": lead, "other": other["judge"],
                        "difference": gap, "ci_low": gap - 1.96 * error, "ci_high": gap + 1.96 * error, "n": own["n"],
                        "n_clusters": own["n_clusters"], "p_permutation": p, "p_mcnemar": p, "p_holm": min(1.0, 4 * p),
                    }
                )  # fmt: skip
    return pd.DataFrame(records)


def make_calibration(judges=GRADED, subsets=SUBSETS[:2], n=200, bins=10) -> pd.DataFrame:
    random = np.random.default_rng(1)
    records = []
    for judge in judges:
        for subset in subsets:
            counts = random.multinomial(n, np.full(bins, 1 / bins))
            for index in range(bins):
                confidence = (index + 0.5) / bins
                true = 0.5 + (confidence - 0.5) * SKILL.get(judge, 0.7)
                count = int(counts[index]) if index != 2 else 0
                share = random.binomial(count, true) / count if count else np.nan
                low, high = _wilson(share, count) if count else (np.nan, np.nan)
                records.append(
                    {
                        "benchmark": "criteria", "subset": subset, "unit": "response", "judge": judge,
                        "n_examples": 0 if judge in NO_EXAMPLES else 40, "noise": 0.0, "bin": index,
                        "low": index / bins, "high": (index + 1) / bins,
                        "confidence": confidence if count else np.nan,
                        "accuracy": share, "ci_low": low, "ci_high": high, "n": count,
                    }
                )  # fmt: skip
    return pd.DataFrame(records)


def make_fits(summary: pd.DataFrame) -> pd.DataFrame:
    rows = summary[summary["judge"].isin(STUDIED) & summary["n_examples"].gt(0)]
    return pd.DataFrame(
        [
            {
                "judge": row["judge"], "benchmark": row["benchmark"], "subset": row["subset"],
                "n_examples": row["n_examples"], "noise": row["noise"], "sample": sample, "seed": 0,
                "fit_accuracy": min(1.0, row["accuracy"] + 0.02 * sample), "n_heads": 12 + sample,
                "heads": [[0, 1], [2, 3]],
            }
            for row in rows.to_dict("records")
            for sample in range(3)
        ]
    )  # fmt: skip


def make_speed(models=("judge", "a-model-of-a-longer-name-7b"), tokens=(64, 256, 1024, 4096), masks=(1, 8, 32, 128)):
    """Timings as bench_selection.py writes them."""
    records = []
    for index, (model, kind) in enumerate(itertools.product(models, ("TransformerBridge", "HookedTransformer"))):
        for prompt, count in itertools.product(tokens, masks):
            common = {"model": model, "model_class": kind, "prompt_tokens": prompt}
            slow = (1 + index) * prompt / 1000
            if count == 1:
                records.append(common | {"path": "full pass per mask", "masks": 1, "seconds_per_mask": slow})
                records.append(common | {"path": "bare forward", "masks": 1, "seconds_per_mask": 0.8 * slow})
            for path, each in (("replay", 1e-3), ("replay, whole vocabulary", 2e-3)):
                seconds = (1 + index) * (each + prompt / 1e6 + 0.05 / count)
                records.append(common | {"path": path, "masks": count, "seconds_per_mask": seconds})
    return pd.DataFrame(records)
