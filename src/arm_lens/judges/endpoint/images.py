"""Images in the messages that are sent to an endpoint, and which of them cannot be sent.

In the protocol, an image is a part of a user's message, ``{"type": "image_url", "image_url": {"url": "data:..."}}``; texts
and images stand in the order of the prompt, in parts, as a local chat model reads them. The bytes are those of the image's
file if every decoder finds in them what arm_lens finds: one frame, opaque, the right way up, in RGB or grey. Otherwise they
are a PNG of what arm_lens finds.

A request is compared and stored before its images are read: until it is sent, the URL of an image is its mark.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arm_lens.engine.images import pieces_of
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.preferences.images import Image, images_in, known_image, marks_in

Messages = Sequence[Mapping[str, Any]]


def refusal(texts: Iterable[str], options: EndpointOptions, model: str) -> str | None:
    """Why the images in some texts cannot be sent, as the rest of a sentence about the texts; None if they can.

    Raises:
        PreferenceFieldError: if the file of an image has changed since it was read.
    """
    images = [image for text in texts for image in images_in(text)]
    if images and not options.images:
        return f"has an image in it, and {model} reads text only, as the option images says"
    for image in dict.fromkeys(images):
        if (size := len(sent_as(image)[1])) > options.max_image_bytes:
            return (
                f"has an image in it that takes {size:,} bytes, more than max_image_bytes ({options.max_image_bytes:,}): "
                f"{image.name}; make it smaller, or raise the limit if the endpoint takes more"
            )
    return None


def in_parts(message: Mapping[str, str], detail: str | None) -> dict[str, Any]:
    """A message whose content is a list of texts and images, if there are images in it; the URL of each is its mark."""
    if not marks_in(message["content"]):
        return dict(message)
    of_image = {} if detail is None else {"detail": detail}
    parts = [
        {"type": "image_url", "image_url": {"url": piece.mark, **of_image}}
        if isinstance(piece, Image)
        else {"type": "text", "text": str(piece)}
        for piece in pieces_of(message["content"])
    ]
    return {**message, "content": parts}


def with_images(messages: Messages) -> list[dict[str, Any]]:
    """Messages of `in_parts` with the images themselves, as ``data:`` URIs.

    Raises:
        PreferenceFieldError: if the file of an image has changed since it was read.
    """
    return [{**message, "content": _with_images(message["content"])} for message in messages]


def text_and_images(messages: Messages) -> tuple[list[str], int]:
    """The texts of messages, and the number of their images."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    texts = [*(one for one in contents if isinstance(one, str)), *(one["text"] for one in parts if "text" in one)]
    return texts, sum("image_url" in part for part in parts)


def sent_as(image: Image) -> tuple[str, bytes]:
    """The media type and the bytes by which an image is sent."""
    content = image.content
    return (f"image/{image.format.lower()}", content) if image.is_plain else ("image/png", image.as_png())


def _with_images(content: str | Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(content, str):
        return content
    return [
        {**part, "image_url": {**part["image_url"], "url": _uri(part["image_url"]["url"])}}
        if "image_url" in part
        else part
        for part in content
    ]


def _uri(mark: str) -> str:
    kind, content = sent_as(known_image(*marks_in(mark)))
    return f"data:{kind};base64,{b64encode(content).decode()}"
