"""The bundled judge that sees, on pictures, sentence frames and word combinations it was not trained on."""

from __future__ import annotations

import pytest
import torch

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, ReadingOptions, load_judge, load_model
from arm_lens.engine import BUNDLED_IMAGE_NAME, describe
from arm_lens.engine.language_model import language_model
from arm_lens.judge_model import (
    CRITERION_TEXT,
    PICTURE_ATTRIBUTES,
    PICTURE_CRITERION_TEXT,
    PictureWorld,
    labelled_pictures,
    labelled_responses,
)
from arm_lens.judges.questions import questions_of, sample_demonstrations

pytestmark = pytest.mark.slow

ITEMS = 60


@pytest.fixture(scope="module")
def seeing():
    """The judge that sees."""
    return language_model(load_model(BUNDLED_IMAGE_NAME))


def accuracy(judge, examples, pool=(), demonstrations=0):
    questions, others = (questions_of(some, judge.template) for some in (examples, pool))
    shown = sample_demonstrations(others, questions, demonstrations, seed=0) if pool else None
    gaps = judge.verdict(questions, demonstrations=shown).gap
    return float(((gaps > 0) == torch.tensor([one.positive for one in questions])).float().mean())


@pytest.mark.parametrize("criterion", PICTURE_ATTRIBUTES)
def test_it_judges_a_named_criterion_and_infers_one_from_eight_pictures(criterion, seeing):
    items = labelled_pictures(criterion, ITEMS, split="test", seed=77)
    pool = labelled_pictures(criterion, 40, split="test", seed=78)
    bare, named = GenerativeJudge(seeing), GenerativeJudge(seeing, question=PICTURE_CRITERION_TEXT[criterion])
    assert accuracy(named, items) >= 0.85
    assert accuracy(bare, items, pool, 8) >= 0.8


def test_without_a_criterion_and_without_pictures_it_guesses(seeing):
    shares = [
        accuracy(GenerativeJudge(seeing), labelled_pictures(criterion, ITEMS, split="test", seed=77))
        for criterion in PICTURE_ATTRIBUTES
    ]
    assert 0.35 <= sum(shares) / len(shares) <= 0.65


def test_it_judges_texts_too(seeing):
    items = labelled_responses("answers", ITEMS, split="test", seed=77)
    assert accuracy(GenerativeJudge(seeing, question=CRITERION_TEXT["answers"]), items) >= 0.85
    assert accuracy(GenerativeJudge(seeing), items, labelled_responses("answers", 40, split="test", seed=78), 8) >= 0.8


def test_it_sees_and_training_read_the_same_tokens_and_pixels(seeing):
    from train_image_judge import Sequence, Text, pixels_of

    assert seeing.findings.blind is None
    items = [*PictureWorld("test", 5).items(2), *PictureWorld("test", 6).items(1)]
    batch = Text().batch([Sequence("polite", False, False, items)])
    judge = GenerativeJudge(seeing, examples=labelled_pictures("polite", 2, split="test", seed=5))
    asked = questions_of(labelled_pictures("polite", 1, split="test", seed=6), judge.template)
    [found] = judge.encode(asked, [judge.demonstrations])
    tokens, inputs = seeing.images.inputs(torch.tensor([found]))
    assert tokens.tolist() == batch.tokens[:, : int(batch.at_end[0, -1]) + 1].tolist()
    torch.testing.assert_close(inputs["pixel_values"], pixels_of(items))


def test_what_is_saved_of_it_is_loaded_by_its_name(seeing, tmp_path):
    assert describe(seeing).name == BUNDLED_IMAGE_NAME
    reward = ActivationRewardModel.fit(
        seeing, labelled_pictures("polite", 8, split="test", seed=4), criterion="polite",
        selector=HeadSet.of(seeing.n_layers, seeing.n_heads, [(3, 1), (4, 2)]),
        reading=ReadingOptions(readings=4, demonstrations=2),
    )  # fmt: skip
    items = labelled_pictures("polite", 4, split="test", seed=2)
    scores = [
        judge.score([item.prompt for item in items], [item.response for item in items])
        for judge in (reward, load_judge(reward.save(tmp_path / "polite")))
    ]
    torch.testing.assert_close(*scores)
