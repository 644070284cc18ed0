"""Which heads were chosen: one map per criterion, layers upwards from layer 0, heads to the right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import checked, criteria_of
from arm_lens.plots.panels import Panels, fitting_columns
from arm_lens.plots.theme import label, narrow, page_width

LARGEST_CELL = 28.0
COLUMNS = ["criterion", "seed", "layer", "head", "probability", "selected"]
SCORES = ["criterion", "measure", "outcome", "layer", "head", "score", "ci_low", "ci_high"]
BAR = 56
"""Pixels that the colour scale takes below the maps, on a narrow page."""


def selected_heads(heads: pd.DataFrame, *, attributions: pd.DataFrame | None = None) -> go.Figure:
    """In what fraction of the seeds each head is in the selected set.

    Args:
        heads: criterion, seed, layer, head, probability, selected; one row for every head of the model.
        attributions: criterion, measure, outcome, layer, head, score, ci_low, ci_high: what else is known of the heads,
            told when pointed at.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    checked(heads, COLUMNS, table="heads")
    counts = heads.astype({"selected": int}).groupby(["criterion", "seed"], sort=False)["selected"].sum()
    size = len(heads[["layer", "head"]].drop_duplicates())
    notes = []
    for criterion in criteria_of(heads):
        low, high = int(counts[criterion].min()), int(counts[criterion].max())
        notes.append(f"{low} of {size} heads" if low == high else f"{low} to {high} of {size} heads")
    figure = _maps(heads, heads["selected"].astype(float), notes, ("selected in",), attributions)
    seeds = heads["seed"].nunique()
    if seeds <= 5:
        ticks = [count / seeds for count in range(seeds + 1)]
        text = [f"{count} of {seeds}" + " seeds" * (count == seeds and seeds > 1) for count in range(seeds + 1)]
        figure.update_coloraxes(colorbar={"tickvals": ticks, "ticktext": text})
    return figure


def selection_probabilities(heads: pd.DataFrame, *, attributions: pd.DataFrame | None = None) -> go.Figure:
    """The selection probability of each head, as the search left it: the mean over seeds.

    Args:
        heads: criterion, seed, layer, head, probability, selected; one row for every head of the model.
        attributions: criterion, measure, outcome, layer, head, score, ci_low, ci_high: what else is known of the heads,
            told when pointed at.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    checked(heads, COLUMNS, table="heads")
    expected = heads.groupby(["criterion", "seed"], sort=False)["probability"].sum().groupby("criterion").mean()
    notes = [f"{expected[criterion]:.1f} heads expected" for criterion in criteria_of(heads)]
    return _maps(heads, heads["probability"], notes, ("selection", "probability"), attributions)


def _maps(
    heads: pd.DataFrame, values: pd.Series, notes: list[str], scale: tuple[str, ...], attributions: pd.DataFrame | None
) -> go.Figure:
    """One heat map per criterion of the mean of ``values`` over seeds, on one scale from 0 to 1, which has a name."""
    if attributions is not None:
        checked(attributions, SCORES, table="attributions")
    criteria = criteria_of(heads)
    n_layers, n_heads = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1
    grid, cell = _grid(len(criteria), n_layers, n_heads)
    figure = grid.figure(criteria, notes)
    means = values.groupby([heads["criterion"], heads["layer"], heads["head"]]).mean()
    for index, criterion in enumerate(criteria):
        z = means.loc[criterion].unstack("head").reindex(index=range(n_layers), columns=range(n_heads))
        row, column = grid.cell(index)
        figure.add_trace(
            go.Heatmap(
                z=z.to_numpy(dtype=float),
                x=list(range(n_heads)),
                y=list(range(n_layers)),
                text=_hover_texts(heads, attributions, criterion, n_layers, n_heads),
                hovertemplate="%{text}<extra></extra>",
                coloraxis="coloraxis",
                xgap=1 if cell >= 9 else 0.5,
                ygap=1 if cell >= 9 else 0.5,
                name=label(criterion),
            ),
            row=row,
            col=column,
        )
        figure.update_xaxes(title_text="head" if grid.is_lowest(index) else None, row=row, col=column)
        figure.update_yaxes(title_text="layer" if column == 1 else None, row=row, col=column)
    figure.update_coloraxes(cmin=0, cmax=1, colorbar=_colorbar(grid, scale))
    figure.update_xaxes(
        showgrid=False, showline=False, ticks="", ticklabelstandoff=2, tickvals=_ticks(n_heads, cell, 20)
    )
    figure.update_yaxes(
        showgrid=False, showline=False, ticks="", ticklabelstandoff=4, tickvals=_ticks(n_layers, cell, 17)
    )
    figure.update_xaxes(range=[-0.5, n_heads - 0.5])
    figure.update_yaxes(range=[-0.5, n_layers - 0.5])
    return figure


def _grid(count: int, n_layers: int, n_heads: int) -> tuple[Panels, float]:
    """The layout with square cells (wider or higher ones in a tiny model), and the side of a cell in pixels."""
    # On a narrow page the colour scale stands below the maps, elsewhere to their right.
    left, right, gap, bottom = (52, 16, 34, 48 + BAR) if narrow() else (52, 110, 34, 48)
    most = 4 if n_heads <= 16 else 3 if n_heads <= 40 else 1 if narrow() else 2
    columns = fitting_columns(count, most=most, left=left, right=right, gap=gap, narrowest=110)
    available = (page_width() - left - right - (columns - 1) * gap) / columns
    cell = min(LARGEST_CELL, min(available, 560) / n_heads)
    width, height = max(round(cell * n_heads), 120), max(round(cell * n_layers), 100)
    grid = Panels(
        count=count, columns=columns, width=width, height=height,
        gap_x=gap, gap_y=76, left=left, right=right, top=60, bottom=bottom,
    )  # fmt: skip
    return grid, cell


def _colorbar(grid: Panels, scale: tuple[str, ...]) -> dict[str, object]:
    """The colour scale's place and name."""
    name = " ".join(scale) if narrow() else "<br>".join(scale)
    # The last line is air.
    title = {"side": "top", "font": {"size": 12}, "text": f"{name}<br>&nbsp;"}
    common = {"lenmode": "pixels", "tickfont": {"size": 12}, "title": title}
    if narrow():
        return common | {
            "orientation": "h", "len": min(260, page_width() - grid.left), "x": 0, "xanchor": "left", "xpad": 0,
            "yref": "container", "y": 0, "yanchor": "bottom", "ypad": 4, "thickness": 10,
        }  # fmt: skip
    length = min(max(grid.height, 150), 300)
    return common | {"len": length, "y": 1, "yanchor": "top", "x": 1.0, "xpad": 16}


def _ticks(size: int, cell: float, spacing: int) -> list[int]:
    """Every 1st, 2nd, 4th, 8th... index, so that labels stand at least ``spacing`` pixels apart."""
    step = 1
    while step * cell < spacing:
        step *= 2
    return list(range(0, size, step))


def _hover_texts(
    heads: pd.DataFrame, attributions: pd.DataFrame | None, criterion: str, n_layers: int, n_heads: int
) -> np.ndarray:
    heads = heads[heads["criterion"] == criterion]
    texts = np.full((n_layers, n_heads), "", dtype=object)
    title = label(criterion, width=60)
    for layer, head in np.ndindex(n_layers, n_heads):
        texts[layer, head] = f"<b>{title}</b><br>layer {layer}, head {head}"
    columns = (heads[column].to_list() for column in ("layer", "head", "seed", "probability", "selected"))
    for layer, head, seed, probability, selected in zip(*columns, strict=True):
        chosen = ", selected" if selected else ""
        texts[layer, head] += f"<br>seed {seed}: probability {probability:.3f}{chosen}"
    if attributions is not None:
        own = attributions[(attributions["criterion"] == criterion) & attributions["score"].notna()]
        for row in own[(own["layer"] < n_layers) & (own["head"] < n_heads)].to_dict("records"):
            interval = f" ({row['ci_low']:+.3f} to {row['ci_high']:+.3f})" if row["ci_low"] == row["ci_low"] else ""
            what = label(f"{row['measure']} on {row['outcome']}".replace("_", " "), width=60)
            texts[row["layer"], row["head"]] += f"<br>{what}: {row['score']:+.3f}{interval}"
    return texts
