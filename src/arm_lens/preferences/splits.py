"""Dividing preferences into parts (demonstrations, validation, test) that are similar but share no prompt.

Examples with the same prompt and criterion form a *group*, which is never divided: a judge that has read one response
to a prompt knows the prompt. Each part should hold its share of every *stratum* (by default, criterion and label).
Groups are of the same *kind* if they hold the same number of examples of every stratum. How many groups x of each kind
go to each part is the solution of a small integer program:

    minimise    sum over strata, parts |count - share|,   count = sum over kinds (examples per group) x
    subject to  every group in one part, every part of its exact size, and every count its share rounded up or down

The last condition can always be met if all groups are alike: if prompts are unique, or if all examples come from pairs
by `unpair` (any table can be rounded without changing its margins: Bacharach, 1966, "Matrix rounding problems"). If
groups of different sizes make it impossible, the permitted deviation is doubled until there is a solution, so it is
less than twice what is needed. The seed decides which groups of a kind go to which part.
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
"""What defines the strata; pairs have no label. None: all examples are one stratum."""

_TIE_BREAK_WEIGHT = 1e-3
"""Weight of the random numbers that decide between equally good allocations."""

_INFEASIBLE = 2
"""The status that scipy's `milp` returns if there is no solution."""


@dataclass(frozen=True, kw_only=True)
class _Kinds:
    """The groups by kind: groups of one kind hold the same number of examples of every stratum."""

    groups: list[list[list[int]]]
    """[kind][group]: the indices of the group's examples."""
    table: Int[np.ndarray, "kind stratum"]
    """How many examples of each stratum one group of the kind holds."""

    @property
    def n_groups(self) -> Int[np.ndarray, " kind"]:
        return np.array([len(groups) for groups in self.groups])


@dataclass(frozen=True, kw_only=True)
class _Targets:
    """How many examples each part should get: the parts in alphabetical order, then the examples left over."""

    names: list[str]
    counts: Int[np.ndarray, " part"]
    exact: bool
    """Whether the counts must be met exactly."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in zip(self.names, self.counts, strict=False))


def split_preferences(
    examples: Iterable[Preference],
    sizes: Mapping[str, int | float],
    *,
    seed: int,
    stratify: Stratify = "criterion and label",
) -> dict[str, list[Preference]]:
    """Divide preferences into named parts; the examples of one prompt and criterion all go to the same part.

    Args:
        examples: the preferences to divide. If the sizes do not add up to all of them, the others are in no part.
        sizes: the size of each part, all as counts (``{"train": 100, "test": 50}``) or all as fractions of the examples
            (``{"train": 0.8, "test": 0.2}``). Counts are met exactly; fractions as closely as possible with whole
            examples and undivided prompts.
        seed: the same seed, examples and sizes give the same parts.
        stratify: what defines the strata, of which every part should hold its share.

    Returns:
        The parts by name, in the order of ``sizes``; within a part, examples are in their original order.

    Raises:
        ValueError: if there are too few examples, if the sizes cannot be met without dividing the examples of a prompt,
            or if a fraction amounts to no examples.
    """
    examples = list(examples)
    targets = _targets(len(examples), sizes)
    kinds = _kinds(examples, _stratum_of(stratify))
    rng = random.Random(seed)
    plan = _allocate(kinds, targets, rng)
    parts: dict[str, list[int]] = {name: [] for name in sizes}
    for groups, n_groups in zip(kinds.groups, plan, strict=True):
        shuffled = iter(rng.sample(groups, len(groups)))
        for name, n in zip(targets.names, n_groups, strict=False):
            for _ in range(n):
                parts[name] += next(shuffled)
    for name, indices in parts.items():
        if not indices and sizes[name]:
            raise ValueError(f"part {name!r} should have {sizes[name]} of {len(examples)} examples, which is none")
    return {name: [examples[index] for index in sorted(indices)] for name, indices in parts.items()}


def _targets(n: int, sizes: Mapping[str, int | float]) -> _Targets:
    """The sizes as counts that add up to ``n``; fractions are rounded by the largest remainder method."""
    if not sizes:
        raise ValueError("sizes names no part")
    names = sorted(sizes)  # the order of the parts must not matter
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
            raise ValueError(f"{int(total)} examples are requested ({dict(sizes)}), but there are {n}")
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
    """Group the examples. Groups, strata and kinds are in order of first occurrence, so that results are reproducible."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault((" ".join(text_of(example.prompt).split()), example.criterion), []).append(index)
    strata: dict[Hashable, int] = {}
    stratum_of_example = [strata.setdefault(stratum(example), len(strata)) for example in examples]
    kinds: dict[tuple[tuple[int, int], ...], list[list[int]]] = {}
    for group in groups.values():
        composition = Counter(stratum_of_example[index] for index in group)
        kinds.setdefault(tuple(sorted(composition.items())), []).append(group)
    table = np.zeros((len(kinds), len(strata)), dtype=np.int64)
    for row, composition_of_kind in enumerate(kinds):
        for column, count in composition_of_kind:
            table[row, column] = count
    return _Kinds(groups=list(kinds.values()), table=table)


def _allocate(kinds: _Kinds, targets: _Targets, rng: random.Random) -> list[list[int]]:
    """[kind][part]: how many groups of the kind go to the part; the last part is the examples left over."""
    if not kinds.groups:
        return []
    tie_breaks = np.array([rng.random() for _ in range(len(kinds.groups) * len(targets.counts))])
    n, largest = int(targets.counts.sum()), int(kinds.table.sum(axis=1).max())
    slacks = [0] if targets.exact else range(largest + 1)
    # The tightest limits first.
    for width in [0, *(2**power for power in range(n.bit_length() + 1))]:
        for slack in slacks:
            plan = _solve(kinds, targets.counts, tie_breaks, width=width, slack=slack)
            if plan is not None:
                return plan
    group_sizes = Counter(len(group) for groups in kinds.groups for group in groups)
    listed = ", ".join(f"{count} of size {size}" for size, count in sorted(group_sizes.items()))
    raise ValueError(
        f"no split has exactly {targets}: the {n} examples form {group_sizes.total()} groups with the same prompt and "
        f"criterion, which are not divided ({listed})"
    )


def _solve(
    kinds: _Kinds,
    counts: Int[np.ndarray, " part"],
    tie_breaks: Float[np.ndarray, " kind_part"],
    *,
    width: int,
    slack: int,
) -> list[list[int]] | None:
    """The best allocation, or None if no allocation satisfies the constraints.

    Args:
        kinds: the groups by kind.
        counts: the size of each part.
        tie_breaks: one number in [0, 1) for each unknown, to decide between equally good allocations.
        width: how far a part's count of a stratum may lie outside its share rounded down and up.
        slack: how far a part's size may deviate from ``counts``.
    """
    each_part = sparse.identity(len(counts))
    assigned = sparse.kron(sparse.identity(len(kinds.groups)), np.ones((1, len(counts))), format="csr")
    strata = sparse.kron(kinds.table.T, each_part, format="csr")
    sizes = sparse.kron(kinds.table.sum(axis=1)[None, :], each_part, format="csr")
    shares = np.outer(kinds.n_groups @ kinds.table, counts).ravel() / counts.sum()
    low, high = np.floor(shares + 1e-9), np.ceil(shares - 1e-9)
    # With the share = low + f and the count low or low + 1, |count - share| is f + (1 - 2f) (count - low): linear.
    distance = np.zeros_like(shares) if width else 1 - 2 * (shares - low)
    slacks = slack * (counts > 0)  # an empty part stays empty
    between = optimize.LinearConstraint
    solution = optimize.milp(
        strata.T @ distance + _TIE_BREAK_WEIGHT * tie_breaks,
        integrality=np.ones(tie_breaks.size),
        bounds=optimize.Bounds(0, np.repeat(kinds.n_groups, len(counts))),
        constraints=[
            between(assigned, kinds.n_groups, kinds.n_groups),
            between(strata, low - width, high + width),
            between(sizes, counts - slacks, counts + slacks),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if solution.status == _INFEASIBLE:
        return None
    if solution.x is None:
        raise RuntimeError(f"no allocation of groups to parts was found: {solution.message}")
    allocation = np.rint(solution.x).astype(np.int64).reshape(len(kinds.groups), len(counts))
    return [[int(count) for count in row] for row in allocation]
