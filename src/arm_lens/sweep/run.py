"""Running a sweep, and its results from any state of its folder.

What a folder's parts are of, model by model, stands in ``sweep.json``, written before the first part is run: so results and
page can be made at any moment, without the grid, its data or its models.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from arm_lens.benchmark.data import plan
from arm_lens.benchmark.judging import check_judges, check_tasks
from arm_lens.benchmark.parts import PART_FIELDS, store_in
from arm_lens.benchmark.results import VERSIONS, MissingPartsWarning, OtherRunError, published_config, with_dtype
from arm_lens.benchmark.run import Progress, back_end_of, run_missing
from arm_lens.benchmark.runner import Run, failure_of
from arm_lens.safe_text import printable, without_formulas
from arm_lens.storage import DamagedFileError, json_bytes, locked, parse_json, read_sealed, write_bytes, write_sealed
from arm_lens.sweep.grid import JUDGE, SweepGrid
from arm_lens.sweep.tables import effects_table, runs_and_summary

PLAN = "sweep.json"
"""The file by which a folder of a sweep is recognised."""
Watch = Callable[[pd.DataFrame, Progress], None]
"""Called with the table of parts (a row per part: digest, the axes, the columns of `PART_FIELDS`) and the progress."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SweepResults:
    """What is known of a sweep, finished or not, in tidy tables with a column for each axis."""

    meta: Mapping[str, Any]
    """What was run: title, axes, configuration, versions, and how many parts are done, failed and missing."""
    parts: pd.DataFrame
    """One row per part: model, judge, selector, layers, options, the columns of `PART_FIELDS`; state (done, failed or
    missing) and error."""
    runs: pd.DataFrame
    """One row per finished part, subset and unit; see `arm_lens.sweep.tables.runs_and_summary`."""
    summary: pd.DataFrame
    """The same over samples and seeds, for what has all of them."""
    effects: pd.DataFrame
    """Means over all other axes, by axis and value; see `arm_lens.sweep.tables.effects_table`."""

    @classmethod
    def of(cls, out: str | Path) -> SweepResults:
        """The results from the present state of a folder.

        Raises:
            FileNotFoundError: if it is not the folder of a sweep.
            DamagedFileError: if a file in it was changed.
        """
        out = Path(out)
        known = _known(out)
        parts = pd.DataFrame(known["parts"])
        stored, errors = store_in(out).found(), []
        for digest in parts["digest"]:
            failure = None if digest in stored else failure_of(digest, out)
            errors.append("" if failure is None else printable(failure["error"]))
        parts = parts.assign(error=errors)
        failed = parts["error"] != ""
        parts["state"] = failed.map({True: "failed", False: "missing"}).mask(parts["digest"].isin(stored), "done")
        axes = list(known["meta"]["axes"])
        runs, summary = runs_and_summary(parts, store_in(out), axes)
        counts = {state: int((parts["state"] == state).sum()) for state in ("done", "failed", "missing")}
        return cls(
            meta={**known["meta"], "parts": counts},
            parts=parts.drop(columns=["digest", "label"]),
            runs=runs,
            summary=summary,
            effects=effects_table(summary, axes),
        )

    @property
    def complete(self) -> bool:
        """Whether all parts are done."""
        return bool((self.parts["state"] == "done").all())

    def save(self, out: str | Path) -> Path:
        """Write ``results.json``, and each table as Parquet and CSV; returns the folder."""
        out = Path(out)
        for name in ("runs", "summary", "effects", "parts"):
            table: pd.DataFrame = getattr(self, name)
            write_bytes(out / f"{name}.parquet", table.to_parquet(index=False))
            write_bytes(out / f"{name}.csv", without_formulas(table).to_csv(index=False).encode())
        rows = json.loads(self.summary.to_json(orient="records", double_precision=15))
        write_bytes(out / "results.json", json_bytes({"meta": dict(self.meta), "rows": rows}))
        return out

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.meta["parts"].items())
        return f"SweepResults of {self.meta['title']!r}: {counts}"


def run_sweep(
    grid: SweepGrid, out: str | Path, *, ray: str | None = None, force: bool = False, watch: Watch | None = None
) -> SweepResults:
    """Run the missing parts of a sweep, and write its results to the folder.

    A part that fails does not end the sweep unless the grid's ``on_failure`` is ``stop``: a `MissingPartsWarning` says so,
    and `SweepResults.parts` names it.

    Args:
        grid: what is run.
        out: the folder; a sweep that was stopped in any way continues where it stopped.
        ray: the address of a Ray cluster to run parts on (`arm_lens.benchmark.ray_cluster`).
        force: go on in the folder of another grid; parts that both have in common are not made again.
        watch: called about twice a second.

    Raises:
        OtherRunError: if the folder has another grid's sweep, or a benchmark's results, unless ``force``.
        StoreBusyError: if another process writes to the folder.
        BenchmarkConfigError, BenchmarkJudgeError, ChildProcessError, OverlapError, ValueError: see
            `arm_lens.benchmark.run.run_parts`.
    """
    out = Path(out)
    configs = [(name, with_dtype(config)) for name, config in grid.configs]
    for _, config in configs:
        check_judges(config)
    tasks = [plan(config) for _, config in configs]
    for some in tasks:
        check_tasks(some)
    with locked(out):
        meta = _meta(grid)
        _check_folder(out, meta, force)
        with back_end_of(grid, out, ray) as back_end:
            runs = [back_end.plan(config, some) for (_, config), some in zip(configs, tasks, strict=True)]
            parts = _parts(grid, [name for name, _ in configs], runs)
            write_sealed(out / PLAN, json_bytes({"meta": meta, "parts": parts}))
            table = pd.DataFrame(parts)
            run_missing(runs, back_end, lambda progress: None if watch is None else watch(table, progress))
        results = SweepResults.of(out)
        results.save(out)
    failed = results.parts[results.parts["state"] == "failed"]
    if len(failed):
        what = f"{len(failed)} of {len(results.parts)} parts failed, the first with: {failed['error'].iloc[0]}"
        warnings.warn(MissingPartsWarning(f"{what}; see `results.parts` and {out / 'failures'}"), stacklevel=2)
    return results


def _parts(grid: SweepGrid, models: Sequence[str], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A record of each part; judges that are not the Activation Reward Model have no place on its axes."""
    places = {label: place for label, place, _ in grid.combinations}
    nowhere = dict.fromkeys(grid.axes[1:], "")
    found = []
    for model, run in zip(models, runs, strict=True):
        for part in run.parts:
            label = part.choice.label
            own = {"judge": JUDGE if label in places else label, "label": label, **places.get(label, nowhere)}
            rest = {name: part.fields[name] for name in PART_FIELDS if name != "judge"}
            found.append({"digest": part.digest, "model": model, **own, **rest})
    return found


def _meta(grid: SweepGrid) -> dict[str, Any]:
    return {"title": grid.title, "axes": grid.axes, "versions": VERSIONS, "config": published_config(grid)}


def _known(out: Path) -> dict[str, Any]:
    if not (out / PLAN).exists():
        raise FileNotFoundError(f"{out} is not the folder of a sweep: it has no {PLAN}")
    try:
        return dict(parse_json(read_sealed(out / PLAN)))
    except ValueError as error:
        raise DamagedFileError(f"{out / PLAN} is damaged ({error}); run the same sweep again with --force") from error


def _check_folder(out: Path, meta: Mapping[str, Any], force: bool) -> None:
    """Refuse a folder with the results of something else."""
    if force:
        return
    if not (out / PLAN).exists():
        if (out / "results.json").exists():
            raise OtherRunError(f"{out} has results that are not a sweep's; name another folder")
        return
    before, now = _known(out)["meta"]["config"], json.loads(json_bytes(meta["config"]))
    if changed := sorted(name for name in {**before, **now} if before.get(name) != now.get(name)):
        raise OtherRunError(
            f"{out} has the sweep of another grid ({', '.join(changed)} differ); name another folder, or pass force=True to "
            "go on with this one"
        )
