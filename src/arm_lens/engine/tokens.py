"""Texts as token sequences, and token sequences of unequal length as one batch.

Padding goes on the left unless asked for on the right, so that every sequence's last token, where the verdict is due and
activations are read and written, stands at the last position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


class PromptTooLongError(ValueError):
    """A prompt does not fit into the model's context; prompts are never cut."""


@dataclass(frozen=True)
class TokenBatch:
    """Token sequences of unequal length, padded on one side to one length."""

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    """1 at real tokens, 0 at padding."""

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """The position of each sequence's last real token."""
        pos = self.attention_mask.shape[1]
        return pos - 1 - self.attention_mask.flip(1).argmax(dim=1)

    @property
    def padded(self) -> bool:
        """Whether any sequence is padded."""
        return not bool(self.attention_mask.all())

    def last_apart(self) -> tuple[TokenBatch, TokenBatch]:
        """Split left-padded sequences into all tokens but the last, and the last."""
        tokens, mask = self.tokens, self.attention_mask
        return TokenBatch(tokens[:, :-1], mask[:, :-1]), TokenBatch(tokens[:, -1:], mask[:, -1:])


def pad(
    sequences: Sequence[Sequence[int]],
    *,
    pad_token: int = 0,
    side: Literal["left", "right"] = "left",
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Token sequences as one batch. Padding is masked, so ``pad_token`` does not matter."""
    if not sequences or any(not len(sequence) for sequence in sequences):
        raise ValueError("a batch needs at least one sequence, and no sequence may be empty")
    length = max(map(len, sequences))
    tokens = torch.full((len(sequences), length), pad_token, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, sequence in enumerate(sequences):
        span = slice(length - len(sequence), length) if side == "left" else slice(0, len(sequence))
        tokens[row, span] = torch.tensor(sequence)
        mask[row, span] = 1
    return TokenBatch(tokens.to(device), mask.to(device))


def chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(count)``."""
    if size < 1:
        raise ValueError(f"the batch size must be at least 1, not {size}")
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
