"""Every figure of a run's folder: which there are, and how each is made from the tables in it.

A run (`arm_lens.benchmark`; the demonstration is one) gives, for each of its benchmarks, accuracies, differences,
calibration and studies; and for its lead judge, if that chose heads, rewards, head maps and searches. With a study of
its heads (`arm_lens.study`) it also gives attribution and comparison, as does the folder of a study alone. A figure is
made when it is requested, with the theme in force at that time (`arm_lens.plots.themed`). Names of figures serve as file
names, whatever benchmarks and criteria are called.
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
from arm_lens.evaluation.hacking import cells_of
from arm_lens.evaluation.main_setting import against, main_rows
from arm_lens.evaluation.trust import with_trust
from arm_lens.plots.studies import has_study
from arm_lens.plots.upset import memberships_of
from arm_lens.study import FOLDER, HeadStudy
from arm_lens.study.parts import file_names

Makers: TypeAlias = dict[str, Callable[[], go.Figure]]
"""Figures by name, each made when it is called."""
MOST_DOTS = 60
"""The most judges times subsets of which dots with intervals can be distinguished."""
MOST_FORESTS = 24
"""The most subsets with a figure of differences; those on more are only in a table."""


def figures_of_run(folder: str | Path) -> Makers:
    """The figures of a run, by name; each is made when it is called.

    Args:
        folder: the folder that ``arm-lens demo``, ``arm-lens benchmark`` or `arm_lens.study.study_heads` wrote.

    Raises:
        FileNotFoundError: if it is not such a folder, or a table in it is missing.
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
    """Write every figure of a run's results, each in every format; a RuntimeError if there is no Chromium to draw them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: make() for name, make in of_results(results).items()}
    return [
        plots.save_figure(figure, folder / f"{name}{suffix}") for name, figure in made.items() for suffix in suffixes
    ]


def of_results(results: BenchmarkResults) -> Makers:
    """Every figure of a run, by benchmark and kind: ``world-accuracy``, ``world-selected-heads``, ..."""
    found: Makers = {}
    for benchmark, file in file_names(list(results.settings)).items():
        figures = of_benchmark(results, benchmark) | of_heads(results, benchmark)
        found |= {f"{file}-{kind.replace('_', '-')}": make for kind, make in figures.items()}
    return found


def of_benchmark(results: BenchmarkResults, name: str) -> Makers:
    """The figures of one benchmark's judges: accuracy or bias, differences, studies, calibration."""
    tables, settings = results.tables, results.settings
    lead, names = str(results.meta["lead"]), results.meta.get("judge_names") or {}
    whole = part_of(tables.summary, name)
    main, bins = main_rows(whole, settings), main_rows(part_of(tables.calibration, name), settings)
    if len(cells_of(main)) == len(main):
        found: Makers = {"bias": partial(plots.bias_grid, main, names=names)}
    else:
        found = {"accuracy": partial(plots.accuracy_by_judge, main, names=names)}
        if main["subset"].nunique() > 1 and len(main) <= MOST_DOTS and not tables.rows.empty:
            rows = main_rows(part_of(tables.rows, name), settings)
            found["subsets"] = partial(plots.accuracy_by_subset, main, rows=rows, names=names)
        versus = against(main_rows(part_of(tables.comparisons, name), settings), lead)
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
    """The figures of the lead judge's heads in one benchmark, if it chose some: rewards, head maps, searches."""
    heads = results.of_lead("heads", benchmark)
    if heads.empty:
        return {}
    found: Makers = {}
    items, history = results.of_lead("items", benchmark), results.of_lead("history", benchmark)
    if not items.empty:
        if bool(items["reward"].between(0, 1).all()):  # scores of the kind gap are none
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


def part_of(table: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of one benchmark in a table, which may be empty."""
    return table if table.empty else table[table["benchmark"] == benchmark]


def of_study(study: HeadStudy) -> Makers:
    """The figures of attribution and comparison; those of one criterion end with its `file_names` name."""
    attributions = study.attributions
    found: Makers = {
        "shapley": partial(plots.attribution_maps, attributions, measure="shapley"),
        "heads-by-criterion": partial(plots.head_matrix, attributions, measure="shapley"),
        "agreement": partial(plots.agreement_matrix, study.agreement),
        "accuracy-by-heads": partial(plots.accuracy_by_heads, study.curve),
        "transfer": partial(plots.transfer_matrix, study.transfer),
        "depth": partial(plots.depth_profile, study.depth),
    }
    possible = {
        "selection-steps": (plots.selection_steps, study.trajectory),
        "selection-trajectories": (plots.selection_trajectories, study.trajectory),
        "overlap": (_overlap, study.overlap),
        "correlation": (plots.correlation_matrix, study.rank_correlation),
        "cosines": (plots.mean_cosines, _at_chosen_heads(study)),
        "stability": (plots.stability_by_group, study.stability),
    }
    found |= {name: partial(plot, table) for name, (plot, table) in possible.items() if not table.empty}
    interacting = set(study.interactions["criterion"]) if len(study.interactions) else set()
    for criterion, file in file_names(list(attributions["criterion"].unique())).items():
        measures = attributions[attributions["criterion"] == criterion]
        found[f"measures-{file}"] = partial(plots.attribution_maps, measures)
        found[f"gradient-against-shapley-{file}"] = partial(plots.measures_against_each_other, measures)
        if criterion in interacting:
            found[f"interactions-{file}"] = partial(plots.interaction_matrix, study.interactions, criterion=criterion)
        found[f"head-card-{file}"] = partial(_card, study, criterion)
    return found


def _overlap(overlap: pd.DataFrame) -> go.Figure:
    if len(overlap) < 3:  # two names have no tree to speak of
        return plots.overlap_matrix(overlap)
    return plots.overlap_matrix(overlap, linkage=cluster(overlap))


def _at_chosen_heads(study: HeadStudy) -> pd.DataFrame:
    """Cosines at the heads that at least one criterion has chosen."""
    if study.cosines.empty:
        return study.cosines
    chosen = study.heads.loc[study.heads["selected"].astype(bool), ["layer", "head"]].drop_duplicates()
    return study.cosines.merge(chosen, on=["layer", "head"])


def _card(study: HeadStudy, criterion: str) -> go.Figure:
    attention, tokens = (table[table["criterion"] == criterion] for table in (study.card_attention, study.card_tokens))
    layer, head = (int(attention[column].iloc[0]) for column in ("layer", "head"))
    scores = with_trust(study.attributions)
    scores = scores[(scores["layer"] == layer) & (scores["head"] == head)]
    return plots.head_card_figure(
        attention, tokens, scores, title=f"{head_name(layer, head)}, the first for '{criterion}'"
    )
