r"""Heads one at a time: what a head's mean adds to nothing, and what it adds to the rest of a chosen set.

With :math:`v(S)` the outcome while the means are written at the heads in :math:`S`,

.. math:: e_\text{injection}(h) = v(\{h\}) - v(\emptyset), \qquad
          e_\text{leave one out}(h) = v(S \cup \{h\}) - v(S \setminus \{h\}).

The first is causal mediation of a single head (as in function vectors, arXiv 2310.15213). The second asks of a head in the
set what would be lost without it, and of any other what it would add. Of two redundant heads the first sees both and the
second neither; the Shapley value (`arm_lens.attribution.shapley`) shares the effect between them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.attribution.outcomes import Judged, Outcome, outcomes_of
from arm_lens.attribution.result import Attribution
from arm_lens.heads import HeadSet
from arm_lens.selection import Selection
from arm_lens.selection.reinforce import SCORE


def injection_effects(objective: Judged, *, criterion: str = "") -> Attribution:
    """What each outcome gains when the mean of one head alone is written.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        criterion: its name, for the frame.
    """
    return Attribution.of(
        "injection", toggled(objective, HeadSet.none(*objective.shape)), objective.clusters, criterion=criterion
    )


def leave_one_out_effects(objective: Judged, heads: HeadSet, *, criterion: str = "") -> Attribution:
    """What each head adds to the rest of a set: to the set without it, if it belongs to the set.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: the set, e.g. ``reward.heads``.
        criterion: its name, for the frame.
    """
    return Attribution.of("leave_one_out", toggled(objective, heads), objective.clusters, criterion=criterion)


def toggled(objective: Judged, heads: HeadSet) -> dict[Outcome, Float[Tensor, "example layer head"]]:
    """Of each example and head, the outcome of the set with the head minus that of the set without it."""
    n_layers, n_heads = objective.shape
    base = heads.mask.flatten()
    each = base ^ torch.eye(len(base), dtype=torch.bool)
    masks = torch.cat([base[None], each]).reshape(-1, n_layers, n_heads)
    sign = torch.where(heads.mask, -1.0, 1.0)
    found = {}
    for outcome, values in outcomes_of(objective.margins(masks)).items():
        change = (values[:, 1:] - values[:, :1]).reshape(-1, n_layers, n_heads)
        found[outcome] = change * sign
    return found


def probable(selection: Selection | None) -> bool:
    """Whether a search ended in probabilities of being selected, or in gates."""
    return selection is not None and selection.head_scores.name in (SCORE, "gate")


def selection_probabilities(selection: Selection, *, criterion: str = "") -> Attribution:
    """What a search thinks of each head: REINFORCE's probabilities, or the gates of a search by gradient; from 0 to 1.

    No effect on an outcome, so it has one of its own, ``search``, and neither n nor an interval; larger means that the
    search holds the head for more helpful.

    Raises:
        ValueError: if the search went by something else (effects of single heads, gains of added ones).
    """
    if not probable(selection):
        raise ValueError(f"the search went by {selection.head_scores.name!r}, which is no probability of being selected")
    values = selection.head_scores.values.double()
    unknown, none = torch.full_like(values, float("nan")), torch.zeros_like(values)
    return Attribution(
        "selection_probability", {"search": values}, {"search": unknown}, {"search": none}, 0, 0, criterion
    )
