"""What long tables come down to when they are shown in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import pandas as pd

from arm_lens.display.words import head_name


def sizes(frame: pd.DataFrame, plurals: Mapping[str, str]) -> str:
    """How many different values columns have: ``8 criteria, 1 method``.

    Args:
        frame: with the columns that are counted.
        plurals: by the name of the column, which is the singular.
    """
    counts = {column: frame[column].nunique() for column in plurals}
    return ", ".join(f"{count} {column if count == 1 else plurals[column]}" for column, count in counts.items())


def accuracies(summary: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy over the subsets of each benchmark: a row per judge and setting, a column per benchmark.

    Args:
        summary: benchmark, judge, n_examples, noise, accuracy; what is the same everywhere is not in the result.
    """
    settings = ["judge", *(name for name in ("n_examples", "noise") if summary[name].nunique() > 1)]
    return summary.pivot_table(
        index=settings, columns="benchmark", values="accuracy", aggfunc="mean", sort=False, observed=True
    )


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
        k: how many of each; fewer if there are not so many heads.

    Returns:
        A row per head, indexed by its name, with two columns of text, ``name`` and ``95 % interval``.
    """
    known = scores.dropna(subset=["score"]).sort_values("score", ascending=False, kind="stable")
    rows = known if len(known) <= 2 * k else pd.concat([known.head(k), known.tail(k)])
    texts = {
        name: [f"{score:+.3g}" for score in rows["score"]],
        "95 % interval": [
            f"{low:+.3g} to {high:+.3g}" if low == low else "unknown"
            for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True)
        ],
    }
    heads = [head_name(layer, head) for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    return pd.DataFrame(texts, index=heads)
