"""Figures as files, without the network.

A figure records the page that it was laid out for (`theme.base_layout`). A figure for paper is written at the size at
which it is printed, so that a paper includes it unscaled and its text has the size that it was designed for: with
:math:`r` layout pixels to an inch, a figure of :math:`w` pixels is :math:`w / r` inches wide. In PDF and SVG an inch is 96
pixels, so that both are drawn at :math:`96 / r` of the layout's size; a PNG has 300 pixels to the inch, and says so.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go

from arm_lens.storage import write_bytes, write_text

IMAGES = {".png": (300.0, 2.0), ".svg": (96.0, 1.0), ".pdf": (96.0, 1.0)}
"""Pixels of the image to an inch of print, and to a layout pixel of a figure for the screen."""
QUIET = {"displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}
"""No logo and no button that leads to a server."""


def save_figure(
    figure: go.Figure,
    path: str | Path,
    width: int | None = None,
    height: int | None = None,
    *,
    scale: float | None = None,
) -> Path:
    """Write a figure as PNG, SVG, PDF or a web page that works offline, by the suffix of ``path``.

    A figure laid out for print (within ``themed(COLUMN)`` or ``themed(PAGE)``) is written at its printed size.

    Args:
        figure: the figure.
        path: the file to write, atomically; a missing folder is made.
        width: width in layout pixels; the figure's own if not given.
        height: height in layout pixels; the figure's own if not given.
        scale: pixels of a PNG per layout pixel; if not given, 2, or such that an inch of print has 300.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is not one of .png, .svg, .pdf, .html.
        RuntimeError: if the file is an image and kaleido or a Chromium is missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    sized = go.Figure(figure).update_layout(width=width or figure.layout.width, height=height or figure.layout.height)
    if suffix == ".html":
        return write_text(path, sized.to_html(include_plotlyjs=True, config=QUIET, auto_play=False))
    if suffix not in IMAGES:
        raise ValueError(f"cannot write {path.name}: a figure is saved as {', '.join(IMAGES)} or .html")
    _check_kaleido()
    per_inch, (in_print, on_screen) = pixels_per_inch(figure), IMAGES[suffix]
    if scale is None or suffix != ".png":
        scale = in_print / per_inch if per_inch else on_screen
    image = _image(sized, suffix[1:], scale)
    return write_bytes(path, _with_density(image, per_inch * scale) if suffix == ".png" and per_inch else image)


def pixels_per_inch(figure: go.Figure) -> float | None:
    """Layout pixels to an inch of paper of a figure that was laid out for print; None for the screen."""
    meta = figure.layout.meta
    return meta.get("pixels_per_inch") if isinstance(meta, dict) else None


@contextlib.contextmanager
def one_browser() -> Iterator[None]:
    """Let `save_figure` draw all images of this context in one Chromium, which saves a second or more for each.

    Raises:
        RuntimeError: if kaleido is missing.
    """
    _check_kaleido()
    import kaleido

    kaleido.start_sync_server(n=1, mathjax=False, silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def _check_kaleido() -> None:
    if find_spec("kaleido") is None:
        raise RuntimeError("images need kaleido: pip install 'arm-lens[figures]', or save the figure as .html")


def _image(figure: go.Figure, image_format: str, scale: float) -> bytes:
    # kaleido is optional, and slow to import.
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    options = {"format": image_format, "width": figure.layout.width, "height": figure.layout.height, "scale": scale}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        with warnings.catch_warnings():
            # Without mathjax=False kaleido's page asks a server for MathJax. The browser of `one_browser` has its own.
            warnings.filterwarnings("ignore", message="The kopts argument is ignored")
            image: bytes = kaleido.calc_fig_sync(figure.to_dict(), opts=given, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise RuntimeError(
            "kaleido draws images with Chromium and found none: apt-get install chromium, or run plotly_get_chrome, "
            "or save the figure as .html"
        ) from error
    return image


def _with_density(png: bytes, per_inch: float) -> bytes:
    """Add the chunk pHYs (in pixels per metre), from which LaTeX and Word read the size of a picture."""
    per_metre = round(per_inch / 0.0254)
    chunk = b"pHYs" + struct.pack(">IIB", per_metre, per_metre, 1)
    header = 33  # signature and IHDR, which must come first
    return png[:header] + struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[header:]
