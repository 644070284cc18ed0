"""Variants side by side against whole passes with the same change, one by one."""

from __future__ import annotations

import warnings

import pytest
import torch

from arm_lens import HeadSet, steer
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, pad
from arm_lens.engine.replay import SlowReplayWarning
from arm_lens.engine.variants import pieces

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8]]
VERDICTS = VerdictTokens((5,), (6, 7))
HEADS = [(0, 1), (1, 3), (1, 0), (2, 2), (0, 1)]


def constants_for(model):
    return torch.randn(len(HEADS), model.cfg.d_head, generator=torch.Generator().manual_seed(4))


def changes_of(span, constants):
    """Variant by variant, one head gets a constant of its own."""

    def change(layer):
        def write(z):
            new = z.clone()
            for place, number in enumerate(range(span.start, span.stop)):
                if HEADS[number][0] == layer:
                    new[:, place, HEADS[number][1]] = constants[number]
            return new

        return write

    return {layer: change(layer) for layer in range(3)}


def side_by_side(replay, constants):
    found = torch.full((len(SEQUENCES), len(HEADS), 2), torch.nan)
    for piece in pieces(replay, len(HEADS)):
        found[piece.examples, piece.variants] = piece.verdict_logits(changes_of(piece.variants, constants)).detach()
    return found


def whole_passes(model, constants):
    found = []
    for (layer, head), constant in zip(HEADS, constants, strict=True):
        values = torch.zeros(3, 4, model.cfg.d_head)
        values[layer, head] = constant
        with steer(model, HeadSet.of(3, 4, [(layer, head)]), values):
            found.append(torch.cat([last_logits(model, pad([one])) for one in SEQUENCES]))
    return VERDICTS.sums(torch.stack(found, dim=1))


@pytest.mark.parametrize("memory_budget", [None, 1])
def test_each_variant_is_a_whole_pass_with_its_change(model_of, family, model_class, memory_budget):
    model = model_of(family, model_class)
    constants = constants_for(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowReplayWarning)
        replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3, memory_budget=memory_budget)
        found = side_by_side(replay, constants)
    torch.testing.assert_close(found, whole_passes(model, constants), atol=1e-4, rtol=0)
    if memory_budget == 1:
        assert len(list(pieces(replay, len(HEADS)))) == len(SEQUENCES) * len(HEADS)


def test_all_at_once_and_one_by_one_are_equal_in_float32(model_of, model_class):
    model = model_of("llama", model_class)
    constants = constants_for(model)
    found = side_by_side(Replay(model, SEQUENCES, VERDICTS), constants)
    one_by_one = side_by_side(Replay(model, SEQUENCES, VERDICTS, memory_budget=1), constants)
    assert float((found - one_by_one).abs().max()) <= 1e-6 * max(1.0, float(found.abs().max()))


def test_where_the_replay_is_refused_whole_prompts_are_read(model_of, model_class, monkeypatch):
    model = model_of("gpt2", model_class)
    constants = constants_for(model)
    monkeypatch.setattr(type(language_model(model)), "no_extension", lambda *_: "as if it were of another kind")
    replay = Replay(model, SEQUENCES, VERDICTS, batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowReplayWarning)
        found = side_by_side(replay, constants)
    assert not replay.exact
    torch.testing.assert_close(found, whole_passes(model, constants), atol=1e-4, rtol=0)


def test_on_a_steered_model_each_variant_is_a_row_of_its_own(model_of, model_class):
    """The steering hook writes at the last position of a row, which must be the variant's."""
    model = model_of("llama", model_class)
    constants, values = constants_for(model), torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(9))
    with steer(model, HeadSet.of(3, 4, [(0, 0), (2, 3)]), values):
        found = side_by_side(Replay(model, SEQUENCES, VERDICTS), constants)
        expected = whole_passes(model, constants)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(expected, whole_passes(model, constants))


def test_hooks_at_mlps_are_removed(model_of, model_class):
    model = model_of("llama", model_class)
    plain = last_logits(model, pad(SEQUENCES))
    replay = Replay(model, SEQUENCES, VERDICTS)
    for piece in pieces(replay, 2):
        changed = piece.verdict_logits(mlps={1: lambda output: 0 * output})
        with pytest.raises(ZeroDivisionError):
            piece.verdict_logits(mlps={1: lambda output: 1 / 0})
        assert not torch.allclose(changed, piece.verdict_logits())
    assert torch.equal(last_logits(model, pad(SEQUENCES)), plain)
    assert not language_model(model).is_hooked()
