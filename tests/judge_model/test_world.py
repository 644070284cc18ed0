"""The judge model's world: replies have the attributes they claim, and the two splits share only words."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest

from arm_lens.judge_model import ATTRIBUTES, CRITERIA, World, labelled_responses, preference_pairs
from arm_lens.judge_model.tokenizer import UNKNOWN, build_tokenizer
from arm_lens.judge_model.world import FRAMES, INSULTS, NEGATIVE, PLACES, POSITIVE, SAFE, THANKS, UNSAFE, VERBS

SPLITS = ("train", "test")


def read_off(request, reply):
    """The attributes, computed from the text alone."""
    words = re.findall(r"[a-z]+", reply.lower())
    questions = next(word for word in re.findall(r"[a-z]+", request.lower()) if word in PLACES)
    (about,) = [word for word in words if word in PLACES]
    has = lambda these: any(word in these for word in words)  # noqa: E731
    assert has(POSITIVE) != has(NEGATIVE)
    assert has(SAFE) != has(UNSAFE)
    starts = lambda openings: any(opening in reply for opening in openings)  # noqa: E731
    assert starts(THANKS) != starts(INSULTS)
    return {
        "answers": questions == about,
        "safe": has(SAFE),
        "polite": starts(THANKS),
        "positive": has(POSITIVE),
        "brief": not has(["gate", "wall", "roof", "door", "path", "tree", "clock", "window", "lawn", "fence"]),
        "listed": "\n- " in reply,
        "emphatic": "!" in reply and "." not in reply,
    }


@pytest.mark.parametrize("split", SPLITS)
def test_the_attributes_of_a_reply_can_be_read_off_it(split):
    for item in World(split, 0).items(400):
        assert read_off(item.request, item.reply) == asdict(item.attributes)


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_attributes_are_fair_and_independent_by_default(split):
    import numpy as np

    table = np.array([list(asdict(item.attributes).values()) for item in World(split, 1).items(4000)], dtype=float)
    assert (abs(table.mean(axis=0) - 0.5) < 0.04).all()
    correlations = np.corrcoef(table.T) - np.eye(len(ATTRIBUTES))
    assert (abs(correlations) < 0.06).all()


def test_attributes_can_be_fixed():
    for item in World("test", 0).items(50, {"answers": False, "brief": False}):
        assert not item.attributes.answers
        assert not item.attributes.brief
    with pytest.raises(ValueError, match="'long'"):
        World("test", 0).item({"long": True})


def test_opposite_criteria_are_opposite():
    item = World("train", 0).item()
    assert item.meets("brief") != item.meets("detailed")
    assert len(CRITERIA) >= 8


def test_no_sentence_frame_or_order_is_shared_between_training_and_testing():
    for kind in FRAMES["train"]:
        assert not set(FRAMES["train"][kind]) & set(FRAMES["test"][kind])


@pytest.mark.slow
def test_no_combination_of_words_is_shared_between_training_and_testing():
    def combinations(split):
        found = set()
        for item in World(split, 3).items(3000):
            words = re.findall(r"[a-z]+", item.reply.lower())
            about = next(word for word in words if word in PLACES)
            found |= {(about, word) for word in words if word in POSITIVE + NEGATIVE}
            found |= {(verb, thing) for verb in words if verb in VERBS for thing in words if thing in SAFE + UNSAFE}
            found |= set(re.findall(rf"({'|'.join(THANKS)})( for \w+|, dear)", item.reply))
        return found

    train, test = combinations("train"), combinations("test")
    assert not train & test
    assert len(test) > 100


@pytest.mark.parametrize("split", SPLITS)
def test_the_tokenizer_knows_every_word_of_the_world(split):
    tokenizer = build_tokenizer(512)
    for item in World(split, 2).items(500):
        assert UNKNOWN not in tokenizer.tokenize(f"Request: {item.request}\nReply: {item.reply}\nVerdict: Yes")


def test_the_tokenizer_gives_text_back_in_lower_case():
    tokenizer = build_tokenizer(512)
    assert tokenizer.decode(tokenizer.encode("The garden is warm, really. Thank you!")) == (
        "the garden is warm, really. thank you!"
    )


def test_the_same_seed_writes_the_same_items_for_every_criterion():
    one, two = (labelled_responses(name, 20, split="test", seed=4) for name in ("polite", "answers"))
    assert [(item.prompt, item.response) for item in one] == [(item.prompt, item.response) for item in two]
    assert [item.label for item in one] != [item.label for item in two]


def test_a_pair_shares_its_request_and_differs_in_the_criterion():
    for pair in preference_pairs("emphatic", 20, split="train", seed=0):
        assert "!" in pair.chosen
        assert "!" not in pair.rejected
