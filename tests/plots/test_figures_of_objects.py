"""Figures of the library's own objects are the figures of their tables."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from plots.synthetic_attribution import make_attributions, make_interactions
from plots.synthetic_cases import card

from arm_lens import plots
from arm_lens.attribution import Attribution
from arm_lens.attribution.interaction import Interactions
from arm_lens.comparison import cluster, depth_profile, overlap, rank_correlation, stability
from arm_lens.heads import Head, HeadScores, HeadSet, heads_frame, history_frame, trajectory_frame
from arm_lens.selection import Selection

NAMES = ("polite", "safe", "list")


@dataclass
class Search:
    """What a selection holds."""

    heads: HeadSet
    head_scores: HeadScores
    history: pd.DataFrame
    trajectory: torch.Tensor | None


@dataclass
class Reward:
    """What a reward model holds, as far as it matters here."""

    heads: HeadSet
    selection: Search | None
    record: SimpleNamespace


@dataclass
class Scored:
    """What an attribution is to figures: a table."""

    table: pd.DataFrame

    def head_scores(self) -> HeadScores:
        return HeadScores.from_frame(self.table[["layer", "head", "score"]], name="shapley")

    def frame(self) -> pd.DataFrame:
        return self.table


def reward(seed: int) -> Reward:
    path = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(seed))
    history = pd.DataFrame({"step": range(6), "reward": path.mean(dim=(1, 2)), "expected_heads": path.sum(dim=(1, 2))})
    search = Search(HeadSet.from_mask(path[-1] > 0.4), HeadScores("selection probability", path[-1]), history, path)
    return Reward(search.heads, search, SimpleNamespace(criterion="polite", seed=seed))


REWARDS = {name: [reward(2 * number), reward(2 * number + 1)] for number, name in enumerate(NAMES)}
FIRST = {name: some[0] for name, some in REWARDS.items()}
ALL = make_attributions(NAMES, outcomes=("probability",), n_layers=3, n_heads=4)
SHAPLEY = ALL[ALL["measure"] == "shapley"]
MEASURED = {
    name: [Scored(part) for _, part in rows.groupby("measure", sort=False)]
    for name, rows in ALL.groupby("criterion", sort=False)
}
FIGURES = {
    "selected heads": (plots.selected_heads, REWARDS, heads_frame(REWARDS)),
    "probabilities": (plots.selection_probabilities, REWARDS, heads_frame(REWARDS)),
    "one reward model": (plots.selected_heads, reward(0), heads_frame(reward(0))),
    "upset": (plots.upset, REWARDS, heads_frame(REWARDS)),
    "upset of searches": (plots.upset, {n: r.selection for n, r in FIRST.items()}, heads_frame(FIRST)),
    "curves": (plots.training_curves, REWARDS, history_frame(REWARDS)),
    "steps": (plots.selection_steps, FIRST, trajectory_frame(FIRST)),
    "trajectories": (plots.selection_trajectories, FIRST, trajectory_frame(FIRST)),
    "maps": (plots.attribution_maps, [Scored(SHAPLEY)], SHAPLEY),
    "head matrix": (lambda one: plots.head_matrix(one, measure="shapley"), MEASURED, ALL),
    "scatter": (plots.measures_against_each_other, MEASURED, ALL),
}


def plain(figure: go.Figure) -> str:
    return figure.to_json()


@pytest.mark.parametrize("make, things, table", FIGURES.values(), ids=FIGURES)
def test_objects_and_their_table_make_the_same_figure(make, things, table):
    assert plain(make(things)) == plain(make(table))


def test_head_sets_are_drawn_without_a_search():
    sets = {name: one.heads for name, one in FIRST.items()}
    maps = [np.asarray(trace.z) for trace in plots.selected_heads(sets).data if trace.type == "heatmap"]
    for drawn, heads in zip(maps, sets.values(), strict=True):
        np.testing.assert_array_equal(drawn, heads.mask.numpy().astype(float))


def test_searches_without_probabilities_are_refused_by_name():
    search = reward(0).selection
    other = Search(search.heads, HeadScores("effect", torch.zeros(3, 4)), search.history, None)
    with pytest.raises(ValueError, match="search for 'safe' went by no probability"):
        plots.selection_probabilities({"polite": search, "safe": other})
    with pytest.raises(ValueError, match="'trajectory'"):
        plots.selection_steps({"safe": other})


def test_a_head_card_is_drawn_as_its_tables():
    attention, tokens, scores = card()
    one = SimpleNamespace(name="Head L2H3", attention=attention, tokens=tokens, scores=scores)
    assert plain(plots.head_card_figure(one)) == plain(
        plots.head_card_figure(attention, tokens, scores, title="Head L2H3")
    )
    with pytest.raises(ValueError, match="one of tokens"):
        plots.head_card_figure(attention, title="Head L2H3")


def test_comparisons_take_what_has_heads_or_scores():
    sets = {name: one.heads for name, one in FIRST.items()}
    pd.testing.assert_frame_equal(overlap(FIRST), overlap(sets))
    pd.testing.assert_frame_equal(depth_profile(FIRST), depth_profile(sets))
    pd.testing.assert_frame_equal(stability(REWARDS), stability(heads_frame(REWARDS)))
    scores = {name: one.selection.head_scores for name, one in FIRST.items()}
    pd.testing.assert_frame_equal(rank_correlation(FIRST), rank_correlation(scores))


def test_interactions_and_clusterings_are_drawn_as_their_tables_and_arrays():
    table = make_interactions(("polite",))
    assert plain(plots.interaction_matrix(SimpleNamespace(frame=lambda: table))) == plain(
        plots.interaction_matrix(table)
    )
    shared = overlap({name: one.heads for name, one in FIRST.items()})
    tree = cluster(shared)
    drawn = plots.overlap_matrix(shared, linkage=tree)
    assert plain(drawn) == plain(plots.overlap_matrix(shared, linkage=tree.linkage, names=tree.names))


@pytest.mark.parametrize(
    "name, figure",
    [("selection probability", plots.selection_probabilities), ("gate", plots.selection_probabilities),
     ("effect", plots.selected_heads)],
)  # fmt: skip
def test_a_selection_draws_its_probabilities_or_else_its_heads(name, figure):
    values = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    search = Selection(HeadSet.from_mask(values > 0.5), HeadScores(name, values), pd.DataFrame({"step": [0]}))
    assert plain(search.plot()) == plain(figure(search))


@pytest.mark.parametrize("outcome", ["probability", "gap"])
def test_measures_draw_the_outcome_that_they_display(outcome):
    gained = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one = Attribution.of({"accuracy": gained * 0, outcome: gained}, range(5), measure="injection", criterion="polite")
    drawn = one.plot()
    shown = "probability" if outcome == "probability" else "accuracy"
    assert plain(drawn) == plain(plots.attribution_maps(one.frame(), outcome=shown))
    pairs = (gained[:, :, :3] + gained[:, :, :3].mT) / 2
    heads = tuple(Head(0, index) for index in range(3))
    both = Interactions.of({"gap": pairs}, range(5), heads=heads, context="within", criterion="polite")
    assert plain(both.plot()) == plain(plots.interaction_matrix(both.frame()))
