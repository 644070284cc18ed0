r"""Soft gates: how far to move each head towards its mean, found by gradient.

Every head has a gate :math:`g = \sigma(\theta)`, and :math:`z \leftarrow z + g\,(\mu - z)`; the mean reward of the examples,
less a penalty for open gates, is maximised with Adam (soft injection, arXiv 2507.20906). The result is the gates, not a
set, unless ``discrete``. The reward must have a gradient.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from pydantic import PositiveInt
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import DifferentiableObjective, Selection
from arm_lens.selection.selector import Search


class SoftGate(Search):
    """Options of the search."""

    kind: Literal["soft_gate"] = "soft_gate"
    steps: PositiveInt = 150
    learning_rate: float = 0.1
    initial_logit: float = -1.0
    """A gate of 0.27: each head starts a quarter of the way to its mean."""
    discrete: bool = False
    """End in the set of the heads moved more than half of the way, instead of the gates themselves."""

    @torch.enable_grad()
    def _search(self, objective: DifferentiableObjective, seed: int, progress: bool) -> Selection:
        eligible, penalty = self.eligible(objective.shape), self.penalty(objective.shape)
        logits = torch.full(objective.shape, self.initial_logit, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=self.learning_rate)
        rows = []
        for step in tqdm(range(self.steps), desc="opening gates", unit="step", disable=not progress, leave=False):
            gates = torch.sigmoid(logits) * eligible
            reward = objective.gated(gates).mean()
            (logits.grad,) = torch.autograd.grad(penalty * gates.sum() - reward, logits)
            optimizer.step()
            rows.append({"step": step, "reward": float(reward.detach()), "expected_heads": float(gates.detach().sum())})
        gates = torch.sigmoid(logits.detach()) * eligible
        scores = HeadScores("gate", gates)
        return Selection(scores.above(0.5), scores, pd.DataFrame(rows), gates=None if self.discrete else gates)


SPEC = SelectorSpec(
    name="soft_gate",
    options=SoftGate,
    summary="A gate for every head, found by gradient, by which it is moved towards its mean.",
)
