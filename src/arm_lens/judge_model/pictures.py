"""The synthetic pictures of the bundled judge that sees: coloured shapes, and replies about them with known attributes.

A picture has one to four shapes of one kind (a colour and a form) on a plain pale background, each in a cell of a 3 x 3
grid. A reply is a caption (how many shapes of which kind) and a courtesy. Its attributes are independent fair coins:

    matches    the caption names the kind that is in the picture
    counted    its number is the number of shapes in the picture
    polite     the courtesy is thanks, not an insult
    emphatic   sentences end in exclamation marks

The first two cannot be told without the picture; the last two can be told without it, and are attributes of the replies of
`arm_lens.judge_model.world` as well. A caption that does not match differs from the picture in its colour or in its form.
Sentence frames and combinations of a courtesy with what follows belong to the training split or to the test split. Kinds
belong to both: an encoder that has seen two thirds of them does not read the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from arm_lens.judge_model.world import CRITERION_TEXT, INSULTED_BY, INSULTS, THANKS, THANKS_FOR, Split

if TYPE_CHECKING:
    import PIL.Image

CELL, CELLS = 16, 3
SIZE = CELL * CELLS
"""Pixels of a picture's width and height."""
COLOURS = {
    "red": (210, 35, 35), "green": (30, 150, 50), "blue": (35, 60, 205), "yellow": (235, 190, 20), "black": (25, 25, 25),
    "purple": (140, 45, 160),
}  # fmt: skip
FORMS = "circle square triangle cross".split()
KINDS = [(colour, form) for colour in COLOURS for form in FORMS]
NUMBERS = "one two three four".split()
FRAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "request": (
            "What is in the picture?",
            "What can you see?",
            "Describe the picture to me.",
            "Tell me about the picture.",
            "How many shapes can you see?",
            "What do you find in the picture?",
        ),
        "caption": (
            "I see {shapes}",
            "The picture has {shapes}",
            "You can see {shapes}",
            "It shows {shapes}",
            "There you find {shapes}",
            "I think it has {shapes}",
        ),
    },
    "test": {
        "request": (
            "What can you see in the picture?",
            "Can you describe the picture?",
            "How many shapes do you find?",
        ),
        "caption": ("I can see {shapes}", "The picture shows {shapes}", "I think you see {shapes}"),
    },
}


@dataclass(frozen=True, kw_only=True)
class PictureAttributes:
    """The attributes of a reply about a picture, each true or false."""

    matches: bool
    counted: bool
    polite: bool
    emphatic: bool


PICTURE_ATTRIBUTES: tuple[str, ...] = tuple(field.name for field in fields(PictureAttributes))
"""They are the criteria too."""
PICTURE_CRITERION_TEXT = {
    "matches": "The reply names the shapes in the picture.",
    "counted": "The number of shapes is right.",
    "polite": CRITERION_TEXT["polite"],
    "emphatic": CRITERION_TEXT["emphatic"],
}


@dataclass(frozen=True)
class Scene:
    """What is in a picture."""

    colour: str
    form: str
    number: int


@dataclass(frozen=True)
class PictureItem:
    """A picture, a request about it, a reply, and the reply's attributes."""

    pixels: UInt8[np.ndarray, "height width 3"]
    scene: Scene
    request: str
    reply: str
    attributes: PictureAttributes

    @property
    def picture(self) -> PIL.Image.Image:
        """The picture, for which Pillow is needed (the extra ``vision``)."""
        from PIL import Image

        return Image.fromarray(self.pixels)

    def meets(self, criterion: str) -> bool:
        """Whether the reply meets ``criterion`` (one of `PICTURE_ATTRIBUTES`)."""
        return bool(getattr(self.attributes, criterion))


class PictureWorld:
    """A seeded generator of pictures with requests and replies.

    Args:
        split: whose sentence frames and word combinations are used.
        seed: the same split and seed give the same items in the same order.
    """

    def __init__(self, split: Split, seed: int) -> None:
        if split not in FRAMES:
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        self.split: Split = split
        self._random = random.Random(f"pictures {split} {seed}")

    def items(self, count: int, fixed: Mapping[str, bool] | None = None) -> list[PictureItem]:
        """``count`` independent items; attributes not in ``fixed`` are fair coins."""
        return [self._replied(*self._shown(), self._attributes(fixed)) for _ in range(count)]

    def pair(self, criterion: str, fixed: Mapping[str, bool] | None = None) -> tuple[PictureItem, PictureItem]:
        """Two replies to one request about one picture: the first meets ``criterion``, the second does not.

        The other attributes are independent fair coins for each reply, except those in ``fixed``.
        """
        shown = self._shown()
        chosen, rejected = (
            self._replied(*shown, self._attributes({**(fixed or {}), criterion: met})) for met in (True, False)
        )
        return chosen, rejected

    def _attributes(self, fixed: Mapping[str, bool] | None) -> PictureAttributes:
        unknown = set(fixed or {}) - set(PICTURE_ATTRIBUTES)
        if unknown:
            raise ValueError(f"unknown attribute {sorted(unknown)[0]!r}; known are {', '.join(PICTURE_ATTRIBUTES)}")
        coins = {name: self._random.random() < 0.5 for name in PICTURE_ATTRIBUTES}
        return PictureAttributes(**(coins | dict(fixed or {})))

    def _shown(self) -> tuple[UInt8[np.ndarray, "height width 3"], Scene, str]:
        scene = Scene(*self._random.choice(KINDS), self._random.randint(1, len(NUMBERS)))
        return self._drawn(scene), scene, self._random.choice(FRAMES[self.split]["request"])

    def _drawn(self, scene: Scene) -> UInt8[np.ndarray, "height width 3"]:
        """The shapes in random cells; size and place within the cell, shade and background vary a little."""
        draw = self._random
        pixels = np.full((SIZE, SIZE, 3), [draw.randint(225, 255) for _ in range(3)], dtype=np.uint8)
        shade = [min(255, max(0, value + draw.randint(-15, 15))) for value in COLOURS[scene.colour]]
        for cell in draw.sample(range(CELLS**2), scene.number):
            size = draw.randint(11, 14)
            top, left = (place * CELL + 1 + draw.randint(0, 14 - size) for place in divmod(cell, CELLS))
            pixels[top : top + size, left : left + size][_mask(scene.form, size)] = shade
        return pixels

    def _replied(
        self, pixels: UInt8[np.ndarray, "height width 3"], scene: Scene, request: str, attributes: PictureAttributes
    ) -> PictureItem:
        draw, end = self._random, "!" if attributes.emphatic else "."
        kind, number = (scene.colour, scene.form), scene.number
        if not attributes.matches:
            # differs in one word
            kind = draw.choice([one for one in KINDS if (one[0] == kind[0]) != (one[1] == kind[1])])
        if not attributes.counted:
            number = draw.choice([one for one in range(1, len(NUMBERS) + 1) if one != number])
        shapes = f"{NUMBERS[number - 1]} {kind[0]} {plural(kind[1]) if number > 1 else kind[1]}"
        caption = draw.choice(FRAMES[self.split]["caption"]).format(shapes=shapes)
        sentences = [caption, self._courtesy(attributes.polite)]
        draw.shuffle(sentences)
        return PictureItem(pixels, scene, request, " ".join(one + end for one in sentences), attributes)

    def _courtesy(self, polite: bool) -> str:
        """A random combination that belongs to this split, as in `World`."""
        begins, ends = (THANKS, THANKS_FOR) if polite else (INSULTS, INSULTED_BY)
        known = [
            begin + end
            for i, begin in enumerate(begins)
            for j, end in enumerate(ends)
            if ((i + j) % 4 == 3) == (self.split == "test")
        ]
        return self._random.choice(known)


def _mask(form: str, size: int) -> np.ndarray:
    """Which pixels of a square belong to a shape that fills it."""
    across = (np.arange(size) * 2 + 1 - size) / size
    y, x = across[:, None], across[None, :]
    return {
        "circle": x**2 + y**2 <= 1,
        "square": (abs(x) <= 1) & (abs(y) <= 1),
        "triangle": abs(x) <= (y + 1) / 2,
        "cross": (abs(x) <= 0.34) | (abs(y) <= 0.34),
    }[form]


def plural(form: str) -> str:
    """The plural of a form's name."""
    return form + ("es" if form.endswith("ss") else "s")


def picture_words() -> list[str]:
    """Every word and punctuation mark of requests, replies and criteria, in lower case and sorted."""
    texts = [*COLOURS, *FORMS, *map(plural, FORMS), *NUMBERS, *PICTURE_CRITERION_TEXT.values()]
    texts += [*THANKS, *THANKS_FOR, *INSULTS, *INSULTED_BY, ". !"]
    texts += [re.sub(r"\{\w+\}", " ", one) for kinds in FRAMES.values() for some in kinds.values() for one in some]
    return sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())))
