"""Which heads a measure takes, and where their values stand on the grid of all heads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from arm_lens.attribution.outcomes import Outcome
from arm_lens.heads import Head, HeadSet

Heads: TypeAlias = HeadSet | Iterable[tuple[int, int]] | None
"""Heads to measure: a set, (layer, head) pairs, or None for all."""


def measured(shape: tuple[int, int], heads: Heads = None, layers: Sequence[int] | None = None) -> HeadSet:
    """The heads that a measure is restricted to: those of ``heads`` that lie in ``layers``.

    Args:
        shape: layers, and heads per layer.
        heads: by default all.
        layers: by default all.

    Raises:
        ValueError: naming the head or layer outside the model, or saying that no head is left.
    """
    n_layers, n_heads = shape
    if heads is None:
        wanted = HeadSet.all(n_layers, n_heads)
    elif isinstance(heads, HeadSet):
        wanted = heads & HeadSet.all(n_layers, n_heads)  # refuses a set of another model
    else:
        wanted = HeadSet.of(n_layers, n_heads, heads)
    if layers is not None:
        outside = [layer for layer in layers if not 0 <= layer < n_layers]
        if outside:
            raise ValueError(f"there is no layer {outside[0]}; the model's layers are 0 to {n_layers - 1}")
        wanted = HeadSet.of(n_layers, n_heads, [head for head in wanted if head.layer in set(layers)])
    if not len(wanted):
        raise ValueError("there are no heads to measure: name some by heads, by layers, or leave both out for all")
    return wanted


def each_alone(heads: HeadSet) -> Bool[Tensor, "player layer head"]:
    """A mask for each head of a set, in order: that head alone."""
    return on_grid(torch.eye(len(heads), dtype=torch.bool), list(heads), (heads.n_layers, heads.n_heads), outside=False)


def on_grid(
    values: Shaped[Tensor, "*batch player"],
    players: Sequence[Head],
    shape: tuple[int, int],
    *,
    outside: float | bool = math.nan,
) -> Shaped[Tensor, "*batch layer head"]:
    """Values per player at their heads; ``outside`` at all other heads."""
    grid = torch.full((*values.shape[:-1], *shape), outside, dtype=values.dtype)
    layers, heads = torch.tensor(list(players)).T
    grid[..., layers, heads] = values
    return grid


def only(
    per_outcome: Mapping[Outcome, Float[Tensor, "*batch layer head"]], heads: HeadSet
) -> dict[Outcome, Float[Tensor, "*batch layer head"]]:
    """The values of some heads; those of all others are not a number."""
    return {outcome: values.masked_fill(~heads.mask, torch.nan) for outcome, values in per_outcome.items()}
