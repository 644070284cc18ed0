"""Dividing preferences into parts (few shots, validation, test) that share no prompt and look alike.

Examples with the same prompt and criterion form a *group*, which is never divided: a judge that was shown one response
to a prompt has seen the prompt. Each part should hold its share of every *stratum* (criterion and label, unless told
otherwise). Groups are of one *kind* if they hold the same number of examples of every stratum. How many groups x of
each kind go to each part is the solution of a small integer program:

    minimise    sum over strata, parts |count - share|,   count = sum over kinds (examples per group) x
    subject to  every group in one part, every part of its exact size, and every count its share rounded up or down

The last condition can always be met where groups are alike: where prompts are unique, or all are pairs taken apart by
`unpair` (any table can be rounded so that its margins stay: Bacharach, 1966, "Matrix rounding problems"). Where
groups of different sizes rule it out, counts may be further off, by no more than needed up to a factor of two. Which
groups of a kind go where is a shuffle by the seed.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.optimize
import scipy.sparse
from jaxtyping import Float, Int

from arm_lens.preferences.types import LabelledResponse, Preference, text_of

optimize: Any = scipy.optimize  # scipy has no annotations
sparse: Any = scipy.sparse

Stratify: TypeAlias = Literal["criterion and label", "criterion", "label"] | Callable[[Preference], Hashable] | None
"""What every part should hold its share of; a pair has no label. None: nothing."""

_TIES = 1e-3
"""Weight of the random numbers that choose among allocations which are otherwise equally good."""

_INFEASIBLE = 2
"""The status with which scipy's `milp` says that there is no solution."""


@dataclass(frozen=True, kw_only=True)
class _Kinds:
    """The groups, those together that hold the same number of examples of every stratum."""

    groups: list[list[list[int]]]
    """Of each kind, the groups; of each group, the places of its examples."""
    table: Int[np.ndarray, "kind stratum"]
    """How many examples of a stratum a group of the kind holds."""

    @property
    def numbers(self) -> Int[np.ndarray, " kind"]:
        """How many groups there are of each kind."""
        return np.array([len(same) for same in self.groups])


@dataclass(frozen=True, kw_only=True)
class _Targets:
    """How many examples each part should get, the parts in alphabetical order and last what is left over."""

    names: list[str]
    counts: Int[np.ndarray, " part"]
    exact: bool
    """Whether the counts must be kept."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in zip(self.names, self.counts, strict=False))


def split_preferences(
    examples: Iterable[Preference],
    sizes: Mapping[str, int | float],
    *,
    seed: int,
    stratify: Stratify = "criterion and label",
) -> dict[str, list[Preference]]:
    """Divide preferences into named parts, so that no prompt with one criterion, and so no duplicate, is in two.

    Args:
        examples: to be divided. Those that the sizes leave over are in no part.
        sizes: of each part, all as counts (``{"train": 100, "test": 50}``) or all as fractions of the examples
            (``{"train": 0.8, "test": 0.2}``). Counts are kept exactly; fractions as nearly as whole examples, and
            prompts that must not be divided, allow.
        seed: the same seed, examples and sizes give the same parts.
        stratify: what every part should hold its share of.

    Returns:
        The parts by name, in the order of ``sizes``; the examples of each in the order they came.

    Raises:
        ValueError: if there are too few examples, if prompts that must not be divided rule the sizes out, or if a
            fraction comes to no example at all.
    """
    examples = list(examples)
    targets = _targets(len(examples), sizes)
    kinds = _kinds(examples, _stratum_of(stratify))
    rng = random.Random(seed)
    plan = _allocate(kinds, targets, rng)
    parts: dict[str, list[int]] = {name: [] for name in sizes}
    for same, numbers in zip(kinds.groups, plan, strict=True):
        shuffled = iter(rng.sample(same, len(same)))
        for name, number in zip(targets.names, numbers, strict=False):
            for _ in range(number):
                parts[name] += next(shuffled)
    for name, places in parts.items():
        if not places and sizes[name]:
            raise ValueError(f"part {name!r} is to be {sizes[name]} of {len(examples)} examples, which comes to none")
    return {name: [examples[place] for place in sorted(places)] for name, places in parts.items()}


def _targets(n: int, sizes: Mapping[str, int | float]) -> _Targets:
    """The sizes as counts that add up to all examples; fractions are rounded by largest remainder."""
    if not sizes:
        raise ValueError("sizes names no part")
    names = sorted(sizes)  # the order in which parts are named must not matter
    values = [sizes[name] for name in names]
    for name, value in zip(names, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
            raise ValueError(f"the size of part {name!r} is {value!r}, neither a count nor a fraction")
    are_counts = {isinstance(value, Integral) for value in values}
    if len(are_counts) > 1:
        raise ValueError(f"sizes mixes counts and fractions: {dict(sizes)}")
    total = math.fsum(values)
    if are_counts == {True}:
        if total > n:
            raise ValueError(f"{int(total)} examples are wanted ({dict(sizes)}), but there are {n}")
        return _Targets(names=names, counts=np.array([*values, n - total], dtype=np.int64), exact=True)
    if total > 1 + 1e-9:
        raise ValueError(f"the fractions {dict(sizes)} add up to {total:g}, more than 1")
    shares = n * np.array([*values, max(0.0, 1 - total)])
    counts = np.floor(shares + 1e-9).astype(np.int64)
    largest = np.argsort(counts - shares, kind="stable")[: n - counts.sum()]
    counts[largest] += 1
    return _Targets(names=names, counts=counts, exact=False)


def _stratum_of(stratify: Stratify) -> Callable[[Preference], Hashable]:
    if callable(stratify):
        return stratify

    def label(example: Preference) -> bool | None:
        return example.label if isinstance(example, LabelledResponse) else None

    known: dict[str | None, Callable[[Preference], Hashable]] = {
        "criterion and label": lambda example: (example.criterion, label(example)),
        "criterion": lambda example: example.criterion,
        "label": label,
        None: lambda example: None,
    }
    if stratify not in known:
        raise ValueError(f"stratify is {stratify!r}; known are {', '.join(map(repr, known))} or a function")
    return known[stratify]


def _kinds(examples: Sequence[Preference], stratum: Callable[[Preference], Hashable]) -> _Kinds:
    """Everything is numbered in the order in which it first occurs, so that only examples and seed decide."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, example in enumerate(examples):
        groups.setdefault((" ".join(text_of(example.prompt).split()), example.criterion), []).append(place)
    strata: dict[Hashable, int] = {}
    numbers = [strata.setdefault(stratum(example), len(strata)) for example in examples]
    kinds: dict[tuple[tuple[int, int], ...], list[list[int]]] = {}
    for group in groups.values():
        make = Counter(numbers[place] for place in group)
        kinds.setdefault(tuple(sorted(make.items())), []).append(group)
    table = np.zeros((len(kinds), len(strata)), dtype=np.int64)
    for row, make_of_kind in enumerate(kinds):
        for number, count in make_of_kind:
            table[row, number] = count
    return _Kinds(groups=list(kinds.values()), table=table)


def _allocate(kinds: _Kinds, targets: _Targets, rng: random.Random) -> list[list[int]]:
    """How many groups of each kind go to each part and, last, to none: [kind, part]."""
    if not kinds.groups:
        return []
    ties = np.array([rng.random() for _ in range(len(kinds.groups) * len(targets.counts))])
    n, largest = int(targets.counts.sum()), int(kinds.table.sum(axis=1).max())
    slacks = [0] if targets.exact else range(largest + 1)
    # From all that is wished for to what cannot be given up.
    for width in [0, *(2**power for power in range(n.bit_length() + 1))]:
        for slack in slacks:
            plan = _solve(kinds, targets.counts, ties, width=width, slack=slack)
            if plan is not None:
                return plan
    lengths = Counter(len(group) for same in kinds.groups for group in same)
    listed = ", ".join(f"{number} of {length}" for length, number in sorted(lengths.items()))
    raise ValueError(
        f"no split has exactly {targets}: the {n} examples form {lengths.total()} groups of the same prompt and "
        f"criterion, which are not divided ({listed})"
    )


def _solve(
    kinds: _Kinds,
    counts: Int[np.ndarray, " part"],
    ties: Float[np.ndarray, " kind_part"],
    *,
    width: int,
    slack: int,
) -> list[list[int]] | None:
    """The best allocation, or None if there is none.

    Args:
        kinds: the groups.
        counts: size of each part.
        ties: in [0, 1), one for each unknown, to choose among equally good allocations.
        width: how much less or more of a stratum a part may hold than its share rounded down or up.
        slack: how much smaller or larger than its size a part may be.
    """
    each_part = sparse.identity(len(counts))
    placed = sparse.kron(sparse.identity(len(kinds.groups)), np.ones((1, len(counts))), format="csr")
    strata = sparse.kron(kinds.table.T, each_part, format="csr")
    sizes = sparse.kron(kinds.table.sum(axis=1)[None, :], each_part, format="csr")
    shares = np.outer(kinds.numbers @ kinds.table, counts).ravel() / counts.sum()
    low, high = np.floor(shares + 1e-9), np.ceil(shares - 1e-9)
    # Between its share rounded down and up, a count's distance from the share f + low is f + (1 - 2f) (count - low).
    distance = np.zeros_like(shares) if width else 1 - 2 * (shares - low)
    slacks = slack * (counts > 0)  # where there is no part, and nothing left over, there is none
    between = optimize.LinearConstraint
    solution = optimize.milp(
        strata.T @ distance + _TIES * ties,
        integrality=np.ones(ties.size),
        bounds=optimize.Bounds(0, np.repeat(kinds.numbers, len(counts))),
        constraints=[
            between(placed, kinds.numbers, kinds.numbers),
            between(strata, low - width, high + width),
            between(sizes, counts - slacks, counts + slacks),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if solution.status == _INFEASIBLE:
        return None
    if solution.x is None:
        raise RuntimeError(f"the allocation of groups to parts was not found: {solution.message}")
    allocation = np.rint(solution.x).astype(np.int64).reshape(len(kinds.groups), len(counts))
    return [[int(number) for number in row] for row in allocation]
