"""Numbers, heads and long tables in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from arm_lens.safe_text import printable


def number(value: float) -> str:
    """Three significant digits."""
    return "not measured" if np.isnan(value) else f"{value:.3g}"


def head_name(layer: int, head: int) -> str:
    """``L3H5``: how a head is written everywhere."""
    return f"L{layer}H{head}"


def listed(names: Iterable[object], *, most: int = 12) -> str:
    """``{L0H3, L2H1}``; beyond ``most``, names are counted."""
    texts = [printable(str(name)) for name in names]
    rest = [f"... {len(texts) - most} more"] if len(texts) > most else []
    return "{" + ", ".join([*texts[:most], *rest]) + "}"


def counted(count: int, one: str) -> str:
    """``1 head``, ``2 heads``."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def size(n_layers: int, n_heads: int) -> str:
    """``6 layers of 8 heads``."""
    return f"{counted(n_layers, 'layer')} of {counted(n_heads, 'head')}"


def strongest(values: Float[Tensor, "layer head"], k: int) -> list[tuple[int, int]]:
    """(layer, head) of the ``k`` highest values; heads that were not measured are left out."""
    grid = as_array(values)
    order = np.argsort(-grid, axis=None, kind="stable")[:k]  # NaN comes last
    heads = [divmod(int(index), grid.shape[1]) for index in order]
    return [head for head in heads if not np.isnan(grid[head])]


def with_values(values: Float[Tensor, "layer head"], heads: Iterable[tuple[int, int]]) -> str:
    """``L1H2 0.9, L0H0 0.1``: heads with their values."""
    grid = as_array(values)
    return ", ".join(f"{head_name(*head)} {number(grid[head])}" for head in heads) or "none"


def first_and_last(history: pd.DataFrame, column: str) -> str:
    """A column's first and last value."""
    known = history[column].dropna() if column in history else pd.Series(dtype=float)
    if known.empty:
        return "unknown"
    first, last = number(float(known.iloc[0])), number(float(known.iloc[-1]))
    return first if len(known) == 1 else f"{first} at first, {last} at last"


def sizes(frame: pd.DataFrame, plurals: Mapping[str, str]) -> str:
    """How many different values columns have: ``8 criteria, 1 method``.

    Args:
        frame: with the columns that are counted.
        plurals: the plural of each column's name.
    """
    counts = {column: frame[column].nunique() for column in plurals}
    return ", ".join(f"{count} {column if count == 1 else plurals[column]}" for column, count in counts.items())


def accuracies(summary: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy over the subsets of each benchmark: a row per judge and setting, a column per benchmark.

    Args:
        summary: benchmark, subset, judge, n_examples, noise, accuracy; a setting with a single value is left out of the
            result. A judge that lacks a subset has NaN, since such a mean is over other tasks than those of other judges.
    """
    settings = ["judge", *(name for name in ("n_examples", "noise") if summary[name].nunique() > 1)]
    known = summary.dropna(subset=["accuracy"]).groupby([*settings, "benchmark"], sort=False, observed=True)
    means, subsets = known["accuracy"].mean().unstack(sort=False), known["subset"].nunique().unstack(sort=False)
    return means.where(subsets.eq(summary.groupby("benchmark", observed=True)["subset"].nunique(), axis="columns"))


def of_each_verdict(attention: pd.DataFrame, count: int) -> list[str]:
    """The names of the first ``count`` examples, both verdicts in turn.

    Args:
        attention: example, verdict.
        count: at most.
    """
    firsts = attention.drop_duplicates("example")
    groups = [group["example"].tolist() for _, group in firsts.groupby("verdict", sort=False)]
    return [name for turn in zip_longest(*groups) for name in turn if name is not None][:count]


def extremes(scores: pd.DataFrame, *, name: str, k: int = 3) -> pd.DataFrame:
    """The ``k`` heads with the highest and the ``k`` with the lowest scores, from high to low.

    Args:
        scores: layer, head, score, ci_low, ci_high; a row per head. A head without a score is left out.
        name: of the score.
        k: how many of each; all heads if there are fewer.

    Returns:
        A row per head, indexed by its name, with two columns of text, ``name`` and ``95 % interval``.
    """
    known = scores.dropna(subset=["score"]).sort_values("score", ascending=False, kind="stable")
    rows = known if len(known) <= 2 * k else pd.concat([known.head(k), known.tail(k)])
    texts = {
        head_name(row["layer"], row["head"]): (
            f"{row['score']:+.3g}",
            "unknown" if np.isnan(row["ci_low"]) else f"{row['ci_low']:+.3g} to {row['ci_high']:+.3g}",
        )
        for row in rows.to_dict("records")
    }
    return pd.DataFrame.from_dict(texts, orient="index", columns=[name, "95 % interval"])


def as_array(values: Float[Tensor, "layer head"]) -> Float[np.ndarray, "layer head"]:
    """The values in float64 on the CPU, from any device and precision."""
    return values.detach().double().cpu().numpy()
