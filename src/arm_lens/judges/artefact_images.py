"""What a saved judge has of images: those in its demonstrations, and what made pixels of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arm_lens.display.caution import caution
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.judges.records import Printable, Record
from arm_lens.preferences.images import as_image, images_in

IMAGE = "image_"
"""What the names of tensors begin with that are images; the rest is the digest."""


class OtherPixelsWarning(UserWarning):
    """A judge makes pixels of images by another class than when it was fitted, which may give slightly other numbers."""


class ImagesRecord(Record):
    """What makes tokens and pixels of images, by class."""

    processor: Printable
    pixels: Printable


def images_record(model: ModelLike) -> dict[str, str] | None:
    """The fields of `ImagesRecord` for a model; None if it reads text only."""
    reader = language_model(model).images
    return None if reader is None else {"processor": type(reader.processor).__name__, "pixels": reader.backend}


def warn_of_other_pixels(model: ModelLike, then: ImagesRecord | None, folder: Path) -> None:
    """Warn if other classes make pixels of images than when a judge was fitted."""
    now = images_record(model)
    if now is None or then is None or now == then.model_dump():
        return
    caution(
        f"{folder} was fitted where {then.processor} with {then.pixels} read images; here {now['processor']} with "
        f"{now['pixels']} does: scores of prompts with images may differ a little",
        OtherPixelsWarning,
    )


def image_tensors(record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The images whose marks are in a record, by the names of their tensors: the bytes of their files."""
    images = images_in(json.dumps(record, ensure_ascii=False, default=str))
    return {f"{IMAGE}{one.digest}": torch.frombuffer(bytearray(one.content), dtype=torch.uint8) for one in images}


def remember_images(tensors: dict[str, Tensor], folder: Path) -> None:
    """Take the images out of the tensors of a judge, and have them known in this process.

    Raises:
        ValueError: if one is not an image, or not the one that its name says.
    """
    for name in [one for one in tensors if one.startswith(IMAGE)]:
        tensor = tensors.pop(name)
        if tensor.dtype != torch.uint8 or tensor.dim() != 1:
            raise ValueError(f"the tensor {name[:80]!r} is not the bytes of an image")
        image = as_image(tensor.numpy().tobytes(), name=f"an image in {folder}", field="tensors")
        if name != f"{IMAGE}{image.digest}":
            raise ValueError(f"the tensor {name[:80]!r} is another image")
