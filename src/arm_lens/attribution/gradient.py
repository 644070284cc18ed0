r"""Gradient attribution: the effect of writing one head's mean, to first order.

With a gate per head, :math:`z \leftarrow z + \gamma\,(w - z)` at the last token, where :math:`w` is what an injection would
write (the mean :math:`\mu`, or :math:`z + \mu` where means are added; a strength counts), the derivative of an example's
margin :math:`g_i` with respect to :math:`\gamma[l, m]`, all gates closed, is

.. math:: a_i[l, m] = (w[l, m] - z_i[l, m]) \cdot \frac{\partial g_i}{\partial z_i[l, m]},

which is attribution patching (Nanda 2023; Syed et al., arXiv 2310.10348) with the mean as the patch: for all heads at
once, at the price of one pass forward and one back. The outcomes are those of the linearised margin :math:`g_i + a_i`. It
is an estimate of what `arm_lens.attribution.injection_effects` measures, and a local one: it need not agree with causal
patching (arXiv 2604.26130 finds correlations near zero on reward models), so it is to be shown with its agreement.
"""

from __future__ import annotations

import torch

from arm_lens.attribution.outcomes import outcomes_of
from arm_lens.attribution.result import Attribution
from arm_lens.engine.gates import gap_slopes
from arm_lens.selection.objective import JudgingObjective


def gradient_attribution(objective: JudgingObjective, *, criterion: str = "") -> Attribution:
    r"""What each outcome would gain by each head's mean, alone, if the margin were linear in what is written.

    Of an example with margin :math:`g_i`, per head: ``gap`` :math:`a_i`; ``probability`` :math:`\sigma(g_i + a_i) -
    \sigma(g_i)`; ``accuracy`` the same with 1 where the margin is positive and one half at a tie.

    Show it beside a causal measure: gradients need not agree with one (see the module).

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        criterion: its name, for the frame.
    """
    slopes, gaps = gap_slopes(objective.replay, objective.values)
    sign = torch.where(objective.labels, 1.0, -1.0).double()[:, None, None]
    gained, margins = sign * slopes.double(), sign * gaps.double()[:, None, None]
    before, after = outcomes_of(margins), outcomes_of(margins + gained)
    per_example = {outcome: after[outcome] - before[outcome] for outcome in before} | {"gap": gained}
    return Attribution.of("gradient", per_example, objective.clusters, criterion=criterion)
