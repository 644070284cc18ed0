"""Nothing is judged with its own answer in sight: every door finds what was fitted, chosen on or demonstrated in a test."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from arm_lens import ActivationRewardModel, GenerativeJudge, LabelledResponse
from arm_lens.benchmark import DEMO, DEMONSTRATION, BenchmarkResults, controls_of, judge_preferences, read_config
from arm_lens.benchmark.data import plan
from arm_lens.cli import app
from arm_lens.heads import HeadSet
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.controls import LengthJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.voting import VotingJudge
from arm_lens.preferences import OverlapError, OverlapWarning, find_overlap, write_preferences
from arm_lens.preferences.overlap import known_among, text_digests
from arm_lens.reports import write_report
from arm_lens.selection import Reinforce
from arm_lens.study import study_heads


def spaced(example: LabelledResponse) -> LabelledResponse:
    """The same text to a reader, with another label and other white space."""
    return LabelledResponse(f"  {example.prompt}", example.response.replace(" ", "\n"), not example.label, id="again")


def test_texts_are_recognised_by_digests_whatever_the_white_space():
    examples = labelled_responses("polite", 8, split="train", seed=0)
    others = labelled_responses("polite", 8, split="test", seed=1)
    digests = text_digests(examples)
    assert known_among([*others, spaced(examples[3])], digests) == ("again",)
    assert known_among(others, digests) == () and known_among(examples, ()) == ()
    assert len(known_among(examples, digests)) == 8 and all(len(one) == 16 for one in digests)
    assert known_among([LabelledResponse("", "a", True)], text_digests([LabelledResponse("", "a", False)])) == (
        "test item 1",
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", [DEMO, DEMONSTRATION])
def test_no_task_of_the_bundled_configurations_tests_an_example(path):
    tasks = plan(read_config(path))
    assert tasks and not any(find_overlap(one.examples, [item.example for item in one.test.items]) for one in tasks)


@pytest.fixture(scope="module")
def examples():
    return labelled_responses("polite", 20, split="train", seed=0)


@pytest.fixture(scope="module")
def reward(judge, examples):
    return ActivationRewardModel.fit(
        judge, examples, criterion="polite", question=QuestionOptions(batch_size=5),
        reading=ReadingOptions(readings=8, demonstrations=2), selector=Reinforce(steps=3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def test():
    return labelled_responses("polite", 8, split="test", seed=1)


@pytest.mark.slow
@pytest.mark.tl4
def test_a_reward_model_recognises_what_it_was_fitted_on_also_from_disk(reward, examples, test, judge, tmp_path):
    loaded = ActivationRewardModel.load(reward.save(tmp_path / "polite"), judge)
    for one in (reward, loaded, reward.with_heads(HeadSet.all(reward.heads.n_layers, reward.heads.n_heads))):
        assert one.fitted_among([*test, spaced(examples[5])]) == ("again",)


@pytest.mark.slow
@pytest.mark.tl4
@pytest.mark.parametrize("kind", [SparseAttentionVectors, HeadProbe, VotingJudge])
def test_every_judge_that_learns_recognises_its_examples(kind, judge, examples, test, tmp_path):
    options = {"reading": ReadingOptions(demonstrations=20)} if kind is VotingJudge else {}
    fitted = kind.fit(judge, examples, **options)
    for one in (fitted, kind.load(fitted.save(tmp_path / "judge"), judge)):
        assert one.fitted_among([*test, spaced(examples[5])]) == ("again",)
        with pytest.raises(OverlapError, match="mine was fitted on 1 of the 9 test items: again"):
            judge_preferences({"mine": one}, [*test, spaced(examples[5])])


@pytest.mark.slow
@pytest.mark.tl4
def test_heads_chosen_on_examples_that_are_read_are_noted(judge, examples):
    options = {"question": QuestionOptions(batch_size=5), "reading": ReadingOptions(readings=4, demonstrations=1)}
    options |= {"selector": Reinforce(steps=1), "criterion": "polite"}
    with pytest.warns(UserWarning, match="heads are chosen on examples that are also read: again in the validation"):
        fitted = ActivationRewardModel.fit(
            judge, examples[:12], validation=[*examples[12:], spaced(examples[0])], **options
        )
    assert any("also read" in note for note in fitted.record.notes)
    assert fitted.fitted_among(examples[12:14]) == tuple(one.id for one in examples[12:14])


@pytest.mark.slow
@pytest.mark.tl4
def test_a_test_with_fitted_items_is_refused_or_named_on_the_page(reward, examples, test, tmp_path):
    mixed = [*test, spaced(examples[0])]
    with pytest.raises(OverlapError, match=r"mine was fitted on 1 of the 9 test items: again; .*on_overlap='warn'"):
        judge_preferences({"mine": reward}, mixed)
    with pytest.raises(OverlapError, match="1 of the test's responses are also among the examples"):
        judge_preferences({"length": LengthJudge()}, mixed, examples=examples)
    with pytest.warns(OverlapWarning, match="mine was fitted on 1"):
        results = judge_preferences({"mine": reward}, mixed, on_overlap="warn")
    results.save(tmp_path)
    page = write_report(BenchmarkResults.load(tmp_path), tmp_path).read_text(encoding="utf-8")
    assert "Tested on what it was fitted on" in page and "1 of the 9 test items: again" in page
    clean = judge_preferences({"mine": reward}, test, examples=examples)
    assert next(one for one in clean.checks if one.name == "Tested on what it was fitted on").found == []
    (fitted,) = clean.fits["fit_accuracy"]
    rewards = reward.score([one.prompt for one in examples], [one.response for one in examples], kind="two_way")
    assert fitted == pytest.approx(((rewards.numpy() > 0.5) == [one.label for one in examples]).mean())


@pytest.mark.slow
@pytest.mark.tl4
def test_no_control_has_a_test_item_among_its_demonstrations(reward, examples, test, judge):
    mixed = [*test, *map(spaced, examples[:15])]
    few_shot = controls_of(reward, examples, test=mixed, random_sets=1)["few_shot"]
    assert few_shot.demonstrations and few_shot.fitted_among(mixed) == ()
    assert len(few_shot.fitted_among(examples)) == len(few_shot.demonstrations)
    with pytest.raises(OverlapError, match="every example is in the test"):
        controls_of(reward, examples, test=examples)
    shows = GenerativeJudge(judge, examples=[examples[0]])
    with pytest.raises(OverlapError, match="few_shot was fitted on 1 of the"):
        judge_preferences({"few_shot": shows}, [*test, spaced(examples[0])])


@pytest.mark.slow
@pytest.mark.tl4
def test_attribution_on_fitted_examples_is_warned_of_and_a_study_of_them_refused(reward, examples, test):
    with pytest.warns(OverlapWarning, match="was fitted on 1 of these 9 examples"):
        reward.objective([*test, spaced(examples[0])])
    with pytest.raises(OverlapError, match="'polite' was fitted on 20 of the 20 examples"):
        study_heads({"polite": reward}, {"polite": examples})


@pytest.mark.slow
@pytest.mark.tl4
def test_evaluate_refuses_fitted_items_or_names_them_and_reports_both_accuracies(reward, examples, test, tmp_path):
    write_preferences(examples, tmp_path / "train.jsonl")
    write_preferences([*test, spaced(examples[0])], tmp_path / "mixed.jsonl")
    reward.save(tmp_path / "polite")
    command = ["evaluate", tmp_path / "polite", tmp_path / "mixed.jsonl", "--examples", tmp_path / "train.jsonl"]
    command += ["--out", tmp_path / "out", "--random-sets", "1"]
    refused = CliRunner().invoke(app, list(map(str, command)))
    assert isinstance(refused.exception, OverlapError) and "reward_model was fitted on 1 of the 9" in str(
        refused.exception
    )
    with pytest.warns(OverlapWarning):
        allowed = CliRunner().invoke(app, [*map(str, command), "--allow-overlap"])
    assert allowed.exit_code == 0, allowed.output
    assert "Tested on what it was fitted on" in allowed.output and "AUC" in allowed.output
    results = BenchmarkResults.load(tmp_path / "out")
    assert results.fits.set_index("judge").loc["reward_model", "fit_accuracy"] >= 0
    assert any(one.found for one in results.checks if one.name == "Tested on what it was fitted on")
