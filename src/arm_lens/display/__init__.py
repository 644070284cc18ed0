"""How results show themselves: quiet HTML in a notebook, plain characters in a terminal.

A notebook asks an object for ``_repr_html_``, a terminal for its ``repr``, ``print`` for its ``str``. This package takes only
numbers, texts and tables, so that every other module can use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from arm_lens.display.maps import score_map, set_map
from arm_lens.display.notebook import card, code_line, frame_table, small_print
from arm_lens.display.terminal import LINE_WIDTH, frame_text, text_map
from arm_lens.display.words import (
    accuracies,
    counted,
    extremes,
    first_and_last,
    head_name,
    listed,
    of_each_verdict,
    size,
    sizes,
    strongest,
    with_values,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    Figure: TypeAlias = object  # plotly is optional, and what draws a figure imports it

__all__ = [
    "LINE_WIDTH",
    "Figure",
    "accuracies",
    "card",
    "code_line",
    "counted",
    "extremes",
    "first_and_last",
    "frame_table",
    "frame_text",
    "head_name",
    "listed",
    "of_each_verdict",
    "score_map",
    "set_map",
    "size",
    "sizes",
    "small_print",
    "strongest",
    "text_map",
    "with_values",
]
