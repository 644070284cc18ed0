"""Did a judge learn to judge, or the bias? Accuracy in every combination of correctness and bias.

In the pairs of a reward-hacking benchmark the better response is correct and the worse one is not, and a bias that has
nothing to do with it (length, format, flattery) is on one of them, on both or on neither. A judge that judges has one
colour over all cells. A judge that follows the bias has 0 in one cell and 1 in its mirror image.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from arm_lens.evaluation.standings import cell_parts
from arm_lens.frames import SUMMARY
from arm_lens.plots.cuts import one_setting
from arm_lens.plots.judge_rows import JudgeRows, accuracy_text, add_value_table, column_headings, overhang
from arm_lens.plots.panels import Panels, fitting_columns
from arm_lens.plots.theme import label, literal, page_width

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
"""Of the few-shot examples: whether the bias marks the worse response, nothing, or the better one."""


def cells_of(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows whose subset reads "bias | mapping | cell", with these three as the columns bias, mapping and cell."""
    parts = cell_parts(summary)
    whole = parts.map(len) == 3
    split = parts[whole].to_list()
    columns = {name: [part[index].strip() for part in split] for index, name in enumerate(("bias", "mapping", "cell"))}
    return summary[whole].assign(**columns)


def bias_grid(
    summary: pd.DataFrame, *, benchmark: str | None = None, names: Mapping[str, str] | None = None
) -> go.Figure:
    """Accuracy of every judge in every cell, a panel for each bias and few-shot mapping.

    Panels stand side by side for the biases and one below the other for the mappings of the few-shot examples. Brown is
    below one half, blue above; a dash is a cell that was not measured.

    Args:
        summary: a table like `arm_lens.frames.SUMMARY`, whose subsets read "bias | mapping | cell".
        benchmark: which one, if the table holds several.
        names: names of judges to display instead of the usual ones.

    Raises:
        ValueError: if a column is missing, there are no rows, no subset is a cell, or several rows are of the same one.
    """
    table = cells_of(one_setting(summary, benchmark, SUMMARY))
    if table.empty:
        raise ValueError("no subset of the table 'summary' reads 'bias | mapping | cell'")
    rows = JudgeRows.of(table["judge"], names)
    biases = list(dict.fromkeys(table["bias"]))
    mappings = _ordered(table["mapping"], MAPPINGS)
    cells = _ordered(table["cell"], CELLS)
    left, right, gap = rows.name_room, 14, 16
    columns = fitting_columns(len(biases), most=3, left=left, right=right, gap=gap, narrowest=36 * len(cells))
    width = int(min((page_width() - left - right - (columns - 1) * gap) / columns, max(76 * len(cells), NARROWEST)))
    letters = max(8, int(width / 7.5) - len(",  examples") - max(map(len, mappings)))
    headings, angle, room = column_headings(cells, width / len(cells))
    room -= rows.heading_drop(angle)
    slant = overhang(cells, angle)
    width -= slant // columns
    panels = [(mapping, bias) for mapping in mappings for bias in biases]
    grid = Panels(
        count=len(panels), columns=columns, width=width, height=rows.height, gap_x=gap, gap_y=room + 52,
        left=left, right=right + slant, top=room + 48, bottom=14,
    )  # fmt: skip
    figure = grid.figure([""] * len(panels), [""] * len(panels))
    figure.layout.annotations = ()
    hover = [
        accuracy_text(row, rows.styles[row["judge"]].name, f"{row['bias']}, {row['mapping']} examples", row["cell"])
        for row in table.to_dict("records")
    ]
    table = table.assign(text=hover)
    for index, (mapping, bias) in enumerate(panels):
        row, column = grid.cell(index)
        here = table[(table["mapping"] == mapping) & (table["bias"] == bias)]
        wide = here.pivot(index="judge", columns="cell", values="accuracy").reindex(columns=cells)
        texts = here.pivot(index="judge", columns="cell", values="text").reindex(columns=cells).fillna("")
        place = {"row": row, "col": column}
        add_value_table(figure, rows, wide, texts, cell_width=width / len(cells), place=place)
        figure.update_xaxes(rows.heading_axis(headings, angle), **place)
        figure.update_yaxes(rows.y_axis(named=column == 1), **place)
        figure.add_annotation(
            text=f"<b>{label(bias, width=letters, lines=1)}</b>, {literal(mapping)} examples",
            x=0, xref="x domain", y=1, yref="y domain", xanchor="left", yanchor="bottom", yshift=room + 4, **place,
        )  # fmt: skip
    return figure


def _ordered(values: pd.Series, known: tuple[str, ...]) -> list[str]:
    """The different values, known ones first in their order."""
    there = list(dict.fromkeys(values))
    return [one for one in known if one in there] + [one for one in there if one not in known]
