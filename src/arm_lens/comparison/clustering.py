"""Which criteria belong together: hierarchical clustering of names from any table of pairs.

Average linkage (UPGMA, Sokal and Michener 1958) joins the two groups whose members are on average the most alike, again
and again. Leaves are put in the order in which neighbours are as alike as they can be (Bar-Joseph and others 2001), the
order in which a matrix of the same names reads best. The cophenetic correlation, between the distances of the tree and
those it was made of, says how far the tree is to be believed: there is always a tree, also of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, leaves_list
from scipy.cluster.hierarchy import linkage as link
from scipy.spatial.distance import squareform

from arm_lens.frames import PAIRS, checked


@dataclass(frozen=True, eq=False)
class Clustering:
    """A tree of names."""

    names: tuple[str, ...]
    """As they first appear in the table."""
    linkage: Float[np.ndarray, "merge column"]
    """As scipy's: the two joined (names by index, then earlier joints), their distance, and how many names are below."""
    order: tuple[str, ...]
    """The names as leaves from one side to the other."""
    cophenetic: float
    """The correlation of the tree's distances with those it was made of; NaN where they are all the same."""

    def __repr__(self) -> str:
        return f"Clustering({', '.join(self.order)}; cophenetic correlation {self.cophenetic:.2f})"

    def groups(self, k: int) -> tuple[tuple[str, ...], ...]:
        """The ``k`` groups left when all but the last k - 1 joints are made, in the order of the leaves.

        Raises:
            ValueError: if there are not as many names.
        """
        count = len(self.names)
        if not 1 <= k <= count:
            raise ValueError(f"{count} names make 1 to {count} groups, not {k}")
        members = {number: [name] for number, name in enumerate(self.names)}
        for step, (one, two) in enumerate(self.linkage[: count - k, :2].astype(int)):
            members[count + step] = members.pop(int(one)) + members.pop(int(two))
        place = {name: number for number, name in enumerate(self.order)}
        inside = [tuple(sorted(group, key=place.__getitem__)) for group in members.values()]
        return tuple(sorted(inside, key=lambda group: place[group[0]]))


def cluster(
    frame: pd.DataFrame, value: str = "jaccard", *, names: Sequence[str] = ("a", "b"), distance: bool = False
) -> Clustering:
    """Cluster the names of a table of pairs.

    Args:
        frame: a row per pair, as of `overlap`, `rank_correlation` or `depth_distance`; several rows of a pair (heads, in
            `mean_cosines`) are averaged, NaN left out, and so are a pair's two directions where it has two.
        value: the column that says how alike two names are, at most 1: two are 1 - value apart.
        names: the columns of the two names.
        distance: the column says how far apart they are instead.

    Raises:
        ValueError: if a column is missing, there is a similarity above 1 or a negative distance, or a pair without a
            value; naming it.
    """
    if len(names) != 2:
        raise ValueError(f"a pair has two columns of names, not {len(names)}")
    a, b = names
    checked(frame, PAIRS.needing(a, b, value))
    means = frame[frame[a] != frame[b]].groupby([a, b], sort=False)[value].mean()
    found = list(dict.fromkeys(name for pair in zip(frame[a], frame[b], strict=True) for name in pair))
    if len(found) < 2:
        raise ValueError(f"there is nothing to cluster: the only name is {found[0]!r}")
    matrix = np.zeros((len(found), len(found)))
    for row, one in enumerate(found):
        for column, two in enumerate(found[:row]):
            values = [float(means[pair]) for pair in ((one, two), (two, one)) if pair in means.index]
            alike = float(np.mean(values)) if values else np.nan
            apart = alike if distance else 1 - alike
            if not apart >= -1e-9:
                reason = "has no value" if np.isnan(apart) else f"is {alike:.3g}, which is no {_kind(distance)}"
                raise ValueError(f"{value!r} of {two!r} and {one!r} {reason}")
            matrix[row, column] = matrix[column, row] = max(0.0, apart)
    apart = squareform(matrix)
    tree = link(apart, "average", optimal_ordering=True)
    cophenetic = float(cophenet(tree, apart)[0]) if np.ptp(apart) > 0 else np.nan
    return Clustering(tuple(found), tree, tuple(found[leaf] for leaf in leaves_list(tree)), cophenetic)


def _kind(distance: bool) -> str:
    return "distance: it is negative" if distance else "similarity: it is above 1"
