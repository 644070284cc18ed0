"""Texts as token sequences, and token sequences of unequal length as one batch.

A prompt consists of a template's own words and of texts that were given: prompts, responses, a criterion. `MarkedText`
knows which is which, and `encode_text` reads a control token (``<|im_end|>``, ``</s>``) as such only where the template
wrote it. In a text that was given, the same characters are ordinary text, so that no response can end its turn and begin
another.

Padding goes on the left unless asked for on the right, so that every sequence's last token, where the verdict is due and
activations are read and written, stands at the last position.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

BRACKETED = re.compile(r"[<\[{].*[>\]}]", re.DOTALL)
"""What control tokens look like that a tokenizer does not call special."""
LAST_PRIVATE = 0x10FFFD
"""The last character for private use; some such character marks the template's control tokens."""


class PromptError(ValueError):
    """A model cannot read a prompt."""


class PromptTooLongError(PromptError):
    """A prompt does not fit into the model's context; prompts are never cut."""


class UnreadableTextError(PromptError):
    """A tokenizer or a model cannot read a text as it is: it has a token that the model has no embedding of, say."""


class MixedLengthsError(ValueError):
    """Prompts of different lengths cannot be read together, because each would change the others' logits."""


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


class Span(NamedTuple):
    """Where a text that was given stands in a longer one."""

    field: str
    """What it is: ``prompt``, ``response``, ``criterion``, ``system``."""
    start: int
    end: int


class MarkedText(str):
    """A text that knows which of its parts were given; the rest are the template's own words.

    It keeps that knowledge when texts are added, joined or shortened with its own methods; other methods of ``str`` give
    plain texts.
    """

    given: tuple[Span, ...]

    def __new__(cls, text: str, given: Iterable[tuple[str, int, int]] = ()) -> MarkedText:
        """A text with the parts that were given, in order; they must not overlap."""
        made = super().__new__(cls, text)
        made.given = tuple(Span(*span) for span in given)
        return made

    @classmethod
    def of(cls, field: str, text: str) -> MarkedText:
        """A text that was given as a whole."""
        return cls(text, [(field, 0, len(text))] if text else [])

    @classmethod
    def joined(cls, texts: Iterable[str]) -> MarkedText:
        """Several texts as one; a plain ``str`` among them counts as the template's own words."""
        whole, given, start = [], [], 0
        for text in texts:
            if isinstance(text, MarkedText):
                given += [Span(one.field, one.start + start, one.end + start) for one in text.given]
            whole.append(text)
            start += len(text)
        return cls("".join(whole), given)

    def __add__(self, other: str) -> MarkedText:
        return MarkedText.joined([self, other])

    def __radd__(self, other: str) -> MarkedText:
        return MarkedText.joined([other, self])

    def between(self, start: int, end: int) -> MarkedText:
        """A part of the text, by character numbers."""
        inside = [Span(one.field, max(one.start, start) - start, min(one.end, end) - start) for one in self.given]
        return MarkedText(self[start:end], [one for one in inside if one.start < one.end])

    def part(self, field: str) -> str:
        """The text that was given for a field; empty if there is none."""
        return "".join(self[one.start : one.end] for one in self.given if one.field == field)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text, without special tokens around it.

    A control token within a part of a `MarkedText` that was given is read as ordinary characters. Without such a token
    the ids are those of ``tokenizer.encode``.

    Raises:
        UnreadableTextError: naming the control token, if it was given and the tokenizer cannot read it as text, because
            the tokenizer is not one of the tokenizers library.
    """
    given = text.given if isinstance(text, MarkedText) else ()
    pattern = _control_pattern(tokenizer) if given else None
    clashing = pattern and next(
        (
            match[0]
            for match in pattern.finditer(text)
            if any(match.start() < one.end and one.start < match.end() for one in given)
        ),
        None,
    )
    if pattern is None or clashing is None:
        return _ordinary_ids(tokenizer, text)
    mark = next(chr(code) for code in range(LAST_PRIVATE, 0, -1) if chr(code) not in text)
    ends = [0, *(edge for one in given for edge in (one.start, one.end)), len(text)]
    sections = [text[start:end] for start, end in pairwise(ends)]
    marked = [  # every second section was given
        section if number % 2 else pattern.sub(lambda token: mark + token[0] + mark, section)
        for number, section in enumerate(sections)
    ]
    guarded, number_of = _guarded(tokenizer, mark, clashing)
    return [number_of.get(one, one) for one in guarded.encode("".join(marked), add_special_tokens=False).ids]


def _ordinary_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What ``tokenizer.encode`` gives, whole even if another thread has the same tokenizer truncate or pad meanwhile."""
    while True:
        found = tokenizer(text, add_special_tokens=False)
        if not any(one.overflowing or 0 in one.attention_mask for one in found.encodings or ()):
            return list(found["input_ids"])


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The tokens that end and begin turns: special ones, and tags (``<think>``) that the chat template writes."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    added = {str(token.content): token.special for token in tokenizer.added_tokens_decoder.values()}
    added |= dict.fromkeys(map(str, tokenizer.all_special_tokens), True)
    return tuple(
        sorted(
            token
            for token, special in added.items()
            if token.strip() and (special or (BRACKETED.fullmatch(token) and token in template))
        )
    )


def continuation(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> tuple[int, list[int]]:
    """The token ids of a text as it stands after another.

    Tokenizers of the SentencePiece kind spell the first word of a text differently from the same word further on.

    Returns:
        how many of the last tokens of ``before`` are other ones if ``text`` follows, because characters of both are one
        token; and all tokens after the ones that stay.
    """
    alone, whole = encode_text(tokenizer, before), encode_text(tokenizer, MarkedText.joined([before, text]))
    same = 0
    while same < min(len(alone), len(whole)) and alone[same] == whole[same]:
        same += 1
    return len(alone) - same, whole[same:]


_GUARDED: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[object, tuple[Tokenizer, dict[int, int]]]] = (
    weakref.WeakKeyDictionary()
)


def _control_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    tokens = sorted(control_tokens(tokenizer), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _guarded(tokenizer: PreTrainedTokenizerBase, mark: str, clashing: str) -> tuple[Tokenizer, dict[int, int]]:
    """The same tokenizer with every control token renamed, so that it is found only between two marks.

    The second is the number of each of its control tokens in the original tokenizer.
    """
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UnreadableTextError(
            f"a text contains {clashing!r}, a control token, which a {type(tokenizer).__name__} cannot read as text; "
            "use the tokenizer's fast version, or take the token out of the text"
        )
    control = control_tokens(tokenizer)
    known, key = _GUARDED.setdefault(tokenizer, {}), (mark, control, len(tokenizer))
    if key not in known:
        renamed = {token: mark + token + mark for token in control}
        content: dict[str, Any] = json.loads(backend.to_str())
        content |= {"post_processor": None, "truncation": None, "padding": None}
        for token in content["added_tokens"]:
            if token["content"] in renamed:
                token |= {"content": renamed[token["content"]], "normalized": False}
        model = content["model"]
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = {renamed.get(token, token): number for token, number in model["vocab"].items()}
        elif "vocab" in model:  # Unigram has pairs of a token and its score
            model["vocab"] = [[renamed.get(token, token), score] for token, score in model["vocab"]]
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
        made = Tokenizer.from_str(json.dumps(content))
        pairs = {made.token_to_id(new): backend.token_to_id(token) for token, new in renamed.items()}
        known[key] = made, {new: old for new, old in pairs.items() if new is not None and old is not None}
    return known[key]


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
