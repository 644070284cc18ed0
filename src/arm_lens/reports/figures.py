"""Every figure of a run's folder: which there are, and how each is made from the tables that are kept there.

A run (`arm_lens.benchmark`; the demonstration is one) gives, for each of its benchmarks, accuracies, differences,
calibration and studies; and of its lead judge, where that chose heads, rewards, head maps and searches. With a study of
its heads (`arm_lens.study`) it also gives attribution and comparison, as does the folder of a study alone. Figures are
made when they are asked for, so that they are laid out for the theme that holds then (`arm_lens.plots.themed`). Their
names serve as names of files, whatever benchmarks and criteria are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import plotly.graph_objects as go

from arm_lens import plots
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.comparison import cluster
from arm_lens.display import head_name
from arm_lens.evaluation.main_setting import MainSetting, against, main_rows, main_settings
from arm_lens.plots.bias_grid import cells_of
from arm_lens.plots.studies import has_study
from arm_lens.plots.upset import memberships_of
from arm_lens.study import FOLDER, HeadStudy
from arm_lens.study.parts import file_names

Makers: TypeAlias = dict[str, Callable[[], go.Figure]]
"""Figures by name, each made when it is called."""
MOST_DOTS = 60
"""Judges times subsets: more dots with intervals are no longer told apart."""
MOST_FORESTS = 24
"""Subsets: the differences on more are told in a table only."""


def figures_of_run(folder: str | Path) -> Makers:
    """The figures of a run, by name; each is made when it is called.

    Args:
        folder: what ``arm-lens demo`` or ``arm-lens benchmark`` (with or without a study of its heads), or
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
    found = of_results(BenchmarkResults.load(folder))
    if HeadStudy.is_in(folder / FOLDER):
        found |= of_study(HeadStudy.load(folder / FOLDER))
    return found


def save_figures(
    results: BenchmarkResults, folder: str | Path, *, suffixes: Sequence[str] = (".png", ".svg")
) -> list[Path]:
    """Write every figure of a run's results, each in every format.

    Raises:
        RuntimeError: if images cannot be drawn here, because there is no Chromium.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: make() for name, make in of_results(results).items()}
    named = [(folder / f"{name}{suffix}", figure) for name, figure in made.items() for suffix in suffixes]
    return [plots.save_figure(figure, path) for path, figure in named]


def of_results(results: BenchmarkResults) -> Makers:
    """Every figure of a run, by benchmark and kind: ``world-accuracy``, ``world-selected-heads``, ..."""
    found: Makers = {}
    for benchmark, file in file_names(list(settings_of(results))).items():
        figures = of_benchmark(results, benchmark) | of_heads(results, benchmark)
        found |= {f"{file}-{kind.replace('_', '-')}": make for kind, make in figures.items()}
    return found


def settings_of(results: BenchmarkResults) -> dict[str, MainSetting]:
    """The setting of each benchmark's main comparison: at the run's number of examples where it has that."""
    wanted = results.meta.get("n_examples")
    return main_settings(results.tables.summary, n_examples=wanted if isinstance(wanted, int) else None)


def of_benchmark(results: BenchmarkResults, name: str) -> Makers:
    """What one benchmark says of the judges: accuracy or bias, differences, studies, calibration."""
    tables, settings = results.tables, settings_of(results)
    lead, names = str(results.meta["lead"]), results.meta.get("judge_names") or {}
    whole = tables.summary[tables.summary["benchmark"] == name]
    main, bins = main_rows(whole, settings), main_rows(_part(tables.calibration, name), settings)
    has_cells = len(cells_of(main)) == len(main)
    if has_cells:
        found: Makers = {"bias": partial(plots.bias_grid, main, names=names)}
    else:
        found = {"accuracy": partial(plots.accuracy_by_judge, main, names=names)}
        if main["subset"].nunique() > 1 and len(main) <= MOST_DOTS and not tables.rows.empty:
            rows = main_rows(_part(tables.rows, name), settings)
            found["subsets"] = partial(plots.accuracy_by_subset, main, rows=rows, names=names)
        versus = against(main_rows(_part(tables.comparisons, name), settings), lead)
        if not versus.empty and versus["subset"].nunique() <= MOST_FORESTS:
            found["differences"] = partial(plots.differences, versus, lead=lead, names=names)
        if has_study(whole, "n_examples"):
            found["examples"] = partial(plots.accuracy_by_examples, whole, names=names, lead=lead)
        if has_study(whole, "noise"):
            found["noise"] = partial(plots.accuracy_by_noise, whole, names=names, lead=lead)
    if not bins.empty and bool((bins["n"] > 0).any()):
        found["calibration"] = partial(plots.reliability, bins, summary=main, names=names)
    return found


def of_heads(results: BenchmarkResults, benchmark: str) -> Makers:
    """What one benchmark says of the heads of the lead judge, if that chose some: rewards, head maps, searches."""
    heads = results.of_lead("heads", benchmark)
    if heads.empty:
        return {}
    found: Makers = {}
    items, history = results.of_lead("items", benchmark), results.of_lead("history", benchmark)
    if not items.empty and bool(items["reward"].between(0, 1).all()):
        found["rewards"] = partial(plots.reward_histograms, items, str(results.meta["lead"]))
        found["roc"] = partial(plots.roc_curves, items)
    found["selected_heads"] = partial(plots.selected_heads, heads)
    if bool(heads["probability"].notna().all()):
        found["selection_probabilities"] = partial(plots.selection_probabilities, heads)
    if any(memberships_of(heads).values()) and heads["criterion"].nunique() > 1:
        found["shared_heads"] = partial(plots.upset, heads)
    for value in ("reward", "expected_heads", "entropy"):
        if value in history and bool(history[value].notna().all()):
            found[f"training_{value}"] = partial(plots.training_curves, history, value=value)
    return found


def _part(table: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    return table if table.empty else table[table["benchmark"] == benchmark]


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
    return plots.head_card_figure(
        attention, tokens, scores, title=f"{head_name(layer, head)}, the first for '{criterion}'"
    )
