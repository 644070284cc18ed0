"""Maps of the model, layers upwards from layer 0 and heads to the right: which heads were chosen, and what each is worth.

Colours of scores are centred at zero: brown cells harm the criterion, blue cells help it. Measures are in different units (a
probability of being selected is not a gain in accuracy), so panels of several measures are each scaled to their own largest
value, and say their range. Panels of one measure share a scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import head_name
from arm_lens.display.maps import spaced
from arm_lens.evaluation.trust import with_trust
from arm_lens.frames import ATTRIBUTIONS, HEADS, checked, criteria_of, repeats_in
from arm_lens.heads import Chosen, Named, ScoredLike, attributions_frame, heads_frame
from arm_lens.plots.cuts import having, of_every_head
from arm_lens.plots.marks import HOVER, color_bar, marks
from arm_lens.plots.measures import measure_name, measure_styles, outcome_name, trust_captions
from arm_lens.plots.notation import caption, digits_for, hover_text, largest, repeated, score_text, signed, span_text
from arm_lens.plots.panels import BARE, Panels, balanced_columns
from arm_lens.plots.theme import DIVERGING, HEAT, INK, label, literal, narrow, page_height, page_width, signs

WHOLE = HEADS.needing(*HEADS.required, "probability")
MOST_HOVERS = 1000
"""Heads for which hovering shows all measures: of more, the figure would take tens of megabytes."""
Known = Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame
LARGEST_CELL = 28.0
READABLE = 15.0
"""Cells of fewer pixels have a stroke instead of a minus sign."""
TINY = 6.0
"""Cells of fewer pixels cannot be seen one at a time: those that stand out have a symbol."""
SYMBOL = 8.0
"""Pixels of that symbol."""
STANDING_OUT = 12
"""How many of the largest scores of a panel stand out."""
MOST_SYMBOLS = 0.05
"""The largest share of a panel's heads that have symbols; of more, the cells can be seen without."""
WIDEST, TALLEST = 560, 480
"""Pixels of the largest map; a model of more than 80 layers has a taller one."""
LOWEST_ROW = 6.0
"""Pixels of a layer in the map of such a model."""
CAPTION = (90, 170)
"""Pixels that the caption may take on a wide and on a narrow page."""
UNMEASURED = "#b0b0b0"
NARROW_BAR = 180
NARROWEST = 372
"""Pixels of the narrowest figure, which its colour bar and caption need."""
NARROWEST_PANEL = (118, 90)
"""Pixels of the width of a panel with its title, on a wide and on a narrow page."""


@dataclass(frozen=True)
class MapGrid:
    """Panels of equal maps, with the room for a colour bar."""

    panels: Panels
    cell: float | int
    """Pixels of the shorter side of a cell."""
    n_layers: int
    n_heads: int

    @classmethod
    def of(cls, count: int, n_layers: int, n_heads: int, *, bottom: int = 48) -> MapGrid:
        """As many panels in a row as are legible; cells are square if the figure is not too high for its page.

        If there are so many rows of panels that cells become too low, more panels stand in a row.
        """
        most = 4 if n_heads <= 16 else 3 if n_heads <= 40 else 2
        usual = balanced_columns(count, min(most, 2) if narrow() else most)
        more = (columns for columns in range(usual + 1, count + 1) if balanced_columns(count, columns) == columns)
        grids = [cls._in_columns(columns, count, n_layers, n_heads, bottom) for columns in (usual, *more)]
        return max(grids[:1] + list(filter(cls._has_room, grids[1:])), key=lambda grid: min(grid.cell, READABLE))

    @classmethod
    def _in_columns(cls, columns: int, count: int, n_layers: int, n_heads: int, bottom: int) -> MapGrid:
        left, right, gap = 52, 16 if narrow() else 110, 34
        available = (page_width() - left - right - (columns - 1) * gap) / columns
        panels = Panels(
            count=count, columns=columns, width=int(available), height=0, gap_x=gap, gap_y=76, left=left, right=right,
            top=104 if narrow() else 60, bottom=bottom,
        )  # fmt: skip
        room = page_height() - panels.top - bottom - CAPTION[narrow()] - (panels.rows - 1) * panels.gap_y
        cell_width = min(LARGEST_CELL, min(available, WIDEST) / n_heads)
        tallest = min(max(TALLEST, LOWEST_ROW * n_layers), room / panels.rows)
        cell_height = max(min(cell_width, tallest / n_layers), 1.0)
        width, height = max(round(cell_width * n_heads), min(150, int(available))), round(cell_height * n_layers)
        right = max(right, NARROWEST - left - columns * width - (columns - 1) * gap)
        panels = replace(panels, width=width, height=max(height, 100), right=right)
        return cls(panels, min(cell_width, cell_height), n_layers, n_heads)

    def _has_room(self) -> bool:
        return self.panels.width >= NARROWEST_PANEL[narrow()]

    @property
    def tiny(self) -> bool:
        """Whether single cells cannot be seen."""
        return self.cell < TINY

    def draw(
        self,
        titles: Sequence[str],
        notes: Sequence[str],
        tables: Sequence[np.ndarray],
        hovers: Sequence[np.ndarray | None],
        bar_title: str,
        *,
        span: float | int | None = None,
        **axis: Any,
    ) -> go.Figure:
        """The figure of these maps, each [layer, head] with literal title, note, and plotly texts for hovering.

        ``span``, if given, is the largest absolute value of the colour scale: cells notably below zero are marked.
        ``axis`` are the settings of the colour axis, with ``tickvals`` and ``ticktext`` of its colour bar.
        """
        figure = self.panels.figure(titles, notes)
        for index, (title, z, hover) in enumerate(zip(titles, tables, hovers, strict=True)):
            self._add(figure, z, hover, span, label(title), self.panels.place(index))
        across = spaced(self.n_heads, self.panels.width / self.n_heads, 20)
        upright = spaced(self.n_layers, self.panels.height / self.n_layers, 17)
        figure.update_xaxes(tickvals=list(across), range=[-0.5, self.n_heads - 0.5], ticklabelstandoff=2, **BARE)
        figure.update_yaxes(tickvals=list(upright), range=[-0.5, self.n_layers - 0.5], ticklabelstandoff=4, **BARE)
        self.panels.name_axes(figure, "head", "layer")
        bar = color_bar(bar_title, length=min(max(self.panels.height, 210), 300), xpad=16, thickness=14)
        if narrow():  # the bar is level, and its own title would stand on it
            figure.add_annotation(
                text=bar_title.replace("<br>", " "), x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="top",
                xshift=NARROW_BAR + 12, yshift=self.panels.top - 6, font={"size": 12},
            )  # fmt: skip
            level = {"orientation": "h", "ypad": 8, "title": None, "x": 0, "xanchor": "left", "yref": "container"}
            bar = color_bar("", length=NARROW_BAR, xpad=0, thickness=11) | level
        bar |= {name: axis.pop(name) for name in ("tickvals", "ticktext") if name in axis}
        return figure.update_layout(coloraxis={**axis, "colorbar": bar})

    def table(self, heads: pd.DataFrame, value: str) -> np.ndarray:
        """``value`` as [layer, head], NaN if there is no row."""
        z = np.full((self.n_layers, self.n_heads), np.nan)
        z[heads["layer"].to_numpy(int), heads["head"].to_numpy(int)] = heads[value].to_numpy(float)
        return z

    def _add(
        self,
        figure: go.Figure,
        z: np.ndarray,
        hover: np.ndarray | None,
        span: float | int | None,
        name: str,
        place: dict[str, int],
    ) -> None:
        """Add a map; unknown heads get a cross."""
        gap = 1 if self.cell >= 9 else 0.5 if not self.tiny else 0
        minus: Mapping[str, object] = {}
        if span is not None and self.cell >= READABLE:
            size = min(15, max(11, round(0.75 * self.cell)))
            minus = {"text": signs(z, span=span), "texttemplate": "%{text}", "textfont": {"size": size}}
        figure.add_heatmap(
            z=z, x=list(range(self.n_heads)), y=list(range(self.n_layers)), coloraxis="coloraxis", xgap=gap, ygap=gap,
            hovertext=hover, hovertemplate=HOVER, name=name, **minus, **place,
        )  # fmt: skip
        over = [_symbols(np.isnan(z), "x-thin", max(2.5, 0.3 * self.cell), UNMEASURED)] * bool(np.isnan(z).any())
        if span is not None and self.tiny:
            largest = np.abs(z) >= np.sort(np.abs(z[np.isfinite(z)]))[-STANDING_OUT:][0]
            over += [_colored(largest & (z > 0), z, "triangle-up"), _colored(largest & (z < 0), z, "triangle-down")]
        elif span is not None and self.cell < READABLE:
            stroke, dark = (z < -0.1 * span), (z < -0.5 * span)
            over += [_symbols(stroke & dark, "line-ew", 0.45 * self.cell, "#ffffff")]
            over += [_symbols(stroke & ~dark, "line-ew", 0.45 * self.cell, INK)]
        figure.add_traces(over, rows=place["row"], cols=place["col"])

    def frame(self, figure: go.Figure, index: int, z: np.ndarray, heads: np.ndarray) -> bool:
        """Whether cells are so small that a square larger than its cell was added on each of these heads, if they are few."""
        framed = self.tiny and 0 < heads.mean() <= MOST_SYMBOLS
        if framed:
            figure.add_trace(_colored(heads, z, "square"), **self.panels.place(index))
        return bool(framed)

    @property
    def mark_of_sign(self) -> str:
        """The caption's words for cells below zero."""
        if self.tiny:
            return f"Triangles: the {STANDING_OUT} largest in size, pointing down below zero."
        return "A minus marks cells notably below zero."


def _symbols(where: np.ndarray, symbol: str, size: float | int, color: str) -> go.Scatter:
    y, x = np.nonzero(where)
    marker = {"symbol": symbol, "size": size, "color": color, "line": {"color": color, "width": 1}}
    return marks(x.tolist(), y.tolist(), mode="markers", marker=marker)


def _colored(where: np.ndarray, z: np.ndarray, symbol: str) -> go.Scatter:
    """Symbols in the colours of their cells, with an outline."""
    own = {"color": z[where].tolist(), "coloraxis": "coloraxis", "line": {"color": INK, "width": 0.7}}
    return _symbols(where, symbol, SYMBOL, INK).update(cliponaxis=False, marker=own)


def selected_heads(heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None) -> go.Figure:
    """The fraction of searches (seeds, example samples) in which each head is in the selected set.

    Args:
        heads: head sets, selections or reward models, also by name, and several of each name; or a table like
            `arm_lens.frames.HEADS`, with a row for every head of the model.
        attributions: scores of the heads to show on hovering; as `attribution_maps` takes them.
    """
    table = of_every_head(checked(heads_frame(heads), HEADS))
    searches = ["criterion", *repeats_in(table)]
    counts = table.astype({"selected": int}).groupby(searches, sort=False, dropna=False)["selected"].sum()
    size = len(table[["layer", "head"]].drop_duplicates())
    notes = [f"{span_text(counts[criterion])} of {size} heads" for criterion in criteria_of(table)]
    numbers, ticks = set(counts.groupby("criterion").size()), dict[str, Any]()
    title = f"share of {repeated(table)}<br>with the head"
    if len(numbers) == 1 and (most := numbers.pop()) <= 5:
        title = f"{repeated(table)} with<br>the head" if most > 1 else "selected"
        texts = [f"{count} of {most}" for count in range(most + 1)] if most > 1 else ["no", "yes"]
        ticks = {"tickvals": [count / most for count in range(most + 1)], "ticktext": texts}
    return _maps(table, table["selected"].astype(float), notes, title, 0.0, attributions, **ticks)


def selection_probabilities(
    heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None
) -> go.Figure:
    """The selection probability of each head, as the search left it: the mean over searches (seeds, example samples).

    Args:
        heads: as `selected_heads` takes them; a table needs the column ``probability``.
        attributions: scores of the heads to show on hovering; as `attribution_maps` takes them.
    """
    table = of_every_head(checked(heads_frame(heads), WHOLE))
    for criterion in table.loc[table["probability"].isna(), "criterion"]:
        raise ValueError(f"the search for {criterion!r} went by no probability of being selected")
    searches = table.groupby(["criterion", *repeats_in(table)], sort=False, dropna=False)
    expected = searches["probability"].sum().groupby("criterion").mean()
    notes = [f"{expected[criterion]:.1f} heads expected" for criterion in criteria_of(table)]
    figure = _maps(table, table["probability"], notes, "selection<br>probability", 0.5, attributions)
    return caption(figure, trust_captions(_probability_scores(table, attributions)))


def chosen_heads(one: Chosen) -> go.Figure:
    """`selection_probabilities` of a search or a reward model; without probabilities `selected_heads`."""
    searched = heads_frame(one)["probability"]
    unknown = searched.isna().any() or searched.isin([0, 1]).all()
    return selected_heads(one) if unknown else selection_probabilities(one)


def _probability_scores(heads: pd.DataFrame, attributions: Known | None) -> pd.DataFrame:
    """Mean probabilities as scores, with their agreement with the causal ones among the attributions."""
    means = (
        heads.groupby(["criterion", "layer", "head"], sort=False)["probability"].mean().rename("score").reset_index()
    )
    means = means.assign(measure="selection_probability", outcome="search", n=0)
    known = means.iloc[:0] if attributions is None else checked(attributions_frame(attributions), ATTRIBUTIONS)
    others = known[known["measure"] != "selection_probability"]
    return with_trust(pd.concat([means, others[list(means.columns)]], ignore_index=True)).iloc[: len(means)]


def _maps(
    heads: pd.DataFrame,
    values: pd.Series,
    notes: list[str],
    title: str,
    seen_above: float,
    attributions: Known | None,
    **ticks: Any,
) -> go.Figure:
    """One heat map per criterion of the mean of ``values`` over searches, on one titled scale from 0 to 1.

    In tiny cells, heads above ``seen_above`` have a symbol.
    """
    known = None if attributions is None else checked(attributions_frame(attributions), ATTRIBUTIONS)
    criteria = criteria_of(heads)
    grid = MapGrid.of(len(criteria), int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1)
    means = values.groupby([heads["criterion"], heads["layer"], heads["head"]]).mean().rename("mean").reset_index()
    tables = [grid.table(means[means["criterion"] == criterion], "mean") for criterion in criteria]
    hovers = [_hover_texts(heads, known, criterion, z.shape) for criterion, z in zip(criteria, tables, strict=True)]
    figure = grid.draw(criteria, notes, tables, hovers, title, cmin=0, cmax=1, colorscale=HEAT, **ticks)
    framed = any([grid.frame(figure, index, z, z > seen_above) for index, z in enumerate(tables)])
    which = f"heads above {seen_above:g}" if seen_above else "chosen heads"
    return caption(figure, [f"Framed: {which}, drawn larger than their cells." * framed])


def _hover_texts(
    heads: pd.DataFrame, attributions: pd.DataFrame | None, criterion: str, shape: tuple[int, ...]
) -> np.ndarray:
    texts = np.array(
        [hover_text(criterion, f"layer {layer}, head {head}") for layer, head in np.ndindex(*shape)], dtype=object
    ).reshape(shape)
    for row in heads[heads["criterion"] == criterion].to_dict("records"):
        probability = f"probability {row['probability']:.3f}" if row.get("probability", np.nan) >= 0 else ""
        facts = ", ".join(filter(None, [probability, "selected" * bool(row["selected"])])) or "not selected"
        search = ", ".join(f"{one} {row[one]}" for one in repeats_in(heads))
        texts[row["layer"], row["head"]] += f"<br>{search}: {facts}"
    if attributions is not None:
        own = attributions[(attributions["criterion"] == criterion) & attributions["score"].notna()]
        for row in own[(own["layer"] < shape[0]) & (own["head"] < shape[1])].to_dict("records"):
            outcome = "" if row["outcome"] == "search" else f" on {outcome_name(row['outcome'])}"
            what = literal(measure_name(row["measure"]) + outcome)
            texts[row["layer"], row["head"]] += f"<br>{what}: {score_text(row)}"
    return texts


def attribution_maps(
    attributions: ScoredLike | Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    *,
    outcome: str = "probability",
    measure: str | None = None,
    criterion: str | None = None,
) -> go.Figure:
    """Layer by head maps of scores: a panel per criterion for one measure, or a panel per measure for one criterion.

    A minus stands in cells notably below zero, a cross where a head was not measured. Hovering shows a head's score with its
    interval, and in models of at most 1000 heads all other measures of the head in the table.

    Args:
        attributions: one or several, also by the criterion's name; or a table like `arm_lens.frames.ATTRIBUTIONS`.
        outcome: whose scores.
        measure: which one; needed if the table has several measures of several criteria.
        criterion: which one; likewise.
    """
    every = with_trust(checked(attributions_frame(attributions), ATTRIBUTIONS))
    known = having(every, "outcome", outcome, ATTRIBUTIONS)
    known = known if criterion is None else having(known, "criterion", criterion, ATTRIBUTIONS)
    shown = known if measure is None else having(known, "measure", measure, ATTRIBUTIONS)
    measures, criteria = list(measure_styles(shown["measure"])), criteria_of(shown)
    by_measure = len(measures) > 1
    if by_measure and len(criteria) > 1:
        raise ValueError(
            f"{len(measures)} measures of {len(criteria)} criteria: name a measure ({', '.join(measures)}) or a criterion"
        )
    panels = [(name, one) for name in criteria for one in measures]
    grid = MapGrid.of(len(panels), int(known["layer"].max()) + 1, int(known["head"].max()) + 1)
    tables = [
        grid.table(shown[(shown["criterion"] == name) & (shown["measure"] == one)], "score") for name, one in panels
    ]
    titles = [measure_name(one) if by_measure else name for name, one in panels]
    common = 1.0 if by_measure else largest(np.stack(tables))
    every_measure = grid.n_layers * grid.n_heads <= MOST_HOVERS
    texts: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in known.to_dict("records"):
        texts.setdefault((row["criterion"], row["layer"], row["head"]), {})[row["measure"]] = score_text(row)
    heads = list(np.ndindex(grid.n_layers, grid.n_heads))
    hovers = [
        np.array(
            [_hover((name, *head), one, texts.get((name, *head), {}), every_measure) for head in heads], dtype=object
        ).reshape(grid.n_layers, grid.n_heads)
        for name, one in panels
    ]
    ticks: dict[str, Any] = {"tickvals": [-1, -0.5, 0, 0.5, 1]} if by_measure else {}
    figure = grid.draw(
        titles,
        list(map(_range, tables)),
        [table / largest(table) for table in tables] if by_measure else tables,
        hovers,
        "share of each<br>panel's largest" if by_measure else "score",
        span=common,
        colorscale=DIVERGING,
        cmin=-common,
        cmax=common,
        **ticks,
    )
    what = f"{criteria[0]}: scores" if by_measure else measure_name(measures[0])
    others = (
        every[every["criterion"].isin(criteria) & ~every["measure"].isin(known["measure"])] if by_measure else every[:0]
    )
    searched = sorted(others.loc[others["outcome"] == "search", "measure"].unique())
    elsewhere = sorted(set(others["measure"]) - set(searched))
    absent = [] if criterion or by_measure else [one for one in criteria_of(known) if one not in criteria]
    notes = [
        grid.mark_of_sign if (np.stack(tables) < 0).any() else "",
        "×: not measured." if np.isnan(tables).any() else "",
        f"Without {' and '.join(map(measure_name, searched))}, which is on no outcome." if searched else "",
        f"Without {' and '.join(map(measure_name, elsewhere))}: not on this outcome." if elsewhere else "",
        f"Not measured for {', '.join(absent)}." if absent else "",
        *trust_captions(shown),
    ]
    return caption(figure, [f"{what} on {outcome_name(outcome)}.", *notes])


def _hover(head: tuple[str, int, int], measure: str, texts: dict[str, str], every: bool) -> str:
    criterion, *place = head
    shown = [one for one in measure_styles(texts) if one != measure] if every else []
    others = [f"{literal(measure_name(one))} {texts[one]}" for one in shown]
    own = f"<b>{literal(measure_name(measure))} {texts.get(measure, 'not measured')}</b>"
    return hover_text(criterion, head_name(*place), own, *others)


def _range(table: np.ndarray) -> str:
    if np.isnan(table).all():
        return "not measured"
    digits = digits_for(largest(table))
    return f"{signed(np.nanmin(table), digits=digits)} to {signed(np.nanmax(table), digits=digits)}"
