r"""Heads one at a time: what the mean of a head adds to nothing, and what it adds to the rest of a chosen set.

With :math:`v(S)` the outcome while the means are written at the heads in :math:`S`,

.. math:: e_\text{injection}(h) = v(\{h\}) - v(\emptyset), \qquad
          e_\text{leave one out}(h) = v(S \cup \{h\}) - v(S \setminus \{h\}).

The first is causal mediation of a single head (as in function vectors, arXiv 2310.15213). The second measures what the set
would lose without a head in it, and what any other head would add. Of two redundant heads the first sees both and the
second neither; the Shapley value (`arm_lens.attribution.shapley`) shares the effect between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from arm_lens.attribution.grid import Heads, each_alone, measured, on_grid, only
from arm_lens.attribution.outcomes import Judged, criterion_of, gains
from arm_lens.attribution.result import Attribution
from arm_lens.heads import PROBABILITIES, HeadSet
from arm_lens.selection import Selection


def injection_effects(
    objective: Judged, *, heads: Heads = None, layers: Sequence[int] | None = None, criterion: str = ""
) -> Attribution:
    """What each outcome gains when the mean of one head alone is written.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: which heads to measure, a `HeadSet` or (layer, head) pairs; by default all.
        layers: which layers to measure; by default all. Other heads have no value.
        criterion: its name, for the frame; by default that of the examples' objective.
    """
    nobody = HeadSet.none(*objective.shape)
    return _toggled("injection", objective, nobody, measured(objective.shape, heads, layers), criterion)


def leave_one_out_effects(
    objective: Judged, chosen: HeadSet, *, heads: Heads = None, layers: Sequence[int] | None = None, criterion: str = ""
) -> Attribution:
    """What each head adds to the rest of a set, e.g. ``reward.heads``: to the set without it, if it belongs to the set.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        chosen: the set.
        heads: which heads to measure, as for `injection_effects`; the set stays the same.
        layers: which layers to measure.
        criterion: its name, for the frame; by default that of the examples' objective.
    """
    return _toggled("leave_one_out", objective, chosen, measured(objective.shape, heads, layers), criterion)


def _toggled(measure: str, objective: Judged, chosen: HeadSet, heads: HeadSet, criterion: str) -> Attribution:
    """The outcomes of the set with each head minus those of the set without it."""
    margins = objective.margins(torch.cat([chosen.mask[None], chosen.mask ^ each_alone(heads)]))
    whole, toggled, inside = margins[:, :1], margins[:, 1:], torch.tensor([head in chosen for head in heads])
    gained = gains(torch.where(inside, toggled, whole), torch.where(inside, whole, toggled))
    per_example = {outcome: on_grid(values, list(heads), objective.shape) for outcome, values in gained.items()}
    return Attribution.of(
        per_example, objective.clusters, measure=measure, criterion=criterion_of(objective, criterion)
    )


def probable(selection: Selection | None) -> bool:
    """Whether a search ended in probabilities of being selected, or in gates."""
    return selection is not None and selection.head_scores.name in PROBABILITIES


def selection_probabilities(
    selection: Selection | None, *, heads: Heads = None, layers: Sequence[int] | None = None, criterion: str = ""
) -> Attribution:
    """How likely a search selects each head: REINFORCE's probabilities, or the gates of a search by gradient; from 0 to 1.

    This is not an effect on an outcome: it has an outcome of its own, ``search``, and neither n nor an interval. ``heads``
    and ``layers`` restrict it as they do `injection_effects`.

    Raises:
        ValueError: if there was no search, or it used something else (effects of single heads, gains of added ones).
    """
    if selection is None:
        raise ValueError("the heads of this reward model were given: there is no selection probability")
    if not probable(selection):
        raise ValueError(
            f"the search used {selection.head_scores.name!r}, which is not a probability of being selected"
        )
    scores = selection.head_scores.values.double()
    n_layers, n_heads = scores.shape
    values = only({"search": scores}, measured((n_layers, n_heads), heads, layers))["search"]
    return Attribution(
        measure="selection_probability",
        values={"search": values},
        errors={"search": torch.full_like(values, torch.nan)},
        sampling_errors={"search": torch.zeros_like(values)},
        n=0,
        n_clusters=0,
        criterion=criterion,
    )
