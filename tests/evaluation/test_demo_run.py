"""A small demonstration on the bundled model, from the command line, with its files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from arm_lens import ActivationRewardModel, HeadSet, JudgeTemplate, Reinforce, SoftGate, write_preferences
from arm_lens.cli import app
from arm_lens.evaluation import METHODS, DemoOptions, RunResults, judge_items, run_demo
from arm_lens.judge_model import labelled_responses

TINY = JudgeTemplate(header="", scalar="{prompt} {response}", cue=" verdict:", chat=False)
QUICK = DemoOptions(
    criteria=("polite", "brief"), seeds=(0,), test_items=40, random_sets=3, selector=Reinforce(steps=60, masks=16)
)


@pytest.fixture(scope="module")
def run(judge, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, options=QUICK, model=judge, progress=False)


def test_there_is_a_row_per_criterion_method_and_seed_with_n_and_an_interval(run):
    out, _ = run
    record = json.loads((out / "results.json").read_text())
    rows = pd.DataFrame(record["rows"])
    assert set(zip(rows.criterion, rows.method, rows.seed, strict=True)) == {
        (criterion, method, 0) for criterion in QUICK.criteria for method in METHODS
    }
    assert (rows.n == 40).all()
    assert ((rows.ci_low <= rows.accuracy) & (rows.accuracy <= rows.ci_high)).all()
    assert {"criterion", "method", "seed", "accuracy", "ci_low", "ci_high", "n", "heads"} <= set(rows.columns)


def test_accuracies_are_those_of_the_items(run):
    _, results = run
    for (criterion, method), items in results.items.groupby(["criterion", "method"]):
        row = results.rows[(results.rows.criterion == criterion) & (results.rows.method == method)].iloc[0]
        assert row.accuracy == pytest.approx(items.correct.mean())
        if method != "random_heads":
            assert (items.correct == ((items.gap > 0) == items.label)).all()


def test_steered_verdicts_are_those_of_the_saved_reward_models(run, judge):
    out, results = run
    test = labelled_responses("polite", 40, split="test", seed=1_000_000)
    fitted = ActivationRewardModel.load(out / "reward_models" / "polite-0", judge)
    for method, heads in {
        "reinforce": fitted.heads,
        "zero_shot": HeadSet.none(fitted.heads.n_layers, fitted.heads.n_heads),
        "all_heads": HeadSet.all(fitted.heads.n_layers, fitted.heads.n_heads),
    }.items():
        expected = fitted.with_heads(heads).score([one.prompt for one in test], [one.response for one in test])
        found = results.items[(results.items.criterion == "polite") & (results.items.method == method)].reward
        torch.testing.assert_close(torch.tensor(found.to_numpy()).float(), expected, atol=1e-5, rtol=1e-4)


def test_a_finished_part_is_not_run_again_and_a_missing_one_is(run, judge, monkeypatch):
    import shutil

    out, results = run
    fits = []
    original = ActivationRewardModel.fit

    def counted(*args, **options):
        fits.append(options["criterion"])
        return original(*args, **options)

    monkeypatch.setattr(ActivationRewardModel, "fit", counted)
    shutil.rmtree(out / "parts" / "brief-0")
    again = run_demo(out, options=QUICK, model=judge, progress=False)
    assert fits == ["brief"]
    assert again.rows.equals(results.rows)
    assert again.items.equals(results.items)


def test_other_options_are_not_taken_from_finished_parts(judge, tmp_path):
    small = DemoOptions(criteria=("polite",), seeds=(0,), test_items=20, random_sets=1, selector=Reinforce(steps=2))
    run_demo(tmp_path, options=small, model=judge, progress=False)
    other = DemoOptions(criteria=("polite",), seeds=(0,), test_items=24, random_sets=1, selector=Reinforce(steps=2))
    assert (run_demo(tmp_path, options=other, model=judge, progress=False).rows.n == 24).all()


def test_results_round_trip_through_their_folder(run):
    out, results = run
    loaded = RunResults.load(out)
    assert loaded.rows.to_dict("records") == results.rows[loaded.rows.columns].to_dict("records")
    assert loaded.items.equals(results.items)


def test_random_heads_have_as_many_heads_per_layer_as_were_chosen(judge):
    examples = labelled_responses("polite", 20, split="train", seed=0)
    fitted = ActivationRewardModel.fit(judge, examples, selector=HeadSet.of(6, 8, [(0, 0), (4, 1), (4, 2)]))
    _, rows = judge_items(fitted, examples[:10], examples, demonstrations=2, random_sets=2)
    by_method = rows.set_index("method")
    assert by_method.loc["random_heads", "n_heads"] == by_method.loc["reinforce", "n_heads"] == 3


def test_an_unknown_criterion_is_refused_by_name():
    with pytest.raises(ValueError, match="'kind'"):
        DemoOptions(criteria=("kind",))


# ------------------------------------------------------------------------------------------ command line


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_preferences(labelled_responses("polite", 40, split="train", seed=0), folder / "train.jsonl")
    write_preferences(labelled_responses("polite", 24, split="test", seed=1), folder / "test.csv")
    return folder


@pytest.fixture(scope="module")
def fitted_folder(files):
    out = files / "polite"
    said = invoke("fit", files / "train.jsonl", "--out", out, "--criterion", "polite", "--steps", "60")
    assert "heads: {L" in said
    return out


def test_a_fitted_reward_model_scores_a_file_from_the_command_line_and_goes_on_where_it_stopped(files, fitted_folder):
    out = files / "scores.jsonl"
    invoke("score", fitted_folder, files / "test.csv", "--out", out)
    whole = out.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    test = labelled_responses("polite", 24, split="test", seed=1)
    fitted = ActivationRewardModel.load(fitted_folder)
    expected = fitted.score([one.prompt for one in test], [one.response for one in test])
    torch.testing.assert_close(torch.tensor([row["reward"] for row in rows]), expected, atol=1e-5, rtol=1e-4)
    out.write_text("".join(line + "\n" for line in whole.splitlines()[:10]) + '{"id": "half a li')
    invoke("score", fitted_folder, files / "test.csv", "--out", out)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [row["id"] for row in rows]
    write_preferences(labelled_responses("polite", 3, split="test", seed=2), files / "other.csv")
    refused = CliRunner().invoke(app, ["score", str(fitted_folder), str(files / "other.csv"), "--out", str(out)])
    assert refused.exit_code != 0
    assert "other data" in refused.output


def test_a_reward_model_of_the_users_model_is_scored_on_a_given_device(model_of, files, tmp_path):
    examples = labelled_responses("polite", 12, split="train", seed=0)
    own = ActivationRewardModel.fit(model_of("llama"), examples, demonstrations=1, readings=2, selector=HeadSet.none(3, 4),
                                    template=TINY)  # fmt: skip
    own.save(tmp_path / "own")
    invoke("score", tmp_path / "own", files / "test.csv", "--out", tmp_path / "scores.jsonl", "--device", "cpu")
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 24


def test_errors_on_the_command_line_are_one_line_not_a_traceback(capsys, monkeypatch):
    from arm_lens.cli import main

    monkeypatch.setattr("sys.argv", ["arm-lens", "fit", "missing.jsonl", "--out", "x"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "missing.jsonl" in capsys.readouterr().out


def test_evaluate_writes_results_and_a_report(files, fitted_folder):
    out = files / "evaluation"
    said = invoke(
        "evaluate", fitted_folder, files / "test.csv", "--examples", files / "train.jsonl", "--out", out,
        "--random-draws", "2",
    )  # fmt: skip
    assert "reinforce" in said
    assert len(json.loads((out / "results.json").read_text())["rows"]) == len(METHODS)
    assert "<html" in (out / "report.html").read_text()


def test_the_demo_command_writes_what_it_promises(tmp_path):
    said = invoke("demo", "--out", tmp_path, "--seeds", "1", "--test-items", "20", "--criterion", "list")
    assert "zero_shot" in said
    assert (tmp_path / "results.json").is_file()
    assert (tmp_path / "report.html").is_file()
    assert ActivationRewardModel.load(tmp_path / "reward_models" / "list-0").heads


def test_a_score_file_without_a_response_names_the_row(files, fitted_folder):
    (files / "bad.csv").write_text("prompt,response\nhello,hi\nagain,\n")
    result = CliRunner().invoke(
        app, ["score", str(fitted_folder), str(files / "bad.csv"), "--out", str(files / "x.jsonl")]
    )
    assert result.exit_code != 0
    said = " ".join(result.output.replace("│", " ").split())
    assert "row 2: response is missing" in said


def test_a_reward_model_of_gates_is_judged_by_its_gates(judge):
    examples = labelled_responses("polite", 12, split="train", seed=0)
    test = labelled_responses("polite", 10, split="test", seed=1)
    fitted = ActivationRewardModel.fit(judge, examples, selector=SoftGate(steps=5), readings=4, demonstrations=2)
    assert not ((fitted.chosen > 0.9) | (fitted.chosen < 0.1)).any()  # far from a set
    items, _ = judge_items(fitted, test, examples, demonstrations=2, random_sets=1)
    expected = fitted.score([one.prompt for one in test], [one.response for one in test])
    found = items.loc[items["method"] == "reinforce", "reward"].to_numpy()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
