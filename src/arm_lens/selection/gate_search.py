"""Searches by gradient.

Every head has a gate, and the mean reward of the examples, less a penalty for gates that are open, is maximised with Adam.
How a gate is made of its parameter is what `SoftGate` and `HardConcrete` differ in.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores
from arm_lens.selection.outcome import DifferentiableObjective, Selection
from arm_lens.selection.selector import Search


@runtime_checkable
class Gated(Protocol):
    """What gates are fitted to; a `DifferentiableObjective` is one."""

    def gated(self, gates: Float[Tensor, "*fit layer head"]) -> Float[Tensor, "example ..."]:
        """The reward of each example under gates, of one fit or of several, differentiable with respect to them."""


class GateSearch(Search):
    """A search by gradient: what its kinds have in common."""

    steps: PositiveInt = 100
    learning_rate: float = 0.1
    initial_logit: float | None = None
    """The first value of every gate's parameter; by default that of a gate of 0.27, or on larger models as much less as
    opens 13 gates together."""
    discrete: bool = True
    """End in the set of the heads that are moved more than half of the way; else in the gates themselves."""

    def resolved(self, shape: tuple[int, int]) -> GateSearch:
        """The same options with numbers in place of the defaults that depend on the model."""
        logit = self.first_logit(shape) if self.initial_logit is None else self.initial_logit
        return self.model_copy(update={"initial_logit": logit, "head_penalty": self.penalty(shape)})

    def _search(self, objective: DifferentiableObjective, seed: int, progress: bool) -> Selection:
        eligible, penalty = self.eligible(objective.shape), self.penalty(objective.shape)
        generator = torch.Generator().manual_seed(seed)
        assert self.initial_logit is not None, "resolved"
        start = torch.full(objective.shape, self.initial_logit)
        logits, history = self.climb(objective, start, eligible, penalty, generator, progress=progress)
        final = self._gates(logits, None) * eligible
        scores = HeadScores("gate", final)
        return Selection(scores.above(0.5), scores, history, gates=None if self.discrete else final)

    @torch.enable_grad()
    def climb(
        self,
        objective: Gated,
        start: Float[Tensor, "*fit layer head"],
        eligible: Bool[Tensor, "layer head"],
        penalty: float,
        generator: torch.Generator,
        *,
        progress: bool = False,
    ) -> tuple[Float[Tensor, "*fit layer head"], pd.DataFrame]:
        """Follow the gradient from given logits; several fits side by side if the objective takes the gates of several.

        Args:
            objective: the reward of gates, ``[example]`` or for several fits ``[example, fit]``.
            start: the first logits, which are left unchanged.
            eligible: the heads that may be written; the gates of others are 0.
            penalty: subtracted for an open gate; a negative one opens gates.
            generator: of random gates.
            progress: show a bar.

        Returns:
            The last logits, and a row per step: step, reward and expected_heads (means over fits).
        """
        logits = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=self.learning_rate)
        rows = []
        for step in tqdm(range(self.steps), desc="opening gates", unit="step", disable=not progress, leave=False):
            reward = objective.gated(self._gates(logits, generator) * eligible).mean(dim=0)
            expected = (self._open(logits) * eligible).sum(dim=(-2, -1))
            (logits.grad,) = torch.autograd.grad((penalty * expected - reward).sum(), logits)
            optimizer.step()
            means = {"reward": float(reward.detach().mean()), "expected_heads": float(expected.detach().mean())}
            rows.append({"step": step} | means)
        return logits.detach(), pd.DataFrame(rows)

    @abstractmethod
    def _gates(
        self, logits: Float[Tensor, "*fit layer head"], generator: torch.Generator | None
    ) -> Float[Tensor, "*fit layer head"]:
        """Gates in [0, 1] of a step, which may be random, or without a generator those that the search ends in."""

    @abstractmethod
    def _open(self, logits: Float[Tensor, "*fit layer head"]) -> Float[Tensor, "*fit layer head"]:
        """How much of its penalty each head costs: how far its gate is open, or how likely it is to be."""
