"""Dividing preferences into parts (demonstrations, validation, test) that are similar but share no prompt.

Examples with the same prompt and criterion form a *group*, which is never divided: a judge that has read one response
to a prompt knows the prompt. If there are no prompts, or one for all, examples that share a response form a group (see
`clusters`). Each part should hold its share of every *stratum* (by default, criterion and label).
Groups are of the same *kind* if they hold the same number of examples of every stratum. How many groups x of each kind
go to each part is the solution of a small integer program:

    minimise    sum over strata, parts |count - share|,   count = sum over kinds (examples per group) x
    subject to  every group in one part, every part of its exact size, and every count its share rounded up or down

The last condition can always be met if all groups are alike: if prompts are unique, or if all examples come from pairs
by `unpair` (any table can be rounded without changing its margins: Bacharach, 1966, "Matrix rounding problems"). If
groups of different sizes make it impossible, the permitted deviation is doubled until there is a solution, so it is
less than twice what is needed. Of all solutions, the one is taken in which each part holds as nearly as possible its share
of the groups of every kind: ten examples drawn from three hundred are not one text that occurs ten times. The seed decides
which groups of a kind go to which part.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import product
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.optimize
import scipy.sparse
from jaxtyping import Float, Int, Num

from arm_lens.preferences.types import Preference, Prompt, responses_of, text_of

optimize: Any = scipy.optimize  # scipy has no annotations
sparse: Any = scipy.sparse

Stratify: TypeAlias = Literal["criterion and label", "criterion", "label"] | Callable[[Preference], Hashable] | None
"""What defines the strata; pairs have no label. None: all examples are one stratum."""

_STRATA: dict[Any, tuple[str, ...]] = {
    "criterion and label": ("criterion", "label"),
    "criterion": ("criterion",),
    "label": ("label",),
    None: (),
}

_TIE_BREAK_WEIGHT = 1e-3
"""Weight of the random numbers that decide between equally good allocations."""


def split_preferences(
    examples: Iterable[Preference],
    sizes: Mapping[str, int | float],
    *,
    seed: int,
    stratify: Stratify = "criterion and label",
) -> dict[str, list[Preference]]:
    """Divide preferences into named parts; the examples of one cluster and criterion all go to the same part.

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
            if a fraction amounts to no examples, or if an example is a tie.
    """
    if not callable(stratify) and stratify not in _STRATA:
        raise ValueError(f"stratify is {stratify!r}; known are {', '.join(map(repr, _STRATA))} or a function")
    examples = list(examples)
    for example in examples:
        responses_of(example)  # refuses ties
    names = sorted(sizes)  # the order of the parts must not matter
    counts, exact = _counts(len(examples), sizes)
    kinds, table = _kinds(examples, stratify)
    n_groups = np.array([len(groups) for groups in kinds], dtype=np.int64)
    rng = random.Random(seed)
    plan = _allocate(n_groups, table, counts, rng, exact=exact)
    if plan is None:
        wanted = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=False))
        group_sizes = sorted(Counter(len(group) for groups in kinds for group in groups).items())
        listed = ", ".join(f"{count} of size {size}" for size, count in group_sizes)
        raise ValueError(
            f"no split has exactly {wanted}: the {len(examples)} examples form {n_groups.sum()} groups with the same "
            f"prompt (or response, if there is one prompt for all) and criterion, which are not divided ({listed})"
        )
    parts: dict[str, list[int]] = {name: [] for name in sizes}
    for groups, n_of_part in zip(kinds, plan, strict=True):
        shuffled = iter(rng.sample(groups, len(groups)))
        for name, n in zip(names, n_of_part, strict=False):
            for _ in range(n):
                parts[name] += next(shuffled)
    for name, indices in parts.items():
        if sizes[name] and not examples:
            raise ValueError(f"part {name!r} should have {sizes[name]} of the examples, and there are none")
        if not indices and sizes[name]:
            raise ValueError(f"part {name!r} should have {sizes[name]} of {len(examples)} examples, which is none")
    return {name: [examples[index] for index in sorted(indices)] for name, indices in parts.items()}


def clusters(examples: Sequence[Preference]) -> list[str]:
    """What each example belongs to, so that no part of the data gives away another: its prompt, as a text.

    If there is no prompt, or one that is the same in all examples that have one, it is the response: texts that are
    classified have nothing else that could be shared. Pairs that share a response, directly or over other pairs, belong
    together. White space does not distinguish texts.

    Raises:
        ValueError: if an example is a tie.
    """
    responses = [list(map(words_of, responses_of(example))) for example in examples]
    prompts = [words_of(example.prompt) for example in examples]
    if len(set(prompts) - {""}) > 1:
        return prompts
    leader: dict[str, str] = {}

    def find(text: str) -> str:
        while leader.setdefault(text, text) != text:
            leader[text] = leader[leader[text]]
            text = leader[text]
        return text

    for first, *others in responses:
        for other in others:
            leader[find(other)] = find(first)
    return [find(first) for first, *_ in responses]


def words_of(prompt: Prompt) -> str:
    """The text with all white space as single spaces, accents composed: what makes two texts the same to a reader."""
    return " ".join(unicodedata.normalize("NFC", text_of(prompt)).split())


def _counts(n: int, sizes: Mapping[str, int | float]) -> tuple[Int[np.ndarray, " part"], bool]:
    """The sizes of the sorted parts and of the rest, by the largest remainder method; and whether they must be exact."""
    if not sizes:
        raise ValueError("sizes names no part")
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
            raise ValueError(f"the size of part {name!r} is {value!r}, neither a count nor a fraction")
    values = [size for _, size in sorted(sizes.items())]
    are_counts = {isinstance(value, Integral) for value in values}
    if len(are_counts) > 1:
        raise ValueError(f"sizes mixes counts and fractions: {dict(sizes)}")
    total = math.fsum(values)
    if are_counts == {True}:
        if total > n:
            raise ValueError(f"{int(total)} examples are requested ({dict(sizes)}), but there are {n}")
        return np.array([*values, n - total], dtype=np.int64), True
    if total > 1 + 1e-9:
        raise ValueError(f"the fractions {dict(sizes)} add up to {total:g}, more than 1")
    shares = n * np.array([*values, max(0.0, 1 - total)])
    counts = np.floor(shares + 1e-9).astype(np.int64)
    largest = np.argsort(counts - shares, kind="stable")[: n - counts.sum()]
    counts[largest] += 1
    return counts, False


def _kinds(
    examples: Sequence[Preference], stratify: Stratify
) -> tuple[list[list[list[int]]], Int[np.ndarray, "kind stratum"]]:
    """[kind][group]: the indices of the group's examples; and how many examples of each stratum such a group holds.

    Groups, strata and kinds are in order of first occurrence, so that results are reproducible.
    """

    def stratum(example: Preference) -> Hashable:
        if callable(stratify):
            return stratify(example)
        return tuple(getattr(example, field, None) for field in _STRATA[stratify])

    groups: dict[tuple[str, str], list[int]] = {}
    for index, (cluster, example) in enumerate(zip(clusters(examples), examples, strict=True)):
        groups.setdefault((cluster, example.criterion), []).append(index)
    strata: dict[Hashable, int] = {}
    stratum_of = [strata.setdefault(stratum(example), len(strata)) for example in examples]
    kinds: dict[tuple[int, ...], list[list[int]]] = {}
    for group in groups.values():
        composition = Counter(stratum_of[index] for index in group)
        kinds.setdefault(tuple(composition[stratum] for stratum in range(len(strata))), []).append(group)
    return list(kinds.values()), np.array(list(kinds), dtype=np.int64).reshape(len(kinds), len(strata))


def _allocate(
    n_groups: Int[np.ndarray, " kind"],
    table: Int[np.ndarray, "kind stratum"],
    counts: Int[np.ndarray, " part"],
    rng: random.Random,
    *,
    exact: bool,
) -> Int[np.ndarray, "kind part"] | None:
    """How many groups of each kind go to each part; None if the counts must be exact and cannot be."""
    if not n_groups.size:
        return np.zeros((0, len(counts)), dtype=np.int64)
    tie_breaks = np.array([rng.random() for _ in range(len(n_groups) * len(counts))])
    each_part = sparse.identity(len(counts))
    assigned = sparse.kron(sparse.identity(len(n_groups)), np.ones((1, len(counts))), format="csr")
    strata = sparse.kron(table.T, each_part, format="csr")
    sizes = sparse.kron(table.sum(axis=1)[None, :], each_part, format="csr")
    shares = np.outer(n_groups @ table, counts).ravel() / counts.sum()
    low, high = np.floor(shares + 1e-9), np.ceil(shares - 1e-9)
    # How far a count may lie outside its share rounded down and up, and a size from its target; the tightest limits first.
    widths = [0, *(2**power for power in range(int(counts.sum()).bit_length() + 1))]
    slacks = [0] if exact else range(table.sum(axis=1).max() + 1)
    of_kinds = np.outer(n_groups, counts).ravel() / counts.sum()
    for width, slack in product(widths, slacks):
        # With the share = low + f and the count low or low + 1, |count - share| is f + (1 - 2f) (count - low): linear.
        distance = strata.T @ (np.zeros_like(shares) if width else 1 - 2 * (shares - low))
        deviation = slack * (counts > 0)  # an empty part stays empty
        limits = [
            (assigned, n_groups, n_groups),
            (strata, low - width, high + width),
            (sizes, counts - deviation, counts + deviation),
        ]
        most = np.repeat(n_groups, len(counts))
        best = _solved(distance, limits, most)
        if best is None:
            continue
        # A second program: as good, and nearest to the share of every kind, whose distance is a variable of its own.
        count, each = len(distance), sparse.identity(len(distance))
        none = sparse.csr_array((1, count))
        wide = [
            (sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], count))]), *ends) for matrix, *ends in limits
        ]
        wide += [
            (sparse.hstack([sparse.csr_array(distance[None]), none]), -np.inf, float(distance @ best) + 1e-6),
            (sparse.hstack([each, -each]), -np.inf, of_kinds),
            (sparse.hstack([each, each]), of_kinds, np.inf),
        ]
        costs = np.concatenate([_TIE_BREAK_WEIGHT * tie_breaks, np.ones(count)])
        nearest = _solved(costs, wide, np.concatenate([most, np.full(count, np.inf)]), count)
        found = best if nearest is None else nearest[:count]
        allocation: Int[np.ndarray, "kind part"] = np.rint(found).astype(np.int64).reshape(-1, len(counts))
        return allocation
    return None


def _solved(
    costs: Float[np.ndarray, " variable"],
    limits: Sequence[tuple[Any, Any, Any]],
    most: Num[np.ndarray, " variable"],
    integers: int | None = None,
) -> Float[np.ndarray, " variable"] | None:
    """The variables of least cost, from 0 to ``most``, the first ``integers`` (or all) whole; None if there are none.

    Each of the ``limits`` is a matrix, and what its product with the variables is at least and at most.
    """
    whole = len(costs) if integers is None else integers
    solution = optimize.milp(
        costs,
        integrality=np.arange(len(costs)) < whole,
        bounds=optimize.Bounds(0, most),
        constraints=[optimize.LinearConstraint(*limit) for limit in limits],
        options={"mip_rel_gap": 0.0},
    )
    if solution.x is None and solution.status != 2:  # scipy's number for: there is no solution
        raise RuntimeError(f"no allocation of groups to parts was found: {solution.message}")
    found: Float[np.ndarray, " variable"] | None = solution.x
    return found
