"""The input and output of every selector: an objective, and a selection of heads."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.display import Figure, card, counted, first_and_last, listed, score_map
from arm_lens.engine.finite import NotFiniteError
from arm_lens.heads import PROBABILITIES, HeadScores, HeadSet

Masks: TypeAlias = Bool[Tensor, "mask layer head"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome of a search for heads."""

    heads: HeadSet
    head_scores: HeadScores
    """The basis of the choice: selection probabilities, effects of single heads, gates, ..."""
    history: pd.DataFrame
    """One row per step of the search: ``step``, ``reward``, ``expected_heads``, and more columns of some searches."""
    trajectory: Float[Tensor, "step layer head"] | None = None
    """REINFORCE: the probabilities from which each step's masks were sampled."""
    gates: Float[Tensor, "layer head"] | None = None
    """How far each head is moved towards its mean, in [0, 1], if the search did not end in a set; ``heads`` are then the
    heads moved more than half of the way."""
    passes: float | None = None
    """What the search took, in forward passes of all examples: one for each mask that was judged, three for each gradient."""

    @property
    def chosen(self) -> HeadSet | Float[Tensor, "layer head"]:
        """What to steer by: the set of heads, or the gates if the search ended in gates."""
        return self.heads if self.gates is None else self.gates

    def plot(self) -> Figure:
        """The map of heads: `arm_lens.plots.selection_probabilities`, or `selected_heads` if the search had none."""
        from arm_lens.plots.head_maps import chosen_heads  # plotly is optional

        return chosen_heads(self)

    def __repr__(self) -> str:
        reward = first_and_last(self.history, "reward")
        heads = f"{counted(len(self.heads), 'head')} {listed(self.heads)}"
        return f"Selection({heads} by {self.head_scores.name}, reward {reward})"

    def _repr_html_(self) -> str:
        name = self.head_scores.name
        facts = {
            "heads": listed(self.heads),
            "chosen by": name + " (of the search, not an effect)" * (name in PROBABILITIES),
            "reward": first_and_last(self.history, "reward"),
        }
        title = f"{counted(len(self.heads), 'head')} chosen"
        return card(title, facts, score_map(self.head_scores.values, chosen=self.heads.mask))


@runtime_checkable
class Objective(Protocol):
    """The reward of head masks on labelled examples."""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""

    def __len__(self) -> int:
        """How many examples there are."""

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask, on all examples or on some."""


class ObjectiveProxy:
    """An objective that does something of its own before or after another one."""

    def __init__(self, objective: Any) -> None:
        self.objective = objective

    @property
    def content(self) -> Hashable | None:
        """All that rewards depend on, as far as it is known; see `JudgingObjective.content`."""
        found: Hashable | None = getattr(self.objective, "content", None)
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""
        found: tuple[int, int] = self.objective.shape
        return found

    def __len__(self) -> int:
        return len(self.objective)

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        rewards: Tensor = self.objective(masks, examples)
        return rewards

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates, if the objective is a `DifferentiableObjective`."""
        rewards: Tensor = self.objective.gated(gates)
        return rewards


class KnownRewards(ObjectiveProxy):
    """An objective that judges a mask on all examples once: the same mask again has the same reward, without a pass.

    Late in a search most masks of a step are known.
    """

    def __init__(self, objective: Any) -> None:
        super().__init__(objective)
        self._known: dict[bytes, Tensor] = {}
        self.passes = 0.0

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask; on some of the examples, masks are judged anew."""
        if examples is not None:
            self.passes += len(masks) * len(examples) / len(self)
            return super().__call__(masks, examples)
        keys = [mask.numpy().tobytes() for mask in masks.cpu()]
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._known}
        if first:
            rows = sorted(first.values())
            self.passes += len(rows)
            found = super().__call__(masks[rows])
            self._known |= zip((keys[row] for row in rows), found, strict=True)
        return torch.stack([self._known[key] for key in keys])

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates."""
        self.passes += 3
        return super().gated(gates)


class FiniteObjective(ObjectiveProxy):
    """An objective whose rewards are finite numbers, or else an error: on NaN a search would choose no head, or all."""

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask.

        Raises:
            NotFiniteError: if one is NaN or infinite.
        """
        return _finite(super().__call__(masks, examples), "mask")

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates; errors as for masks."""
        return _finite(super().gated(gates), "example")


def _finite(rewards: Float[Tensor, " any"], what: str) -> Float[Tensor, " any"]:
    known = rewards.detach()
    wrong = ~known.isfinite()
    if bool(wrong.any()):
        raise NotFiniteError(
            f"the search for heads stops: the reward of {what} {int(wrong.int().argmax())} of {len(rewards)} is "
            f"{float(known[wrong][0])}. In float16 a model may overflow: use bfloat16 or float32; an objective of your own "
            "must give finite rewards"
        )
    return rewards


@runtime_checkable
class DifferentiableObjective(Objective, Protocol):
    """An objective that also gives the reward of heads that are moved part of the way."""

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates, differentiable with respect to them."""
