"""Images as marks within texts, and what becomes of images from strangers."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import os
import random
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import PIL.features
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from arm_lens.preferences import Image, LabelledResponse, PreferenceFieldError, UnknownImageError, decoding, text_of
from arm_lens.preferences.images import (
    as_image,
    check_marks,
    images_in,
    known_image,
    marks_in,
    split_at_images,
)
from arm_lens.preferences.marks import describe_images


def encoded(
    format: str = "PNG", size: tuple[int, int] = (4, 3), colour: object = (200, 30, 60), **options: object
) -> bytes:
    out = io.BytesIO()
    Pillow.new(options.pop("mode", "RGB"), size, colour).save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header states a size, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path):
    """A folder of data within another folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def fault_of(value: object, **options: object) -> str:
    with pytest.raises(PreferenceFieldError) as caught:
        as_image(value, field="image", **options)
    assert caught.value.field == "image"
    return caught.value.reason


def test_the_mark_is_the_beginning_of_the_hash_of_the_bytes():
    content = encoded()
    image = as_image(content)
    assert image.mark == f"\ufdd0{hashlib.sha256(content).hexdigest()[:32]}\ufdd1"
    assert known_image(image.digest) == image and image.content == content


@pytest.mark.parametrize("format", decoding.FORMATS)
def test_every_way_to_give_an_image_is_the_same_image(format, folder):
    content = encoded(format)
    suffix = {"JPEG": ".jpeg"}.get(format, f".{format.lower()}")
    path = folder / f"a{suffix}"
    path.write_bytes(content)
    uri = f"data:image/{format.lower()};base64,{base64.b64encode(content).decode()}"
    ways = [
        path,
        str(path),
        content,
        bytearray(content),
        uri,
        {"url": uri, "detail": "low"},
        {"bytes": content, "path": "elsewhere.png"},
        {"bytes": base64.b64encode(content).decode()},
        {"bytes": None, "path": str(path)},
        as_image(content),
    ]
    found = {as_image(way) for way in ways} | {as_image(path.name, base=folder), as_image(path, base=folder)}
    (image,) = found
    assert (image.size, image.format) == ((4, 3), format)
    assert image.open().mode == "RGB"


def test_an_image_of_pillows_is_its_pixels():
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    image = as_image(picture)
    assert image.format == "PNG" and image.size == (7, 5)
    assert np.array_equal(np.asarray(image.open()), np.asarray(picture))
    assert as_image(picture.convert("CMYK")).open().mode == "RGB"
    assert "convert it to RGB" in fault_of(picture.convert("F"))


def test_a_file_is_read_again_and_must_have_the_same_bytes(folder):
    path = folder / "a.png"
    path.write_bytes(encoded(colour="red"))
    image = as_image("a.png", base=folder)
    assert image.content == path.read_bytes()
    path.write_bytes(encoded(colour="blue"))
    with pytest.raises(PreferenceFieldError, match=r"a\.png has changed since it was read"):
        image.open()
    path.unlink()
    with pytest.raises(PreferenceFieldError, match="missing"):
        image.open()
    as_image(encoded(colour="red"))  # the same image from elsewhere
    assert known_image(image.digest).open().getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_is_the_right_way_up():
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    out = io.BytesIO()
    picture = Pillow.new("RGB", (20, 10), "white")
    picture.paste("black", (0, 0, 10, 10))
    picture.save(out, "JPEG", exif=exif, quality=95)
    image = as_image(out.getvalue())
    assert image.size == image.open().size == (10, 20)
    assert image.open().getpixel((5, 2)) < (50, 50, 50) and image.open().getpixel((5, 17)) > (200, 200, 200)


def test_what_is_transparent_is_white():
    half = Pillow.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert as_image(half).open().getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)
    assert as_image(encoded(mode="LA", colour=(0, 0))).open().getpixel((0, 0)) == (255, 255, 255)
    grey = Pillow.new("L", (2, 1), 7)
    out = io.BytesIO()
    grey.save(out, "PNG", transparency=7)
    assert as_image(out.getvalue()).open().getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_of_grey_are_not_cut_off():
    picture = Pillow.fromarray(np.array([[0, 128, 32768, 65535]], dtype=np.uint16))
    greys = [as_image(picture).open().getpixel((column, 0))[0] for column in range(4)]
    assert greys == [0, 0, 128, 255]
    out = io.BytesIO()
    picture.save(out, "PNG", transparency=128)
    assert [as_image(out.getvalue()).open().getpixel((column, 0))[0] for column in range(4)] == [0, 255, 128, 255]


def test_an_image_of_pillows_of_any_mode_is_white_where_it_is_transparent_or_refused():
    known = {mode: Pillow.new(mode, (2, 2)) for mode in Pillow.MODES}
    read = {
        mode: as_image(picture).open().getpixel((0, 0)) for mode, picture in known.items() if mode in decoding._AS_PNG
    }
    assert {mode for mode in read if read[mode] == (255, 255, 255)} == {"LA", "RGBA", "PA", "RGBa", "CMYK"}
    for mode in known.keys() - read.keys():
        assert f"its mode is {mode}, numbers whose range is unknown" in fault_of(known[mode])


def test_only_the_first_frame_is_read():
    frames = [Pillow.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP"):
        out = io.BytesIO()
        frames[0].save(
            out, format, save_all=True, append_images=frames[1:], **({"lossless": True} if format == "WEBP" else {})
        )
        assert as_image(out.getvalue()).open().getpixel((1, 1)) == (255, 0, 0)


# Marks


def test_a_text_is_cut_at_its_images_and_joined_again():
    first, second = as_image(encoded(colour="red")), as_image(encoded(colour="green"))
    text = f"{first.mark}\nCompare with {second.mark}{first.mark}."
    parts = split_at_images(text)
    assert parts == [first, "\nCompare with ", second, first, "."]
    assert "".join(part if isinstance(part, str) else part.mark for part in parts) == text
    assert marks_in(text) == [first.digest, second.digest, first.digest]
    assert images_in(text) == [first, second, first]
    assert describe_images(text) == f"{first}\nCompare with {second}{first}."
    assert str(first) == f"[image {first.digest[:8]}, 4 x 3]"
    assert split_at_images("") == [] and split_at_images("no image") == ["no image"]


def test_a_mark_of_an_unknown_image_is_an_error_that_says_so():
    text = f"What is \ufdd0{'0' * 32}\ufdd1?"
    with pytest.raises(UnknownImageError, match="image 00000000 was not read in this process"):
        split_at_images(text)
    with pytest.raises(
        PreferenceFieldError, match="prompt has the mark of an image, but the image 00000000 was not read"
    ):
        check_marks("prompt", text)
    assert describe_images(text) == "What is [image 00000000]?"
    message = [{"role": "user", "content": text}]
    assert text_of(message) == text  # as stored results have it
    for door in (lambda: LabelledResponse(message, "r", True), lambda: LabelledResponse("p", text, True)):
        with pytest.raises(PreferenceFieldError, match="has the mark of an image, but the image 00000000 was not read"):
            door()


@pytest.mark.parametrize("text", ["\ufdd0", "a\ufdd1", "\ufdd0short\ufdd1", "\ufdd0" + "A" * 32 + "\ufdd1"])
def test_half_a_mark_is_not_text(text):
    number = min(text.find(mark) for mark in "\ufdd0\ufdd1" if mark in text) + 1
    with pytest.raises(PreferenceFieldError, match=rf"prompt has U\+FDD. at character {number}, which is not text"):
        check_marks("prompt", text)
    image = as_image(encoded())
    check_marks("prompt", f"{image.mark}{image.mark}")
    with pytest.raises(PreferenceFieldError, match=f"at character {len(image.mark) + number}"):
        check_marks("prompt", image.mark + text)


# Broken and hostile images


def test_a_path_stays_in_the_folder_of_the_data(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inner").mkdir()
    (folder / "inner" / "a.png").write_bytes(encoded())
    for path in ("../secret.png", "inner/../../secret.png", str(tmp_path / "secret.png"), "link.png"):
        assert "leads out of the folder of the data" in fault_of(path, base=folder)
        assert as_image(path, base=folder, allow_any_path=True).size == (4, 3)
    assert as_image("inner/../inner/a.png", base=folder) == as_image(str(folder / "inner" / "a.png"), base=folder)
    assert "is not read" in fault_of("inner/a.png", base=folder, allow_paths=False)
    assert "is not read" in fault_of({"path": "inner/a.png"}, base=folder, allow_paths=False)


def test_what_is_no_file_is_said(folder):
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    assert "names an image that is missing: 'no.png'" in fault_of("no.png", base=folder)
    assert fault_of(".", base=folder) == "names a folder: '.'"
    assert fault_of("pipe.png", base=folder) == "names no file: 'pipe.png'"
    assert "circle.png" in fault_of("circle.png", base=folder)
    assert "is no path" in fault_of("a\0b.png", base=folder)
    assert "a" * 50 in fault_of("a" * 4000, base=folder)
    assert "if it is base64, write 'data:;base64,' before it" in fault_of("a" * 5000, base=folder)
    assert "blank" in fault_of(" ", base=folder)


@pytest.mark.parametrize("value", [None, 3, True, [b"x"], {}, {"bytes": 3}, {"path": 3}, {"file": "a.png"}, object()])
def test_what_is_no_image_is_said(value):
    assert "not an image" in fault_of(value)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png;base64,@@@", "not base64"),
        ("data:image/png,abc", "is not data:image/"),
        ("data:", "is not data:image/"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "'image/svg+xml' data"),
        ("data:image/png;base64,", "no bytes"),
        ("file:///etc/passwd", "begins with file://"),
        ("ftp://host/a.png", "begins with ftp://"),
    ],
)
def test_addresses_that_are_no_images_are_refused(uri, reason):
    assert reason in fault_of(uri, allow_urls=True)


def test_the_suffix_and_the_type_have_to_be_those_of_the_content(folder):
    (folder / "a.png").write_bytes(encoded("JPEG"))
    assert "is said to be PNG, but is JPEG: 'a.png'" in fault_of("a.png", base=folder)
    uri = f"data:image/gif;base64,{base64.b64encode(encoded('BMP')).decode()}"
    assert "is said to be GIF, but is BMP" in fault_of(uri)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.4",
        encoded("TIFF"),
        encoded("PPM"),
        encoded("ICO"),
        encoded()[:40],
        encoded("JPEG", (64, 64))[:-200],
        encoded("WEBP", (64, 64))[:-10],
        encoded("GIF")[:20],
        encoded("BMP")[:-10],
        encoded()[:60] + b"\0" + encoded()[61:],
        png_of(0, 5, zlib.compress(b"")),
        b"GIF89a\0\0\0\0\0\0\0;",
    ],
)
def test_a_file_that_is_damaged_or_of_another_kind_is_refused(content):
    fault_of(content)


def test_there_are_limits_to_bytes_pixels_and_scans(monkeypatch, folder):
    assert "scans" in fault_of(b"\xff\xd8" + b"\xff\xda" * (decoding.MAX_SCANS + 1))
    content = encoded(size=(20, 20))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 399)
    assert "has 20 x 20 pixels, more than 399" in fault_of(content)
    assert "has 20 x 20 pixels, more than 399" in fault_of(Pillow.new("RGB", (20, 20)))
    monkeypatch.setattr(decoding, "MAX_BYTES", len(content) - 1)
    (folder / "a.png").write_bytes(content)
    for value in (content, "a.png", f"data:image/png;base64,{base64.b64encode(content).decode()}"):
        assert f"has more than {len(content) - 1:,} bytes" in fault_of(value, base=folder)


BOMBS = r"""
import resource, struct, sys, zlib
sys.path.insert(0, {tests!r})
from test_images import encoded, png_of
from arm_lens.preferences.images import as_image
from arm_lens.preferences import PreferenceFieldError
as_image(encoded("WEBP"))  # every import done
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
zeros = zlib.compress(bytes(10_000_000), 9)
webp = bytearray(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\xff\0\xff\xff\0") + encoded("WEBP")[12:]
webp[4:8] = struct.pack("<I", len(webp) - 8)
gif = bytearray(encoded("GIF"))
gif[6:10] = b"\xff\xff\xff\xff"
bmp = bytearray(encoded("BMP"))
bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
jpeg = bytearray(encoded("JPEG"))
start = jpeg.index(b"\xff\xc0")
jpeg[start + 5 : start + 9] = b"\xff\xff\xff\xff"
text = png_of(4, 3, zlib.compress(bytes(39)))
text = text[:33] + (lambda c: struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)))(
    b"zTXtComment\0\0" + zlib.compress(bytes(300_000_000), 9)) + text[33:]
bombs = [png_of(30_000, 30_000, zeros), png_of(8_300, 8_300, zeros), *map(bytes, (webp, gif, bmp, jpeg, text))]
for bomb in bombs:
    try:
        as_image(bomb)
    except PreferenceFieldError as error:
        print(error.reason[:60])
    else:
        sys.exit("a bomb was read")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_before_it_takes_memory():
    script = BOMBS.replace("{tests!r}", repr(os.path.dirname(__file__)))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) < 100, done.stdout  # MiB


@pytest.fixture
def web():
    """A server with one image, one redirect to a file, and one answer that is too long."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
                return
            self.send_response(200 if self.path.startswith("/a.png") else 404)
            self.end_headers()
            self.wfile.write(encoded())

        def log_message(self, *_):
            pass

    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_opened_only_if_that_is_allowed(web, monkeypatch):
    port, asked = web
    url = f"http://127.0.0.1:{port}/a.png?token=secret"
    reason = fault_of(url)
    assert "pass allow_urls=True" in reason and "secret" not in reason and not asked
    image = as_image({"url": url}, allow_urls=True)
    assert image == as_image(encoded()) and image.name == f"http://127.0.0.1:{port}/a.png"
    assert "status 404" in fault_of(f"http://127.0.0.1:{port}/b.png", allow_urls=True)
    reason = fault_of(f"http://user:secret@127.0.0.1:{port}/away", allow_urls=True)
    assert "cannot be downloaded" in reason and "secret" not in reason
    assert "cannot be downloaded" in fault_of("http://[::bad/a.png", allow_urls=True)
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    assert "more than 10 bytes" in fault_of(url, allow_urls=True)


SMALL = [
    encoded(format, (16, 16), **options)
    for format, options in [
        ("PNG", {}),
        ("PNG", {"mode": "P", "colour": 3}),
        ("PNG", {"mode": "LA", "colour": (3, 4)}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
    ]
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SMALL), st.integers(0, 2**32))
def test_any_mutation_is_an_image_or_a_clear_error(content, seed):
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        else:
            data = data[: max(1, at)]
        data = data or bytearray(b"\0")
    if rng.random() < 0.5 and content[:4] == b"\x89PNG":  # with sums that agree, so that more of the decoder is reached
        data = _with_sums(data)
    try:
        image = as_image(bytes(data))
    except PreferenceFieldError as error:
        assert error.field == "image" and error.reason
    else:
        assert isinstance(image, Image) and image.open().size == image.size


def _with_sums(data: bytearray) -> bytearray:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


def test_without_pillow_the_error_names_the_extra(monkeypatch):
    for module in ("PIL", "PIL.Image", "PIL.ImageOps"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'arm-lens\[vision\]'"):
        as_image(encoded_before)


encoded_before = encoded(colour="black")


def test_pillow_can_decode_every_format_here():
    assert PIL.features.check("webp") and PIL.features.check("jpg") and PIL.features.check("zlib")
