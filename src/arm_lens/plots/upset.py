"""Which heads several names share: an UpSet plot, which stays legible where a Venn diagram of eight sets does not.

Every head belongs to exactly one intersection, the names that have it and no other. A column of dots says which names these
are, the bar above it how many heads, and the bars at the left how many heads each name has in all.

Source: Lex, Gehlenborg, Strobelt, Vuillemot, Pfister: UpSet: Visualization of Intersecting Sets, IEEE TVCG 20 (2014).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import HEADS, checked, criteria_of, repeats_in
from arm_lens.heads import Chosen, Head, Named, heads_frame
from arm_lens.plots.notation import HOVER, caption
from arm_lens.plots.panels import LETTER
from arm_lens.plots.theme import GRID, INK, MEETS, base_layout, label, narrow, page_width

ROW = 24
COLUMN = (15, 30)
"""Pixels from one intersection to the next: the least and the most."""
BARS = 150
"""Pixels of the height of the upper bars."""
GAP = 14
ABSENT = "#d9d9d9"
HEADS_SHOWN = 40


@dataclass(frozen=True)
class Intersection:
    """The heads that these names have in common and no other name has."""

    names: tuple[str, ...]
    heads: tuple[Head, ...]


def memberships_of(heads: Chosen | Named[Chosen] | pd.DataFrame) -> dict[str, set[Head]]:
    """Each criterion's heads: those that at least half of its searches selected.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    table = checked(heads_frame(heads), HEADS.needing("criterion", "layer", "head", "selected"))
    shares = (
        table.assign(selected=table["selected"].astype(float))
        .groupby(["criterion", "layer", "head"], sort=False)["selected"]
        .mean()
    )
    sets: dict[str, set[Head]] = {criterion: set() for criterion in criteria_of(table)}
    for criterion, layer, head in shares.index[shares >= 0.5]:
        sets[str(criterion)].add(Head(int(layer), int(head)))
    return sets


def intersections_of(sets: dict[str, set[Head]]) -> list[Intersection]:
    """All intersections that hold a head: the largest first, of equal ones those of fewer names, then in the names' order."""
    owners: dict[Head, list[str]] = {}
    for name, heads in sets.items():
        for head in heads:
            owners.setdefault(head, []).append(name)
    groups: dict[tuple[str, ...], list[Head]] = {}
    for head in sorted(owners):
        groups.setdefault(tuple(owners[head]), []).append(head)
    place = {name: index for index, name in enumerate(sets)}
    found = [Intersection(names, tuple(heads)) for names, heads in groups.items()]
    return sorted(found, key=lambda one: (-len(one.heads), len(one.names), [place[name] for name in one.names]))


def upset(heads: Chosen | Named[Chosen] | pd.DataFrame, *, most: int | None = None) -> go.Figure:
    """Sizes of the intersections of head sets, of the sets themselves, and which sets meet in each intersection.

    Args:
        heads: head sets, selections or reward models, by name, and several of each name; or a table like
            `arm_lens.frames.HEADS`. Of several searches a head counts if at least half selected it.
        most: how many intersections at most; without it, as many as there is room for.

    Raises:
        ValueError: if a column is missing, there are no rows, no head is selected at all, or ``most`` is below 1.
    """
    sets = memberships_of(heads)
    found = intersections_of(sets)
    if not found:
        raise ValueError("no head is selected: there is nothing to intersect")
    if most is not None and most < 1:
        raise ValueError(f"most is {most}: at least one intersection is shown")
    letters = 14 if narrow() else 24
    longest = max(len(line) for name in sets for line in (textwrap.wrap(name, letters) or [""])[:2])
    left, names_room, right = (56 if narrow() else 96), round(LETTER * longest) + 18, 14
    bars_left = 12
    room = page_width() - bars_left - left - names_room - right
    shown = found[: min(most or len(found), max(1, room // COLUMN[0]))]
    step = min(COLUMN[1], room / len(shown))
    figure = _frame(sets, shown, pixels=(bars_left, left, names_room, round(step * len(shown)), right), letters=letters)
    _sizes(figure, sets)
    _columns(figure, sets, shown)
    rest = found[len(shown) :]
    left_out = (
        f" {len(rest)} further intersections of {_span([len(one.heads) for one in rest])} are left out." if rest else ""
    )
    table = heads_frame(heads)
    searches = int(table.drop_duplicates(["criterion", *repeats_in(table)])["criterion"].value_counts().max())
    rule = "" if searches == 1 else f" A head counts if at least half of the {searches} searches selected it."
    caption(figure, [f"Every head is counted once above, with exactly the names that have it.{rule}{left_out}"])
    return figure


def _frame(
    sets: dict[str, set[Head]],
    shown: list[Intersection],
    *,
    pixels: tuple[int, int, int, int, int],
    letters: int,
) -> go.Figure:
    bars_left, left, names_room, matrix, right = pixels
    matrix = max(matrix, 90)
    row = 32 if any(len(textwrap.wrap(name, letters)) > 1 for name in sets) else ROW
    height, top, bottom = row * len(sets), 20, 44
    inner, upright = left + names_room + matrix, BARS + GAP + height
    figure = go.Figure()
    level = height / upright
    quiet = {"showgrid": False, "showline": False, "ticks": "", "zeroline": False}
    largest = max(map(len, sets.values()))
    figure.update_layout(
        base_layout(
            width=bars_left + inner + right,
            height=top + upright + bottom,
            margin={"l": bars_left, "r": right, "t": top, "b": bottom},
        ),
        showlegend=False,
        bargap=0.35,
        # The sets' sizes, growing to the left.
        xaxis={"domain": [0, left / inner], "range": [largest * 1.45 + 0.5, 0], "anchor": "y", "showticklabels": False,
               "title": {"text": "heads", "standoff": 6}, **quiet},
        yaxis={"domain": [0, level], "range": [len(sets) - 0.5, -0.5], "anchor": "x", "side": "right",
               "tickvals": list(range(len(sets))), "ticklabelstandoff": 8,
               "ticktext": [label(name, width=letters) for name in sets], **quiet},
        xaxis2={"domain": [(left + names_room) / inner, 1], "range": [-0.5, len(shown) - 0.5], "anchor": "y2",
                "showticklabels": False, **quiet},
        yaxis2={"domain": [0, level], "range": [len(sets) - 0.5, -0.5], "anchor": "x2", "showticklabels": False, **quiet},
        yaxis3={"domain": [(height + GAP) / upright, 1], "range": [0, max(len(one.heads) for one in shown) * 1.14],
                "anchor": "x2", "nticks": 5, "tickformat": "d", "gridcolor": GRID,
                "title": {"text": "heads in common", "standoff": 6}},
    )  # fmt: skip
    if max(len(one.heads) for one in shown) <= 5:
        figure.update_layout(yaxis3_dtick=1)
    for index in range(0, len(sets), 2):
        figure.add_shape(
            type="rect", x0=0, x1=1, xref="paper", y0=index - 0.5, y1=index + 0.5, yref="y2", fillcolor="#f5f5f5",
            line_width=0, layer="below",
        )  # fmt: skip
    return figure


def _sizes(figure: go.Figure, sets: dict[str, set[Head]]) -> None:
    sizes = [len(heads) for heads in sets.values()]
    bars = go.Bar(
        x=sizes, y=list(range(len(sets))), orientation="h", marker_color="#6e6e6e", text=sizes, textposition="outside",
        textfont={"size": 12}, cliponaxis=False, hovertext=[_listing(name, sorted(heads)) for name, heads in sets.items()],
        hovertemplate=HOVER, name="set sizes", xaxis="x", yaxis="y",
    )  # fmt: skip
    figure.add_trace(bars)


def _columns(figure: go.Figure, sets: dict[str, set[Head]], shown: list[Intersection]) -> None:
    place = {name: index for index, name in enumerate(sets)}
    texts = [_listing(" and ".join(one.names) + " only" * (len(one.names) == 1), list(one.heads)) for one in shown]
    counts = [len(one.heads) for one in shown]
    bars = go.Bar(
        x=list(range(len(shown))), y=counts, marker_color=MEETS, text=counts, textposition="outside", textfont={"size": 12},
        textangle=0, cliponaxis=False, hovertext=texts, hovertemplate=HOVER, name="intersections",
        xaxis="x2", yaxis="y3",
    )  # fmt: skip
    figure.add_trace(bars)
    lines_x: list[int | None] = []
    lines_y: list[int | None] = []
    for index, one in enumerate(shown):
        rows = [place[name] for name in one.names]
        lines_x += [index, index, None]
        lines_y += [min(rows), max(rows), None]
    line = go.Scatter(
        x=lines_x, y=lines_y, mode="lines", line={"color": INK, "width": 2}, hoverinfo="skip", xaxis="x2", yaxis="y2"
    )
    figure.add_trace(line)
    for inside, color, name in ((False, ABSENT, "absent"), (True, INK, "present")):
        at = [(index, place[each]) for index, one in enumerate(shown) for each in sets if (each in one.names) == inside]
        dots = go.Scatter(
            x=[x for x, _ in at], y=[y for _, y in at], mode="markers", marker={"size": 10, "color": color},
            hovertext=[texts[x] for x, _ in at], hovertemplate=HOVER, name=name, xaxis="x2",
            yaxis="y2", cliponaxis=False,
        )  # fmt: skip
        figure.add_trace(dots)


def _listing(title: str, heads: list[Head]) -> str:
    names = ", ".join(map(str, heads[:HEADS_SHOWN]))
    more = f" and {len(heads) - HEADS_SHOWN} more" if len(heads) > HEADS_SHOWN else ""
    listed = label(names + more, width=60, lines=12)
    return f"<b>{label(title, width=60, lines=6)}</b><br>{len(heads)} head{'s' * (len(heads) != 1)}<br>{listed}"


def _span(sizes: list[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low} head{'s' * (low != 1)}" + (" each" if low == high else f" to {high}")
