r"""Causal head gating: which heads a task needs, which make no difference, and which disturb it.

Every head has a gate :math:`g = \sigma(\theta)` (Nam et al., arXiv 2505.13737). The gates of all heads together are fitted to
the labels by gradient, as in `arm_lens.selection.SoftGate`: first without a penalty; and from there once with a reward for
each open gate, which gives :math:`G^+`, and once with a penalty, which gives :math:`G^-`. A head that is open under both is
*facilitating*: it gains more than the penalty. One that is open under only one is *irrelevant*: it gains or costs less than
that. One that is closed under both is *interfering*: it costs more than the reward.

The score is :math:`G^+ + G^- - 1`: 1 for a facilitating head, 0 for an irrelevant one, -1 for an interfering one. It is what
a search ended in and not an effect on an outcome; so its outcome is ``search``, as for selection probabilities.

Gates are of

- ``injection``: how far a head is moved to what the objective writes there. Open means written.
- ``zero`` or ``mean``: how much of the head of the unsteered model is left, the rest being 0 or the head's mean over these
  questions, at the last token. Open means left as it is (for ``zero``, the gates of the paper).

Roles depend on the other heads. Of two heads that can replace each other, one is facilitating and the other irrelevant, and
which one depends on where a fit starts. So there are several fits, each from random gates and on a sample of the clusters of
examples with repetition. The shares of fits in which a head has each role distinguish a redundant head, which is
facilitating in some fits, from one that makes no difference in any. The spread over fits is also the standard error of the
score.

Where the paper subtracts the sum of clipped logits, here the penalty is proportional to the gate, so that a gate closes
if the rest of the reward gains less by it than the penalty.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.attribution.grid import Heads, measured
from arm_lens.attribution.outcomes import criterion_of, towards_right
from arm_lens.attribution.result import Attribution
from arm_lens.display import counted
from arm_lens.engine.gates import gated_slopes
from arm_lens.engine.steering import Injection
from arm_lens.heads import HeadScores
from arm_lens.selection.objective import JudgingObjective
from arm_lens.selection.soft_gate import SoftGate

GatesOf: TypeAlias = Literal["injection", "zero", "mean"]
Role: TypeAlias = Literal["facilitating", "irrelevant", "interfering"]
ROLES: tuple[Role, ...] = get_args(Role)
OPEN = 0.5
"""A gate that is more open than this counts as open."""
CHANGED_AT_FIRST = 13
"""Fits start with gates that change the model by about so many heads; at most half of all heads."""
SPREAD = 1.0
"""Standard deviation of the random logits that fits start from."""
MOST = 4.0
"""Logits are clipped to this between fits, so that gates which are all but decided can change again."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadGating(Attribution):
    """The gates that the fits ended in, and what role they give each head."""

    gates_open: Float[Tensor, "fit layer head"]
    """With a reward for open gates; not a number at heads that have no gate."""
    gates_closed: Float[Tensor, "fit layer head"]
    """With a penalty for open gates."""

    def roles(self) -> pd.DataFrame:
        """Tidy table, a row per head that has a gate.

        Columns: criterion, layer, head, gate_open and gate_closed (means over fits), role (that of most fits; of two with
        as many fits, the first in the order of the next columns), facilitating, irrelevant, interfering (shares of fits),
        n_fits.
        """
        means = {"gate_open": self.gates_open.mean(dim=0), "gate_closed": self.gates_closed.mean(dim=0)}
        opened, closed = self.gates_open > OPEN, self.gates_closed > OPEN
        shares = {
            "facilitating": (opened & closed).double().mean(dim=0),
            "irrelevant": (opened ^ closed).double().mean(dim=0),
            "interfering": (~opened & ~closed).double().mean(dim=0),
        }
        table = HeadScores("", means["gate_open"]).frame()[["layer", "head"]]
        table = table.assign(**{name: values.flatten().numpy() for name, values in means.items()})
        role = torch.stack(list(shares.values())).argmax(dim=0).flatten()
        table["role"] = [ROLES[number] for number in role.tolist()]
        table = table.assign(**{name: values.flatten().numpy() for name, values in shares.items()})
        table = table.assign(n_fits=len(self.gates_open)).dropna(subset=["gate_open"]).reset_index(drop=True)
        table.insert(0, "criterion", self.criterion)
        return table

    def __repr__(self) -> str:
        counts = self.roles()["role"].value_counts()
        roles = ", ".join(f"{counts.get(role, 0)} {role}" for role in ROLES)
        return f"{super().__repr__()}\n  {roles}, by {counted(len(self.gates_open), 'fit')}"


def head_gating(
    objective: JudgingObjective,
    gates: GatesOf = "injection",
    *,
    heads: Heads = None,
    layers: Sequence[int] | None = None,
    fits: int = 8,
    penalty: float | None = None,
    steps: int = 40,
    learning_rate: float = 0.3,
    seed: int = 0,
    criterion: str = "",
    progress: bool = False,
) -> HeadGating:
    """Fit the gates of all heads three times, from several starts side by side, and score each head by its role.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``. What is maximised is the two-way log-probability
            of the right verdict, whatever the objective's own reward is.
        gates: what they gate: ``injection``, or what is left of the unsteered head, ``zero`` or ``mean``.
        heads: which heads have a gate, a `HeadSet` or (layer, head) pairs; by default all. The others are neither written
            nor removed, and have no value: a restriction may thus change roles.
        layers: which layers have gates; by default all.
        fits: random starts, each on a sample of the clusters of examples; at least 2.
        penalty: of an open gate, in nats, with either sign; by default the head penalty of searches, `Search.penalty`.
        steps: of each of the three fits.
        learning_rate: of Adam, on logits.
        seed: of starts and samples.
        criterion: its name, for the frame; by default that of the examples' objective.
        progress: show bars.

    Returns:
        Measure ``head_gating`` (``head_gating_zero``, ``head_gating_mean``), outcome ``search``. ``errors`` is the standard
        deviation over fits, a bootstrap estimate over clusters of examples; ``sampling_errors``, it divided by the square
        root of the number of fits.

    Raises:
        ValueError: if an option is unknown, or there are fewer than two fits.
    """
    if gates not in get_args(GatesOf):
        raise ValueError(f"gates are of {', '.join(map(repr, get_args(GatesOf)))}, not {gates!r}")
    if fits < 2:
        raise ValueError(f"head gating takes at least 2 fits, to show how far roles depend on the start; not {fits}")
    eligible = measured(objective.shape, heads, layers).mask
    generator = torch.Generator().manual_seed(seed)
    gated = _Gated(objective, gates, eligible, _resampled(objective.clusters, fits, generator))
    search = SoftGate(steps=steps, learning_rate=learning_rate)
    price = search.penalty(objective.shape) if penalty is None else penalty
    changed = math.log(1 / max(0.5, 1 - CHANGED_AT_FIRST / int(eligible.sum())) - 1)
    start = (changed if gates == "injection" else -changed) + SPREAD * torch.randn(
        fits, *objective.shape, generator=generator
    )
    free, _ = search.climb(gated, start, eligible, 0.0, generator, progress=progress)
    free = free.clamp(-MOST, MOST)
    found = []
    for sign in (-1, 1):
        logits, _ = search.climb(gated, free, eligible, sign * price, generator, progress=progress)
        found.append(torch.sigmoid(logits).masked_fill(~eligible, torch.nan))
    scores = (found[0] + found[1] - 1).double()
    spread = scores.std(dim=0)
    return HeadGating(
        measure="head_gating" if gates == "injection" else f"head_gating_{gates}",
        values={"search": scores.mean(dim=0)},
        errors={"search": spread},
        sampling_errors={"search": spread / math.sqrt(fits)},
        n=len(objective),
        n_clusters=len(set(objective.clusters)),
        criterion=criterion_of(objective, criterion),
        gates_open=found[0],
        gates_closed=found[1],
    )


class _Gated:
    """Labelled examples as the reward of several settings of all gates at once, weighted for each setting."""

    def __init__(
        self,
        objective: JudgingObjective,
        gates: GatesOf,
        eligible: Bool[Tensor, "layer head"],
        weights: Float[Tensor, "example fit"],
    ) -> None:
        self.objective, self.eligible, self.weights = objective, eligible, weights
        self.removing = gates != "injection"
        self.replay, self.values = objective.replay, objective.values
        if self.removing:
            self.replay = self.replay.with_injection(Injection())
            none = torch.zeros(1, *objective.shape, dtype=torch.bool)
            mean = self.replay.hook_z(none, self.values)[:, 0].mean(dim=0)
            self.values = mean if gates == "mean" else torch.zeros_like(mean)

    def gated(self, gates: Float[Tensor, "fit layer head"]) -> Float[Tensor, "example fit"]:
        """The weighted reward of each example under each setting, with its gradient."""
        written = (1 - gates) * self.eligible if self.removing else gates
        slopes, gaps = gated_slopes(self.replay, self.values, written.detach())
        # To first order around the gates themselves, where it is exact: a number with a gradient, and no graph of a pass.
        gaps = gaps + torch.einsum("f l h, e f l h -> e f", written - written.detach(), slopes)
        return self.weights * torch.nn.functional.logsigmoid(towards_right(gaps, self.objective.labels))


def _resampled(clusters: Sequence[Hashable], fits: int, generator: torch.Generator) -> Float[Tensor, "example fit"]:
    """How often each example counts in each fit, for as many clusters as there are, sampled with repetition; 1 on average."""
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    picked = torch.randint(len(number), (fits, len(number)), generator=generator)
    times = torch.zeros(fits, len(number)).scatter_add_(1, picked, torch.ones(picked.shape))
    weights = times.T[[number[cluster] for cluster in clusters]]
    return weights / weights.mean(dim=0)
