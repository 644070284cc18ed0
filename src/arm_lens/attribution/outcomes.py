r"""What a head is credited with: accuracy, probability and verdict gap, with one meaning of the sign.

Every measure is a change of the *margin* of an example, the gap between the log-probabilities of the verdicts, counted
towards the right one,

.. math:: g_i = \log P(\text{right}_i) - \log P(\text{wrong}_i).

Margins give three outcomes: the ``gap`` itself, the ``probability`` :math:`\sigma(g)` of the right verdict of the two, and
the ``accuracy``, 1 if :math:`g > 0` and one half at a tie. The score of a head is always what the outcome gains by the head
(because its mean is written, or because the head is there at all), so that positive helps the criterion, for every
measure and outcome. A head that merely leans towards Yes gains nothing on balanced examples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.verdict_tokens import VerdictTokens

Outcome = Literal["accuracy", "probability", "gap", "search"]
"""``search`` is what a search for heads went by. It is not an effect, and is compared with each of the other outcomes."""
OUTCOMES: tuple[Outcome, ...] = ("accuracy", "probability", "gap")


@runtime_checkable
class Judged(Protocol):
    """Labelled examples with their margins under any head mask; `JudgingObjective` is one."""

    clusters: list[Hashable]
    """Which examples belong together, so that they count as one for standard errors."""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""

    def __len__(self) -> int:
        """How many examples there are."""

    def margins(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask"]:
        """Log P(right) - log P(wrong) of each mask on each example."""


def criterion_of(objective: Judged, criterion: str) -> str:
    """The name of the criterion: the given one, or else that of the examples, if they have one."""
    return criterion or str(getattr(objective, "criterion", ""))


def outcomes_of(margins: Float[Tensor, "*shape"]) -> dict[Outcome, Float[Tensor, "*shape"]]:
    """The three outcomes of margins, in float64, where differences of many terms stay exact."""
    margins = margins.double()
    return {
        "accuracy": (margins > 0).double() + 0.5 * (margins == 0).double(),
        "probability": torch.sigmoid(margins),
        "gap": margins,
    }


def gains(
    without: Float[Tensor, "*#shape"], with_head: Float[Tensor, "*#shape"]
) -> dict[Outcome, Float[Tensor, "*#shape"]]:
    """What each outcome gains from the margins without a head to those with it."""
    before, after = outcomes_of(without), outcomes_of(with_head)
    return {outcome: after[outcome] - before[outcome] for outcome in OUTCOMES}


def verdict_gap(logits: Float[Tensor, "batch vocab"], verdicts: VerdictTokens) -> Float[Tensor, " batch"]:
    """Log P(positive) - log P(negative), all spellings together."""
    positive, negative = (logits[:, list(side)].logsumexp(dim=-1) for side in (verdicts.positive, verdicts.negative))
    return positive - negative


def towards_right(gaps: Float[Tensor, "example ..."], labels: Bool[Tensor, " example"]) -> Float[Tensor, "example ..."]:
    """Turn positive minus negative into right minus wrong: change the sign if the negative verdict is right."""
    return torch.einsum("e, e ... -> e ...", torch.where(labels, 1.0, -1.0).to(gaps), gaps)
