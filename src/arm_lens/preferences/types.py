"""The two forms of a preference, and the texts and conversations they are made of.

Both forms are validated when they are created, so later code can rely on them: the prompt and the responses are not
blank, and the two responses of a pair differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]
"""Plain text, or a conversation. Examples also accept a list of messages, and store it as a tuple."""


class PreferenceFieldError(ValueError):
    """A field of a preference has an invalid value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        """Name of the invalid field."""
        self.reason = reason
        """What is wrong with it, phrased to follow the field's name."""

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


@dataclass(frozen=True, init=False)
class PreferencePair:
    """A prompt and two responses, of which the first was chosen over the second.

    Equality compares every field; the hash leaves out ``metadata``, which need not be hashable.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message is malformed, a response
            made of messages does not begin and end with the assistant, or both responses are the same.
    """

    prompt: Prompt
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
        vars(self).update(prompt=as_prompt("prompt", prompt))  # the dataclass is frozen
        vars(self).update(chosen=as_response("chosen", chosen), rejected=as_response("rejected", rejected))
        if text_of(self.chosen).strip() == text_of(self.rejected).strip():
            raise PreferenceFieldError("rejected", f"is the same as chosen: {short_repr(rejected)}")
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        return hash((text_of(self.prompt), text_of(self.chosen), text_of(self.rejected), self.criterion, self.id))


@dataclass(frozen=True, init=False)
class LabelledResponse:
    """A prompt, one response to it, and whether the response meets the criterion.

    Equality compares every field; the hash leaves out ``metadata``, which need not be hashable.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message is malformed, a response
            made of messages does not begin and end with the assistant, or the label is neither True nor False.
    """

    prompt: Prompt
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
        vars(self).update(prompt=as_prompt("prompt", prompt), response=as_response("response", response), label=label)
        if not isinstance(label, bool):
            raise PreferenceFieldError("label", f"is {short_repr(label)}, not True or False")
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        return hash((text_of(self.prompt), text_of(self.response), self.label, self.criterion, self.id))


Preference: TypeAlias = PreferencePair | LabelledResponse


def unpair(examples: Iterable[Preference]) -> list[LabelledResponse]:
    """Turn each pair into two labelled responses, the chosen one first; labelled responses stay as they are.

    Both keep the pair's criterion and metadata; their ids are the pair's with ``/chosen`` or ``/rejected`` appended.
    """
    singles: list[LabelledResponse] = []
    for example in examples:
        if isinstance(example, LabelledResponse):
            singles.append(example)
            continue
        for part, response in (("chosen", example.chosen), ("rejected", example.rejected)):
            id = f"{example.id}/{part}" if example.id else ""
            rest: dict[str, Any] = {"criterion": example.criterion, "id": id, "metadata": example.metadata}
            singles.append(LabelledResponse(example.prompt, response, part == "chosen", **rest))
    return singles


def text_of(prompt: str | Sequence[Message]) -> str:
    r"""The plain text of a prompt or response, for models without a chat template.

    Plain text is returned unchanged, and a single message as its content; a longer conversation becomes
    ``User: ...\n\nAssistant: ...``.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)


def as_prompt(field: str, value: object) -> Prompt:
    """The text unchanged, or the messages copied into a tuple.

    Raises:
        PreferenceFieldError: if the value of the field is neither, or has no text in it.
    """
    if isinstance(value, str):
        if not value.strip():
            raise PreferenceFieldError(field, f"is blank: {short_repr(value)}")
        return value
    if not isinstance(value, (list, tuple)):
        raise PreferenceFieldError(field, f"is {short_repr(value)}, not text or a list of messages")
    messages = tuple(_checked_message(field, number, message) for number, message in enumerate(value, start=1))
    if not any(message["content"].strip() for message in messages):
        raise PreferenceFieldError(field, f"has no message with any text: {short_repr(value)}")
    return messages


def as_response(field: str, value: object) -> Prompt:
    """`as_prompt` for a response: messages must begin and end with the assistant."""
    response = as_prompt(field, value)
    if not isinstance(response, str):
        for verb, message in (("begins", response[0]), ("ends", response[-1])):
            if message["role"] != "assistant":
                raise PreferenceFieldError(field, f"{verb} with a message from {message['role']!r}, not the assistant")
    return response


def _checked_message(field: str, number: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise PreferenceFieldError(field, f"has {short_repr(message)} as message {number}, not a role and a content")
    for key in ("role", "content"):
        if key not in message:
            raise PreferenceFieldError(field, f"has no {key!r} in message {number}: {short_repr(message)}")
        if not isinstance(message[key], str):
            raise PreferenceFieldError(
                field, f"has a {key!r} that is not text in message {number}: {short_repr(message)}"
            )
    if not message["role"].strip():
        raise PreferenceFieldError(field, f"has a blank 'role' in message {number}: {short_repr(message)}")
    unknown = [key for key in message if key not in ("role", "content")]
    if unknown:
        # Dropping a tool call or a name would silently change what was said.
        raise PreferenceFieldError(field, f"has {unknown[0]!r} in message {number}, in addition to role and content")
    return Message(role=message["role"], content=message["content"])


def _set_rest(example: Preference, criterion: object, id: object, metadata: object) -> None:
    for name, value in (("criterion", criterion), ("id", id)):
        if not isinstance(value, str):
            raise PreferenceFieldError(name, f"is {short_repr(value)}, not text")
    if not isinstance(metadata, Mapping):
        raise PreferenceFieldError("metadata", f"is {short_repr(metadata)}, not a mapping")
    vars(example).update(criterion=criterion, id=id, metadata=dict(metadata))


def short_repr(value: object) -> str:
    """The value as error messages quote it: at most 80 characters, and the type where the value does not make it clear."""
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    type_is_clear = value is None or isinstance(value, (str, list, tuple, dict))
    return text if type_is_clear else f"{text} ({type(value).__name__})"
