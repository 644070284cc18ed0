r"""Pairwise interaction: what two heads do together beyond what each does by itself.

.. math:: \Delta_{ij}(T) = v(T \cup \{i, j\}) - v(T \cup \{i\}) - v(T \cup \{j\}) + v(T)

Positive: together they are more than the sum, as heads that need each other. Negative: they are less, as helpful heads that
can replace each other (two redundant harmful heads have a positive interaction). Probability and accuracy end at 1, so that
heads which add up exactly on the gap look redundant on them: look at the gap first. The interaction depends on which other
heads :math:`T` are already written:

- ``alone``: none, :math:`T = \emptyset`;
- ``within``: all others of the set, :math:`T = N \setminus \{i, j\}`;
- ``shapley``: the average over all :math:`T`, each size equally likely, which is the Shapley interaction index (Grabisch and
  Roubens, International Journal of Game Theory 28, 1999).

Few heads are enumerated. More are sampled by random orders: heads that follow each other in a random order are a random
pair, and those before them a random :math:`T` of every size equally often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.grid import Heads, measured, on_grid
from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, criterion_of, outcomes_of
from arm_lens.attribution.result import Estimates
from arm_lens.attribution.shapley import BLOCK, ENUMERATED, enumerated, every_set
from arm_lens.display import Figure, card, frame_table, frame_text, small_print
from arm_lens.heads import Head

Context = Literal["shapley", "within", "alone"]
LEAST_SEEN = 8
"""Times a pair comes up before its standard error is trusted to stop by: two or three may agree by chance."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Interactions(Estimates):
    """The interaction of each two heads of a set, ``[player player]``; positive: together more than the sum.

    Values and errors are symmetric, and not a number on the diagonal.
    """

    context: Context
    heads: tuple[Head, ...]

    def matrix(self, outcome: Outcome = "gap") -> pd.DataFrame:
        """Heads by heads, for an outcome that was measured."""
        names = [str(head) for head in self.heads]
        return pd.DataFrame(self._values(outcome, "interactions").numpy(), index=names, columns=names)

    def plot(self) -> Figure:
        """The matrix of heads by heads on the verdict gap: `arm_lens.plots.interaction_matrix`."""
        from arm_lens.plots import interaction_matrix  # plotly is optional

        return interaction_matrix(self)

    def __repr__(self) -> str:
        of = f" of {self.criterion!r}" if self.criterion else ""
        rows = self.matrix().round(3)
        return f"Interactions{of} ({self.context}) on gap, n = {self.n}\n{frame_text(rows)}"

    def _repr_html_(self) -> str:
        facts = {"criterion": self.criterion or None, "context": self.context, "n": self.n}
        parts = [part for outcome in self.values for part in (small_print(outcome), frame_table(self.matrix(outcome)))]
        return card("Interactions of pairs of heads", facts, *parts)

    def frame(self) -> pd.DataFrame:
        """Tidy table, a row per outcome and pair.

        Columns: criterion, context, outcome, layer_a, head_a, layer_b, head_b, interaction, se, ci_low, ci_high (95 %,
        Student's t over clusters), sampling_se, n.
        """
        pairs = [(*a, *b) for a, b in combinations(self.heads, 2)]
        heads = pd.DataFrame(pairs, columns=["layer_a", "head_a", "layer_b", "head_b"])
        i, j = _pairs(len(self.heads))
        upper = (i * len(self.heads) + j).numpy()
        parts = [
            heads.join(self._columns(outcome, "interaction").iloc[upper].reset_index(drop=True)).assign(outcome=outcome)
            for outcome in self.values
        ]
        table = pd.concat(parts, ignore_index=True).assign(criterion=self.criterion, context=self.context)
        front = ["criterion", "context", "outcome"]
        return table[[*front, *table.columns.drop(front)]]


def interactions(
    objective: Judged,
    heads: Heads,
    *,
    layers: Sequence[int] | None = None,
    context: Context = "shapley",
    exact: bool | None = None,
    standard_error: float = 0.01,
    max_permutations: int = 10_000,
    seed: int = 0,
    criterion: str = "",
    progress: bool = False,
) -> Interactions:
    """The interaction of each two of the given heads; others are never written.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``.
        heads: two or more, a `HeadSet` such as ``reward.heads`` or (layer, head) pairs; None for all.
        layers: only the heads in these layers; by default all.
        context: which other heads of the set are written meanwhile, see `arm_lens.attribution.interaction`.
        exact: for ``shapley``, enumerate all sets (at most 16 heads); by default if there are at most 10.
        standard_error: for ``shapley``, sample until no pair's sampling error on accuracy or probability exceeds this.
        max_permutations: stop there at the latest; a random order has few of the pairs.
        seed: of the sampling.
        criterion: its name, for the frame; by default that of the examples' objective.
        progress: show a progress bar.

    Raises:
        ValueError: if there are fewer than two heads, too many to enumerate, or too few permutations to see every pair
            twice, or the context is not one of the three.
    """
    players = list(measured(objective.shape, heads, layers))
    if len(players) < 2:
        raise ValueError(f"an interaction needs two heads, not {len(players)}")
    if context not in get_args(Context):
        raise ValueError(f"the context is one of {', '.join(map(repr, get_args(Context)))}, not {context!r}")
    errors = torch.zeros(len(OUTCOMES), math.comb(len(players), 2))
    if context != "shapley":
        per_example = _in_one_context(objective, players, all_others=context == "within")
    elif len(players) <= ENUMERATED if exact is None else exact:
        per_example = _exact(objective, players, progress=progress)
    else:
        per_example, errors = _sampled(objective, players, standard_error, max_permutations, seed, progress)
    return Interactions.of(
        {outcome: _square(values, len(players)) for outcome, values in per_example.items()},
        objective.clusters,
        sampling_errors=dict(zip(OUTCOMES, _square(errors, len(players)), strict=True)),
        context=context,
        heads=tuple(players),
        criterion=criterion_of(objective, criterion),
    )


def _pairs(count: int) -> Int[Tensor, "two pair"]:
    return torch.triu_indices(count, count, offset=1)


def _square(values: Shaped[Tensor, "*batch pair"], count: int) -> Float[Tensor, "*batch player player"]:
    square = torch.full((*values.shape[:-1], count, count), torch.nan, dtype=torch.float64)
    i, j = _pairs(count)
    square[..., i, j] = square[..., j, i] = values.double()
    return square


def _in_one_context(
    objective: Judged, players: list[Head], *, all_others: bool
) -> dict[Outcome, Float[Tensor, "example pair"]]:
    """With none, or all, of the other heads written."""
    count = len(players)
    i, j = _pairs(count)
    alone = torch.eye(count, dtype=torch.bool)
    # No head, each, and each two; or all heads except those.
    changed = torch.cat([torch.zeros(1, count, dtype=torch.bool), alone, alone[i] | alone[j]])
    masks = on_grid(~changed if all_others else changed, players, objective.shape, outside=False)
    found = outcomes_of(torch.cat([objective.margins(block) for block in torch.split(masks, BLOCK)], dim=1))
    # Both contexts have the same sign: of four corners, the two with one head of the pair count negatively.
    return {
        outcome: values[:, 1 + count :] - values[:, 1 + i] - values[:, 1 + j] + values[:, :1]
        for outcome, values in found.items()
    }


def _exact(objective: Judged, players: list[Head], *, progress: bool) -> dict[Outcome, Float[Tensor, "example pair"]]:
    count = len(players)
    outcomes = enumerated(objective, players, progress=progress)  # refuses too many heads before their sets are made
    joined = every_set(count).long()
    size, sign = joined.sum(dim=1), 2 * joined - 1
    # |T|! (k - |T| - 2)! / (k - 1)! for the sets T of other heads
    weight = torch.tensor([1 / ((count - 1) * math.comb(count - 2, k)) for k in range(count - 1)], dtype=torch.float64)
    shares = [
        sign[:, i] * sign[:, j] * weight[size - joined[:, i] - joined[:, j]] for i, j in combinations(range(count), 2)
    ]
    return {outcome: torch.stack([values @ share for share in shares], dim=-1) for outcome, values in outcomes.items()}


def _sampled(
    objective: Judged, players: list[Head], standard_error: float, most: int, seed: int, progress: bool
) -> tuple[dict[Outcome, Float[Tensor, "example pair"]], Float[Tensor, "outcome pair"]]:
    """The means per pair over the orders in which its heads follow each other, and their standard errors."""
    count, generator = len(players), torch.Generator().manual_seed(seed)
    n_pairs = math.comb(count, 2)
    number = _square(torch.arange(n_pairs), count).nan_to_num().long()
    total = torch.zeros(len(OUTCOMES), len(objective), n_pairs, dtype=torch.float64)
    squares, seen = torch.zeros(len(OUTCOMES), n_pairs, dtype=torch.float64), torch.zeros(n_pairs)
    errors = torch.full_like(squares, math.inf)
    size, done = max(1, BLOCK // (2 * count)), 0
    with tqdm(desc="interactions", unit="order", disable=not progress) as bar:
        while done < most and not bool((errors[:2] <= standard_error).all() and (seen >= LEAST_SEEN).all()):
            block = min(size, most - done)
            orders = torch.rand(block, count, generator=generator).argsort(dim=1)
            before = orders.argsort(dim=1)[:, None] < torch.arange(count + 1)[:, None]  # [order, size 0 .. k, player]
            # T and the second of the two, without the first
            swapped = before[:, :-2] | torch.nn.functional.one_hot(orders[:, 1:], count).bool()
            masks = on_grid(torch.cat([before, swapped], dim=1), players, objective.shape, outside=False).flatten(0, 1)
            here = number[orders[:, :-1], orders[:, 1:]].flatten()
            for index, values in enumerate(outcomes_of(objective.margins(masks)).values()):
                of_set = rearrange(values, "example (order set) -> example order set", order=block)
                chain, skipped = of_set[:, :, : count + 1], of_set[:, :, count + 1 :]
                change = (chain[:, :, 2:] - chain[:, :, 1:-1] - skipped + chain[:, :, :-2]).flatten(1)
                total[index].index_add_(1, here, change)
                squares[index].index_add_(0, here, change.mean(dim=0).square())
            seen += torch.bincount(here, minlength=n_pairs)
            variance = (squares / seen - (total.mean(dim=1) / seen).square()).clamp(min=0) / (seen - 1)
            errors = torch.where(seen > 1, variance.sqrt(), math.inf)
            done += block
            bar.update(block)
            bar.set_postfix(standard_error=f"{float(errors[:2].max()):.4f}")
    if unseen := int((seen < 2).sum()):
        raise ValueError(
            f"{done} orders are too few for {count} heads: {unseen} of {n_pairs} pairs came up less than twice"
        )
    return dict(zip(OUTCOMES, total / seen, strict=True)), errors
