"""Corrected thresholds against raw Hugging Face logits, and the fitted offset against two other ways to compute it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

import arm_lens
from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, LabelledResponse, PreferencePair, QuestionOptions
from arm_lens.judges import ArtefactError, CalibratedJudge, fit_judge, load_judge
from arm_lens.judges.calibrated import fitted_threshold
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import JUDGES
from arm_lens.storage import digest_of

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",),
    ranked="request: {prompt} reply: {response_a} reply: {response_b}", first=("warm",), second=("cold",),
)  # fmt: skip
QUESTION = QuestionOptions(template=TEMPLATE)
WORDS = ["garden", "river", "mill", "church", "hotel", "farm", "market"]
EXAMPLES = [LabelledResponse(f"the {one}", f"the {one} is warm", number % 3 != 0, id=one)
            for number, one in enumerate(WORDS)]  # fmt: skip
LABELS = np.array([one.label for one in EXAMPLES])
PROMPTS, A, B = ["the school", "the bridge", "the market"], ["it is warm"] * 3, ["cold", "so cold .", "it is cold"]
CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}verdict :{% endif %}"


@pytest.fixture(scope="module")
def model(model_of):
    return model_of("llama")


@pytest.fixture(scope="module")
def raw(raw_of, tokenizer):
    """raw(text): the log-probabilities of yes and no after a text, from the Hugging Face model in float64."""
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])

    def logs(text):
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        with torch.no_grad():
            found = raw_of("llama")(torch.tensor([tokens])).logits[0, -1].log_softmax(dim=-1)
        return float(found[yes]), float(found[no])

    return logs


def asked(prompt, response, demonstrations=()):
    """The whole text of a question, written by hand."""
    shown = [f"request: {one.prompt} reply: {one.response} verdict: {'yes' if one.label else 'no'}\n\n"
             for one in demonstrations]  # fmt: skip
    return "".join(shown) + f"request: {prompt} reply: {response} verdict:"


def best_offset(gaps, labels):
    """The maximum of the likelihood, by search."""
    sign = np.where(labels, 1, -1)
    found = minimize_scalar(lambda b: -log_expit(sign * (gaps - b)).mean(), bounds=(-60, 60), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    return found.x


# The offset


@pytest.mark.parametrize("seed", range(5))
def test_the_offset_maximises_the_likelihood(seed):
    random = np.random.default_rng(seed)
    gaps, labels = 3 * random.normal(size=12) + 7, np.arange(12) < 3 + seed
    offset = fitted_threshold(gaps, labels)
    assert offset == pytest.approx(best_offset(gaps, labels), abs=1e-5)
    logit = sm.GLM(labels.astype(float), np.ones(12), family=sm.families.Binomial(), offset=gaps).fit()
    assert offset == pytest.approx(-logit.params[0], abs=1e-6)
    assert expit(gaps - offset).mean() == pytest.approx(labels.mean())
    assert fitted_threshold(gaps + 100, labels) == pytest.approx(offset + 100)
    assert fitted_threshold(-gaps, ~labels) == pytest.approx(-offset)


@pytest.mark.parametrize("distance", [0.5, 30.0, 3000.0])
def test_examples_that_a_threshold_separates_have_it_in_the_middle(distance):
    assert fitted_threshold(np.array([5.0, 5.0 + distance]), np.array([False, True])) == pytest.approx(5 + distance / 2)


def test_examples_of_one_kind_have_no_threshold():
    with pytest.raises(ValueError, match="of both kinds; all 2 are of one"):
        fitted_threshold(np.array([1.0, 2.0]), np.array([True, True]))


# Against raw logits


def gaps_of(logs):
    return np.array([yes - no for yes, no in logs])


def compare(judge, raw, offset, demonstrations=()):
    """A judge's scores of every kind are those of raw logits and an offset."""
    logs = [raw(asked(prompt, response, demonstrations)) for prompt, response in zip(PROMPTS, B, strict=True)]
    gaps, mass = gaps_of(logs) - offset, np.exp(logs).sum(axis=1)
    assert judge.offset == pytest.approx(offset, abs=1e-4)
    for kind, expected in {"gap": gaps, "two_way": expit(gaps), "reward": mass * expit(gaps)}.items():
        np.testing.assert_allclose(judge.score(PROMPTS, B, kind=kind), expected, atol=1e-4)
    assert judge.verdict_mass.mean == pytest.approx(mass.mean(), abs=1e-4)


def test_a_threshold_is_fitted_to_the_examples(model, raw):
    judge = CalibratedJudge.fit(model, EXAMPLES, question=QUESTION, reading=ReadingOptions(demonstrations=0))
    gaps = gaps_of([raw(asked(one.prompt, one.response)) for one in EXAMPLES])
    compare(judge, raw, best_offset(gaps, LABELS))


def test_demonstrations_leave_the_example_itself_out(model, raw):
    reading = ReadingOptions(demonstrations=3, seed=1)
    judge = CalibratedJudge.fit(model, EXAMPLES, question=QUESTION, reading=reading)
    shown = [next(one for one in EXAMPLES if one.response in question.text) for question in judge.judge.demonstrations]
    assert len(shown) == 3
    logs = [raw(asked(one.prompt, one.response, [other for other in shown if other is not one])) for one in EXAMPLES]
    compare(judge, raw, best_offset(gaps_of(logs), LABELS), shown)


def test_contextual_calibration_divides_by_the_mean_of_inputs_without_content(model, raw):
    judge = CalibratedJudge.fit(
        model, EXAMPLES, question=QUESTION, reading=ReadingOptions(demonstrations=0), calibration="contextual"
    )
    # An empty prompt and response leave the words around them.
    mean = np.exp([raw(asked(one, one)) for one in ("N/A", "[MASK]", "")]).mean(axis=0)
    compare(judge, raw, float(np.log(mean[0] / mean[1])))
    yes, no = np.exp(raw(asked(PROMPTS[0], B[0]))) / mean
    assert float(judge.score(PROMPTS[:1], B[:1], kind="two_way")[0]) == pytest.approx(yes / (yes + no), abs=1e-4)


def test_a_prompt_that_all_examples_share_is_no_content(model, raw):
    examples = [LabelledResponse("the hotel", one.response, one.label) for one in EXAMPLES]
    judge = CalibratedJudge.of(GenerativeJudge(model, question=QUESTION), examples, "contextual")
    mean = np.exp([raw(asked("the hotel", one)) for one in ("N/A", "[MASK]", "")]).mean(axis=0)
    assert judge.offset == pytest.approx(float(np.log(mean[0] / mean[1])), abs=1e-4)


def test_batch_calibration_subtracts_the_mean_over_the_examples_or_over_texts_that_are_given(model, raw):
    zero_shot = GenerativeJudge(model, question=QUESTION)
    gaps = gaps_of([raw(asked(one.prompt, one.response)) for one in EXAMPLES])
    compare(CalibratedJudge.of(zero_shot, EXAMPLES, "batch"), raw, gaps.mean())
    flipped = [LabelledResponse(one.prompt, one.response, True) for one in EXAMPLES]  # no label is used
    assert CalibratedJudge.of(zero_shot, flipped, "batch").offset == pytest.approx(gaps.mean(), abs=1e-4)
    of_test = CalibratedJudge.of_batch(zero_shot, PROMPTS, B)
    assert of_test.offset == pytest.approx(
        gaps_of([raw(asked(*both)) for both in zip(PROMPTS, B, strict=True)]).mean(), abs=1e-4
    )
    # The batch is fixed: what is judged together changes nothing.
    one_by_one = torch.cat([of_test.score([one], [two]) for one, two in zip(PROMPTS, B, strict=True)])
    torch.testing.assert_close(of_test.score(PROMPTS, B), one_by_one, atol=1e-5, rtol=0)


def test_a_reward_model_at_a_fitted_threshold(model):
    pairs = [PreferencePair(one.prompt, one.response, "it is cold", id=one.id) for one in EXAMPLES]
    reward = ActivationRewardModel.fit(
        model, pairs, question=QUESTION, selector=HeadSet.of(3, 4, [(0, 1), (1, 2)]), criterion="warm",
        reading=ReadingOptions(readings=3, demonstrations=1),
    )  # fmt: skip
    judge = CalibratedJudge.of(reward, pairs)
    prompts = [one.prompt for one in pairs]
    gaps = [reward.score(prompts, [getattr(one, side) for one in pairs], kind="gap") for side in ("chosen", "rejected")]
    labels = np.array([True] * len(pairs) + [False] * len(pairs))
    assert judge.offset == pytest.approx(best_offset(torch.cat(gaps).double().numpy(), labels), abs=1e-4)
    torch.testing.assert_close(judge.gaps(PROMPTS, A), reward.gaps(PROMPTS, A) - judge.offset)
    assert judge.heads is reward.heads and judge.facts() == reward.facts() and judge.record is reward.record
    assert judge.fitted_among(pairs) == reward.fitted_among(pairs) == tuple(WORDS)


# What it does not change, and what it refuses


@pytest.mark.parametrize("calibration", ["threshold", "contextual", "batch"])
def test_no_order_of_responses_changes_and_what_was_learned_from_is_known(model, calibration):
    judge = fit_judge("zero_shot_threshold", model, EXAMPLES, {"calibration": calibration}, question=QUESTION)
    torch.testing.assert_close(judge.margins(PROMPTS, A, B), judge.judge.margins(PROMPTS, A, B), atol=1e-5, rtol=0)
    assert judge.offset != 0
    assert judge.fitted_among(EXAMPLES) == (tuple(WORDS) if calibration == "threshold" else ())


def test_a_chat_template_takes_inputs_without_content(folder_of, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    zero_shot = GenerativeJudge(arm_lens.load_model(folder), question=QUESTION)
    judge = CalibratedJudge.of(zero_shot, EXAMPLES, "contextual")
    inputs = ["N/A", "[MASK]", ""]
    found = zero_shot.verdicts(inputs, inputs)
    expected = found.log_positive.exp().mean().log() - found.log_negative.exp().mean().log()
    assert judge.offset == pytest.approx(float(expected), abs=1e-4)


def test_what_cannot_be_calibrated_is_refused(model):
    with pytest.raises(ValueError, match="does nothing for a ranked judge"):
        CalibratedJudge.fit(model, EXAMPLES[:0], question=QuestionOptions(template=TEMPLATE, layout="ranked"))
    for name in ("calibrated", "arm_calibrated"):
        with pytest.raises(ValueError, match="use layout='scalar'"):
            JUDGES[name].check(JUDGES[name].parse({"layout": "ranked"}))
    with pytest.raises(ValueError, match="there are none; pass examples"):
        CalibratedJudge.of(GenerativeJudge(model, question=QUESTION), [], "batch")
    with pytest.raises(ValueError, match="of both kinds; all 2 are of one"):
        CalibratedJudge.fit(model, EXAMPLES[1:3], question=QUESTION)
    with pytest.raises(
        Exception, match=r"one of threshold, contextual, batch|type"
    ):  # beartype speaks first under test
        CalibratedJudge.of(GenerativeJudge(model, question=QUESTION), EXAMPLES, "guess")
    sav = SparseAttentionVectors.fit(model, EXAMPLES, question=QUESTION)
    with pytest.raises(Exception, match=r"gives none that can be saved|VerdictJudge"):  # likewise
        CalibratedJudge(sav, "batch", 0.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offset": "0.5"}, "offset"),
        ({"judge": "calibrated judge"}, "judge.json"),
        ({"judge": "nobody"}, "no judge that is installed is of that kind"),
        ({"calibration": "guess"}, "calibration"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_refused(model, tmp_path, change, reason):
    saved = CalibratedJudge.fit(model, EXAMPLES, question=QUESTION).save(tmp_path / "judge")
    record = json.loads((saved / "judge.json").read_text())
    record.pop("digest")
    record |= change
    record["digest"] = digest_of(record)
    (saved / "judge.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match=reason):
        load_judge(saved, model)
