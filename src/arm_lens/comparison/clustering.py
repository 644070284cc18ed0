"""Which criteria belong together: hierarchical clustering of names from any table of pairs.

Average linkage (UPGMA, Sokal and Michener 1958) repeatedly joins the two groups whose members are on average the most
alike. Leaves are ordered so that neighbours are as alike as possible (Bar-Joseph and others 2001), in which a matrix of the
same names is easiest to read. The cophenetic correlation, between the distances in the tree and the distances it was made
from, says how far the tree is to be believed: noise has a tree too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, cut_tree, leaves_list
from scipy.cluster.hierarchy import linkage as link
from scipy.spatial.distance import squareform

from arm_lens.frames import PAIRS, checked


@dataclass(frozen=True, eq=False)
class Clustering:
    """A tree of names."""

    names: tuple[str, ...]
    """In the order in which they first appear in the table."""
    linkage: Float[np.ndarray, "merge column"]
    """As scipy's: the two joined (names by index, then earlier joints), their distance, and the number of names below."""
    order: tuple[str, ...]
    """The names as leaves from one side to the other."""
    cophenetic: float
    """The correlation of the tree's distances with the distances it was made from; NaN if these are all the same."""

    def __repr__(self) -> str:
        return f"Clustering({', '.join(self.order)}; cophenetic correlation {self.cophenetic:.2f})"

    def groups(self, k: int) -> tuple[tuple[str, ...], ...]:
        """The ``k`` groups after all joints except the last k - 1, in the order of the leaves.

        Raises:
            ValueError: if there are fewer names.
        """
        count = len(self.names)
        if not 1 <= k <= count:
            raise ValueError(f"{count} names make 1 to {count} groups, not {k}")
        group = dict(zip(self.names, cut_tree(self.linkage, k)[:, 0], strict=True))
        return tuple(tuple(members) for _, members in groupby(self.order, key=group.__getitem__))


def cluster(
    frame: pd.DataFrame, value: str = "jaccard", *, names: Sequence[str] = ("a", "b"), distance: bool = False
) -> Clustering:
    """Cluster the names of a table of pairs.

    Args:
        frame: a row per pair, as from `overlap`, `rank_correlation` or `depth_distance`. Several rows of a pair (heads, in
            `mean_cosines`) are averaged without NaN, and so are the two directions of a pair.
        value: the column that says how alike two names are, at most 1: their distance is 1 - value.
        names: the columns of the two names.
        distance: whether ``value`` is a distance instead.

    Raises:
        ValueError: if a column is missing, a similarity is above 1, a distance is negative, or a pair has no value; naming
            the pair.
    """
    if len(names) != 2:
        raise ValueError(f"a pair has two columns of names, not {len(names)}")
    a, b = names
    frame = checked(frame, PAIRS.needing(a, b, value))
    found = list(dict.fromkeys(frame[[a, b]].to_numpy().flatten().tolist()))
    if len(found) < 2:
        raise ValueError(f"there is nothing to cluster: the only name is {found[0]!r}")
    means = frame.pivot_table(index=a, columns=b, values=value).reindex(index=found, columns=found)
    means = means.fillna(means.T)
    alike = squareform(((means + means.T) / 2).to_numpy(), checks=False)
    apart = alike if distance else 1 - alike
    for index in np.flatnonzero(~(apart >= -1e-9)):
        one, two = list(combinations(found, 2))[index]
        kind = "distance: it is negative" if distance else "similarity: it is above 1"
        reason = "has no value" if np.isnan(alike[index]) else f"is {alike[index]:.3g}, which is no {kind}"
        raise ValueError(f"{value!r} of {one!r} and {two!r} {reason}")
    apart = apart.clip(min=0)
    tree = link(apart, "average", optimal_ordering=True)
    cophenetic = float(cophenet(tree, apart)[0]) if np.ptp(apart) > 0 else np.nan
    return Clustering(tuple(found), tree, tuple(found[leaf] for leaf in leaves_list(tree)), cophenetic)
