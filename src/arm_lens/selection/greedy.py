"""Greedy forward selection: add the head that helps most, again and again, until none outweighs its head penalty.

Every step tries all remaining heads, each together with those chosen so far, in one pass of the replay.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from pydantic import NonNegativeInt
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores, HeadSet
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import Objective, Selection
from arm_lens.selection.selector import Search


class Greedy(Search):
    """Options of the search."""

    kind: Literal["greedy"] = "greedy"
    max_heads: NonNegativeInt | None = None
    """Stop at this many; by default only when no head outweighs its penalty."""

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        """Add heads one by one; the scores are what each added when it was chosen, else 0."""
        eligible, penalty = self.eligible(objective.shape), self.penalty(objective.shape)
        n_layers, n_heads = objective.shape
        mask = torch.zeros(n_layers, n_heads, dtype=torch.bool)
        gains = torch.zeros(n_layers, n_heads)
        best = float(objective(mask[None])[0])
        rows = [{"step": 0, "reward": best, "expected_heads": 0}]
        limit = int(eligible.sum()) if self.max_heads is None else min(self.max_heads, int(eligible.sum()))
        for step in tqdm(range(1, limit + 1), desc="adding heads", unit="head", disable=not progress, leave=False):
            left = (eligible & ~mask).flatten().nonzero().flatten()
            tried = mask.flatten().repeat(len(left), 1)
            tried[torch.arange(len(left)), left] = True
            rewards = objective(tried.reshape(-1, n_layers, n_heads))
            gain = float(rewards.max()) - best
            if gain <= penalty:
                break
            head = divmod(int(left[rewards.argmax()]), n_heads)
            mask[head], gains[head], best = True, gain, float(rewards.max())
            rows.append({"step": step, "reward": best, "expected_heads": step})
        scores = HeadScores("gain when the head was added", gains)
        return Selection(HeadSet.from_mask(mask), scores, pd.DataFrame(rows))


SPEC = SelectorSpec(
    name="greedy",
    options=Greedy,
    summary="Heads added one by one, each the best together with those before it, until none outweighs its head penalty.",
)
