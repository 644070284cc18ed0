"""The kind of score that judges are judged by is chosen in one way, is part of what parts are found by, and is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import yaml
from promises.asking_support import CHATML, byte_level, saying
from sklearn.metrics import roc_auc_score

from arm_lens import GenerativeJudge, LabelledResponse, PreferencePair
from arm_lens.benchmark import BenchmarkConfigError, judge_preferences, read_config
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.judging import check_judges
from arm_lens.benchmark.parts import parts_of
from arm_lens.judges import fit_judge
from arm_lens.judges.controls import LengthJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.reports import write_report

EXAMPLES = [LabelledResponse(f"garden {i}", f"warm {i}", bool(i % 2)) for i in range(8)]
SINGLES = [LabelledResponse(f"reply {i}", f"it is {'No, ' * (i % 5)}{i}", bool(i % 3), id=f"r{i}") for i in range(12)]
PAIRS = [PreferencePair(f"what {i}?", f"Yes {i}", f"No, {i} not", id=f"p{i}") for i in range(6)]
KINDS = ("reward", "probability", "two_way", "gap")
WORLD = {"kind": "world", "criteria": ["polite"]}


@pytest.fixture(scope="module")
def model():
    return saying(byte_level(CHATML), context=1024)


@pytest.fixture(scope="module", params=("generative", "probe", "sav"))
def judge(request, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_judge(request.param, model, EXAMPLES, reading=ReadingOptions(demonstrations=0, readings=4))


@pytest.mark.tl4
@pytest.mark.filterwarnings("ignore")
def test_everything_that_depends_on_the_kind_is_counted_again_by_hand(judge):
    for kind in (one for one in KINDS if one in judge.score_kinds):
        results = judge_preferences({"mine": judge}, [*PAIRS, *SINGLES], score_kind=kind)
        rows = {unit: rows.set_index("item") for unit, rows in results.items.groupby("unit")}

        def score(ones, side, kind=kind):
            return (
                judge.score([one.prompt for one in ones], [getattr(one, side) for one in ones], kind=kind)
                .double()
                .numpy()
            )

        rewards, labels = score(SINGLES, "response"), np.array([one.label for one in SINGLES])
        own = rows["response"].loc[[one.id for one in SINGLES]]
        np.testing.assert_allclose(own["reward"], rewards, atol=1e-6)
        threshold = 0.0 if kind == "gap" and judge.log_odds else 0.5
        assert own["correct"].tolist() == np.where(rewards == threshold, 0.5, (rewards > threshold) == labels).tolist()
        probabilities = score(SINGLES, "response", "two_way") if kind == "gap" and judge.log_odds else rewards
        np.testing.assert_allclose(own["probability"], probabilities, atol=1e-6)
        summary = results.tables.summary.set_index("unit")
        assert summary.loc["response", "auc"] == pytest.approx(roc_auc_score(labels, rewards))
        assert summary.loc["response", "brier"] == pytest.approx(np.mean((probabilities - labels) ** 2))
        margins = score(PAIRS, "chosen") - score(PAIRS, "rejected")
        pairs = rows["pair"].loc[[one.id for one in PAIRS]]
        np.testing.assert_allclose(pairs["reward"], margins, rtol=2e-6, atol=1e-6)  # of the order of 10, in float32
        assert pairs["probability"].notna().all() == (kind == "gap" and judge.log_odds)
        assert set(results.fits["score_kind"]) == {kind} and results.meta["score_kinds"] == {kind: {"test": ["mine"]}}


@pytest.mark.tl4
@pytest.mark.filterwarnings("ignore")
def test_the_page_says_which_kind(model, tmp_path):
    judges = {"asked": GenerativeJudge(model), "long": LengthJudge()}
    page = write_report(judge_preferences(judges, [*PAIRS, *SINGLES], score_kind="gap"), tmp_path).read_text()
    assert "scores of the kind <code>gap</code>" in " ".join(page.split())
    assert "scores of the kind" not in write_report(judge_preferences(judges, PAIRS), tmp_path).read_text()


@pytest.mark.tl4
def test_judges_refuse_kinds_that_they_do_not_give_by_name_before_anything_is_judged(model):
    ranked = GenerativeJudge(model, question=QuestionOptions(layout="ranked"))
    for judges, kind in (({"mine": LengthJudge()}, "two_way"), ({"mine": ranked}, "probability")):
        with pytest.raises(ValueError, match=rf"the judge 'mine' gives scores of the kinds .*'gap', not '{kind}'"):
            judge_preferences(judges, PAIRS, score_kind=kind)
    results = judge_preferences({"mine": ranked}, PAIRS, score_kind="gap")
    assert results.meta["score_kinds"] == {"gap": {"test": ["mine"]}}


def config(**values):
    return {"judges": ["zero_shot", "probe"], "lead": "probe", "studies": [WORLD], **values}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (config(judges=["probe", "sav"], score_kind="two_way"), ["score_kind", "'sav'", "'reward', 'gap'"]),
        (
            config(judges=["probe", {"judge": "length", "score_kind": "probability"}]),
            ["judges.1.score_kind", "'length'"],
        ),
        (
            config(studies=[{**WORLD, "score_kind": "two_way", "judges": ["probe", "ranked_zero_shot"]}]),
            ["studies.0.score_kind", "'ranked_zero_shot'", "'gap'"],
        ),
        (config(score_kind="logit"), ["score_kind", "'two_way'"]),
    ],
)
def test_a_configuration_with_a_wrong_kind_is_refused_with_line_and_judge(tmp_path, values, said):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(BenchmarkConfigError) as error:
        read_config(tmp_path / "run.yaml")
    assert all(one in str(error.value) for one in said), error.value


def test_a_configuration_that_was_not_read_from_a_file_is_checked_too():
    with pytest.raises(BenchmarkConfigError, match="the judge 'sav' gives scores of the kinds"):
        check_judges(BenchmarkConfig.model_validate(config(judges=["probe", "sav"], score_kind="two_way")))


def test_the_nearest_kind_counts_and_parts_of_another_kind_are_other_parts():
    def parts(**values):
        return parts_of(BenchmarkConfig.model_validate(config(**values)), "weights")

    mixed = parts(
        score_kind="two_way",
        judges=["probe", {"judge": "zero_shot", "score_kind": "gap"}],
        studies=[WORLD, {**WORLD, "name": "other", "score_kind": "probability"}],
    )
    kinds = {(part.task.study, part.choice.label): part.choice.score_kind for part in mixed}
    assert kinds == {
        ("world", "probe"): "two_way", ("other", "probe"): "probability",
        ("world", "zero_shot"): "gap", ("other", "zero_shot"): "gap",
    }  # fmt: skip
    digests = [{part.digest for part in parts(score_kind=kind)} for kind in (None, *KINDS)]
    assert len(set.union(*digests)) == sum(map(len, digests))
