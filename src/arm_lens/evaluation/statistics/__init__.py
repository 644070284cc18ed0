"""Statistics of judge benchmarks: every number with n and a 95 % interval, and how sure a difference is.

Verdicts are arrays ``[sample, seed, item]``: the example sample, the judge's own randomness, and the item. Items that belong
together (from one prompt, say) form a cluster, and clusters are what was sampled. `intervals` says how far an average may be
off, `paired` compares two judges on the same items, `variation` separates the effects of samples and of seeds, `ranking` and
`calibration` are about rewards and probabilities instead of verdicts.
"""

from arm_lens.evaluation.statistics.calibration import brier_score, reliability
from arm_lens.evaluation.statistics.intervals import (
    LEVEL,
    ClusterBootstrap,
    Estimate,
    accuracy,
    mean_estimate,
    stable_seed,
    wilson,
)
from arm_lens.evaluation.statistics.paired import (
    holm,
    mcnemar_test,
    paired_difference,
    permutation_test,
    sign_flip_test,
)
from arm_lens.evaluation.statistics.rank_correlation import spearman
from arm_lens.evaluation.statistics.ranking import roc_area
from arm_lens.evaluation.statistics.variation import Variation, variation

__all__ = [
    "LEVEL",
    "ClusterBootstrap",
    "Estimate",
    "Variation",
    "accuracy",
    "brier_score",
    "holm",
    "mcnemar_test",
    "mean_estimate",
    "paired_difference",
    "permutation_test",
    "reliability",
    "roc_area",
    "sign_flip_test",
    "spearman",
    "stable_seed",
    "variation",
    "wilson",
]
