"""One HTML page from the results of a run: who judges best, whether that is significant, what went wrong, and which heads.

The page says first, in words with numbers, against whom the lead judge wins, loses or cannot be told apart; then names
the failure signs; then shows every number with its interval and its n; and then, where the lead judge chose heads,
which ones, how sure the search was of them, and which responses they like most and least. It holds nothing that the
results do not say, and `arm_lens.reports.page` says why no text from users' data can run in it as code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.evaluation.health import bias_gaps
from arm_lens.evaluation.main_setting import MainSetting, against, main_rows
from arm_lens.evaluation.standings import mean_over_subsets, spreads, standings
from arm_lens.plots.bias_grid import cells_of
from arm_lens.plots.panels import balanced_columns
from arm_lens.plots.studies import has_study
from arm_lens.preferences import text_of
from arm_lens.registry import Style
from arm_lens.reports.figures import of_benchmark, of_heads, settings_of
from arm_lens.reports.page import facts, render_page
from arm_lens.storage import write_text

PAGE = "report.html"
TABLE_COLUMNS = 6
"""The most subsets in one table."""
HEAD_FIGURES = (
    "selected_heads",
    "selection_probabilities",
    "training_reward",
    "training_expected_heads",
    "rewards",
    "shared_heads",
)
"""Those of the lead judge's heads that the page shows, in this order."""
EXAMPLES_PER_END = 2
MOST_EXAMPLES = 24
"""Subsets: of more, no responses are quoted."""
TEXT_LIMIT = 600
"""Characters of a text that is quoted."""
FACTS = {
    "model": "Model",
    "date": "Date",
    "n_examples": "Labelled examples",
    "samples": "Example samples",
    "seeds": "Seeds",
    "runtime_seconds": "Running time",
    "versions": "Versions",
}
"""What is told about the run, and under which name."""
Record = dict[str, Any]


def write_report(results: BenchmarkResults, out: str | Path) -> Path:
    """Write the page of a run, ``report.html``, to a folder; the same results make the same bytes.

    Args:
        results: of a run. Of ``meta`` the page tells title, model, n_examples (of the main comparison, where a benchmark has
            it), samples, seeds, versions, command, notes, benchmarks (name -> what it tests), subsets (name -> what it asks
            for), judge_names (id -> name to display); what is missing is left out.
        out: the folder, made where missing.

    Returns:
        The path of the page.
    """
    return write_text(Path(out) / PAGE, report(results))


def report(results: BenchmarkResults) -> str:
    """The page, as `write_report` writes it."""
    meta, tables, settings = results.meta, results.tables, settings_of(results)
    lead, names = str(meta["lead"]), meta.get("judge_names") or {}
    main = main_rows(tables.summary, settings)
    versus = against(main_rows(tables.comparisons, settings), lead)
    stands = pd.DataFrame() if versus.empty else standings(versus)
    figures: dict[str, go.Figure] = {}
    sections = [
        _section(number, name, settings[name], results, figures, main=_part(main, name), stands=_part(stands, name))
        for number, name in enumerate(settings)
    ]
    styles = plots.judge_styles([*tables.summary["judge"], lead], names)
    context = {
        "meta": meta,
        "title": meta.get("title") or "Few-shot judges, side by side",
        "facts": facts(meta, FACTS),
        "lead": lead if bool((main["judge"] == lead).any()) else None,
        "styles": styles,
        "sections": sections,
        "headline": _headline(sections, list(dict.fromkeys(main["judge"]))),
        "section_scores": _score_tables(results.sections),
        "spreads": _spread_lines(main, styles),
        "fits": _fit_lines(main_rows(results.fits, settings), main, styles),
        "checks": list(results.checks),
        "heads": [_heads_section(number, name, results, figures) for number, name in _with_heads(results, settings)],
        "examples": _examples(results),
    }
    return render_page("benchmark.html", figures, context)


def _with_heads(results: BenchmarkResults, settings: Mapping[str, MainSetting]) -> list[tuple[int, str]]:
    """The benchmarks whose heads are shown: those where the lead judge chose some, save studies of the same criteria."""
    summary = results.tables.summary
    found = []
    for number, name in enumerate(settings):
        whole = summary[summary["benchmark"] == name]
        if not (has_study(whole, "n_examples") or has_study(whole, "noise")) and of_heads(results, name):
            found.append((number, name))
    return found


def _heads_section(number: int, name: str, results: BenchmarkResults, figures: dict[str, go.Figure]) -> Record:
    """The figures of one benchmark's heads, put into ``figures``."""
    makers = of_heads(results, name)
    made = {f"{kind}-{number}": makers[kind]() for kind in HEAD_FIGURES if kind in makers}
    figures |= made
    return {"name": name, "figures": [(key.rpartition("-")[0], key) for key in made]}


def _examples(results: BenchmarkResults) -> dict[str, list[Record]]:
    """Per subset the responses to which the lead judge gives the highest and the lowest rewards, with its first seed."""
    items = results.of_lead("items")
    examples: dict[str, list[Record]] = {}
    if items.empty or "response" not in items or items["subset"].nunique() > MOST_EXAMPLES:
        return examples
    for subset, rows in items[items["seed"] == items["seed"].min()].groupby("subset", sort=False):
        ordered = rows.sort_values("reward", ascending=False, kind="stable")
        low = max(EXAMPLES_PER_END, len(ordered) - EXAMPLES_PER_END)
        examples[str(subset)] = [
            {
                "reward": record["reward"],
                "label": bool(record["label"]),
                "correct": record["correct"] >= 0.5,
                "texts": {name: _clipped(text_of(record[name])) for name in ("prompt", "response")},
            }
            for record in pd.concat([ordered.iloc[:EXAMPLES_PER_END], ordered.iloc[low:]]).to_dict("records")
        ]
    return examples


def _clipped(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT].rstrip() + " …"


def _part(table: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    return table if table.empty else table[table["benchmark"] == benchmark]


def _section(
    number: int,
    name: str,
    setting: MainSetting,
    results: BenchmarkResults,
    figures: dict[str, go.Figure],
    *,
    main: pd.DataFrame,
    stands: pd.DataFrame,
) -> Record:
    """What the page tells of one benchmark; its figures are put into ``figures``."""
    cells = cells_of(main)
    has_cells = len(cells) == len(main)
    made = {kind: make() for kind, make in of_benchmark(results, name).items()}
    figures |= {f"{kind}-{number}": figure for kind, figure in made.items()}
    means = mean_over_subsets(main)
    subsets = [str(subset) for subset in main["subset"].unique()]
    asked_for = results.meta.get("subsets") or {}
    return {
        "name": name,
        "setting": setting,
        "unit": str(main["unit"].iloc[0]),
        "subsets": subsets,
        "asks": {subset: asked_for[subset] for subset in subsets if subset in asked_for},
        "n": _span(main["n"]),
        "judges": means["judge"].nunique(),
        "means": {row["judge"]: row for row in means.to_dict("records")},
        "rank": {judge: place for place, judge in enumerate(_sorted_judges(means), start=1)},
        "figures": [(kind, f"{kind}-{number}") for kind in made],
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


def _score_tables(scores: pd.DataFrame) -> list[Record]:
    """A table for each benchmark that has section scores: a line per judge and setting, means over samples and seeds."""
    tables: list[Record] = []
    for benchmark, rows in () if scores.empty else scores.groupby("benchmark", sort=False):
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


def _spread_lines(main: pd.DataFrame, styles: Mapping[str, Style]) -> list[Record]:
    table = spreads(main)
    if table.empty:
        return []
    order = {judge: place for place, judge in enumerate(styles)}
    places = {name: place for place, name in enumerate(table["benchmark"].unique())}
    rows: list[Record] = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return sorted(rows, key=lambda row: (places[row["benchmark"]], order[row["judge"]]))


def _fit_lines(fits: pd.DataFrame, main: pd.DataFrame, styles: Mapping[str, Style]) -> list[Record]:
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
