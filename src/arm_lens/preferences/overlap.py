"""Overlap between the examples that a judge is given and the test that it is measured on.

A judge that has read a response with its label, and is then asked about the same response, is measured on what it was
told. Two examples overlap if they share a prompt together with a response, whatever the white space. Texts that are
classified have no prompt, or one for all, which says nothing about a text: between such sides, a response is enough.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from arm_lens.preferences.splits import words_of
from arm_lens.preferences.types import LabelledResponse, Preference, TiedPair, responses_of
from arm_lens.storage import digest_of, digest_of_bytes

MAX_LISTED = 5
"""How many overlapping ids a message names."""


class OverlapError(ValueError):
    """Examples that a judge is given are also in its test; the message names both."""


class OverlapWarning(UserWarning):
    """Examples that a judge is given are also in its test; the message names both."""


@dataclass(frozen=True)
class Overlap:
    """The ids of the examples that overlap, on either side, in their order. An example without an id is named by number."""

    examples: tuple[str, ...]
    test: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.examples)

    def __str__(self) -> str:
        return (
            f"{len(self.test)} of the test's responses are also among the examples, with the same prompt: "
            f"{self.named('test')}"
        )

    def named(self, test: str) -> str:
        """The ids on either side; ``test`` is what the second is called."""
        return f"{_listed(self.test)} in the {test}, {_listed(self.examples)} in the examples"


def find_overlap(examples: Sequence[Preference], test: Sequence[Preference]) -> Overlap:
    """The examples and the test items with a text in common: a prompt and a response, white space aside."""
    texts, tested = _texts(examples), _texts(test)
    shared = {text for one in texts for text in one} & {text for one in tested for text in one}
    return Overlap(_ids(examples, texts, shared, "example"), _ids(test, tested, shared, "test item"))


def check_overlap(
    examples: Sequence[Preference], test: Sequence[Preference], *, on_overlap: Literal["raise", "warn"] = "raise"
) -> Overlap:
    """Refuse a test that shares responses with the examples, or warn of it.

    Raises:
        OverlapError: if there is an overlap, unless ``on_overlap`` is ``warn``, which warns with an `OverlapWarning`.
    """
    found = find_overlap(examples, test)
    if found and on_overlap == "raise":
        raise OverlapError(f"{found}; divide the data with split_preferences, or leave these out")
    if found:
        warnings.warn(OverlapWarning(str(found)), stacklevel=2)
    return found


def contradictions(examples: Iterable[Preference | TiedPair]) -> list[tuple[str, str]]:
    """The ids of the examples that contradict an earlier one of the same criterion, each after the id of that one.

    They are about the same texts, white space aside, and have the other label, or chose the other response.
    """
    first: dict[Hashable, tuple[object, str]] = {}
    found = []
    for example in examples:
        if isinstance(example, TiedPair):
            continue
        texts = [words_of(response) for response in responses_of(example)]
        says = example.label if isinstance(example, LabelledResponse) else texts[0]
        about = (example.criterion, words_of(example.prompt), frozenset(texts))
        said, earlier = first.setdefault(about, (says, example.id))
        if said != says:
            found.append((earlier, example.id))
    return found


def text_digests(examples: Iterable[Preference]) -> tuple[str, ...]:
    """Short digests, sorted, of all prompts with a response to them, white space aside.

    A judge that has them recognises a text that it was fitted on (`known_among`), and reveals none.
    """
    return tuple(sorted({_digest(text) for texts in _texts(list(examples)) for text in texts}))


def data_digest(examples: Iterable[Preference]) -> str:
    """The SHA-256 of examples in their order, of their texts, labels and criteria: the same for the same data only."""
    content = [
        [one.prompt, *responses_of(one), getattr(one, "label", None), one.criterion]  # a pair has no label
        for one in examples
    ]
    return digest_of_bytes(json.dumps(content, sort_keys=True).encode())


def known_among(test: Sequence[Preference], digests: Collection[str]) -> tuple[str, ...]:
    """The ids of the test items with a text that has one of these `text_digests`; numbers for those without an id."""
    known = frozenset(digests)
    if not known:
        return ()
    found = [any(_digest(text) in known for text in texts) for texts in _texts(test)]
    names = [one.id or f"test item {number}" for number, one in enumerate(test, start=1)]
    return tuple(name for name, is_known in zip(names, found, strict=True) if is_known)


def _digest(text: tuple[str, str]) -> str:
    return digest_of(list(text))[:16]


def _texts(side: Sequence[Preference]) -> list[list[tuple[str, str]]]:
    """The prompt and each response of every example; also without the prompt if several have the same one."""
    prompts = [words_of(example.prompt) for example in side]
    is_shared = len(side) > 1 and len(set(prompts)) == 1
    return [
        [
            (each, words_of(response))
            for response in responses_of(example)
            for each in ({prompt, ""} if is_shared else {prompt})
        ]
        for prompt, example in zip(prompts, side, strict=True)
    ]


def _ids(
    side: Sequence[Preference], texts: Sequence[Iterable[tuple[str, str]]], shared: set[tuple[str, str]], name: str
) -> tuple[str, ...]:
    return tuple(
        example.id or f"{name} {number}"
        for number, (example, own) in enumerate(zip(side, texts, strict=True), start=1)
        if not shared.isdisjoint(own)
    )


def _listed(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return ", ".join(ids[:MAX_LISTED]) + rest
