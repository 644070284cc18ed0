r"""Soft gates: how far to move each head towards its mean, found by gradient.

Every head has a gate :math:`g = \sigma(\theta)`, and :math:`z \leftarrow z + g\,(\mu - z)`; the mean reward of the examples,
less a penalty for open gates, is maximised with Adam (soft injection, arXiv 2507.20906). The result is the gates, not a
set, unless ``discrete``. The reward must have a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from arm_lens.registry import SelectorSpec
from arm_lens.selection.gate_search import GateSearch


class SoftGate(GateSearch):
    """Options of the search."""

    kind: Literal["soft_gate"] = "soft_gate"
    steps: PositiveInt = 150
    discrete: bool = False

    def _gates(
        self, logits: Float[Tensor, "*fit layer head"], generator: torch.Generator | None
    ) -> Float[Tensor, "*fit layer head"]:
        return torch.sigmoid(logits)

    def _open(self, logits: Float[Tensor, "*fit layer head"]) -> Float[Tensor, "*fit layer head"]:
        return torch.sigmoid(logits)


SPEC = SelectorSpec(
    name="soft_gate",
    options=SoftGate,
    summary="A gate for every head, found by gradient, by which it is moved towards its mean.",
)
