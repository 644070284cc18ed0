"""Which heads carry a criterion: one module per measure, all giving an `Attribution`.

Causal measures write or remove the output of a head and measure what the verdicts gain or lose; cheap ones (gradients,
direct logit attribution, what the search for heads left) do not, and may disagree with them. `attribute` gives several
at once, `arm_lens.comparison.agreement` how far they agree. For every measure, positive helps the criterion. Each can be
restricted to some ``heads`` or ``layers``. `layer_ablation` measures MLPs in the same way, next to the heads.

All measures take an ``objective``, labelled examples such as ``reward.objective(held_out)``. Their frames have the name of
its criterion, unless ``criterion`` gives another.

    >>> objective = reward.objective(held_out)
    >>> shapley = shapley_values(objective, progress=True)
    >>> shapley.head_scores("probability").top(5)
"""

from arm_lens.attribution.ablation import ablation
from arm_lens.attribution.causal import injection_effects, leave_one_out_effects, selection_probabilities
from arm_lens.attribution.curves import accuracy_by_heads
from arm_lens.attribution.direct import direct_contributions, direct_logit_attribution
from arm_lens.attribution.few_shot import few_shot_objective
from arm_lens.attribution.gating import HeadGating, head_gating
from arm_lens.attribution.gradient import gradient_attribution
from arm_lens.attribution.head_card import head_card
from arm_lens.attribution.head_card_views import HeadCard
from arm_lens.attribution.integrated import CompletenessWarning, IntegratedGradients, integrated_gradients
from arm_lens.attribution.interaction import Interactions, interactions
from arm_lens.attribution.layers import LayerAblation, layer_ablation
from arm_lens.attribution.optimal import OptimalConstants, optimal_constants
from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, outcomes_of
from arm_lens.attribution.result import Attribution, scores_of
from arm_lens.attribution.several import MEASURES, attribute
from arm_lens.attribution.shapley import ShapleySampler, exact_shapley_values, shapley_values

__all__ = [
    "MEASURES",
    "OUTCOMES",
    "Attribution",
    "CompletenessWarning",
    "HeadCard",
    "HeadGating",
    "IntegratedGradients",
    "Interactions",
    "Judged",
    "LayerAblation",
    "OptimalConstants",
    "Outcome",
    "ShapleySampler",
    "ablation",
    "accuracy_by_heads",
    "attribute",
    "direct_contributions",
    "direct_logit_attribution",
    "exact_shapley_values",
    "few_shot_objective",
    "gradient_attribution",
    "head_card",
    "head_gating",
    "injection_effects",
    "integrated_gradients",
    "interactions",
    "layer_ablation",
    "leave_one_out_effects",
    "optimal_constants",
    "outcomes_of",
    "scores_of",
    "selection_probabilities",
    "shapley_values",
]
