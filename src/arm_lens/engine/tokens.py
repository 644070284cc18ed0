"""Texts as token sequences, and token sequences of unequal length as one batch.

Padding goes on the left unless asked for on the right, so that every sequence's last token, where the verdict is due and
activations are read and written, stands at the last position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class PromptTooLongError(ValueError):
    """A prompt does not fit into the model's context; nothing is ever cut silently."""


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


def pad(
    sequences: Sequence[Sequence[int]],
    *,
    pad_token: int = 0,
    side: Literal["left", "right"] = "left",
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Token sequences as one batch. Padding is masked, so that the value of ``pad_token`` never matters."""
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


def encode(
    model: Any,
    texts: Sequence[str],
    *,
    chat: bool,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Texts as token ids.

    A chat template writes its own special tokens into the text. For a base model a beginning-of-sequence token is put
    in front where the tokenizer has one and TransformerLens' ``cfg.default_prepend_bos`` says so.

    Args:
        model: its tokenizer is used.
        texts: whole prompts.
        chat: whether the texts come from a chat template.
        names: what to call each text in an error; by default its number.

    Raises:
        PromptTooLongError: naming the first text that has more tokens than the model's context.
    """
    tokenizer: PreTrainedTokenizerBase = model.tokenizer
    bos = tokenizer.bos_token_id
    prefix = [bos] if not chat and bos is not None and getattr(model.cfg, "default_prepend_bos", True) else []
    sequences = []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids = ids if prefix and ids[:1] == prefix else prefix + ids
        if len(ids) > model.cfg.n_ctx:
            name = names[number] if names is not None else f"text {number}"
            raise PromptTooLongError(
                f"{name}: the prompt has {len(ids)} tokens, the model's context {model.cfg.n_ctx}; "
                "use fewer examples or shorter texts (nothing is cut)"
            )
        sequences.append(ids)
    return sequences


def chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(count)``."""
    if size < 1:
        raise ValueError(f"the batch size must be at least 1, not {size}")
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
