"""From parts to results: tables, failure signs, and what is known of the heads.

Everything is made anew from the parts each time, in a fixed order and without a date, so that the same run gives the same
bytes. Pages and figures are made from results by `arm_lens.reports`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from arm_lens.benchmark.config import VERDICTS, BenchmarkConfig, HackingStudy, PreferenceStudy, Study, WorldStudy
from arm_lens.benchmark.data import as_json, format_of
from arm_lens.benchmark.parts import BenchmarkItems
from arm_lens.benchmark.run import run_parts
from arm_lens.display import accuracies, card, frame_table, small_print
from arm_lens.evaluation.health import Check, health
from arm_lens.evaluation.main_setting import main_rows, main_settings
from arm_lens.evaluation.rewardbench import rewardbench_2_scores, section_scores
from arm_lens.evaluation.section_intervals import with_intervals, with_intervals_2
from arm_lens.evaluation.tables import BenchmarkTables, benchmark_tables
from arm_lens.judge_model import CRITERION_TEXT
from arm_lens.preferences import Prompt
from arm_lens.registry import JUDGES
from arm_lens.storage import locked, write_frame, write_json, write_text

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
SUMMARIES = ("rows", "summary", "comparisons", "calibration")
LONG_TABLES = ("items", "heads", "history", "texts")
"""Tables with a row per item, head or step, kept as Parquet."""
FOLDERS = {"items": ""}
"""Where a long table is kept in the run's folder, if not in ``tables``."""
RECORDED_VERSIONS = ("arm-lens", "torch", "transformer-lens", "transformers")
TEXTS = ("prompt", "response")
SECTIONS = ("rewardbench", "rewardbench-2")
"""Formats whose benchmark publishes a way of adding up its subsets."""


@dataclass(frozen=True, eq=False)
class BenchmarkResults:
    """A finished benchmark, in tidy tables: everything that pages, figures and studies are made from."""

    meta: Mapping[str, Any]
    """What was run: title, model, lead judge, settings, versions."""
    items: pd.DataFrame
    """One row per judge, setting, sample, seed and item; see `arm_lens.evaluation.tables`."""
    fits: pd.DataFrame
    """One row per judge, setting, sample and seed that was fitted."""
    tables: BenchmarkTables
    checks: list[Check]
    """The failure signs that were looked for."""
    sections: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Section scores, where a benchmark defines them; else empty."""
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per fit and head of the model, where heads were chosen: benchmark, criterion (the subset), judge, n_examples,
    noise, sample, seed, layer, head, score, by (what the score is), probability (of selection), selected."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per fit and step of a search for heads: the same columns up to seed, step, reward, ..."""
    texts: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The responses that were judged one by one: benchmark, subset, item, prompt, response."""

    def save(self, out: str | Path) -> Path:
        """Write ``results.json`` and all tables to a folder, each file whole or not at all; gives the folder."""
        out = Path(out)
        tables: dict[str, pd.DataFrame] = {
            **{name: getattr(self.tables, name) for name in SUMMARIES},
            "fits": self.fits,
            "sections": self.sections,
        }
        for name, table in tables.items():
            if name == "sections" and table.empty:
                (out / "tables" / "sections.csv").unlink(missing_ok=True)
            else:
                write_text(out / "tables" / f"{name}.csv", table.to_csv(index=False))
        write_json(out / "tables" / "health.json", [asdict(check) for check in self.checks])
        for name in LONG_TABLES:
            _write_table(out / FOLDERS.get(name, "tables") / f"{name}.parquet", getattr(self, name))
        rows = self.tables.rows[list(ROW_FIELDS)].to_dict(orient="records")
        write_json(out / "results.json", {"meta": dict(self.meta), "rows": rows})
        return out

    @classmethod
    def load(cls, folder: str | Path) -> BenchmarkResults:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if a table is missing.
        """
        folder = Path(folder)
        tables = folder / "tables"
        meta = json.loads((folder / "results.json").read_text(encoding="utf-8"))["meta"]
        checks = [Check(**check) for check in json.loads((tables / "health.json").read_text(encoding="utf-8"))]
        return cls(
            meta=meta,
            fits=_read_csv(tables / "fits.csv"),
            tables=BenchmarkTables(**{name: _read_csv(tables / f"{name}.csv") for name in SUMMARIES}),
            checks=checks,
            sections=_read_csv(tables / "sections.csv") if (tables / "sections.csv").exists() else pd.DataFrame(),
            **{name: _read_table(folder / FOLDERS.get(name, "tables") / f"{name}.parquet") for name in LONG_TABLES},
        )

    def of_lead(
        self, table: Literal["items", "fits", "heads", "history"], benchmark: str | None = None
    ) -> pd.DataFrame:
        """The lead judge's rows of the main comparison of one benchmark, for figures and for comparisons of criteria.

        Args:
            table: ``items`` (the responses that were judged one by one), ``fits``, ``heads`` or ``history``.
            benchmark: which; by default the first in which the lead judge has such rows.

        Returns:
            The table's rows with ``seed`` made a number for each sample and seed, so that it tells fits apart; items with
            their texts, prompt and response. Empty if there are no such rows.
        """
        rows: pd.DataFrame = getattr(self, table)
        if rows.empty:
            return rows
        rows = main_rows(rows, main_settings(self.tables.summary))
        rows = rows[rows["judge"] == str(self.meta["lead"])]
        if table == "items":
            rows = rows[rows["unit"] == "response"]
        if rows.empty:
            return rows
        name = str(rows["benchmark"].iloc[0]) if benchmark is None else benchmark
        rows = rows[rows["benchmark"].isin((name, name + VERDICTS))]
        tied = bool((rows["sample"] == rows["seed"]).all())
        rows = rows.assign(seed=rows["sample"] if tied else rows.groupby(["sample", "seed"], sort=True).ngroup())
        if table == "items" and not self.texts.empty:
            rows = rows.merge(self.texts, on=["benchmark", "subset", "item"], how="left", sort=False)
        return rows.reset_index(drop=True)

    def __repr__(self) -> str:
        return f"BenchmarkResults of {self.meta.get('title')!r}:\n{repr(self.tables).partition('; ')[2]}"

    def _repr_html_(self) -> str:
        facts = {name: value for name, value in self.meta.items() if isinstance(value, (str, int))}
        facts["failure signs"] = ", ".join(check.name for check in self.checks if check.found) or "none seen"
        means = frame_table(accuracies(self.tables.summary))
        return card("Results of a benchmark", facts, small_print("Accuracy, mean over subsets."), means)


def run_benchmark(
    config: BenchmarkConfig, out: str | Path, *, progress: bool = True, command: str = "arm-lens benchmark"
) -> BenchmarkResults:
    """Run what is missing of a benchmark, and write tables of all of it to the folder; see `run_parts` and `save`.

    Args:
        config: what is run.
        out: folder. A run that was stopped, however it was, goes on where it stopped.
        progress: show a progress bar.
        command: what was called, for the page.

    Raises:
        StoreBusyError: if another process writes to the folder.
        ChildProcessError, BenchmarkConfigError, BenchmarkJudgeError, ValueError: see `run_parts`.
    """
    with locked(out):
        results = results_of(_meta(config, command), run_parts(config, out, progress=progress))
        results = replace(results, sections=_sections(config, results.items, results.tables.rows))
        results.save(out)
    return results


def results_of(meta: Mapping[str, Any], gathered: BenchmarkItems) -> BenchmarkResults:
    """The results that items give, save section scores; ``meta`` names the lead judge."""
    tables = benchmark_tables(gathered.items)
    checks = health(
        tables.summary, tables.comparisons, gathered.items, gathered.fits, gathered.heads, lead=str(meta["lead"])
    )
    return BenchmarkResults(
        meta=meta,
        items=gathered.items,
        fits=gathered.fits,
        tables=tables,
        checks=checks,
        heads=gathered.heads,
        history=gathered.history,
        texts=gathered.texts,
    )


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


def _meta(config: BenchmarkConfig, command: str) -> dict[str, Any]:
    judges = {one.label: one.judge for study in config.studies for one in config.settings(study).judges or ()}
    ranked = " (ranked ones 4)" if "ranked_few_shot" in judges.values() else ""
    return {
        "title": config.title,
        "model": config.model or "arm_lens judge model",
        "lead": config.lead,
        "n_examples": config.n_examples[0],
        "samples": config.samples,
        "seeds": "one for each sample" if config.seeds == "sample" else config.seeds,
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        "subsets": dict(CRITERION_TEXT) if any(isinstance(one, WorldStudy) for one in config.studies) else {},
        "benchmarks": {name: text for study in config.studies for name, text in _about(study).items()},
        "judges": {label: JUDGES[judge].summary for label, judge in judges.items()},
        "notes": [
            f"Few-shot prompts hold {config.demonstrations} demonstrations at most{ranked}, however many examples a judge is "
            "given. All other judges read all of them.",
            "A judge that reads no examples is run once, and stands beside the others at every number of examples.",
        ],
        "command": command,
        "config": _published(config),
    }


def _about(study: Study) -> dict[str, str]:
    """What a study's benchmarks test, for people."""
    if isinstance(study, HackingStudy):
        source = "the bundled model's world" if study.path is None else _file_name(study.path)
        pairs = f"Pairs from {source} in which being right and carrying a bias are independent."
        singles = "The same responses one by one: correct or not, with and without the bias."
    elif isinstance(study, PreferenceStudy):
        pairs = f"Preferences from {_file_name(study.path)}."
        singles = "The responses one by one: does each meet the criterion?"
    elif isinstance(study, WorldStudy) and study.unit == "response":
        return {
            study.name: "Replies from the bundled model's world: does each meet the criterion, which is never named?"
        }
    else:
        pairs = "Pairs of replies from the bundled model's world: which meets the criterion, which is never named?"
        singles = "The same replies one by one: does each meet the criterion?"
    return {study.name: pairs, study.name + VERDICTS: singles}


def _published(config: BenchmarkConfig) -> dict[str, Any]:
    """The configuration, without the folders that its files lie in."""
    published: dict[str, Any] = json.loads(config.model_dump_json(exclude={"workers"}))
    for where in (published, *published["studies"]):
        for key in ("model", "path", "examples"):
            if where.get(key) is not None and Path(where[key]).is_absolute():
                where[key] = _file_name(where[key])
    return published


def _file_name(path: str) -> str:
    """A file without its folders, which are nobody else's business; a hub name as it is."""
    return path if "://" in path else Path(path).name


def _write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as Parquet; texts, which may be conversations, as JSON."""
    texts = {name: table[name].map(lambda text: json.dumps(as_json(text))) for name in TEXTS if name in table}
    write_frame(path, table.assign(**texts))


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    return table.assign(**{name: table[name].map(_text) for name in TEXTS if name in table})


def _text(written: str) -> Prompt:
    """A text, or a conversation, out of JSON."""
    text = json.loads(written)
    return text if isinstance(text, str) else tuple(text)


def _read_csv(path: Path) -> pd.DataFrame:
    """A table, which may have neither columns nor rows."""
    return pd.read_csv(path) if path.read_text(encoding="utf-8").strip() else pd.DataFrame()
