"""KV segments: tokens that were read, stored as the keys and values that later tokens attend to.

Attention is causal: a token's keys and values do not depend on later tokens, so a prompt may be read in parts. A `KVSegment`
is one part, and new tokens can be read after any number of segments. They need not follow one another: each new token has
its own position and its own row of an attention mask, so that alternatives can stand side by side in one pass (the mask of
tree-shaped speculative decoding, arXiv 2305.09781).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from arm_lens.engine.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class KVSegment:
    """Consecutive tokens that were read: their keys and values by layer, laid out as the model class does it."""

    keys: list[Tensor]
    values: list[Tensor]
    positions: Int[Tensor, "row slot"]
    """The position of each token in its prompt; -1 at padding."""
    shift: Int[Tensor, " row"] | None = None
    """By how much rotary positions of what follows are larger than its positions, on account of images in this segment."""

    def rows(self, rows: Int[Tensor, " row"]) -> KVSegment:
        """Select rows; a segment with one row, which all prompts share, stays as it is."""
        if len(self.positions) == 1:
            return self
        return self._with_each(lambda part: part[rows.to(part.device)])

    def outside_inference_mode(self) -> KVSegment:
        """A copy that may take part in a computation with gradients."""
        return self._with_each(torch.clone)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> KVSegment:
        shift = None if self.shift is None else change(self.shift)
        return KVSegment(list(map(change, self.keys)), list(map(change, self.values)), change(self.positions), shift)

    @property
    def nbytes(self) -> int:
        """The memory that keys and values take."""
        return sum(part.nbytes for part in (*self.keys, *self.values))


@dataclass(frozen=True, eq=False)
class NewTokens:
    """Tokens to read after KV segments."""

    tokens: Int[Tensor, "row new"]
    past: Sequence[KVSegment]
    """What was read before, in order; each segment has one row, or as many as ``tokens``."""
    positions: Int[Tensor, "row new"]
    """The position of each new token in its prompt; -1 at padding."""
    sees: Bool[Tensor, "row new new"]
    """Which new tokens each new token attends to, in addition to the past."""

    @classmethod
    def following(cls, batch: TokenBatch, past: Sequence[KVSegment]) -> NewTokens:
        """A left-padded batch whose tokens follow one another, and the past."""
        positions = batch.attention_mask.cumsum(dim=1) - 1
        for segment in past:
            positions = positions + (segment.positions >= 0).sum(dim=1, keepdim=True).to(positions.device)
        positions = positions.masked_fill(batch.attention_mask == 0, -1)
        # Padding sees itself, because a softmax needs something to attend to.
        itself = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
        sees = ((positions >= 0)[:, None, :] & torch.ones_like(itself).tril()) | itself
        return cls(batch.tokens, past, positions, sees)

    @classmethod
    def side_by_side(
        cls, tokens: Int[Tensor, "row new"], past: Sequence[KVSegment], positions: Int[Tensor, "row new"]
    ) -> NewTokens:
        """Alternatives: each token attends to the past and to itself, and not to the others."""
        sees = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
        return cls(tokens, past, positions, sees)

    @property
    def shift(self) -> Int[Tensor, " row"]:
        """By how much rotary positions are larger than positions, on account of images in the past; may be negative."""
        shift = torch.zeros(len(self.tokens), dtype=torch.long, device=self.positions.device)
        for segment in self.past:
            shift = shift if segment.shift is None else shift + segment.shift.to(shift.device)
        return shift

    def visible(
        self, window: int | None, together: Bool[Tensor, "row new new"] | None = None
    ) -> Bool[Tensor, "row 1 new slot"]:
        """Which slots each new token attends to, those of the past first, as far back as a sliding window reaches.

        Args:
            window: how many tokens back, the new one included; None for all.
            together: new tokens that attend to each other in both directions, whatever the window.
        """
        positions = self.positions
        before = [segment.positions.to(positions.device).expand(len(positions), -1) for segment in self.past]
        slots = torch.cat([*before, positions], dim=1)
        real = (slots[:, : slots.shape[1] - positions.shape[1]] >= 0)[:, None, :]
        seen = torch.cat([real.expand(-1, positions.shape[1], -1), self.sees], dim=2)
        if window is not None:
            seen = seen & (positions[:, :, None] - slots[:, None, :] < window)
        if together is not None:
            seen = seen.clone()
            seen[..., -positions.shape[1] :] |= together
        return seen[:, None]
