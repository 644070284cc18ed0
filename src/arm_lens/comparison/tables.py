"""What all comparisons share: named things in pairs, of models of one size, and sets out of the table of heads.

Whatever is compared has a name (a criterion, a seed, a selector, a model), and every pair is compared once, in the order
in which the names were given. Heads of different models have nothing to do with each other one by one: where heads are
matched, the models must have the same size, and `arm_lens.comparison.depth` is for those that have not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import pandas as pd

from arm_lens.heads import HeadSet

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


def checked(frame: pd.DataFrame, columns: Sequence[str], *, table: str) -> pd.DataFrame:
    """``frame`` itself, if it has these columns and at least one row.

    Raises:
        ValueError: naming the missing column, or saying that the table is empty.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        there = ", ".join(map(str, frame.columns)) or "no columns"
        raise ValueError(f"the table '{table}' lacks the column {', '.join(map(repr, missing))}; it has {there}")
    if frame.empty:
        raise ValueError(f"the table '{table}' is empty")
    return frame


def sets_of(heads: pd.DataFrame, *, by: Sequence[str] = ("criterion", "seed")) -> dict[str, HeadSet]:
    """The chosen sets in a table of heads, by name.

    Args:
        heads: layer, head, selected, with a row for every head of the model, chosen or not; and the columns of ``by``.
        by: what tells one set from another. Texts name themselves, numbers are named with their column: ``polite, seed 0``.

    Returns:
        The sets in order of first appearance. Those of different models may have different sizes.

    Raises:
        ValueError: naming a missing column, or the set in which a head is missing, or twice (when ``by`` leaves out a
            column that tells sets apart), or neither selected nor not.
    """
    checked(heads, [*by, "layer", "head", "selected"], table="heads")
    _refuse(
        heads, heads.duplicated([*by, "layer", "head"]), by, "is there several times; what tells sets apart is in 'by'"
    )
    _refuse(heads, ~heads["selected"].isin([True, False]), by, "is neither selected nor not")
    sets: dict[str, HeadSet] = {}
    for key, rows in heads.groupby(list(by), sort=False, dropna=False):
        name = name_of(by, key if isinstance(key, tuple) else (key,))
        if name in sets:
            raise ValueError(f"two sets of heads have the name {name!r}")
        places = rows[["layer", "head"]].to_numpy(dtype=int)
        n_layers, n_heads = (int(most) + 1 for most in places.max(axis=0))
        if len(places) != n_layers * n_heads:
            raise ValueError(
                f"{name!r} has {len(places)} rows for the {n_layers * n_heads} heads of a model of {n_layers} layers of "
                f"{n_heads}; the table has a row for every head, chosen or not"
            )
        chosen = places[rows["selected"].to_numpy(dtype=bool)]
        sets[name] = HeadSet.of(n_layers, n_heads, [(int(layer), int(head)) for layer, head in chosen])
    return sets


def _refuse(heads: pd.DataFrame, wrong: pd.Series, by: Sequence[str], reason: str) -> None:
    """Raise a ValueError that names the first head that is wrong, and its set."""
    if wrong.any():
        row = heads[wrong].iloc[0]
        raise ValueError(f"L{row['layer']}H{row['head']} in {name_of(by, [row[one] for one in by])!r} {reason}")


def name_of(columns: Sequence[str], values: Sequence[object]) -> str:
    """Texts as they are, anything else after its column, separated by commas."""
    named = zip(columns, values, strict=True)
    return ", ".join(value if isinstance(value, str) else f"{column} {value}" for column, value in named)
