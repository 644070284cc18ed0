"""Which preferences are tested on, which are examples, and whose labels are flipped.

No prompt of an example is tested; of texts without prompts, or with one prompt for all, no text is both an example and
tested (`arm_lens.preferences.clusters`). Example samples are nested: ten examples are the first ten of twenty in the same
sample, and labels that are flipped at little noise are flipped at more noise too, so that settings differ only in what
judges are given more of.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TypeVar

from arm_lens.preferences import (
    LabelledResponse,
    Preference,
    PreferenceDataWarning,
    PreferencePair,
    clusters,
    split_preferences,
)

PreferenceType = TypeVar("PreferenceType", bound=Preference)
SPLIT_SEED = 1_000_000
"""The seed of what is tested, the same for all example samples."""


def split(
    data: Sequence[PreferenceType], pool: int, wanted: int, study: str
) -> tuple[list[PreferenceType], list[PreferenceType]]:
    """Divide preferences into a pool for examples, and the rest to test on; no prompt is in both."""
    if pool < wanted or pool >= len(data):
        raise ValueError(
            f"study {study!r}: {pool} of {len(data)} preferences are set aside for up to {wanted} examples; pool must be at "
            "least that many and leave something to test on"
        )
    # Without its criterion, since a prompt under two criteria must not be divided either.
    indexed = [replace(one, criterion="", metadata={"index": index}) for index, one in enumerate(data)]
    parts = split_preferences(
        indexed,
        {"pool": pool / len(data), "test": 1 - pool / len(data)},
        seed=SPLIT_SEED,
        stratify=lambda one: (data[one.metadata["index"]].criterion, getattr(one, "label", None)),
    )
    examples, test = ([data[one.metadata["index"]] for one in parts[name]] for name in ("pool", "test"))
    return examples, test


def at_most(
    examples: Sequence[PreferenceType], count: int | None, *, subset: Callable[[Preference], str]
) -> list[PreferenceType]:
    """At most ``count`` examples of each subset, chosen at random (a file may be sorted), in their original order.

    Examples of one subset and cluster (the same prompt, as a rule) are taken or left together, since some scores are about
    all answers to a prompt.

    Raises:
        ValueError: if no cluster has so few examples.
    """
    if count is None:
        return list(examples)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, (one, cluster) in enumerate(zip(examples, clusters(examples), strict=True)):
        groups.setdefault((subset(one), cluster), []).append(index)
    left = {name: count for name, _ in groups}
    taken: list[int] = []
    for key in random.Random(SPLIT_SEED).sample(list(groups), len(groups)):
        if len(groups[key]) <= left[key[0]]:
            left[key[0]] -= len(groups[key])
            taken += groups[key]
    if not taken:
        raise ValueError(f"test_items is {count}, fewer than there are examples about any one prompt")
    emptied = sorted({name for name, _ in groups} - {subset(examples[index]) for index in taken})
    if emptied:
        left_out = f"{', '.join(emptied)}: every prompt has more than {count} examples"
        warnings.warn(PreferenceDataWarning(f"nothing is tested of {left_out}"), stacklevel=2)
    return [examples[index] for index in sorted(taken)]


def untested(pool: Sequence[Preference], tested: Sequence[Preference], study: str) -> list[Preference]:
    """The examples of clusters that are not tested (the same prompt, as a rule); a warning counts the others."""
    known = clusters([*tested, *pool])
    own = set(known[: len(tested)])
    others = [one for one, cluster in zip(pool, known[len(tested) :], strict=True) if cluster not in own]
    if len(others) < len(pool):
        left_out = f"{len(pool) - len(others)} of {len(pool)} examples are about a prompt or text that is tested"
        warnings.warn(PreferenceDataWarning(f"study {study!r}: {left_out}; they are left out"), stacklevel=2)
    return others


def check_enough(pool: Sequence[Preference], count: int, study: str) -> None:
    """Raise a ValueError that names the study if the pool has fewer than ``count`` examples."""
    if count > len(pool):
        raise ValueError(f"study {study!r} wants {count} examples, but there are {len(pool)} to choose from")


def drawn(pool: Sequence[Preference], count: int, sample: int, study: str) -> list[Preference]:
    """Examples in random order; a smaller count gives the first of the same sample.

    Labels of single responses alternate as long as there are both: three chosen blindly often have one label, from which
    nothing can be learnt.
    """
    check_enough(pool, count, study)
    rng = random.Random(sample)
    order = rng.sample(list(pool), len(pool))
    if all(isinstance(one, LabelledResponse) for one in order):
        kinds = [[one for one in order if getattr(one, "label", None) is kind] for kind in rng.sample([True, False], 2)]
        order = [one for both in zip_longest(*kinds) for one in both if one is not None]
    return order[:count]


def flipped(examples: Sequence[Preference], noise: float, *, seed: int) -> list[Preference]:
    """The examples, with the labels of exactly ``round(noise * n)`` of them flipped, chosen by the seed.

    More noise flips the same labels and further ones. Labels of single responses are flipped alternately, beginning with the
    commoner one, so that three or more examples with both labels still have both.
    """
    order = random.Random(f"noise {seed}").sample(range(len(examples)), len(examples))
    labels = [getattr(one, "label", None) for one in examples]
    if None not in labels:
        kinds = ([index for index in order if labels[index] is kind] for kind in (True, False))
        both = zip_longest(*sorted(kinds, key=len, reverse=True))
        order = [index for pair in both for index in pair if index is not None]
    chosen = set(order[: round(noise * len(examples))])
    return [_flip(one) if index in chosen else one for index, one in enumerate(examples)]


def _flip(one: Preference) -> Preference:
    if isinstance(one, PreferencePair):
        return replace(one, chosen=one.rejected, rejected=one.chosen)
    return replace(one, label=not one.label)
