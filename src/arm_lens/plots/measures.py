"""How measures and outcomes are named, ordered and drawn in every figure, and how a table of scores is cut to what is asked.

Causal measures say what the outcome does when heads are written or removed, and come first. The cheap ones (a gradient,
a direct path to the verdict's logits, the search's own probability) stand in for them as far as they agree with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from arm_lens.frames import checked

SCORES = ("criterion", "measure", "outcome", "layer", "head", "score", "ci_low", "ci_high", "n")
"""The columns of ``attributions`` that figures need."""
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
    "ablation_mean": MeasureStyle("Mean ablation", "Abl. mean", "#6a3d9a", "triangle-left", "dash", True),
    "ablation_resample": MeasureStyle("Resample ablation", "Abl. resample", "#997000", "pentagon", "dash", True),
    "ablation_zero": MeasureStyle("Zero ablation", "Abl. zero", "#5c8a00", "triangle-right", "dash", True),
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
"""Rankings that are no measure."""
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
    """How a measure reads, e.g. "Shapley value"; another's own name is left as it is."""
    return measure_styles([measure])[measure].name


def outcome_name(outcome: str) -> str:
    """How an outcome reads, with its unit."""
    return OUTCOME_NAMES.get(outcome, outcome)


def head_name(layer: int, head: int) -> str:
    """``L3H5``."""
    return f"L{layer}H{head}"


def of_outcome(table: pd.DataFrame, outcome: str, *, columns: Sequence[str], name: str) -> pd.DataFrame:
    """The rows of an outcome.

    Raises:
        ValueError: if a column is missing, there are no rows, or none of this outcome.
    """
    return _having(checked(table, columns, table=name), "outcome", outcome, name)


def of_measure(table: pd.DataFrame, measure: str | None, *, name: str = "attributions") -> pd.DataFrame:
    """The rows of a measure; without one, the whole table, which may then hold only one.

    Raises:
        ValueError: if there is none such, or there are several and none is named.
    """
    return of_value(table, "measure", measure, name=name)


def of_criterion(table: pd.DataFrame, criterion: str | None, *, name: str = "attributions") -> pd.DataFrame:
    """The rows of a criterion; without one, the whole table, which may then hold only one.

    Raises:
        ValueError: if there is none such, or there are several and none is named.
    """
    return of_value(table, "criterion", criterion, name=name)


def one_per(table: pd.DataFrame, keys: Sequence[str], *, name: str) -> pd.DataFrame:
    """``table`` itself, if no two rows share ``keys``.

    Raises:
        ValueError: naming what is there twice.
    """
    twice = table[table.duplicated(list(keys))]
    if not twice.empty:
        first = twice[list(keys)].to_dict("records")[0]
        where = ", ".join(f"{key} {first[key]!r}" for key in keys)
        raise ValueError(f"the table '{name}' has several rows of {where}")
    return table


def _having(table: pd.DataFrame, column: str, value: str, name: str) -> pd.DataFrame:
    there = [str(one) for one in table[column].unique()]
    if value not in there:
        raise ValueError(f"the table '{name}' has no {column} {value!r}; it has {', '.join(there)}")
    return table[table[column] == value]


def of_value(table: pd.DataFrame, column: str, value: str | None, *, name: str) -> pd.DataFrame:
    """The rows with this value in a column; without one, the whole table, which may then hold only one.

    Raises:
        ValueError: if there is none such, or there are several and none is named.
    """
    there = [str(one) for one in table[column].unique()]
    if value is None and len(there) > 1:
        raise ValueError(f"the table '{name}' has several values of {column} ({', '.join(there)}): name one")
    return table if value is None else _having(table, column, value, name)
