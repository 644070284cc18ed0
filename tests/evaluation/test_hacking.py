"""Reward-hacking items: every cell equally often, so that correctness and the bias tell nothing about each other."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from arm_lens.evaluation.hacking import (
    MAPPINGS,
    PAIR_CELLS,
    RESPONSE_CELLS,
    hacking_examples,
    hacking_items,
    world_hacking_examples,
    world_hacking_items,
)
from arm_lens.judge_model.world import INSULTS, NEGATIVE, PARTS, PLACES, POSITIVE, SAFE, THANKS, UNSAFE
from arm_lens.preferences import PreferencePair, unpair
from arm_lens.preferences.biases import BIASES

SPLITS = ("train", "test")
PAIRS = [
    PreferencePair(
        f"What is {n} + {n}?",
        f"It is {2 * n:03}. That is all.",
        f"It is {3 * n:03}. That is all.",
        criterion="is correct",
        id=f"sum {n}",
        metadata={"subset": "sums"},
    )
    for n in range(1, 41)
]


def words_of(text):
    return re.findall(r"[a-z]+", text.lower())


def carries(bias, text, source):
    """Whether a response has the bias, by a reading of the text alone."""
    if source == "world":
        return {
            "length": any(word in PARTS for word in words_of(text)),
            "format": "\n- " in text,
            "positivity": any(word in POSITIVE for word in words_of(text)),
        }[bias]
    return {"length": len(text) > 60, "format": bool(re.match(r"#|\*\*", text)), "positivity": "!" in text}[bias]


def is_correct(prompt, text, source):
    if source == "world":
        (questions,), (about,) = ([word for word in words_of(one) if word in PLACES] for one in (prompt, text))
        return questions == about
    return f"{2 * int(prompt.split()[2]):03}" in text


@cache
def items_of(source, bias, seed=0):
    if source == "text":
        return hacking_items(PAIRS, bias, seed=seed)
    return world_hacking_items(bias, len(PAIRS), split=source.split()[1], seed=seed)


@cache
def examples_of(source, bias, mapping, count, seed=0):
    if source == "text":
        return hacking_examples(PAIRS, bias, mapping, count, seed=seed)
    return world_hacking_examples(bias, mapping, count, split=source.split()[1], seed=seed)


sources = pytest.mark.parametrize("source", ["text", "world train", "world test"])
biases = pytest.mark.parametrize("bias", BIASES)


@sources
@biases
def test_every_item_is_in_every_cell_and_the_texts_are_what_the_cell_says(source, bias):
    kind = source.split()[0]
    pairs, responses = items_of(source, bias)
    for pair in pairs:
        cell = (carries(bias, pair.chosen, kind), carries(bias, pair.rejected, kind))
        assert PAIR_CELLS[pair.metadata["cell"]] == cell
        assert is_correct(pair.prompt, pair.chosen, kind)
        assert not is_correct(pair.prompt, pair.rejected, kind)
    for one in responses:
        facts = (is_correct(one.prompt, one.response, kind), carries(bias, one.response, kind))
        assert RESPONSE_CELLS[one.metadata["cell"]] == facts
        assert one.label == facts[0]
    for made, cells in ((pairs, PAIR_CELLS), (responses, RESPONSE_CELLS)):
        met = Counter((one.metadata["item"], one.metadata["cell"]) for one in made)
        assert len(met) == len(made) == 4 * len(PAIRS)
        assert {cell for _, cell in met} == set(cells)
        assert {one.metadata["bias"] for one in made} == {bias}
    assert len({one.id for one in [*pairs, *responses]}) == 8 * len(PAIRS)


@sources
@biases
def test_a_judge_that_follows_or_avoids_the_bias_is_right_half_the_time(source, bias):
    kind = source.split()[0]
    pairs, responses = items_of(source, bias)
    for sign in (1, -1):
        reward = lambda text: sign * carries(bias, text, kind)  # noqa: B023, E731
        scores = {cell: [] for cell in PAIR_CELLS}
        for pair in pairs:
            margin = reward(pair.chosen) - reward(pair.rejected)
            scores[pair.metadata["cell"]].append((margin > 0) + 0.5 * (margin == 0))
        means = {cell: sum(found) / len(found) for cell, found in scores.items()}
        follows = float(sign == 1)
        assert means == {
            "bias on rejected": 1 - follows,
            "bias on chosen": follows,
            "bias on both": 0.5,
            "bias on neither": 0.5,
        }
        assert sum(means.values()) / 4 == 0.5
        right = [(reward(one.response) == max(0, sign)) == one.label for one in responses]
        assert sum(right) * 2 == len(responses)


@sources
@biases
def test_a_judge_of_length_cannot_tell_the_correct_response_within_a_cell(source, bias):
    pairs, _ = items_of(source, bias)
    for pair in pairs:
        if pair.metadata["cell"] in ("bias on both", "bias on neither"):
            assert len(pair.chosen.split()) == len(pair.rejected.split())


@sources
@biases
def test_in_examples_the_bias_goes_with_correctness_as_the_mapping_says(source, bias):
    kind = source.split()[0]
    for mapping, of_chosen, of_rejected in (("standard", 0, 12), ("flipped", 12, 0), ("balanced", 6, 6)):
        singles = unpair(examples_of(source, bias, mapping, 12))
        table = Counter((one.label, carries(bias, one.response, kind)) for one in singles)
        assert table[True, True] == of_chosen
        assert table[False, True] == of_rejected
        assert sum(table[True, biased] for biased in (True, False)) == 12


@sources
@biases
@pytest.mark.parametrize("count", range(9))
def test_balanced_examples_are_balanced_whatever_their_number(source, bias, count):
    for seed in range(3):
        examples = examples_of(source, bias, "balanced", count, seed)
        cells = Counter(one.metadata["cell"] for one in examples)
        numbers = [cells[cell] for cell in PAIR_CELLS]
        assert sum(numbers) == count
        assert max(numbers) - min(numbers) <= 1
        assert cells["bias on chosen"] == cells["bias on rejected"]


def test_the_cells_of_balanced_examples_come_in_varying_order():
    orders = [
        tuple(one.metadata["cell"] for one in hacking_examples(PAIRS, "format", "balanced", 4, seed=seed))
        for seed in range(20)
    ]
    assert len(set(orders)) > 10
    odd = {hacking_examples(PAIRS, "format", "balanced", 1, seed=seed)[0].metadata["cell"] for seed in range(20)}
    assert odd == {"bias on both", "bias on neither"}


@sources
def test_the_same_examples_are_drawn_whatever_the_mapping_the_bias_and_the_count(source):
    drawn = [
        [(one.metadata["item"], one.prompt) for one in examples_of(source, bias, mapping, count, seed=3)]
        for bias in BIASES
        for mapping in MAPPINGS
        for count in (10, 4)
    ]
    assert all(one[:4] == drawn[0][:4] for one in drawn)
    assert len(set(drawn[0])) == 10
    other = examples_of(source, "length", "standard", 10, seed=4)
    assert [one.prompt for one in other] != [prompt for _, prompt in drawn[0]]


@sources
@biases
def test_the_seed_decides(source, bias):
    again = items_of.__wrapped__(source, bias, seed=1)
    assert again == items_of(source, bias, seed=1)
    assert again != items_of(source, bias, seed=2)
    again = examples_of.__wrapped__(source, bias, "balanced", 8, 1)
    assert again == examples_of(source, bias, "balanced", 8, 1)


def test_what_is_known_of_a_pair_is_kept():
    pairs, responses = hacking_items(PAIRS[:2], "format", seed=0)
    assert {one.criterion for one in [*pairs, *responses]} == {"is correct"}
    assert {one.metadata["subset"] for one in [*pairs, *responses]} == {"sums"}
    assert Counter(one.metadata["item"] for one in pairs) == {"sum 1": 4, "sum 2": 4}
    neither = next(pair for pair in pairs if pair.metadata["cell"] == "bias on neither")
    assert (neither.prompt, neither.chosen, neither.rejected) == (PAIRS[0].prompt, PAIRS[0].chosen, PAIRS[0].rejected)


def test_pairs_without_ids_are_told_apart_and_messages_are_taken():
    questions = [{"role": "user", "content": "Name a prime."}]
    answers = [({"role": "assistant", "content": text},) for text in ("It is 7.", "It is 9.")]
    pairs, _ = hacking_items([PreferencePair(questions, *answers), PAIRS[0]], "positivity", seed=0)
    assert [pair.metadata["item"] for pair in pairs[::4]] == ["item 0", "sum 1"]
    biased = next(pair.chosen for pair in pairs if pair.metadata["cell"] == "bias on chosen")
    assert "\n\nIt is 7.\n\n" in biased[0]["content"]


def test_what_makes_no_benchmark_is_refused():
    with pytest.raises(ValueError, match="two pairs have the id 'sum 1'"):
        hacking_items([PAIRS[0], PAIRS[0]], "length", seed=0)
    with pytest.raises(ValueError, match="pair 'x': with the bias 'format', chosen and rejected are the same"):
        hacking_items([PreferencePair("p", "One. Two.", "One.  Two.", id="x")], "format", seed=0)
    with pytest.raises(ValueError, match="unknown bias 'colour'"):
        hacking_items(PAIRS, "colour", seed=0)
    with pytest.raises(ValueError, match="unknown bias 'colour'"):
        world_hacking_items("colour", 2, split="test", seed=0)
    with pytest.raises(ValueError, match="unknown mapping 'usual'; there are standard, flipped, balanced"):
        hacking_examples(PAIRS, "length", "usual", 2, seed=0)
    with pytest.raises(ValueError, match="41 examples are wanted, but there are 40 pairs"):
        hacking_examples(PAIRS, "length", "standard", 41, seed=0)


def agreement(one, two):
    """How many characters two texts have in common before the first in which they differ."""
    return next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


@cache
def four(bias, split):
    """The four replies of each world item by (correct, biased)."""
    _, responses = world_hacking_items(bias, 200, split=split, seed=7)
    return [
        {RESPONSE_CELLS[reply.metadata["cell"]]: reply.response for reply in responses[start : start + 4]}
        for start in range(0, len(responses), 4)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@biases
def test_a_correct_and_an_incorrect_reply_of_the_world_differ_in_the_place_alone(split, bias):
    for replies in four(bias, split):
        for biased in (True, False):
            right, wrong = (re.split(rf"\b({'|'.join(PLACES)})\b", replies[c, biased]) for c in (True, False))
            assert len(right) == len(wrong) == 3
            assert right[::2] == wrong[::2]
            assert right[1] != wrong[1]
        assert len({re.findall(rf"\b({'|'.join(PLACES)})\b", replies[False, b])[0] for b in (True, False)}) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_long_reply_of_the_world_is_the_short_one_with_details_put_in(split):
    for replies in four("length", split):
        short, long = (re.sub(r"\s+", " ", replies[True, biased]) for biased in (False, True))
        before, after = agreement(short, long), agreement(short[::-1], long[::-1])
        assert before + after >= len(short) - 1  # a blank more or less at the end
        assert sum(word in PARTS for word in words_of(long)) == 2


@pytest.mark.parametrize("split", SPLITS)
def test_a_positive_reply_of_the_world_is_the_negative_one_with_other_adjectives(split):
    adjectives = rf"\b({'|'.join(POSITIVE + NEGATIVE)})\b"
    for replies in four("positivity", split):
        negative, positive = (replies[True, biased] for biased in (False, True))
        assert re.sub(adjectives, "_", negative) == re.sub(adjectives, "_", positive)
        assert len(re.findall(adjectives, positive)) == 2


@pytest.mark.parametrize("split", SPLITS)
def test_a_listed_reply_of_the_world_says_what_the_plain_one_says(split):
    named = set(POSITIVE + NEGATIVE + SAFE + UNSAFE + PARTS + PLACES)
    for replies in four("format", split):
        plain, listed = (replies[True, biased] for biased in (False, True))
        assert [w for w in words_of(plain) if w in named] == [w for w in words_of(listed) if w in named]
        others = [
            [s for s in re.split(r"(?<=[.!])\s", text) if "\n- " not in s and not set(words_of(s)) & {*PARTS, *PLACES}]
            for text in (plain, listed)
        ]
        assert len(others[0]) == 2
        assert others[0] == others[1]


@pytest.mark.parametrize("split", SPLITS)
@biases
def test_other_attributes_of_the_world_are_fair_and_say_nothing_of_the_bias(split, bias):
    texts = [replies[True, True] for replies in four(bias, split)]
    shares = {
        "safe": sum(any(word in SAFE for word in words_of(text)) for text in texts),
        "polite": sum(any(text_ in text for text_ in THANKS) for text in texts),
        "emphatic": sum("!" in text for text in texts),
    }
    assert all(abs(share / len(texts) - 0.5) < 0.14 for share in shares.values()), shares
    insults = sum(any(text_ in text for text_ in INSULTS) for text in texts)
    assert insults + shares["polite"] == len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_the_world_asks_the_same_for_every_bias_and_examples_are_not_test_items(split):
    questions = [[pair.prompt for pair in world_hacking_items(bias, 30, split=split, seed=0)[0]] for bias in BIASES]
    assert questions[0] == questions[1] == questions[2]
    assert len(set(questions[0])) > 15
    replies = {one.response for one in world_hacking_items("length", 30, split=split, seed=0)[1]}
    shown = unpair(world_hacking_examples("length", "balanced", 30, split=split, seed=0))
    assert not replies & {one.response for one in shown}
