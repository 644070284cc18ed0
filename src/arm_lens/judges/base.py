"""The judge protocol: what every judge in arm_lens can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.preferences import Prompt

ScoreKind = Literal["probability", "two_way", "gap"]


@dataclass(frozen=True)
class Comparison:
    """Which of two responses a judge prefers."""

    preferred: Literal["a", "b", "tie"]
    margin: float
    """How much better the first response is, in log-odds; positive when ``a`` is preferred."""

    @classmethod
    def of(cls, margin: float) -> Comparison:
        """From the margin alone; exactly zero is a tie."""
        return cls("a" if margin > 0 else "b" if margin < 0 else "tie", margin)


@runtime_checkable
class RewardModel(Protocol):
    """What every judge in arm_lens can do."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Float[Tensor, " example"]:
        """A reward per response; higher is better."""
        ...

    def prefer(self, prompt: Prompt, a: Prompt, b: Prompt) -> Comparison:
        """Which of two responses to one prompt is better."""
        ...


class ScoresResponses(ABC):
    """A judge that scores responses one by one: it prefers the one with the higher score."""

    @abstractmethod
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Float[Tensor, " example"]:
        """A reward per response; higher is better."""

    def margins(self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt]) -> Float[Tensor, " pair"]:
        """How much higher each ``a`` scores than its ``b``.

        Raises:
            ValueError: if there are not as many prompts as responses on each side.
        """
        check_pairs(prompts, a, b)
        scores = self.score([*prompts, *prompts], [*a, *b])
        return scores[: len(prompts)] - scores[len(prompts) :]

    def prefer(self, prompt: Prompt, a: Prompt, b: Prompt) -> Comparison:
        """Which of two responses to a prompt scores higher."""
        return Comparison.of(float(self.margins([prompt], [a], [b])[0]))


def check_pairs(prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt]) -> None:
    """Make sure that there are two responses for each prompt.

    Raises:
        ValueError: saying how many there are.
    """
    if not len(prompts) == len(a) == len(b):
        raise ValueError(f"{len(prompts)} prompts for {len(a)} first and {len(b)} second responses")


@dataclass(frozen=True)
class PositionBias:
    """How the order of two responses moves a judge that sees both."""

    first: float
    """The share of verdicts for the response that was shown first, over both orders of each pair: 0.5 without bias."""
    inconsistent: float
    """The share of pairs of which another response wins when they change places; a tie in one order only is half a
    change."""
    n: int
    """Pairs."""

    @classmethod
    def of(cls, orders: Float[Tensor, "pair order"]) -> PositionBias:
        """From the margins in favour of the first place, in each order; exact ties count one half for each place.

        Raises:
            ValueError: if there are no pairs.
        """
        if not len(orders):
            raise ValueError("position bias is measured on pairs, and there are none")
        wins = (orders > 0).double() + 0.5 * (orders == 0)
        # What the second order leaves to the second place is the same response's as the first order's first place.
        changed = (wins[:, 0] - (1 - wins[:, 1])).abs()
        return cls(float(wins.mean()), float(changed.mean()), len(orders))


def score_of(scores: VerdictScores, kind: ScoreKind) -> Float[Tensor, " example"]:
    """One kind of score."""
    if kind not in ("probability", "two_way", "gap"):
        raise ValueError(f"the kind of score is 'probability', 'two_way' or 'gap', not {kind!r}")
    chosen: Tensor = getattr(scores, kind)
    return chosen
