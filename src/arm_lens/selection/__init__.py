"""Ways of choosing heads: one module each, all giving a `Selection`."""

from arm_lens.selection.objective import JudgingObjective, PooledObjective, RewardKind
from arm_lens.selection.reinforce import PUBLISHED, Reinforce, Selection, reinforce

__all__ = ["PUBLISHED", "JudgingObjective", "PooledObjective", "Reinforce", "RewardKind", "Selection", "reinforce"]
