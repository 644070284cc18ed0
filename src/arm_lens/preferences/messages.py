"""Prompts and responses as plain text or conversations, with one check that every way in goes through.

A conversation is a list of messages, each with a role and a content. Judges read text, so a message is reduced to text
here, or refused in words:

- a content that is a list of parts is their texts, one below the other; in an image's place stands its mark
  (`arm_lens.preferences.images`). An image is ``{"type": "image", "image": ...}`` (or ``path``, ``url``, ``base64``) or
  ``{"type": "image_url", "image_url": {"url": ...}}``. A sound or a file is refused, because no judge hears or opens it;
- tool calls become part of the content, each on a line of its own, so that different calls are different texts::

      <tool_call>{"name": "delete", "arguments": {"path": "/tmp"}, "id": "call_1"}</tool_call>

  An argument that is null counts as absent, since Arrow cannot distinguish the two;
- the name and the id of a tool's answer begin its content: ``[list_files, call_1] a.txt``;
- a content that is None or missing is an error, unless the message calls a tool;
- a key that is none of these is an error, since dropping it would change what was said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict, runtime_checkable

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.images import Image, as_image, check_marks, from_base64


@runtime_checkable
class ReadImage(Protocol):
    """Makes an image of what a message or a row has for one, such as `as_image` with its options."""

    def __call__(self, value: object, *, field: str) -> Image:
        """The image; a PreferenceFieldError that names ``field`` if there is none."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]
"""Plain text, or a conversation. Examples also accept a list of messages, and store it as a tuple."""

MAX_DEPTH = 64
"""How deeply the arguments of a tool call may be nested."""

_CALLS = ("tool_calls", "function_call")
_KNOWN_KEYS = frozenset({"role", "content", "name", "tool_call_id", *_CALLS})
_IMAGE_TYPES = ("image", "image_url", "input_image")
_IMAGE_KEYS = ("image", "image_url", "url", "path", "base64")


def text_of(prompt: object, field: str = "the text") -> str:
    r"""The plain text of a prompt or response, for models without a chat template.

    Plain text is returned unchanged, and a single message as its content; a longer conversation becomes
    ``User: ...\n\nAssistant: ...``. The images of a text need not be known, so that stored results can be shown without them.

    Raises:
        PreferenceFieldError: if it is neither text nor messages that can be read as text; it names ``field``.
    """
    if isinstance(prompt, str):
        return prompt
    messages = messages_of(field, prompt, known_images=False)
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def as_prompt(field: str, value: object, *, blank: bool = False, read_image: ReadImage = as_image) -> Prompt:
    """The text unchanged, or the messages as a tuple, each reduced to a role and a text.

    Args:
        field: what errors call it.
        value: text or messages.
        blank: accept an empty text: there is no prompt.
        read_image: how the images of messages are read.

    Raises:
        PreferenceFieldError: if the value is neither, or has no text in it.
    """
    if isinstance(value, str):
        if not value.strip() and not (blank and value == ""):
            raise PreferenceFieldError(field, f"is blank: {short_repr(value)}")
        check_unicode(field, value)
        return value
    messages = messages_of(field, value, read_image)
    if not any(message["content"].strip() for message in messages):
        raise PreferenceFieldError(field, f"has no message with any text: {short_repr(value)}")
    return messages


def as_response(field: str, value: object, *, read_image: ReadImage = as_image) -> Prompt:
    """`as_prompt` for a response: messages must begin and end with the assistant."""
    response = as_prompt(field, value, read_image=read_image)
    if not isinstance(response, str):
        for verb, message in (("begins", response[0]), ("ends", response[-1])):
            if message["role"] != "assistant":
                raise PreferenceFieldError(field, f"{verb} with a message from {message['role']!r}, not the assistant")
    return response


def as_prompts(field: str, values: Iterable[object], *, blank: bool = False) -> list[Prompt]:
    """`as_prompt` of several values; errors name their number, counted from 1: ``prompt 3 is None, ...``."""
    return [as_prompt(f"{field} {number}", value, blank=blank) for number, value in enumerate(values, start=1)]


def messages_of(
    field: str, value: object, read_image: ReadImage = as_image, *, known_images: bool = True
) -> tuple[Message, ...]:
    """The messages of a conversation, each reduced to a role and a text.

    Args:
        field: what errors call it.
        value: the messages.
        read_image: how their images are read.
        known_images: refuse the mark of an image that was not read in this process.

    Raises:
        PreferenceFieldError: if the value is not a list of messages, or a message cannot be reduced to text.
        ImportError: if there is an image and Pillow is not installed.
    """
    if not isinstance(value, (list, tuple)):
        raise PreferenceFieldError(field, f"is {short_repr(value)}, not text or a list of messages")
    messages = tuple(_message(field, number, message, read_image) for number, message in enumerate(value, start=1))
    for message in messages:
        for text in (message["role"], message["content"]):
            check_unicode(field, text, known_images=known_images)
    return messages


def _message(field: str, number: int, value: object, read_image: ReadImage) -> Message:
    if not isinstance(value, Mapping):
        raise PreferenceFieldError(field, f"has {short_repr(value)} as message {number}, not a role and a content")
    # In Arrow, every message has the keys of all messages; those it lacks are None.
    message = {key: item for key, item in value.items() if key == "content" or not _is_empty(item)}
    if "role" not in message:
        raise PreferenceFieldError(field, f"has no 'role' in message {number}: {short_repr(value)}")
    role = message["role"]
    if not isinstance(role, str):
        raise PreferenceFieldError(field, f"has a 'role' that is not text in message {number}: {short_repr(value)}")
    if not role.strip():
        raise PreferenceFieldError(field, f"has a blank 'role' in message {number}: {short_repr(value)}")
    unknown = [key for key in message if key not in _KNOWN_KEYS]
    if unknown:
        raise PreferenceFieldError(field, f"has {unknown[0]!r} in message {number}, in addition to role and content")
    calls = [_call(field, number, call) for name in _CALLS if name in message for call in _as_list(message[name])]
    content = message.get("content")
    if content is None and not calls:
        raise PreferenceFieldError(field, f"has no 'content' in message {number}: {short_repr(value)}")
    text = "" if content is None else _content(field, number, content, read_image)
    if role == "tool":
        source = ", ".join(
            _name(field, number, key, message[key]) for key in ("name", "tool_call_id") if key in message
        )
        text = f"[{source}] {text}" if source else text
    elif "name" in message or "tool_call_id" in message:
        key = "name" if "name" in message else "tool_call_id"
        raise PreferenceFieldError(field, f"has {key!r} in message {number}, in addition to role and content")
    return Message(role=role, content="\n".join([text, *calls] if text else calls))


def _is_empty(item: object) -> bool:
    return item is None or (isinstance(item, (list, tuple)) and not item)


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [value]


def _name(field: str, number: int, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise PreferenceFieldError(field, f"has a {key!r} that is not text in message {number}: {short_repr(value)}")
    return value


def _content(field: str, number: int, content: object, read_image: ReadImage) -> str:
    """The text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)) or not all(isinstance(part, Mapping) for part in content):
        raise PreferenceFieldError(
            field, f"has a 'content' that is not text in message {number}: {short_repr(content)}"
        )
    texts = []
    for part in content:
        kind = part.get("type", "text")
        if kind in _IMAGE_TYPES:
            texts.append(_image(field, number, part, read_image).mark)
            continue
        if kind != "text":
            raise PreferenceFieldError(
                field, f"has a part of type {kind!r} in message {number}, which a judge that reads text cannot see"
            )
        extra = [key for key, item in part.items() if key not in ("type", "text") and item is not None]
        if not isinstance(part.get("text"), str) or extra:
            raise PreferenceFieldError(
                field, f"has a part without a text of its own in message {number}: {short_repr(dict(part))}"
            )
        texts.append(part["text"])
    return "\n".join(texts)


def is_bare_image(part: object) -> bool:
    """Whether a part of a message stands for an image that is elsewhere: ``{"type": "image"}``."""
    if not isinstance(part, Mapping) or part.get("type") not in _IMAGE_TYPES:
        return False
    return all(key in ("type", "index") or item is None or item == "" for key, item in part.items())


def _image(field: str, number: int, part: Mapping[str, Any], read_image: ReadImage) -> Image:
    """The image of a part."""
    if is_bare_image(part):
        raise PreferenceFieldError(
            field,
            f"has a place for an image in message {number}, but no image: put it into the part or a column images",
        )
    filled = {key: item for key, item in part.items() if item is not None and item != ""}
    sources = [key for key in _IMAGE_KEYS if key in filled]
    unknown = [key for key in filled if key not in ("type", "detail", *_IMAGE_KEYS)]
    if len(sources) != 1 or unknown:
        raise PreferenceFieldError(
            field, f"has an image in message {number} that is not one of {', '.join(_IMAGE_KEYS)}: {short_repr(filled)}"
        )
    value = filled[sources[0]]
    try:
        if sources == ["base64"] and isinstance(value, str) and not value.startswith("data:"):
            value = from_base64(value, field)
        return read_image(value, field=field)
    except PreferenceFieldError as error:
        raise PreferenceFieldError(field, f"has an image in message {number} that {error.reason}") from error


def _call(field: str, number: int, call: object) -> str:
    """A tool call in one line of text."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PreferenceFieldError(
            field, f"has a tool call without the name of a function in message {number}: {short_repr(call)}"
        )
    allowed = (
        {"type", "id", "index", "function"} if function is not call else {"type", "id", "index", "name", "arguments"}
    )
    unknown = [key for key, item in call.items() if item is not None and key not in allowed]
    if function is not call:
        unknown += [key for key, item in function.items() if item is not None and key not in ("name", "arguments")]
    if unknown:
        raise PreferenceFieldError(field, f"has a tool call with {unknown[0]!r} in message {number}, which is unknown")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed_object(arguments)
    try:
        written = {"name": function["name"], "arguments": _without_none({} if arguments is None else arguments)}
        if call.get("id") is not None:
            written["id"] = call["id"]
        return f"<tool_call>{json.dumps(written, ensure_ascii=False, allow_nan=False)}</tool_call>"
    except (TypeError, ValueError) as error:
        raise PreferenceFieldError(
            field, f"has a tool call in message {number} that is not JSON ({error}): {short_repr(call)}"
        ) from error


def _parsed_object(arguments: str) -> Any:
    """Arguments written as a JSON object; others stay text, such as those of a model that wrote no JSON."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _without_none(value: Any, depth: int = 0) -> Any:
    """The value without keys that are None, which Arrow fills in for keys that only others have; keys in order."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {key: _without_none(value[key], depth + 1) for key in sorted(value, key=str) if value[key] is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item, depth + 1) for item in value]
    return value


def check_unicode(field: str, text: str, *, known_images: bool = True) -> None:
    """Refuse half of a surrogate pair, which no encoding of text can express, and marks of images that are not known."""
    if text.isascii():
        return
    check_marks(field, text, known=known_images)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = ascii(text[error.start])
        raise PreferenceFieldError(
            field, f"has {found} at character {error.start + 1}, half of a character that is not text"
        ) from error
