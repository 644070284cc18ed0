"""Figures as files, without the network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go

IMAGES = (".png", ".svg", ".pdf")
QUIET = {"displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}
"""No logo and no button that leads to a server."""


def save_figure(
    figure: go.Figure, path: str | Path, width: int | None = None, height: int | None = None, *, scale: float = 2.0
) -> Path:
    """Write a figure as PNG, SVG, PDF or a web page that works offline, by the suffix of ``path``.

    Args:
        figure: the figure.
        path: where to; its folder must exist.
        width: in layout pixels; the figure's own if not given.
        height: likewise.
        scale: pixels of a PNG per layout pixel.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is none of .png, .svg, .pdf, .html.
        RuntimeError: if an image is asked for and kaleido or a Chromium is missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    sized = go.Figure(figure).update_layout(width=width or figure.layout.width, height=height or figure.layout.height)
    if suffix == ".html":
        sized.write_html(path, include_plotlyjs=True, config=QUIET)
        return path
    if suffix not in IMAGES:
        raise ValueError(f"cannot write {path.name}: a figure is saved as {', '.join(IMAGES)} or .html")
    if find_spec("kaleido") is None:
        raise RuntimeError("images need kaleido: pip install 'arm-lens[images]', or save the figure as .html")
    _write_image(sized, path, suffix[1:], scale if suffix == ".png" else 1.0)
    return path


def _write_image(figure: go.Figure, path: Path, image_format: str, scale: float) -> None:
    # kaleido is optional, and slow to import.
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    options = {"format": image_format, "width": figure.layout.width, "height": figure.layout.height, "scale": scale}
    try:
        # Without mathjax=False kaleido's page asks a server for MathJax.
        image = kaleido.calc_fig_sync(
            figure.to_dict(),
            opts={key: value for key, value in options.items() if value is not None},
            kopts={"mathjax": False},
        )
    except ChromeNotFoundError as error:
        raise RuntimeError(
            "kaleido draws images with Chromium and found none: apt-get install chromium, or run plotly_get_chrome, "
            "or save the figure as .html"
        ) from error
    path.write_bytes(image)
