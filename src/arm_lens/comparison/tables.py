"""Named things in pairs, of models of one size.

Every pair of names (criteria, seeds, selectors, models) is compared once, in the order of the names. If single heads are
matched, the models must have the same size; `arm_lens.comparison.depth` compares models of different size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

from arm_lens.display import size

Thing = TypeVar("Thing")


def pairs(named: Mapping[str, Thing], what: str) -> Iterator[tuple[str, str, Thing, Thing]]:
    """Every pair of the named things once, with their names.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(named) < 2:
        given = f"only {next(iter(named))!r}" if named else "none"
        raise ValueError(f"comparing needs at least two {what}, and there is {given}")
    return ((a, b, named[a], named[b]) for a, b in combinations(named, 2))


def same_size(shapes: Mapping[str, Sequence[int]], what: str) -> None:
    """Raise a ValueError naming the first two of ``what`` with unequal shapes: layers, and heads per layer."""
    first = next(iter(shapes), "")
    for name, (n_layers, n_heads, *_) in shapes.items():
        if (n_layers, n_heads) != tuple(shapes[first][:2]):
            raise ValueError(
                f"{what} are compared head by head, but {first!r} is of a model of {size(*shapes[first][:2])} and "
                f"{name!r} of one of {size(n_layers, n_heads)}; depth_profile compares models of different size"
            )
