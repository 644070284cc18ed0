r"""Heads by the effect of each alone: inject one head's mean at a time, and choose the k with the largest gain.

.. math:: e[l, m] = r(\{(l, m)\}) - r(\emptyset)

the causal mediation of one head, as function vectors are found (arXiv 2310.15213), and the ranking behind the quick
selections of arXiv 2511.08246. One pass tries every head, and one more every size of set; heads that matter only together
are missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeInt
from torch import Tensor

from arm_lens.heads import HeadScores
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import Masks, Objective, Selection
from arm_lens.selection.selector import Search

SCORE = "effect of the head alone"


def single_head_effects(
    objective: Objective, eligible: Bool[Tensor, "layer head"] | None = None
) -> Float[Tensor, "layer head"]:
    """What each head gains alone: the reward if only its mean is written, minus the reward if none is.

    Only eligible heads are tried; the effect of the others is NaN.
    """
    return effects_alone(objective, torch.ones(objective.shape, dtype=torch.bool) if eligible is None else eligible)


def effects_alone(
    reward: Callable[[Masks, None], Float[Tensor, " mask"]], eligible: Bool[Tensor, "layer head"]
) -> Float[Tensor, "layer head"]:
    """`single_head_effects` by a function of masks, on all examples."""
    alone = torch.eye(eligible.numel(), dtype=torch.bool)[eligible.flatten()].reshape(-1, *eligible.shape)
    rewards = reward(torch.cat([torch.zeros_like(alone[:1]), alone]), None)
    effects = torch.full(eligible.shape, torch.nan)
    effects[eligible] = (rewards[1:] - rewards[0]).to(effects)
    return effects


@torch.enable_grad()
def slopes(reward: Any, eligible: Bool[Tensor, "layer head"]) -> Float[Tensor, "layer head"]:
    """The derivative of a reward with respect to each gate where all are closed; 0 for heads that are not eligible.

    The reward is a `DifferentiableObjective`.
    """
    gates = torch.zeros(eligible.shape, requires_grad=True)
    return torch.autograd.grad(reward.gated(gates).mean(), gates)[0] * eligible


class TopEffect(Search):
    """Options: the k heads with the largest effect of their own."""

    kind: Literal["top_effect"] = "top_effect"
    k: NonNegativeInt | None = None
    """How many; by default as many as give the highest reward, less the head penalty of each."""

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        eligible = self.eligible(objective.shape)
        if self.k is not None and self.k > eligible.sum():
            raise ValueError(f"cannot take the top {self.k} of {int(eligible.sum())} heads")
        effects = HeadScores(SCORE, single_head_effects(objective, eligible))
        sets = [effects.top(k) for k in range(int(eligible.sum()) + 1)]
        rewards = objective(torch.stack([one.mask for one in sets]))
        penalised = rewards - self.penalty(objective.shape) * torch.arange(len(sets))
        best = int(penalised.argmax()) if self.k is None else self.k
        steps = range(best + 1)  # the last one is the chosen set, as in every search; larger ones were tried, too
        history = pd.DataFrame({"step": steps, "reward": rewards[: best + 1].tolist(), "expected_heads": steps})
        return Selection(sets[best], HeadScores(SCORE, effects.values.nan_to_num()), history)


SPEC = SelectorSpec(
    name="top_effect",
    options=TopEffect,
    summary="The heads that help most alone: one mean is injected at a time, and the k with the largest gain are chosen.",
)
