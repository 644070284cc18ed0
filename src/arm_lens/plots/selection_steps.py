"""How the search for heads went: a quantity against the step over seeds, and every head's probability of being selected.

One figure is interactive, with a slider and a play button that need no server; the others are for print, too.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import head_name
from arm_lens.frames import HISTORY, TRAJECTORY, checked, criteria_of, repeats_in
from arm_lens.heads import HasHeads, Named, evenly_spaced, history_frame, trajectory_frame
from arm_lens.plots.head_maps import MapGrid
from arm_lens.plots.marks import band, marks
from arm_lens.plots.measures import trust_captions
from arm_lens.plots.notation import caption, repeated
from arm_lens.plots.panels import facets
from arm_lens.plots.theme import HEAT, INK, MEETS, MUTED, current_theme, narrow

AXES = {
    "reward": "reward of sampled masks",
    "expected_heads": "expected number of heads",
    "entropy": "entropy per head (nats)",
}
STOPS = 40
NAME = 12
"""Pixels from one head's name to the next."""
NAMES_ROOM = 72
LEADER = 14
"""Pixels between the end of a line and its name."""
UNCHOSEN = "#b5b5b5"
ENDED = "A search that has ended stays as it ended."
CHOSEN_REST, UNCHOSEN_REST = "#bcd7e8", "#e6e6e6"
MOST_LINES = 60
"""Lines of chosen heads, and of others, in a panel; the rest is a band."""


def training_curves(
    history: HasHeads | Named[HasHeads] | pd.DataFrame,
    *,
    value: Literal["reward", "expected_heads", "entropy"] = "reward",
) -> go.Figure:
    """The mean over searches (seeds, example samples) as a line, and the band from the lowest to the highest.

    The reward is by default the log-probability of the right one of the two verdicts, where a judge that flips a coin has
    log 0.5, about -0.69: a search that ends lower has found no set of heads that judges its examples.

    Args:
        history: selections or reward models, also by name; or a table like `arm_lens.frames.HISTORY` with the column
            that is drawn.
        value: the column to draw.
    """
    if value not in AXES:
        raise ValueError(f"there is a curve for {', '.join(map(repr, AXES))}, not for {value!r}")
    table = checked(history_frame(history), HISTORY.needing("criterion", "seed", "step", value))
    criteria = criteria_of(table)
    banded = bool(table.duplicated(["criterion", "step"]).any())
    over_all, spread_of_all = f"mean over {repeated(table)}", f"lowest to highest of the {repeated(table)}"
    figure, grid = facets(
        criteria,
        entries=[over_all, spread_of_all] if banded else (),
        height=110 if narrow() else 150,
        x="step",
        y=AXES[value],
    )
    for index, criterion in enumerate(criteria):
        curve = _of_all(table[table["criterion"] == criterion], value)
        place, steps = grid.place(index), curve.index.to_list()
        if banded:
            over = band(steps, curve["min"], curve["max"], CHOSEN_REST, name=spread_of_all, legendgroup="band")
            figure.add_trace(over.update(showlegend=index == 0), **place)
        texts = [
            f"step {step}: mean {mean:.3f}, from {low:.3f} to {high:.3f}"
            for step, mean, low, high in curve.itertuples()
        ]
        look = {"line": {"width": 1.8, "color": MEETS}, "name": over_all, "legendgroup": "mean"}
        line = marks(steps, curve["mean"], texts, mode="lines", showlegend=index == 0, **look)
        figure.add_trace(line, **place)
    figure.update_xaxes(range=[table["step"].min(), table["step"].max()], nticks=5)
    figure.update_yaxes(nticks=5, rangemode="normal" if value == "reward" else "tozero")
    for axis in list(figure.select_yaxes())[1:]:
        axis.matches = "y"
    lengths = (
        table.groupby(["criterion", *repeats_in(table)], dropna=False)["step"].max().groupby("criterion").nunique()
    )
    return caption(figure, [ENDED * bool((lengths > 1).any())])


def _of_all(history: pd.DataFrame, value: str) -> pd.DataFrame:
    """The mean, the lowest and the highest value of all searches at each step; one that has ended stays as it ended."""
    searches = history.assign(search=history.groupby(repeats_in(history), sort=False, dropna=False).ngroup())
    every = searches.pivot(index="step", columns="search", values=value).sort_index().ffill()
    return every.agg(["mean", "min", "max"], axis=1)


def selection_steps(trajectory: HasHeads | Named[HasHeads] | pd.DataFrame) -> go.Figure:
    """Layer by head maps of selection probabilities, one per criterion, with a slider over the steps.

    The figure shows the last step, so that a saved image shows the result; laid out for print it has no slider. At most
    40 steps have a stop, the first and the last among them.

    Args:
        trajectory: selections or reward models, also by name; or a table like `arm_lens.frames.TRAJECTORY`.
    """
    table = checked(trajectory_frame(trajectory), TRAJECTORY)
    criteria = criteria_of(table)
    printed = current_theme().inches is not None
    n_layers, n_heads = (int(table[column].max()) + 1 for column in ("layer", "head"))
    grid = MapGrid.of(len(criteria), n_layers, n_heads, bottom=48 if printed else 150)
    steps = sorted(table["step"].unique().tolist())
    steps = [steps[index] for index in evenly_spaced(len(steps), STOPS)]
    then = table.pivot(index="step", columns=["criterion", "layer", "head"], values="probability").ffill()
    tables = {step: [_map(then.loc[step, criterion], grid) for criterion in criteria] for step in steps}
    ended = table.groupby("criterion")["step"].max().nunique() > 1
    notes = {step: [f"{np.nansum(one):.1f} heads expected" for one in tables[step]] for step in steps}
    last = steps[-1]
    bar: dict[str, Any] = {"cmin": 0, "cmax": 1, "colorscale": HEAT}
    no_hovers = [None] * len(criteria)
    figure = grid.draw(criteria, notes[last], tables[last], no_hovers, "selection<br>probability", **bar)
    figure.update_traces(
        hovertemplate="layer %{y}, head %{x}<br>probability %{z:.3f}<extra>%{fullData.name}</extra>",
        selector={"type": "heatmap"},
    )
    early = ENDED * ended
    caption(figure, [f"After step {last} of the search." * printed, early, *_trust(criteria)])
    if printed:
        return figure
    maps = [index for index, trace in enumerate(figure.data) if trace.type == "heatmap"]
    # Frames replace all annotations: besides the titles, those that come with the colour bar.
    words = [note.to_plotly_json() for note in figure.layout.annotations]
    frames = []
    for step in steps:
        titles = [
            {**title, "text": title["text"].replace(old, new)}
            for title, old, new in zip(words, notes[last], notes[step], strict=False)
        ]
        layout = {"annotations": titles + words[len(criteria) :]}
        maps_then = [go.Heatmap(z=one) for one in tables[step]]
        frames.append(go.Frame(name=str(step), data=maps_then, traces=maps, layout=layout))
    figure.frames = frames
    _add_controls(figure, steps)
    return figure


def selection_trajectories(
    trajectory: HasHeads | Named[HasHeads] | pd.DataFrame, *, most: int = MOST_LINES
) -> go.Figure:
    """A line per head: its probability of being selected against the step; a panel per criterion.

    Heads above one half at the end are drawn in blue and named at the right, in the order of their probability. If there is
    no room for all names, the last line says how many more were chosen. Of more than ``most`` chosen heads, and of more than
    ``most`` others, those with the highest last probability have a line; the rest is a band from the lowest to the highest.

    Args:
        trajectory: selections or reward models, also by name; or a table like `arm_lens.frames.TRAJECTORY`.
        most: lines of each of the two kinds in a panel, at most.
    """
    table = checked(trajectory_frame(trajectory), TRAJECTORY)
    criteria = criteria_of(table)
    wide = [
        table[table["criterion"] == criterion].pivot(index="step", columns=["layer", "head"], values="probability")
        for criterion in criteria
    ]
    chosen = [one.columns[one.iloc[-1] > 0.5] for one in wide]
    notes = [f"{len(some)} of {one.shape[1]} heads chosen" for some, one in zip(chosen, wide, strict=True)]
    figure, panels = facets(
        criteria,
        notes=notes,
        height=190,
        narrowest=100,
        gap_x=NAMES_ROOM + (14 if narrow() else 20),
        right=NAMES_ROOM,
        x="step",
        y="probability",
    )
    for index, (some, one) in enumerate(zip(chosen, wide, strict=True)):
        place = panels.place(index)
        bands, lines = [], []
        for heads, color, width, name, rest_color in (
            (one.columns.difference(some, sort=False), UNCHOSEN, 0.8, "not chosen", UNCHOSEN_REST),
            (some, MEETS, 1.5, "chosen", CHOSEN_REST),
        ):
            drawn = one.iloc[-1][heads].nlargest(most).index
            others = one[heads.difference(drawn, sort=False)]
            if others.shape[1]:
                low, high = others.min(axis=1), others.max(axis=1)
                bands.append(band(one.index, low, high, rest_color, name=f"{name}, rest"))
            lines.append(_lines(one[drawn], {"color": color, "width": width}, name))
        figure.add_traces([*bands, *lines], rows=place["row"], cols=place["col"])
        _add_names(figure, one.iloc[-1][some], panels.height, place)
        figure.add_hline(0.5, line={"color": MUTED, "width": 1, "dash": "dash"}, layer="below", **place)
    figure.update_xaxes(range=[table["step"].min(), table["step"].max()], nticks=4)
    figure.update_yaxes(range=[-0.01, 1.01], tickvals=[0, 0.5, 1])
    banded = any(len(some) > most or one.shape[1] - len(some) > most for some, one in zip(chosen, wide, strict=True))
    rest = (
        f"Lines: the {most} most probable chosen heads and the {most} most probable others; bands: the rest." * banded
    )
    what = "Blue: heads that end above 0.5 (dashed), named in the order of their last probability."
    return caption(figure, [what, rest, *_trust(criteria)])


def _map(probabilities: pd.Series, grid: MapGrid) -> np.ndarray:
    """Probabilities by layer and head as [layer, head]."""
    return grid.table(probabilities.rename("probability").reset_index(), "probability").round(4)


def _trust(criteria: list[str]) -> list[str]:
    """That a probability of the search is no effect of a head."""
    return trust_captions(pd.DataFrame({"criterion": criteria, "measure": "selection_probability"}))


def _lines(table: pd.DataFrame, line: dict[str, Any], name: str) -> go.Scatter:
    """The lines of all heads as one trace, with a gap between heads."""
    x, y = [*table.index, None] * table.shape[1], [y for _, one in table.items() for y in (*one, None)]
    texts = [head_name(*head) for head in table.columns for _ in range(len(table) + 1)]
    hover = {"text": texts, "hovertemplate": "%{text}, step %{x}: %{y:.3f}<extra></extra>", "hoverinfo": None}
    return marks(x, y, mode="lines", line=line, name=name, **hover)


def _add_names(figure: go.Figure, ends: pd.Series, height: int, place: dict[str, int]) -> None:
    """Add names at the right of a panel, as many as there is room for, each with a thin line from the end of its own."""
    ends = ends.sort_values(ascending=False, kind="stable")
    names = [head_name(*head) for head in ends.index]
    room = height // NAME
    if len(names) > room:
        names = [*names[: room - 1], f"{len(names) - room + 1} more"]
    downs = [(1 - float(value)) * height for value in ends.iloc[: len(names)]]
    for value, name, down, moved in zip(ends, names, downs, spread(downs, NAME, height), strict=False):
        figure.add_annotation(
            text=name, x=1, xref="x domain", y=float(value), ax=LEADER, ay=moved - down, showarrow=True, arrowhead=0,
            arrowwidth=0.7, arrowcolor=MUTED, xanchor="left", yanchor="middle", font={"size": 11, "color": INK},
            standoff=0, **place,
        )  # fmt: skip


def spread(places: list[float | int], distance: float | int, room: float | int) -> list[float | int]:
    """Positions in ascending order, moved as little as needed to be ``distance`` apart between 0 and ``room``."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + distance)
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], room - distance * (len(moved) - 1 - index))
    return moved


def _add_controls(figure: go.Figure, steps: list[int]) -> None:
    """Add a slider over the steps, and buttons that play and stop."""
    margin, font = figure.layout.margin, {"size": 12}
    below = -52 / (figure.layout.height - margin.t - margin.b)
    indent = 86 / (figure.layout.width - margin.l - margin.r)
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    play = {"frame": {"duration": 180, "redraw": True}, "fromcurrent": False, "transition": {"duration": 0}}
    buttons = [
        {"label": "▶", "method": "animate", "args": [None, play]},
        {"label": "❚❚", "method": "animate", "args": [[None], still]},
    ]
    menu = {
        "type": "buttons", "direction": "left", "buttons": buttons, "x": 0, "xanchor": "left", "y": below, "yanchor": "top",
        "pad": {"t": 8}, "showactive": False, "font": font, "bgcolor": "#ffffff", "bordercolor": "#999999",
    }  # fmt: skip
    stops = [{"label": str(step), "method": "animate", "args": [[str(step)], still]} for step in steps]
    slider = {
        "steps": stops, "active": len(steps) - 1, "x": indent, "xanchor": "left", "len": 1 - indent, "y": below,
        "yanchor": "top", "pad": {"t": 12, "b": 4}, "currentvalue": {"prefix": "step ", "font": font, "offset": 6},
        "font": {"size": 11}, "transition": {"duration": 0},
    }  # fmt: skip
    figure.update_layout(updatemenus=[menu], sliders=[slider])
