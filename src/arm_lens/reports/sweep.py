"""One HTML page from a sweep, in any state: how far it is, what each axis changes, every setting with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.reports.page import facts, render_page
from arm_lens.storage import write_text
from arm_lens.sweep import SweepResults

MOST_ROWS = 500
"""The most settings in the table of a page; the files have all."""


def write_sweep(results: SweepResults, out: str | Path) -> Path:
    """Write the page of a sweep, ``report.html``, to a folder; the same results make the same bytes."""
    figures: dict[str, go.Figure] = {}
    benchmarks = []
    for number, (name, rows) in enumerate(results.summary.groupby("benchmark", sort=False)):
        effects = results.effects[results.effects["benchmark"] == name]
        key = f"axes-{number}"
        if effects["accuracy"].notna().any():
            figures[key] = plots.accuracy_by_axis(effects)
        benchmarks.append(
            {
                "name": name,
                "figure": key if key in figures else None,
                "left_out": effects.loc[effects["left_out"] > 0].drop_duplicates("axis").to_dict("records"),
                "columns": _varied(rows, results.meta["axes"]),
                "rows": [
                    _line(row)
                    for row in rows.sort_values("accuracy", ascending=False, kind="stable").to_dict("records")
                ],
            }
        )
    failed = results.parts[results.parts["state"] == "failed"]
    context: dict[str, Any] = {
        "meta": {"command": "arm-lens sweep"},
        "title": results.meta["title"],
        "facts": facts(results.meta, {"versions": "Versions"}),
        "counts": results.meta["parts"],
        "failed": [_failure(row) for row in failed.to_dict("records")],
        "benchmarks": benchmarks,
        "most": MOST_ROWS,
    }
    return write_text(Path(out) / "report.html", render_page("sweep.html", figures, context))


def _varied(rows: pd.DataFrame, axes: list[str]) -> list[str]:
    """The columns that say which setting a row is: the judge, and what varies."""
    names = [*axes, "subset", "n_examples", "noise"]
    return ["judge", *(name for name in names if rows[name].nunique() > 1)]


def _line(row: dict[Any, Any]) -> dict[str, Any]:
    intervals = {"accuracy": ("ci_low", "ci_high"), "auc": ("auc_low", "auc_high")}
    numbers = {
        name: None if pd.isna(row[name]) else {"value": row[name], "ci_low": row[ends[0]], "ci_high": row[ends[1]]}
        for name, ends in intervals.items()
    }
    return {**row, **numbers, "n_heads": None if pd.isna(row["n_heads"]) else row["n_heads"]}


def _failure(row: dict[Any, Any]) -> str:
    names = ("model", "judge", "selector", "layers", "benchmark", "subset", "n_examples", "noise", "sample", "seed")
    where = ", ".join(f"{name} {row[name]}" for name in names if row[name] != "")
    return f"{where}: {row['error']}"
