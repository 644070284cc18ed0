"""Passes of the last token alone give what passes over whole prompts give."""

from __future__ import annotations

import contextlib

import pytest
import torch

from arm_lens import HeadSet, steer
from arm_lens.attribution.direct import direct_contributions
from arm_lens.attribution.reading import attention_rows, direct_logits
from arm_lens.engine import VerdictTokens, language_model
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.last_token import last_tokens, reads_apart

pytestmark = pytest.mark.tl4

BEGINNING = list(range(10, 22))
SEQUENCES = [
    [*BEGINNING, 9, 30, 41, 52],
    [*BEGINNING, 77],
    [*BEGINNING, 20, 21, 22, 23, 24, 25, 26],
    [*BEGINNING, 8, 3],
]
VERDICTS = VerdictTokens((5,), (6, 7))
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


@contextlib.contextmanager
def whole_prompts(model: ModelLike):
    """Within, prompts are read as a whole, because a hook of the user's, which does nothing, is on the model."""
    with language_model(model).hook_z(0).register_forward_hook(lambda *_: None):
        assert not reads_apart(language_model(model), SEQUENCES)
        yield


@pytest.fixture(params=["llama", "gpt2", "qwen3", "gpt_neox"])
def model(request, model_of, model_class):
    return model_of(request.param, model_class)


def test_attention_contributions_and_logits_are_those_of_whole_prompts(model):
    vector = torch.randn(model.cfg.d_head, generator=torch.Generator().manual_seed(1))

    def everything():
        rows = [row for head in range(4) for row in attention_rows(model, SEQUENCES, 1, head, batch_size=3)]
        contributions, gaps = direct_contributions(model, SEQUENCES, VERDICTS, batch_size=3)
        logits, gap = direct_logits(model, SEQUENCES, 1, 2, vector, VERDICTS, batch_size=3)
        return [*rows, contributions, gaps, logits, torch.tensor(gap)]

    assert reads_apart(language_model(model), SEQUENCES)
    found = everything()
    with whole_prompts(model):
        expected = everything()
    assert [len(row) for row in found[: len(SEQUENCES)]] == [len(sequence) for sequence in SEQUENCES]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_steering_takes_part(model):
    values = torch.ones(3, 4, model.cfg.d_head)
    plain, _ = direct_contributions(model, SEQUENCES, VERDICTS)
    with steer(model, HeadSet.of(3, 4, [(0, 1), (2, 3)]), values):
        found, _ = direct_contributions(model, SEQUENCES, VERDICTS)
        with whole_prompts(model):
            expected, _ = direct_contributions(model, SEQUENCES, VERDICTS)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - plain).abs().max() > 1e-3


def test_only_the_last_token_goes_through_the_model_after_what_was_read(model_of):
    model = language_model(model_of("llama"))
    seen = []
    for part in last_tokens(model, SEQUENCES, batch_size=2):
        with model.hooked({1: lambda z: seen.append(tuple(z.shape[:2]))}):
            part.logits()
        slots = part.real.sum(dim=1).tolist()
        assert slots == [len(SEQUENCES[example]) for example in part.examples]
    assert seen == [(2, 1), (2, 1)]


def test_a_prompt_of_one_token_is_read_as_a_whole(model_of):
    model = language_model(model_of("llama"))
    (part,) = last_tokens(model, [[1], [1, 8]], batch_size=2)
    assert not part.past and part.real.tolist() == [[False, True], [True, True]]
    torch.testing.assert_close(part.logits()[1], next(iter(last_tokens(model, [[1, 8]], batch_size=1))).logits()[0])
