r"""Gradient attribution: the effect of writing the mean of one head, to first order.

With a gate per head, :math:`z \leftarrow z + \gamma\,(w - z)` at the last token, where :math:`w` is what an injection would
write (the mean :math:`\mu`, or :math:`z + \mu` if means are added; a strength counts), the derivative of the
margin :math:`g_i` of an example with respect to :math:`\gamma[l, m]`, all gates closed, is

.. math:: a_i[l, m] = (w[l, m] - z_i[l, m]) \cdot \frac{\partial g_i}{\partial z_i[l, m]},

which is attribution patching (Nanda 2023; Syed et al., arXiv 2310.10348) with the mean as the patch: all heads at
once, by one pass forward and one back. The outcomes are those of the linearised margin :math:`g_i + a_i`. It
is a local estimate of what `arm_lens.attribution.injection_effects` measures and need not agree with causal
patching (arXiv 2604.26130 finds correlations near zero on reward models), so always report it with its agreement.
"""

from __future__ import annotations

from collections.abc import Sequence

from arm_lens.attribution.grid import Heads, measured, only
from arm_lens.attribution.outcomes import criterion_of, gains, towards_right
from arm_lens.attribution.result import Attribution
from arm_lens.engine.gates import gap_slopes
from arm_lens.selection.objective import JudgingObjective


def gradient_attribution(
    objective: JudgingObjective, *, heads: Heads = None, layers: Sequence[int] | None = None, criterion: str = ""
) -> Attribution:
    r"""What each outcome would gain by the mean of each head, alone, if the margin were linear in what is written.

    For an example with margin :math:`g_i`, per head: ``gap`` :math:`a_i`; ``probability`` :math:`\sigma(g_i + a_i) -
    \sigma(g_i)`; ``accuracy`` the same with 1 for a positive margin and one half for a tie. Only ``heads`` (a `HeadSet` or
    (layer, head) pairs) in ``layers`` have a value; by default all.
    """
    wanted = measured(objective.shape, heads, layers)
    slopes, gaps = gap_slopes(objective.replay, objective.values)
    gained = towards_right(slopes.double(), objective.labels)
    margins = towards_right(gaps.double()[:, None, None], objective.labels)
    return Attribution.of(
        only(gains(margins, margins + gained), wanted),
        objective.clusters,
        measure="gradient",
        criterion=criterion_of(objective, criterion),
    )
