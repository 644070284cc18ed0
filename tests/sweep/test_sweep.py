"""A sweep's tables say what its parts say, compare over the same settings only, and come from any state of the folder."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sweep.sweep_support import contents, count_parts, grid_of
from typer.testing import CliRunner

from arm_lens import cli
from arm_lens.benchmark import MissingPartsWarning, OtherRunError
from arm_lens.benchmark.parts import PARTS
from arm_lens.benchmark.run import Progress
from arm_lens.cli.sweep import _view
from arm_lens.reports import write_sweep
from arm_lens.storage import Store
from arm_lens.sweep import SweepResults, run_sweep
from arm_lens.sweep.tables import effects_table

AXES = ["model", "selector", "layers"]


def summary_of(**values: tuple[float, ...]) -> pd.DataFrame:
    """Selectors by their accuracies on subsets; NaN for a setting that is not there."""
    rows = [
        {"model": "m", "judge": "arm", "selector": name, "layers": "all", "benchmark": "b", "subset": f"s{index}",
         "n_examples": 4, "noise": 0.0, "accuracy": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
        for name, some in values.items() for index, value in enumerate(some) if not np.isnan(value)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_an_axis_is_compared_over_the_settings_that_all_of_its_values_have():
    table = effects_table(summary_of(one=(0.5, 0.7, 0.9), two=(0.6, np.nan, 0.8)), AXES).set_index(["axis", "value"])
    one, two = table.loc[("selector", "one")], table.loc[("selector", "two")]
    assert (one["accuracy"], two["accuracy"]) == (pytest.approx(0.7), pytest.approx(0.7))  # without s1: 0.7 is not 0.7
    assert one["settings"] == two["settings"] == 2 and one["left_out"] == two["left_out"] == 1
    assert (one["ci_low"], one["ci_high"]) == (pytest.approx(0.6), pytest.approx(0.8))
    assert table.loc[("subset", "s0"), "accuracy"] == pytest.approx(0.5)  # `two` lacks s1, so only `one` is compared
    assert table.loc[("subset", "s1"), "accuracy"] == pytest.approx(0.7)


def test_an_axis_whose_values_have_no_setting_in_common_has_no_mean():
    table = effects_table(summary_of(one=(0.5, np.nan), two=(np.nan, 0.8)), AXES)
    own = table[table["axis"] == "selector"]
    assert own["accuracy"].isna().all() and (own["settings"] == 0).all() and (own["left_out"] == 2).all()


def test_the_live_table_counts_parts_and_names_what_runs():
    parts = pd.DataFrame({"digest": ["a", "b", "c", "d"], "model": ["m", "m", "n", "n"], "label": ["x", "y", "x", "y"]})
    progress = Progress(4, frozenset("ab"), frozenset("c"), ("a task [1]",), 75.4)
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(_view(parts, progress))
    lines = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["m", "2", "0", "0"] in lines and ["n", "0", "1", "1"] in lines
    assert "3 of 4, 0:01:15 left".split() in lines and "running: a task [1]".split() in lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    grid = grid_of("polite", samples=2, layers=["all", "0-1"], judges=["length"], options={"reward": ["margin"]})
    results = run_sweep(grid, out)
    write_sweep(results, out)
    return grid, out, results


@pytest.mark.slow
def test_runs_are_what_the_parts_say(finished):
    _, out, results = finished
    assert results.complete and len(results.parts) == 2 * 2 * 2 + 1 == count_parts(out)
    runs = pd.read_parquet(out / "runs.parquet")
    pd.testing.assert_frame_equal(runs, results.runs)
    store = Store(out / PARTS)
    items = pd.concat([store.read_frame(digest)[0] for digest in store.found()])
    label = runs["selector"] + runs["layers"].map(lambda one: "" if one in ("all", "") else f", layers {one}")
    label += ", reward " + runs["reward"]
    by = ["judge", "benchmark", "subset", "n_examples", "sample", "seed"]
    counted = items.groupby(by)["correct"].agg(["mean", "size"])
    named = runs.assign(judge=label.mask(runs["judge"] != "arm", runs["judge"])).set_index(by)
    assert len(named) == len(counted)
    assert named["accuracy"].to_dict() == pytest.approx(counted["mean"].to_dict())
    assert named["n"].to_dict() == counted["size"].to_dict()
    searched = runs[runs["selector"] == "reinforce"]
    assert (
        (searched["search_steps"] > 0).all()
        and searched["n_heads"].between(1, 48).all()
        and (searched["search_passes"] > 0).all()
        and searched["search_reward"].notna().all()
    )
    assert runs.loc[runs["judge"] == "length", "n_heads"].isna().all()
    singles = results.summary["unit"] == "response"
    assert results.summary.loc[singles, "auc"].notna().any() and results.summary.loc[~singles, "auc"].isna().all()
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(results.summary) and set(rows[0]) == set(results.summary.columns)


@pytest.mark.slow
def test_parts_that_fail_are_warned_of_and_the_rest_is_there(tmp_path):
    grid = grid_of("polite", judges=["length", {"judge": "voting", "votes": 0}])
    with pytest.warns(
        MissingPartsWarning, match=r"1 of \d+ parts failed, the first with: .*voting needs at least one vote"
    ):
        results = run_sweep(grid, tmp_path / "sweep")
    assert not results.complete and {"arm", "length"} == set(results.runs["judge"])


@pytest.mark.slow
def test_a_page_from_any_state_of_the_folder(finished, tmp_path):
    _, out, _ = finished
    before = contents(out)
    lost = sorted(Store(out / PARTS).found().items())[:3]
    half = tmp_path / "half"
    for name, content in before.items():
        if name.startswith(f"{PARTS}/") or name == "sweep.json":
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            (half / name).write_bytes(content)
    for _, path in lost:
        (half / PARTS / path.name).unlink()
    said = CliRunner().invoke(cli.app, ["sweep", "--report", str(half)])
    assert said.exit_code == 1 and "0 failed, 3 not run" in said.output
    page = (half / "report.html").read_text(encoding="utf-8")
    assert f"{len(before_parts(before)) - 3} parts of {len(before_parts(before))} done" in page
    partial = SweepResults.of(half)
    assert (partial.parts["state"] == "missing").sum() == 3 and len(partial.runs) < len(
        pd.read_parquet(out / "runs.parquet")
    )
    for path in (half / PARTS).iterdir():
        path.unlink()
    assert (
        CliRunner().invoke(cli.app, ["sweep", "--report", str(half)]).exit_code == 1
    )  # nothing done: a page all the same
    shown = CliRunner().invoke(cli.app, ["sweep", "--report", str(out)])
    assert shown.exit_code == 0 and contents(out) == before


def before_parts(files):
    return [name for name in files if name.startswith(f"{PARTS}/")]


@pytest.mark.slow
def test_another_grid_in_the_folder_is_refused_and_with_force_makes_only_what_is_new(finished, tmp_path):
    grid, out, results = finished
    files = {path.name: path.stat().st_mtime_ns for path in (out / PARTS).iterdir()}
    larger = grid.model_copy(update={"samples": 3})
    with pytest.raises(OtherRunError, match=r"another grid \(samples differ\)"):
        run_sweep(larger, out)
    copy = tmp_path / "copy"
    for name, content in contents(out).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    stamps = {path.name: path.stat().st_mtime_ns for path in (copy / PARTS).iterdir()}
    again = run_sweep(larger, copy, force=True)
    assert again.complete and len(again.parts) == len(results.parts) + 4
    now = {path.name: path.stat().st_mtime_ns for path in (copy / PARTS).iterdir()}
    assert {name: now[name] for name in stamps} == stamps and set(files) == set(stamps)
