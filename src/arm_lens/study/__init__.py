"""A study of heads: everything that is known of the heads of several criteria, in tidy tables.

From reward models of one language model, one per criterion, and held-out examples: attribution of every head by several
measures, how far those agree, interactions of the chosen heads, accuracy against their number, and the criteria against
each other (shared heads, rank correlations, cosines between means, transfer). Heads are attributed on one half of the
examples and rankings are judged on the other, and no prompt stands in both. What is finished of a criterion is kept, so
that an interrupted study goes on.
"""

from arm_lens.study.halves import in_halves
from arm_lens.study.parts import CURVES
from arm_lens.study.run import FOLDER, STEPS, study_heads, study_run
from arm_lens.study.tables import HeadStudy

__all__ = ["CURVES", "FOLDER", "STEPS", "HeadStudy", "in_halves", "study_heads", "study_run"]
