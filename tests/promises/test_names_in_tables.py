"""What a file of preferences names is the same name in every table that is written and read again."""

from __future__ import annotations

import pandas as pd

from arm_lens import PreferencePair
from arm_lens.benchmark import BenchmarkResults, judge_preferences
from arm_lens.judges.controls import LengthJudge
from arm_lens.reports import write_report

SUBSETS = ("NA", "null", "nan", "007", "1e5", "1.0", "True", "2020-01-01", "=1+1", "a\x1b[2J", "b\rc", "d\ne")


def test_names_of_subsets_and_judges_are_text_and_control_no_terminal(tmp_path):
    pairs = [
        PreferencePair(
            f"p {name} {n}", "a" * (n % 3 + 1), "b" * (n % 2 + 2), id=f"{name} {n}", metadata={"subset": name}
        )
        for name in SUBSETS
        for n in range(3)
    ]
    results = judge_preferences({"NA": LengthJudge(), "1": LengthJudge()}, pairs, benchmark="007")
    results.save(tmp_path)
    loaded = BenchmarkResults.load(tmp_path)
    for name, table in vars(results.tables).items():
        pd.testing.assert_frame_equal(getattr(loaded.tables, name), table.reset_index(drop=True), check_dtype=False)
    assert list(loaded.tables.rows["subset"].unique()) == [
        name.replace("\x1b", "\\x1b").replace("\r", "\\r") for name in SUBSETS
    ]
    assert set(loaded.tables.rows["judge"]) == {"NA", "1"} and set(loaded.tables.rows["benchmark"]) == {
        "007",
        "007 verdicts",
    }
    written = b"".join(path.read_bytes() for path in (tmp_path / "tables").glob("*.csv"))
    assert b"\x1b" not in written and b"\r" not in written
    assert "007" in write_report(loaded, tmp_path).read_text(encoding="utf-8")
