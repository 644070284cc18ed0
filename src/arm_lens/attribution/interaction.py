r"""Pairwise interaction: what two heads do together beyond what each does by itself.

.. math:: \Delta_{ij}(T) = v(T \cup \{i, j\}) - v(T \cup \{i\}) - v(T \cup \{j\}) + v(T)

Positive: together they are more than the sum, as heads that need each other; negative: they are less, as helpful heads that
stand in for each other (of two harmful ones, redundancy is positive: the second does no further harm). Probability and
accuracy end at 1, so that heads which add up exactly on the gap look redundant on them: look at the gap first. What it is
depends on which other heads :math:`T` are written already:

- ``alone``: none, :math:`T = \emptyset`;
- ``within``: all others of the set, :math:`T = N \setminus \{i, j\}`;
- ``shapley``: the average over all :math:`T`, each size equally likely, which is the Shapley interaction index (Grabisch and
  Roubens, International Journal of Game Theory 28, 1999).

Few heads are enumerated. More are sampled by random orders: heads that follow each other in a random order are a random
pair, and those before them a random :math:`T` of every size equally often.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.outcomes import OUTCOMES, Judged, Outcome, outcomes_of
from arm_lens.attribution.result import LEVEL, clustered_error
from arm_lens.attribution.shapley import BLOCK, ENUMERATED, enumerated, every_set, masks_of
from arm_lens.display import card, frame_table, frame_text, small_print
from arm_lens.heads import Head, HeadSet

Context = Literal["shapley", "within", "alone"]
LEAST_SEEN = 8
"""Times a pair comes up before its standard error is trusted to stop by: two or three may agree by chance."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """The interaction of each two heads of a set; positive: together more than the sum."""

    context: Context
    heads: tuple[Head, ...]
    values: Mapping[Outcome, Float[Tensor, "player player"]]
    """Symmetric; not a number on the diagonal."""
    errors: Mapping[Outcome, Float[Tensor, "player player"]]
    """Standard errors as estimates for other examples of their kind, sampling included."""
    sampling_errors: Mapping[Outcome, Float[Tensor, "player player"]]
    """Standard errors by sampling alone; 0 where nothing was sampled."""
    n: int
    """Examples."""
    n_clusters: int
    criterion: str = ""

    def matrix(self, outcome: Outcome = "gap") -> pd.DataFrame:
        """Heads by heads.

        Raises:
            ValueError: if the outcome was not measured.
        """
        if outcome not in self.values:
            raise ValueError(f"interactions were measured on {', '.join(map(repr, self.values))}, not on {outcome!r}")
        names = [str(head) for head in self.heads]
        return pd.DataFrame(self.values[outcome].numpy(), index=names, columns=names)

    def __repr__(self) -> str:
        of = f" of {self.criterion!r}" if self.criterion else ""
        shown = "gap" if "gap" in self.values else next(iter(self.values))
        rows = self.matrix(shown).round(3)
        return f"Interactions{of} ({self.context}) on {shown}, n = {self.n}\n{frame_text(rows)}"

    def _repr_html_(self) -> str:
        facts = {"criterion": self.criterion or None, "context": self.context, "n": self.n}
        parts = [part for outcome in self.values for part in (small_print(outcome), frame_table(self.matrix(outcome)))]
        return card("Interactions of pairs of heads", facts, *parts)

    def frame(self) -> pd.DataFrame:
        """Tidy table, a row per outcome and pair.

        Columns: criterion, context, outcome, layer_a, head_a, layer_b, head_b, interaction, se, ci_low, ci_high (95 %,
        Student's t over clusters), sampling_se, n.
        """
        quantile = float(stats.t.ppf((1 + LEVEL) / 2, max(self.n_clusters - 1, 1)))
        rows = []
        for outcome in self.values:
            for i, j in combinations(range(len(self.heads)), 2):
                value, error = float(self.values[outcome][i, j]), float(self.errors[outcome][i, j])
                rows.append(
                    {
                        "criterion": self.criterion,
                        "context": self.context,
                        "outcome": outcome,
                        "layer_a": self.heads[i].layer,
                        "head_a": self.heads[i].head,
                        "layer_b": self.heads[j].layer,
                        "head_b": self.heads[j].head,
                        "interaction": value,
                        "se": error,
                        "ci_low": value - quantile * error,
                        "ci_high": value + quantile * error,
                        "sampling_se": float(self.sampling_errors[outcome][i, j]),
                        "n": self.n,
                    }
                )
        return pd.DataFrame(rows)


def interactions(
    objective: Judged,
    heads: HeadSet,
    *,
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
        heads: two or more, e.g. ``reward.heads``.
        context: which other heads of the set are written meanwhile, see above.
        exact: for ``shapley``, enumerate all sets (at most 16 heads); by default if there are at most 10.
        standard_error: for ``shapley``, sample until no pair's sampling error on accuracy or probability exceeds this.
        max_permutations: stop there at the latest; a random order shows few of the pairs.
        seed: of the sampling.
        criterion: its name, for the frame.
        progress: show a progress bar.

    Raises:
        ValueError: if there are fewer than two heads, too many to enumerate, or too few permutations to see every pair
            twice, or the context is none of the three.
    """
    if len(heads) < 2:
        raise ValueError(f"an interaction needs two heads, not {len(heads)}")
    if context not in get_args(Context):
        raise ValueError(f"the context is one of {', '.join(map(repr, get_args(Context)))}, not {context!r}")
    players = list(heads)
    sampled: Float[Tensor, "outcome pair"] | None = None
    if context != "shapley":
        per_example = _in_one_context(objective, players, everybody=context == "within")
    elif len(players) <= ENUMERATED if exact is None else exact:
        per_example = _exact(objective, players, progress=progress)
    else:
        per_example, sampled = _sampled(objective, players, standard_error, max_permutations, seed, progress)
    return _gathered(context, players, per_example, sampled, objective.clusters, criterion)


def _pairs(count: int) -> Tensor:
    return torch.combinations(torch.arange(count))


def _in_one_context(
    objective: Judged, players: list[Head], *, everybody: bool
) -> dict[Outcome, Float[Tensor, "example pair"]]:
    """With none, or all, of the other heads written."""
    pairs, count = _pairs(len(players)), len(players)
    alone = torch.eye(count, dtype=torch.bool)
    # Nobody, each, and each two; or everybody but those.
    changed = torch.cat([torch.zeros(1, count, dtype=torch.bool), alone, alone[pairs[:, 0]] | alone[pairs[:, 1]]])
    masks = masks_of(~changed if everybody else changed, players, objective.shape)
    found = outcomes_of(torch.cat([objective.margins(block) for block in torch.split(masks, BLOCK)], dim=1))
    # Both signs are the same: of four corners, the two with one of the pair count negatively.
    return {
        outcome: values[:, 1 + count :] - values[:, 1 + pairs[:, 0]] - values[:, 1 + pairs[:, 1]] + values[:, :1]
        for outcome, values in found.items()
    }


def _exact(objective: Judged, players: list[Head], *, progress: bool) -> dict[Outcome, Float[Tensor, "example pair"]]:
    values = enumerated(objective, players, progress=progress)
    count = len(players)
    joined = every_set(count)
    size = joined.sum(dim=1)
    # |T|! (k - |T| - 2)! / (k - 1)! for the sets T without the two
    weight = torch.tensor([1 / ((count - 1) * math.comb(count - 2, k)) for k in range(count - 1)], dtype=torch.float64)
    found: dict[Outcome, Tensor] = {}
    for outcome, of_set in values.items():
        columns = []
        for i, j in _pairs(count).tolist():
            others = (~joined[:, i] & ~joined[:, j]).nonzero().flatten()
            a, b = 2**i, 2**j
            change = of_set[:, others + a + b] - of_set[:, others + a] - of_set[:, others + b] + of_set[:, others]
            columns.append(change @ weight[size[others]])
        found[outcome] = torch.stack(columns, dim=-1)
    return found


def _sampled(
    objective: Judged, players: list[Head], standard_error: float, most: int, seed: int, progress: bool
) -> tuple[dict[Outcome, Float[Tensor, "example pair"]], Float[Tensor, "outcome pair"]]:
    """The means per pair over the orders in which its heads follow each other, and their standard errors."""
    count, generator = len(players), torch.Generator().manual_seed(seed)
    pairs = _pairs(count)
    number = torch.zeros(count, count, dtype=torch.long)
    number[pairs[:, 0], pairs[:, 1]] = number[pairs[:, 1], pairs[:, 0]] = torch.arange(len(pairs))
    total = torch.zeros(len(OUTCOMES), len(objective), len(pairs), dtype=torch.float64)
    squares, seen = torch.zeros(len(OUTCOMES), len(pairs), dtype=torch.float64), torch.zeros(len(pairs))
    errors = torch.full_like(squares, math.inf)
    size, done = max(1, BLOCK // (2 * count)), 0
    with tqdm(desc="interactions", unit="order", disable=not progress) as bar:
        while done < most and not bool((errors[:2] <= standard_error).all() and (seen >= LEAST_SEEN).all()):
            block = min(size, most - done)
            orders = torch.rand(block, count, generator=generator).argsort(dim=1)
            ranks = orders.argsort(dim=1)
            before = ranks[:, None, :] < torch.arange(count + 1)[:, None]  # [order, size 0 .. k, player]
            # T and the second of the two, without the first
            swapped = before[:, :-2] | torch.nn.functional.one_hot(orders[:, 1:], count).bool()
            joined = torch.cat([before, swapped], dim=1)
            masks = rearrange(
                masks_of(joined, players, objective.shape), "order set layer head -> (order set) layer head"
            )
            here = number[orders[:, :-1], orders[:, 1:]]
            for place, values in enumerate(outcomes_of(objective.margins(masks)).values()):
                of_set = rearrange(values, "example (order set) -> example order set", order=block)
                chain, skipped = of_set[:, :, : count + 1], of_set[:, :, count + 1 :]
                change = chain[:, :, 2:] - chain[:, :, 1:-1] - skipped + chain[:, :, :-2]
                total[place].index_add_(
                    1, here.flatten(), rearrange(change, "example order two -> example (order two)")
                )
                squares[place].index_add_(0, here.flatten(), change.mean(dim=0).square().flatten())
            seen.index_add_(0, here.flatten(), torch.ones(here.numel()))
            mean = total.mean(dim=1) / seen
            variance = (squares / seen - mean.square()).clamp(min=0) / (seen - 1)
            errors = torch.where(seen > 1, variance.sqrt(), math.inf)
            done += block
            bar.update(block)
            bar.set_postfix(standard_error=f"{float(errors[:2].max()):.4f}")
    unseen = int((seen < 2).sum())
    if unseen:
        raise ValueError(
            f"{done} orders are too few for {count} heads: {unseen} of {len(pairs)} pairs came up less than twice"
        )
    return {outcome: total[place] / seen for place, outcome in enumerate(OUTCOMES)}, errors


def _gathered(
    context: Context,
    players: list[Head],
    per_example: Mapping[Outcome, Float[Tensor, "example pair"]],
    sampled: Float[Tensor, "outcome pair"] | None,
    clusters: list[Hashable],
    criterion: str,
) -> Interactions:
    values, errors, sampling = {}, {}, {}
    for place, (outcome, one) in enumerate(per_example.items()):
        by_chance = torch.zeros(one.shape[1], dtype=torch.float64) if sampled is None else sampled[place]
        error = (clustered_error(one, clusters).square() + by_chance.square()).sqrt()
        values[outcome], errors[outcome] = _square(one.mean(dim=0), len(players)), _square(error, len(players))
        sampling[outcome] = _square(by_chance, len(players))
    n, n_clusters = len(clusters), len(set(clusters))
    return Interactions(context, tuple(players), values, errors, sampling, n, n_clusters, criterion)


def _square(values: Float[Tensor, " pair"], count: int) -> Float[Tensor, "player player"]:
    square = torch.full((count, count), float("nan"), dtype=torch.float64)
    pairs = _pairs(count)
    square[pairs[:, 0], pairs[:, 1]] = square[pairs[:, 1], pairs[:, 0]] = values
    return square
