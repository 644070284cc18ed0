r"""Hard-concrete gates: a set of heads found by gradient, with gates that can be exactly 0 and 1.

Every head has a random gate (Louizos et al., 2018, arXiv 1712.01312): with :math:`u \sim U(0, 1)`,

.. math:: s = \sigma\big((\log u - \log(1 - u) + \log \alpha) / \beta\big), \qquad
          g = \min(1, \max(0, s (\zeta - \gamma) + \gamma)),

:math:`\beta = 2/3`, :math:`\gamma = -0.1`, :math:`\zeta = 1.1`. A gate is 0 with a probability that is known,

.. math:: P(g > 0) = \sigma\big(\log \alpha - \beta \log(-\gamma / \zeta)\big),

and the mean reward of the examples under sampled gates, less a penalty for each head that is expected to be open, is
maximised with Adam. Like REINFORCE it searches among sets of heads; unlike it, it follows the gradient of the model, so
that a step takes one pass forward and one back instead of dozens of masks. The reward must have a gradient.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.registry import SelectorSpec
from arm_lens.selection.gate_search import GateSearch

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1


class HardConcrete(GateSearch):
    """Options of the search. The parameter of a gate is its log alpha."""

    kind: Literal["hard_concrete"] = "hard_concrete"
    random: ClassVar[bool] = True

    def _gates(
        self, logits: Float[Tensor, "*fit layer head"], generator: torch.Generator | None
    ) -> Float[Tensor, "*fit layer head"]:
        if generator is None:
            return gates(logits)
        return gates(logits, torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6))

    def _open(self, logits: Float[Tensor, "*fit layer head"]) -> Float[Tensor, "*fit layer head"]:
        return open_probability(logits)


def gates(
    log_alpha: Float[Tensor, "*fit layer head"], noise: Float[Tensor, "*fit layer head"] | None = None
) -> Float[Tensor, "*fit layer head"]:
    """Gates in [0, 1] with uniform noise in (0, 1); without noise, the gates that a search ends in."""
    stretched = torch.sigmoid(log_alpha if noise is None else (torch.logit(noise) + log_alpha) / TEMPERATURE)
    return (stretched * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_alpha: Float[Tensor, "*fit layer head"]) -> Float[Tensor, "*fit layer head"]:
    """The probability that a sampled gate is not 0."""
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


SPEC = SelectorSpec(
    name="hard_concrete",
    options=HardConcrete,
    summary="A set of heads found by gradient: random gates that can be exactly 0 and 1.",
)
