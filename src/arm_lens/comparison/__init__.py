"""Head sets, scores and means against each other: between criteria, seeds, selectors and models.

One module per question. Do two sets share more heads than by chance (`overlap`)? Do two scores order the heads alike
(`rank_correlation`), and may one measure stand for another (`agreement`)? Do two criteria write the same at a head
(`mean_cosines`)? Which belong together (`cluster`)? Are the same heads found again (`stability`)? Do they serve another
criterion (`transfer`)? Where in models of different size do they lie (`depth_profile`, `depth_distance`)? All give tidy
tables of named pairs: each number with its n, and with its chance level or interval if it has one.

What is compared is given by name: head sets, selections, reward models, scores or attributions, or a table of them
(`arm_lens.frames`), from which `arm_lens.heads.head_sets` makes sets.
"""

from arm_lens.comparison.agreement import agreement
from arm_lens.comparison.clustering import Clustering, cluster
from arm_lens.comparison.correlation import rank_correlation
from arm_lens.comparison.cosines import mean_cosines
from arm_lens.comparison.depth import depth_distance, depth_profile
from arm_lens.comparison.overlaps import overlap
from arm_lens.comparison.stability import stability, stability_index
from arm_lens.comparison.transfer import transfer
from arm_lens.heads import head_sets

__all__ = [
    "Clustering",
    "agreement",
    "cluster",
    "depth_distance",
    "depth_profile",
    "head_sets",
    "mean_cosines",
    "overlap",
    "rank_correlation",
    "stability",
    "stability_index",
    "transfer",
]
