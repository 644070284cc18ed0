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
from arm_lens.storage import digest_of

IMAGE = "image_"
"""What the names of tensors begin with that are images; the rest is the digest."""


class OtherPixelsWarning(UserWarning):
    """A judge makes pixels of images in another way than when it was fitted, which may give other numbers."""


class ImagesRecord(Record):
    """What makes tokens and pixels of images, by class, and a digest of its settings."""

    processor: Printable
    pixels: Printable
    settings: Printable


def images_record(model: ModelLike) -> dict[str, str] | None:
    """The fields of `ImagesRecord` for a model; None if it reads text only."""
    reader = language_model(model).images
    if reader is None:
        return None
    settings = digest_of(reader.settings)
    return {"processor": type(reader.processor).__name__, "pixels": reader.backend, "settings": settings}


def warn_of_other_pixels(model: ModelLike, then: ImagesRecord | None, folder: Path) -> None:
    """Warn if other classes make pixels of images than when a judge was fitted, or if they have other settings."""
    now = images_record(model)
    if now is None or then is None or now == then.model_dump():
        return
    if (now["processor"], now["pixels"]) != (then.processor, then.pixels):
        difference = (
            f"here {now['processor']} with {now['pixels']} does: scores of prompts with images may differ a little"
        )
    else:
        difference = (
            "here they have other settings, such as the size of images: scores of prompts with images may differ; pass "
            "model=(model, processor) with the processor of the fit"
        )
    caution(
        f"{folder} was fitted where {then.processor} with {then.pixels} read images; {difference}", OtherPixelsWarning
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
