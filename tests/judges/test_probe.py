"""The probe, against scikit-learn on activations of raw Hugging Face models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from judges.test_sav import raw_head_outputs
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests_support import planted_model

from arm_lens import GenerativeJudge, LabelledResponse, PreferencePair
from arm_lens.judge_model import labelled_responses
from arm_lens.judges import probe
from arm_lens.judges.base import Judge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.template import JudgeTemplate

pytestmark = pytest.mark.tl4

TEXT = "Request: {}\nReply: {}\nVerdict:"


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory):
    return planted_model(tokenizer, tmp_path_factory, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize(("criterion", "inverse_penalty"), [("polite", 1.0), ("list", 0.01)])
def test_predictions_equal_logistic_regression_on_raw_hugging_face_activations(judge, criterion, inverse_penalty):
    train = labelled_responses(criterion, 40, split="train", seed=1)
    test = labelled_responses(criterion, 30, split="test", seed=2)
    x, new = (
        raw_head_outputs([TEXT.format(one.prompt, one.response) for one in part]).reshape(len(part), -1)
        for part in (train, test)
    )
    labels = np.array([one.label for one in train])
    scaler = StandardScaler().fit(x)
    regression = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(scaler.transform(x), labels)
    expected = regression.predict_proba(scaler.transform(new))[:, 1]

    fitted = HeadProbe.fit(judge, train, inverse_penalty=inverse_penalty)
    prompts, responses = [one.prompt for one in test], [one.response for one in test]
    found = fitted.score(prompts, responses)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)
    assert found.min() >= 0 and found.max() <= 1 and found.std() > 0.05
    gaps = fitted.gaps(prompts, responses)
    np.testing.assert_allclose(gaps.numpy(), np.log(expected / (1 - expected)), atol=2e-2)
    margins = fitted.margins(prompts[:15], responses[:15], responses[15:])
    swapped = fitted.margins(prompts[:15], responses[15:], responses[:15])
    torch.testing.assert_close(margins, -swapped, atol=1e-4, rtol=0)


def test_planted_classes_are_told_apart_whatever_the_prompt(planted):
    fitted = HeadProbe.fit(planted.model, planted.examples, question=QuestionOptions(template=planted.template))
    places = ["bridge", "market", "station"]
    warm, cold = (fitted.score(places, [word] * 3) for word in ("warm", "cold"))
    assert (warm > 0.5).all() and (cold < 0.5).all()
    assert isinstance(fitted, Judge)
    assert fitted.prefer("bridge", "warm", "cold").preferred == "a"
    assert fitted.prefer("bridge", "cold", "warm").preferred == "b"


def test_both_model_classes_and_both_forms_of_example_give_the_same_probe(model_of, model_class):
    template = JudgeTemplate(header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", chat=False)
    pairs = [PreferencePair(place, f"{place} is warm", "it is cold .") for place in ("garden", "mill", "river")]
    singles = [
        LabelledResponse(pair.prompt, text, label)
        for pair in pairs
        for text, label in ((pair.chosen, True), (pair.rejected, False))
    ]
    questions = ["farm", "hotel"], ["it is warm", "the hotel is cold ."]
    reference = HeadProbe.fit(model_of("llama"), singles, question=QuestionOptions(template=template)).score(*questions)
    found = HeadProbe.fit(
        model_of("llama", model_class), pairs, question=QuestionOptions(template=template, batch_size=1)
    ).score(*questions)
    torch.testing.assert_close(found, reference, atol=2e-3, rtol=0)


def test_the_probe_reads_the_criterion_where_it_has_words(judge):
    train = labelled_responses("polite", 20, split="train", seed=1)
    bare, worded = (HeadProbe.fit(judge, train, question=criterion_text) for criterion_text in ("", "polite"))
    assert isinstance(worded.judge, GenerativeJudge) and worded.judge.criterion_text == "polite"
    one = ([train[0].prompt], [train[0].response])
    assert not torch.equal(bare.gaps(*one), worded.gaps(*one))


def test_what_differs_by_rounding_alone_says_nothing(planted, monkeypatch):
    """A number that is 1 up to rounding, and that rounding happens to tell the classes apart by."""
    labels = torch.tensor([one.label for one in planted.examples])
    noise = 1 + 1e-7 * torch.where(labels, 1.0, -1.0)
    z = torch.zeros(len(labels), 1, 2, 1)
    z[:, 0, 0, 0], z[:, 0, 1, 0] = noise, torch.randn(len(labels), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(probe, "question_activations", lambda *_, **__: z)
    fitted = HeadProbe.fit(planted.model, planted.examples, question=QuestionOptions(template=planted.template))
    turned = z.clone()
    turned[:, 0, 0, 0] = 2 - noise
    torch.testing.assert_close(fitted.log_odds_of(z), fitted.log_odds_of(turned), atol=1e-5, rtol=0)
    assert fitted.log_odds_of(z).std() > 1e-2  # the other one counts


def test_examples_of_one_kind_teach_nothing(planted):
    positive = [one for one in planted.examples if one.label]
    with pytest.raises(ValueError, match="examples of both kinds; all 6 are of one"):
        HeadProbe.fit(planted.model, positive, question=QuestionOptions(template=planted.template))


def test_responses_without_a_partner_are_refused(planted):
    fitted = HeadProbe.fit(planted.model, planted.examples, question=QuestionOptions(template=planted.template))
    with pytest.raises(ValueError, match="2 prompts for 3 first and 1 second"):
        fitted.margins(["mill", "mill"], ["warm"] * 3, ["cold"])
    with pytest.raises(ValueError, match="2 prompts for 1 responses"):
        fitted.score(["mill", "mill"], ["warm"])
