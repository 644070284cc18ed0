"""One HTML page from the results of a run: who judges best, whether that is significant, what went wrong, and which heads.

The page first says, in words with numbers, which judges the lead judge beats, loses to or cannot be told apart from; then
names the warning signs; then shows every number with its interval and its n; and then, if the lead judge chose heads,
which ones, how sure the search was of them, and which responses they like most and least. Everything on it comes from the
results. `arm_lens.reports.page` explains why no text from users' data can run in it as code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.evaluation.hacking import cells_of
from arm_lens.evaluation.health import bias_gaps
from arm_lens.evaluation.main_setting import MainSetting, against, main_rows, tested_like
from arm_lens.evaluation.standings import mean_over_subsets, measure_over_subsets, spreads, standings
from arm_lens.plots.panels import balanced_columns
from arm_lens.plots.studies import has_study
from arm_lens.preferences import text_of
from arm_lens.preferences.marks import describe_images
from arm_lens.registry import Style
from arm_lens.reports.figures import of_benchmark, of_heads, part_of
from arm_lens.reports.page import facts, render_page
from arm_lens.storage import write_text

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
"""The figures of the lead judge's heads that the page shows, in this order."""
EXAMPLES_PER_END = 2
MOST_EXAMPLES = 24
"""The most subsets of which responses are quoted."""
TEXT_LIMIT = 600
"""Characters of a quoted text."""
FACTS = {
    "model": "Model",
    "date": "Date",
    "n_examples": "Labelled examples",
    "samples": "Example samples",
    "seeds": "Seeds",
    "versions": "Versions",
}
"""The facts about the run, and their names on the page."""
Record = dict[str, Any]


def write_report(results: BenchmarkResults, out: str | Path, *, others: Mapping[str, str] = {}) -> Path:
    """Write the page of a run, ``report.html``, to a folder; the same results make the same bytes.

    Args:
        results: the results; ``meta`` may have title, model, n_examples (of the main comparison), samples, seeds, versions,
            command, notes, benchmarks (what each tests, by name), subsets (the criterion of each in words, by name),
            judge_names (labels by judge).
        out: the folder; made if it is missing.
        others: pages to link to, by their titles: paths from the folder.

    Returns:
        The path of the page.
    """
    meta, tables, settings = results.meta, results.tables, results.settings
    lead, names = str(meta["lead"]), meta.get("judge_names") or {}
    main = main_rows(tables.summary, settings)
    versus = against(main_rows(tables.comparisons, settings), lead)
    stands = pd.DataFrame() if versus.empty else standings(versus)
    figures: dict[str, go.Figure] = {}
    sections = [
        _section(number, name, settings[name], results, figures, main=part_of(main, name), stands=part_of(stands, name))
        for number, name in enumerate(settings)
    ]
    heads = [_heads_section(number, name, results, figures) for number, name in enumerate(settings)]
    styles = plots.judge_styles([*tables.summary["judge"], lead], names)
    context = {
        "meta": meta,
        "title": meta.get("title") or "Few-shot judges, side by side",
        "facts": facts(meta, FACTS),
        "others": {title: quote(path) for title, path in others.items()},
        "lead": lead if bool((main["judge"] == lead).any()) else None,
        "styles": styles,
        "sections": sections,
        "headline": _headline(sections, list(dict.fromkeys(main["judge"]))),
        "section_scores": _score_tables(results.sections),
        "spreads": _spread_lines(main, styles),
        "fits": _fit_lines(main_rows(results.fits, settings), main, styles),
        "checks": list(results.checks),
        "heads": [section for section in heads if section["figures"]],
        "examples": _examples(results),
    }
    return write_text(Path(out) / "report.html", render_page("benchmark.html", figures, context))


def _heads_section(number: int, name: str, results: BenchmarkResults, figures: dict[str, go.Figure]) -> Record:
    """Add the figures of a benchmark's heads to ``figures``; a study of the same criteria has none."""
    summary = part_of(results.tables.summary, name)
    varied = has_study(summary, "n_examples") or has_study(summary, "noise")
    makers = {} if varied else of_heads(results, name)
    kinds = [kind for kind in HEAD_FIGURES if kind in makers]
    figures |= {f"{kind}-{number}": makers[kind]() for kind in kinds}
    return {"name": name, "figures": [(kind, f"{kind}-{number}") for kind in kinds]}


def _examples(results: BenchmarkResults) -> dict[str, list[Record]]:
    """The responses of each subset with the lead judge's highest and lowest rewards, with its first seed."""
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
    text = describe_images(text)
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT].rstrip() + " …"


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
    """What the page says about one benchmark, whose figures are added to ``figures``."""
    cells = cells_of(main)
    has_cells = len(cells) == len(main)
    made = {kind: make() for kind, make in of_benchmark(results, name).items()}
    figures |= {f"{kind}-{number}": figure for kind, figure in made.items()}
    means = mean_over_subsets(main)
    ranking = means.sort_values("accuracy", ascending=False, kind="stable", na_position="last")["judge"].to_list()
    places = means.set_index("judge")["accuracy"].rank(method="min", ascending=False, na_option="bottom")
    subsets = [str(subset) for subset in main["subset"].unique()]
    wording = results.meta.get("subsets") or {}
    graded = _graded(main)
    return {
        "name": name,
        "setting": setting,
        "unit": str(main["unit"].iloc[0]),
        "subsets": subsets,
        "asks": {subset: wording[subset] for subset in subsets if subset in wording},
        "n": _span(main["n"]),
        "judges": means["judge"].nunique(),
        "means": {row["judge"]: row for row in means.to_dict("records")},
        "rank": {judge: int(places[judge]) for judge in ranking},
        "figures": [(kind, f"{kind}-{number}") for kind in made],
        "stands": [] if stands.empty else stands.to_dict("records"),
        "blocks": _blocks(main, cells if has_cells else None, ranking),
        "gaps": _gap_lines(main) if has_cells else None,
        "graded": graded,
        "auc": {line["judge"]: line["auc"] for line in graded if line["auc"]},
    }


def _span(sizes: pd.Series) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _blocks(main: pd.DataFrame, cells: pd.DataFrame | None, order: Sequence[str]) -> list[Record]:
    """The tables of one benchmark: judges by a few subsets, each cell a row of ``summary``."""
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
    return [
        {
            "title": title,
            "columns": [(name, _span(main.loc[main["subset"] == subset, "n"])) for subset, name in group],
            "lines": _lines(main, order, [subset for subset, _ in group]),
        }
        for title, group in groups
    ]


def _lines(table: pd.DataFrame, judges: Iterable[str], subsets: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Each judge with its row of the table in each subset, if there is one."""
    rows = {(row["judge"], row["subset"]): row for row in table.to_dict("records")}
    return [(judge, [rows.get((judge, subset)) for subset in subsets]) for judge in judges]


def _headline(sections: Sequence[Record], judges: Sequence[str]) -> Record:
    """Judges sorted by the first benchmark, and the best of each benchmark as printed."""
    order = sorted(judges, key=lambda judge: sections[0]["rank"].get(judge, len(judges) + 1))
    best = {}
    for section in sections:
        values = {judge: row["accuracy"] for judge, row in section["means"].items()}
        printed = {judge: f"{value:.3f}" for judge, value in values.items() if not pd.isna(value)}
        best[section["name"]] = {judge for judge, text in printed.items() if text == max(printed.values())}
    return {"order": order, "best": best}


def _gap_lines(main: pd.DataFrame) -> Record | None:
    """How much each judge's accuracy owes to the bias, judges by bias and mapping, the most biased first."""
    gaps = bias_gaps(main)
    if gaps.empty:
        return None
    worst = gaps["gap"].abs().groupby(gaps["judge"], sort=False).max()
    order = worst.sort_values(ascending=False, kind="stable").index
    columns = list(gaps["subset"].unique())
    return {"columns": columns, "lines": _lines(gaps, order, columns)}


def _graded(main: pd.DataFrame) -> list[Record]:
    """Means over subsets of AUC and Brier score, with intervals, best Brier score first."""
    lines: dict[str, Record] = {}
    for measure in ("auc", "brier"):
        for row in measure_over_subsets(main, measure).to_dict("records"):
            line = lines.setdefault(str(row["judge"]), {"judge": str(row["judge"]), "auc": None, "brier": None})
            line[measure] = None if pd.isna(row[measure]) else {**row, "value": row[measure]}
    return sorted(lines.values(), key=lambda line: line["brier"]["value"] if line["brier"] else 9.0)


def _score_tables(scores: pd.DataFrame) -> list[Record]:
    """A table for each benchmark with section scores: a line per judge and setting, means over samples and seeds."""
    tables: list[Record] = []
    setting = ["judge", "n_examples", "noise"]
    for benchmark, rows in () if scores.empty else scores.groupby("benchmark", sort=False):
        means = rows.groupby([*setting, "section"], sort=False)[["score_of_present", "ci_low", "ci_high"]].mean()
        lines = [
            {**dict(zip(setting, key, strict=True)), "cells": means.loc[key].to_dict("index")}
            for key in dict.fromkeys(key[:-1] for key in means.index)
        ]
        notes = {what: sorted({str(one) for some in rows[what] for one in some}) for what in ("missing", "partial")}
        tables.append({"benchmark": benchmark, "sections": list(rows["section"].unique()), "lines": lines, **notes})
    return tables


def _spread_lines(main: pd.DataFrame, styles: Mapping[str, Style]) -> list[Record]:
    """The rows of `spreads`, benchmarks in order of appearance and judges in that of the figures."""
    rows: list[Any] = spreads(main).to_dict("records")
    benchmarks, judges = list(dict.fromkeys(row["benchmark"] for row in rows)), list(styles)
    return sorted(rows, key=lambda row: (benchmarks.index(row["benchmark"]), judges.index(row["judge"])))


def _fit_lines(fits: pd.DataFrame, main: pd.DataFrame, styles: Mapping[str, Style]) -> list[Record]:
    """Per benchmark and judge: accuracy on the examples, on test items, heads, position bias, verdict mass, if known."""
    if fits.empty:
        return []
    tested = tested_like(fits, main).groupby(["benchmark", "judge"])["accuracy"].mean()
    lines = []
    for (benchmark, judge), rows in fits.groupby(["benchmark", "judge"], sort=False):
        known = {
            name: rows[name].dropna()
            for name in ("fit_accuracy", "position_bias", "n_heads", "verdict_mass")
            if name in rows
        }
        found: Record = {name: float(values.mean()) for name, values in known.items() if len(values)}
        if found:
            line = {
                "fit_accuracy": None,
                "position_bias": None,
                "verdict_mass": None,
                **found,
                "benchmark": benchmark,
                "judge": judge,
            }
            line |= {"test": tested.get((benchmark, judge)), "fits": len(rows)}
            lines.append(line | {"heads": _span(known["n_heads"]) if "n_heads" in found else None})
    judges = list(styles)
    return sorted(lines, key=lambda line: judges.index(line["judge"]) if line["judge"] in styles else len(judges))
