"""Heads without a search: all of them, random ones, or named ones.

They are the controls of a search, which has to do better than as many random heads in the same layers, and than all heads
together. As selectors, they write the very means that a search would write, read from the same folds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import pandas as pd
import torch
from pydantic import Field

from arm_lens.heads import HeadScores, HeadSet
from arm_lens.registry import SelectorSpec
from arm_lens.selection.outcome import Objective, Selection
from arm_lens.selection.reinforce import Reinforce
from arm_lens.selection.selector import Selector, SelectorChoice


class AllHeads(Selector):
    """Every head of the model."""

    kind: Literal["all_heads"] = "all_heads"

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        return _given(HeadSet.all(*objective.shape), objective)


class FixedHeads(Selector):
    """Options: named heads."""

    kind: Literal["fixed_heads"] = "fixed_heads"
    heads: tuple[tuple[int, int], ...]
    """Layer and number of each: ``[[3, 4], [5, 0]]`` is {L3H4, L5H0}."""

    @classmethod
    def of(cls, heads: Iterable[tuple[int, int]]) -> FixedHeads:
        """The heads of a set."""
        return cls(heads=tuple((layer, head) for layer, head in sorted(heads)))

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        return _given(HeadSet.of(*objective.shape, self.heads), objective)


class RandomHeads(Selector):
    """Options: random heads, as many in every layer as another selector chooses."""

    kind: Literal["random_heads"] = "random_heads"
    random: ClassVar[bool] = True
    like: SelectorChoice = Field(default_factory=Reinforce)
    """The other selector. Its search is made once for all random sets like it."""
    like_seed: int | None = None
    """The seed of that search; by default 0, in a benchmark the first seed of the task."""

    def resolved(self, shape: tuple[int, int]) -> RandomHeads:
        """The same options with numbers in place of the other selector's defaults that depend on the model."""
        return self.model_copy(update={"like": self.like.resolved(shape)})

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        chosen = self.like.select(objective, seed=self.like_seed or 0, progress=progress).heads
        return _given(chosen.random_like(torch.Generator().manual_seed(seed)), objective)


def _given(heads: HeadSet, objective: Objective) -> Selection:
    """A selection without a search: one step, with the reward of the set."""
    reward = float(objective(heads.mask[None])[0])
    history = pd.DataFrame({"step": [0], "reward": [reward], "expected_heads": [len(heads)]})
    return Selection(heads, HeadScores("given", heads.mask.float()), history)


ALL_HEADS = SelectorSpec(name="all_heads", options=AllHeads, summary="Every head of the model.")
RANDOM_HEADS = SelectorSpec(
    name="random_heads",
    options=RandomHeads,
    summary="Random heads, as many in every layer as another selector chooses.",
)
FIXED_HEADS = SelectorSpec(name="fixed_heads", options=FixedHeads, summary="Named heads.")
