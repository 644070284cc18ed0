"""The world of pictures: pixels and replies have the attributes they claim, and the two splits share only words."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import asdict

import numpy as np
import pytest

from arm_lens.judge_model import (
    PICTURE_ATTRIBUTES,
    PICTURE_CRITERION_TEXT,
    PictureWorld,
    labelled_pictures,
    picture_pairs,
)
from arm_lens.judge_model.pictures import COLOURS, FORMS, FRAMES, NUMBERS, SIZE
from arm_lens.judge_model.tokenizer import IMAGE, UNKNOWN, build_tokenizer
from arm_lens.judge_model.world import INSULTS, THANKS
from arm_lens.preferences.images import images_in

SPLITS = ("train", "test")


def colour_of(red, green, blue):
    """From the order and the size of the channels, not from the palette."""
    if max(red, green, blue) < 60:
        return "black"
    if blue < 60 < 150 < green:
        return "yellow" if red > 150 else "green"
    if green > max(red, blue):
        return "green"
    if min(red, blue) > 100:
        return "purple"
    return "red" if red > blue else "blue"


def form_of(shape):
    """From how much of its box a shape fills, and whether it is the same upside down."""
    if (shape != shape[::-1]).any():
        return "triangle"
    return "square" if shape.mean() == 1 else "circle" if shape.mean() > 0.7 else "cross"


def seen_in(pixels):
    """Colours and forms of a picture's connected shapes, found by flood filling what is darker than the background."""
    left = pixels.min(axis=2) < 200
    found = []
    while left.any():
        start = tuple(np.argwhere(left)[0])
        left[start], queue, part = False, deque([start]), []
        while queue:
            y, x = queue.popleft()
            part.append((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if min(near) >= 0 and max(near) < len(left) and left[near]:
                    left[near] = False
                    queue.append(near)
        (top, first), (bottom, last) = np.min(part, axis=0), np.max(part, axis=0)
        shape = np.zeros((bottom - top + 1, last - first + 1), dtype=bool)
        shape[tuple((np.array(part) - [top, first]).T)] = True
        found.append((colour_of(*pixels[start].tolist()), form_of(shape)))
    return found


def said_in(reply):
    """Number, colour and form that a caption names."""
    singular = "|".join(FORMS)
    (said,) = re.findall(rf"({'|'.join(NUMBERS)}) ({'|'.join(COLOURS)}) ({singular})(?:e?s)?\b", reply)
    return NUMBERS.index(said[0]) + 1, said[1:]


@pytest.mark.parametrize("split", SPLITS)
def test_the_attributes_of_a_reply_can_be_read_off_pixels_and_text(split):
    for item in PictureWorld(split, 0).items(150):
        shapes = seen_in(item.pixels)
        assert len(set(shapes)) == 1
        number, kind = said_in(item.reply)
        thanks, insults = (any(one in item.reply for one in some) for some in (THANKS, INSULTS))
        assert thanks != insults
        assert asdict(item.attributes) == {
            "matches": kind == shapes[0], "counted": number == len(shapes), "polite": thanks,
            "emphatic": "!" in item.reply and "." not in item.reply,
        }  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_attributes_are_fair_and_independent_of_each_other_of_the_picture_and_of_the_words(split):
    items = PictureWorld(split, 1).items(3000)
    table = np.array([list(asdict(item.attributes).values()) for item in items], dtype=float)
    pictured = np.array([[item.scene.colour == one for one in COLOURS] for item in items])
    numbers = np.array([[item.scene.number == one for one in range(1, 5)] for item in items])
    said = [said_in(item.reply) for item in items]
    named = np.array([[number == one for one in range(1, 5)] for number, _ in said])
    kinds = np.array(
        [[(kind[0] == colour) for colour in COLOURS] + [kind[1] == form for form in FORMS] for _, kind in said]
    )
    assert (abs(table.mean(axis=0) - 0.5) < 0.04).all()
    correlations = np.corrcoef(np.hstack([table, pictured, numbers, named, kinds]).T)[:4] - np.eye(4, 4 + 24)
    assert (abs(correlations) < 0.08).all()


def test_a_caption_that_does_not_match_differs_in_one_word():
    for item in PictureWorld("test", 2).items(100, {"matches": False, "counted": True}):
        number, (colour, form) = said_in(item.reply)
        assert number == item.scene.number
        assert (colour == item.scene.colour) != (form == item.scene.form)
    with pytest.raises(ValueError, match="'brief'"):
        PictureWorld("test", 0).items(1, {"brief": True})


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_and_number_is_pictured(split):
    scenes = [item.scene for item in PictureWorld(split, 3).items(600)]
    assert len({(scene.colour, scene.form) for scene in scenes}) == len(COLOURS) * len(FORMS)
    assert {scene.number for scene in scenes} == {1, 2, 3, 4}


def test_the_two_splits_share_no_frame_and_no_picture():
    for kind in FRAMES["train"]:
        assert not set(FRAMES["train"][kind]) & set(FRAMES["test"][kind])
    pictures = [{item.pixels.tobytes() for item in PictureWorld(split, 3).items(600)} for split in SPLITS]
    assert not pictures[0] & pictures[1]


def test_the_same_seed_gives_the_same_pictures_for_every_criterion():
    one, two = (labelled_pictures(name, 10, split="test", seed=4) for name in ("polite", "counted"))
    assert [(item.prompt, item.response) for item in one] == [(item.prompt, item.response) for item in two]
    assert [item.label for item in one] != [item.label for item in two]
    assert labelled_pictures("polite", 10, split="test", seed=5)[0].prompt != one[0].prompt


def test_a_pair_shares_its_picture_and_differs_in_the_criterion():
    for pair in picture_pairs("counted", 20, split="train", seed=0):
        [image] = images_in(pair.prompt)
        assert image.size == (SIZE, SIZE)
        shapes = len(seen_in(np.asarray(image.open())))
        assert said_in(pair.chosen)[0] == shapes != said_in(pair.rejected)[0]


def test_the_tokenizer_knows_every_word_and_keeps_the_tokens_of_the_judge_of_texts():
    tokenizer, of_texts = build_tokenizer(512, pictures=True), build_tokenizer(512)
    ids = tokenizer.get_vocab()
    assert {word: ids[word] for word in of_texts.get_vocab()} == of_texts.get_vocab()
    assert IMAGE not in of_texts.get_vocab()
    assert tokenizer.tokenize(f"Request: {IMAGE}{IMAGE}\nTell")[:3] == ["request:", IMAGE, IMAGE]
    assert set(PICTURE_CRITERION_TEXT) == set(PICTURE_ATTRIBUTES)
    texts = [f"{item.request} {item.reply}" for split in SPLITS for item in PictureWorld(split, 2).items(300)]
    for text in [*texts, *PICTURE_CRITERION_TEXT.values()]:
        assert UNKNOWN not in tokenizer.tokenize(text)
