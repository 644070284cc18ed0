"""Maps of the model, layers upwards from layer 0 and heads to the right: which heads were chosen, and what each is worth.

Colours of scores are centred at zero: brown cells harm the criterion, blue cells help it. Measures are in different units (a
probability of being selected is not a gain in accuracy), so panels of several measures are each scaled to their own largest
value, and say their range. Panels of one measure share a scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import head_name
from arm_lens.evaluation.trust import with_trust
from arm_lens.frames import ATTRIBUTIONS, HEADS, checked, criteria_of
from arm_lens.heads import Chosen, Named, ScoredLike, attributions_frame, heads_frame
from arm_lens.plots.cuts import having
from arm_lens.plots.layer_maps import MapGrid
from arm_lens.plots.measures import measure_name, measure_styles, outcome_name, trust_captions
from arm_lens.plots.notation import caption, digits_for, hover_text, largest, score_text, signed, span_text
from arm_lens.plots.theme import DIVERGING, HEAT, label, literal

WHOLE = HEADS.needing(*HEADS.required, "probability")
MOST_HOVERS = 1000
"""Heads for which hovering shows all measures: of more, the figure would take tens of megabytes."""
Known = Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame


def selected_heads(heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None) -> go.Figure:
    """The fraction of seeds in which each head is in the selected set.

    Args:
        heads: head sets, selections or reward models, also by name, and several of each name; or a table like
            `arm_lens.frames.HEADS`, with a row for every head of the model.
        attributions: scores of the heads to show on hovering; as `attribution_maps` takes them.
    """
    table = checked(heads_frame(heads), HEADS)
    counts = table.astype({"selected": int}).groupby(["criterion", "seed"], sort=False)["selected"].sum()
    size = len(table[["layer", "head"]].drop_duplicates())
    notes = [f"{span_text(counts[criterion])} of {size} heads" for criterion in criteria_of(table)]
    seeds = int(table.groupby("criterion")["seed"].nunique().max())
    ticks = {}
    if seeds <= 5:
        texts = [f"{count} of {seeds}" + " seeds" * (count == seeds and seeds > 1) for count in range(seeds + 1)]
        ticks = {"tickvals": [count / seeds for count in range(seeds + 1)], "ticktext": texts}
    return _maps(table, table["selected"].astype(float), notes, "selected in", 0.0, attributions, **ticks)


def selection_probabilities(
    heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None
) -> go.Figure:
    """The selection probability of each head, as the search left it: the mean over seeds.

    Args:
        heads: as `selected_heads` takes them; a table needs the column ``probability``.
        attributions: scores of the heads to show on hovering; as `attribution_maps` takes them.
    """
    table = checked(heads_frame(heads), WHOLE)
    for criterion in table.loc[table["probability"].isna(), "criterion"]:
        raise ValueError(f"the search for {criterion!r} went by no probability of being selected")
    expected = table.groupby(["criterion", "seed"], sort=False)["probability"].sum().groupby("criterion").mean()
    notes = [f"{expected[criterion]:.1f} heads expected" for criterion in criteria_of(table)]
    figure = _maps(table, table["probability"], notes, "selection<br>probability", 0.5, attributions)
    return caption(figure, trust_captions(_probability_scores(table, attributions)))


def _probability_scores(heads: pd.DataFrame, attributions: Known | None) -> pd.DataFrame:
    """Mean probabilities as scores, with their agreement with the causal ones among the attributions."""
    means = (
        heads.groupby(["criterion", "layer", "head"], sort=False)["probability"].mean().rename("score").reset_index()
    )
    means = means.assign(measure="selection_probability", outcome="search", n=0)
    known = means.iloc[:0] if attributions is None else attributions_frame(attributions)
    others = known[known["measure"] != "selection_probability"]
    return with_trust(pd.concat([means, others[list(means.columns)]], ignore_index=True)).iloc[: len(means)]


def _maps(
    heads: pd.DataFrame,
    values: pd.Series,
    notes: list[str],
    title: str,
    seen_above: float,
    attributions: Known | None,
    **ticks: object,
) -> go.Figure:
    """One heat map per criterion of the mean of ``values`` over seeds, on one titled scale from 0 to 1.

    In tiny cells, heads above ``seen_above`` have a symbol.
    """
    known = None if attributions is None else checked(attributions_frame(attributions), ATTRIBUTIONS)
    criteria = criteria_of(heads)
    grid = MapGrid.of(len(criteria), int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1)
    figure = grid.panels.figure(criteria, notes)
    means = values.groupby([heads["criterion"], heads["layer"], heads["head"]]).mean().rename("mean").reset_index()
    framed = False
    for index, criterion in enumerate(criteria):
        z = grid.table(means[means["criterion"] == criterion], "mean")
        grid.add(figure, index, z, _hover_texts(heads, known, criterion, z.shape), span=None, name=label(criterion))
        framed |= grid.frame(figure, index, z, z > seen_above)
    grid.finish(figure, title, cmin=0, cmax=1, colorscale=HEAT, **ticks)
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
        texts[row["layer"], row["head"]] += f"<br>seed {row['seed']}: {facts}"
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
    figure = grid.panels.figure(titles, [_range(table) for table in tables])
    common = 1.0 if by_measure else largest(np.stack(tables))
    every_measure = grid.n_layers * grid.n_heads <= MOST_HOVERS
    texts: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in known.to_dict("records"):
        texts.setdefault((row["criterion"], row["layer"], row["head"]), {})[row["measure"]] = score_text(row)
    for index, ((name, one), table) in enumerate(zip(panels, tables, strict=True)):
        hover = [
            _hover((name, *head), one, texts.get((name, *head), {}), every_measure) for head in np.ndindex(*table.shape)
        ]
        z = table / largest(table) if by_measure else table
        hovers = np.array(hover, dtype=object).reshape(table.shape)
        grid.add(figure, index, z, hovers, span=common, name=label(titles[index]))
    bar = {"colorscale": DIVERGING, "cmin": -common, "cmax": common}
    if by_measure:
        grid.finish(figure, "share of each<br>panel's largest", tickvals=[-1, -0.5, 0, 0.5, 1], **bar)
    else:
        grid.finish(figure, "score", **bar)
    what = f"{criteria[0]}: scores" if by_measure else measure_name(measures[0])
    left_out = sorted(set(every["measure"]) - set(known["measure"])) if by_measure else []
    notes = [
        grid.mark_of_sign if min(map(np.nanmin, tables)) < 0 else "",
        "×: not measured." if np.isnan(tables).any() else "",
        f"Without {' and '.join(map(measure_name, left_out))}, which is on no outcome." if left_out else "",
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
