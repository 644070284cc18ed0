"""The probability that a model gives to its verdicts together: where it is small, they are what is left over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from arm_lens.display.caution import caution
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.evaluation.health import LEAST_MASS


class VerdictMassWarning(UserWarning):
    """The model would rather write something else than a verdict, so that the verdicts' probabilities say little."""


ADVICE = "Ask in another way: a system message, chat_template_kwargs, or a judge template with other verdicts"
MOST_NAMED = 5
"""Judges that one warning names."""
_HELD_BACK: ContextVar[bool] = ContextVar("held back", default=False)


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """A context, also a decorator, in which no judge warns by itself, since `warn_of_all` does so for all of them."""
    token = _HELD_BACK.set(True)
    try:
        yield
    finally:
        _HELD_BACK.reset(token)


def warn_of_all(found: Sequence[str]) -> None:
    """Warn of all judges whose verdicts have a small mass; each text names one, with its mass. Nothing, if there is none."""
    if found:
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        named = "; ".join(found[:MOST_NAMED]) + more
        caution(
            f"the model gives the verdicts a probability below {LEAST_MASS} together: {named}. {ADVICE}",
            VerdictMassWarning,
        )


@dataclass
class VerdictMass:
    """How much probability a judge's model has given to all verdicts together, over the questions so far."""

    total: float = 0.0
    n: int = 0
    """Questions."""
    preferred: tuple[tuple[str, float], ...] = ()
    """Tokens that the model would rather write, with their mean probabilities, if the mass was small."""
    warned: bool = False

    @property
    def mean(self) -> float | None:
        """P(positive) + P(negative) on average; None before the first question."""
        return self.total / self.n if self.n else None

    def add(self, scores: VerdictScores) -> None:
        """Count further questions, and warn once if the mass of these is below `LEAST_MASS`."""
        mass = scores.mass
        self.total, self.n = self.total + float(mass.sum()), self.n + len(mass)
        self.preferred = scores.preferred or self.preferred
        if len(mass) and float(mass.mean()) < LEAST_MASS and not self.warned and not _HELD_BACK.get():
            self.warned = True
            rather = ", ".join(f"{token!r} ({share:.0%})" for token, share in scores.preferred if share >= 0.005)
            caution(
                f"the model gives the verdicts a probability of {float(mass.mean()):.2g} together, on average over "
                f"{len(mass)} questions" + (f"; it would rather write {rather}" if rather else "") + f". {ADVICE}",
                VerdictMassWarning,
            )
