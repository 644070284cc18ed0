r"""Do two criteria write the same thing at a head?

The means of all criteria have much in common: they were read at the same token of prompts in the same form. Their plain
cosines are therefore all near 1, whatever the criteria. What distinguishes criteria is how each departs from the average,

.. math:: \cos(\mu_a - \bar\mu,\; \mu_b - \bar\mu), \qquad \bar\mu = \frac{1}{K} \sum_j \mu_j,

head by head. Departures sum to zero, so that the departures of :math:`K` unrelated criteria have a cosine of about
:math:`-1 / (K - 1)`, not 0. That is the value to compare with; with two criteria the cosine is -1 by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from arm_lens.comparison.tables import pairs, same_size
from arm_lens.engine.reading import HeadMeans

ROUNDING = 1e-6
"""A departure below this share of the means' length is the rounding of their float32."""


@runtime_checkable
class HasMeans(Protocol):
    """What writes means at heads, such as a reward model."""

    @property
    def means(self) -> HeadMeans:
        """The means that it writes."""


def mean_cosines(means: Mapping[str, HeadMeans | HasMeans], *, centred: bool = True) -> pd.DataFrame:
    """The cosine between each two criteria's mean vectors, head by head.

    There are no intervals, as means come without their readings. To estimate the noise, compare means of the same criterion
    from several seeds.

    Args:
        means: by name, of one model; or the reward models that write them.
        centred: subtract the average over all given means first, of which there must be at least three; see the module.

    Returns:
        A row per pair and head: a, b, layer, head, cosine (NaN if a vector is zero).

    Raises:
        ValueError: if there are fewer than two means, or two to be centred; or their sizes differ, naming them.
    """
    known = {name: one if isinstance(one, HeadMeans) else one.means for name, one in means.items()}
    same_size({name: one.values.shape for name, one in known.items()}, "means")
    widths = {name: one.values.shape[2] for name, one in known.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"means of heads of different width: {', '.join(f'{k!r} has {v}' for k, v in widths.items())}")
    if centred and len(means) == 2:
        a, b = means
        raise ValueError(
            f"centring needs at least three means: minus their average, {a!r} and {b!r} are opposite by construction; "
            "give more, or centred=False"
        )
    compared = [(a, b) for a, b, *_ in pairs(known, "means")]
    vectors = np.stack([one.values.detach().double().cpu().numpy() for one in known.values()])
    departures = vectors - vectors.mean(axis=0) if centred else vectors
    lengths = np.linalg.norm(departures, axis=3, keepdims=True)
    longest = np.linalg.norm(vectors, axis=3, keepdims=True).max(axis=0)
    units = dict(zip(known, departures / np.where(lengths > ROUNDING * longest, lengths, np.nan), strict=True))
    layers, heads = np.indices(longest.shape[:2]).reshape(2, -1)
    where = {"layer": layers, "head": heads}
    cosines = {(a, b): (units[a] * units[b]).sum(axis=2).flatten() for a, b in compared}
    parts = [pd.DataFrame({"a": a, "b": b, **where, "cosine": cosine}) for (a, b), cosine in cosines.items()]
    return pd.concat(parts, ignore_index=True)
