"""Judges that are there already: `judge_preferences`, `controls_of`, and the commands that fit and evaluate."""

from __future__ import annotations

import inspect
import json
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from arm_lens import ActivationRewardModel, LabelledResponse, PreferencePair, write_preferences
from arm_lens.benchmark import DEMONSTRATION_IMAGES, BenchmarkResults, controls_of, judge_preferences, read_config
from arm_lens.cli import app, main
from arm_lens.judge_model import labelled_responses, preference_pairs
from arm_lens.judges.controls import ConstantJudge, LengthJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.preferences.types import responses_of
from arm_lens.reports import write_report
from arm_lens.selection import Reinforce

pytestmark = pytest.mark.slow

CONTROLS = ["zero_shot", "few_shot", "arm_all_heads", "arm_random_heads", "zero_shot_threshold", "arm_calibrated"]


class Exclamations:
    """Somebody's own judge, which knows nothing of ours."""

    def score(self, prompts, responses):
        return [response.count("!") for response in responses]


@pytest.fixture(scope="module")
def examples():
    return labelled_responses("polite", 20, split="train", seed=0)


@pytest.fixture(scope="module")
def reward(judge, examples):
    return ActivationRewardModel.fit(
        judge, examples, question=QuestionOptions(batch_size=5), reading=ReadingOptions(readings=8, demonstrations=2),
        selector=Reinforce(steps=5, threshold=0.3),
    )  # fmt: skip


def items_of(results, judge, unit):
    items = results.items
    return items[(items["judge"] == judge) & (items["unit"] == unit)].reset_index(drop=True)


def test_what_is_no_judge_and_no_preference_is_named_at_once():
    compare = inspect.unwrap(judge_preferences)  # without the tests' check of types
    test, judge = labelled_responses("polite", 4, split="test", seed=1), LengthJudge()
    with pytest.raises(TypeError, match="judges are given by their names"):
        compare([judge], test)
    with pytest.raises(TypeError, match=r"the judge 'mine' has no method score\(prompts, responses\): 'r'"):
        compare({"mine": "reward"}, test)
    with pytest.raises(TypeError, match=r"'t' is not a PreferencePair .* \(a path, too, is given to it first\)"):
        inspect.unwrap(responses_of)("test.csv"[0])


def test_single_responses_are_judged_by_their_rewards(reward):
    test = labelled_responses("polite", 12, split="test", seed=1)
    results = judge_preferences({"mine": reward, "length": LengthJudge()}, test, benchmark="replies")
    own = items_of(results, "mine", "response")
    expected = reward.score([one.prompt for one in test], [one.response for one in test], kind="two_way").numpy()
    np.testing.assert_allclose(own["reward"], expected, atol=1e-6)
    labels = np.array([one.label for one in test])
    assert own["correct"].mean() == pytest.approx(((expected > 0.5) == labels).mean())
    summary = results.tables.summary.set_index("judge")
    assert summary.loc["mine", "accuracy"] == pytest.approx(own["correct"].mean()) and set(summary["n"]) == {12}
    assert results.meta["lead"] == "mine" and set(results.items["benchmark"]) == {"replies"}
    assert results.of_lead("heads")["selected"].sum() == len(reward.heads)


def test_pairs_are_judged_by_margins_and_their_responses_one_by_one(reward):
    test = preference_pairs("polite", 6, split="test", seed=1)
    results = judge_preferences({"mine": reward, "same": ConstantJudge()}, test)
    margins = reward.margins([one.prompt for one in test], [one.chosen for one in test], [one.rejected for one in test])
    np.testing.assert_allclose(items_of(results, "mine", "pair")["reward"], margins.numpy(), atol=1e-4)
    assert (items_of(results, "same", "pair")["correct"] == 0.5).all()
    assert set(results.items["benchmark"]) == {"test", "test verdicts"}


def test_anybodys_judge_is_compared_and_cut_at_its_median():
    replies = ["no", "yes!", "no", "yes!!"]
    test = [PreferencePair("Really?", good, bad, id=f"{n}") for n, (good, bad) in enumerate(
        zip(replies[1::2], replies[::2], strict=True))]  # fmt: skip
    results = judge_preferences({"loud": Exclamations(), "length": LengthJudge()}, test, lead="length")
    assert (items_of(results, "loud", "pair")["correct"] == 1).all()
    assert (items_of(results, "loud", "response")["correct"] == 1).all()
    assert results.meta["lead"] == "length"


def test_several_judges_of_one_name_are_seeds_and_ids_are_made_to_differ():
    test = labelled_responses("polite", 4, split="test", seed=1)
    twice = [*test, *test]
    results = judge_preferences({"several": [LengthJudge(), LengthJudge(shorter=True)]}, twice)
    own = results.tables.summary.iloc[0]
    assert (own["n_seeds"], own["n"], own["accuracy"]) == (2, 8, 0.5)
    assert results.items["item"].nunique() == 8


def test_nothing_to_compare_is_refused():
    for judges, test in (({}, labelled_responses("polite", 2, split="test", seed=1)), ({"a": LengthJudge()}, [])):
        with pytest.raises(ValueError, match="at least one judge and one preference"):
            judge_preferences(judges, test)


def test_controls_share_all_but_the_heads(reward, examples):
    controls = controls_of(reward, examples, random_sets=3)
    assert list(controls) == CONTROLS
    sets = [one.heads for one in controls["arm_random_heads"]]
    assert all((one.mask.sum(dim=1) == reward.heads.mask.sum(dim=1)).all() for one in sets)
    assert len({str(one) for one in sets}) > 1
    for one in [controls["arm_all_heads"], *controls["arm_random_heads"]]:
        assert torch.equal(one.means.values, reward.means.values)
    assert bool(controls["arm_all_heads"].heads.mask.all())


# Commands


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_preferences(labelled_responses("polite", 20, split="train", seed=0), folder / "train.jsonl")
    write_preferences(labelled_responses("polite", 10, split="test", seed=1), folder / "test.csv")
    return folder


@pytest.fixture(scope="module")
def fitted(files):
    out = files / "polite"
    said = invoke(
        "fit",
        files / "train.jsonl",
        "--out",
        out,
        "--criterion",
        "polite",
        "--selector-option",
        "steps=5",
        "--demonstrations",
        2,
    )
    assert "heads: {" in said or "0 heads" in said
    return out


def test_evaluate_writes_results_and_a_page(files, fitted, tmp_path):
    test, train = files / "test.csv", files / "train.jsonl"
    said = invoke("evaluate", fitted, test, "--examples", train, "--out", tmp_path, "--random-sets", 2)
    assert "reward_model" in said and "report.html" in said.replace("\n", "")
    results = BenchmarkResults.load(tmp_path)
    assert list(results.tables.summary["judge"]) == ["reward_model", *CONTROLS]
    assert results.meta["lead"] == "reward_model" and set(results.tables.summary["benchmark"]) == {"polite"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        "Reward model: polite" in page and write_report(results, tmp_path / "again").read_text(encoding="utf-8") == page
    )


def test_the_demo_command_writes_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # else two processes would import everything for one reward model
    out, asked = tmp_path / "out", ("--seeds", "1", "--test-items", "20", "--criterion", "list")
    said = invoke("demo", "--out", out, *asked)
    assert "zero_shot" in said and "list" in said
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["n"] for row in rows} == {20} and {row["subset"] for row in rows} == {"list"}
    assert ActivationRewardModel.load(out / "reward_models" / "list-0").heads
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "arm-lens demo" in page and "pictures/report.html" not in page and not (out / "pictures").exists()

    quick = read_config(DEMONSTRATION_IMAGES).model_dump(exclude_unset=True) | {"n_examples": [8], "readings": 4}
    quick["judges"] = ["zero_shot", {"judge": "arm_reinforce", "selector": {"kind": "reinforce", "steps": 5}}]
    quick["studies"][0]["criteria"] = ["polite"]
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(quick), encoding="utf-8")
    monkeypatch.setattr("arm_lens.benchmark.DEMONSTRATION_IMAGES", tmp_path / "quick.yaml")
    parts = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    said = invoke("demo", "--out", out, *asked, "--pictures")  # the texts are there already
    assert "polite" in said and "list" in said
    assert parts == {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    rows = json.loads((out / "pictures" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["n"] for row in rows} == {20} and {row["subset"] for row in rows} == {"polite"}
    (link,) = re.findall(r'href="(pictures/[^"]+)"', (out / "report.html").read_text(encoding="utf-8"))
    assert "arm_lens image judge" in (out / link).read_text(encoding="utf-8")


def test_pictures_without_pillow_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("arm_lens.cli.commands.find_spec", lambda name: None)
    found = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--pictures"])
    assert found.exit_code == 2 and "Pillow" in found.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "missing.jsonl", "--out", "x"], 1, "missing.jsonl"),
        (["demo", "--out", "x", "--criterion", "kind"], 2, "--criterion kind: there are answers"),
    ],
)
def test_errors_on_the_command_line_are_short_and_no_traceback(capsys, monkeypatch, tmp_path, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["arm-lens", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr().err
    assert stopped.value.code == code and "Traceback" not in printed
    assert said in " ".join(printed.replace("│", "").split())


def test_ids_that_are_missing_or_repeated_are_numbered_without_meeting_others():
    ids = ["a", "a", "a 1", "", "item 3", "a 0"]
    test = [LabelledResponse("q", f"r{number}", bool(number % 2), id=id) for number, id in enumerate(ids)]
    items = judge_preferences({"length": LengthJudge()}, test).items["item"].tolist()
    assert len(set(items)) == 6 and items[2] == "a 1" and items[4] == "item 3" and items[5] == "a 0"


def test_a_judge_that_is_an_empty_list_is_named():
    with pytest.raises(ValueError, match="the judge 'a' is an empty list"):
        judge_preferences({"a": [], "length": LengthJudge()}, [LabelledResponse("q", "r", True)])


def test_a_lead_that_is_no_judge_is_refused():
    with pytest.raises(ValueError, match="lead is 'lenn', but no judge is called that; there are 'length'"):
        judge_preferences({"length": LengthJudge()}, [LabelledResponse("q", "r", True)], lead="lenn")


def test_a_scorer_that_tracks_gradients_is_a_judge_as_any_other():
    class Scorer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def score(self, prompts, responses):
            return self.weight * torch.tensor([float(len(one)) for one in responses])

    test = [LabelledResponse("q", "r" * number, number > 2) for number in range(1, 5)]
    results = judge_preferences({"own": Scorer(), "length": LengthJudge()}, test)
    accuracies = results.tables.summary.set_index("judge")["accuracy"]
    assert accuracies["own"] == accuracies["length"]
