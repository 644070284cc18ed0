"""From parts to results: tables, warning signs, and what is known of the heads.

Results are made from the parts in a fixed order and without a date, so that the same run gives the same bytes. Pages and
figures are made from results by `arm_lens.reports`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from arm_lens.benchmark.config import BenchmarkConfig, HackingStudy, PictureStudy, PreferenceStudy, Study, WorldStudy
from arm_lens.benchmark.data import as_json, format_of
from arm_lens.benchmark.parts import PART_FIELDS, STUDY, BenchmarkItems, remove_other_reward_models
from arm_lens.benchmark.run import run_parts
from arm_lens.benchmark.runner import FAILURES
from arm_lens.display import accuracies, card, frame_table, small_print
from arm_lens.engine.loading import default_dtype
from arm_lens.engine.model_info import BUNDLED_NAME
from arm_lens.evaluation.health import RATHER_NOT, Check, health
from arm_lens.evaluation.main_setting import VERDICTS, MainSetting, main_rows, main_settings
from arm_lens.evaluation.multimodal import multimodal_rewardbench_scores, vl_rewardbench_scores
from arm_lens.evaluation.rewardbench import rewardbench_2_scores, section_scores
from arm_lens.evaluation.rm_bench import rm_bench_sections
from arm_lens.evaluation.section_intervals import with_intervals, with_intervals_2
from arm_lens.evaluation.tables import BenchmarkTables, benchmark_tables
from arm_lens.judge_model import CRITERION_TEXT, PICTURE_CRITERION_TEXT
from arm_lens.judges.artefact import RECORDED_VERSIONS
from arm_lens.judges.verdict_mass import warn_of_all
from arm_lens.preferences import Prompt
from arm_lens.registry import JUDGES
from arm_lens.safe_text import with_formulas, without_formulas
from arm_lens.storage import DamagedFileError, digest_of_bytes, json_bytes, locked, parse_json, write_bytes

ROW_FIELDS = (*PART_FIELDS, "accuracy", "ci_low", "ci_high", "n")
"""The columns of the rows in ``results.json``."""
LONG_TABLES = {"items": "", "heads": "tables", "history": "tables", "texts": "tables"}
"""Tables with a row per item, head or step, saved as Parquet, and their folders."""
MAYBE = ("sections", "missing")
"""Tables that not every run has."""
TEXTS = ("prompt", "response")
HOW_IT_RUNS = {"workers", "retries", "on_failure", "resources"}
"""What results do not depend on."""
VERSIONS = {name: version(name) for name in RECORDED_VERSIONS}


class MissingPartsWarning(UserWarning):
    """Some judges failed on some tasks, and are not compared with the others there."""


class OtherRunError(ValueError):
    """A folder has the results of a run with another configuration."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkResults(BenchmarkItems):
    """A finished benchmark, in tidy tables: everything that pages, figures and studies are made from."""

    meta: Mapping[str, Any]
    """What was run: title, model, lead judge, settings, versions."""
    tables: BenchmarkTables
    checks: list[Check]
    """The warning signs that were looked for."""
    sections: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Section scores, if a benchmark defines them; else empty."""

    def save(self, out: str | Path) -> Path:
        """Write ``results.json`` and all tables to a folder; returns the folder.

        ``results.json`` is written last: if it exists, all tables are those of the same results. If the folder has other
        results, what was made of them is deleted: page, figures, study of heads.
        """
        out, files = Path(out), self._files()
        if all((out / name).is_file() and (out / name).read_bytes() == content for name, content in files.items()):
            return out
        _clear(out)
        for name in MAYBE:
            (out / "tables" / f"{name}.csv").unlink(missing_ok=True)
        for name, content in files.items():
            write_bytes(out / name, content)
        return out

    def _files(self) -> dict[str, bytes]:
        """The content of each file, by its path within a folder; the summary is the last."""
        tables = {**vars(self.tables), "fits": self.fits}
        tables |= {name: _with_lists(table, json.dumps) for name in MAYBE if not (table := getattr(self, name)).empty}
        found = {
            f"tables/{name}.csv": without_formulas(table).to_csv(index=False).encode() for name, table in tables.items()
        }
        found["tables/health.json"] = json_bytes([asdict(check) for check in self.checks])
        for name, folder in LONG_TABLES.items():
            table = getattr(self, name)
            texts = {text: table[text].map(as_json).map(json.dumps) for text in TEXTS if text in table}
            found[str(Path(folder) / f"{name}.parquet")] = table.assign(**texts).to_parquet(index=False)
        rows = self.tables.rows[list(ROW_FIELDS)].to_dict(orient="records")
        return {**found, "results.json": json_bytes({"meta": dict(self.meta), "rows": rows})}

    @classmethod
    def load(cls, folder: str | Path) -> BenchmarkResults:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: naming a missing table.
            DamagedFileError: naming the folder, if its files are not what `save` wrote.
        """
        try:
            return cls._load(Path(folder))
        except (OSError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk; that of a table has no number
                raise
            raise DamagedFileError(f"the results in {folder} are damaged ({error}); run the same again") from error

    @classmethod
    def _load(cls, folder: Path) -> BenchmarkResults:
        tables, meta = folder / "tables", _meta_in(folder / "results.json")
        checks = json.loads((tables / "health.json").read_text(encoding="utf-8"))
        long = {name: pd.read_parquet(folder / where / f"{name}.parquet") for name, where in LONG_TABLES.items()}
        texts = long["texts"]
        return cls(
            meta=meta,
            fits=_read_csv(tables / "fits.csv"),
            tables=BenchmarkTables(
                **{table.name: _read_csv(tables / f"{table.name}.csv") for table in fields(BenchmarkTables)}
            ),
            checks=[Check(**check) for check in checks],
            **{
                name: _with_lists(_read_csv(path), json.loads)
                for name in MAYBE
                if (path := tables / f"{name}.csv").exists()
            },
            **long | {"texts": texts.assign(**{name: texts[name].map(_text) for name in TEXTS if name in texts})},
        )

    @property
    def settings(self) -> dict[str, MainSetting]:
        """The setting of each benchmark's main comparison, with the run's number of examples if the benchmark has it."""
        return main_settings(self.tables.summary, n_examples=_wanted(self.meta))

    def of_lead(
        self, table: Literal["items", "fits", "heads", "history"], benchmark: str | None = None
    ) -> pd.DataFrame:
        """The lead judge's rows of one benchmark's main comparison, for figures and for comparisons of criteria.

        Args:
            table: ``items`` (the responses that were judged one by one, with prompt and response), ``fits``, ``heads`` or
                ``history``.
            benchmark: its name; by default the first in which the lead judge has such rows.

        Returns:
            The rows, or an empty table; ``seed`` is a number for each sample and seed, so that it distinguishes fits.
        """
        rows: pd.DataFrame = getattr(self, table)
        if rows.empty:
            return rows
        rows = main_rows(rows, self.settings)
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
        facts["warning signs"] = ", ".join(check.name for check in self.checks if check.found) or "none seen"
        means = frame_table(accuracies(self.tables.summary))
        return card("Results of a benchmark", facts, small_print("Accuracy, mean over subsets."), means)


def run_benchmark(
    config: BenchmarkConfig,
    out: str | Path,
    *,
    force: bool = False,
    progress: bool = True,
    command: str = "arm-lens benchmark",
    ray: str | None = None,
) -> BenchmarkResults:
    """Run the missing parts of a benchmark, and write its results to the folder.

    A judge that fails on a task does not end the run: the other parts are run, ``missing`` and the page say what failed, and
    the same call tries it again.

    Args:
        config: what is run.
        out: the folder; a run that was stopped in any way continues where it stopped.
        force: replace the results of another configuration, or of other data, that are in the folder, with its page,
            figures, study and reward models; parts that both have in common are not made again.
        progress: show a progress bar.
        command: the command that the page names.
        ray: the address of a Ray cluster to run parts on, see `run_parts`.

    Raises:
        OtherRunError: if the folder has the results of another configuration, unless ``force``; before anything runs.
        StoreBusyError: if another process writes to the folder.
        ChildProcessError, BenchmarkConfigError, BenchmarkJudgeError, ValueError: see `run_parts`.
    """
    config = with_dtype(config)
    with locked(out):
        published = published_config(config)
        _make_way(Path(out), published, force)
        gathered = run_parts(config, out, progress=progress, ray=ray)
        results = results_of(_meta(config, command, published), gathered, missing_checks(gathered.missing))
        results = replace(results, sections=_sections(config, results.items, results.tables.rows))
        results.save(out)
        if force:
            remove_other_reward_models(Path(out), set(results.fits.get("reward_model", ())))
    if len(results.missing):
        warnings.warn(MissingPartsWarning(missing_text(results.missing, Path(out))), stacklevel=2)
    return results


def with_dtype(config: BenchmarkConfig) -> BenchmarkConfig:
    """The configuration with the dtype that ``auto`` stands for, once, for all processes and for the record."""
    if config.dtype != "auto":
        return config
    dtype = str(default_dtype(config.model, device=config.device)).removeprefix("torch.")
    return config.model_copy(update={"dtype": dtype})


def missing_text(missing: pd.DataFrame, out: Path) -> str:
    """How many parts are missing, and what to do."""
    failed = int((missing["error"] != "").sum())
    count = "a part is" if len(missing) == 1 else f"{len(missing)} parts are"
    return (
        f"{count} missing, {failed} of them failed; their judges are left out where a sample or seed is missing. Tracebacks "
        f"are in {out / FAILURES}; the same command tries them again"
    )


def missing_checks(missing: pd.DataFrame) -> list[Check]:
    """For the page: which judges are left out of which settings, and why; nothing if no part is missing."""
    if missing.empty:
        return []
    names = ["judge", "benchmark", "subset", "n_examples", "noise"]
    found = [
        f"{judge} on {benchmark}, {subset}, n = {n_examples}, noise {noise:g}: {len(rows)} "
        f"{'part' if len(rows) == 1 else 'parts'}; {next((why for why in rows['error'] if why), 'not run')}"
        for (judge, benchmark, subset, n_examples, noise), rows in missing.groupby(names, sort=False)
    ]
    rule = "a judge failed on a task, so that it is left out of the tables and comparisons of this setting"
    return [Check("missing parts", rule, found)]


def _make_way(out: Path, config: Mapping[str, Any], force: bool) -> None:
    """Refuse a folder with results of another configuration, or delete its summary, page and figures: none is mixed."""
    summary = out / "results.json"
    if not summary.exists():
        return
    try:
        before = _meta_in(summary).get("config", {})
    except DamagedFileError as error:
        if not force:
            raise OtherRunError(f"{error}; name another folder, or pass force=True to replace it") from error
        before = {}
    changed = sorted(name for name in {**before, **config} if before.get(name) != config.get(name))
    if changed and not force:
        what = (
            f"another configuration ({', '.join(changed)} differ)" if before else "judges that were given, not of a run"
        )
        raise OtherRunError(f"{out} has the results of {what}; name another folder, or pass force=True to replace them")
    if changed:
        _clear(out)


def _clear(out: Path) -> None:
    """Delete the summary of a folder's results and what was made of them: page, figures, study. What resumes stays."""
    (out / "results.json").unlink(missing_ok=True)
    study, figures = out / STUDY, (out / "figures").glob("*.svg")
    made = [path for svg in figures if (png := svg.with_suffix(".png")).exists() for path in (svg, png)]
    if (study / "study.json").exists():
        made += [study / "study.json", *study.glob("*.parquet")]
    for path in (out / "report.html", *made):
        path.unlink(missing_ok=True)


def results_of(meta: Mapping[str, Any], gathered: BenchmarkItems, checks: Sequence[Check] = ()) -> BenchmarkResults:
    """The results without section scores; ``meta`` names the lead judge, and ``checks`` come before those of `health`.

    Warns:
        VerdictMassWarning: naming the judges whose model would rather write something else than a verdict.
    """
    tables, lead = benchmark_tables(gathered.items), str(meta["lead"])
    meta = {**meta, **_score_kinds(gathered.fits)}
    known, size = (gathered.items, gathered.fits, gathered.heads), _wanted(meta)
    found = health(tables.summary, tables.comparisons, *known, lead=lead, n_examples=size)
    warn_of_all([line for check in found if check.name == RATHER_NOT for line in check.found])
    return BenchmarkResults(meta=meta, tables=tables, checks=[*checks, *found], **vars(gathered))


def _wanted(meta: Mapping[str, Any]) -> int | None:
    """The run's number of examples."""
    size = meta.get("n_examples")
    return size if isinstance(size, int) else None


def _score_kinds(fits: pd.DataFrame) -> dict[str, Any]:
    """For the page: the judges of each benchmark that are judged by scores of a chosen kind, by kind; or nothing."""
    if "score_kind" not in fits or fits["score_kind"].isna().all():
        return {}
    found: dict[str, dict[str, list[str]]] = {}
    for row in fits.dropna(subset=["score_kind"]).drop_duplicates(["benchmark", "judge"]).itertuples():
        found.setdefault(str(row.score_kind), {}).setdefault(str(row.benchmark), []).append(str(row.judge))
    return {"score_kinds": found}


def _sections(config: BenchmarkConfig, items: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Section scores per judge, setting, sample and seed of the studies whose format publishes how subsets add up."""
    by = [name for name in PART_FIELDS if name != "subset"]
    scores_of = {
        "rewardbench": lambda own: with_intervals(section_scores(own, by=by), rows, by=by),
        "rewardbench-2": lambda own: with_intervals_2(rewardbench_2_scores(own, by=by), by=by).rename(
            columns={"subset": "section"}
        ),
        "rm-bench": lambda own: rm_bench_sections(own, by=by),
        "multimodal-rewardbench": lambda own: multimodal_rewardbench_scores(_rows_of(own, rows), by=by),
        "vl-rewardbench": lambda own: vl_rewardbench_scores(_rows_of(own, rows), by=by),
    }
    found = []
    for study in config.studies:
        if (format := format_of(study)) in scores_of:
            here = items[(items["benchmark"] == study.name) & (items["unit"] == "pair")]
            for judge, own in here.groupby("judge", sort=False):
                try:
                    found.append(scores_of[format](own))
                except ValueError as error:  # the verdicts and the scores of other judges are not lost
                    warnings.warn(f"study {study.name!r}: no section scores of {judge}: {error}", stacklevel=2)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _rows_of(items: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the benchmark and the judge of some items."""
    return rows.merge(items[["benchmark", "judge"]].drop_duplicates(), on=["benchmark", "judge"])


def _criteria_in_words(config: BenchmarkConfig) -> dict[str, str]:
    """The criteria of the worlds that the studies are about."""
    kinds = {type(study) for study in config.studies}
    worlds = {WorldStudy: CRITERION_TEXT, PictureStudy: PICTURE_CRITERION_TEXT}
    return {name: text for kind, texts in worlds.items() if kind in kinds for name, text in texts.items()}


def _meta(config: BenchmarkConfig, command: str, published: Mapping[str, Any]) -> dict[str, Any]:
    judges = {one.label: one.judge for study in config.studies for one in config.settings(study).judges or ()}
    ranked = " (ranked ones 4)" if "ranked_few_shot" in judges.values() else ""
    return {
        "title": config.title,
        "model": _shown(config.model or BUNDLED_NAME),
        "lead": config.lead,
        "n_examples": config.n_examples[0],
        "samples": config.samples,
        "seeds": "one for each sample" if config.seeds == "sample" else config.seeds,
        "versions": VERSIONS,
        "subsets": _criteria_in_words(config),
        "benchmarks": {name: text for study in config.studies for name, text in _about(study).items()},
        "judges": {label: JUDGES[judge].summary for label, judge in judges.items()},
        "notes": [
            f"Few-shot prompts hold {config.demonstrations} demonstrations at most{ranked}, however many examples a judge is "
            "given. All other judges read all of them.",
            "A judge that reads no examples is run once, and stands beside the others at every number of examples.",
        ],
        "command": command,
        "config": published,
    }


def _about(study: Study) -> dict[str, str]:
    """What each benchmark of a study tests, in words."""
    world = "the bundled picture judge's world" if isinstance(study, PictureStudy) else "the bundled model's world"
    if isinstance(study, HackingStudy):
        source = world if study.path is None else _file_name(study.path)
        pairs = f"Pairs from {source} in which being right and carrying a bias are independent."
        singles = "The same responses one by one: correct or not, with and without the bias."
    elif isinstance(study, PreferenceStudy):
        source = f" ({study.source})" if study.source else ""
        pairs = f"Preferences from {_file_name(study.path)}{source}."
        singles = "The responses one by one: does each meet the criterion?"
    elif study.unit == "response":
        return {study.name: f"Replies from {world}: does each meet the criterion, which is never named?"}
    else:
        pairs = f"Pairs of replies from {world}: which meets the criterion, which is never named?"
        singles = "The same replies one by one: does each meet the criterion?"
    return {study.name: pairs, study.name + VERDICTS: singles}


def published_config(config: BenchmarkConfig) -> dict[str, Any]:
    """The configuration, with file names for absolute paths, digests of the data, and no passwords in addresses."""
    published: dict[str, Any] = _without_passwords(json.loads(config.model_dump_json(exclude=HOW_IT_RUNS)))
    paths = {study.name: [getattr(study, name, None) for name in ("path", "examples")] for study in config.studies}
    digests = {
        name: [digest_of_bytes(Path(path).read_bytes())[:20] for path in some if path and Path(path).is_file()]
        for name, some in paths.items()
    }
    if any(digests.values()):
        published["data"] = {name: some for name, some in digests.items() if some}
    for where in (published, *published["studies"], *published.get("models", ())):
        for key in ("model", "path", "examples"):
            if where.get(key) is not None:
                where[key] = _shown(where[key])
    return published


def _meta_in(summary: Path) -> dict[str, Any]:
    """The part ``meta`` of a ``results.json``; a DamagedFileError if it is none."""
    try:
        meta = dict(parse_json(summary.read_bytes())["meta"])
        return meta | {"config": dict(meta["config"])} if "config" in meta else meta
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{summary} is damaged, or another program's file") from error


def _without_passwords(value: Any) -> Any:
    """JSON-like content, in which no address has a user name or password."""
    if isinstance(value, dict):
        return {name: _without_passwords(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_passwords(one) for one in value]
    return re.sub(r"\A(\s*[\w+.-]+://)[^/?#]*@", r"\1", value) if isinstance(value, str) else value


def _shown(name: str) -> str:
    """A hub name or relative path, or the file name of an absolute path."""
    return _file_name(name) if Path(name).is_absolute() else name


def _file_name(path: str) -> str:
    """A file's name without its folders, which are private; a hub name unchanged."""
    return path if "://" in path else Path(path).name


def _text(written: str) -> Prompt:
    text = json.loads(written)
    return text if isinstance(text, str) else tuple(text)


_TEXTS = (
    *("benchmark", "subset", "section", "criterion", "unit", "judge", "other"),
    *("heads", "preferred", "score_kind", "notes", "error"),
)
"""The columns that are text, also where it looks like a number or like nothing: ``007``, ``NA``."""


def _with_lists(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """A table whose columns of lists are written, or read, as JSON."""
    return table.assign(**{name: table[name].map(change) for name in ("missing", "partial") if name in table})


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a table that may have no columns."""
    if not path.read_text(encoding="utf-8").strip():
        return pd.DataFrame()
    return with_formulas(pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values=[""]))
