r"""What a head is credited with: accuracy, probability and verdict gap, with one meaning of the sign.

Every measure comes down to a change of the *margin* of an example, the gap between the verdicts' log-probabilities
counted towards the right one,

.. math:: g_i = \log P(\text{right}_i) - \log P(\text{wrong}_i).

From margins follow three outcomes: the ``gap`` itself, the ``probability`` :math:`\sigma(g)` of the right verdict of the
two, and the ``accuracy``, 1 where :math:`g > 0` and one half at a tie. A head's score is always what the outcome gains by
the head (by writing its mean, or by its being there at all), so that positive helps the criterion, whichever the measure
and the outcome. A head that merely leans towards Yes gains nothing on balanced examples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Outcome = Literal["accuracy", "probability", "gap", "search"]
"""``search`` is what a search for heads went by; it belongs to no effect and is compared with each of the others."""
OUTCOMES: tuple[Outcome, ...] = ("accuracy", "probability", "gap")


@runtime_checkable
class Judged(Protocol):
    """Labelled examples that say how well they are judged under a head mask; `JudgingObjective` is one."""

    clusters: list[Hashable]
    """Which examples belong together, so that they count as one for standard errors."""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""
        ...

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def margins(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask"]:
        """Log P(right) - log P(wrong) of each mask on each example."""
        ...


def outcomes_of(margins: Float[Tensor, "*shape"]) -> dict[Outcome, Float[Tensor, "*shape"]]:
    """The three outcomes of margins, in float64, where differences of many terms stay exact."""
    margins = margins.double()
    return {
        "accuracy": (margins > 0).double() + 0.5 * (margins == 0).double(),
        "probability": torch.sigmoid(margins),
        "gap": margins,
    }
