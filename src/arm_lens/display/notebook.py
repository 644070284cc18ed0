"""Self-contained fragments of HTML for notebooks: a card, a table, a line of code.

Styles are inline; there is no script and nothing is fetched. Fragments have no background, and text has the page's colour, so
that they fit light and dark pages. Every text may come from users' data and is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

import pandas as pd


def card(title: str, facts: Mapping[str, object] | None = None, *parts: str) -> str:
    """A titled box.

    Args:
        title: plain text.
        facts: plain text by name; a fact that is None is left out.
        parts: HTML from other functions of this package, below the facts.
    """
    rows = "".join(
        f'<span style="opacity:.7">{escaped(name)}</span><span>{escaped(fact)}</span>'
        for name, fact in (facts or {}).items()
        if fact is not None
    )
    if rows:
        style = "display:grid;grid-template-columns:max-content minmax(0,1fr);gap:1px 12px;margin:4px 0"
        rows = f'<div style="{style};overflow-wrap:anywhere">{rows}</div>'
    style = "display:inline-block;max-width:100%;box-sizing:border-box;padding:8px 14px;text-align:left;line-height:1.4"
    style += ";border:1px solid rgba(128,128,128,.45);border-radius:4px"
    heading = f'<div style="font-weight:600;overflow-wrap:anywhere">{escaped(title)}</div>'
    return f'<div style="{style}">{heading}{rows}{"".join(parts)}</div>'


def small_print(text: str) -> str:
    """A line of small print, plain text."""
    return f'<div style="font-size:.85em;opacity:.75;max-width:44em;overflow-wrap:anywhere">{escaped(text)}</div>'


def code_line(text: str) -> str:
    """A line of code."""
    return f'<div><code style="color:inherit;background:none;padding:0">{escaped(text)}</code></div>'


def frame_table(frame: pd.DataFrame, *, digits: int = 3, rows: int = 30) -> str:
    """A data frame with its index; beyond ``rows`` rows, the first and the last ones."""
    text = frame.to_html(border=0, max_rows=rows, float_format=f"{{:.{digits}f}}".format, na_rep="")
    return f'<div style="overflow-x:auto;margin:4px 0;text-align:right;white-space:nowrap">{text}</div>'


def escaped(text: object) -> str:
    """Text that HTML shows unchanged, in an element or in a quoted attribute."""
    return html.escape(str(text), quote=True)
