"""A folder holds the results of one configuration; all that can be refused is refused before a model is loaded."""

from __future__ import annotations

import json

import pytest

from arm_lens.benchmark import BenchmarkConfigError, BenchmarkResults, OtherRunError, judge_preferences, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.controls import LengthJudge
from arm_lens.preferences import PreferenceDataError

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
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = run_benchmark(config_of(workers=1), tmp_path, progress=False)  # the same: nothing is replaced
    assert again.tables.summary.equals(first.tables.summary) and (tmp_path / "report.html").exists()
    other = config_of(judges=["length", "constant"], title="Another")
    with pytest.raises(
        OtherRunError, match=r"another configuration \(judges, title differ\); .*force=True \(--force\)"
    ):
        run_benchmark(other, tmp_path, progress=False)
    assert {path: path.read_bytes() for path in before} == before
    run_benchmark(other, tmp_path, force=True, progress=False)
    assert set(BenchmarkResults.load(tmp_path).tables.summary["judge"]) == {"length", "constant"}
    assert not (tmp_path / "report.html").exists()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.txt"]


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
