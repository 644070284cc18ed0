"""One HTML page from the results of a run: what came out, whether to believe it, and how it was made.

Criteria, prompts and responses come from users' data; `arm_lens.reports.page` says why they cannot run as code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.evaluation.health import Check
from arm_lens.frames import checked, criteria_of
from arm_lens.reports.page import facts, render_page

LEAD = "reinforce"
"""The method under study; the others are its controls."""
CROWDED = (0.45, 0.55)
EXAMPLES_PER_END = 2
FACTS = {
    "model": "Model",
    "date": "Date",
    "n_examples": "Labelled examples per criterion",
    "n_test": "Test items per criterion",
    "demonstrations": "Examples in a few-shot prompt",
    "seeds": "Seeds",
    "n_random_sets": "Random head sets drawn",
    "runtime_seconds": "Running time",
    "versions": "Versions",
}
"""What is told about the run, and under which name."""
TEXT_LIMIT = 600
Cell: TypeAlias = dict[Any, Any]
"""A row of `plots.mean_over_seeds`: accuracy, ci_low, ci_high, lowest, highest."""


def write_report(
    path: str | Path,
    *,
    meta: Mapping[str, Any],
    rows: pd.DataFrame,
    items: pd.DataFrame,
    heads: pd.DataFrame,
    history: pd.DataFrame,
) -> Path:
    """Write the page.

    Args:
        path: where to; its folder must exist.
        meta: about the run: title, model, date, seeds, n_test, n_examples, shots, n_random_draws, runtime_seconds,
            versions, command, notes, criteria (what each one asks for). What is missing is left out.
        rows: criterion, method, seed, accuracy, ci_low, ci_high (a 95 % interval over test items), n, n_heads.
        items: criterion, method, seed, item, label, reward, correct; optionally the texts ``prompt`` and ``response``.
        heads: criterion, seed, layer, head, probability, selected.
        history: criterion, seed, step, reward, entropy, expected_heads.

    Returns:
        The path.

    Raises:
        ValueError: if ``rows`` is empty or a column is missing. The other tables may be empty: their figures are then
            left out.
    """
    path = Path(path)
    checked(rows, ["criterion", "method", "seed", "accuracy", "ci_low", "ci_high", "n", "n_heads"], table="rows")
    names = {"few_shot": f"Few-shot ({meta['demonstrations']} in prompt)"} if meta.get("demonstrations") else {}
    figures = _figures(rows, items, heads, history, names)
    context = {
        "meta": meta,
        "title": meta.get("title") or "Activation Reward Models: results",
        "facts": facts(meta, FACTS),
        "lead": LEAD,
        "table": _table(rows, names),
        "checks": _checks(rows, items, heads),
        "examples": _examples(items),
    }
    page = render_page("report.html", figures, context)
    path.write_text(page, encoding="utf-8")
    return path


def _figures(
    rows: pd.DataFrame,
    items: pd.DataFrame,
    heads: pd.DataFrame,
    history: pd.DataFrame,
    names: Mapping[str, str],
) -> dict[str, go.Figure]:
    """The figures that these tables can show; the template has a caption for each key."""
    figures = {"accuracy": plots.accuracy_by_method(rows, names=names)}
    if _has(items, LEAD):
        figures["rewards"] = plots.reward_histograms(items, LEAD)
    if not heads.empty:
        figures["selected"] = plots.selected_heads(heads)
        figures["probabilities"] = plots.selection_probabilities(heads)
    if not history.empty:
        figures["reward_curve"] = plots.training_curves(history, value="reward")
        figures["heads_curve"] = plots.training_curves(history, value="expected_heads")
    return figures


def _has(frame: pd.DataFrame, method: str) -> bool:
    return not frame.empty and bool((frame["method"] == method).any())


def _table(rows: pd.DataFrame, names: Mapping[str, str]) -> dict[str, Any]:
    """Criterion by method, the mean over criteria below, and what the headline says."""
    means = plots.mean_over_seeds(rows)
    styles = plots.method_styles(rows["method"], names)
    cells = {(row["criterion"], row["method"]): row for row in means.to_dict("records")}
    criteria = criteria_of(rows)
    lead_heads = rows[rows["method"] == LEAD].groupby("criterion")["n_heads"].mean().to_dict()
    lines: list[dict[str, Any]] = []
    for criterion in criteria:
        line = {method: cells.get((criterion, method)) for method in styles}
        lines.append({"criterion": criterion, "cells": line, "best": _best(line), "heads": lead_heads.get(criterion)})
    overall = {method: _overall(means[means["method"] == method], len(criteria)) for method in styles}
    complete = {method: cell["accuracy"] for method, cell in overall.items() if cell}
    wins = sum(LEAD in line["best"] for line in lines)
    n = (int(rows["n"].min()), int(rows["n"].max()))
    return {
        "styles": styles,
        "lines": lines,
        "overall": overall,
        "best_overall": _best(overall),
        "ranking": sorted(complete, key=lambda method: -complete[method]),
        "wins": wins,
        "n": f"{n[0]}" if n[0] == n[1] else f"{n[0]} to {n[1]}",
        "seeds": int(rows["seed"].nunique()),
    }


def _best(cells: Mapping[str, Cell | None]) -> set[str]:
    """The methods with the highest accuracy, as printed."""
    printed = {method: round(cell["accuracy"], 3) for method, cell in cells.items() if cell}
    return {method for method, value in printed.items() if value == max(printed.values())}


def _overall(means: pd.DataFrame, n_criteria: int) -> Cell | None:
    """Mean over criteria, if the method has all of them; interval ends add up as errors of independent criteria."""
    if len(means) < n_criteria:
        return None
    accuracy = float(means["accuracy"].mean())
    below = float(((means["accuracy"] - means["ci_low"]) ** 2).sum() ** 0.5) / n_criteria
    above = float(((means["ci_high"] - means["accuracy"]) ** 2).sum() ** 0.5) / n_criteria
    return {"accuracy": accuracy, "ci_low": accuracy - below, "ci_high": accuracy + above}


def _checks(rows: pd.DataFrame, items: pd.DataFrame, heads: pd.DataFrame) -> list[Check]:
    """The failure signs that these tables can show."""
    means = plots.mean_over_seeds(rows)
    lead, control = _of_method(means, LEAD), _of_method(means, "random_heads")
    checks = []
    if lead and control:
        overlapping = [
            f"{name}: {one['accuracy']:.3f} against {control[name]['accuracy']:.3f}"
            for name, one in lead.items()
            if name in control and one["ci_low"] <= control[name]["ci_high"]
        ]
        rule = "the interval of the selected heads overlaps or lies below that of random heads"
        checks.append(Check("Selected heads no better than random heads", rule, overlapping))
    if _has(items, LEAD):
        inside = items[items["method"] == LEAD].groupby("criterion", sort=False)["reward"]
        shares = inside.agg(lambda rewards: rewards.between(*CROWDED).mean())
        crowded = [f"{name}: {share:.0%} of rewards" for name, share in shares.items() if share > 0.5]
        rule = f"more than half of a criterion's rewards lie between {CROWDED[0]} and {CROWDED[1]}"
        checks.append(Check("Rewards crowd around 0.5", rule, crowded))
    if lead and rows["seed"].nunique() > 1:
        unsteady = [
            f"{name}: {one['lowest']:.3f} to {one['highest']:.3f}"
            for name, one in lead.items()
            if one["highest"] - one["lowest"] > 0.1
        ]
        rule = "the accuracy of the selected heads differs by more than 0.1 between seeds"
        checks.append(Check("Results depend on the seed", rule, unsteady))
    if not heads.empty:
        fractions = heads.astype({"selected": float}).groupby("criterion", sort=False)["selected"].mean()
        many = [f"{name}: {fraction:.0%} of heads" for name, fraction in fractions.items() if fraction > 0.5]
        checks.append(Check("Most heads selected", "more than half of all heads are in the set, mean over seeds", many))
    return checks


def _of_method(means: pd.DataFrame, method: str) -> dict[str, Cell]:
    return {cell["criterion"]: cell for cell in means[means["method"] == method].to_dict("records")}


def _examples(items: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Per criterion the responses with the highest and lowest rewards of the first seed, if their texts are there."""
    texts = [column for column in ("prompt", "response") if column in items.columns]
    chosen = items[items["method"] == LEAD] if texts and not items.empty else items.iloc[:0]
    examples = {}
    for criterion, of_criterion in chosen.groupby("criterion", sort=False):
        first = of_criterion[of_criterion["seed"] == of_criterion["seed"].iloc[0]]
        ordered = first.sort_values("reward", ascending=False, kind="stable")
        low_start = max(EXAMPLES_PER_END, len(ordered) - EXAMPLES_PER_END)
        ends = pd.concat([ordered.iloc[:EXAMPLES_PER_END], ordered.iloc[low_start:]])
        examples[str(criterion)] = [
            {
                "reward": record["reward"],
                "label": bool(record["label"]),
                "correct": record["correct"] >= 0.5,
                "texts": {column: _clipped(record[column]) for column in texts},
            }
            for record in ends.to_dict("records")
        ]
    return examples


def _clipped(text: Any) -> str:
    written = "" if pd.isna(text) else str(text)
    return written if len(written) <= TEXT_LIMIT else written[:TEXT_LIMIT].rstrip() + " …"
