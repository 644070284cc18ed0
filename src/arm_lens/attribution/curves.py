"""Accuracy against the number of heads: how many of the best heads by some ranking it takes.

A ranking is as good as its curve: the sooner it rises, the more of what matters the first heads hold. Random rankings are
the control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from arm_lens.attribution.outcomes import Judged, outcomes_of
from arm_lens.evaluation import accuracy
from arm_lens.heads import HeadScores

RANDOM = "random"


def accuracy_by_heads(
    objective: Judged,
    rankings: Mapping[str, HeadScores],
    *,
    sizes: Sequence[int] | None = None,
    random_rankings: int = 10,
    seed: int = 0,
    criterion: str = "",
) -> pd.DataFrame:
    """The accuracy while the means of the top k heads of each ranking are written.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        rankings: by name; heads without a score (not a number) come last.
        sizes: values of k; by default 0, 1, 2, 3, 4, 6, 8, 12, ... up to all heads.
        random_rankings: so many random rankings are averaged into one named ``random``; 0 for none.
        seed: of the random rankings and the intervals.
        criterion: its name, for the frame.

    Returns:
        Columns criterion, ranking, heads, accuracy, ci_low, ci_high, n: a row per ranking and k, 95 % intervals over
        examples (clusters count as one) and, for random rankings, over those too.

    Raises:
        ValueError: if a size is more than there are heads, or a ranking is named ``random`` beside the random ones.
    """
    if random_rankings and RANDOM in rankings:
        raise ValueError(f"a ranking is named {RANDOM!r}, which is the name of the random ones; set random_rankings=0")
    n_layers, n_heads = objective.shape
    sizes = default_sizes(n_layers * n_heads) if sizes is None else list(sizes)
    generator = torch.Generator().manual_seed(seed)
    groups = {name: [_last_if_unknown(scores)] for name, scores in rankings.items()}
    if random_rankings:
        draws = torch.rand(random_rankings, n_layers, n_heads, generator=generator)
        groups[RANDOM] = [HeadScores(RANDOM, draw) for draw in draws]
    orders = [order for group in groups.values() for order in group]
    masks = torch.stack([order.top(size).mask for order in orders for size in sizes])
    correct = outcomes_of(objective.margins(masks))["accuracy"].reshape(len(objective), len(orders), len(sizes)).numpy()
    rows, start = [], 0
    for name, group in groups.items():
        of_group = correct[:, start : start + len(group)]
        start += len(group)
        for place, size in enumerate(sizes):
            found = accuracy(np.ascontiguousarray(of_group[:, :, place].T), clusters=objective.clusters, seed=seed)
            rows.append(
                {
                    "criterion": criterion,
                    "ranking": name,
                    "heads": size,
                    "accuracy": found.accuracy,
                    "ci_low": found.low,
                    "ci_high": found.high,
                    "n": found.n,
                }
            )
    return pd.DataFrame(rows)


def default_sizes(count: int) -> list[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, ... and the number of heads."""
    sizes, step = {0, 1, count}, 2
    while step <= count:
        sizes |= {step, step * 3 // 2}
        step *= 2
    return sorted(size for size in sizes if size <= count)


def _last_if_unknown(scores: HeadScores) -> HeadScores:
    return HeadScores(scores.name, scores.values.nan_to_num(nan=-float("inf"), neginf=-float("inf")))
