"""Did a judge learn to judge, or the bias? Accuracy in every combination of correctness and bias.

In the pairs of a reward-hacking benchmark the better response is correct and the worse one is not, and a bias that has
nothing to do with correctness (length, format, flattery) is on one of them, on both or on neither. A judge that judges
has one colour over all cells. A judge that follows the bias has 0 in one cell and 1 in its mirror image.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.hacking import cells_of
from arm_lens.frames import SUMMARY
from arm_lens.plots.cuts import one_setting
from arm_lens.plots.judge_rows import JudgeRows, column_headings, overhang
from arm_lens.plots.notation import accuracy_text
from arm_lens.plots.panels import above_panel, line_panels
from arm_lens.plots.theme import label, literal

CELLS = (
    "bias on rejected",
    "bias on neither",
    "bias on both",
    "bias on chosen",
    "correct, plain",
    "correct, biased",
    "incorrect, plain",
    "incorrect, biased",
)
"""The cells of pairs, from the published one to its mirror image, then those of single responses."""
NARROWEST = 240
"""Pixels of a panel, which its title needs."""
MAPPINGS = ("standard", "balanced", "flipped")
"""The few-shot examples: the bias marks the worse response, nothing, or the better one."""


def bias_grid(
    summary: pd.DataFrame, *, benchmark: str | None = None, names: Mapping[str, str] | None = None
) -> go.Figure:
    """Accuracy of every judge in every cell, a panel for each bias and few-shot mapping.

    Panels stand side by side for the biases and one below the other for the mappings of the few-shot examples. Brown is
    below one half, blue above; a dash is a cell that was not measured.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`, whose subsets read "bias | mapping | cell".
        benchmark: which one, if the table has several.
        names: labels that replace the usual ones, by judge.
    """
    table = cells_of(one_setting(summary, benchmark, SUMMARY))
    if table.empty:
        raise ValueError(
            "no subset of the table 'summary' is a cell of a reward-hacking benchmark, such as 'length | standard | bias on "
            "chosen'"
        )
    rows = JudgeRows.of(table["judge"], names)
    texts = [
        accuracy_text(row, rows.styles[row["judge"]].label, f"{row['bias']}, {row['mapping']} examples", row["cell"])
        for row in table.to_dict("records")
    ]
    table = table.assign(text=texts, column=table["cell"])
    mappings, cells = _ordered(table["mapping"], MAPPINGS), _ordered(table["cell"], CELLS)
    panels = list(itertools.product(mappings, table["bias"].unique()))
    grid = line_panels(
        len(panels) // len(mappings), height=rows.height, most=3, narrowest=36 * len(cells),
        widest=max(76 * len(cells), NARROWEST), left=rows.name_room, right=14, gap_x=16, bottom=14,
    )  # fmt: skip
    letters = max(8, int(grid.width / 7.5) - len(",  examples") - max(map(len, mappings)))
    headings, angle, room = column_headings(cells, grid.width / len(cells))
    room -= rows.heading_drop(angle)
    slant = overhang(cells, angle)
    grid = replace(
        grid, count=len(panels), width=grid.width - slant // grid.columns, right=grid.right + slant,
        top=room + 48, gap_y=room + 52,
    )  # fmt: skip
    figure = grid.figure([])
    over = dict(zip(cells, headings, strict=True))
    for index, (mapping, bias) in enumerate(panels):
        place = grid.place(index)
        here = table[(table["mapping"] == mapping) & (table["bias"] == bias)]
        rows.add_table(
            figure, index + 1, here, over, angle=angle, cell_width=grid.width / len(cells), named=place["col"] == 1
        )
        title = f"<b>{label(bias, width=letters, lines=1)}</b>, {literal(mapping)} examples"
        above_panel(figure, title, yshift=room + 4, **place)
    return figure


def _ordered(values: pd.Series, known: Sequence[str]) -> list[str]:
    """The different values, known ones first in their order."""
    return sorted(values.unique(), key=lambda value: known.index(value) if value in known else len(known))
