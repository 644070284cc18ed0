"""Position bias: a judge that sees two responses may prefer the one that stands first."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PositionBias:
    """How the order of two responses moves a judge that sees both."""

    first: float
    """The share of verdicts for the response that stands first, over both orders of each pair: 0.5 without bias."""
    inconsistent: float
    """The share of pairs whose winner changes with the order; a tie in one order only is half a change."""
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
        # The first response stands first in the first order, and second in the second.
        changed = (wins[:, 0] - (1 - wins[:, 1])).abs()
        return cls(float(wins.mean()), float(changed.mean()), len(orders))
