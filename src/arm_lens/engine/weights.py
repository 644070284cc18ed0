"""The weights of a model at one moment, by which a later change is noticed.

Means and coefficients that were read from a model belong to its weights as they were then. Every time, two cheap things are
compared: where the weights are, with torch's counts of their changes in place (`weights_state`), and a few numbers of each
weight, because writes through ``.data``, by which some trainers update and merge, are not counted by torch. Only if either
differs do the bits of all weights decide, and their places are remembered anew. So a model that was moved to another
device, or written with the same numbers, has the same weights, and one of another dtype or with adapters has others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arm_lens.engine.model_info import sum_of_bits, weights_state
from arm_lens.engine.protocol import LanguageModel

SAMPLED = 16
"""Numbers of each weight that are compared every time."""


class WeightsChangedError(RuntimeError):
    """A model's weights have changed since its prompts were read, so that what was read says nothing of it now."""


class WeightsMark:
    """The weights of a model as they are when it is made; `unchanged` compares them with the present ones."""

    def __init__(self, model: LanguageModel) -> None:
        with model.findings.lock:  # another thread's pass may have a part of the model elsewhere
            weights = _weights_of(model)
            self._bits = _bits_of(weights)
            self._look_at(weights)

    @classmethod
    def of(cls, model: LanguageModel) -> WeightsMark:
        """The mark of a model's present weights, made once and shared as long as they do not change."""
        known = model.findings.weights
        if not isinstance(known, cls) or not known.unchanged(model):
            known = model.findings.weights = cls(model)
        return known

    def unchanged(self, model: LanguageModel) -> bool:
        """Whether the model has the same weights still, to the last bit; their device does not matter."""
        with model.findings.lock:
            weights = _weights_of(model)
            if weights_state(weights) == self._state and all(map(torch.equal, _bytes_of(self._views), self._sample)):
                return True
            if _bits_of(weights) != self._bits:
                return False
            self._look_at(weights)
            return True

    def _look_at(self, weights: Sequence[Tensor]) -> None:
        """Note where the weights are, and some of their numbers."""
        self._state = weights_state(weights)
        self._views: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for one in weights:
            self._views.setdefault((one.device, one.dtype), []).append(_view_of(one))
        self._sample = _bytes_of(self._views)


def _weights_of(model: LanguageModel) -> list[Tensor]:
    """The weights of the user's own model, except those that are on disk while they are not used."""
    return [one for one in model.raw.parameters() if not one.is_meta]


def _view_of(weight: Tensor) -> Tensor:
    """A few numbers of a weight, in its own memory."""
    here = weight.detach()
    row = here.view(-1) if here.is_contiguous() else here[(0,) * (here.ndim - 1)]
    step = max(1, len(row) // SAMPLED) | 1  # odd, so that a matrix gives numbers of several columns
    return row[::step][:SAMPLED]


def _bytes_of(views: dict[tuple[torch.device, torch.dtype], list[Tensor]]) -> list[Tensor]:
    return [torch.cat(some).view(torch.uint8) for some in views.values()]


def _bits_of(weights: Sequence[Tensor]) -> list[tuple[object, ...]]:
    """The dtype, the shape, the sum of the bits and a few numbers of each weight."""
    return [
        (one.dtype, tuple(one.shape), sum_of_bits(one), _view_of(one).contiguous().cpu().view(torch.uint8).tolist())
        for one in weights
    ]
