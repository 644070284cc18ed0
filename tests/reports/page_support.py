"""Reading a page as a browser would, and results made of synthetic tables. Not a test file."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from arm_lens.benchmark import BenchmarkResults
from arm_lens.evaluation.tables import BenchmarkTables

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }} & <b>\u2028$x$</b>")
TRAP = 'window.alert = () => document.documentElement.setAttribute("data-alerted", "1")'


class Page(HTMLParser):
    """The elements of a page, the text of each kind, and the rows of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data
            if self.rows and self.rows[-1] and "tr" in self.open:
                self.rows[-1][-1] += " " + data

    def section(self, name: str) -> bool:
        return any(tag == "section" and attributes.get("id") == name for tag, attributes in self.elements)

    @property
    def places(self) -> list[str]:
        """The keys of the figures that have a place."""
        return [attributes["data-figure"] for _, attributes in self.elements if "data-figure" in attributes]


def signs(page: Page) -> dict[str, str]:
    """Warning sign -> Present or Not seen."""
    text = " ".join(page.text.split())
    return {name: state for state, name in re.findall(r"(Present|Not seen): ?(.+?)\. Looked for", text)}


def opened_in(browser: str, path: Path) -> tuple[str, list[str]]:
    """The page after its scripts have run, and what the console said."""
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000 --enable-logging=stderr --v=0 --dump-dom"
    done = subprocess.run(
        [browser, *flags.split(), path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def results_of_tables(meta, checks, *, summary, comparisons, calibration, fits, section_scores=None, **more):
    """Results with the tables that a page is made of."""
    nothing = pd.DataFrame()
    return BenchmarkResults(
        meta={"lead": "arm_reinforce", **meta},
        items=more.pop("items", nothing),
        fits=fits,
        tables=BenchmarkTables(nothing, summary, comparisons, calibration),
        checks=list(checks),
        sections=nothing if section_scores is None else section_scores,
        **more,
    )
