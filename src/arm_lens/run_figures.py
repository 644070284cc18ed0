"""Every figure of a run's folder: which there are, and how each is made from the tables that are kept there.

A folder of ``arm-lens demo`` gives accuracies, rewards and searches; with a study of its heads (`arm_lens.study`) also
attribution and comparison. A folder of ``arm-lens benchmark`` gives the benchmark's figures. Figures are made when they
are asked for, so that they are laid out for the theme that holds then (`arm_lens.plots.themed`).
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
from arm_lens.study import FOLDER, HeadStudy


def figures_of_run(folder: str | Path) -> dict[str, Callable[[], go.Figure]]:
    """The figures of a run, by name; each is made when it is called.

    Args:
        folder: what ``arm-lens demo`` or ``arm-lens benchmark`` wrote, with or without a study of its heads.

    Raises:
        FileNotFoundError: if it is no run's folder.
    """
    folder = Path(folder)
    if not (folder / "results.json").exists():
        raise FileNotFoundError(f"{folder} is no run's folder: it holds no results.json")
    if (folder / "tables" / "summary.csv").exists():
        return BenchmarkResults.load(folder).figures()
    found = of_demo(RunResults.load(folder))
    if (folder / FOLDER / "attributions.parquet").exists():
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
        "shared-heads": partial(plots.upset, results.heads),
    }
    if not results.history.empty:
        for value in ("reward", "expected_heads", "entropy"):
            if value in results.history:
                found[f"training-{value.replace('_', '-')}"] = partial(
                    plots.training_curves, results.history, value=value
                )
    return found


def of_study(study: HeadStudy) -> dict[str, Callable[[], go.Figure]]:
    """Attribution and comparison."""
    attributions, criteria = study.attributions, list(study.attributions["criterion"].unique())
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
        found["correlation"] = partial(plots.correlation_matrix, study.rank_correlation)
    if not study.cosines.empty:
        found["cosines"] = partial(plots.mean_cosines, _at_chosen_heads(study))
    if not study.stability.empty:
        found["stability"] = partial(plots.stability_by_group, study.stability)
    interacting = set(study.interactions["criterion"]) if len(study.interactions) else set()
    for criterion in criteria:
        measures = attributions[attributions["criterion"] == criterion]
        found[f"measures-{criterion}"] = partial(plots.attribution_maps, measures)
        found[f"gradient-against-shapley-{criterion}"] = partial(
            plots.measures_against_each_other, measures, agreement=study.agreement
        )
        if criterion in interacting:
            found[f"interactions-{criterion}"] = partial(
                plots.interaction_matrix, study.interactions, criterion=criterion
            )
        found[f"head-card-{criterion}"] = partial(_card, study, criterion)
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
