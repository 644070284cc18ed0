"""A benchmark from its file to its page, as a user runs it, and what a user reads where something is wrong."""

from __future__ import annotations

import json
import re
import sys

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from arm_lens import cli
from arm_lens.benchmark import BenchmarkConfigError, BenchmarkJudgeError, read_config, run_benchmark
from arm_lens.benchmark.results import ROW_FIELDS
from arm_lens.evaluation.rewardbench import section_scores
from arm_lens.evaluation.tables import ITEM_FIELDS

pytestmark = pytest.mark.slow

REQUIRED = [
    "benchmark", "subset", "judge", "n_examples", "noise", "sample", "seed", "accuracy", "ci_low", "ci_high", "n",
]  # fmt: skip
SUBSETS = ("hep-java", "hep-go", "math-prm")


def rewardbench_rows():
    return [
        {
            "id": n, "prompt": f"Tell me about the mill {n}.", "chosen": f"The mill is {'very ' * (n % 5)}warm.",
            "rejected": f"The mill is {'very ' * (n % 3)}cold!", "chosen_model": "a", "rejected_model": "b",
            "subset": SUBSETS[n % 3],
        }
        for n in range(24)
    ]  # fmt: skip


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a configuration and data, the folder of its results, and what was printed."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_rows(folder / "rewards.jsonl", rewardbench_rows())
    config = {
        "judges": ["zero_shot", {"judge": "sav", "name": "votes"}, "length", "random"],
        "n_examples": [4], "demonstrations": 2, "readings": 2, "test_items": 6, "seeds": 2,
        "studies": [
            {"kind": "world", "criteria": ["polite"], "noise": [0.0, 0.25]},
            {"kind": "hacking", "biases": ["length"], "mappings": ["standard", "flipped"], "test_items": 4},
            {"kind": "preferences", "name": "rb", "path": "rewards.jsonl", "pool": 6, "test_items": 100},
        ],
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    out = folder / "out"
    ran = CliRunner().invoke(cli.app, ["benchmark", str(folder / "run.yaml"), "--out", str(out), "--no-images"])
    assert ran.exit_code == 0, ran.output
    return folder, out, ran.output


def test_the_command_writes_what_it_says(finished):
    _, out, printed = finished
    for name in ("results.json", "items.parquet", "report.html", "tables/summary.csv", "tables/health.json"):
        assert (out / name).stat().st_size > 0, name
    assert not list(out.rglob("*.tmp"))
    assert "report.html" in printed.replace("\n", "")
    assert all(name in printed for name in ("world", "hacking", "rb", "zero_shot", "votes", "length"))


def test_rows_have_the_promised_fields_and_count_their_items(finished):
    _, out, _ = finished
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    items = pd.read_parquet(out / "items.parquet")
    assert list(ROW_FIELDS) == REQUIRED and all(list(row) == REQUIRED for row in rows)
    assert set(items.columns) == set(ITEM_FIELDS)
    keys = REQUIRED[:7]
    counted = items.groupby(keys, sort=False)["correct"].agg(["size", "mean"])
    assert len(rows) == len(counted)
    for row in rows:
        n, accuracy = counted.loc[tuple(row[name] for name in keys)]
        assert row["n"] == n and row["accuracy"] == pytest.approx(accuracy)
        assert 0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1


def test_every_judge_is_there_as_often_as_it_was_to_be_run(finished):
    _, out, _ = finished
    rows = pd.DataFrame(json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"])
    world = rows[rows["benchmark"] == "world"]
    runs = {name: sorted(set(zip(some["n_examples"], some["noise"], some["seed"], strict=True)))
            for name, some in world.groupby("judge")}  # fmt: skip
    assert runs == {
        "zero_shot": [(0, 0.0, 0)], "length": [(0, 0.0, 0)], "random": [(0, 0.0, 0), (0, 0.0, 1)],
        "votes": [(4, 0.0, 0), (4, 0.25, 0)],
    }  # fmt: skip
    assert set(rows["benchmark"]) == {
        f"{name}{more}" for name in ("world", "hacking", "rb") for more in ("", " verdicts")
    }
    cells = rows.loc[rows["benchmark"] == "hacking", "subset"].unique()
    assert len(cells) == 8 and "length | flipped | bias on chosen" in cells


def test_what_takes_no_examples_says_the_same_under_every_mapping(finished):
    items = pd.read_parquet(finished[1] / "items.parquet")
    silent = items[(items["benchmark"] == "hacking") & (items["judge"] == "zero_shot")]
    mapping, cell = silent["subset"].str.split(" | ", regex=False).str[1], silent["subset"].str.rsplit(" | ").str[-1]
    by_item = silent.assign(cell=cell, mapping=mapping).pivot(index="item", columns="mapping", values="reward")
    assert len(by_item) == 16 and (by_item["standard"] == by_item["flipped"]).all()


def test_a_file_in_rewardbenchs_format_gets_section_scores_though_none_was_named(finished):
    _, out, _ = finished
    sections = pd.read_csv(out / "tables" / "sections.csv")
    items = pd.read_parquet(out / "items.parquet")
    here = items[(items["benchmark"] == "rb") & (items["unit"] == "pair") & (items["judge"] == "length")]
    assert here["item"].nunique() == len(here) == 18
    own = section_scores(here)
    found = sections[sections["judge"] == "length"]
    assert set(sections["benchmark"]) == {"rb"} and list(found["section"]) == list(own["section"])
    assert found["score_of_present"].tolist() == pytest.approx(own["score_of_present"].tolist(), nan_ok=True)
    assert found["n"].tolist() == own["n"].tolist()


def test_results_name_no_folder_of_the_data(finished):
    folder, out, _ = finished
    about = json.loads((out / "results.json").read_text(encoding="utf-8"))["meta"]["benchmarks"]
    assert about["rb"] == "Preferences from rewards.jsonl." and str(folder) not in json.dumps(about)


def test_a_second_run_makes_nothing_anew_and_the_same_bytes(finished):
    folder, out, _ = finished
    parts = {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    bytes_of = {name: (out / name).read_bytes() for name in ("results.json", "items.parquet", "report.html")}
    run_benchmark(read_config(folder / "run.yaml"), out, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == parts
    assert {name: (out / name).read_bytes() for name in bytes_of} == bytes_of


# What a user reads where something is wrong


def run_main(monkeypatch, capsys, *arguments):
    """The exit code and all that is printed by ``arm-lens benchmark ...``."""
    monkeypatch.setattr(sys, "argv", ["arm-lens", "benchmark", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("judges: [length]\nstudys: []\n", ["run.yaml", "studys", "did you mean 'studies'"]),
        ("judges: [lenght]\nstudies: [{kind: world}]\n", ["no judge 'lenght'"]),
        (
            "judges: [{judge: sav, head: 3}]\nstudies: [{kind: world}]\n",
            ["'sav'", "no option 'head'", "heads"],
        ),
        ("judges: [length\n", ["run.yaml is not YAML"]),
        ("judges: [length]\nstudies: [{kind: preferences, name: mine, path: none.jsonl}]\n", ["none.jsonl"]),
    ],
)
def test_a_bad_config_is_told_without_a_traceback(tmp_path, monkeypatch, capsys, text, said):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    code, printed = run_main(monkeypatch, capsys, tmp_path / "run.yaml", "--out", tmp_path / "out", "--no-images")
    assert code == 1 and "Error:" in printed and "Traceback" not in printed
    for words in said:
        assert words in printed
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_config_that_is_no_file_is_told(tmp_path, monkeypatch, capsys, name):
    code, printed = run_main(monkeypatch, capsys, tmp_path / name, "--out", tmp_path / "out")
    assert code == 1 and "Error:" in printed and "Traceback" not in printed and str(tmp_path) in printed


def test_a_judge_that_fails_names_itself_and_what_was_finished_is_kept(tmp_path):
    rows = [{"prompt": f"Tell me {n}.", "response": f"It is {n}.", "label": n % 2 == 0} for n in range(12)]
    write_rows(tmp_path / "singles.jsonl", rows)
    failing = {"judge": "voting", "votes": 0}
    values = {"judges": ["length", "zero_shot", failing], "n_examples": [3],
              "studies": [{"kind": "preferences", "name": "mine", "path": "singles.jsonl", "pool": 4}]}  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(BenchmarkJudgeError, match=r"^voting on mine, all, n = 3, .*: voting needs at least one vote"):
        stopping = read_config(path).model_copy(update={"on_failure": "stop"})
        run_benchmark(stopping, tmp_path / "out", progress=False)
    kept = {one.name: one.stat().st_mtime_ns for one in (tmp_path / "out" / "parts").iterdir()}
    assert sorted(re.search(r"(length|zero_shot|voting)", name)[0] for name in kept) == ["length", "zero_shot"]
    path.write_text(yaml.safe_dump({**values, "judges": ["length", "zero_shot"]}), encoding="utf-8")
    results = run_benchmark(read_config(path), tmp_path / "out", progress=False)
    assert {one.name: one.stat().st_mtime_ns for one in (tmp_path / "out" / "parts").iterdir()} == kept
    assert set(results.items["benchmark"]) == {"mine"} and set(results.items["unit"]) == {"response"}


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("ranked_zero_shot", "compares two responses, but 'mine' has single ones"),
        (
            {"judge": "endpoint", "model": "m", "api_key_env": "NO_SUCH_KEY"},
            "variable NO_SUCH_KEY is not set",
        ),
        (
            {"judge": "endpoint", "model": "m", "api_key_env": None, "prices": [1.0]},
            "expected two prices, of a million prompt tokens and of a million completion tokens",
        ),
    ],
)
def test_what_can_be_known_before_is_refused_before_anything_runs(tmp_path, judge, message):
    rows = [{"prompt": f"Tell me {n}.", "response": f"It is {n}.", "label": n % 2 == 0} for n in range(12)]
    write_rows(tmp_path / "singles.jsonl", rows)
    values = {"judges": ["length", judge], "n_examples": [3],
              "studies": [{"kind": "preferences", "name": "mine", "path": "singles.jsonl", "pool": 4}]}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(BenchmarkConfigError, match=message):
        config = read_config(tmp_path / "run.yaml", allow_keys=["NO_SUCH_KEY=api.openai.com"])
        run_benchmark(config, tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_no_folder_of_this_machine_stands_in_the_results(tmp_path):
    write_rows(
        tmp_path / "pairs.jsonl", [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(9)]
    )
    values = {"judges": ["length"], "lead": "length", "n_examples": [2],
              "studies": [{"kind": "preferences", "name": "mine", "path": "pairs.jsonl", "pool": 3}]}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    run_benchmark(read_config(tmp_path / "run.yaml"), tmp_path / "out", progress=False)
    text = (tmp_path / "out" / "results.json").read_text(encoding="utf-8")
    assert "pairs.jsonl" in text and str(tmp_path) not in text


def test_a_wrong_kind_of_option_names_the_judge(tmp_path):
    values = {"judges": [{"judge": "voting_rationale", "votes": 0}], "test_items": 2,
              "studies": [{"kind": "world", "criteria": ["polite"]}]}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(BenchmarkJudgeError, match=r"voting_rationale on world, polite.*at least one vote"):
        run_benchmark(read_config(tmp_path / "run.yaml"), tmp_path / "out", progress=False)
