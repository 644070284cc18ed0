"""The vocabulary everything else speaks: a head, a set of heads, a score per head.

An attention head is named by its layer and its index within the layer, ``L3H5``. A set of heads is the same thing as a
boolean mask ``[layer, head]``; it remembers the size of the model it belongs to, so that sets of different models are
never compared by accident.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.display import (
    card,
    counted,
    listed,
    score_map,
    set_map,
    size,
    small_print,
    strongest,
    text_map,
    with_values,
)


class Head(NamedTuple):
    """One attention head."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class HeadSet:
    """A set of heads of a model with ``n_layers`` layers of ``n_heads`` heads.

    Raises:
        ValueError: if a head lies outside the model.
    """

    n_layers: int
    n_heads: int
    heads: frozenset[Head]

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", frozenset(Head(*head) for head in self.heads))
        for head in self.heads:
            if not (0 <= head.layer < self.n_layers and 0 <= head.head < self.n_heads):
                raise ValueError(f"{head} is outside a model of {self.n_layers} layers of {self.n_heads} heads")

    @classmethod
    def of(cls, n_layers: int, n_heads: int, heads: Iterable[tuple[int, int]]) -> HeadSet:
        """The set of the given (layer, head) pairs."""
        return cls(n_layers, n_heads, frozenset(Head(*head) for head in heads))

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "layer head"]) -> HeadSet:
        """The heads at which ``mask`` is true."""
        return cls.of(mask.shape[0], mask.shape[1], [(int(i), int(j)) for i, j in mask.nonzero().tolist()])

    @classmethod
    def all(cls, n_layers: int, n_heads: int) -> HeadSet:
        """Every head of the model."""
        return cls.from_mask(torch.ones(n_layers, n_heads, dtype=torch.bool))

    @classmethod
    def none(cls, n_layers: int, n_heads: int) -> HeadSet:
        """No head."""
        return cls(n_layers, n_heads, frozenset())

    @property
    def mask(self) -> Bool[Tensor, "layer head"]:
        """True at the heads of the set."""
        mask = torch.zeros(self.n_layers, self.n_heads, dtype=torch.bool)
        for layer, head in self.heads:
            mask[layer, head] = True
        return mask

    def random_like(self, generator: torch.Generator) -> HeadSet:
        """A uniformly random set with the same number of heads in every layer: the control for "which heads"."""
        chosen = []
        for layer, count in enumerate(self.mask.sum(dim=1).tolist()):
            order = torch.randperm(self.n_heads, generator=generator)[: int(count)]
            chosen += [(layer, head) for head in order.tolist()]
        return HeadSet.of(self.n_layers, self.n_heads, chosen)

    def jaccard(self, other: HeadSet) -> float:
        """|A and B| / |A or B|, in [0, 1]; two empty sets are equal, hence 1."""
        union = self | other
        return len(self & other) / len(union) if len(union) else 1.0

    def _compatible(self, other: HeadSet) -> HeadSet:
        if (self.n_layers, self.n_heads) != (other.n_layers, other.n_heads):
            raise ValueError(
                f"head sets of different models: {self.n_layers} layers of {self.n_heads} heads "
                f"and {other.n_layers} of {other.n_heads}"
            )
        return other

    def __or__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads | self._compatible(other).heads)

    def __and__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads & self._compatible(other).heads)

    def __sub__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads - self._compatible(other).heads)

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(sorted(self.heads))

    def __contains__(self, head: object) -> bool:
        return head in self.heads

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self)) + "}"

    def __repr__(self) -> str:
        return f"HeadSet({counted(len(self), 'head')} {listed(self)} in {size(self.n_layers, self.n_heads)})"

    def _repr_html_(self) -> str:
        title = f"{len(self)} of {counted(self.n_layers * self.n_heads, 'head')}"
        return card(title, {}, set_map(self.mask), small_print(listed(self, most=40)))

    def to_list(self) -> list[list[int]]:
        """[[layer, head], ...] in order, for JSON."""
        return [list(head) for head in self]


@dataclass(frozen=True, eq=False)
class HeadScores:
    """One number per head."""

    name: str
    """What is measured, e.g. ``selection probability``."""
    values: Float[Tensor, "layer head"]

    def top(self, k: int) -> HeadSet:
        """The ``k`` heads with the highest scores; of equal ones, those in earlier layers. Not a number is no score.

        Raises:
            ValueError: if there are fewer heads with a score.
        """
        n_layers, n_heads = self.values.shape
        unknown = self.values.isnan()
        scored = int((~unknown).sum())
        if not 0 <= k <= scored:
            raise ValueError(f"cannot take the top {k} of {scored} heads")
        values = self.values.masked_fill(unknown, -torch.inf).flatten()
        order = values.sort(descending=True, stable=True).indices[:k]
        return HeadSet.of(n_layers, n_heads, [divmod(index, n_heads) for index in order.tolist()])

    def above(self, threshold: float) -> HeadSet:
        """The heads whose score is greater than ``threshold``."""
        return HeadSet.from_mask(self.values > threshold)

    def frame(self) -> pd.DataFrame:
        """Tidy table with columns ``layer``, ``head``, ``score``."""
        n_layers, n_heads = self.values.shape
        rows = [
            {"layer": layer, "head": head, "score": float(self.values[layer, head])}
            for layer in range(n_layers)
            for head in range(n_heads)
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        top = with_values(self.values, strongest(self.values, 5))
        return f"HeadScores({self.name!r}, {size(*self.values.shape)}, highest: {top})"

    def __str__(self) -> str:
        return f"{self.name}, {size(*self.values.shape)}\n{text_map(self.values)}"

    def _repr_html_(self) -> str:
        top = with_values(self.values, strongest(self.values, 5))
        return card(self.name, {"highest": top}, score_map(self.values))
