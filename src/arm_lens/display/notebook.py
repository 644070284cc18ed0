"""Self-contained fragments of HTML for notebooks: a card, a table, a line of code.

Inline styles, no script, nothing fetched. There is no background, and text has the colour of the page, so that a fragment
stands on a light and on a dark one. Every text may come from users' data and is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

import pandas as pd


def card(title: str, facts: Mapping[str, object] | None = None, *parts: str) -> str:
    """A titled box.

    Args:
        title: plain text.
        facts: by name, plain text; those that are None are left out.
        parts: HTML, as other functions here give it, below the facts.
    """
    told = "".join(
        f'<span style="opacity:.7">{escaped(name)}</span><span>{escaped(fact)}</span>'
        for name, fact in (facts or {}).items()
        if fact is not None
    )
    if told:
        style = "display:grid;grid-template-columns:max-content minmax(0,1fr);gap:1px 12px;margin:4px 0"
        told = f'<div style="{style};overflow-wrap:anywhere">{told}</div>'
    style = "display:inline-block;max-width:100%;box-sizing:border-box;padding:8px 14px;text-align:left;line-height:1.4"
    style += ";border:1px solid rgba(128,128,128,.45);border-radius:4px"
    heading = f'<div style="font-weight:600;overflow-wrap:anywhere">{escaped(title)}</div>'
    return f'<div style="{style}">{heading}{told}{"".join(parts)}</div>'


def small_print(text: str) -> str:
    """A line of small print, plain text."""
    return f'<div style="font-size:.85em;opacity:.75;max-width:44em;overflow-wrap:anywhere">{escaped(text)}</div>'


def code_line(text: str) -> str:
    """A line of code."""
    return f'<div><code style="color:inherit;background:none;padding:0">{escaped(text)}</code></div>'


def frame_table(frame: pd.DataFrame, *, digits: int = 3, rows: int = 30) -> str:
    """A data frame, with its index; of more than ``rows`` rows, the first and the last."""
    text = frame.to_html(
        border=0,
        escape=True,
        max_rows=rows,
        float_format=lambda value: f"{value:.{digits}f}",
        na_rep="",
        notebook=False,
    )
    return f'<div style="overflow-x:auto;margin:4px 0;text-align:right;white-space:nowrap">{text}</div>'


def escaped(text: object) -> str:
    """Text that HTML shows as it is, in an element or in a quoted attribute."""
    return html.escape(str(text), quote=True)
