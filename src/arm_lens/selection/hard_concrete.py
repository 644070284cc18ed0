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

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import DifferentiableObjective, Selection
from arm_lens.selection.selector import Search

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1


class HardConcrete(Search):
    """Options of the search."""

    kind: Literal["hard_concrete"] = "hard_concrete"
    random: ClassVar[bool] = True
    steps: PositiveInt = 100
    learning_rate: float = 0.1
    initial_logit: float = -1.0
    """The first log alpha."""
    discrete: bool = True
    """End in the set of the heads whose gate, without noise, is more than half open; else in these gates."""

    @torch.enable_grad()
    def _search(self, objective: DifferentiableObjective, seed: int, progress: bool) -> Selection:
        eligible, penalty = self.eligible(objective.shape), self.penalty(objective.shape)
        generator = torch.Generator().manual_seed(seed)
        log_alpha = torch.full(objective.shape, self.initial_logit, requires_grad=True)
        optimizer = torch.optim.Adam([log_alpha], lr=self.learning_rate)
        rows = []
        for step in tqdm(range(self.steps), desc="opening gates", unit="step", disable=not progress, leave=False):
            noise = torch.rand(objective.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
            reward = objective.gated(gates(log_alpha, noise) * eligible).mean()
            expected = (open_probability(log_alpha) * eligible).sum()
            (log_alpha.grad,) = torch.autograd.grad(penalty * expected - reward, log_alpha)
            optimizer.step()
            rows.append({"step": step, "reward": float(reward.detach()), "expected_heads": float(expected.detach())})
        final = gates(log_alpha.detach()) * eligible
        scores = HeadScores("gate", final)
        return Selection(scores.above(0.5), scores, pd.DataFrame(rows), gates=None if self.discrete else final)


def gates(
    log_alpha: Float[Tensor, "layer head"], noise: Float[Tensor, "layer head"] | None = None
) -> Float[Tensor, "layer head"]:
    """Gates in [0, 1] with uniform noise in (0, 1); without noise, the gates that a search ends in."""
    stretched = torch.sigmoid(log_alpha if noise is None else (torch.logit(noise) + log_alpha) / TEMPERATURE)
    return (stretched * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_alpha: Float[Tensor, "layer head"]) -> Float[Tensor, "layer head"]:
    """The probability that a sampled gate is not 0."""
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


SPEC = SelectorSpec(
    name="hard_concrete",
    options=HardConcrete,
    summary="A set of heads found by gradient: random gates that can be exactly 0 and 1.",
)
