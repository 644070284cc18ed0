r"""Heads by the effect of each alone: inject one head's mean at a time, and choose the k with the largest gain.

.. math:: e[l, m] = r(\{(l, m)\}) - r(\emptyset)

the causal mediation of one head, as function vectors are found (arXiv 2310.15213), and the ranking behind the quick
selections of arXiv 2511.08246. One pass tries every head, and one more every size of set; heads that matter only together
are missed.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import NonNegativeInt
from torch import Tensor

from arm_lens.heads import HeadScores
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import Objective, Selection
from arm_lens.selection.selector import Selector


def single_head_effects(objective: Objective) -> Float[Tensor, "layer head"]:
    """What each head gains alone: the reward if only its mean is written, minus the reward if none is."""
    n_layers, n_heads = objective.shape
    alone = torch.eye(n_layers * n_heads, dtype=torch.bool).reshape(-1, n_layers, n_heads)
    rewards = objective(torch.cat([torch.zeros_like(alone[:1]), alone]))
    return (rewards[1:] - rewards[0]).reshape(n_layers, n_heads)


class TopEffect(Selector):
    """Options: the k heads with the largest effect of their own."""

    kind: Literal["top_effect"] = "top_effect"
    k: NonNegativeInt | None = None
    """How many; by default as many as give the highest reward, less the head penalty of each."""
    head_penalty: float = 0.01
    """Subtracted from a set's reward for each head in it, if k is not given; as in `Reinforce`."""

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        n_layers, n_heads = objective.shape
        if self.k is not None and self.k > n_layers * n_heads:
            raise ValueError(f"cannot take the top {self.k} of {n_layers * n_heads} heads")
        scores = HeadScores("effect of the head alone", single_head_effects(objective))
        sets = [scores.top(k) for k in range(scores.values.numel() + 1)]
        rewards = objective(torch.stack([one.mask for one in sets]))
        penalised = rewards - self.head_penalty * torch.arange(len(sets))
        best = int(penalised.argmax()) if self.k is None else self.k
        history = pd.DataFrame(
            {"step": range(len(sets)), "reward": rewards.tolist(), "expected_heads": range(len(sets))}
        )
        return Selection(sets[best], scores, history)


SPEC = SelectorSpec(
    name="top_effect",
    options=TopEffect,
    summary="The heads that help most alone: one mean is injected at a time, and the k with the largest gain are chosen.",
)
