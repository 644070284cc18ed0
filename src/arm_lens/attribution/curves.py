"""Accuracy against the number of heads: how many of the best heads by some ranking it takes.

A ranking is as good as its curve: the sooner the curve rises, the more of the effect is in the first heads. Random rankings
are the control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from einops import rearrange

from arm_lens.attribution.outcomes import Judged, criterion_of, outcomes_of
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
        rankings: head scores by name; heads without a score (not a number) come last.
        sizes: values of k; by default 0, 1, 2, 3, 4, 6, 8, 12, ... up to all heads.
        random_rankings: how many random rankings are averaged into one named ``random``; 0 for none.
        seed: of the random rankings and the intervals.
        criterion: its name, for the frame; by default that of the examples' objective.

    Returns:
        Columns criterion, ranking, heads, accuracy, ci_low, ci_high, n: a row per ranking and k, 95 % intervals over
        examples (clusters count as one) and, for random rankings, over those too.

    Raises:
        ValueError: if a size is more than there are heads, or a ranking is named ``random`` and there are random ones.
    """
    if random_rankings and RANDOM in rankings:
        raise ValueError(f"a ranking is named {RANDOM!r}, which is the name of the random ones; set random_rankings=0")
    n_layers, n_heads = objective.shape
    sizes = default_sizes(n_layers * n_heads) if sizes is None else list(sizes)
    groups = {name: scores.values.nan_to_num(-torch.inf, neginf=-torch.inf)[None] for name, scores in rankings.items()}
    if random_rankings:
        generator = torch.Generator().manual_seed(seed)
        groups[RANDOM] = torch.rand(random_rankings, n_layers, n_heads, generator=generator)
    criterion = criterion_of(objective, criterion)
    rows = []
    orders = [HeadScores(name, values) for name, group in groups.items() for values in group]
    margins = objective.margins(torch.stack([order.top(size).mask for order in orders for size in sizes]))
    correct = outcomes_of(margins)["accuracy"]
    by_size = rearrange(correct, "example (order size) -> size order example", size=len(sizes))
    parts = torch.split(by_size, [len(group) for group in groups.values()], dim=1)
    for name, of_group in zip(groups, parts, strict=True):
        for size, verdicts in zip(sizes, of_group, strict=True):
            found = accuracy(verdicts.contiguous().numpy(), clusters=objective.clusters, seed=seed)
            rows.append((criterion, name, size, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["criterion", "ranking", "heads", "accuracy", "ci_low", "ci_high", "n"])


def default_sizes(count: int) -> list[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, ... and the number of heads."""
    powers = [2**exponent for exponent in range(1, count.bit_length())]
    return sorted({0, 1, count, *powers, *(size for power in powers if (size := power * 3 // 2) <= count)})
