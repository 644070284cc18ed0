"""The two forms of a preference, and the pair that is none: a tie.

They are validated when they are created, so later code can rely on them: the responses are not blank, and the two
responses of a pair differ. A prompt may be the empty text: texts that are classified need none. Messages are reduced to a
role and a text (`arm_lens.preferences.messages`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeAlias

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.images import images_in, remember
from arm_lens.preferences.marks import describe_images
from arm_lens.preferences.messages import Message, Prompt, as_prompt, as_response, text_of

__all__ = [
    "LabelledResponse",
    "Message",
    "Preference",
    "PreferenceFieldError",
    "PreferencePair",
    "Prompt",
    "TiedPair",
    "responses_of",
    "text_of",
    "unpair",
]


class _Example:
    """What all forms share: how they are shown, and that their images travel with them to other processes."""

    def __repr__(self) -> str:
        written = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self))  # type: ignore[arg-type]
        return describe_images(f"{type(self).__name__}({written})")

    def __getstate__(self) -> dict[str, Any]:
        texts = (value for name, value in vars(self).items() if name != "metadata" and value)
        images = {image for text in texts if not isinstance(text, bool) for image in images_in(text_of(text))}
        return {**vars(self), "images": sorted(images, key=lambda image: image.digest)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for image in state["images"]:
            remember(image)
        vars(self).update({name: value for name, value in state.items() if name != "images"})


@dataclass(frozen=True, init=False, repr=False)
class PreferencePair(_Example):
    """A prompt and two responses, of which the first was chosen over the second.

    Equality compares every field; the hash leaves out ``metadata``, which need not be hashable.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message is malformed, a response
            made of messages does not begin and end with the assistant, or both responses are the same.
    """

    prompt: Prompt
    """Empty text if there is none."""
    chosen: Prompt
    rejected: Prompt
    criterion: str
    """In what respect the chosen response is better; empty if not stated."""
    id: str
    """Unique among the examples it is read with; empty if it has none."""
    metadata: Mapping[str, Any]
    """Whatever else is known about the example; never read by a judge."""

    def __init__(
        self,
        prompt: str | Sequence[Message],
        chosen: str | Sequence[Message],
        rejected: str | Sequence[Message],
        *,
        criterion: str = "",
        id: str = "",
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        vars(self).update(prompt=as_prompt("prompt", prompt, blank=True))  # the dataclass is frozen
        vars(self).update(chosen=as_response("chosen", chosen), rejected=as_response("rejected", rejected))
        if text_of(self.chosen).strip() == text_of(self.rejected).strip():
            raise PreferenceFieldError("rejected", f"is the same as chosen: {short_repr(rejected)}")
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        return hash((text_of(self.prompt), text_of(self.chosen), text_of(self.rejected), self.criterion, self.id))


@dataclass(frozen=True, init=False, repr=False)
class LabelledResponse(_Example):
    """A prompt, one response to it, and whether the response meets the criterion.

    Equality compares every field; the hash leaves out ``metadata``, which need not be hashable.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message is malformed, a response
            made of messages does not begin and end with the assistant, or the label is neither True nor False.
    """

    prompt: Prompt
    """Empty text if there is none, such as for a text that is classified."""
    response: Prompt
    label: bool
    criterion: str
    """What the response does or does not meet; empty if not stated."""
    id: str
    """Unique among the examples it is read with; empty if it has none."""
    metadata: Mapping[str, Any]
    """Whatever else is known about the example; never read by a judge."""

    def __init__(
        self,
        prompt: str | Sequence[Message],
        response: str | Sequence[Message],
        label: bool,
        *,
        criterion: str = "",
        id: str = "",
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        vars(self).update(prompt=as_prompt("prompt", prompt, blank=True), response=as_response("response", response))
        vars(self).update(label=label)
        if not isinstance(label, bool):
            raise PreferenceFieldError("label", f"is {short_repr(label)}, not True or False")
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        return hash((text_of(self.prompt), text_of(self.response), self.label, self.criterion, self.id))


@dataclass(frozen=True, init=False, repr=False)
class TiedPair(_Example):
    """A prompt and two responses of which neither was chosen over the other: not a preference.

    `read_preferences` returns ties only with ``ties="keep"``. What needs a preference refuses them.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank or a message is malformed.
    """

    prompt: Prompt
    response_a: Prompt
    response_b: Prompt
    criterion: str
    id: str
    metadata: Mapping[str, Any]

    def __init__(
        self,
        prompt: str | Sequence[Message],
        response_a: str | Sequence[Message],
        response_b: str | Sequence[Message],
        *,
        criterion: str = "",
        id: str = "",
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        vars(self).update(prompt=as_prompt("prompt", prompt, blank=True))  # the dataclass is frozen
        vars(self).update(response_a=as_response("response_a", response_a))
        vars(self).update(response_b=as_response("response_b", response_b))
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        return hash((text_of(self.prompt), text_of(self.response_a), text_of(self.response_b), self.criterion, self.id))


Preference: TypeAlias = PreferencePair | LabelledResponse


def responses_of(example: Preference | TiedPair) -> tuple[Prompt, ...]:
    """The responses of an example, a pair's chosen one first.

    Raises:
        ValueError: if the example is a tie.
        TypeError: if it is not a preference at all.
    """
    if isinstance(example, LabelledResponse):
        return (example.response,)
    if isinstance(example, PreferencePair):
        return (example.chosen, example.rejected)
    if isinstance(example, TiedPair):
        name = repr(example.id) if example.id else short_repr(text_of(example.prompt))
        raise ValueError(f"{name} is a tie, which states no preference: leave ties out with ties='drop'")
    path = " (a path, too, is given to it first)" if isinstance(example, str) else ""
    raise TypeError(
        f"{short_repr(example)} is not a PreferencePair or LabelledResponse; read_preferences makes them of rows and "
        f"files{path}"
    )


def unpair(examples: Iterable[Preference]) -> list[LabelledResponse]:
    """Turn each pair into two labelled responses, the chosen one first; labelled responses stay as they are.

    Both keep the pair's criterion and metadata; their ids are the pair's with ``/chosen`` or ``/rejected`` appended.

    Raises:
        ValueError: if an example is a tie.
        TypeError: if an example is not a preference at all.
    """
    singles: list[LabelledResponse] = []
    for example in examples:
        if isinstance(example, LabelledResponse):
            singles.append(example)
            continue
        for part, response in zip(("chosen", "rejected"), responses_of(example), strict=True):
            id = f"{example.id}/{part}" if example.id else ""
            rest: dict[str, Any] = {"criterion": example.criterion, "id": id, "metadata": example.metadata}
            singles.append(LabelledResponse(example.prompt, response, part == "chosen", **rest))
    return singles


def _set_rest(example: Preference | TiedPair, criterion: object, id: object, metadata: object) -> None:
    for name, value in (("criterion", criterion), ("id", id)):
        if not isinstance(value, str):
            raise PreferenceFieldError(name, f"is {short_repr(value)}, not text")
    if not isinstance(metadata, Mapping):
        raise PreferenceFieldError("metadata", f"is {short_repr(metadata)}, not a mapping")
    vars(example).update(criterion=criterion, id=id, metadata=dict(metadata))
