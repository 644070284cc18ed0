"""The bundled judge model, a small transformer that infers a criterion from examples, and the world it was trained on.

`arm_lens.load_model()` loads the weights. `World` generates the training data, and also labelled preferences with known
attributes for examples and tests. ``scripts/train_judge_model.py`` trains the model from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping

from arm_lens.judge_model.world import (
    ATTRIBUTES,
    CRITERIA,
    CRITERION_TEXT,
    Attributes,
    Item,
    Split,
    World,
)
from arm_lens.preferences import LabelledResponse, PreferencePair

__all__ = [
    "ATTRIBUTES",
    "CRITERIA",
    "CRITERION_TEXT",
    "Attributes",
    "Item",
    "World",
    "labelled_responses",
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
