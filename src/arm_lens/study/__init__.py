"""A study of heads: attribution and comparison of the heads of several criteria, in tidy tables.

From reward models of one language model, one per criterion, and held-out examples: attribution of every head by several
measures, the agreement of the measures, interactions of the chosen heads, accuracy against their number, and the criteria
against each other (shared heads, rank correlations, cosines between means, transfer). Heads are attributed on one half of
the examples and rankings are judged on the other half, which has other prompts. Finished tables of a criterion are stored,
so that an interrupted study continues from them.
"""

from arm_lens.study.halves import in_halves
from arm_lens.study.parts import CURVES
from arm_lens.study.run import FOLDER, STEPS, study_heads, study_run
from arm_lens.study.tables import HeadStudy

__all__ = ["CURVES", "FOLDER", "STEPS", "HeadStudy", "in_halves", "study_heads", "study_run"]
