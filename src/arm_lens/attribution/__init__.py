"""Which heads carry a criterion: one module per measure, all giving an `Attribution`."""

from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, outcomes_of
from arm_lens.attribution.result import Attribution

__all__ = ["OUTCOMES", "Attribution", "Judged", "Outcome", "outcomes_of"]
