"""The bytes of images from strangers, decoded within bounds.

How large a picture is, is known from its header before its pixels take memory. Only five formats are decoded, by Pillow,
which is not imported before there is an image.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from arm_lens.preferences.fields import PreferenceFieldError, short_repr

if TYPE_CHECKING:
    import PIL.Image

MAX_BYTES = 2**26
"""How many bytes an encoded image may have."""
MAX_PIXELS = 2**26
"""How many pixels an image may have; each takes up to four bytes while it is decoded."""
MAX_SCANS = 100
"""How many passes over its pixels a JPEG file may have; a photograph has about ten."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is turned."""

SUFFIX_OF = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"}
"""How the name of a file of each format ends."""
FORMATS = tuple(SUFFIX_OF)
"""The formats that are decoded; of a GIF or an animated WebP, the first frame."""

_AS_PNG = {
    **{mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    **{mode: "RGB" for mode in ("CMYK", "HSV", "LAB", "RGBX", "YCbCr")},
    **{mode: "RGBA" for mode in ("PA", "RGBa")},
}
"""The mode that a PNG has of an image of Pillow's, by its mode; others are numbers of an unknown range."""


def is_picture(value: object) -> bool:
    """Whether a value is an image of Pillow's, which cannot be if Pillow was not imported."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def encoded_as_png(picture: Any, name: str, field: str) -> bytes:
    """An image of Pillow's as PNG, the right way up."""
    pillow = _pillow()
    if math.prod(picture.size) > MAX_PIXELS:
        raise PreferenceFieldError(field, _too_large(name, picture.size))
    out = io.BytesIO()
    try:
        picture = pillow.ImageOps.exif_transpose(picture)
        if picture.mode not in _AS_PNG:
            raise ValueError(f"its mode is {picture.mode}, numbers whose range is unknown: convert it to RGB")
        picture.convert(_AS_PNG[picture.mode]).save(out, "PNG")
    except _faults(pillow) as error:
        raise PreferenceFieldError(field, f"cannot be decoded: {name} ({_reason(error)})") from error
    return out.getvalue()


def decoded(content: bytes, name: str, field: str) -> tuple[PIL.Image.Image, str]:
    """The picture the right way up, and its format.

    Raises:
        PreferenceFieldError: if it is too large, damaged, or not an image.
        ImportError: if Pillow is not installed.
    """
    shown = short_repr(name)
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise PreferenceFieldError(field, f"has more than {MAX_SCANS} scans of its pixels: {shown}")
    pillow = _pillow()
    try:
        if math.prod(size := _webp_size(content)) > MAX_PIXELS:
            raise PreferenceFieldError(field, _too_large(name, size))
        with pillow.Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            size, format = picture.size, picture.format
            if math.prod(size) > MAX_PIXELS:
                raise PreferenceFieldError(field, _too_large(name, size))
            if 0 in size:
                raise PreferenceFieldError(field, f"has no pixels: {shown}")
            picture.verify()
        with pillow.Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            picture.load()
            turned = pillow.ImageOps.exif_transpose(picture)
        return turned, "JPEG" if format == "MPO" else format  # two photographs in one file
    except pillow.UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise PreferenceFieldError(field, f"is not an image: {shown} (known are {known})") from error
    except PreferenceFieldError:
        raise
    except _faults(pillow) as error:
        raise PreferenceFieldError(field, f"cannot be decoded: {shown} ({_reason(error)})") from error


def is_plain(content: bytes) -> bool:
    """Whether every program finds the same picture in the bytes of an image that was decoded before.

    So it is in a PNG, JPEG or WebP with one frame in RGB or grey that is opaque and the right way up.
    """
    with _pillow().Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        common = picture.format in ("PNG", "JPEG", "WEBP")
        one_frame, opaque = getattr(picture, "n_frames", 1) == 1, "transparency" not in picture.info
        upright = picture.getexif().get(ORIENTATION, 1) == 1
        return common and picture.mode in ("L", "RGB") and one_frame and opaque and upright


def in_rgb(picture: Any) -> Any:
    """A picture of Pillow's in RGB, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        greys = np.array(picture, dtype=np.int32)
        greys[greys == picture.info.get("transparency")] = 2**16 - 1
        picture = _pillow().Image.fromarray((greys >> 8).clip(0, 255).astype(np.uint8))
    if "A" not in picture.mode and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = _pillow().Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _webp_size(content: bytes) -> tuple[int, int]:
    """The size that the header of a WebP file states, since its decoder takes memory for all of it when it is opened."""
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8X" or len(content) < 30:
        return (0, 0)
    return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")


def _too_large(name: str, size: tuple[int, int]) -> str:
    return f"has {size[0]:,} x {size[1]:,} pixels, more than {MAX_PIXELS:,}: {short_repr(name)}; make it smaller"


def _pillow() -> Any:
    """Pillow, with what is used of it."""
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ImportError("images need Pillow, which is not installed: pip install 'arm-lens[vision]'") from error
    return PIL


def _faults(pillow: Any) -> tuple[type[BaseException], ...]:
    """What Pillow raises for damaged files; which of it depends on which bytes are damaged."""
    own = (pillow.Image.DecompressionBombError, pillow.Image.DecompressionBombWarning)
    python = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, MemoryError)
    return (*own, *python, EOFError, NotImplementedError, AssertionError, struct.error, zlib.error)


def _reason(error: BaseException) -> str:
    return str(error).strip()[:200] or type(error).__name__
