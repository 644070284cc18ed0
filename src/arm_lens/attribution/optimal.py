r"""Optimal constants: what a head can be replaced by at the least cost.

Zero and the mean are constants that nobody chose for the purpose: part of what their ablation costs is that they disturb
later layers. The optimal constant (Li and Janson, arXiv 2409.09951) disturbs least,

.. math:: c^*[l, m] = \arg\min_c \frac{1}{n} \sum_i L_i(z_i[l, m] \leftarrow c),

and what it costs even so is what only the differences between questions can give: the head's importance. Here
:math:`L_i = -t_i \log \sigma(g_i) - (1 - t_i) \log(1 - \sigma(g_i))`, less its least value, with :math:`g_i` the margin and
:math:`t_i` either

- ``verdicts``: the probability that the unsteered model itself gives to the right verdict, so that the cost is the
  Kullback-Leibler divergence of the two-way verdicts, at least 0; or
- ``labels``: 1, so that the cost is the log-loss, which a constant may also improve. It will wherever the model leans
  towards one verdict, because any head can write the opposite lean: then nearly every head looks harmful.

The constants of all heads are fitted at the same time, each by damped Gauss-Newton steps of its own (Levenberg and
Marquardt) from the better of zero and the mean. A step takes one pass forward and one back of as many copies of each last
token as there are heads left to fit, side by side. A constant is replaced only by one that costs less, so that it never
costs more than zero or the mean on the examples that it is fitted on. Heads for which one of the two costs no more than the
rounding of margins alone are left at that: in bfloat16 that was 1e-4 nats per example on a model of 135 M parameters, about
as much as the mean of most of its heads costs. Smaller costs say nothing; for them, load the model in float32.

A constant has d_head numbers. Fitted on not many more examples than that, it fits these one by one, and the cost on them is
a lower bound that may be close to 0 for any head. So `ablation` judges examples with constants that were fitted on others
(``folds``); `optimal_constants` gives the constants of all examples, with the lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.grid import Heads, measured, on_grid
from arm_lens.attribution.outcomes import towards_right
from arm_lens.engine.gradients import differentiating
from arm_lens.engine.memory import MASKS_PER_PASS
from arm_lens.engine.variants import Change, pieces
from arm_lens.heads import Head, HeadSet
from arm_lens.selection.objective import JudgingObjective

CostOf: TypeAlias = Literal["verdicts", "labels"]
STEPS = 8
SMALLEST_GAIN, SMALLEST_COST = 1e-2, 1e-5
"""A head is fitted once a step gains less than this share of what zero or the mean cost, or they cost no more than that (or
than rounding) in nats per example."""
DAMPING, RELIEF, LESS_HASTE, MOST_DAMPING = 1e-2, 0.3, 4.0, 1e3
"""Of Levenberg and Marquardt's steps, as a share of the mean curvature: at first; times this after a step that gained
something, and times that after one that did not; no further step is tried beyond the last."""
SOLVED_AT_ONCE = 256
"""Heads whose d_head x d_head equations are solved together."""
LONGEST_STEP = 2.0
"""Times the root mean square norm of the head's activations."""


@dataclass(frozen=True, eq=False)
class OptimalConstants:
    """The constants that cost least, and what they cost on the examples that they were fitted on."""

    values: Float[Tensor, "layer head d_head"]
    """Not a number at heads that were not fitted."""
    cost: Float[Tensor, "layer head"]
    """In nats per example; what zero and the mean cost instead is never less."""
    zero_cost: Float[Tensor, "layer head"]
    mean_cost: Float[Tensor, "layer head"]


def optimal_constants(
    objective: JudgingObjective,
    *,
    heads: Heads = None,
    layers: Sequence[int] | None = None,
    cost: CostOf = "verdicts",
    progress: bool = False,
) -> OptimalConstants:
    """Fit the constant of each head that costs least when it alone is replaced at the last token; the model is unsteered.

    Args:
        objective: labelled prompts; its ``values`` and its injection play no part.
        heads: which heads, a `HeadSet` or (layer, head) pairs; by default all.
        layers: which layers; by default all.
        cost: what is to change least, see the module.
        progress: show a bar.

    Raises:
        ValueError: if an option is unknown.
    """
    players = measured(objective.shape, heads, layers)
    fit = _Fit(objective, players, range(len(objective)), cost)
    fit.run(progress)

    def everywhere(values: Tensor) -> Tensor:
        return on_grid(values, list(players), objective.shape)

    constants = torch.stack([everywhere(one) for one in fit.constants.T], dim=-1)
    zero, mean = (everywhere(fit.mean_cost(margins)) for margins in (fit.at_zero, fit.at_mean))
    return OptimalConstants(constants, everywhere(fit.cost), zero, mean)


def margins_at_optimum(
    objective: JudgingObjective, players: HeadSet, cost: CostOf, *, folds: int, seed: int, progress: bool
) -> tuple[Float[Tensor, " example"], Float[Tensor, "example player 1"]]:
    """The margins of the unsteered model, and with each head replaced by the constant that costs least.

    Raises:
        ValueError: if there are fewer clusters of examples than folds.
    """
    if folds == 1:
        fit = _Fit(objective, players, range(len(objective)), cost)
        fit.run(progress)
        return fit.unsteered, fit.margins[..., None]
    fold_of = _folds(objective, folds, seed)
    unsteered, ablated = torch.empty(len(objective)), torch.empty(len(objective), len(players), 1)
    for fold in range(folds):
        inside = (fold_of == fold).nonzero().flatten().tolist()
        fit = _Fit(objective, players, (fold_of != fold).nonzero().flatten().tolist(), cost)
        fit.run(progress)
        unsteered[inside] = objective_margins(objective, inside)
        ablated[inside] = judged(objective, list(players), fit.constants, inside)[..., None]
    return unsteered, ablated


def _folds(objective: JudgingObjective, folds: int, seed: int) -> Int[Tensor, " example"]:
    """The fold of each example; examples of one cluster are in the same fold."""
    clusters = list(dict.fromkeys(objective.clusters))
    if not 2 <= folds <= len(clusters):
        raise ValueError(
            f"folds is 1, or from 2 to the number of clusters of examples, which is {len(clusters)}; not {folds}"
        )
    order = torch.randperm(len(clusters), generator=torch.Generator().manual_seed(seed)).tolist()
    fold_of = {cluster: place % folds for cluster, place in zip(clusters, order, strict=True)}
    return torch.tensor([fold_of[cluster] for cluster in objective.clusters])


def objective_margins(objective: JudgingObjective, examples: Sequence[int]) -> Float[Tensor, " example"]:
    """Log P(right) - log P(wrong) of the unsteered model."""
    return objective.margins(torch.zeros(1, *objective.shape, dtype=torch.bool), examples)[:, 0]


class _Fit:
    """The constants of some heads, fitted on some examples."""

    def __init__(self, objective: JudgingObjective, heads: HeadSet, examples: Sequence[int], cost: CostOf) -> None:
        if cost not in get_args(CostOf):
            raise ValueError(f"cost is one of {', '.join(map(repr, get_args(CostOf)))}, not {cost!r}")
        self.objective, self.heads, self.examples = objective, list(heads), list(examples)
        none = torch.zeros(1, *objective.shape, dtype=torch.bool)
        layers, numbers = torch.tensor(self.heads).T
        z = objective.replay.hook_z(none, objective.values, self.examples)[:, 0][:, layers, numbers]
        self.mean = z.mean(dim=0)
        size = z.square().sum(dim=-1).mean(dim=0).sqrt()
        self.longest = LONGEST_STEP * size.clamp(min=0.1 * float(size.mean()) or 1.0)
        self.unsteered = objective_margins(objective, self.examples)
        targets = torch.sigmoid(self.unsteered.double())
        self.targets = (torch.ones_like(targets) if cost == "labels" else targets)[:, None]
        self.least = torch.special.entr(self.targets) + torch.special.entr(1 - self.targets)
        zero = torch.zeros_like(self.mean)
        self.at_zero, self.at_mean = (
            judged(objective, self.heads, constants, self.examples) for constants in (zero, self.mean)
        )
        at_zero, at_mean = self.mean_cost(self.at_zero), self.mean_cost(self.at_mean)
        better = at_mean < at_zero
        self.constants = torch.where(better[:, None], self.mean, zero)
        self.cost, self.margins = torch.minimum(at_mean, at_zero), torch.where(better, self.at_mean, self.at_zero)
        self.slopes = torch.zeros(len(self.examples), *zero.shape)
        self.damping = torch.full((len(self.heads),), DAMPING, dtype=torch.float64)

    def mean_cost(self, margins: Float[Tensor, "example player"]) -> Float[Tensor, " player"]:
        """The cost of each head's constant, by the margins that it gives."""
        margins = margins.double()
        costs: Tensor = torch.nn.functional.softplus(margins) - self.targets * margins - self.least
        return costs.mean(dim=0)

    def run(self, progress: bool) -> None:
        """Fit all constants."""
        unchanged = _unchanged(self.objective, min(len(self.heads), MASKS_PER_PASS), self.examples)
        enough = SMALLEST_GAIN * self.cost
        active = self.cost > max(SMALLEST_COST, float(self.mean_cost(unchanged).max()))
        if bool(active.any()):
            self._consider(active, self.constants[active])  # only for the slopes there
        for _ in tqdm(range(STEPS), desc="fitting constants", unit="step", disable=not progress, leave=False):
            if not bool(active.any()):
                break
            before = self.cost[active]
            better = self._consider(active, self._proposals(active))
            self.damping[active] *= torch.where(better, RELIEF, LESS_HASTE)
            done = (better & (before - self.cost[active] < enough[active])) | (self.damping[active] > MOST_DAMPING)
            active[active.nonzero().flatten()[done]] = False

    def _consider(
        self, which: Bool[Tensor, " player"], constants: Float[Tensor, "some d_head"]
    ) -> Bool[Tensor, " some"]:
        """Try a constant at each of some heads, and take those that cost less than before; which do."""
        some = which.nonzero().flatten()
        heads = [self.heads[place] for place in some.tolist()]
        margins, slopes = judged_with_slopes(self.objective, heads, constants, self.examples)
        cost = self.mean_cost(margins)
        lower, same = cost < self.cost[some], (constants == self.constants[some]).all(dim=1)
        self.slopes[:, some[lower | same]] = slopes[:, lower | same]
        taken = some[lower]
        self.constants[taken], self.cost[taken], self.margins[:, taken] = (
            constants[lower],
            cost[lower],
            margins[:, lower],
        )
        return lower

    def _proposals(self, which: Bool[Tensor, " player"]) -> Float[Tensor, "some d_head"]:
        """A damped Gauss-Newton step from the constant of each of some heads."""
        parts = torch.split(which.nonzero().flatten(), SOLVED_AT_ONCE)
        return torch.cat([self._step(some) for some in parts])

    def _step(self, some: Int[Tensor, " some"]) -> Float[Tensor, "some d_head"]:
        slopes, right = self.slopes[:, some].double(), torch.sigmoid(self.margins[:, some].double())
        n, width = len(right), slopes.shape[-1]
        downhill = torch.einsum("e s, e s d -> s d", self.targets - right, slopes) / n
        bend = torch.einsum("e s, e s d, e s f -> s d f", right * (1 - right), slopes, slopes) / n
        mean_bend = bend.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
        damped = bend + (self.damping[some] * mean_bend)[:, None, None] * torch.eye(width, dtype=torch.float64)
        step: Tensor = torch.linalg.solve(damped, downhill)
        too_long: Tensor = step.norm(dim=1) / self.longest[some].double()
        return self.constants[some] + (step / too_long.clamp(min=1.0)[:, None]).float()


def judged(
    objective: JudgingObjective, heads: list[Head], constants: Float[Tensor, "player d_head"], examples: Sequence[int]
) -> Float[Tensor, "example player"]:
    """Log P(right) - log P(wrong) with each head alone replaced by its constant at the last token."""
    found = torch.empty(len(objective), len(heads))
    for piece in pieces(objective.replay, len(heads), examples=examples):
        with torch.inference_mode():
            copies = constants[piece.variants].expand(len(piece.examples), -1, -1)
            verdicts = piece.verdict_logits(_replacing(heads[piece.variants], copies))
        found[piece.examples, piece.variants] = verdicts[..., 0] - verdicts[..., 1]
    return towards_right(found, objective.labels)[list(examples)]


def _unchanged(objective: JudgingObjective, count: int, examples: Sequence[int]) -> Float[Tensor, "example variant"]:
    """The margins of variants that change nothing, which differ from those of the model by rounding."""
    found = torch.empty(len(objective), count)
    for piece in pieces(objective.replay, count, examples=examples):
        with torch.inference_mode():
            verdicts = piece.verdict_logits()
        found[piece.examples, piece.variants] = verdicts[..., 0] - verdicts[..., 1]
    return towards_right(found, objective.labels)[list(examples)]


def judged_with_slopes(
    objective: JudgingObjective, heads: list[Head], constants: Float[Tensor, "player d_head"], examples: Sequence[int]
) -> tuple[Float[Tensor, "example player"], Float[Tensor, "example player d_head"]]:
    """The same as `judged`, and the derivative of each margin with respect to the constant."""
    found, slopes = torch.empty(len(objective), len(heads)), torch.empty(len(objective), *constants.shape)
    for piece in pieces(objective.replay, len(heads), examples=examples, differentiable=True):
        with differentiating(objective.replay.model):
            copies = constants[piece.variants].expand(len(piece.examples), -1, -1).clone().requires_grad_()
            verdicts = piece.verdict_logits(_replacing(heads[piece.variants], copies))
            gap = verdicts[..., 0] - verdicts[..., 1]
            (slope,) = torch.autograd.grad(gap.sum(), copies)
        found[piece.examples, piece.variants], slopes[piece.examples, piece.variants] = gap.detach(), slope
    rows = list(examples)
    return towards_right(found, objective.labels)[rows], towards_right(slopes, objective.labels)[rows]


def _replacing(heads: list[Head], constants: Float[Tensor, "example variant d_head"]) -> dict[int, Change]:
    """Variant by variant one head replaced: by layer, the change to ``hook_z``."""

    def change(layer: int) -> Change:
        places = [place for place, head in enumerate(heads) if head.layer == layer]
        numbers = [heads[place].head for place in places]

        def replace(z: Tensor) -> Tensor:
            changed = z.clone()
            changed[:, places, numbers] = constants[:, places].to(z)
            return changed

        return replace

    return {layer: change(layer) for layer in sorted({head.layer for head in heads})}
