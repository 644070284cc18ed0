"""Every figure of a run's folder: which there are, and how each is made from the tables that are kept there.

A folder of ``arm-lens demo`` gives accuracies, rewards and searches; with a study of its heads (`arm_lens.study`) also
attribution and comparison, as does the folder of a study alone. A folder of ``arm-lens benchmark`` gives the benchmark's
figures. Figures are made when they are asked for, so that they are laid out for the theme that holds then
(`arm_lens.plots.themed`). Names of figures of studies serve as names of files, whatever criteria are called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.comparison import cluster
from arm_lens.evaluation import RunResults
from arm_lens.plots.upset import memberships_of
from arm_lens.study import FOLDER, HeadStudy
from arm_lens.study.parts import file_names


def figures_of_run(folder: str | Path) -> dict[str, Callable[[], go.Figure]]:
    """The figures of a run, by name; each is made when it is called.

    Args:
        folder: what ``arm-lens demo`` (with or without a study of its heads), ``arm-lens benchmark`` or
            `arm_lens.study.study_heads` wrote.

    Raises:
        FileNotFoundError: if it is no such folder, or a table in it is missing.
    """
    folder = Path(folder)
    if not (folder / "results.json").exists():
        if HeadStudy.is_in(folder):
            return of_study(HeadStudy.load(folder))
        raise FileNotFoundError(
            f"{folder} is no run's folder: it holds neither results.json nor a whole study of heads"
        )
    if (folder / "tables" / "summary.csv").exists():
        return BenchmarkResults.load(folder).figures()
    found = of_demo(RunResults.load(folder))
    if HeadStudy.is_in(folder / FOLDER):
        found |= of_study(HeadStudy.load(folder / FOLDER))
    return found


def of_demo(results: RunResults) -> dict[str, Callable[[], go.Figure]]:
    """Accuracies, rewards and searches."""
    found: dict[str, Callable[[], go.Figure]] = {
        "accuracy": partial(plots.accuracy_by_method, results.rows),
        "rewards": partial(plots.reward_histograms, results.items),
        "roc": partial(plots.roc_curves, results.items),
        "selected-heads": partial(plots.selected_heads, results.heads),
        "selection-probabilities": partial(plots.selection_probabilities, results.heads),
    }
    if any(memberships_of(results.heads).values()):
        found["shared-heads"] = partial(plots.upset, results.heads)
    if not results.history.empty:
        for value in ("reward", "expected_heads", "entropy"):
            if value in results.history:
                found[f"training-{value.replace('_', '-')}"] = partial(
                    plots.training_curves, results.history, value=value
                )
    return found


def of_study(study: HeadStudy) -> dict[str, Callable[[], go.Figure]]:
    """Attribution and comparison.

    Figures of one criterion have its name in theirs, made fit for a file; criteria whose names come to the same are numbered.
    """
    attributions = study.attributions
    found: dict[str, Callable[[], go.Figure]] = {
        "shapley": partial(plots.attribution_maps, attributions, measure="shapley"),
        "heads-by-criterion": partial(plots.head_matrix, attributions, measure="shapley"),
        "agreement": partial(plots.agreement_matrix, study.agreement),
        "accuracy-by-heads": partial(plots.accuracy_by_heads, study.curve),
        "transfer": partial(plots.transfer_matrix, study.transfer),
        "depth": partial(plots.depth_profile, study.depth),
    }
    if not study.trajectory.empty:
        found["selection-steps"] = partial(plots.selection_steps, study.trajectory)
        found["selection-trajectories"] = partial(plots.selection_trajectories, study.trajectory)
    if not study.overlap.empty:
        found["overlap"] = partial(_overlap, study.overlap)
    if not study.rank_correlation.empty:
        found["correlation"] = partial(plots.correlation_matrix, study.rank_correlation)
    if not study.cosines.empty and not (chosen := _at_chosen_heads(study)).empty:
        found["cosines"] = partial(plots.mean_cosines, chosen)
    if not study.stability.empty:
        found["stability"] = partial(plots.stability_by_group, study.stability)
    interacting = set(study.interactions["criterion"]) if len(study.interactions) else set()
    for criterion, file in file_names(list(attributions["criterion"].unique())).items():
        measures = attributions[attributions["criterion"] == criterion]
        found[f"measures-{file}"] = partial(plots.attribution_maps, measures)
        found[f"gradient-against-shapley-{file}"] = partial(
            plots.measures_against_each_other, measures, agreement=study.agreement
        )
        if criterion in interacting:
            found[f"interactions-{file}"] = partial(plots.interaction_matrix, study.interactions, criterion=criterion)
        found[f"head-card-{file}"] = partial(_card, study, criterion)
    return found


def _overlap(overlap: pd.DataFrame) -> go.Figure:
    if len(overlap) < 3:  # two names have no tree to speak of
        return plots.overlap_matrix(overlap)
    tree = cluster(overlap)
    return plots.overlap_matrix(overlap, linkage=tree.linkage, names=tree.names)


def _at_chosen_heads(study: HeadStudy) -> pd.DataFrame:
    """Cosines at the heads that any criterion has chosen."""
    chosen = study.heads.loc[study.heads["selected"].astype(bool), ["layer", "head"]].drop_duplicates()
    return study.cosines.merge(chosen, on=["layer", "head"])


def _card(study: HeadStudy, criterion: str) -> go.Figure:
    attention, tokens = (table[table["criterion"] == criterion] for table in (study.card_attention, study.card_tokens))
    layer, head = (int(attention[column].iloc[0]) for column in ("layer", "head"))
    scores = study.attributions[(study.attributions["layer"] == layer) & (study.attributions["head"] == head)]
    return plots.head_card_figure(attention, tokens, scores, title=f"L{layer}H{head}, the first for '{criterion}'")
