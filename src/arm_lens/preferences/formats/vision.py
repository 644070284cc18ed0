"""Images that a row has in a column of their own, put into its texts: TRL's layout of vision data.

Messages may have places for the images, parts ``{"type": "image"}``, which are filled in order: those of the prompt first,
then those of a response. If there are none, the images stand at the beginning of the first user message, or of the prompt if
it is plain text. If a text has images already, they have to be those of the column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from arm_lens.preferences.fields import PreferenceFieldError
from arm_lens.preferences.formats.rows import Record
from arm_lens.preferences.images import Image, as_image, marks_in
from arm_lens.preferences.messages import Prompt, as_prompt, is_bare_image, text_of

IMAGE_COLUMNS = ("image", "images")
"""The columns that images are in, next to texts."""


def with_images(
    record: Record, *, columns: Sequence[str] = IMAGE_COLUMNS, prompt: str = "prompt", responses: Sequence[str] = ()
) -> Record:
    """The row with its images in its texts.

    Args:
        record: the row.
        columns: those that may have the images; one of them at most.
        prompt: the field of the prompt.
        responses: the fields of the responses.

    Raises:
        PreferenceFieldError: if an image cannot be read, or if there are not as many places as images.
    """
    filled = record.filled()
    named = [column for column in columns if column in filled and filled[column] != []]
    if len(named) > 1:
        raise PreferenceFieldError(named[0], f"is given as well as {named[1]}: leave one of them out")
    images = record.images(named[0]) if named else []
    texts = {name: record.given(name) for name in (prompt, *responses) if name in filled}
    if not images or not texts:
        return record
    asked = texts.pop(prompt, "")
    conversations = {name for name, value in texts.items() if _first_role(value) not in ("", "assistant")}
    places = {name: _n_places(value) for name, value in texts.items()}
    n_asked = _n_places(asked)
    if n_asked or any(places.values()):
        for name, count in (places or {prompt: 0}).items():
            found = count if name in conversations else count + n_asked
            if found != len(images):
                where = prompt if not count else name if name in conversations else f"{prompt} and {name}"
                raise PreferenceFieldError(
                    named[0], f"has {_counted(len(images), 'image')} for {_counted(found, 'place')} in {where}"
                )
        changed = {prompt: _filled(named[0], asked, images)} if n_asked else {}
        for name, value in texts.items():
            changed[name] = _filled(named[0], value, images[0 if name in conversations else n_asked :])
        return replace(record, cells={**record.cells, **changed})
    there = {digest for name in (prompt, *texts) if name in filled for digest in marks_in(_text(record, name))}
    if there:
        if there != {image.digest for image in images}:
            raise PreferenceFieldError(named[0], "has other images than the texts")
        return record
    if not asked and any(isinstance(value, str) and value.lstrip().startswith("Human:") for value in texts.values()):
        raise PreferenceFieldError(
            named[0], "is next to a transcript, in which it has no place: write the turns as messages"
        )
    changed = {name: _begun(name, texts[name], images) for name in conversations}
    if asked or not (conversations or record.reading.has_prompts):
        changed[prompt] = _begun(prompt, asked, images)
    return replace(record, cells={**record.cells, **changed})


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _text(record: Record, name: str) -> str:
    value = record.part(name).value
    return text_of(value, name) if isinstance(value, (str, list)) else ""


def _messages(value: Any) -> list[Mapping[str, Any]]:
    return [message for message in value if isinstance(message, Mapping)] if isinstance(value, list) else []


def _first_role(value: Any) -> str:
    messages = _messages(value)
    return str(messages[0].get("role")) if messages else ""


def _n_places(value: Any) -> int:
    """How many parts of messages stand for images that are in a column."""
    contents = (message.get("content") for message in _messages(value))
    return sum(is_bare_image(part) for content in contents if isinstance(content, list) for part in content)


def _filled(column: str, value: Any, images: Sequence[Image]) -> Any:
    """Messages with the images in their places."""
    if not _n_places(value):
        return value
    left = iter(enumerate(images))

    def image_in(part: Mapping[str, Any]) -> dict[str, Any]:
        number, image = next(left)
        if part.get("index") not in (None, "", number):
            raise PreferenceFieldError(
                column, f"is to be filled in order, but place {number} has index {part['index']}"
            )
        return {"type": "image", "image": image}

    messages = []
    for message in value:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            message = {**message, "content": [image_in(part) if is_bare_image(part) else part for part in content]}
        messages.append(message)
    return messages


def _begun(name: str, value: Any, images: Sequence[Image]) -> Any:
    """A text or messages with the images at the beginning of the text, or of the first message of the user."""
    if isinstance(value, str):
        return "\n".join([*(image.mark for image in images), *([value] if value else [])])
    for index, message in enumerate(_messages(value)):
        if message.get("role") == "user":
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            own = [{"type": "image", "image": image} for image in images]
            begun = {**message, "content": [*own, *(parts or [])]}
            return [*value[:index], begun, *value[index + 1 :]]
    raise PreferenceFieldError(name, "has no message from the user, where the images would stand")


def place_images(prompt: object, images: Sequence[object], *, column: str = "images") -> Prompt:
    """A prompt with the images of its row: in its places for images, or else at its beginning; unchanged if it has them.

    Args:
        prompt: text or messages.
        images: what `arm_lens.preferences.images.as_image` reads.
        column: what errors call the images.

    Raises:
        PreferenceFieldError: if an image cannot be read, or if there are not as many places as images.
    """
    if not images:
        return as_prompt("prompt", prompt, blank=True)
    count, read = _n_places(prompt), [as_image(one, field=column, allow_paths=False) for one in images]
    if count:
        if count != len(read):
            raise PreferenceFieldError(column, f"has {_counted(len(read), 'image')} for {_counted(count, 'place')}")
        return as_prompt("prompt", _filled(column, prompt, read))
    found = as_prompt("prompt", prompt, blank=True)
    if marks_in(text_of(found)):
        return found
    return as_prompt("prompt", _begun("prompt", found if isinstance(found, str) else list(found), read))


def without_images(prompt: Prompt, images: Sequence[Image]) -> Prompt:
    """A prompt without the images that it begins with, if `with_images` puts all of them there again; otherwise ``""``."""
    first = (
        next((message for message in prompt if message["role"] == "user"), None)
        if not isinstance(prompt, str)
        else None
    )
    text = prompt if isinstance(prompt, str) else first["content"] if first else ""
    begin = "\n".join(image.mark for image in images) + "\n"
    if not text.startswith(begin) or not text[len(begin) :].strip():
        return ""
    if isinstance(prompt, str):
        return text[len(begin) :]
    return tuple({**message, "content": text[len(begin) :]} if message is first else message for message in prompt)
