"""The table of ratios over releases: what benchmarks measured is in it as it was, and a loss is an exit code."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from ratios import app, compared, ratios_in
from typer.testing import CliRunner


@pytest.fixture
def measured(tmp_path):
    """A folder in which the replay takes a 200th of a full pass, and gradients five of them."""
    row = {"model": "small", "model_class": "TransformerBridge", "prompt_tokens": 64, "masks": 32}
    rows = [
        {**row, "path": path, "speedup_vs_full": times} for path, times in (("bare forward", 1.1), ("replay", 200.0))
    ]
    over = {"model": "small", "examples": 4, "prompt_tokens": 64, "steered_over_bare": 1.25, "reading_over_bare": 0.5}
    (tmp_path / "bench_selection.json").write_text(json.dumps({"meta": {}, "rows": rows, "overhead": [over]}))
    measure = {"what": "gradient", "seconds": 5.0, "full_pass_seconds": 1.0}
    (tmp_path / "bench_attribution.json").write_text(json.dumps({"meta": {}, "measures": [measure]}))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_ratio_is_the_time_of_the_slower_way_by_ours(measured):
    found = ratios_in(measured).set_index("what")["ratio"]
    assert found.to_dict() == pytest.approx(
        {
            "replay: small, TransformerBridge, 64 tokens, 32 masks": 200.0,
            "steered: small, 4 prompts of 64 tokens": 0.8,
            "reading: small, 4 prompts of 64 tokens": 2.0,
            "gradient": 0.2,
        }
    )


def test_a_release_is_replaced_by_itself_and_compared_with_the_one_before(measured):
    table = measured / "ratios.csv"
    for release in ("0.1.0", "0.10", "0.10"):
        assert run("add", release, measured, "--table", table).exit_code == 0
    known = pd.read_csv(table, dtype=str)
    assert known["release"].tolist() == ["0.1.0"] * 4 + ["0.10"] * 4
    assert run("compare", "--table", table).exit_code == 0
    slower = known.assign(
        ratio=known["ratio"].where((known["release"] == "0.1.0") | (known["benchmark"] != "replay"), 99)
    )
    slower.to_csv(table, index=False)
    result = run("compare", "--table", table)
    assert result.exit_code == 1 and "1 of 4 ratios are less than 0.7" in result.output
    assert compared(pd.read_csv(table, dtype={"release": str}), "0.1.0", "0.10")["change"].min() == pytest.approx(0.495)


def test_what_is_not_there_is_said(measured, tmp_path_factory):
    table = measured / "ratios.csv"
    assert "has neither" in run("add", "1", tmp_path_factory.mktemp("empty"), "--table", table).output
    run("add", "0.1.0", measured, "--table", table)
    assert "one release only, 0.1.0" in run("compare", "--table", table).output
    assert "no ratios of 9" in run("compare", "--old", "9", "--new", "0.1.0", "--table", table).output
