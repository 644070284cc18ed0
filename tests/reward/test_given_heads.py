"""Heads that are given are a set of heads of the model."""

from __future__ import annotations

import pytest

from arm_lens import ActivationRewardModel, HeadSet, LabelledResponse, ReadingOptions, load_model
from arm_lens.engine import describe

EXAMPLES = [
    LabelledResponse("Describe the mill.", f"It is {word}.", n % 2 == 0) for n, word in enumerate(["calm", "noisy"])
]


@pytest.fixture(scope="module")
def model():
    return load_model()


def test_examples_of_one_kind_are_refused_before_anything_is_read(model):
    too_long = [LabelledResponse("Describe the mill.", "calm " * (600 + n), True) for n in range(4)]
    with pytest.raises(
        ValueError,
        match="and the 2 questions of a fold are all positive: check the labels",
    ):
        ActivationRewardModel.fit(model, too_long, criterion="calm")


def test_heads_of_a_model_of_another_size_are_refused_before_anything_is_read(model):
    size = describe(model)
    other = HeadSet.of(28, 12, [(1, 2)])
    with pytest.raises(ValueError, match=r"of a model of 28 layers of 12 heads; .* has 6 layers of 8 heads"):
        ActivationRewardModel.fit(model, EXAMPLES, selector=other, criterion="calm")
    own = HeadSet.of(size.n_layers, size.n_heads, [(1, 2)])
    reward = ActivationRewardModel.fit(
        model, EXAMPLES, selector=own, criterion="calm", reading=ReadingOptions(readings=2, demonstrations=1)
    )
    assert reward.with_heads(HeadSet.all(size.n_layers, size.n_heads)).heads.mask.all()
    with pytest.raises(ValueError, match=r"of a model of 28 layers of 12 heads; .* has 6 layers of 8 heads"):
        reward.with_heads(other)
    with pytest.raises(TypeError):
        reward.with_heads([(1, 2)])
