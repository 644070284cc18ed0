"""The bundled judge model, a small transformer that infers a criterion from examples, and the world it was trained on.

`arm_lens.load_model()` loads the weights. `World` generates the training data, and also labelled preferences with known
attributes for examples and tests. ``scripts/train_judge_model.py`` trains the model from scratch. `PictureWorld` and the
functions of its items do the same for the judge that sees, which ``scripts/train_image_judge.py`` trains.
"""

from __future__ import annotations

from collections.abc import Mapping

from arm_lens.judge_model.pictures import (
    PICTURE_ATTRIBUTES,
    PICTURE_CRITERION_TEXT,
    PictureAttributes,
    PictureItem,
    PictureWorld,
)
from arm_lens.judge_model.world import ATTRIBUTES, CRITERIA, CRITERION_TEXT, Attributes, Item, Split, World
from arm_lens.preferences import LabelledResponse, PreferencePair
from arm_lens.preferences.images import as_image

__all__ = [
    "ATTRIBUTES",
    "CRITERIA",
    "CRITERION_TEXT",
    "PICTURE_ATTRIBUTES",
    "PICTURE_CRITERION_TEXT",
    "Attributes",
    "Item",
    "PictureAttributes",
    "PictureItem",
    "PictureWorld",
    "World",
    "labelled_pictures",
    "labelled_responses",
    "picture_pairs",
    "preference_pairs",
]


def labelled_responses(
    criterion: str, count: int, *, split: Split, seed: int, fixed: Mapping[str, bool] | None = None
) -> list[LabelledResponse]:
    """Replies labelled by whether they meet a criterion; every attribute not in ``fixed`` is a fair coin.

    The same split and seed give the same requests and replies for every criterion.
    """
    return [
        LabelledResponse(
            item.request, item.reply, item.meets(criterion), criterion=criterion, id=f"{split} {seed}/{number}"
        )
        for number, item in enumerate(World(split, seed).items(count, fixed))
    ]


def preference_pairs(
    criterion: str, count: int, *, split: Split, seed: int, fixed: Mapping[str, bool] | None = None
) -> list[PreferencePair]:
    """Pairs of replies to one request: the chosen reply meets the criterion, the rejected one does not."""
    world = World(split, seed)
    pairs = [world.pair(criterion, fixed) for _ in range(count)]
    return [
        PreferencePair(chosen.request, chosen.reply, rejected.reply, criterion=criterion, id=f"{split} {seed}/{number}")
        for number, (chosen, rejected) in enumerate(pairs)
    ]


def labelled_pictures(
    criterion: str, count: int, *, split: Split, seed: int, fixed: Mapping[str, bool] | None = None
) -> list[LabelledResponse]:
    """As `labelled_responses`, about pictures; ``criterion`` is one of `PICTURE_ATTRIBUTES`."""
    return [
        LabelledResponse(
            _picture_prompt(item), item.reply, item.meets(criterion), criterion=criterion, id=f"{split} {seed}/{number}"
        )
        for number, item in enumerate(PictureWorld(split, seed).items(count, fixed))
    ]


def picture_pairs(
    criterion: str, count: int, *, split: Split, seed: int, fixed: Mapping[str, bool] | None = None
) -> list[PreferencePair]:
    """As `preference_pairs`, about pictures: two replies to one request about one picture."""
    world = PictureWorld(split, seed)
    pairs = [world.pair(criterion, fixed) for _ in range(count)]
    return [
        PreferencePair(
            _picture_prompt(chosen), chosen.reply, rejected.reply, criterion=criterion, id=f"{split} {seed}/{number}"
        )
        for number, (chosen, rejected) in enumerate(pairs)
    ]


def _picture_prompt(item: PictureItem) -> str:
    return f"{as_image(item.picture, field='prompt').mark}\n{item.request}"
