r"""Shapley values of heads: the effect of a set, shared among its heads fairly.

.. math:: \phi(h) = \frac{1}{k!} \sum_{\pi} \left[ v(P_\pi(h) \cup \{h\}) - v(P_\pi(h)) \right]

where :math:`P_\pi(h)` are the heads before :math:`h` in the order :math:`\pi` and :math:`v(S)` is the outcome while the
means are written at the heads in :math:`S` (Shapley, 1953). They add up to the effect of all of them,
:math:`v(N) - v(\emptyset)`; redundant heads share, heads that do nothing get nothing.

Few heads are enumerated: all :math:`2^k` sets. More are sampled: random orders, each with its reverse (antithetic pairs;
Mitchell et al., JMLR 23(43), 2022), whose marginal contributions average to :math:`\phi` without bias and add up to the
total whatever the number of orders. One order of 48 heads takes 47 masks on the replay. All outcomes come out of the same
masks.
"""

from __future__ import annotations

import io
import math
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, outcomes_of
from arm_lens.attribution.result import Attribution
from arm_lens.heads import Head, HeadSet
from arm_lens.storage import digest_of, read_sealed, write_sealed

MOST_ENUMERATED = 16
ENUMERATED = 10
"""So many heads and fewer are enumerated without asking."""
BLOCK = 1024
"""Masks asked for at a time, about."""
TARGETS: tuple[Outcome, ...] = ("accuracy", "probability")
PROBES = 4
"""Random masks by which a checkpoint tells other examples and means."""
LEAST_PAIRS = 16
"""Antithetic pairs before a standard error is trusted to stop by: two or three may agree by chance."""
NOBODY = "there are no heads to share an effect among"


def shapley_values(
    objective: Judged,
    heads: HeadSet | None = None,
    *,
    exact: bool | None = None,
    standard_error: float = 0.01,
    max_permutations: int = 10_000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    criterion: str = "",
    progress: bool = False,
) -> Attribution:
    """The Shapley value of each head among ``heads``; heads outside are never written and have no value.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: the players; by default every head of the model.
        exact: enumerate all sets (at most 16 heads); by default if there are at most 10.
        standard_error: sample until no head's sampling error on accuracy or on probability exceeds this. (The gap, in
            logits, has a scale of its own; its errors are reported.)
        max_permutations: stop there at the latest.
        seed: of the orders.
        checkpoint: a file in which what was sampled is kept; if it is there, sampling goes on from it.
        criterion: its name, for the frame.
        progress: show a progress bar.

    Raises:
        ValueError: if there are no heads, or too many to enumerate, or the checkpoint is of something else.
        DamagedFileError: if the checkpoint was changed since it was written.
    """
    heads = HeadSet.all(*objective.shape) if heads is None else heads
    if exact or (exact is None and len(heads) <= ENUMERATED):
        return exact_shapley_values(objective, heads, criterion=criterion, progress=progress)
    sampler = ShapleySampler(objective, heads, seed=seed)
    if checkpoint is not None and Path(checkpoint).exists():
        sampler.load(checkpoint)
    with tqdm(desc="Shapley values", unit="order", initial=sampler.permutations, disable=not progress) as bar:
        while sampler.permutations < max_permutations and not sampler.settled(standard_error):
            done = sampler.permutations
            sampler.sample(min(sampler.block, max_permutations - done))
            if checkpoint is not None:
                sampler.save(checkpoint)
            bar.update(sampler.permutations - done)
            bar.set_postfix(standard_error=f"{sampler.largest_error():.4f}")
    return sampler.result(criterion=criterion)


class ShapleySampler:
    """Shapley values by permutation sampling, a few orders at a time; what was sampled is kept between calls.

    Args:
        objective: labelled examples.
        heads: the players.
        seed: of the orders.

    Raises:
        ValueError: if there are no heads.
    """

    def __init__(self, objective: Judged, heads: HeadSet, *, seed: int = 0) -> None:
        if not len(heads):
            raise ValueError(NOBODY)
        self.objective, self.heads, self.seed = objective, heads, seed
        self.players: list[Head] = list(heads)
        ends = torch.stack([torch.zeros_like(heads.mask), heads.mask])
        self._ends = outcomes_of(objective.margins(ends))
        self._generator = torch.Generator().manual_seed(seed)
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
        """Take in so many more orders (rounded up to pairs)."""
        size = self.block // 2
        left = -(-permutations // 2)
        while left > 0:
            self._sample_pairs(min(size, left))
            left -= size

    def _sample_pairs(self, pairs: int) -> None:
        count = len(self.players)
        before = self._generator.get_state()
        try:
            keys = torch.rand(pairs, count, generator=self._generator)
            orders = keys.argsort(dim=1)
            orders = torch.cat([orders, orders.flip(1)])  # the reverse of each order comes `pairs` later
            masks = masks_of(joined_before(orders), self.players, self.objective.shape)
            flat = rearrange(masks, "order size layer head -> (order size) layer head")
            margins = self.objective.margins(flat) if len(flat) else torch.empty(len(self.objective), 0)
        except BaseException:  # interrupted: these orders were not taken in
            self._generator.set_state(before)
            raise
        for place, (outcome, values) in enumerate(outcomes_of(margins).items()):
            inner = rearrange(values, "example (order size) -> example order size", order=2 * pairs)
            first, last = (repeat(end, "example -> example order 1", order=2 * pairs) for end in self._ends[outcome].T)
            steps = torch.cat([first, inner, last], dim=2).diff(dim=2)
            # From the place in an order to the player that stands there.
            gains = torch.empty_like(steps).scatter_(2, orders.expand_as(steps), steps)
            self._sum[place] += gains.sum(dim=1)
            of_pairs = rearrange(gains.mean(dim=0), "(two pair) player -> two pair player", two=2).mean(dim=0)
            self._squares[place] += of_pairs.square().sum(dim=0)
        self._pairs += pairs

    def errors(self) -> Float[Tensor, "outcome player"]:
        """Standard errors by sampling; infinite before two antithetic pairs."""
        if self._pairs < 2:
            return torch.full_like(self._squares, math.inf)
        mean = self._mean().mean(dim=1)
        variance = (self._squares / self._pairs - mean.square()).clamp(min=0) * self._pairs / (self._pairs - 1)
        return (variance / self._pairs).sqrt()

    def largest_error(self) -> float:
        """The largest standard error of any player on accuracy or probability."""
        wanted = [OUTCOMES.index(outcome) for outcome in TARGETS]
        return float(self.errors()[wanted].max())

    def settled(self, standard_error: float) -> bool:
        """Whether the largest error is no more than this, after enough orders to believe it."""
        return self._pairs >= LEAST_PAIRS and self.largest_error() <= standard_error

    def result(self, *, criterion: str = "") -> Attribution:
        """What is known so far.

        Raises:
            ValueError: if nothing was sampled.
        """
        if not self._pairs:
            raise ValueError("no order was sampled yet")
        shape, mean = self.objective.shape, self._mean()
        errors = self.errors()
        return Attribution.of(
            "shapley",
            {outcome: on_grid(mean[place], self.players, shape) for place, outcome in enumerate(OUTCOMES)},
            self.objective.clusters,
            sampling_errors={
                outcome: on_grid(errors[place], self.players, shape) for place, outcome in enumerate(OUTCOMES)
            },
            criterion=criterion,
        )

    def _mean(self) -> Float[Tensor, "outcome example player"]:
        return self._sum / (2 * self._pairs)

    def save(self, path: str | Path) -> None:
        """Write what was sampled to a file; an old one is replaced, whole or not at all."""
        state = {"of": self._digest(), "probe": self._probe, "sum": self._sum, "squares": self._squares}
        buffer = io.BytesIO()
        torch.save(state | {"pairs": self._pairs, "generator": self._generator.get_state()}, buffer)
        write_sealed(path, buffer.getvalue())

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote.

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
            raise ValueError(f"{path} holds Shapley values of other heads, examples, means or another seed")
        self._sum, self._squares, self._pairs = state["sum"], state["squares"], state["pairs"]
        self._generator.set_state(state["generator"])

    @cached_property
    def _probe(self) -> Float[Tensor, "example mask"]:
        """What no heads, all heads and a few sets of them make of the examples: it tells examples, means and model."""
        rolls = torch.rand(PROBES, *self.heads.mask.shape, generator=torch.Generator().manual_seed(0))
        return torch.cat([self._ends["gap"], self.objective.margins((rolls < 0.5) & self.heads.mask)], dim=1)

    def _digest(self) -> str:
        """Which heads of which model's size, which outcomes, and which seed."""
        heads = [list(head) for head in self.heads]
        return digest_of([heads, list(self.objective.shape), list(OUTCOMES), self.seed])


def exact_shapley_values(
    objective: Judged, heads: HeadSet, *, criterion: str = "", progress: bool = False
) -> Attribution:
    """The Shapley values from all 2^k sets of the heads.

    Raises:
        ValueError: if there are none, or more than 16.
    """
    if not len(heads):
        raise ValueError(NOBODY)
    players = list(heads)
    values = enumerated(objective, players, progress=progress)
    count = len(players)
    joined = every_set(count)
    size = joined.sum(dim=1)
    # |S|! (k - |S| - 1)! / k! for the sets S without the player
    weight = torch.tensor([1 / (count * math.comb(count - 1, k)) for k in range(count)], dtype=torch.float64)
    found = {}
    for outcome, of_set in values.items():
        shares = []
        for player in range(count):
            without = (~joined[:, player]).nonzero().flatten()
            gains = of_set[:, without + 2**player] - of_set[:, without]
            shares.append(gains @ weight[size[without]])
        found[outcome] = on_grid(torch.stack(shares, dim=-1), players, objective.shape)
    return Attribution.of("shapley", found, objective.clusters, criterion=criterion)


def enumerated(
    objective: Judged, players: list[Head], *, progress: bool = False
) -> dict[Outcome, Float[Tensor, "example set"]]:
    """The outcomes of every set of the players; set s holds player i where bit i of s is 1.

    Raises:
        ValueError: if there are no players, or more than 16.
    """
    if not 1 <= len(players) <= MOST_ENUMERATED:
        raise ValueError(f"1 to {MOST_ENUMERATED} heads can be enumerated, not {len(players)}")
    blocks = torch.split(every_set(len(players)), BLOCK)
    parts = [
        objective.margins(masks_of(block, players, objective.shape))
        for block in tqdm(blocks, desc="sets of heads", unit="block", disable=not progress, leave=False)
    ]
    return outcomes_of(torch.cat(parts, dim=1))


def every_set(count: int) -> Bool[Tensor, "set player"]:
    """All sets of so many players: row s holds player i where bit i of s is 1."""
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1


def joined_before(orders: Int[Tensor, "order player"]) -> Bool[Tensor, "order size player"]:
    """Per order, the sets of its first 1, 2, ..., k - 1 players."""
    ranks = orders.argsort(dim=1)
    sizes = torch.arange(1, orders.shape[1])
    return ranks[:, None, :] < sizes[:, None]


def masks_of(
    joined: Bool[Tensor, "*set player"], players: list[Head], shape: tuple[int, int]
) -> Bool[Tensor, "*set layer head"]:
    """Sets of players as head masks."""
    masks = torch.zeros(*joined.shape[:-1], shape[0] * shape[1], dtype=torch.bool)
    masks[..., [layer * shape[1] + head for layer, head in players]] = joined
    return rearrange(masks, "... (layer head) -> ... layer head", layer=shape[0])


def on_grid(
    values: Float[Tensor, "*batch player"], players: list[Head], shape: tuple[int, int]
) -> Float[Tensor, "*batch layer head"]:
    """Numbers per player at their heads; not a number elsewhere."""
    grid = torch.full((*values.shape[:-1], shape[0] * shape[1]), float("nan"), dtype=values.dtype)
    grid[..., [layer * shape[1] + head for layer, head in players]] = values
    return rearrange(grid, "... (layer head) -> ... layer head", layer=shape[0])
