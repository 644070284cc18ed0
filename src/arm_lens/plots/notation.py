"""Numbers and captions in figures: signs with a true minus, as many digits as fit a cell, a line that explains the marks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.plots.theme import MUTED, label, literal

DIGIT = 7.4
"""Pixels of a wide character of a bold number in a cell."""
LINE = 16
CAPTION_LETTER = 6.1


def largest(values: np.ndarray) -> float | int:
    """The largest absolute value; 1 if none is above zero."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def digits_for(span: float | int) -> int:
    """Decimals with which a number of this size has two significant digits: 2 to 4, or 1 from ten upwards."""
    return min(4, max(2 if span < 10 else 1, 1 - math.floor(math.log10(span))))


def signed(value: float | int, *, digits: int = 4) -> str:
    """A number with its sign; zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def compact(value: float | int, digits: int, *, short: bool = False) -> str:
    """A number for a cell: without plus, zero without minus.

    If ``short``, without the zero before the point, or from 1 upwards with a decimal less.
    """
    text = f"{value:.{digits}f}"
    if short and digits:
        text = text.replace("0.", ".", 1) if abs(float(text)) < 1 else f"{value:.{digits - 1}f}"
    return (text if float(text) else text.removeprefix("-")).replace("-", "−")


def span_text(counts: Iterable[float | int]) -> str:
    """The lowest and the highest count, e.g. "3 to 5"; one number if they are equal."""
    low, high = min(ordered := list(counts)), max(ordered)
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def repeated(table: pd.DataFrame) -> str:
    """What the repetitions of a criterion in a table are: ``seeds``, or ``searches`` with several example samples."""
    return "searches" if "sample" in table.columns and table["sample"].nunique() > 1 else "seeds"


def hover_text(title: object, *lines: str) -> str:
    """Plotly text for hovering: a literal title in bold, then the lines that are not empty."""
    return "<br>".join([f"<b>{label(str(title), width=60)}</b>", *filter(None, lines)])


def accuracy_text(row: Mapping[Any, Any], *titles: str) -> str:
    """Hover text of a row with an accuracy, its interval and, if the row has it, n, below these titles."""
    size = f", n = {row['n']:.0f}" if "n" in row else ""
    known = f"accuracy {row['accuracy']:.3f}, {interval_text(row)}{size}"
    return "<br>".join([*(hover_text(title) for title in titles), known])


def interval_text(row: Mapping[Any, Any]) -> str:
    """The interval of a share."""
    known = not (pd.isna(row["ci_low"]) or pd.isna(row["ci_high"]))
    return f"interval {row['ci_low']:.3f} to {row['ci_high']:.3f}" if known else "interval unknown"


def score_text(row: Mapping[Any, Any], value: str = "score") -> str:
    """Value, interval and n of a row, for hovering."""
    if pd.isna(row[value]):
        return "not measured"
    text = signed(row[value])
    if not (pd.isna(row["ci_low"]) or pd.isna(row["ci_high"])):
        text += f", interval {signed(row['ci_low'])} to {signed(row['ci_high'])}"
    return text + (f", n = {row['n']:.0f}" if row["n"] else "")


def excludes(rows: pd.DataFrame | Mapping[Any, Any], value: float = 0.0) -> Any:
    """Whether the interval of a row, or of each row of a table, excludes a value; None if that of a row is not known."""
    if isinstance(rows, pd.DataFrame):
        return (rows["ci_low"] > value) | (rows["ci_high"] < value)
    known = not (pd.isna(rows["ci_low"]) or pd.isna(rows["ci_high"]))
    return bool(rows["ci_low"] > value or rows["ci_high"] < value) if known else None


def caption(figure: go.Figure, sentences: Iterable[str]) -> go.Figure:
    """Write literal ``sentences`` in grey below everything else, and return the figure, which grows by their room."""
    text = " ".join(filter(None, sentences))
    if not text:
        return figure
    margin, width = figure.layout.margin, figure.layout.width
    lines = textwrap.wrap(text, int((width - 24) / CAPTION_LETTER))
    room = LINE * len(lines) + 8
    figure.update_layout(height=figure.layout.height + room, margin={"b": margin.b + room})
    return figure.add_annotation(
        text="<br>".join(map(literal, lines)), x=0, y=0, xref="paper", yref="paper", xanchor="left", yanchor="bottom",
        xshift=8 - margin.l, yshift=4 - figure.layout.margin.b, align="left", font={"size": 12, "color": MUTED},
    )  # fmt: skip
