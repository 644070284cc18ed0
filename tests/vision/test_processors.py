"""Models in memory and what makes pixels for them: which processor is used, and what becomes known of its settings."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from vision_examples import OPTIONS, asked

from arm_lens import GenerativeJudge, load_judge
from arm_lens.engine.images import NoImagesError
from arm_lens.engine.language_model import language_model
from arm_lens.judges.artefact_images import OtherPixelsWarning
from arm_lens.judges.fingerprint import fingerprint_of


@pytest.fixture
def in_memory(seeing_of):
    """A Hugging Face model that is found under no name, and its processor."""
    seeing = seeing_of("llava")
    model = copy.deepcopy(seeing.raw)
    model.config._name_or_path = model.name_or_path = ""
    return model, seeing.processor


@pytest.fixture
def other(in_memory):
    """A processor with the same tokenizer and another mean of pixels."""
    made = copy.copy(in_memory[1])
    made.image_processor = copy.deepcopy(made.image_processor)
    made.image_processor.image_mean = [0.1, 0.9, 0.2]
    return made


def score(model):
    return float(GenerativeJudge(model, question=OPTIONS).score([asked(1)], ["a cat"]))


def test_a_processor_that_was_given_stays_the_models_until_another_is_given(in_memory, other):
    model, processor = in_memory
    with pytest.raises(NoImagesError, match="give the model with its processor"):
        score((model, processor.tokenizer))
    found = score((model, processor))
    assert score(model) == score((model, processor.tokenizer)) == found
    assert score((model, other)) != pytest.approx(found, rel=1e-3)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    assert score((model, processor)) != pytest.approx(found, rel=1e-3)
    assert score(model) == score((model, processor))


def test_a_model_that_has_read_an_image_is_the_same_model(in_memory):
    model, processor = in_memory
    before = language_model((model, processor))
    score(before)
    assert language_model(model) is before and not before.is_hooked()


def test_judges_and_results_know_the_settings_of_the_processor(in_memory, other, tmp_path):
    model, processor = in_memory
    folder = GenerativeJudge((model, processor), question=OPTIONS).save(tmp_path / "judge")
    own, others = fingerprint_of((model, processor)), fingerprint_of((model, other))
    assert own.difference(others) is None and own.digest != others.digest
    with pytest.warns(OtherPixelsWarning, match="here they have other settings, such as the size"):
        load_judge(folder, (model, other))
    with warnings.catch_warnings():
        warnings.simplefilter("error", OtherPixelsWarning)
        load_judge(folder, (model, processor))
