"""How measures and outcomes are named, ordered and drawn in every figure.

Causal measures say what the outcome does when heads are written or removed, and come first. The cheap ones (a gradient,
a direct path to the verdict's logits, the search's own probability) may replace causal measures as far as they agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from arm_lens.evaluation.trust import trust_notes

OUTCOME_NAMES = {
    "probability": "probability of the right verdict",
    "accuracy": "accuracy",
    "gap": "verdict gap (logits)",
}


@dataclass(frozen=True)
class MeasureStyle:
    """How a measure is named and drawn, and whether it intervenes."""

    name: str
    short: str
    """For narrow places."""
    color: str
    symbol: str
    dash: str
    causal: bool


MEASURES: dict[str, MeasureStyle] = {
    "shapley": MeasureStyle("Shapley value", "Shapley", "#0072b2", "circle", "solid", True),
    "leave_one_out": MeasureStyle("Left out of the set", "Left out", "#d55e00", "square", "longdash", True),
    "injection": MeasureStyle("Injected alone", "Injected", "#009e73", "triangle-up", "dashdot", True),
    "head_gating": MeasureStyle("Head gating", "Gating", "#17becf", "hexagram", "dashdot", True),
    "ablation_mean": MeasureStyle("Mean ablation", "Abl. mean", "#6a3d9a", "triangle-left", "dash", True),
    "ablation_resample": MeasureStyle("Resample ablation", "Abl. resample", "#997000", "pentagon", "dash", True),
    "ablation_zero": MeasureStyle("Zero ablation", "Abl. zero", "#5c8a00", "triangle-right", "dash", True),
    "ablation_optimal": MeasureStyle("Optimal ablation", "Abl. optimal", "#a6475b", "triangle-ne", "dash", True),
    "integrated_gradients": MeasureStyle("Integrated gradients", "Integrated", "#7d7200", "diamond-tall", "dot", False),
    "gradient": MeasureStyle("Gradient × (mean − z)", "Gradient", "#e69f00", "diamond", "dot", False),
    "direct": MeasureStyle("Direct logit", "Direct", "#56b4e9", "cross", "dot", False),
    "selection_probability": MeasureStyle(
        "Selection probability", "Selection", "#cc79a7", "star", "longdashdot", False
    ),
}
"""In the order in which they are listed and drawn."""
CONTROLS: dict[str, MeasureStyle] = {
    "random": MeasureStyle("Random heads", "Random", "#7a7a7a", "triangle-down", "dash", False),
    "selected": MeasureStyle("Selected heads", "Selected", "#111111", "star-diamond", "solid", False),
}
"""Rankings that are not measures."""
_OTHERS = (("x", "solid"), ("hourglass", "dash"), ("bowtie", "dot"), ("hexagon", "dashdot"))


def measure_styles(measures: Iterable[str]) -> dict[str, MeasureStyle]:
    """The style of each measure or ranking: known ones first in their fixed order, others after them in black."""
    present = list(dict.fromkeys(map(str, measures)))
    known = {**MEASURES, **CONTROLS}
    styles = {measure: style for measure, style in known.items() if measure in present}
    for index, measure in enumerate(one for one in present if one not in known):
        symbol, dash = _OTHERS[index % len(_OTHERS)]
        styles[measure] = MeasureStyle(measure, measure, "#111111", symbol, dash, False)
    return styles


def measure_name(measure: str) -> str:
    """A measure's displayed name, e.g. "Shapley value"; an unknown measure keeps its own."""
    return measure_styles([measure])[measure].name


def outcome_name(outcome: str) -> str:
    """An outcome's displayed name, with its unit."""
    return OUTCOME_NAMES.get(outcome, outcome)


def trust_captions(attributions: pd.DataFrame) -> list[str]:
    """What a caption says about the cheap measures in a table: see `arm_lens.evaluation.trust.trust_notes`."""
    return [note.replace("-", "−") for note in trust_notes(attributions, measure_name)]
