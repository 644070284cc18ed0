r"""Shapley values of heads: the effect of a set, shared among its heads fairly.

.. math:: \phi(h) = \frac{1}{k!} \sum_{\pi} \left[ v(P_\pi(h) \cup \{h\}) - v(P_\pi(h)) \right]

where :math:`P_\pi(h)` are the heads before :math:`h` in the order :math:`\pi` and :math:`v(S)` is the outcome while the
means are written at the heads in :math:`S` (Shapley, 1953). They add up to the effect of all heads together,
:math:`v(N) - v(\emptyset)`; redundant heads share, heads that do nothing get nothing.

Few heads are enumerated: all :math:`2^k` sets. More are sampled: random orders, each with its reverse (antithetic pairs;
Mitchell et al., JMLR 23(43), 2022), whose marginal contributions average to :math:`\phi` without bias and add up to the
total for any number of orders. One order of 48 heads takes 47 masks on the replay. The same masks give all outcomes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.grid import Heads, measured, on_grid
from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, criterion_of, outcomes_of
from arm_lens.attribution.result import Attribution
from arm_lens.engine.tokens import chunks
from arm_lens.heads import Head, HeadSet
from arm_lens.storage import digest_of, read_sealed, write_sealed

MOST_ENUMERATED = 16
ENUMERATED = 10
"""So many heads and fewer are enumerated by default."""
BLOCK = 1024
"""Masks in one call, about."""
TARGETS: tuple[Outcome, ...] = ("accuracy", "probability")
PROBES = 4
"""Random masks by which a checkpoint recognises its examples and means."""
LEAST_PAIRS = 16
"""Antithetic pairs before a standard error is trusted to stop by: two or three may agree by chance."""
NOBODY = "there are no heads to share an effect among"


def shapley_values(
    objective: Judged,
    heads: Heads = None,
    *,
    layers: Sequence[int] | None = None,
    exact: bool | None = None,
    standard_error: float = 0.01,
    max_permutations: int = 10_000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    criterion: str = "",
    progress: bool = False,
) -> Attribution:
    """The Shapley value of each head among ``heads``; heads outside are never written and have no value.

    A restriction to some heads or layers is thus another game, which is played by those heads only: values change with it.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: the players, a `HeadSet` or (layer, head) pairs; by default every head of the model.
        layers: the players' layers; by default all.
        exact: enumerate all sets (at most 16 heads); by default if there are at most 10.
        standard_error: sample until no head's sampling error on accuracy or on probability exceeds this. (The gap, in
            logits, has a scale of its own; its errors are reported.)
        max_permutations: stop there at the latest.
        seed: of the orders.
        checkpoint: a file that stores the samples; if it exists, sampling continues from it.
        criterion: its name, for the frame; by default that of the examples' objective.
        progress: show a progress bar.

    Raises:
        ValueError: if there are no heads, or too many to enumerate, or the checkpoint is of something else.
        DamagedFileError: if the checkpoint was changed since it was written.
    """
    players = measured(objective.shape, heads, layers)
    if exact or (exact is None and len(players) <= ENUMERATED):
        return exact_shapley_values(objective, players, criterion=criterion, progress=progress)
    sampler = ShapleySampler(objective, players, seed=seed)
    if checkpoint is not None and Path(checkpoint).exists():
        sampler.load(checkpoint)
    with tqdm(desc="Shapley values", unit="order", initial=sampler.permutations, disable=not progress) as bar:
        while sampler.permutations < max_permutations and not sampler.settled(standard_error):
            sampler.sample(min(sampler.block, max_permutations - sampler.permutations))
            if checkpoint is not None:
                sampler.save(checkpoint)
            bar.update(sampler.permutations - bar.n)
            bar.set_postfix(standard_error=f"{sampler.largest_error():.4f}")
    return sampler.result(criterion=criterion)


class ShapleySampler:
    """Shapley values by permutation sampling, a few orders at a time; samples accumulate over calls.

    Args:
        objective: labelled examples.
        heads: the players, at least one.
        seed: of the orders.
    """

    def __init__(self, objective: Judged, heads: HeadSet, *, seed: int = 0) -> None:
        if not len(heads):
            raise ValueError(NOBODY)
        self.objective, self.heads, self.seed = objective, heads, seed
        self.players: list[Head] = list(heads)
        ends = torch.stack([torch.zeros_like(heads.mask), heads.mask])
        self._ends = outcomes_of(objective.margins(ends))
        self._generator_state = torch.Generator().manual_seed(seed).get_state()
        shape = (len(OUTCOMES), len(objective), len(self.players))
        self._sum = torch.zeros(shape, dtype=torch.float64)
        self._squares = torch.zeros(len(OUTCOMES), len(self.players), dtype=torch.float64)
        self._pairs = 0

    @property
    def permutations(self) -> int:
        """Orders sampled so far, reverses included."""
        return 2 * self._pairs

    @property
    def block(self) -> int:
        """Orders that make up about one block of masks."""
        return 2 * max(1, BLOCK // (2 * max(len(self.players) - 1, 1)))

    def sample(self, permutations: int) -> None:
        """Add so many more orders (rounded up to pairs)."""
        for span in chunks(-(-permutations // 2), self.block // 2):
            self._sample_pairs(span.stop - span.start)

    def _sample_pairs(self, pairs: int) -> None:
        generator = torch.Generator()
        generator.set_state(self._generator_state)  # interrupted orders do not count
        orders = torch.rand(pairs, len(self.players), generator=generator).argsort(dim=1)
        orders = torch.cat([orders, orders.flip(1)])  # the reverse of each order comes `pairs` later
        joined = orders.argsort(dim=1)[:, None] < torch.arange(1, len(self.players))[:, None]
        masks = on_grid(joined, self.players, self.objective.shape, outside=False).flatten(0, 1)
        margins = self.objective.margins(masks) if len(masks) else torch.empty(len(self.objective), 0)
        for index, (outcome, values) in enumerate(outcomes_of(margins).items()):
            inner = rearrange(values, "example (order size) -> example order size", order=2 * pairs)
            first, last = (repeat(end, "example -> example order 1", order=2 * pairs) for end in self._ends[outcome].T)
            steps = torch.cat([first, inner, last], dim=2).diff(dim=2)
            # From positions in an order to the players that stand there.
            marginal = torch.empty_like(steps).scatter_(2, orders.expand_as(steps), steps)
            self._sum[index] += marginal.sum(dim=1)
            of_pairs = reduce(marginal, "example (two pair) player -> pair player", "mean", two=2)
            self._squares[index] += of_pairs.square().sum(dim=0)
        self._pairs, self._generator_state = self._pairs + pairs, generator.get_state()

    def errors(self) -> Float[Tensor, "outcome player"]:
        """Standard errors by sampling; infinite before two antithetic pairs."""
        if self._pairs < 2:
            return torch.full_like(self._squares, math.inf)
        mean = self._sum.mean(dim=1) / self.permutations
        variance = (self._squares / self._pairs - mean.square()).clamp(min=0) * self._pairs / (self._pairs - 1)
        return (variance / self._pairs).sqrt()

    def largest_error(self) -> float:
        """The largest standard error of any player on accuracy or probability."""
        return float(self.errors()[[OUTCOMES.index(outcome) for outcome in TARGETS]].max())

    def settled(self, standard_error: float) -> bool:
        """Whether the largest error is at most this, after enough orders to believe it."""
        return self._pairs >= LEAST_PAIRS and self.largest_error() <= standard_error

    def result(self, *, criterion: str = "") -> Attribution:
        """The estimates so far, after at least one call of `sample`."""
        if not self._pairs:
            raise ValueError("no order was sampled yet")
        mean, errors = (
            dict(zip(OUTCOMES, on_grid(values, self.players, self.objective.shape), strict=True))
            for values in (self._sum / self.permutations, self.errors())
        )
        about = {"measure": "shapley", "criterion": criterion_of(self.objective, criterion)}
        return Attribution.of(mean, self.objective.clusters, sampling_errors=errors, **about)

    def save(self, path: str | Path) -> None:
        """Write the samples to a file; an old one is replaced, whole or not at all."""
        state = {"of": self._digest(), "probe": self._probe, "sum": self._sum, "squares": self._squares}
        buffer = io.BytesIO()
        torch.save(state | {"pairs": self._pairs, "generator": self._generator_state}, buffer)
        write_sealed(path, buffer.getvalue())

    def load(self, path: str | Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            ValueError: if it was sampled for other heads, examples, means or another seed.
            DamagedFileError: naming the file, if it was changed since it was written.
        """
        state = torch.load(io.BytesIO(read_sealed(path)), weights_only=True)
        ours, theirs = self._probe, state.get("probe")
        if (
            state.get("of") != self._digest()
            or ours.shape != theirs.shape
            or not torch.allclose(ours, theirs, atol=0.02, rtol=0.02)  # batches change its last digits
        ):
            raise ValueError(f"{path} has Shapley values of other heads, examples, means or another seed")
        self._sum, self._squares, self._pairs = state["sum"], state["squares"], state["pairs"]
        self._generator_state = state["generator"]

    @cached_property
    def _probe(self) -> Float[Tensor, "example mask"]:
        """The gaps under no heads, all heads and a few sets of them, which depend on examples, means and model."""
        rolls = torch.rand(PROBES, *self.heads.mask.shape, generator=torch.Generator().manual_seed(0))
        return torch.cat([self._ends["gap"], self.objective.margins((rolls < 0.5) & self.heads.mask)], dim=1)

    def _digest(self) -> str:
        return digest_of([self.heads.to_list(), list(self.objective.shape), list(OUTCOMES), self.seed])


def exact_shapley_values(
    objective: Judged, heads: HeadSet, *, criterion: str = "", progress: bool = False
) -> Attribution:
    """The Shapley values from all 2^k sets of 1 to 16 heads."""
    if not len(heads):
        raise ValueError(NOBODY)
    players, count = list(heads), len(heads)
    outcomes = enumerated(objective, players, progress=progress)  # refuses too many heads before their sets are made
    joined = every_set(count).long()
    # |S|! (k - |S| - 1)! / k! for the sets S of other heads, added with the player and subtracted without.
    weight = torch.tensor([1 / (count * math.comb(count - 1, k)) for k in range(count)], dtype=torch.float64)
    shares = (2 * joined - 1) * weight[joined.sum(dim=1, keepdim=True) - joined]
    found = {outcome: on_grid(values @ shares, players, objective.shape) for outcome, values in outcomes.items()}
    return Attribution.of(found, objective.clusters, measure="shapley", criterion=criterion_of(objective, criterion))


def enumerated(
    objective: Judged, players: list[Head], *, progress: bool = False
) -> dict[Outcome, Float[Tensor, "example set"]]:
    """The outcomes of `every_set` of 1 to 16 players."""
    if not 1 <= len(players) <= MOST_ENUMERATED:
        raise ValueError(f"1 to {MOST_ENUMERATED} heads can be enumerated, not {len(players)}")
    masks = on_grid(every_set(len(players)), players, objective.shape, outside=False)
    blocks = tqdm(torch.split(masks, BLOCK), desc="sets of heads", unit="block", disable=not progress, leave=False)
    return outcomes_of(torch.cat([objective.margins(block) for block in blocks], dim=1))


def every_set(count: int) -> Bool[Tensor, "set player"]:
    """All sets of so many players: set s has player i if bit i of s is 1."""
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1
