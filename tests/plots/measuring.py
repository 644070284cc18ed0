"""Many figures drawn in one Chromium page, which measures their texts. Not a test file."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Measured:
    """What the page found in one figure."""

    outside: list[str]
    """Texts that reach beyond the figure."""
    overlapping: list[list[str]]
    """Pairs of texts that lie on each other."""
    covered: list[str]
    """Legends and axis labels that lie on a panel."""
    clipped: list[str]
    """Entries that their legend has no room for."""
    turned: list[str]
    """Numbers of a level axis that plotly has slanted for want of room."""
    smallest: float
    """The smallest font, in layout pixels."""
    texts: int
    png: str = ""
    """Base64, if asked for."""

    def faults(self, *, smallest: float = 11) -> dict[str, object]:
        """What a reader would object to; empty if nothing."""
        found: dict[str, object] = {
            name: getattr(self, name)
            for name in ("outside", "overlapping", "covered", "clipped", "turned")
            if getattr(self, name)
        }
        if self.smallest < smallest:
            found["smallest font"] = self.smallest
        return found


def measured(
    browser: str,
    figures: Mapping[str, go.Figure],
    folder: Path,
    *,
    images: bool = False,
    scale: float = 1.0,
    tolerance: float = 1.0,
) -> dict[str, Measured]:
    """Every figure drawn and measured in one page.

    Args:
        browser: the path of a Chromium.
        figures: by name.
        folder: for the page.
        images: whether to give PNGs too.
        scale: of the PNGs.
        tolerance: pixels by which two texts may lie on each other.

    Raises:
        AssertionError: if the console says anything.
    """
    data = "{" + ",".join(f"{json.dumps(name)}:{plotly.io.to_json(one)}" for name, one in figures.items()) + "}"
    script = (
        f"const FIGURES = {data}, IMAGES = {json.dumps(images)}, SCALE = {scale}, TOLERANCE = {tolerance};" + SCRIPT
    )
    page = folder / "figures.html"
    page.write_text(
        f'<!doctype html><html><head><meta charset="utf-8"><script>{get_plotlyjs()}</script></head>'
        f"<body><script>{script.replace('</', '<' + chr(92) + '/')}</script></body></html>",
        encoding="utf-8",
    )
    dom = opened(browser, page)
    found = re.search(r'<pre id="results">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page did not finish"
    return {name: Measured(**one) for name, one in json.loads(html.unescape(found[1])).items()}


def opened(browser: str, path: Path) -> str:
    """The page after its scripts have run.

    Raises:
        AssertionError: if the console says anything.
    """
    flags = (
        "--headless --no-sandbox --disable-gpu --virtual-time-budget=600000 --enable-logging=stderr --v=0 --dump-dom"
    )
    done = subprocess.run(
        [browser, *flags.split(), "--window-size=1400,1000", path.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == [], console
    return done.stdout
