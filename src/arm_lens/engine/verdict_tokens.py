"""Which tokens of a model's vocabulary spell a verdict, and the verdict's probabilities from the logits at the last token.

The verdict that is read must be the token that the model would write at that place. Alone, a word may be another token than
after a prompt: Llama 2's tokenizer has one token for ``Yes`` at the beginning of a text or after a space, and another for
``Yes`` after a line break. So `resolve_verdicts` encodes a prompt with each spelling after it (with and without a space
between them, in each letter case) and takes what follows the prompt's own tokens.

- A spelling that is a single token in some of these forms is read by all of them.
- A spelling that is several tokens in every form is read by its first token, with a `VerdictPieceWarning`. That token must
  be more than a letter, and the other verdict must not begin with it.
- If the white space at the end of a prompt and the verdict are one token, prompts are read without that white space
  (`VerdictTokens.overlap`). If other characters are, the prompt is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arm_lens.display.caution import caution
from arm_lens.engine.tokens import continuation, encode_text


class VerdictTokenError(ValueError):
    """A tokenizer cannot spell a verdict so that it can be read from one token, or a token spells both verdicts."""


class VerdictPieceWarning(UserWarning):
    """A verdict is several tokens of this tokenizer, and is read by the first of them."""


@dataclass(frozen=True)
class VerdictTokens:
    """The token ids with which a tokenizer spells a verdict and its opposite."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]
    overlap: str = ""
    """White space at the end of a prompt that is one token with the verdict; prompts are read without it."""

    def __post_init__(self) -> None:
        shared = set(self.positive) & set(self.negative)
        if shared:
            raise VerdictTokenError(f"token {min(shared)} spells both verdicts")

    def rows(self) -> Int[Tensor, " verdict"]:
        """The rows of the unembedding that verdicts need: the positive spellings, then the negative ones."""
        return torch.tensor([*self.positive, *self.negative])

    def in_rows(self) -> VerdictTokens:
        """Where the same tokens are among `rows`."""
        first, count = len(self.positive), len(self.positive) + len(self.negative)
        return VerdictTokens(tuple(range(first)), tuple(range(first, count)))

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
    preferred: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)
    """Tokens that the model would rather write, with their mean probabilities; looked up only if `mass` is small."""

    @property
    def mass(self) -> Float[Tensor, " *shape"]:
        """P(positive) + P(negative) over the full vocabulary: how likely it is that the model gives a verdict at all."""
        return self.log_positive.exp() + self.log_negative.exp()

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
    tokenizer: PreTrainedTokenizerBase, positive: Sequence[str], negative: Sequence[str], *, before: str = ""
) -> VerdictTokens:
    """The tokens with which ``tokenizer`` spells each verdict after a prompt; see the module for the rules.

    Each spelling is tried directly after the prompt and after a space and, if it is longer than a letter, as given, in lower
    case, capitalised and in capitals.

    Args:
        tokenizer: of the model.
        positive: spellings of the verdict.
        negative: spellings of its opposite.
        before: a prompt that ends where the verdict is due; its last characters decide.

    Raises:
        VerdictTokenError: naming the spelling, if the tokenizer does not know it; if a token would spell both verdicts; or
            if the last characters of the prompt, other than white space, are one token with the verdict.
    """
    overlap = _overlap(tokenizer, [*positive, *negative], before)
    before = before.removesuffix(overlap)
    sides = [_first_tokens(tokenizer, spellings, before, overlap) for spellings in (positive, negative)]
    for token in sides[0].keys() & sides[1].keys():
        one, other = sides[0][token], sides[1][token]
        raise VerdictTokenError(
            f"the verdicts {one!r} and {other!r} begin with the same token {_written(tokenizer, [token])[0]!r}, which spells "
            "both verdicts; choose spellings with other beginnings in the judge template"
        )
    return VerdictTokens(tuple(sides[0]), tuple(sides[1]), overlap)


def _overlap(tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str], before: str) -> str:
    """The white space at the end of a prompt that is one token with a verdict that follows directly."""
    longest = ""
    for spelling in spellings:
        changed, ids = continuation(tokenizer, before, spelling)
        if not changed:
            continue
        tokens = encode_text(tokenizer, before)
        white = before[len(before.rstrip()) :]
        cuts = [white[-count:] for count in range(1, len(white) + 1)]
        found = next((cut for cut in cuts if encode_text(tokenizer, before[: -len(cut)]) == tokens[:-changed]), None)
        if found is None:
            raise VerdictTokenError(
                f"the prompt ends in {before[-12:]!r}, and its last characters are one token with the verdict {spelling!r}: "
                f"together they are read as {_written(tokenizer, ids)}; end the judge template's text (its cue, or its "
                "prefill) in a line break or another mark of punctuation"
            )
        longest = max(longest, found, key=len)
    return longest


def _first_tokens(
    tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str], before: str, overlap: str
) -> dict[int, str]:
    """The tokens by which a verdict is read after a prompt, each with its spelling."""
    found: dict[int, str] = {}
    for spelling in spellings:
        forms = list(_forms(tokenizer, spelling, before, overlap))
        single = [ids[0] for ids in forms if len(ids) == 1 and _says_something(tokenizer, ids[0])]
        if single:
            found |= dict.fromkeys(single, spelling)
            continue
        as_given = list(_forms(tokenizer, spelling, before, overlap, cases=False))
        pieces = [ids[0] for ids in as_given if ids and _says_something(tokenizer, ids[0], least=2)]
        parts = _written(tokenizer, as_given[-1]) if as_given else []
        if not pieces:
            raise VerdictTokenError(
                f"the verdict {spelling!r} cannot be read from one token of this tokenizer: it is read as {parts}; choose "
                "another spelling in the judge template"
            )
        caution(
            f"the verdict {spelling!r} is several tokens of this tokenizer, {parts}, and is read by the first of them; a "
            "spelling that is a single token says more",
            VerdictPieceWarning,
        )
        found |= dict.fromkeys(pieces, spelling)
    return found


def _forms(
    tokenizer: PreTrainedTokenizerBase, spelling: str, before: str, overlap: str, *, cases: bool = True
) -> Iterator[list[int]]:
    """The tokens of every form of a verdict after a prompt, without forms that change the prompt's own tokens."""
    forms = [spelling]
    if cases and len(spelling) > 1:  # " a" is an article before it is a verdict
        forms = list(dict.fromkeys([spelling, spelling.lower(), spelling.capitalize(), spelling.upper()]))
    for form in forms:
        for space in dict.fromkeys([" ", overlap, ""]):
            changed, ids = continuation(tokenizer, before, space + form)
            if not changed:
                yield ids


def _says_something(tokenizer: PreTrainedTokenizerBase, token: int, least: int = 1) -> bool:
    """Whether a token is not the unknown one, and stands for some characters besides white space."""
    return token != tokenizer.unk_token_id and len(str(tokenizer.decode([token])).strip()) >= least


def _written(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    return [str(one) for one in tokenizer.convert_ids_to_tokens(list(ids))]
