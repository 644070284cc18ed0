"""A case for every figure function: name -> a callable that draws the figure from made-up tables. Not a test file.

A name is that of the function, with what is hard about the case after a colon. To add one: one line in `CASES`. Cases are
drawn within each theme, so a callable must draw anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plots import synthetic_attribution as attribution
from plots import synthetic_benchmark as benchmark
from plots import synthetic_results as results

from arm_lens import plots
from arm_lens.evaluation.main_setting import main_rows, main_settings

LONG = ("answers the question that was asked, nothing else", "polite", "gives no advice that could harm somebody")
FEW = ("zero_shot", "few_shot", "arm_reinforce", "arm_random_heads", "sav", "length")
"""Judges that fit a column."""


@cache
def items() -> pd.DataFrame:
    return results.make_items(n=120, texts=False)


@cache
def rows() -> pd.DataFrame:
    return results.make_rows(items())


@cache
def history() -> pd.DataFrame:
    return results.make_history(steps=60)


@cache
def heads(n_layers: int = 6, n_heads: int = 8) -> pd.DataFrame:
    return results.make_heads(n_layers=n_layers, n_heads=n_heads, seeds=(0, 1))


@cache
def summary() -> pd.DataFrame:
    return benchmark.make_summary(n=60)


@cache
def main() -> pd.DataFrame:
    return main_rows(summary(), main_settings(summary()))


def of(name: str, judges: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The main rows of a benchmark and of these judges."""
    chosen = main()[main()["benchmark"] == name]
    return chosen if judges is None else chosen[chosen["judge"].isin(judges)]


@cache
def comparisons() -> pd.DataFrame:
    table = main_rows(benchmark.make_comparisons(summary()), main_settings(summary()))
    return table[table["benchmark"] == "criteria"]


def study() -> pd.DataFrame:
    return summary()[summary()["benchmark"] == "criteria"]


@cache
def scores() -> pd.DataFrame:
    return attribution.make_attributions()


def of_measure(measure: str = "shapley") -> pd.DataFrame:
    return scores()[scores()["measure"] == measure]


GRIDS = {"30 x 9": (30, 9), "24 x 14": (24, 14), "80 x 64": (80, 64)}
"""Layers and heads of real models: SmolLM2-135M, Qwen2.5-0.5B, and one of 70 B parameters."""


@cache
def scores_of(grid: str, measures: tuple[str, ...] = attribution.MEASURES) -> pd.DataFrame:
    """Scores of one criterion on one outcome."""
    return attribution.make_attributions(("safe",), measures, ("probability",), *GRIDS[grid])


@cache
def few_chosen(grid: str) -> pd.DataFrame:
    """About 16 heads of each of four criteria."""
    table = heads(*GRIDS[grid])
    table = first(table, 4)
    order = table.groupby(["criterion", "seed"])["probability"].rank(ascending=False)
    return table.assign(selected=order <= 16, probability=table["probability"].where(order <= 16, 0.1))


@cache
def card() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What a head card shows: attention, tokens, scores."""
    random = np.random.default_rng(0)
    words = "Is this response polite ? Thank you , I have left it behind the library .".split()
    attention = [
        pd.DataFrame(
            {
                "example": f"prompt {number}", "verdict": "Yes" if number < 2 else "No", "position": range(len(words)),
                "token": words, "weight": random.dirichlet(np.full(len(words), 0.3)),
            }
        )
        for number in range(4)
    ]  # fmt: skip
    effects = np.linspace(2, 0.2, 10)
    tokens = [
        pd.DataFrame({"direction": name, "token": [f" {name}{n}" for n in range(10)], "effect": sign * effects})
        for name, sign in (("promoted", 1), ("suppressed", -1))
    ]
    one = scores()[(scores()["layer"] == 2) & (scores()["head"] == 3) & (scores()["outcome"] == "probability")]
    ranked = one[one["measure"].isin(["injection", "shapley", "gradient"])].assign(rank=7, heads=48)
    return pd.concat(attention, ignore_index=True), pd.concat(tokens, ignore_index=True), ranked


def overlap() -> pd.DataFrame:
    return attribution.make_overlap(attribution.make_memberships())


def correlation() -> pd.DataFrame:
    table = overlap()[["a", "b"]]
    spearman = np.linspace(-0.9, 0.9, len(table))
    return table.assign(spearman=spearman, ci_low=spearman - 0.1, ci_high=spearman + 0.1, n=48)


def named(table: pd.DataFrame, names: tuple[str, ...] = LONG, column: str = "criterion") -> pd.DataFrame:
    """The first values of a column under long names, the others left out."""
    first = dict(zip(table[column].unique(), names, strict=False))
    return table[table[column].isin(first)].assign(**{column: lambda t: t[column].map(first)})


def first(table: pd.DataFrame, count: int = 1, column: str = "criterion") -> pd.DataFrame:
    """The first criteria, or other values of a column."""
    return table[table[column].isin(list(table[column].unique())[:count])]


def effects(axes: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """Means of a sweep at each value of each axis."""
    rows = [
        (axis, value, mean := 0.55 + 0.4 * (index + 1) / len(values), mean - 0.07, min(1.0, mean + 0.05), 12)
        for axis, values in axes.items()
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["axis", "value", "accuracy", "ci_low", "ci_high", "settings"])


AXES = {
    "model": ("0.5B", "7B"),
    "selector": ("reinforce", "greedy"),
    "layers": ("all", "0-11"),
    "n_examples": ("5", "20", "80"),
}
LONG_AXES = {"model": LONG, "demonstrations": tuple(map(str, range(8)))}

CASES: dict[str, Callable[[], go.Figure]] = {
    "accuracy_by_subset": lambda: plots.accuracy_by_subset(results.make_summary(rows()), rows=rows()),
    "accuracy_by_subset: long names": lambda: plots.accuracy_by_subset(
        named(results.make_summary(rows()), column="subset"), rows=named(rows(), column="subset")
    ),
    "accuracy_by_subset: far below chance": lambda: plots.accuracy_by_subset(
        first(results.make_summary(rows()), column="subset").assign(accuracy=0.1, ci_low=0.02, ci_high=0.2)
    ),
    "accuracy_by_axis": lambda: plots.accuracy_by_axis(effects(AXES)),
    "accuracy_by_axis: long names": lambda: plots.accuracy_by_axis(effects(LONG_AXES)),
    "accuracy_by_judge": lambda: plots.accuracy_by_judge(of("criteria")),
    "accuracy_by_judge: few judges": lambda: plots.accuracy_by_judge(of("criteria", FEW)),
    "accuracy_by_examples": lambda: plots.accuracy_by_examples(study()),
    "accuracy_by_examples: three subsets": lambda: plots.accuracy_by_examples(
        named(study()[study()["subset"].isin(benchmark.SUBSETS[:3])], column="subset")
    ),
    "accuracy_by_noise": lambda: plots.accuracy_by_noise(study()),
    "accuracy_by_heads": lambda: plots.accuracy_by_heads(attribution.make_curve()),
    "agreement_matrix": lambda: plots.agreement_matrix(attribution.make_agreement(scores())),
    "attribution_maps": lambda: plots.attribution_maps(of_measure()),
    "attribution_maps: measures": lambda: plots.attribution_maps(scores(), criterion="polite"),
    "attribution_maps: measures, 30 x 9": lambda: plots.attribution_maps(scores_of("30 x 9")),
    "attribution_maps: 24 x 14": lambda: plots.attribution_maps(scores_of("24 x 14", ("shapley",))),
    "attribution_maps: 80 x 64": lambda: plots.attribution_maps(scores_of("80 x 64", ("shapley", "gradient"))),
    "bias_grid": lambda: plots.bias_grid(of("hacking")),
    "bias_grid: one bias": lambda: plots.bias_grid(
        of("hacking", FEW)[of("hacking", FEW)["subset"].str.startswith("length")]
    ),
    "bias_grid: verdicts": lambda: plots.bias_grid(
        of("hacking verdicts", FEW)[of("hacking verdicts", FEW)["subset"].str.startswith("format")]
    ),
    "correlation_matrix": lambda: plots.correlation_matrix(correlation()),
    "depth_profile": lambda: plots.depth_profile(attribution.make_depth()),
    "differences": lambda: plots.differences(comparisons()),
    "differences: few judges": lambda: plots.differences(comparisons()[comparisons()["other"].isin(FEW)]),
    "image_attention_figure": lambda: plots.image_attention_figure(
        *attribution.make_patches(), title="layer 2, head 3"
    ),
    "head_card_figure": lambda: plots.head_card_figure(*card(), title="layer 2, head 3"),
    "head_card_figure: a rank among thousands": lambda: plots.head_card_figure(
        *card()[:2], card()[2].assign(rank=4321, heads=5120), title="layer 2, head 3"
    ),
    "head_matrix": lambda: plots.head_matrix(of_measure()),
    "interaction_matrix": lambda: plots.interaction_matrix(attribution.make_interactions(("safe",))),
    "interaction_matrix: 60 heads of 80 x 64": lambda: plots.interaction_matrix(
        attribution.make_interactions(("safe",), 60, 80, 64)
    ),
    "mean_cosines": lambda: plots.mean_cosines(attribution.make_cosines()),
    "measures_against_each_other": lambda: plots.measures_against_each_other(scores()),
    "measures_against_each_other: 80 x 64": lambda: plots.measures_against_each_other(
        scores_of("80 x 64", ("shapley", "gradient"))
    ),
    "overlap_matrix": lambda: plots.overlap_matrix(overlap()),
    "reliability": lambda: plots.reliability(benchmark.make_calibration(), summary=of("criteria")),
    "reliability: one judge": lambda: plots.reliability(benchmark.make_calibration(("sav",))),
    "reward_histograms": lambda: plots.reward_histograms(items()),
    "reward_histograms: one criterion": lambda: plots.reward_histograms(first(items(), column="subset")),
    "reward_histograms: long names": lambda: plots.reward_histograms(named(items(), column="subset")),
    "roc_curves": lambda: plots.roc_curves(items()),
    "roc_curves: one criterion and judge": lambda: plots.roc_curves(first(items(), column="subset"), ["arm_reinforce"]),
    "roc_curves: long names and one seed": lambda: plots.roc_curves(
        named(items()[items()["seed"] == 0], column="subset")
    ),
    "selected_heads": lambda: plots.selected_heads(heads()),
    "selected_heads: one criterion": lambda: plots.selected_heads(first(heads())),
    "selected_heads: samples": lambda: plots.selected_heads(heads().assign(sample=lambda table: table["seed"], seed=0)),
    "selected_heads: long names": lambda: plots.selected_heads(named(heads())),
    "selected_heads: 30 x 9": lambda: plots.selected_heads(few_chosen("30 x 9")),
    "selected_heads: 80 x 64": lambda: plots.selected_heads(few_chosen("80 x 64")),
    "selection_probabilities": lambda: plots.selection_probabilities(heads()),
    "selection_probabilities: 24 x 14": lambda: plots.selection_probabilities(few_chosen("24 x 14")),
    "selection_speed": lambda: plots.selection_speed(benchmark.make_speed()),
    "selection_steps": lambda: plots.selection_steps(attribution.make_trajectory()),
    "selection_trajectories": lambda: plots.selection_trajectories(attribution.make_trajectory()),
    "selection_trajectories: 30 x 9": lambda: plots.selection_trajectories(
        attribution.make_trajectory(("safe", "polite"), range(0, 200, 40), *GRIDS["30 x 9"])
    ),
    "stability_by_group": lambda: plots.stability_by_group(attribution.make_stability()),
    "training_curves": lambda: plots.training_curves(history()),
    "training_curves: long names": lambda: plots.training_curves(named(history()), value="entropy"),
    "training_curves: one seed": lambda: plots.training_curves(
        history()[history()["seed"] == 0], value="expected_heads"
    ),
    "transfer_matrix": lambda: plots.transfer_matrix(attribution.make_transfer()),
    "upset": lambda: plots.upset(attribution.make_memberships()),
}
"""Figures to draw, by name."""
PAGE_ONLY = {"accuracy_by_judge", "bias_grid", "differences"}
"""Cases that are too large for one column of a paper, and say so."""
