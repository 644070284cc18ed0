"""What every head is worth, on a map of the model: brown cells cost the criterion something, blue ones help it.

Colours are centred at zero. Measures are in different units (a probability of being selected is no gain in accuracy), so that
panels of several measures are each scaled to their own largest value, and say their range; those of one share a scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import head_name
from arm_lens.frames import ATTRIBUTIONS, checked, criteria_of
from arm_lens.heads import Named, ScoredLike, attributions_frame
from arm_lens.plots.cuts import having
from arm_lens.plots.layer_maps import MapGrid
from arm_lens.plots.measures import measure_name, measure_styles, outcome_name
from arm_lens.plots.notation import caption, digits_for, largest, score_text, signed
from arm_lens.plots.theme import DIVERGING, label, literal


def attribution_maps(
    attributions: ScoredLike | Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    *,
    outcome: str = "probability",
    measure: str | None = None,
    criterion: str | None = None,
) -> go.Figure:
    """Layer by head maps of scores: a panel per criterion for one measure, or a panel per measure for one criterion.

    A minus stands in cells notably below zero, a cross where a head was not measured. Hovering tells a head's score, its
    interval, and all other measures of it in the table.

    Args:
        attributions: one or several, also by the criterion's name; or a table like `arm_lens.frames.ATTRIBUTIONS`.
        outcome: whose scores.
        measure: which one; needed if the table holds several measures of several criteria.
        criterion: which one; likewise.

    Raises:
        ValueError: if a column is missing, there are no such rows, or several measures of several criteria are left.
    """
    every = checked(attributions_frame(attributions), ATTRIBUTIONS)
    known = having(every, "outcome", outcome, ATTRIBUTIONS)
    known = known if criterion is None else having(known, "criterion", criterion, ATTRIBUTIONS)
    shown = known if measure is None else having(known, "measure", measure, ATTRIBUTIONS)
    measures, criteria = list(measure_styles(shown["measure"])), criteria_of(shown)
    if len(measures) > 1 and len(criteria) > 1:
        raise ValueError(
            f"{len(measures)} measures of {len(criteria)} criteria: name a measure ({', '.join(measures)}) or a criterion"
        )
    by_measure = len(measures) > 1
    panels = [(criteria[0], one) for one in measures] if by_measure else [(one, measures[0]) for one in criteria]
    grid = MapGrid.of(len(panels), int(known["layer"].max()) + 1, int(known["head"].max()) + 1)
    tables = [
        grid.table(shown[(shown["criterion"] == name) & (shown["measure"] == one)], "score") for name, one in panels
    ]
    titles = [measure_name(one) if by_measure else name for name, one in panels]
    figure = grid.panels.figure(titles, [_range(table) for table in tables])
    common = largest(np.stack(tables))
    texts = head_texts(known)
    for index, ((name, one), table) in enumerate(zip(panels, tables, strict=True)):
        own = largest(table)
        hover = np.full(table.shape, "", dtype=object)
        for layer, head in np.ndindex(*table.shape):
            hover[layer, head] = _hover(name, layer, head, one, texts.get((name, layer, head), {}))
        z, span = (table / own, 1.0) if by_measure else (table, common)
        grid.add(figure, index, z, hover, span=span, name=label(titles[index]))
    reach = 1.0 if by_measure else common
    bar = {"colorscale": [list(stop) for stop in DIVERGING], "cmin": -reach, "cmax": reach}
    if by_measure:
        grid.finish(figure, "share of each<br>panel's largest", tickvals=[-1, -0.5, 0, 0.5, 1], **bar)
    else:
        grid.finish(figure, "score", **bar)
    what = f"{criteria[0]}: scores" if by_measure else measure_name(measures[0])
    gaps = any(np.isnan(table).any() for table in tables)
    notes = [
        "A minus marks cells notably below zero." if min(map(np.nanmin, tables)) < 0 else "",
        "×: not measured." if gaps else "",
    ]
    left_out = sorted(set(every["measure"]) - set(known["measure"])) if by_measure else []
    if left_out:
        notes.append(f"Without {' and '.join(measure_name(one) for one in left_out)}, which is on no outcome.")
    caption(figure, [f"{what} on {outcome_name(outcome)}.", *notes, _trust(panels, tables) if by_measure else ""])
    return figure


def _trust(panels: list[tuple[str, str]], tables: list[np.ndarray]) -> str:
    """How far the cheap measures agree with the first causal one: none is shown without."""
    styles = measure_styles(measure for _, measure in panels)
    of = {measure: table.ravel() for (_, measure), table in zip(panels, tables, strict=True)}
    causal = next((measure for measure, style in styles.items() if style.causal), None)
    cheap = [measure for measure, style in styles.items() if not style.causal]
    if causal is None or not cheap:
        return ""
    frame = pd.DataFrame(of)
    told = [f"{measure_name(one)} {signed(frame[causal].corr(frame[one], 'spearman'), digits=2)}" for one in cheap]
    return f"Rank correlation with {measure_name(causal)}: {', '.join(told)}."


def head_texts(scores: pd.DataFrame) -> dict[tuple[str, int, int], dict[str, str]]:
    """By criterion, layer and head: each measure's score with its interval and n, as text."""
    texts: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in scores.to_dict("records"):
        texts.setdefault((str(row["criterion"]), row["layer"], row["head"]), {})[str(row["measure"])] = score_text(row)
    return texts


def _hover(criterion: str, layer: int, head: int, measure: str, texts: dict[str, str]) -> str:
    others = [f"{literal(measure_name(one))} {texts[one]}" for one in measure_styles(texts) if one != measure]
    own = f"<b>{literal(measure_name(measure))} {texts.get(measure, 'not measured')}</b>"
    return "<br>".join([f"<b>{label(criterion, width=60)}</b>", head_name(layer, head), own, *others])


def _range(table: np.ndarray) -> str:
    if np.isnan(table).all():
        return "not measured"
    digits = digits_for(largest(table))
    return f"{signed(np.nanmin(table), digits=digits)} to {signed(np.nanmax(table), digits=digits)}"
