"""What all comparisons share: named things in pairs, of models of one size.

Whatever is compared has a name (a criterion, a seed, a selector, a model), and every pair is compared once, in the order
in which the names were given. Heads of different models have nothing to do with each other one by one: where heads are
matched, the models must have the same size, and `arm_lens.comparison.depth` is for those that have not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

Thing = TypeVar("Thing")


def pairs(named: Mapping[str, Thing], what: str) -> Iterator[tuple[str, str, Thing, Thing]]:
    """Each two of the named things once, with their names.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(named) < 2:
        there = f"only {next(iter(named))!r}" if named else "none"
        raise ValueError(f"comparing needs at least two {what}, and there is {there}")
    return ((a, b, named[a], named[b]) for a, b in combinations(named, 2))


def same_size(shapes: Mapping[str, Sequence[int]], what: str) -> None:
    """Make sure that all belong to models with as many layers and heads.

    Args:
        shapes: by name, layers and heads per layer.
        what: is compared, for the message.

    Raises:
        ValueError: naming the first two that do not.
    """
    first = next(iter(shapes), "")
    for name, shape in shapes.items():
        if tuple(shape[:2]) != tuple(shapes[first][:2]):
            raise ValueError(
                f"{what} are compared head by head, but {first!r} is of a model of {shapes[first][0]} layers of "
                f"{shapes[first][1]} heads and {name!r} of one of {shape[0]} layers of {shape[1]}; "
                "depth_profile compares models of different size"
            )
