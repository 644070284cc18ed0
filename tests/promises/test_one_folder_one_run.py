"""A folder holds the results of one configuration; all that can be refused is refused before a model is loaded."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest

from arm_lens.benchmark import BenchmarkConfigError, BenchmarkResults, OtherRunError, judge_preferences, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import REWARD_MODELS, digest_of_files, remove_other_reward_models, store_in
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.controls import ConstantJudge, LengthJudge
from arm_lens.preferences import PreferenceDataError
from arm_lens.storage import DamagedFileError

WORLD = {"kind": "world", "criteria": ["polite"], "test_items": 6}
NO_MODEL = "a-model/that-is-nowhere"


def config_of(**values):
    return BenchmarkConfig.model_validate({"judges": ["length"], "studies": [WORLD], "n_examples": [4], **values})


@pytest.mark.slow
def test_another_configuration_is_refused_or_replaces_everything(tmp_path):
    first = run_benchmark(config_of(), tmp_path, progress=False)
    (tmp_path / "report.html").write_text("of the first run")
    (tmp_path / "figures").mkdir()
    for name in ("world-accuracy.svg", "world-accuracy.png", "mine.txt"):
        (tmp_path / "figures" / name).write_text("of the first run")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("of the first run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = run_benchmark(config_of(workers=1), tmp_path, progress=False)  # the same: nothing is replaced
    assert again.tables.summary.equals(first.tables.summary) and (tmp_path / "report.html").exists()
    other = config_of(judges=["length", "constant"], title="Another")
    with pytest.raises(OtherRunError, match=r"another configuration \(judges, title differ\); .*force=True"):
        run_benchmark(other, tmp_path, progress=False)
    assert {path: path.read_bytes() for path in before} == before
    run_benchmark(other, tmp_path, force=True, progress=False)
    assert set(BenchmarkResults.load(tmp_path).tables.summary["judge"]) == {"length", "constant"}
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "study" / "study.json").exists()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.txt"]


def rows_in(folder, word):
    folder.mkdir()
    rows = [{"prompt": f"p{n}", "chosen": f"{word} {n}", "rejected": f"{n}", "id": f"{n}"} for n in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = {"kind": "preferences", "name": "mine", "path": str(folder / "rows.jsonl"), "pool": 4}
    return config_of(studies=[study])


@pytest.mark.slow
def test_other_data_are_another_run_also_under_the_same_file_name(tmp_path):
    one, two = rows_in(tmp_path / "one", "warm"), rows_in(tmp_path / "two", "a cold")
    run_benchmark(one, tmp_path / "out", progress=False)
    before = (tmp_path / "out" / "results.json").read_bytes()
    with pytest.raises(OtherRunError, match=r"another configuration \(data differ\)"):
        run_benchmark(two, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "results.json").read_bytes() == before and str(tmp_path).encode() not in before


def results_with(judge):
    test = labelled_responses("polite", 4, split="test", seed=0)
    return judge_preferences({"judge": judge}, test)


def made_of_results(folder):
    """A page, figures and a study, as commands make them of results, and files of the user's own."""
    for name in ("report.html", "figures/a.svg", "figures/a.png", "study/study.json", "study/curve.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("made of results")
    for name in ("mine.txt", "figures/mine.png", "study/mine.csv"):
        (folder / name).write_text("mine")


def test_what_was_made_of_other_results_does_not_outlive_them(tmp_path):
    results_with(LengthJudge()).save(tmp_path)
    made_of_results(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    results_with(LengthJudge()).save(tmp_path)  # the same: all of it stays
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    results_with(ConstantJudge()).save(tmp_path)
    left = {path for path in before if path.exists() and path.read_bytes() == before[path]}
    assert {path.name for path in left} >= {"mine.txt", "mine.png", "mine.csv"}
    assert not {path.name for path in left} & {"report.html", "a.svg", "a.png", "study.json", "curve.parquet"}


def test_a_folder_with_a_summary_has_the_tables_of_the_same_results(tmp_path, monkeypatch):
    results_with(LengthJudge()).save(tmp_path)
    replace, left = os.replace, 3

    def full(*paths):
        nonlocal left
        left -= 1
        return replace(*paths) if left else (_ for _ in ()).throw(OSError(28, "No space left on device"))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        results_with(ConstantJudge()).save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        BenchmarkResults.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"meta": 3}', b'{"meta": {"config": 3}}', b"\xff", b"[" * 10**5]
)
def test_another_programs_summary_is_named_and_left_alone(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(OtherRunError, match=r"results\.json is damaged, or another program's file; .*force=True"):
        run_benchmark(config_of(model=NO_MODEL), tmp_path, progress=False)
    with pytest.raises(DamagedFileError, match=r"results\.json"):
        BenchmarkResults.load(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == content


def test_a_table_that_is_none_is_named(tmp_path):
    results_with(LengthJudge()).save(tmp_path)
    for path in [*(tmp_path / "tables").iterdir(), tmp_path / "items.parquet"]:
        content = path.read_bytes()
        path.write_bytes(b'{"a": "b"' + content[20:])
        if path.suffix in (".json", ".parquet"):
            with pytest.raises(DamagedFileError, match=tmp_path.name):
                BenchmarkResults.load(tmp_path)
        path.write_bytes(content)
    BenchmarkResults.load(tmp_path)


def test_reward_models_of_other_runs_are_deleted_and_the_users_own_are_not(tmp_path):
    store = store_in(tmp_path)
    for name in ("old", "kept", "mine"):
        (tmp_path / REWARD_MODELS / name).mkdir(parents=True)
        (tmp_path / REWARD_MODELS / name / "judge.json").write_text(name)
        about = {"reward_model": digest_of_files(tmp_path / REWARD_MODELS / name)}
        store.put_frame(name, pd.DataFrame({"a": [1]}), about=about if name != "mine" else {})
    remove_other_reward_models(tmp_path, {"kept"})
    assert {path.name for path in (tmp_path / REWARD_MODELS).iterdir()} == {"kept", "mine"}


@pytest.mark.slow
def test_results_of_given_judges_are_not_mixed_with_a_run(tmp_path):
    judge_preferences({"length": LengthJudge()}, labelled_responses("polite", 4, split="test", seed=0)).save(tmp_path)
    with pytest.raises(OtherRunError, match="judges that were given"):
        run_benchmark(config_of(), tmp_path, progress=False)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"judges": ["lenght"]}, BenchmarkConfigError, "no judge 'lenght'"),
        ({"judges": [{"judge": "arm", "selector": {"kind": "reinforce", "step": 1}}]}, BenchmarkConfigError, "step"),
        ({"studies": [{"kind": "preferences", "name": "x", "path": "nowhere.jsonl"}]}, FileNotFoundError, "nowhere"),
        (
            {"judges": ["ranked_zero_shot"], "studies": [WORLD | {"unit": "response"}]},
            BenchmarkConfigError,
            "single ones",
        ),
    ],
)
def test_judges_and_data_are_checked_before_a_model_is_loaded(tmp_path, values, error, said):
    with pytest.raises(error, match=said):
        run_benchmark(config_of(model=NO_MODEL, **values), tmp_path / "out", progress=False)


def test_rows_that_cannot_be_read_are_named_before_a_model_is_loaded(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": ""}) + "\n")
    study = {"kind": "preferences", "name": "x", "path": str(tmp_path / "x.jsonl"), "pool": 4}
    with pytest.raises(PreferenceDataError, match="rejected"):
        run_benchmark(config_of(model=NO_MODEL, studies=[study]), tmp_path / "out", progress=False)


def test_a_folder_that_cannot_be_written_to_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        run_benchmark(config_of(model=NO_MODEL), tmp_path / "file" / "out", progress=False)
