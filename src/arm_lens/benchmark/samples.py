"""Which preferences are tested on, which are drawn as examples, and whose labels are flipped.

What a judge was shown must not be tested: not the example, and not its prompt. Draws are nested: ten examples are the first
ten of twenty of the same draw, and labels that are flipped at little noise are flipped at more too, so that a study
compares judges on what they are given more of, and on nothing else.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from arm_lens.preferences import (
    LabelledResponse,
    Preference,
    PreferenceDataWarning,
    PreferencePair,
    Prompt,
    split_preferences,
    text_of,
)

SPLIT_SEED = 1_000_000
"""Of what is tested, whatever the draw of the examples."""


def words_of(prompt: Prompt) -> str:
    """What makes two prompts the same."""
    return " ".join(text_of(prompt).split())


def split(data: Sequence[Preference], pool: int, wanted: int, study: str) -> tuple[list[Preference], list[Preference]]:
    """A part to draw examples from, and the rest to test on; no prompt is in both."""
    if pool < wanted or pool >= len(data):
        raise ValueError(
            f"study {study!r}: {pool} of {len(data)} preferences are kept for drawing up to {wanted} examples; pool must be "
            "at least that many and leave something to test on"
        )
    # A prompt in two criteria is still one prompt, which the splitting of preferences would not mind dividing.
    plain = [_plain(one, place) for place, one in enumerate(data)]
    parts = split_preferences(
        plain,
        {"pool": pool / len(data), "test": 1 - pool / len(data)},
        seed=SPLIT_SEED,
        stratify=lambda one: (data[one.metadata["place"]].criterion, getattr(one, "label", None)),
    )
    kept, test = ([data[one.metadata["place"]] for one in parts[name]] for name in ("pool", "test"))
    return kept, test


def at_most(
    examples: Sequence[Preference], count: int | None, *, subset: Callable[[Preference], str]
) -> list[Preference]:
    """At most so many of each subset, drawn at random, in the order they came.

    Files may be sorted, so that the first ones are not like the rest. Examples with one prompt in one subset are taken
    or left together: some scores are about all answers to a prompt.

    Raises:
        ValueError: if no prompt has so few examples.
    """
    if count is None:
        return list(examples)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(examples):
        groups.setdefault((subset(one), words_of(one.prompt)), []).append(place)
    left = {name: count for name, _ in groups}
    taken: list[int] = []
    for key in random.Random(SPLIT_SEED).sample(list(groups), len(groups)):
        if len(groups[key]) <= left[key[0]]:
            left[key[0]] -= len(groups[key])
            taken += groups[key]
    if not taken:
        raise ValueError(f"test_items is {count}, fewer than there are examples about any one prompt")
    emptied = sorted({name for name, _ in groups} - {subset(examples[place]) for place in taken})
    if emptied:
        left_out = f"{', '.join(emptied)}: every prompt has more than {count} examples"
        warnings.warn(PreferenceDataWarning(f"nothing is tested of {left_out}"), stacklevel=2)
    return [examples[place] for place in sorted(taken)]


def untested(pool: Sequence[Preference], tested: Sequence[Preference], study: str) -> list[Preference]:
    """The examples about prompts that are not tested; a warning counts the others."""
    prompts = {words_of(one.prompt) for one in tested}
    kept = [one for one in pool if words_of(one.prompt) not in prompts]
    if len(kept) < len(pool):
        left_out = f"{len(pool) - len(kept)} of {len(pool)} examples have a prompt that is tested"
        warnings.warn(PreferenceDataWarning(f"study {study!r}: {left_out}; they are left out"), stacklevel=2)
    return kept


def check_enough(pool: Sequence[Preference], count: int, study: str) -> None:
    """Refuse to draw more than there are, naming the study."""
    if count > len(pool):
        raise ValueError(f"study {study!r} wants {count} examples, but there are {len(pool)} to draw from")


def drawn(pool: Sequence[Preference], count: int, sample: int, study: str) -> list[Preference]:
    """Examples in random order; a smaller count gives the first of the same draw.

    Of single responses, the two labels come in turn as long as there are both: three drawn blindly are often all alike,
    which is nothing to learn from.
    """
    check_enough(pool, count, study)
    rng = random.Random(sample)
    order = rng.sample(list(pool), len(pool))
    if all(isinstance(one, LabelledResponse) for one in order):
        kinds = [[one for one in order if getattr(one, "label", None) is kind] for kind in rng.sample([True, False], 2)]
        order = [one for both in zip_longest(*kinds) for one in both if one is not None]
    return order[:count]


def flipped(examples: Sequence[Preference], noise: float, *, seed: int) -> list[Preference]:
    """The examples, with the labels of a share of them turned round: exactly ``round(noise * n)``, drawn by the seed.

    Those that are turned round at less noise are among those at more. Of single responses, the two labels are turned round
    in turn, beginning with the commoner one, so that of three or more with both labels some of both are left.
    """
    order = random.Random(f"noise {seed}").sample(range(len(examples)), len(examples))
    if all(isinstance(one, LabelledResponse) for one in examples):
        kinds = [
            [place for place in order if getattr(examples[place], "label", None) is kind] for kind in (True, False)
        ]
        both = zip_longest(*sorted(kinds, key=len, reverse=True))
        order = [place for pair in both for place in pair if place is not None]
    which = set(order[: round(noise * len(examples))])
    return [_turned(one) if number in which else one for number, one in enumerate(examples)]


def _turned(one: Preference) -> Preference:
    about: dict[str, Any] = {"criterion": one.criterion, "id": one.id, "metadata": one.metadata}
    if isinstance(one, PreferencePair):
        return PreferencePair(one.prompt, one.rejected, one.chosen, **about)
    return LabelledResponse(one.prompt, one.response, not one.label, **about)


def _plain(one: Preference, place: int) -> Preference:
    """The example without a criterion, and with its place."""
    about: dict[str, Any] = {"metadata": {"place": place}}
    if isinstance(one, PreferencePair):
        return PreferencePair(one.prompt, one.chosen, one.rejected, **about)
    return LabelledResponse(one.prompt, one.response, one.label, **about)
