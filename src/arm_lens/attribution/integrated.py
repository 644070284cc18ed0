r"""Integrated gradients over gates: the effect of a set of heads, shared along the path from none of them to all.

With a gate per head (see `arm_lens.engine.gates`), let :math:`v(g)` be an outcome under gates :math:`g`. On the straight path
from no gate open to those of a set :math:`S` fully open,

.. math:: \phi(h) = \int_0^1 \frac{\partial v}{\partial g_h}(t S)\, dt \approx
          \frac{1}{m} \sum_{k=1}^{m} \frac{\partial v}{\partial g_h}\Big(\frac{k - 1/2}{m}\, S\Big),

the sum by the midpoint rule (Sundararajan et al., arXiv 1703.01365; in the theory of games, the value of Aumann and
Shapley). They add up to :math:`v(S) - v(\emptyset)` as :math:`m` grows; how much is missing is the *completeness gap*.
It takes m passes forward and back, side by side, where sampled Shapley values take hundreds of orders of the heads; but all
gates open at the same rate here, whereas in an order heads open one by one.

The gap and the probability of the right verdict have such values. The accuracy does not: it has no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.attribution.grid import Heads, measured, only
from arm_lens.attribution.outcomes import Outcome, criterion_of, outcomes_of, towards_right
from arm_lens.attribution.result import Attribution
from arm_lens.display import counted
from arm_lens.display.caution import caution
from arm_lens.engine.gates import gated_slopes
from arm_lens.selection.objective import JudgingObjective

STEPS = 32
LARGEST_GAP = 0.1
"""The completeness gap, as a share of the sum of all absolute values, above which a warning says so."""


class CompletenessWarning(UserWarning):
    """Integrated gradients do not add up to the effect of the set: they take more steps."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegratedGradients(Attribution):
    """Integrated gradients of the heads of a set; other heads have no value."""

    completeness_gap: Mapping[Outcome, float]
    """By outcome: the effect of the whole set, less the sum of the values. 0 with infinitely many steps."""


def integrated_gradients(
    objective: JudgingObjective,
    heads: Heads = None,
    *,
    layers: Sequence[int] | None = None,
    steps: int = STEPS,
    criterion: str = "",
) -> IntegratedGradients:
    """What each head contributes to the effect of a set of heads, on ``probability`` and ``gap``.

    A restriction to some heads or layers is thus another set: nothing is written elsewhere along its path.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: the set, e.g. ``reward.heads``, also as (layer, head) pairs; by default every head of the model.
        layers: only the set's heads in these layers; by default all.
        steps: points on the path, each of which takes a pass forward and back.
        criterion: its name, for the frame; by default that of the examples' objective.

    Warns:
        CompletenessWarning: if more than a tenth of all that the heads contribute is missing.

    Raises:
        ValueError: if there are no heads, or steps is less than 1.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients take at least 1 step, not {steps}")
    wanted = measured(objective.shape, heads, layers)
    whole = wanted.mask.float()
    path = ((torch.arange(steps) + 0.5) / steps)[:, None, None] * whole
    slopes, gaps = gated_slopes(objective.replay, objective.values, path)
    slopes, margins = (towards_right(one.double(), objective.labels) for one in (slopes, gaps))
    right = torch.sigmoid(margins)
    per_example: dict[Outcome, Float[Tensor, "example layer head"]] = {
        "probability": torch.einsum("e s, e s l h -> e l h", right * (1 - right), slopes) / steps,
        "gap": slopes.mean(dim=1),
    }
    found = only(per_example, wanted)
    ends = outcomes_of(objective.margins(torch.stack([torch.zeros_like(wanted.mask), wanted.mask])))
    missing: dict[Outcome, float] = {}
    for outcome, values in found.items():
        total = float((ends[outcome][:, 1] - ends[outcome][:, 0]).mean())
        means = values.mean(dim=0).nan_to_num()
        missing[outcome] = total - float(means.sum())
        if abs(missing[outcome]) > LARGEST_GAP * float(means.abs().sum()):
            caution(
                f"integrated gradients of {counted(len(wanted), 'head')} with {counted(steps, 'step')} add up to "
                f"{float(means.sum()):.3g} on {outcome}, where the set's effect is {total:.3g}; pass more steps",
                CompletenessWarning,
            )
    return IntegratedGradients.of(
        found,
        objective.clusters,
        measure="integrated_gradients",
        criterion=criterion_of(objective, criterion),
        completeness_gap=missing,
    )
