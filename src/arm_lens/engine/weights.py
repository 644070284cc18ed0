"""The weights of a model at one moment, by which a later change is noticed.

Means and coefficients that were read from a model belong to its weights as they were then. Three things are compared, each
only if the one before it does not decide:

1. where the weights are, with torch's counts of their changes in place (`weights_state`), and a few numbers of each weight:
   writes through ``.data``, by which some trainers update and merge, are not counted by torch;
2. if a few numbers have changed, or there are other weights, they are other weights;
3. if only places and counts have changed, the bits of all weights decide. So a model that was moved to another device, or
   written with the same numbers, has the same weights, and one of another dtype has others. The answer is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arm_lens.engine.model_info import sum_of_bits, weights_state
from arm_lens.engine.protocol import LanguageModel

SAMPLED = 16
"""Numbers of each weight that are compared every time."""


class WeightsMark:
    """The weights of a model as they are when it is made; `unchanged` compares them with the present ones."""

    def __init__(self, model: LanguageModel) -> None:
        with model.findings.lock:  # another thread's pass may have a part of the model elsewhere
            weights = _weights_of(model)
            self._state, self._sample, self._bits = weights_state(weights), _sample_of(weights), _bits_of(weights)

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
            if not torch.equal(self._sample, _sample_of(weights)):
                return False
            state = weights_state(weights)
            if state != self._state:
                if _bits_of(weights) != self._bits:
                    return False
                self._state = state
            return True


def _weights_of(model: LanguageModel) -> list[Tensor]:
    """The weights of the user's own model, except those that are on disk while they are not used."""
    return [one for one in model.raw.parameters() if not one.is_meta]


def _sample_of(weights: Sequence[Tensor]) -> Tensor:
    """The bits, as float64, of a few numbers of each weight, one after the other, on the CPU."""
    together = len({one.device for one in weights}) == 1
    parts = []
    for one in weights:
        step = max(1, one.numel() // SAMPLED) | 1  # odd, so that a matrix gives numbers of several columns
        part = one.detach().flatten()[::step][:SAMPLED].double()
        parts.append(part if together else part.cpu())
    return torch.cat(parts).cpu().view(torch.int64) if parts else torch.zeros(0, dtype=torch.int64)


def _bits_of(weights: Sequence[Tensor]) -> tuple[tuple[torch.dtype, tuple[int, ...], int], ...]:
    """The dtype, the shape and the sum of the bits of each weight."""
    return tuple((one.dtype, tuple(one.shape), sum_of_bits(one)) for one in weights)
