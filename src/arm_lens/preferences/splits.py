"""Dividing preferences into parts (few shots, validation, test) that share no prompt and look alike.

Examples with the same prompt and criterion form a *group*, which is never divided: a judge that was shown one response
to a prompt has seen the prompt. Each part should hold its share of every *stratum* (criterion and label, unless told
otherwise). Groups are of one *kind* if they hold the same number of examples of every stratum. How many groups x of
each kind go to each part is the solution of a small integer program:

    minimise    sum over strata, parts |count - share|,   count = sum over kinds (examples per group) x
    subject to  every group in one part, every part of its exact size, and every count its share rounded up or down

The last condition can always be met where groups are alike: where prompts are unique, or all are pairs taken apart by
`labelled` (any table can be rounded so that its margins stay: Bacharach, 1966, "Matrix rounding problems"). It is given
up where groups of different sizes rule it out. Which groups of a kind go where is a shuffle by the seed.
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

_SIZE_WEIGHT = 1000.0
"""What an example too many in a part costs, where one of a stratum costs 1 and sizes need not be exact."""

_TIES = 1e-6
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
    # From all that is wished for to what cannot be given up.
    attempts = [(True, True), (True, False)] if targets.exact else [(True, True), (False, True), (False, False)]
    for exact, near in attempts:
        plan = _solve(kinds, targets.counts, ties, exact=exact, near=near)
        if plan is not None:
            return plan
    lengths = Counter(len(group) for same in kinds.groups for group in same)
    listed = ", ".join(f"{number} of {length}" for length, number in sorted(lengths.items()))
    raise ValueError(
        f"no split has exactly {targets}: the {targets.counts.sum()} examples form {lengths.total()} groups of the "
        f"same prompt and criterion, which are not divided ({listed})"
    )


def _solve(
    kinds: _Kinds,
    counts: Int[np.ndarray, " part"],
    ties: Float[np.ndarray, " kind_part"],
    *,
    exact: bool,
    near: bool,
) -> list[list[int]] | None:
    """The best allocation, or None if there is none.

    Args:
        kinds: the groups.
        counts: size of each part.
        ties: in [0, 1), one for each unknown, to choose among equally good allocations.
        exact: whether sizes must be kept.
        near: whether the count of each stratum in each part must be its share rounded up or down.
    """
    n_kinds, n_parts = len(kinds.groups), len(counts)
    # The unknowns: groups of a kind in a part, how far each stratum in a part is off, how far each part is off.
    lengths = (n_kinds * n_parts, kinds.table.shape[1] * n_parts, n_parts)
    most = np.concatenate([np.repeat(kinds.numbers, n_parts), np.full(lengths[1], np.inf), np.full(n_parts, np.inf)])
    most[-n_parts:][exact | (counts == 0)] = 0
    solution = optimize.milp(
        np.concatenate([_TIES * ties, np.ones(lengths[1]), np.full(n_parts, _SIZE_WEIGHT)]),
        integrality=np.repeat([1, 0, 0], lengths),
        bounds=optimize.Bounds(0, most),
        constraints=_constraints(kinds, counts, lengths, near=near),
        options={"mip_rel_gap": 0.0},
    )
    if solution.status == _INFEASIBLE:
        return None
    if solution.x is None:
        raise RuntimeError(f"the allocation of groups to parts was not found: {solution.message}")
    allocation = np.rint(solution.x[: lengths[0]]).astype(np.int64).reshape(n_kinds, n_parts)
    return [[int(number) for number in row] for row in allocation]


def _constraints(
    kinds: _Kinds, counts: Int[np.ndarray, " part"], lengths: tuple[int, int, int], *, near: bool
) -> list[Any]:
    """Every group placed; strata and sizes as far off their targets as the unknowns say, at most."""
    each_part = sparse.identity(len(counts))
    placed = sparse.kron(sparse.identity(len(kinds.groups)), np.ones((1, len(counts))))
    strata = sparse.kron(kinds.table.T, each_part)
    sizes = sparse.kron(kinds.table.sum(axis=1)[None, :], each_part)
    shares = np.outer(kinds.numbers @ kinds.table, counts).ravel() / counts.sum()

    def rows(groups: Any, strata_off: int = 0, sizes_off: int = 0) -> Any:
        n = groups.shape[0]
        return sparse.hstack(
            [groups, strata_off * sparse.eye(n, lengths[1]), sizes_off * sparse.eye(n, lengths[2])], format="csr"
        )

    between = optimize.LinearConstraint
    constraints = [
        between(rows(placed), kinds.numbers, kinds.numbers),
        between(rows(strata, strata_off=-1), -np.inf, shares),
        between(rows(strata, strata_off=1), shares, np.inf),
        between(rows(sizes, sizes_off=-1), -np.inf, counts),
        between(rows(sizes, sizes_off=1), counts, np.inf),
    ]
    if near:
        constraints.append(between(rows(strata), np.floor(shares + 1e-9), np.ceil(shares - 1e-9)))
    return constraints
