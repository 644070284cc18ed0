r"""Soft gates: how far to move each head towards its mean, found by gradient.

Every head has a gate :math:`g = \sigma(\theta)`, and :math:`z \leftarrow z + g\,(\mu - z)`; the mean reward of the examples,
less a price for open gates, is climbed with Adam (soft injection, arXiv 2507.20906). Gates are kept as they are found:
the result need not be a set. The reward must have a gradient.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores
from arm_lens.selection.outcome import DifferentiableObjective, Selection


@dataclass(frozen=True, kw_only=True)
class SoftGate:
    """Options of the search."""

    steps: int = 150
    learning_rate: float = 0.1
    initial_logit: float = -1.0
    """A gate of 0.27: each head starts a quarter of the way to its mean."""
    head_penalty: float = 0.01
    """Taken off the reward for each head that is moved all the way; as in `Reinforce`."""
    discrete: bool = False
    """End in the set of the heads moved more than half of the way, instead of the gates themselves."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a search by gradient needs at least 1 step, not {self.steps}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @torch.enable_grad()
    def select(self, objective: DifferentiableObjective, *, seed: int = 0, progress: bool = False) -> Selection:
        """Climb the reward. Nothing is random: the seed is ignored."""
        logits = torch.full(objective.shape, self.initial_logit, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=self.learning_rate)
        rows = []
        for step in tqdm(range(self.steps), desc="opening gates", unit="step", disable=not progress, leave=False):
            gates = torch.sigmoid(logits)
            reward = objective.gated(gates).mean()
            (logits.grad,) = torch.autograd.grad(self.head_penalty * gates.sum() - reward, logits)
            optimizer.step()
            rows.append({"step": step, "reward": float(reward.detach()), "expected_heads": float(gates.detach().sum())})
        gates = torch.sigmoid(logits.detach())
        scores = HeadScores("gate", gates)
        return Selection(scores.above(0.5), scores, pd.DataFrame(rows), gates=None if self.discrete else gates)
