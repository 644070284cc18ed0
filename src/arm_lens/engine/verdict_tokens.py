"""Which tokens of a model's vocabulary spell a verdict, and the verdict's probabilities from the logits at the last token.

`resolve_verdicts` finds every single token with which a tokenizer can spell a verdict (with and without a leading space, in
each letter case). It refuses a verdict that is not a single token, because the first piece of a longer word is no evidence
for that word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class VerdictTokenError(ValueError):
    """A verdict is not a single token of this tokenizer, or a token spells both verdicts."""


@dataclass(frozen=True)
class VerdictTokens:
    """The token ids with which a tokenizer spells a verdict and its opposite."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]

    def __post_init__(self) -> None:
        shared = set(self.positive) & set(self.negative)
        if shared:
            raise VerdictTokenError(f"token {min(shared)} spells both verdicts")

    def sums(self, logits: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape verdict"]:
        """Logits of the positive and the negative verdict: each is the logsumexp of its spellings."""
        sides = [logits[..., list(side)].logsumexp(dim=-1) for side in (self.positive, self.negative)]
        return torch.stack(sides, dim=-1)


@dataclass(frozen=True)
class VerdictScores:
    """Probabilities of the verdict at the last token."""

    probability: Float[Tensor, " *shape"]
    """P(positive) over the full vocabulary, all spellings together."""
    two_way: Float[Tensor, " *shape"]
    """P(positive) / (P(positive) + P(negative))."""
    gap: Float[Tensor, " *shape"]
    """log P(positive) - log P(negative): the logit gap, summed over spellings."""
    log_positive: Float[Tensor, " *shape"]
    """log P(positive) over the full vocabulary."""
    log_negative: Float[Tensor, " *shape"]
    """log P(negative) over the full vocabulary."""

    @classmethod
    def of(
        cls,
        log_positive: Float[Tensor, " *shape"],
        log_negative: Float[Tensor, " *shape"],
        gap: Float[Tensor, " *shape"] | None = None,
    ) -> VerdictScores:
        """From the two log-probabilities; the gap is their difference unless it is given."""
        gap = log_positive - log_negative if gap is None else gap
        return cls(log_positive.exp(), torch.sigmoid(gap), gap, log_positive, log_negative)


def verdict_scores(logits: Float[Tensor, "*shape vocab"], verdicts: VerdictTokens) -> VerdictScores:
    """P(Yes), the two-way P(Yes) and the logit gap from next-token logits."""
    positive, negative = verdicts.sums(logits.float().log_softmax(dim=-1)).unbind(dim=-1)
    return VerdictScores.of(positive, negative)


def resolve_verdicts(
    tokenizer: PreTrainedTokenizerBase, positive: Sequence[str], negative: Sequence[str]
) -> VerdictTokens:
    """Every single token with which ``tokenizer`` spells each verdict.

    Each spelling is tried with and without a leading space and, if it is longer than a letter, as given, in lower case,
    capitalised and in capitals. A variant counts if it is exactly one known token.

    Raises:
        VerdictTokenError: naming the spelling, if none of its variants is a single token; or if a token would spell
            both verdicts.
    """
    return VerdictTokens(
        tuple(_single_tokens(tokenizer, positive)),
        tuple(_single_tokens(tokenizer, negative)),
    )


def _single_tokens(tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str]) -> list[int]:
    found: dict[int, None] = {}
    for spelling in spellings:
        cases = [spelling]
        if len(spelling) > 1:  # " a" is an article before it is a verdict
            cases = list(dict.fromkeys([spelling, spelling.lower(), spelling.capitalize(), spelling.upper()]))
        ids = [tokenizer.encode(space + case, add_special_tokens=False) for case in cases for space in (" ", "")]
        single = [one[0] for one in ids if len(one) == 1 and one[0] != tokenizer.unk_token_id]
        if not single:
            pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode(spelling, add_special_tokens=False))
            raise VerdictTokenError(
                f"the verdict {spelling!r} is not a single token of this tokenizer: it is read as {pieces}; "
                "choose another spelling in the judge template"
            )
        found.update(dict.fromkeys(single))
    return list(found)
