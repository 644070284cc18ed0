"""The two forms of a preference, and the texts and conversations they are made of.

Both forms check themselves when made, so that whatever holds one may rely on it: there is a prompt, there is something
to judge, and a pair has a difference to prefer by.
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
"""Plain text, or a conversation. Examples accept a list of messages too, and keep it as a tuple."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class PreferenceFieldError(ValueError):
    """A field of a preference does not hold what it should."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        """Name of the field at fault."""
        self.reason = reason
        """What is wrong with it, to be read after the field's name."""

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


@dataclass(frozen=True, init=False)
class PreferencePair:
    """A prompt and two responses, of which the first was chosen over the second.

    Equality takes every field into account; the hash leaves out ``metadata``, which may hold anything.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message malformed, a response of
            messages does not begin and end with the assistant, or both responses are the same.
    """

    prompt: Prompt
    chosen: Prompt
    rejected: Prompt
    criterion: str
    """In what respect the chosen response is better; empty if it has no wording."""
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
        metadata: Mapping[str, Any] = _NOTHING,
    ) -> None:
        _set(self, "prompt", as_prompt("prompt", prompt))
        _set(self, "chosen", as_response("chosen", chosen))
        _set(self, "rejected", as_response("rejected", rejected))
        if text_of(self.chosen).strip() == text_of(self.rejected).strip():
            raise PreferenceFieldError("rejected", f"is the same as chosen: {shown(rejected)}")
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        texts = (_key(self.prompt), _key(self.chosen), _key(self.rejected))
        return hash((PreferencePair, *texts, self.criterion, self.id))


@dataclass(frozen=True, init=False)
class LabelledResponse:
    """A prompt, one response to it, and whether the response meets the criterion.

    Equality takes every field into account; the hash leaves out ``metadata``, which may hold anything.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if a text is blank, a message malformed, a response of
            messages does not begin and end with the assistant, or the label is neither True nor False.
    """

    prompt: Prompt
    response: Prompt
    label: bool
    criterion: str
    """What the response does or does not meet; empty if it has no wording."""
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
        metadata: Mapping[str, Any] = _NOTHING,
    ) -> None:
        _set(self, "prompt", as_prompt("prompt", prompt))
        _set(self, "response", as_response("response", response))
        if not isinstance(label, bool):
            raise PreferenceFieldError("label", f"is {shown(label)}, not True or False")
        _set(self, "label", label)
        _set_rest(self, criterion, id, metadata)

    def __hash__(self) -> int:
        texts = (_key(self.prompt), _key(self.response))
        return hash((LabelledResponse, *texts, self.label, self.criterion, self.id))


Preference: TypeAlias = PreferencePair | LabelledResponse


def unpair(examples: Iterable[Preference]) -> list[LabelledResponse]:
    """Each pair as two labelled responses, the chosen one first; labelled responses as they are.

    The two carry the pair's criterion and metadata, and its id with ``/chosen`` and ``/rejected`` after it.
    """
    singles: list[LabelledResponse] = []
    for example in examples:
        if isinstance(example, LabelledResponse):
            singles.append(example)
            continue
        for part, response in (("chosen", example.chosen), ("rejected", example.rejected)):
            single = LabelledResponse(
                example.prompt,
                response,
                part == "chosen",
                criterion=example.criterion,
                id=f"{example.id}/{part}" if example.id else "",
                metadata=example.metadata,
            )
            singles.append(single)
    return singles


def text_of(prompt: str | Sequence[Message]) -> str:
    r"""The plain text of a prompt or response, as a base model may read it.

    Text is left as it is, and so is the content of a lone message; a longer conversation becomes
    ``User: ...\n\nAssistant: ...``.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)


def as_prompt(field: str, value: object) -> Prompt:
    """The text, or the messages as a tuple of copies.

    Raises:
        PreferenceFieldError: naming the field, if the value is neither, or holds nothing to read.
    """
    if isinstance(value, str):
        if not value.strip():
            raise PreferenceFieldError(field, f"is blank: {shown(value)}")
        return value
    if not isinstance(value, (list, tuple)):
        raise PreferenceFieldError(field, f"is {shown(value)}, not text or a list of messages")
    messages = tuple(_checked_message(field, number, message) for number, message in enumerate(value, start=1))
    if not any(message["content"].strip() for message in messages):
        raise PreferenceFieldError(field, f"has no message with any text: {shown(value)}")
    return messages


def as_response(field: str, value: object) -> Prompt:
    """`as_prompt` for what the assistant says, from the first message to the last."""
    response = as_prompt(field, value)
    if not isinstance(response, str):
        for place, message in (("begins", response[0]), ("ends", response[-1])):
            if message["role"] != "assistant":
                raise PreferenceFieldError(field, f"{place} with a message of {message['role']!r}, not the assistant")
    return response


def _checked_message(field: str, number: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise PreferenceFieldError(field, f"has {shown(message)} as message {number}, not a role and a content")
    for key in ("role", "content"):
        if key not in message:
            raise PreferenceFieldError(field, f"has no {key!r} in message {number}: {shown(message)}")
        if not isinstance(message[key], str):
            raise PreferenceFieldError(field, f"has a {key!r} that is not text in message {number}: {shown(message)}")
    if not message["role"].strip():
        raise PreferenceFieldError(field, f"has a blank 'role' in message {number}: {shown(message)}")
    unknown = [key for key in message if key not in ("role", "content")]
    if unknown:
        # Dropping a tool call or a name would change what was said without anybody noticing.
        raise PreferenceFieldError(field, f"has {unknown[0]!r} in message {number}, beside its role and content")
    return Message(role=message["role"], content=message["content"])


def _set(example: Preference, field: str, value: object) -> None:
    """Set a field of a frozen example while it is being made."""
    object.__setattr__(example, field, value)


def _set_rest(example: Preference, criterion: object, id: object, metadata: object) -> None:
    for name, value in (("criterion", criterion), ("id", id)):
        if not isinstance(value, str):
            raise PreferenceFieldError(name, f"is {shown(value)}, not text")
        _set(example, name, value)
    if not isinstance(metadata, Mapping):
        raise PreferenceFieldError("metadata", f"is {shown(metadata)}, not a mapping")
    _set(example, "metadata", dict(metadata))


def _key(prompt: Prompt) -> str | tuple[tuple[str, str], ...]:
    """The content, hashable: a message is a dictionary, which is not."""
    return prompt if isinstance(prompt, str) else tuple((message["role"], message["content"]) for message in prompt)


def shown(value: object) -> str:
    """The value as an error shows it: with its type unless the value itself tells, and not at length."""
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    tells = value is None or isinstance(value, (str, list, tuple, dict))
    return text if tells else f"{text} ({type(value).__name__})"
