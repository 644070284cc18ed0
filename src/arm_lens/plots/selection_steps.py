"""How the search settled on heads: every head's probability of being selected, step by step.

One figure to be moved through, with a slider and a play button that need no server, and one to be printed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import head_name
from arm_lens.frames import TRAJECTORY, checked, criteria_of
from arm_lens.heads import Named, Searched, trajectory_frame
from arm_lens.plots.layer_maps import MapGrid
from arm_lens.plots.notation import caption
from arm_lens.plots.panels import Panels, balanced_columns
from arm_lens.plots.theme import HEAT, INK, MEETS, MUTED, current_theme, label, narrow, page_width

STOPS = 40
NAME = 12
"""Pixels from one head's name to the next."""
NAMES_ROOM = 64
LEADER = 14
"""Pixels between the end of a line and its name."""
UNCHOSEN = "#b5b5b5"


def selection_steps(trajectory: Searched | Named[Searched] | pd.DataFrame) -> go.Figure:
    """Layer by head maps of selection probabilities, one per criterion, with a slider over the steps.

    The figure stands at the last step, so that a saved image shows the result; laid out for print it has no slider. At most
    40 steps have a stop, the first and the last among them.

    Args:
        trajectory: selections or reward models, also by name; or a table like `arm_lens.frames.TRAJECTORY`.

    Raises:
        ValueError: if a column is missing, there are no rows, or a head is there twice in a step.
    """
    table = checked(trajectory_frame(trajectory), TRAJECTORY)
    criteria = criteria_of(table)
    printed = current_theme().inches is not None
    n_layers, n_heads = (int(table[column].max()) + 1 for column in ("layer", "head"))
    grid = MapGrid.of(len(criteria), n_layers, n_heads, bottom=48 if printed else 150)
    steps = _thinned(sorted(table["step"].unique().tolist()))
    by_step = {step: part for step, part in table[table["step"].isin(steps)].groupby("step")}
    final = {criterion: _table(grid, by_step[steps[-1]], criterion) for criterion in criteria}
    figure = grid.panels.figure(criteria, [_expected(final[criterion]) for criterion in criteria])
    for index, criterion in enumerate(criteria):
        grid.add(figure, index, final[criterion], None, span=None, name=label(criterion))
    figure.update_traces(
        hovertemplate="layer %{y}, head %{x}<br>probability %{z:.3f}<extra>%{fullData.name}</extra>",
        selector={"type": "heatmap"},
    )
    maps = [index for index, trace in enumerate(figure.data) if trace.type == "heatmap"]
    titles = figure.layout.annotations[: len(criteria)]
    scale = {"cmin": 0, "cmax": 1, "colorscale": [list(stop) for stop in HEAT]}
    if printed:
        grid.finish(figure, "selection<br>probability", **scale)
        caption(figure, [f"After step {steps[-1]} of the search."])
        return figure
    figure.frames = [
        go.Frame(
            name=str(step),
            data=[go.Heatmap(z=_table(grid, by_step[step], criterion)) for criterion in criteria],
            traces=maps,
            layout={"annotations": _annotations(figure, [_table(grid, by_step[step], c) for c in criteria], titles)},
        )
        for step in steps
    ]
    grid.finish(figure, "selection<br>probability", **scale)
    for frame in figure.frames:
        # Frames replace all annotations: those that came with the colour bar go along.
        frame.layout.annotations = (*frame.layout.annotations, *figure.layout.annotations[len(criteria) :])
    _add_controls(figure, steps)
    return figure


def selection_trajectories(trajectory: Searched | Named[Searched] | pd.DataFrame) -> go.Figure:
    """A line per head: its probability of being selected against the step; a panel per criterion.

    Heads above one half at the end are drawn in blue and named at the right, in the order of their probability; where more
    were chosen than there is room for names, the last line says how many.

    Args:
        trajectory: selections or reward models, also by name; or a table like `arm_lens.frames.TRAJECTORY`.

    Raises:
        ValueError: if a column is missing, there are no rows, or a head is there twice in a step.
    """
    table = checked(trajectory_frame(trajectory), TRAJECTORY)
    criteria = criteria_of(table)
    columns = balanced_columns(len(criteria), 4 if page_width() >= 800 else 2)
    left, gap = 52, NAMES_ROOM + (14 if narrow() else 20)
    width = min(520, (page_width() - left - NAMES_ROOM - (columns - 1) * gap) // columns)
    panels = Panels(
        count=len(criteria), columns=columns, width=width, height=190, gap_x=gap, gap_y=64, left=left, right=NAMES_ROOM,
        top=48, bottom=46,
    )  # fmt: skip
    wide = {
        criterion: part.pivot(index="step", columns=["layer", "head"], values="probability").sort_index()
        for criterion, part in table.groupby("criterion", sort=False)
    }
    chosen = {criterion: one.columns[one.iloc[-1] > 0.5] for criterion, one in wide.items()}
    notes = [f"{len(chosen[one])} of {wide[one].shape[1]} heads chosen" for one in criteria]
    figure = panels.figure(criteria, notes)
    last = table["step"].max()
    for index, criterion in enumerate(criteria):
        _lines(figure, panels, index, wide[criterion], chosen[criterion])
        row, column = panels.cell(index)
        figure.update_xaxes(title_text="step" if panels.is_lowest(index) else None, row=row, col=column)
        figure.update_yaxes(title_text="probability" if column == 1 else None, row=row, col=column)
        figure.add_shape(
            type="line", x0=0, x1=1, xref="x domain", y0=0.5, y1=0.5, line={"color": MUTED, "width": 1, "dash": "dash"},
            layer="below", row=row, col=column,
        )  # fmt: skip
    figure.update_xaxes(range=[table["step"].min(), last], nticks=4)
    figure.update_yaxes(range=[-0.01, 1.01], tickvals=[0, 0.5, 1])
    figure.update_layout(showlegend=False)
    caption(figure, ["Blue: heads that end above 0.5 (dashed), named in the order of their last probability."])
    return figure


def _lines(figure: go.Figure, panels: Panels, index: int, table: pd.DataFrame, chosen: pd.Index) -> None:
    row, column = panels.cell(index)
    others = [head for head in table.columns if head not in set(chosen)]
    for heads, color, width in ((others, UNCHOSEN, 0.8), (list(chosen), MEETS, 1.5)):
        x: list[float | int | None] = []
        y: list[float | int | None] = []
        names: list[str] = []
        for head in heads:
            x += [*table.index.tolist(), None]
            y += [*table[head].tolist(), None]
            names += [head_name(*head)] * (len(table) + 1)
        trace = go.Scatter(
            x=x, y=y, mode="lines", line={"color": color, "width": width}, text=names, connectgaps=False,
            hovertemplate="%{text}, step %{x}: %{y:.3f}<extra></extra>", name="chosen" if color == MEETS else "not chosen",
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=column)
    ends = table.iloc[-1][chosen].sort_values(ascending=False, kind="stable")
    room = panels.height // NAME
    if len(ends) > room:
        shown = [*(head_name(*head) for head in ends.index[: room - 1]), f"and {len(ends) - room + 1} more"]
    else:
        shown = [head_name(*head) for head in ends.index]
    at = spread([(1 - float(value)) * panels.height for value in ends.iloc[: len(shown)]], NAME, panels.height)
    for value, name, down in zip(ends, shown, at, strict=False):
        # Text stands where there is room; a thin line leads to the end of its own line.
        figure.add_annotation(
            text=name, x=1, xref="x domain", y=float(value), ax=LEADER, ay=down - (1 - float(value)) * panels.height,
            showarrow=True, arrowhead=0, arrowwidth=0.7, arrowcolor=MUTED, xanchor="left", yanchor="middle",
            font={"size": 11, "color": INK}, standoff=0, row=row, col=column,
        )  # fmt: skip


def spread(places: list[float | int], distance: float | int, room: float | int) -> list[float | int]:
    """Places in ascending order, moved as little as it takes to stand ``distance`` apart between 0 and ``room``."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + distance)
    if moved and moved[-1] > room:
        moved[-1] = room
        for index in range(len(moved) - 2, -1, -1):
            moved[index] = min(moved[index], moved[index + 1] - distance)
    return moved


def _thinned(steps: list[int]) -> list[int]:
    if len(steps) <= STOPS:
        return steps
    return [steps[index] for index in sorted({round(at) for at in np.linspace(0, len(steps) - 1, STOPS)})]


def _table(grid: MapGrid, part: pd.DataFrame, criterion: str) -> np.ndarray:
    return grid.table(part[part["criterion"] == criterion], "probability").round(4)


def _expected(table: np.ndarray) -> str:
    return f"{np.nansum(table):.1f} heads expected"


def _annotations(
    figure: go.Figure, tables: list[np.ndarray], titles: tuple[go.layout.Annotation, ...]
) -> list[dict[str, object]]:
    """The panels' titles with the expected numbers of heads of a step."""
    found = []
    for title, table, first in zip(titles, tables, figure.layout.annotations, strict=False):
        old = first.text.split("px;color")[0]
        note = first.text[len(old) :].split(">", 1)[0]
        found.append({**title.to_plotly_json(), "text": f"{old}{note}>{_expected(table)}</span>"})
    return found


def _add_controls(figure: go.Figure, steps: list[int]) -> None:
    margin, height = figure.layout.margin, figure.layout.height
    inner = height - margin.t - margin.b
    below = -52 / inner
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    play = {"frame": {"duration": 180, "redraw": True}, "fromcurrent": False, "transition": {"duration": 0}}
    font = {"size": 12}
    buttons = [
        {"label": "▶", "method": "animate", "args": [None, play]},
        {"label": "❚❚", "method": "animate", "args": [[None], still]},
    ]
    menu = {
        "type": "buttons", "direction": "left", "buttons": buttons, "x": 0, "xanchor": "left", "y": below, "yanchor": "top",
        "pad": {"t": 8}, "showactive": False, "font": font, "bgcolor": "#ffffff", "bordercolor": "#999999",
    }  # fmt: skip
    stops = [{"label": str(step), "method": "animate", "args": [[str(step)], still]} for step in steps]
    wide = figure.layout.width - margin.l - margin.r
    slider = {
        "steps": stops, "active": len(steps) - 1, "x": 86 / wide, "xanchor": "left", "len": 1 - 86 / wide, "y": below,
        "yanchor": "top", "pad": {"t": 12, "b": 4}, "currentvalue": {"prefix": "step ", "font": font, "offset": 6},
        "font": {"size": 11}, "transition": {"duration": 0},
    }  # fmt: skip
    figure.update_layout(updatemenus=[menu], sliders=[slider])
