r"""KV segments: tokens that were read, kept as the keys and values that later tokens attend to.

Attention is causal: what a model makes of a token does not depend on what comes later. So a prompt may be read in parts.
A `KVSegment` is one part, and new tokens can be read after any number of segments. They need not follow one another: each
new token has a position and a row of an attention mask of its own, so that alternatives can stand side by side in one
pass (the mask of tree-shaped speculative decoding, arXiv 2305.09781).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from arm_lens.engine.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class KVSegment:
    """Consecutive tokens of prompts, read: per layer their keys and values, in the model class's own form."""

    keys: list[Tensor]
    values: list[Tensor]
    positions: Int[Tensor, "row slot"]
    """The position of each token in its prompt; -1 at padding."""

    def rows(self, rows: Int[Tensor, " row"]) -> KVSegment:
        """Some rows; one row that is shared by all stays as it is."""
        if len(self.positions) == 1:
            return self
        return KVSegment(
            [keys[rows.to(keys.device)] for keys in self.keys],
            [values[rows.to(values.device)] for values in self.values],
            self.positions[rows.to(self.positions.device)],
        )

    def outside_inference_mode(self) -> KVSegment:
        """A copy that may take part in a computation with gradients."""
        return KVSegment(
            [keys.clone() for keys in self.keys], [values.clone() for values in self.values], self.positions.clone()
        )

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return sum(part.nbytes for part in (*self.keys, *self.values))


def positions_after(batch: TokenBatch, past: Sequence[KVSegment]) -> Int[Tensor, "batch pos"]:
    """The position of each token of a left-padded batch that follows what was read before; -1 at padding."""
    positions = batch.attention_mask.cumsum(dim=1) - 1
    for segment in past:
        positions = positions + (segment.positions >= 0).sum(dim=1, keepdim=True).to(positions.device)
    return positions.masked_fill(batch.attention_mask == 0, -1)


def one_after_another(positions: Int[Tensor, "row new"]) -> Bool[Tensor, "row new new"]:
    """Each new token sees itself and the real ones before it. Padding sees itself: softmax needs something."""
    itself = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    return ((positions >= 0)[:, None, :] & torch.ones_like(itself).tril()) | itself


def visible(
    past: Sequence[KVSegment],
    positions: Int[Tensor, "row new"],
    sees: Bool[Tensor, "row new new"],
    window: int | None,
) -> Bool[Tensor, "row 1 new slot"]:
    """Which slots each new token attends to, those of the past first, as far back as a sliding window reaches."""
    before = [segment.positions.to(positions.device).expand(len(positions), -1) for segment in past]
    slots = torch.cat([*before, positions], dim=1)
    real = (slots[:, : slots.shape[1] - positions.shape[1]] >= 0)[:, None, :]
    seen = torch.cat([real.expand(-1, positions.shape[1], -1), sees], dim=2)
    if window is not None:
        seen = seen & (positions[:, :, None] - slots[:, None, :] < window)
    return seen[:, None]
