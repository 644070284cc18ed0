"""What makes a result worth little is said in the results, on the page and by the command line."""

from __future__ import annotations

import pytest

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, JudgeTemplate, LabelledResponse
from arm_lens.benchmark import BenchmarkResults, judge_preferences
from arm_lens.cli.output import finish, show_standings
from arm_lens.judges.controls import LengthJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.verdict_mass import VerdictMassWarning
from arm_lens.judges.voting import VotingJudge
from arm_lens.reward.model import FitWarning

pytestmark = pytest.mark.slow
TEMPLATE = JudgeTemplate(
    header="",
    scalar="request: {prompt} reply: it is {response} .",
    cue=" verdict:",
    yes=("yes",),
    no=("no",),
    chat=False,
)
QUESTION = QuestionOptions(template=TEMPLATE)
WORDS = ["garden", "river", "mill", "church", "hotel", "farm"]
TEST = [LabelledResponse(word, word, number % 2 == 0, id=word) for number, word in enumerate(WORDS)]


def signs(results: BenchmarkResults, name: str) -> list[str]:
    return next(check.found for check in results.checks if check.name == name)


def test_a_model_that_would_write_something_else_is_named_with_what_it_would_write(model_of, tmp_path, capsys):
    judge = GenerativeJudge(model_of(), question=QUESTION)
    voting = VotingJudge(GenerativeJudge(model_of(), question=QUESTION), votes=2)
    with pytest.warns(VerdictMassWarning) as caught:
        results = judge_preferences({"asked": judge, "voting": voting, "length": LengthJudge()}, TEST)
    (warned,) = caught  # one for all judges, which it names
    assert warned.filename == __file__ and "test, asked: all (0.0" in str(warned.message)
    assert "test, voting: all (0.0" in str(warned.message) and "length" not in str(warned.message)
    with pytest.warns(VerdictMassWarning, match="on average over 6 questions"):  # nobody else says so
        scores = judge.verdicts([one.prompt for one in TEST], [one.response for one in TEST])
    fits = results.fits.set_index("judge")
    assert fits.loc["asked", "verdict_mass"] == pytest.approx(float(scores.mass.mean()), rel=1e-4)
    assert fits.loc["voting", "verdict_mass"] == pytest.approx(fits.loc["asked", "verdict_mass"], rel=1e-4)
    assert "length" not in fits.index and float(scores.mass.mean()) < 0.1
    asked, voted = signs(results, "Would rather not give a verdict")
    token, share = scores.preferred[0]
    assert asked.startswith(f"test, asked: all ({float(scores.mass.mean()):.2g}, rather {token!r} ({share:.0%})")
    assert voted.startswith("test, voting: all")
    results.save(tmp_path)
    finish(BenchmarkResults.load(tmp_path), tmp_path, show_standings)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Would rather not give a verdict" in printed and repr(token) in printed
    assert "Would rather not give a verdict" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_judge_that_gives_verdicts_is_not(judge):
    results = judge_preferences({"asked": GenerativeJudge(judge)}, TEST)
    assert results.fits["verdict_mass"].item() > 0.9 and signs(results, "Would rather not give a verdict") == []


@pytest.mark.filterwarnings("ignore::arm_lens.judges.verdict_mass.VerdictMassWarning")
def test_a_fit_without_a_name_and_without_heads_says_so_on_the_page(model_of, tmp_path):
    model = model_of()
    examples = [LabelledResponse("warm", word, number % 2 == 0) for number, word in enumerate(WORDS)]
    reading = ReadingOptions(demonstrations=1, readings=2)
    none = HeadSet.none(3, 4)
    with pytest.warns(FitWarning, match="criterion has no name"):
        reward = ActivationRewardModel.fit(model, examples, question=QUESTION, reading=reading, selector=none)
    results = judge_preferences({"mine": reward}, TEST)
    assert signs(results, "No head selected") == ["test, mine: all (in 1 of 1 fits)"]
    (warned,) = signs(results, "Warned of while fitting")
    assert warned.startswith("test, mine: all (the criterion has no name")


def test_one_label_only_is_said_and_has_no_auc(tmp_path):
    same = [LabelledResponse(word, word * number, True, id=word) for number, word in enumerate(WORDS, start=1)]
    results = judge_preferences({"length": LengthJudge()}, same)
    assert signs(results, "One label only in the test") == ["test, every judge: all (all True)"]
    assert results.tables.summary["auc"].isna().all()
    mixed = judge_preferences({"length": LengthJudge()}, TEST)
    assert signs(mixed, "One label only in the test") == []
    row = mixed.tables.summary.iloc[0]
    assert 0 <= row["auc_low"] <= row["auc"] <= row["auc_high"] <= 1
