"""From parts to what a reader is given: tables, figures, a page, and ``results.json``.

Everything is made anew from the items each time, in a fixed order and without a date, so that the same run gives the same
bytes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.benchmark.config import VERDICTS, BenchmarkConfig, HackingStudy, PreferenceStudy, Study
from arm_lens.benchmark.data import format_of
from arm_lens.benchmark.run import BenchmarkItems, run_parts
from arm_lens.benchmark.verdicts import JUDGES
from arm_lens.evaluation.health import Check, health
from arm_lens.evaluation.main_setting import against, main_rows, main_settings
from arm_lens.evaluation.rewardbench import rewardbench_2_scores, section_scores
from arm_lens.evaluation.section_intervals import with_intervals, with_intervals_2
from arm_lens.evaluation.tables import BenchmarkTables, benchmark_tables
from arm_lens.plots.bias_grid import cells_of
from arm_lens.plots.studies import has_study
from arm_lens.reports.benchmark import write_benchmark_report

ROW_FIELDS = (
    "benchmark",
    "subset",
    "judge",
    "n_examples",
    "noise",
    "sample",
    "seed",
    "accuracy",
    "ci_low",
    "ci_high",
    "n",
)
SECTIONS = ("rewardbench", "rewardbench-2")
"""Formats whose benchmark publishes a way of adding up its subsets."""


@dataclass(frozen=True, eq=False)
class BenchmarkResults:
    """A finished benchmark."""

    meta: Mapping[str, Any]
    items: pd.DataFrame
    """One row per judge, setting, draw, seed and item."""
    fits: pd.DataFrame
    """One row per judge, setting, draw and seed that was fitted."""
    tables: BenchmarkTables
    checks: list[Check]
    """The failure signs that were looked for."""
    sections: pd.DataFrame
    """Section scores, where a benchmark defines them; else empty."""

    def save(self, out: str | Path) -> Path:
        """Write ``results.json``, ``items.parquet``, ``tables/`` and ``report.html``; gives the page's path."""
        out = Path(out)
        (out / "tables").mkdir(parents=True, exist_ok=True)
        rows = self.tables.rows[list(ROW_FIELDS)].to_dict(orient="records")
        text = json.dumps({"meta": dict(self.meta), "rows": rows}, indent=1, allow_nan=False, ensure_ascii=False)
        _write(out / "results.json", text + "\n")
        self.items.to_parquet(out / "items.parquet.tmp", index=False)
        (out / "items.parquet.tmp").replace(out / "items.parquet")
        for name in ("rows", "summary", "comparisons", "calibration"):
            _write(out / "tables" / f"{name}.csv", getattr(self.tables, name).to_csv(index=False))
        _write(out / "tables" / "fits.csv", self.fits.to_csv(index=False))
        _write(out / "tables" / "health.json", json.dumps([asdict(check) for check in self.checks], indent=1) + "\n")
        if self.sections.empty:
            (out / "tables" / "sections.csv").unlink(missing_ok=True)
        else:
            _write(out / "tables" / "sections.csv", self.sections.to_csv(index=False))
        return write_benchmark_report(
            out / "report.html",
            meta=self.meta,
            summary=self.tables.summary,
            comparisons=self.tables.comparisons,
            calibration=self.tables.calibration,
            fits=self.fits,
            section_scores=self.sections,
            checks=self.checks,
        )

    @classmethod
    def load(cls, folder: str | Path) -> BenchmarkResults:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if a table is missing.
        """
        folder = Path(folder)
        tables = folder / "tables"
        meta = json.loads((folder / "results.json").read_text(encoding="utf-8"))["meta"]
        read = {
            name: pd.read_csv(tables / f"{name}.csv")
            for name in ("rows", "summary", "comparisons", "calibration", "fits")
        }
        fits = read.pop("fits")
        checks = [Check(**check) for check in json.loads((tables / "health.json").read_text(encoding="utf-8"))]
        sections = tables / "sections.csv"
        return cls(
            meta=meta,
            items=pd.read_parquet(folder / "items.parquet"),
            fits=fits,
            tables=BenchmarkTables(**read),
            checks=checks,
            sections=pd.read_csv(sections) if sections.exists() else pd.DataFrame(),
        )

    def figures(self) -> dict[str, Callable[[], go.Figure]]:
        """Every figure these results can show, by the name of the file it is kept in; made when it is called."""
        summary, lead = self.tables.summary, str(self.meta["lead"])
        settings = main_settings(summary)
        main, versus = main_rows(summary, settings), main_rows(self.tables.comparisons, settings)
        bins = main_rows(self.tables.calibration, settings)
        found: dict[str, Callable[[], go.Figure]] = {}
        for name in settings:
            here, whole = main[main["benchmark"] == name], summary[summary["benchmark"] == name]
            file = name.replace(" ", "_").replace("/", "_")
            has_cells = not cells_of(here).empty
            if has_cells:
                found[f"{file}-bias_grid"] = partial(plots.bias_grid, here, benchmark=name)
            else:
                found[f"{file}-accuracy"] = partial(plots.accuracy_by_judge, here, benchmark=name)
            others = against(versus[versus["benchmark"] == name], lead)
            if not others.empty and not has_cells:
                found[f"{file}-differences"] = partial(plots.differences, others, lead=lead, benchmark=name)
            if has_study(whole, "n_examples"):
                found[f"{file}-examples"] = partial(plots.accuracy_by_examples, whole, benchmark=name, lead=lead)
            if has_study(whole, "noise"):
                found[f"{file}-noise"] = partial(plots.accuracy_by_noise, whole, benchmark=name, lead=lead)
            stated = bins[bins["benchmark"] == name]
            if name.endswith(VERDICTS) and not stated.empty:
                found[f"{file}-calibration"] = partial(plots.reliability, stated, summary=here, benchmark=name)
        return found

    def save_figures(self, folder: str | Path, *, suffixes: tuple[str, ...] = (".png", ".svg")) -> list[Path]:
        """Write every figure, each in every format.

        Raises:
            RuntimeError: if images cannot be drawn here, because there is no Chromium.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {name: make() for name, make in self.figures().items()}
        named = [(folder / f"{name}{suffix}", figure) for name, figure in drawn.items() for suffix in suffixes]
        return [plots.save_figure(figure, path) for path, figure in named]


def run_benchmark(config: BenchmarkConfig, out: str | Path, *, progress: bool = True) -> BenchmarkResults:
    """Run what is missing of a benchmark, and make tables and a page of all of it; see `run_parts` and `save`."""
    results = results_of(config, run_parts(config, out, progress=progress))
    results.save(out)
    return results


def results_of(config: BenchmarkConfig, gathered: BenchmarkItems) -> BenchmarkResults:
    """The results that a run's items give."""
    tables = benchmark_tables(gathered.items)
    checks = health(tables.summary, tables.comparisons, gathered.items, gathered.fits, lead=config.lead)
    sections = _sections(config, gathered.items, tables.rows)
    return BenchmarkResults(_meta(config), gathered.items, gathered.fits, tables, checks, sections)


def _sections(config: BenchmarkConfig, items: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Section scores of the studies whose format has them, per judge, setting, draw and seed."""
    found = []
    by = ["benchmark", "judge", "n_examples", "noise", "sample", "seed"]
    for study in config.studies:
        format = format_of(study)
        if format in SECTIONS:
            here = items[(items["benchmark"] == study.name) & (items["unit"] == "pair")]
            for judge, own in here.groupby("judge", sort=False):
                try:
                    found.append(_scores(format, own, rows, by))
                except ValueError as error:  # neither the verdicts nor the other judges' scores are lost for it
                    warnings.warn(f"study {study.name!r}: no section scores of {judge}: {error}", stacklevel=2)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _scores(format: str, items: pd.DataFrame, rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The scores of one judge with their intervals, the parts called ``section`` in both benchmarks."""
    if format == "rewardbench":
        return with_intervals(section_scores(items, by=by), rows, by=by)
    return with_intervals_2(rewardbench_2_scores(items, by=by), by=by).rename(columns={"subset": "section"})


def _meta(config: BenchmarkConfig) -> dict[str, Any]:
    judges = {one.label: one.judge for study in config.studies for one in config.settings(study).judges or ()}
    return {
        "title": config.title,
        "model": config.model or "arm_lens judge model",
        "lead": config.lead,
        "n_examples": config.n_examples[0],
        "samples": config.samples,
        "seeds": config.seeds,
        "versions": {name: version(name) for name in ("arm-lens", "torch", "transformer-lens", "transformers")},
        "benchmarks": {name: text for study in config.studies for name, text in _about(study).items()},
        "judges": {label: JUDGES[judge].about for label, judge in judges.items()},
        "notes": [
            f"Few-shot prompts hold {config.demonstrations} demonstrations at most (ranked ones 4), however many a judge is given. "
            "All other judges read all of them.",
            "A judge that reads no examples is run once, and stands beside the others at every number of examples.",
        ],
        "command": "arm-lens benchmark",
        "config": _told(config),
    }


def _about(study: Study) -> dict[str, str]:
    """What a study's benchmarks test, for people."""
    if isinstance(study, HackingStudy):
        source = "the bundled model's world" if study.path is None else _shown(study.path)
        pairs = f"Pairs from {source} in which being right and carrying a bias are independent."
        singles = "The same responses one by one: correct or not, with and without the bias."
    elif isinstance(study, PreferenceStudy):
        pairs = f"Preferences from {_shown(study.path)}."
        singles = "The responses one by one: does each meet the criterion?"
    else:
        pairs = "Pairs of replies from the bundled model's world: which meets the criterion, which is never named?"
        singles = "The same replies one by one: does each meet the criterion?"
    return {study.name: pairs, study.name + VERDICTS: singles}


def _told(config: BenchmarkConfig) -> dict[str, Any]:
    """The configuration, without the folders that its files lie in."""
    told: dict[str, Any] = json.loads(config.model_dump_json(exclude={"workers"}))
    for where in (told, *told["studies"]):
        for field in ("model", "path", "examples"):
            if where.get(field) is not None and Path(where[field]).is_absolute():
                where[field] = _shown(where[field])
    return told


def _shown(path: str) -> str:
    """A file without its folders, which are nobody else's business; a hub name as it is."""
    return path if "://" in path else Path(path).name


def _write(path: Path, text: str) -> None:
    """The file is there whole or as it was."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
