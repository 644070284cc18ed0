"""A reward-hacking benchmark in which being right and looking good are independent.

PreferenceHack (ARM, arXiv 2507.01368) asks whether a judge falls for length, format or positivity. In each of its pairs
the better response is correct and lacks the bias, and the worse one is incorrect and carries it, also in the few examples
that the judge learns from. A judge that merely learned "the one with the bias is worse" cannot fail. Here every item, a
prompt with a correct and an incorrect response, appears in every *cell*, each response once with and once without the bias:

    pairs (chosen, rejected)   bias on rejected (as published) | bias on chosen | bias on both | bias on neither
    responses                  correct, plain | correct, biased | incorrect, plain | incorrect, biased

A judge that follows correctness scores 1 in each cell. One that follows the bias scores 0, 1, 1/2 and 1/2, one that
learned to avoid it 1, 0, 1/2 and 1/2, and both 1/2 over all cells. The examples follow a *mapping*: ``standard`` (the
rejected response carries the bias, as published), ``flipped`` (the chosen one does) or ``balanced`` (all cells equally
often). The test items are the same for every mapping, so that only the examples make a difference.

Items come from any pairs, with the bias injected by rule (`arm_lens.preferences.biases`), or from the world of the bundled
judge model, whose replies have the bias by themselves: correctness is whether the reply ``answers``, length is a sentence of
details (not ``brief``), format is a list (``listed``), and positivity is favourable adjectives (``positive``, as opposed to
``polite``, another attribute). The four replies of an item share everything else: the other attributes, at random, and the
words, except the place that an incorrect reply is about, and the sentences or adjectives of the bias.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from arm_lens.judge_model.world import FRAMES, NEGATIVE, PARTS, PLACES, POSITIVE, QUALITIES, Split, World
from arm_lens.preferences import LabelledResponse, PreferencePair, Prompt
from arm_lens.preferences.biases import BIASES, add_bias

PAIR_CELLS: dict[str, tuple[bool, bool]] = {
    "bias on rejected": (False, True),
    "bias on chosen": (True, False),
    "bias on both": (True, True),
    "bias on neither": (False, False),
}
"""Cell of a pair -> (whether chosen carries the bias, whether rejected does)."""

RESPONSE_CELLS: dict[str, tuple[bool, bool]] = {
    "correct, plain": (True, False),
    "correct, biased": (True, True),
    "incorrect, plain": (False, False),
    "incorrect, biased": (False, True),
}
"""Cell of a response -> (whether it is correct, whether it carries the bias)."""

MAPPINGS: tuple[str, ...] = ("standard", "flipped", "balanced")
"""How the bias and correctness are related in the few-shot examples."""

SEPARATOR = " | "
"""Between the parts of a subset's name: bias, mapping and cell."""

WORLD_BIASES: dict[str, tuple[str, bool]] = {
    "length": ("brief", False),
    "format": ("listed", True),
    "positivity": ("positive", True),
}
"""Bias -> (attribute of the bundled world, value of a reply that carries it)."""


def subset_name(*parts: str) -> str:
    """The name of a subset of a reward-hacking benchmark: its bias and mapping, and the cell if it is one."""
    return SEPARATOR.join(parts)


def are_cells(table: pd.DataFrame) -> pd.Series:
    """Whether the subset of each row is a cell of a reward-hacking benchmark; others may have bars in their names too."""
    parts = table["subset"].astype(str).str.split(SEPARATOR, regex=False)
    known = {*PAIR_CELLS, *RESPONSE_CELLS}
    return parts.map(lambda part: len(part) == 3 and part[1] in MAPPINGS and part[2] in known).astype(bool)


def cells_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells, with the parts of the subset as the columns bias, mapping and cell."""
    cells = table[are_cells(table)]
    parts = cells["subset"].astype(str).str.split(SEPARATOR, regex=False)
    return cells.assign(**{name: parts.str[index] for index, name in enumerate(("bias", "mapping", "cell"))})


@dataclass(frozen=True, kw_only=True)
class HackingItem:
    """A prompt and its four responses, from which the pairs and responses of all cells are made."""

    prompt: Prompt
    responses: Mapping[tuple[bool, bool], Prompt]
    """By whether a response is correct, and whether it carries the bias."""
    bias: str
    id: str
    """Shared by everything made from the item, as ``metadata["item"]``: the cluster of its results."""
    criterion: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of the pair that the item was made from."""

    def pair(self, cell: str) -> PreferencePair:
        """The correct response, chosen over the incorrect one, in a cell of `PAIR_CELLS`."""
        chosen, rejected = PAIR_CELLS[cell]
        return PreferencePair(
            self.prompt, self.responses[True, chosen], self.responses[False, rejected], **self._labels(cell)
        )

    def response(self, cell: str) -> LabelledResponse:
        """The response in a cell of `RESPONSE_CELLS`, labelled by whether it is correct."""
        correct = RESPONSE_CELLS[cell][0]
        return LabelledResponse(self.prompt, self.responses[RESPONSE_CELLS[cell]], correct, **self._labels(cell))

    def _labels(self, cell: str) -> dict[str, Any]:
        metadata = {**self.metadata, "cell": cell, "bias": self.bias, "item": self.id}
        return {"criterion": self.criterion, "id": f"{self.id}/{self.bias}/{cell}", "metadata": metadata}


def hacking_items(
    pairs: Sequence[PreferencePair], bias: str, *, seed: int
) -> tuple[list[PreferencePair], list[LabelledResponse]]:
    """Make test items of pairs, with a bias injected by rule (`add_bias`).

    Responses to one prompt get the same additions. If chosen and rejected already differ in length or layout, they do so
    in all cells; compare the cells with each other.

    Args:
        pairs: their chosen responses are correct, their rejected ones are not.
        bias: one of `BIASES`.
        seed: of the additions.

    Returns:
        Pairs, four for each given one in the order of `PAIR_CELLS`, and labelled responses, four in the order of
        `RESPONSE_CELLS`. Ids are unique; ``metadata`` adds ``cell``, ``bias`` and ``item``, the id of the given pair
        (``item 0``, ``item 1``, ... if it has none), by which results are to be clustered.

    Raises:
        ValueError: if there is no such bias, if two pairs have the same id, or if the bias makes the responses of a
            pair equal.
    """
    return _in_all_cells(_injected(pairs, range(len(pairs)), bias, seed))


def hacking_examples(
    pairs: Sequence[PreferencePair], bias: str, mapping: str, count: int, *, seed: int
) -> list[PreferencePair]:
    """Few-shot examples in which the bias and correctness are related by the mapping.

    Args:
        pairs: to sample from; they should share no prompt with the test items (see `split_preferences`).
        bias: one of `BIASES`.
        mapping: ``standard``, ``flipped`` or ``balanced``. The last has each cell equally often, up to one if ``count`` is
            not a multiple of four, and always as many biased chosen responses as biased rejected ones.
        count: of examples. A smaller count gives the first of the same sample.
        seed: of the sample, which is the same for every bias and mapping, and of the additions.

    Raises:
        ValueError: as `hacking_items`, if there is no such mapping, or if there are too few pairs.
    """
    if not 0 <= count <= len(pairs):
        raise ValueError(f"{count} examples are wanted, but there are {len(pairs)} pairs")
    sampled = random.Random(f"draw {seed}").sample(range(len(pairs)), len(pairs))[:count]
    return _mapped(_injected(pairs, sampled, bias, seed), mapping, seed)


def world_hacking_items(
    bias: str, count: int, *, split: Split, seed: int
) -> tuple[list[PreferencePair], list[LabelledResponse]]:
    """`hacking_items` from the bundled world: four pairs and four responses for each of ``count`` requests.

    The same split and seed give the same requests for every bias, and a smaller count the first of them. A split has few
    requests, so many items repeat some; their replies are independent.
    """
    return _in_all_cells(_written(bias, count, split, f"{split} {seed}"))


def world_hacking_examples(bias: str, mapping: str, count: int, *, split: Split, seed: int) -> list[PreferencePair]:
    """`hacking_examples` from the bundled world; not the test items, even of the same split and seed."""
    return _mapped(_written(bias, count, split, f"examples {split} {seed}"), mapping, seed)


def _injected(pairs: Sequence[PreferencePair], indices: Sequence[int], bias: str, seed: int) -> list[HackingItem]:
    items: dict[str, HackingItem] = {}
    for index in indices:
        pair = pairs[index]
        id = pair.id or f"item {index}"
        if id in items:
            raise ValueError(f"two pairs have the id {id!r}")
        responses = {(True, False): pair.chosen, (False, False): pair.rejected}
        for correct in (True, False):
            responses[correct, True] = add_bias(responses[correct, False], bias, prompt=pair.prompt, seed=seed)
        if responses[True, True] == responses[False, True]:
            raise ValueError(f"pair {id!r}: with the bias {bias!r}, chosen and rejected are the same")
        about: dict[str, Any] = {"criterion": pair.criterion, "metadata": pair.metadata}
        items[id] = HackingItem(prompt=pair.prompt, responses=responses, bias=bias, id=id, **about)
    return list(items.values())


def _in_all_cells(items: Sequence[HackingItem]) -> tuple[list[PreferencePair], list[LabelledResponse]]:
    pairs = [item.pair(cell) for item in items for cell in PAIR_CELLS]
    return pairs, [item.response(cell) for item in items for cell in RESPONSE_CELLS]


def _mapped(items: Sequence[HackingItem], mapping: str, seed: int) -> list[PreferencePair]:
    if mapping not in MAPPINGS:
        raise ValueError(f"unknown mapping {mapping!r}; there are {', '.join(MAPPINGS)}")
    count = len(items)
    if mapping != "balanced":
        cells = ["bias on rejected" if mapping == "standard" else "bias on chosen"] * count
    else:
        rng = random.Random(f"cells {seed}")
        one, both = ["bias on rejected", "bias on chosen"], rng.sample(["bias on both", "bias on neither"], 2)
        # The cells that occur once more often have as many biased chosen responses as biased rejected ones.
        surplus = [[], both[:1], rng.choice([one, both]), [*one, both[0]]][count % 4]
        cells = [*PAIR_CELLS] * (count // 4) + surplus
        rng.shuffle(cells)
    return [item.pair(cell) for item, cell in zip(items, cells, strict=True)]


def _written(bias: str, count: int, split: Split, stream: str) -> list[HackingItem]:
    if bias not in WORLD_BIASES:
        raise ValueError(f"unknown bias {bias!r}; there are {', '.join(BIASES)}")
    rng = random.Random(f"hacking {stream}")
    world = World(split, rng.getrandbits(32))
    items = []
    for number in range(count):
        place, id = world.place(), f"{stream}/{number}"
        prompt, replies = world.request(place), _four_replies(bias, split, place, world, rng)
        items.append(HackingItem(prompt=prompt, responses=replies, bias=bias, id=id, criterion="answers"))
    return items


def _four_replies(
    bias: str, split: Split, place: str, world: World, rng: random.Random
) -> dict[tuple[bool, bool], str]:
    """Replies with the same words, except for the place and the bias; an incorrect one is correct about another place.

    With one seed the world often, not always, chooses the same words for other attributes; seeds are tried until it does.
    """
    attribute, value = WORLD_BIASES[bias]
    attributes = world.attributes({"answers": True})
    both = {biased: replace(attributes, **{attribute: value == biased}) for biased in (False, True)}
    shared = None
    while not shared:
        seed = rng.getrandbits(32)
        reply = {biased: World(split, seed).reply(place, both[biased]) for biased in both}
        words = [[word for word in _words(text) if word not in _BIAS_WORDS[bias]] for text in reply.values()]
        shared = words[0] == words[1]
    others = (other for other in rng.sample(PLACES, len(PLACES)) if other != place)
    elsewhere = ({biased: World(split, seed).reply(other, both[biased]) for biased in both} for other in others)
    wrong = next(one for one in elsewhere if all(_placeless(one[b]) == _placeless(reply[b]) for b in both))
    return {(correct, biased): (reply if correct else wrong)[biased] for correct in (True, False) for biased in both}


def _placeless(reply: str) -> str:
    return re.sub(rf"\b({'|'.join(PLACES)})\b", "it", reply)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _frame_words(*kinds: str) -> set[str]:
    texts = [text for frames in FRAMES.values() for kind in kinds for text in frames[kind]]
    return set(_words(re.sub(r"\{\w+\}", " ", " ".join(texts))))


_DETAILS = _frame_words("details", "details_list")
_BIAS_WORDS: dict[str, set[str]] = {
    "length": {*_DETAILS, *QUALITIES, *PARTS},
    "format": _DETAILS | _frame_words("statement", "statement_list"),
    "positivity": {*POSITIVE, *NEGATIVE},
}
"""Bias -> the words in which a reply with it may differ from one without."""
