"""Ways of choosing heads: one module each, all giving a `Selection`."""

from arm_lens.selection.effects import TopEffect, single_head_effects
from arm_lens.selection.fixed import AllHeads, FixedHeads, RandomHeads
from arm_lens.selection.greedy import Greedy
from arm_lens.selection.hard_concrete import HardConcrete
from arm_lens.selection.objective import COIN, JudgingObjective, PooledObjective, RewardKind
from arm_lens.selection.outcome import DifferentiableObjective, Objective, Selection
from arm_lens.selection.reinforce import PUBLISHED, Reinforce, reinforce
from arm_lens.selection.selector import Search, Selector, selector_of
from arm_lens.selection.soft_gate import SoftGate

__all__ = [
    "COIN",
    "PUBLISHED",
    "AllHeads",
    "DifferentiableObjective",
    "FixedHeads",
    "Greedy",
    "HardConcrete",
    "JudgingObjective",
    "Objective",
    "PooledObjective",
    "RandomHeads",
    "Reinforce",
    "RewardKind",
    "Search",
    "Selection",
    "Selector",
    "SoftGate",
    "TopEffect",
    "reinforce",
    "selector_of",
    "single_head_effects",
]
