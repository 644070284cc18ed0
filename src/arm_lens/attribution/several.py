"""Several measures of one reward model at once, in one tidy frame.

The rows of a cheap measure also have its agreement with a causal one (`arm_lens.evaluation.trust`);
`arm_lens.comparison.agreement` takes the frame and compares all measures with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import pandas as pd
from tqdm.auto import tqdm

from arm_lens.attribution.ablation import ablation
from arm_lens.attribution.causal import injection_effects, leave_one_out_effects, probable, selection_probabilities
from arm_lens.attribution.direct import direct_logit_attribution
from arm_lens.attribution.gating import head_gating
from arm_lens.attribution.gradient import gradient_attribution
from arm_lens.attribution.grid import Heads, measured
from arm_lens.attribution.integrated import integrated_gradients
from arm_lens.attribution.result import Attribution
from arm_lens.attribution.shapley import shapley_values
from arm_lens.evaluation.trust import with_trust
from arm_lens.heads import HeadSet
from arm_lens.preferences import Preference
from arm_lens.reward.model import ActivationRewardModel

MEASURES = (
    "shapley",
    "leave_one_out",
    "injection",
    "head_gating",
    "ablation_zero",
    "ablation_mean",
    "ablation_resample",
    "ablation_optimal",
    "integrated_gradients",
    "gradient",
    "direct",
    "selection_probability",
)
"""Every measure: first those that write means, then those of the unsteered model, then the cheap ones."""


class Restriction(TypedDict):
    """The heads that are measured."""

    heads: HeadSet


def attribute(
    reward: ActivationRewardModel,
    examples: Sequence[Preference],
    *,
    measures: Sequence[str] | None = None,
    heads: Heads = None,
    layers: Sequence[int] | None = None,
    standard_error: float = 0.01,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Every head's score by several measures.

    Args:
        reward: a fitted reward model. ``leave_one_out`` is relative to its heads.
        examples: labelled examples that it was not fitted on.
        measures: some of `MEASURES`; by default all, except ``selection_probability`` if no search by probabilities chose
            the heads.
        heads: which heads to measure, a `HeadSet` such as ``reward.heads`` or (layer, head) pairs; by default all. Others
            have no value. The Shapley values, the integrated gradients and the gates are then those of a game that is played
            by these heads only.
        layers: which layers to measure; by default all.
        standard_error: of the Shapley values, see `shapley_values`.
        seed: of everything random.
        checkpoint: a file that stores the samples of the Shapley values, which take longest, while they are sampled.
        progress: show progress bars.

    Returns:
        The frames of the measures (`Attribution.frame`), one below the other, under the reward model's criterion; each cheap
        measure with its agreement with a causal one, if one was measured.

    Raises:
        ValueError: if a measure is unknown, or needs a search by probabilities and there was none; or if the reward model
            ended in soft gates, which are not a set of heads; or if there are no heads to measure.
    """
    reward.check_heads()
    default = [one for one in MEASURES if probable(reward.selection) or one != "selection_probability"]
    wanted = default if measures is None else list(measures)
    unknown = [measure for measure in wanted if measure not in MEASURES]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if not wanted:
        raise ValueError("measures is empty; give at least one")
    objective = reward.objective(examples, progress=progress)
    some: Restriction = {"heads": measured(objective.shape, heads, layers)}
    measure_heads: dict[str, Callable[[], Attribution]] = {
        "shapley": lambda: shapley_values(
            objective, standard_error=standard_error, seed=seed, checkpoint=checkpoint, progress=progress, **some
        ),
        "leave_one_out": lambda: leave_one_out_effects(objective, reward.heads, **some),
        "injection": lambda: injection_effects(objective, **some),
        "head_gating": lambda: head_gating(objective, seed=seed, progress=progress, **some),
        "ablation_zero": lambda: ablation(objective, "zero", progress=progress, **some),
        "ablation_mean": lambda: ablation(objective, "mean", progress=progress, **some),
        "ablation_resample": lambda: ablation(objective, "resample", seed=seed, progress=progress, **some),
        "ablation_optimal": lambda: ablation(objective, "optimal", seed=seed, progress=progress, **some),
        "integrated_gradients": lambda: integrated_gradients(objective, **some),
        "gradient": lambda: gradient_attribution(objective, **some),
        "direct": lambda: direct_logit_attribution(objective, **some),
        "selection_probability": lambda: selection_probabilities(
            reward.selection, criterion=reward.record.criterion, **some
        ),
    }
    # Expensive measures last, so that the errors of cheap ones come at once.
    order = tqdm([one for one in reversed(MEASURES) if one in wanted], desc="measures", disable=not progress)
    found = {measure: measure_heads[measure]().frame() for measure in order}
    return with_trust(pd.concat([found[measure] for measure in wanted], ignore_index=True))
