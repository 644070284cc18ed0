"""Which heads were chosen: one map per criterion, layers upwards from layer 0, heads to the right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import ATTRIBUTIONS, HEADS, checked, criteria_of
from arm_lens.heads import Chosen, Named, ScoredLike, attributions_frame, heads_frame
from arm_lens.plots.layer_maps import MapGrid
from arm_lens.plots.measures import measure_name, outcome_name
from arm_lens.plots.notation import score_text
from arm_lens.plots.theme import HEAT, label, literal

WHOLE = HEADS.needing(*HEADS.required, "probability")
Known = Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame


def selected_heads(heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None) -> go.Figure:
    """The fraction of seeds in which each head is in the selected set.

    Args:
        heads: head sets, selections or reward models, also by name, and several of each name; or a table like
            `arm_lens.frames.HEADS`, with a row for every head of the model.
        attributions: scores of the heads to show on hovering; as `arm_lens.plots.attribution_maps` takes them.
    """
    table = checked(heads_frame(heads), HEADS)
    counts = table.astype({"selected": int}).groupby(["criterion", "seed"], sort=False)["selected"].sum()
    size = len(table[["layer", "head"]].drop_duplicates())
    notes = []
    for criterion in criteria_of(table):
        low, high = int(counts[criterion].min()), int(counts[criterion].max())
        notes.append(f"{low} of {size} heads" if low == high else f"{low} to {high} of {size} heads")
    seeds = int(table.groupby("criterion")["seed"].nunique().max())
    ticks = {}
    if seeds <= 5:
        texts = [f"{count} of {seeds}" + " seeds" * (count == seeds and seeds > 1) for count in range(seeds + 1)]
        ticks = {"tickvals": [count / seeds for count in range(seeds + 1)], "ticktext": texts}
    return _maps(table, table["selected"].astype(float), notes, "selected in", attributions, **ticks)


def selection_probabilities(
    heads: Chosen | Named[Chosen] | pd.DataFrame, *, attributions: Known | None = None
) -> go.Figure:
    """The selection probability of each head, as the search left it: the mean over seeds.

    Args:
        heads: as `selected_heads` takes them; a table needs the column ``probability``.
        attributions: scores of the heads to show on hovering; as `arm_lens.plots.attribution_maps` takes them.
    """
    table = checked(heads_frame(heads), WHOLE)
    for criterion in table.loc[table["probability"].isna(), "criterion"]:
        raise ValueError(f"the search for {criterion!r} went by no probability of being selected")
    expected = table.groupby(["criterion", "seed"], sort=False)["probability"].sum().groupby("criterion").mean()
    notes = [f"{expected[criterion]:.1f} heads expected" for criterion in criteria_of(table)]
    return _maps(table, table["probability"], notes, "selection<br>probability", attributions)


def _maps(
    heads: pd.DataFrame, values: pd.Series, notes: list[str], title: str, attributions: Known | None, **ticks: object
) -> go.Figure:
    """One heat map per criterion of the mean of ``values`` over seeds, on one titled scale from 0 to 1."""
    known = None if attributions is None else checked(attributions_frame(attributions), ATTRIBUTIONS)
    criteria = criteria_of(heads)
    grid = MapGrid.of(len(criteria), int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1)
    figure = grid.panels.figure(criteria, notes)
    means = values.groupby([heads["criterion"], heads["layer"], heads["head"]]).mean().rename("mean").reset_index()
    for index, criterion in enumerate(criteria):
        z = grid.table(means[means["criterion"] == criterion], "mean")
        grid.add(figure, index, z, _hover_texts(heads, known, criterion, z.shape), span=None, name=label(criterion))
    grid.finish(figure, title, cmin=0, cmax=1, colorscale=[list(stop) for stop in HEAT], **ticks)
    return figure


def _hover_texts(
    heads: pd.DataFrame, attributions: pd.DataFrame | None, criterion: str, shape: tuple[int, ...]
) -> np.ndarray:
    title = label(criterion, width=60)
    texts = np.array(
        [f"<b>{title}</b><br>layer {layer}, head {head}" for layer, head in np.ndindex(*shape)], dtype=object
    )
    texts = texts.reshape(shape)
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
