"""One HTML page from the tables of a benchmark run: who judges best, whether that is significant, and what went wrong.

The page says first, in words with numbers, against whom the lead judge wins, loses or cannot be told apart; then names
the failure signs; then shows every number with its interval and its n. It shares its looks and its safety with the page
of a single run (`arm_lens.reports.page`), and like it holds nothing that the tables and ``meta`` do not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.evaluation.health import Check, bias_gaps
from arm_lens.evaluation.main_setting import MainSetting, against, main_rows, main_settings
from arm_lens.evaluation.standings import mean_over_subsets, spreads, standings
from arm_lens.frames import checked
from arm_lens.plots.bias_grid import cells_of
from arm_lens.plots.panels import balanced_columns
from arm_lens.plots.studies import has_study
from arm_lens.reports.page import facts, render_page

LEAD = "arm_reinforce"
SUMMARY = (
    "benchmark", "subset", "unit", "judge", "n_examples", "noise", "accuracy", "ci_low", "ci_high", "n", "n_clusters",
    "n_samples", "n_seeds", "sd_samples", "sd_seeds", "auc", "auc_low", "auc_high", "brier", "brier_low", "brier_high",
)  # fmt: skip
MOST_FORESTS = 24
"""Subsets: beyond these the differences are told in the table of standings only."""
TABLE_COLUMNS = 6
"""The most subsets in one table."""
FACTS = {
    "model": "Model",
    "date": "Date",
    "n_examples": "Labelled examples",
    "samples": "Draws of the examples",
    "seeds": "Seeds",
    "runtime_seconds": "Running time",
    "versions": "Versions",
}
"""What is told about the run, and under which name."""
Record = dict[str, Any]


def write_benchmark_report(
    path: str | Path,
    *,
    meta: Mapping[str, Any],
    summary: pd.DataFrame,
    comparisons: pd.DataFrame,
    calibration: pd.DataFrame,
    fits: pd.DataFrame,
    checks: Sequence[Check],
    section_scores: pd.DataFrame | None = None,
) -> Path:
    """Write the page; the same arguments make the same bytes.

    Args:
        path: where to; its folder must exist.
        meta: about the run: title, model, date, lead (the judge under study, by default arm_reinforce), n_examples (of
            the main comparison, where a benchmark has it), draws, seeds, runtime_seconds, versions, command, notes,
            benchmarks (name -> what it tests), judge_names (id -> name to display). What is missing is left out.
        summary: of `arm_lens.evaluation.tables`, as are ``comparisons`` and ``calibration``, which may be empty.
        comparisons: pairs of judges on the same items.
        calibration: bins of stated probabilities.
        fits: judge, benchmark, subset, n_examples, noise, draw, seed, fit_accuracy, n_heads, heads, and position_bias
            where there is one; may be empty.
        checks: of `arm_lens.evaluation.health.health`.
        section_scores: of the benchmarks that define them: benchmark, judge, n_examples, noise, section, score,
            score_of_present, ci_low, ci_high, n, missing, partial, a row for each draw and seed; may be empty.

    Returns:
        The path.

    Raises:
        ValueError: if ``summary`` is empty, a column is missing, or a judge has two rows of a subset in one setting.
    """
    path = Path(path)
    checked(summary, SUMMARY, table="summary")
    summary, comparisons, calibration = _apart(summary, [summary, comparisons, calibration])
    wanted = meta.get("n_examples")
    settings = main_settings(summary, n_examples=wanted if isinstance(wanted, int) else None)
    lead, names = str(meta.get("lead") or LEAD), meta.get("judge_names") or {}
    main = main_rows(summary, settings)
    versus = against(main_rows(comparisons, settings), lead)
    stands = pd.DataFrame() if versus.empty else standings(versus)
    figures: dict[str, go.Figure] = {}
    sections = [
        _section(
            number, name, settings[name], figures, names=names, lead=lead, summary=summary,
            main=main[main["benchmark"] == name], versus=_part(versus, name), stands=_part(stands, name),
            calibration=_part(main_rows(calibration, settings), name),
        )
        for number, name in enumerate(settings)
    ]  # fmt: skip
    styles = plots.judge_styles([*summary["judge"], lead], names)
    context = {
        "meta": meta,
        "title": meta.get("title") or "Few-shot judges, side by side",
        "facts": facts(meta, FACTS),
        "lead": lead if bool((main["judge"] == lead).any()) else None,
        "styles": styles,
        "sections": sections,
        "headline": _headline(sections, list(dict.fromkeys(main["judge"]))),
        "section_scores": _score_tables(section_scores),
        "spreads": _spread_lines(main, styles),
        "fits": _fit_lines(main_rows(fits, settings), main, styles),
        "checks": list(checks),
    }
    path.write_text(render_page("benchmark.html", figures, context), encoding="utf-8")
    return path


def _apart(summary: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables with pairs and single responses of one benchmark as two benchmarks: their accuracies do not mix."""
    units = summary.groupby("benchmark")["unit"].nunique()
    mixed = set(units.index[units > 1])
    parted = []
    for table in tables:
        if mixed and not table.empty:
            longer = table["benchmark"].astype(str) + " (" + table["unit"].astype(str) + "s)"
            table = table.assign(benchmark=longer.where(table["benchmark"].isin(mixed), table["benchmark"]))
        parted.append(table)
    return parted


def _part(table: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    return table if table.empty else table[table["benchmark"] == benchmark]


def _section(
    number: int,
    name: str,
    setting: MainSetting,
    figures: dict[str, go.Figure],
    *,
    names: Mapping[str, str],
    lead: str,
    summary: pd.DataFrame,
    main: pd.DataFrame,
    versus: pd.DataFrame,
    stands: pd.DataFrame,
    calibration: pd.DataFrame,
) -> Record:
    """What the page tells of one benchmark; its figures are put into ``figures``."""
    whole = summary[summary["benchmark"] == name]
    cells = cells_of(main)
    has_cells = len(cells) == len(main)
    drawn: list[tuple[str, go.Figure]] = []
    if has_cells:
        drawn.append(("bias", plots.bias_grid(main, names=names)))
    else:
        drawn.append(("accuracy", plots.accuracy_by_judge(main, names=names)))
        if not versus.empty and versus["subset"].nunique() <= MOST_FORESTS:
            drawn.append(("differences", plots.differences(versus, lead=lead, names=names)))
    if has_study(whole, "n_examples") and not has_cells:
        drawn.append(("examples", plots.accuracy_by_examples(whole, names=names, lead=lead)))
    if has_study(whole, "noise") and not has_cells:
        drawn.append(("noise", plots.accuracy_by_noise(whole, names=names, lead=lead)))
    if not calibration.empty and bool((calibration["n"] > 0).any()):
        drawn.append(("reliability", plots.reliability(calibration, summary=main, names=names)))
    figures |= {f"{kind}-{number}": figure for kind, figure in drawn}
    means = mean_over_subsets(main)
    return {
        "name": name,
        "setting": setting,
        "unit": str(main["unit"].iloc[0]),
        "subsets": [str(subset) for subset in main["subset"].unique()],
        "n": _span(main["n"]),
        "judges": means["judge"].nunique(),
        "means": {row["judge"]: row for row in means.to_dict("records")},
        "rank": {judge: place for place, judge in enumerate(_sorted_judges(means), start=1)},
        "kinds": [kind for kind, _ in drawn],
        "figures": [(kind, f"{kind}-{number}") for kind, _ in drawn],
        "stands": [] if stands.empty else stands.to_dict("records"),
        "blocks": _blocks(main, cells if has_cells else None, _sorted_judges(means)),
        "gaps": _gap_lines(main) if has_cells else None,
        "graded": _graded(main),
    }


def _span(sizes: pd.Series) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _sorted_judges(means: pd.DataFrame) -> list[str]:
    """From the highest mean down; judges without one come last."""
    return means.sort_values("accuracy", ascending=False, kind="stable", na_position="last")["judge"].to_list()


def _blocks(main: pd.DataFrame, cells: pd.DataFrame | None, order: Sequence[str]) -> list[Record]:
    """The tables of one benchmark: judges as rows, a few subsets as columns, each cell a row of ``summary``."""
    subsets = list(main["subset"].unique())
    if cells is None:
        columns = balanced_columns(len(subsets), TABLE_COLUMNS)
        starts = range(0, len(subsets), columns)
        groups = [("", [(subset, subset) for subset in subsets[start : start + columns]]) for start in starts]
    else:
        whats = cells.drop_duplicates("subset").groupby(["bias", "mapping"], sort=False)
        groups = [
            (f"{bias}, {mapping} examples", list(zip(rows["subset"], rows["cell"], strict=True)))
            for (bias, mapping), rows in whats
        ]
    by_place = {(row["judge"], row["subset"]): row for row in main.to_dict("records")}
    return [
        {
            "title": title,
            "columns": [(name, _span(main.loc[main["subset"] == subset, "n"])) for subset, name in group],
            "lines": [(judge, [by_place.get((judge, subset)) for subset, _ in group]) for judge in order],
        }
        for title, group in groups
    ]


def _headline(sections: Sequence[Record], judges: Sequence[str]) -> Record:
    """Judges by benchmarks, sorted by the first benchmark; and the best of each, as printed."""
    last = len(judges)
    order = sorted(judges, key=lambda judge: sections[0]["rank"].get(judge, last + 1))
    best = {}
    for section in sections:
        printed = {judge: f"{row['accuracy']:.3f}" for judge, row in section["means"].items() if _known(row)}
        best[section["name"]] = {judge for judge, text in printed.items() if text == max(printed.values())}
    return {"order": order, "best": best}


def _known(row: Mapping[Any, Any]) -> bool:
    return not pd.isna(row["accuracy"])


def _gap_lines(main: pd.DataFrame) -> Record | None:
    """How much of each judge's accuracy is owed to the bias, judges by bias and mapping, the most biased first."""
    gaps = bias_gaps(main)
    if gaps.empty:
        return None
    by_place = {(row["judge"], row["subset"]): row for row in gaps.to_dict("records")}
    columns = list(dict.fromkeys(gaps["subset"]))
    worst = gaps.assign(size=gaps["gap"].abs()).groupby("judge", sort=False)["size"].max()
    order = worst.sort_values(ascending=False, kind="stable").index
    lines = [(judge, [by_place.get((judge, column)) for column in columns]) for judge in order]
    return {"columns": columns, "lines": lines}


def _graded(main: pd.DataFrame) -> list[Record]:
    """Means over subsets of AUC and Brier score, with intervals, best Brier score first."""
    lines: dict[str, Record] = {}
    for measure in ("auc", "brier"):
        known = main.dropna(subset=[measure])
        known = known.drop(columns=["ci_low", "ci_high"]).rename(
            columns={f"{measure}_low": "ci_low", f"{measure}_high": "ci_high"}
        )
        for row in mean_over_subsets(known, value=measure).to_dict("records") if len(known) else []:
            entry = {"value": row[measure], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}
            lines.setdefault(str(row["judge"]), {})[measure] = None if pd.isna(row[measure]) else entry
    found = [{"judge": judge, "auc": None, "brier": None} | line for judge, line in lines.items()]
    return sorted(found, key=lambda line: line["brier"]["value"] if line["brier"] else 9.0)


def _score_tables(scores: pd.DataFrame | None) -> list[Record]:
    """A table for each benchmark that has section scores: a line per judge and setting, means over draws and seeds."""
    tables: list[Record] = []
    for benchmark, rows in () if scores is None or scores.empty else scores.groupby("benchmark", sort=False):
        values = ["score_of_present", "ci_low", "ci_high"]
        setting = ["judge", "n_examples", "noise"]
        means = rows.groupby([*setting, "section"], sort=False)[values].mean()
        lines = [
            {**dict(zip(setting, key, strict=True)), "cells": means.loc[key].to_dict("index")}
            for key in dict.fromkeys(key[:-1] for key in means.index)
        ]
        notes = {what: sorted({str(one) for some in rows[what] for one in some}) for what in ("missing", "partial")}
        tables.append(
            {"benchmark": benchmark, "sections": list(dict.fromkeys(rows["section"])), "lines": lines, **notes}
        )
    return tables


def _spread_lines(main: pd.DataFrame, styles: Mapping[str, plots.JudgeStyle]) -> list[Record]:
    table = spreads(main)
    if table.empty:
        return []
    order = {judge: place for place, judge in enumerate(styles)}
    places = {name: place for place, name in enumerate(table["benchmark"].unique())}
    rows: list[Record] = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return sorted(rows, key=lambda row: (places[row["benchmark"]], order[row["judge"]]))


def _fit_lines(fits: pd.DataFrame, main: pd.DataFrame, styles: Mapping[str, plots.JudgeStyle]) -> list[Record]:
    """Per benchmark and judge: accuracy on the examples, on test items, heads kept, and position bias, where known."""
    if fits.empty:
        return []
    tested = main.groupby(["benchmark", "judge"])["accuracy"].mean()
    lines = []
    for (benchmark, judge), rows in fits.groupby(["benchmark", "judge"], sort=False):
        line: Record = {
            "benchmark": benchmark,
            "judge": judge,
            "test": tested.get((benchmark, judge)),
            "fits": len(rows),
        }
        for name in ("fit_accuracy", "position_bias"):
            known = rows[name].dropna() if name in rows.columns else pd.Series(dtype=float)
            line[name] = float(known.mean()) if len(known) else None
        heads = rows["n_heads"].dropna() if "n_heads" in rows.columns else pd.Series(dtype=float)
        line["heads"] = _span(heads) if len(heads) else None
        if any(line[name] is not None for name in ("fit_accuracy", "position_bias", "heads")):
            lines.append(line)
    order = {judge: place for place, judge in enumerate(styles)}
    return sorted(lines, key=lambda line: order.get(line["judge"], len(order)))
