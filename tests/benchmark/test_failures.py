"""A judge that fails on a task is recorded and named, the rest goes on, and no judge is compared over other tasks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest
from typer.testing import CliRunner

from arm_lens import cli
from arm_lens.benchmark import BenchmarkResults, MissingPartsWarning, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.run import run_parts
from arm_lens.judges.controls import LENGTH
from arm_lens.registry import JUDGES, always
from arm_lens.storage import Store

WORLD = {"kind": "world", "criteria": ["polite", "safe"]}


class Moody:
    """A judge for tests: length, which fails on what is in ``fails``."""

    fails: ClassVar[set[tuple[str, int]]] = set()
    fits = 0

    @classmethod
    def fit(cls, context, options):
        cls.fits += 1
        if (context.examples[0].criterion, context.reading.seed) in cls.fails:
            raise RuntimeError("no luck [today]")
        return LENGTH.fit(context, options)


@pytest.fixture
def moody(monkeypatch):
    """A judge that learns from examples, and fails on `Moody.fails`, pairs of criterion and sample."""
    monkeypatch.setattr(Moody, "fits", 0)
    monkeypatch.setattr(Moody, "fails", set())
    spec = replace(LENGTH, name="moody", fit=Moody.fit, reads_examples=always)
    _ = JUDGES["length"]
    monkeypatch.setitem(JUDGES._by_name, "moody", spec)
    return Moody


def config_of(**run):
    values = {"judges": ["length", "moody", "sav"], "lead": "moody", "n_examples": [4], "samples": 2, "test_items": 6,
              "demonstrations": 2, "readings": 2, "studies": [WORLD]}  # fmt: skip
    return BenchmarkConfig.model_validate(values | run)


def files_in(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_what_failed_is_named_left_out_of_comparisons_and_tried_again_alone(moody, tmp_path):
    whole = tmp_path / "whole"
    run_benchmark(config_of(), whole, progress=False)
    moody.fails, out = {("safe", 1)}, tmp_path / "out"
    with pytest.warns(MissingPartsWarning, match="a part is missing, 1 of them failed"):
        results = run_benchmark(config_of(), out, progress=False)
    missing = results.missing.to_dict("records")
    assert [(row["judge"], row["subset"], row["sample"], row["error"]) for row in missing] == [
        ("moody", "safe", 1, "RuntimeError: no luck [today]")
    ]
    # No table has the judge on a subset of which it saw one sample of two, and the others are there as ever.
    for table in (results.items, results.tables.rows, results.tables.summary):
        assert set(table.loc[table["judge"] == "moody", "subset"]) == {"polite"}
        assert set(table.loc[table["judge"] == "sav", "subset"]) == {"polite", "safe"}
    compared = results.tables.comparisons
    about = compared[(compared["judge"] == "moody") | (compared["other"] == "moody")]
    assert set(about["subset"]) == {"polite"} and set(compared["subset"]) == {"polite", "safe"}
    check = results.checks[0]
    assert check.name == "missing parts" and check.found == [
        "moody on world, safe, n = 4, noise 0: 1 part; RuntimeError: no luck [today]"
    ]
    (failure,) = (
        json.loads(Store(out / "failures", ".json").read(one)) for one in Store(out / "failures", ".json").found()
    )
    assert "in fit" in failure["traceback"] and failure["part"]["sample"] == 1
    pd.testing.assert_frame_equal(BenchmarkResults.load(out).missing, results.missing, check_dtype=False)
    moody.fails, moody.fits = set(), 0
    results = run_benchmark(config_of(), out, progress=False)
    assert results.missing.empty and moody.fits == 1 and files_in(out) == files_in(whole)


def test_the_command_ends_with_an_error_and_says_what_is_missing(moody, tmp_path, monkeypatch):
    moody.fails = {("polite", 0)}
    (tmp_path / "run.yaml").write_text(
        "judges: [length, moody]\nlead: moody\nn_examples: [4]\ntest_items: 4\nstudies: [{kind: world, criteria: [polite]}]\n"
    )
    out = tmp_path / "out"
    with pytest.warns(MissingPartsWarning):
        said = CliRunner().invoke(cli.app, ["benchmark", str(tmp_path / "run.yaml"), "--out", str(out), "--no-images"])
    assert said.exit_code == 1
    printed = re.sub(r"\s+", " ", said.output)
    assert "missing parts: moody on world, polite, n = 4, noise 0: 1 part; RuntimeError: no luck [today]" in printed
    assert "no luck [today]" in (out / "report.html").read_text(encoding="utf-8")


def test_a_run_of_which_nothing_is_left_raises_the_first_failure(moody, tmp_path):
    moody.fails = {("polite", 0), ("safe", 0)}
    with pytest.raises(ValueError, match=r"^moody on world, polite, n = 4, noise 0, sample 0: RuntimeError: no luck"):
        run_parts(config_of(judges=["moody"], samples=1), tmp_path, progress=False)


def test_on_failure_stop_ends_the_run_at_once(moody, tmp_path):
    moody.fails = {("polite", 0)}
    with pytest.raises(ValueError, match=r"^moody on world, polite"):
        run_parts(config_of(judges=["moody", "length"], samples=1, on_failure="stop"), tmp_path, progress=False)
    assert moody.fits == 1
