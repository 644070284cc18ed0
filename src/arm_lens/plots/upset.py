"""Which heads several names share: an UpSet plot, which is legible for eight sets, unlike a Venn diagram.

Every head belongs to exactly one intersection: the names that have the head. A column of dots shows these names, the bar
above it the number of heads, and the bars at the left how many heads each name has in all.

Source: Lex, Gehlenborg, Strobelt, Vuillemot, Pfister: UpSet: Visualization of Intersecting Sets, IEEE TVCG 20 (2014).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import counted
from arm_lens.frames import HEADS, checked, criteria_of, repeats_in
from arm_lens.heads import Chosen, Head, Named, heads_frame
from arm_lens.plots.cuts import of_every_head
from arm_lens.plots.marks import HOVER, marks
from arm_lens.plots.notation import caption, span_text
from arm_lens.plots.panels import BARE, LETTER, rows_axis
from arm_lens.plots.sheet import Sheet
from arm_lens.plots.theme import INK, MEETS, base_layout, label, labels, narrow, page_width

ROW = 24
COLUMN = (15, 30)
"""Pixels from one intersection to the next: the least and the most."""
BARS = 150
"""Pixels of the height of the upper bars."""
GAP = 14
EDGES = (12, 14)
"""Pixels free at the left and at the right."""
ABSENT = "#d9d9d9"
HEADS_SHOWN = 40


@dataclass(frozen=True)
class Intersection:
    """The heads that all these names have and no other name has."""

    names: tuple[str, ...]
    heads: tuple[Head, ...]


def memberships_of(heads: Chosen | Named[Chosen] | pd.DataFrame) -> dict[str, set[Head]]:
    """Each criterion's heads: those that at least half of its searches selected.

    Raises:
        ValueError: if a column or a head is missing, or the table is empty.
    """
    table = of_every_head(checked(heads_frame(heads), HEADS.needing("criterion", "layer", "head", "selected")))
    keys = ["criterion", "layer", "head"]
    shares = table.astype({"selected": float}).groupby(keys, sort=False)["selected"].mean()
    sets: dict[str, set[Head]] = {criterion: set() for criterion in criteria_of(table)}
    for criterion, layer, head in shares.index[shares >= 0.5]:
        sets[str(criterion)].add(Head(int(layer), int(head)))
    return sets


def intersections_of(sets: dict[str, set[Head]]) -> list[Intersection]:
    """All intersections with a head: the largest first, then by the number of names, then in the names' order."""
    groups: dict[tuple[str, ...], list[Head]] = {}
    for head in sorted(set().union(*sets.values())):
        groups.setdefault(tuple(name for name in sets if head in sets[name]), []).append(head)
    place = list(sets).index
    found = [Intersection(names, tuple(heads)) for names, heads in groups.items()]
    return sorted(found, key=lambda one: (-len(one.heads), len(one.names), list(map(place, one.names))))


def upset(heads: Chosen | Named[Chosen] | pd.DataFrame, *, most: int | None = None) -> go.Figure:
    """Sizes of the intersections of head sets, of the sets themselves, and which sets meet in each intersection.

    Args:
        heads: head sets, selections or reward models, by name, and several of each name; or a table like
            `arm_lens.frames.HEADS`. Of several searches a head counts if at least half selected it.
        most: how many intersections at most; without it, as many as there is room for.
    """
    sets = memberships_of(heads)
    found = intersections_of(sets)
    if not found:
        raise ValueError("no head is selected: there is nothing to intersect")
    if most is not None and most < 1:
        raise ValueError(f"most is {most}: at least one intersection is drawn")
    letters, left = (14, 56) if narrow() else (24, 96)
    longest = max(len(line) for name in sets for line in (textwrap.wrap(name, letters) or [""])[:2])
    names_room = round(LETTER * longest) + 18
    room = page_width() - EDGES[0] - left - names_room - EDGES[1]
    shown = found[: min(most or len(found), max(1, room // COLUMN[0]))]
    figure = _frame(sets, shown, letters, left, names_room, max(round(min(COLUMN[1] * len(shown), room)), 90))
    _draw(figure, sets, shown)
    rest = [len(one.heads) for one in found[len(shown) :]]
    of_each = "1 head each" if max(rest, default=0) == 1 else f"{span_text(rest or [0])} heads"
    left_out = f" {len(rest)} further intersections of {of_each} are left out." if rest else ""
    table = heads_frame(heads)
    searches = table.drop_duplicates(["criterion", *repeats_in(table)])["criterion"].value_counts()
    several = searches.max() > 1
    rule = f" A head counts if at least half of the {span_text(searches)} searches selected it." if several else ""
    return caption(figure, [f"Every head is counted once above, with exactly the names that have it.{rule}{left_out}"])


def _frame(
    sets: dict[str, set[Head]], shown: list[Intersection], letters: int, left: int, names_room: int, matrix: int
) -> go.Figure:
    """The axes: the first pair is that of the sets' bars, the second of the dots, the third of the bars above them."""
    row = 32 if any(len(textwrap.wrap(name, letters)) > 1 for name in sets) else ROW
    height, right, below, most = row * len(sets), left + names_room, BARS + GAP, max(len(one.heads) for one in shown)
    sheet = Sheet(right + matrix, below + height)
    margin = {"l": EDGES[0], "r": EDGES[1], "t": 20, "b": 44}
    size = base_layout(width=sum(EDGES) + sheet.width, height=sheet.height + 64, margin=margin)
    figure = sheet.figure.update_layout(size, showlegend=False, bargap=0.35)
    sizes = sheet.add_axes(0, below, left, height)
    dots = sheet.add_axes(right, below, matrix, height)
    counts = sheet.add_axes(right, 0, matrix, BARS)
    names = {**rows_axis(labels(sets, width=letters)), **BARE}
    sheet.x(sizes).update(range=[max(map(len, sets.values())) * 1.45 + 0.5, 0], showticklabels=False, **BARE)
    sheet.x(sizes).title = {"text": "heads", "standoff": 6}
    sheet.y(sizes).update(names, side="right", ticklabelstandoff=8)
    sheet.y(dots).update(names, showticklabels=False)
    for axis in (dots, counts):
        sheet.x(axis).update(range=[-0.5, len(shown) - 0.5], showticklabels=False, **BARE)
    sheet.x(counts).matches = f"x{dots}"
    sheet.y(counts).update(range=[0, most * 1.14], nticks=5, tickformat="d", dtick=1 if most <= 5 else None)
    sheet.y(counts).title = {"text": "heads in common", "standoff": 6}
    for index in range(0, len(sets), 2):
        figure.add_shape(
            type="rect", x0=0, x1=1, xref="paper", y0=index - 0.5, y1=index + 0.5, yref="y2", fillcolor="#f5f5f5",
            line_width=0, layer="below",
        )  # fmt: skip
    return figure


def _draw(figure: go.Figure, sets: dict[str, set[Head]], shown: list[Intersection]) -> None:
    columns, rows = list(range(len(shown))), list(range(len(sets)))
    bar = {"textposition": "outside", "textfont": {"size": 12}, "cliponaxis": False, "hovertemplate": HOVER}
    sizes, counts = [len(heads) for heads in sets.values()], [len(one.heads) for one in shown]
    figure.add_bar(
        x=sizes, y=rows, orientation="h", marker_color="#6e6e6e", text=sizes, name="set sizes", xaxis="x", yaxis="y",
        hovertext=[_listing(name, sorted(heads)) for name, heads in sets.items()], **bar,
    )  # fmt: skip
    texts = [_listing(" and ".join(one.names) + " only" * (len(one.names) == 1), list(one.heads)) for one in shown]
    figure.add_bar(
        x=columns, y=counts, marker_color=MEETS, text=counts, textangle=0, name="intersections", xaxis="x3", yaxis="y3",
        hovertext=texts, **bar,
    )  # fmt: skip
    inside = np.array([[name in one.names for name in sets] for one in shown])
    ends = [(int(np.flatnonzero(own)[0]), int(np.flatnonzero(own)[-1])) for own in inside]
    across = [x for column in columns for x in (column, column, None)]
    upright = [y for first, last in ends for y in (first, last, None)]
    axes: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2"}
    figure.add_trace(marks(across, upright, mode="lines", line={"color": INK, "width": 2}, **axes))
    for where, color, name in ((~inside, ABSENT, "absent"), (inside, INK, "present")):
        x, y = (index.tolist() for index in np.nonzero(where))
        look = {"mode": "markers", "marker": {"size": 10, "color": color}, "name": name, "cliponaxis": False}
        figure.add_trace(marks(x, y, [texts[column] for column in x], **look, **axes))


def _listing(title: str, heads: list[Head]) -> str:
    names = ", ".join(map(str, heads[:HEADS_SHOWN]))
    more = f" and {len(heads) - HEADS_SHOWN} more" if len(heads) > HEADS_SHOWN else ""
    listed = label(names + more, width=60, lines=12)
    return f"<b>{label(title, width=60, lines=6)}</b><br>{counted(len(heads), 'head')}<br>{listed}"
