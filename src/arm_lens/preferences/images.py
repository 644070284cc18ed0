"""Images within texts: each stands there as a mark of its content.

Whatever compares, hashes, clusters or stores examples works on text. So an image is, within a text, a *mark*:

    U+FDD0, the first 32 hex digits of the SHA-256 of its encoded bytes, U+FDD1

(the two are noncharacters, which no text has). The same words with other pixels are therefore another text, and the same
image under another name is the same text. Each process has one table of the images that it knows, by digest: `known_image`
finds them, and `split_at_images` cuts a text into texts and images.

`as_image` makes an image of what files and messages have for one. Images come from strangers: they are decoded once when
they are read, by the decoders of five formats only, and every fault is a `PreferenceFieldError`:

- how large the picture is, is known from its header before its pixels take memory (`arm_lens.preferences.decoding`);
- a path is relative to the folder of the data, and may not lead out of it unless that is allowed;
- an address (``https://...``) is opened only if that is allowed.

Decoding needs Pillow, the extra ``vision``. Nothing is imported from it before there is an image.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import re
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arm_lens.preferences import decoding
from arm_lens.preferences.decoding import decoded, encoded_as_png, in_rgb, is_picture, is_plain
from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.marks import KNOWN, MARK

if TYPE_CHECKING:
    import PIL.Image

MAX_SECONDS = 30.0
"""How long the download of an image may take."""

MAX_PATH = 4096
"""How many characters a path may have."""
MISSING_IMAGE = "names an image that is missing"
"""What is said of a file that is not there; reports count it."""

_SUFFIXES = {
    **{".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP"},
    **{".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG"},
}
_TYPES = {
    **{"image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"},
    **{"image/jpeg": "JPEG", "image/jpg": "JPEG"},
}
_DATA_URI = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class UnknownImageError(ValueError):
    """A text has the mark of an image that was not read in this process."""


@dataclass(frozen=True)
class Image:
    """An image that was decoded once without a fault; `as_image` makes them. Two are equal if their bytes are."""

    digest: str
    """The first 32 hex digits of the SHA-256 of the encoded bytes."""
    name: str = field(compare=False)
    """What errors call it: its path or address, or ``the image in row 3``."""
    size: tuple[int, int] = field(compare=False)
    """Width and height in pixels, the right way up."""
    format: str = field(compare=False)
    """One of `FORMATS`."""
    source: bytes | Path = field(compare=False, repr=False)
    """The encoded bytes, or the file that has them."""

    @property
    def mark(self) -> str:
        """What stands for the image in a text."""
        return f"\ufdd0{self.digest}\ufdd1"

    @property
    def content(self) -> bytes:
        """The encoded bytes; read again if they are in a file.

        Raises:
            PreferenceFieldError: if the file cannot be read any more, or has other bytes.
        """
        if isinstance(self.source, bytes):
            return self.source
        content = _file_content(self.source, self.name, "the image")
        if _digest(content) != self.digest:
            raise PreferenceFieldError("the image", f"{self.name} has changed since it was read")
        return content

    def open(self) -> PIL.Image.Image:
        """The picture in RGB, the right way up, on white where it is transparent."""
        picture: PIL.Image.Image = in_rgb(decoded(self.content, self.name, "the image")[0])
        return picture

    def as_png(self) -> bytes:
        """The picture of `open` as a PNG."""
        return encoded_as_png(self.open(), self.name, "the image")

    @property
    def is_plain(self) -> bool:
        """Whether the encoded bytes are what `open` gives to any program; see `arm_lens.preferences.decoding.is_plain`."""
        return is_plain(self.content)

    def __str__(self) -> str:
        return f"[image {self.digest[:8]}, {self.size[0]} x {self.size[1]}]"


def remember(image: Image) -> Image:
    """Make an image known in this process, so that its mark can stand in texts; returns the image."""
    known = KNOWN.get(image.digest)
    if known is None or isinstance(known.source, Path):  # a file may be gone since
        KNOWN[image.digest] = image
    return image


def known_image(digest: str) -> Image:
    """The image with a digest.

    Raises:
        UnknownImageError: if it was not read in this process.
    """
    if digest not in KNOWN:
        raise UnknownImageError(
            f"the image {digest[:8]} was not read in this process, and a text has only its mark: read the data that it is "
            "from, or pass the image itself in a message's content"
        )
    image: Image = KNOWN[digest]
    return image


def marks_in(text: str) -> list[str]:
    """The digests of the images in a text, in order; of an image that occurs twice, twice."""
    return MARK.findall(text) if "\ufdd0" in text else []


def images_in(text: str) -> list[Image]:
    """The images in a text, in order.

    Raises:
        UnknownImageError: if one was not read in this process.
    """
    return [known_image(digest) for digest in marks_in(text)]


def split_at_images(text: str) -> list[str | Image]:
    """The text as texts and images in order, without empty texts; joined again by their marks, they give the text.

    Raises:
        UnknownImageError: if an image was not read in this process.
    """
    pieces = MARK.split(text) if "\ufdd0" in text else [text]
    found = (known_image(piece) if index % 2 else piece for index, piece in enumerate(pieces))
    return [piece for piece in found if piece != ""]


def check_marks(field: str, text: str, *, known: bool = True) -> None:
    """Refuse U+FDD0 and U+FDD1 in a text, except in the marks of known images, or of any images.

    Raises:
        PreferenceFieldError: naming the field and the character.
    """
    if "\ufdd0" not in text and "\ufdd1" not in text:
        return
    for mark in MARK.finditer(text) if known else ():
        try:
            known_image(mark[1])
        except UnknownImageError as error:
            raise PreferenceFieldError(field, f"has the mark of an image, but {error}") from error
    rest = MARK.sub(lambda mark: " " * len(mark[0]), text)
    found = re.search("[\ufdd0\ufdd1]", rest)
    if found:
        code = f"U+{ord(found[0]):04X}"
        raise PreferenceFieldError(field, f"has {code} at character {found.start() + 1}, which is not text")


def as_image(
    value: object,
    *,
    field: str = "image",
    name: str = "",
    base: Path | None = None,
    allow_urls: bool = False,
    allow_any_path: bool = False,
    allow_paths: bool = True,
) -> Image:
    """The image that a value is or names, decoded once and known from then on.

    Args:
        value: an `Image` or one of Pillow's; the bytes of a file; a path; a ``data:`` URI; ``{"bytes": ..., "path": ...}``,
            a cell of a Hugging Face data set; ``{"url": ...}``, a part of a message; or an address.
        field: what errors call it.
        name: what errors call an image without a path.
        base: the folder of the data, which paths are relative to and may not lead out of. None: the current folder, and any
            path may be given.
        allow_urls: whether ``http://`` and ``https://`` are opened.
        allow_any_path: whether paths may lead out of the folder.
        allow_paths: whether there may be paths at all; not if the value comes from another machine.

    Raises:
        PreferenceFieldError: if there is no such file, if it may not be read, or if it is not an image that can be decoded
            within the limits of `arm_lens.preferences.decoding`.
        ImportError: if Pillow is not installed.
    """
    name = name or "the image"
    if isinstance(value, Image):
        return remember(value)
    if isinstance(value, Mapping):
        value, name = _of_mapping(value, field, name)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if not value.strip():
            raise PreferenceFieldError(field, "names no image: it is blank")
        if value[:5].lower() == "data:":
            return _read(*_of_data_uri(value, field), name, field)
        if _ADDRESS.match(value):
            return _read(*_downloaded(value, field, allow_urls), field)
        if not allow_paths:
            raise PreferenceFieldError(
                field, f"names the file {short_repr(value)}, which is not read here: pass its bytes"
            )
        path = _path(value, field, base, allow_any_path)
        content = _file_content(path, value, field)
        return _read(content, _SUFFIXES.get(Path(value).suffix.lower(), ""), value, field, source=path)
    if is_picture(value):
        value = encoded_as_png(value, name, field)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _read(bytes(value), "", name, field)
    raise PreferenceFieldError(
        field, f"is {short_repr(value)}, not an image: a path, bytes, a data: URI or an image of Pillow"
    )


def _of_mapping(value: Mapping[Any, Any], field: str, name: str) -> tuple[Any, str]:
    """The value that a mapping has for an image, and the image's name."""
    filled = {key: item for key, item in value.items() if item is not None and item != ""}
    if {"bytes"} <= filled.keys() <= {"bytes", "path"}:
        content = filled["bytes"]
        is_base64 = isinstance(content, str) and not content.startswith("data:")
        return from_base64(content, field) if is_base64 else content, str(filled.get("path", name))
    if filled.keys() == {"path"} or {"url"} <= filled.keys() <= {"url", "detail"}:
        return filled.get("path", filled.get("url")), name
    raise PreferenceFieldError(field, f"is {short_repr(dict(value))}, not an image: it needs bytes, a path or a url")


def _of_data_uri(value: str, field: str) -> tuple[bytes, str]:
    """The bytes of a data: URI, and the format that it states."""
    match = _DATA_URI.match(value[:1000])
    if match is None or ";base64" not in match[2].lower():
        raise PreferenceFieldError(field, f"is not data:image/...;base64,...: {short_repr(value[:60])}")
    kind = match[1].strip().lower()
    if kind and kind not in _TYPES:
        raise PreferenceFieldError(field, f"is {kind!r:.60} data; known are {', '.join(_TYPES)}")
    return from_base64(value[match.end() :], field), _TYPES.get(kind, "")


def from_base64(text: str, field: str) -> bytes:
    """The bytes that base64 states.

    Raises:
        PreferenceFieldError: if the text is not base64.
    """
    if len(text) > 2 * decoding.MAX_BYTES:
        raise PreferenceFieldError(field, f"has more than {decoding.MAX_BYTES:,} bytes")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PreferenceFieldError(field, f"is not base64: {error}") from error


def _path(value: str, field: str, base: Path | None, allow_any_path: bool) -> Path:
    """The file that a path names, without symbolic links.

    Raises:
        PreferenceFieldError: if it is outside the folder and may not be, or cannot be a path.
    """
    folder = Path() if base is None else base
    if len(value) > MAX_PATH:
        raise PreferenceFieldError(
            field, f"is too long for a path: {short_repr(value)}; if it is base64, write 'data:;base64,' before it"
        )
    try:
        path = (folder / value).resolve()
        is_inside = path.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, links in a circle
        raise PreferenceFieldError(field, f"is no path: {short_repr(value)} ({error})") from error
    if base is not None and not (is_inside or allow_any_path):
        raise PreferenceFieldError(
            field, f"leads out of the folder of the data: {short_repr(value)}; pass allow_any_path=True to read it"
        )
    return path


def _file_content(path: Path, name: str, field: str) -> bytes:
    shown = short_repr(name)
    mode, content = 0, b""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                content = file.read(decoding.MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise PreferenceFieldError(field, f"{MISSING_IMAGE}: {shown}") from error
    except (OSError, ValueError) as error:
        raise PreferenceFieldError(field, f"names an image that cannot be read: {shown} ({error})") from error
    if not stat.S_ISREG(mode):
        raise PreferenceFieldError(field, f"names {'a folder' if stat.S_ISDIR(mode) else 'no file'}: {shown}")
    return content


class _NoOtherScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same kinds of address only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError("it redirects to an address that is not http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _downloaded(url: str, field: str, allow_urls: bool) -> tuple[bytes, str, str]:
    """The bytes at an address, no format, and the address without what may be secret."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("http", "https"):
        raise PreferenceFieldError(field, f"has an address that begins with {scheme.lower():.20}://; write a path")
    name = f"{scheme}://{re.split('[?#]', rest)[0].rpartition('@')[2]}"
    if not allow_urls:
        raise PreferenceFieldError(
            field, f"is on the web, which is not opened: {short_repr(name)}; pass allow_urls=True to open it"
        )
    content, end = bytearray(), time.monotonic() + MAX_SECONDS
    try:
        with urllib.request.build_opener(_NoOtherScheme).open(url, timeout=MAX_SECONDS) as answer:
            while (piece := answer.read1(2**16)) and len(content) <= decoding.MAX_BYTES:
                content += piece
                if time.monotonic() > end:
                    raise TimeoutError(f"it took more than {MAX_SECONDS:.0f} seconds")
    except (OSError, ValueError, http.client.HTTPException) as error:  # its message may have the whole address
        reason = f"status {error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        raise PreferenceFieldError(field, f"cannot be downloaded: {short_repr(name)} ({reason})") from None
    return bytes(content), "", name


def _read(content: bytes, stated: str, name: str, field: str, *, source: Path | None = None) -> Image:
    """The image with these bytes, if they can be decoded as the format that its name or type states, if any."""
    shown = short_repr(name)
    if not content:
        raise PreferenceFieldError(field, f"has no bytes: {shown}")
    if len(content) > decoding.MAX_BYTES:
        raise PreferenceFieldError(field, f"has more than {decoding.MAX_BYTES:,} bytes: {shown}")
    known = KNOWN.get(digest := _digest(content))
    if known is None:
        picture, format = decoded(content, name, field)
        size = picture.size
    else:
        size, format = known.size, known.format
    if stated and format != stated:
        raise PreferenceFieldError(field, f"is said to be {stated}, but is {format}: {shown}")
    return remember(Image(digest, name, size, format, content if source is None else source))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
