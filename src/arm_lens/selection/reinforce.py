r"""REINFORCE over head masks: a pure tensor loop.

Every head has a Bernoulli variable with probability :math:`p = \sigma(\theta)`. A step samples S masks, computes their
rewards, and follows the score-function estimate of the gradient of the expected reward,

.. math:: \nabla_\theta\, E[r] \approx \frac{1}{S} \sum_s A_s\, \nabla_\theta \log P(m_s), \qquad
          A_s = r_s - b_s,

with Adam. As published (the head search of arXiv 2412.00142's sibling, Multimodal Task Vectors, arXiv 2406.15334, taken
up by Activation Reward Models, arXiv 2507.01368), the advantage is ``(r - mean) / (std + 0.001)`` over the masks of the
step, one random example is judged per step, all heads start at p = 0.27, and there is no head penalty.

The default here judges all examples in every step (which the replay makes cheap), starts with few heads, likelier those
that help alone, and subtracts a small head penalty from the reward, without which heads that do not matter drift and
membership says little. It chooses the heads with p > 0.5 rather than the best of ten samples, or if there are none the one
that helps most alone. Its leave-one-out baseline, left unscaled, makes the estimate unbiased; scaled by the deviation, as it
is by default, it is the standardised advantage times S / (S - 1).

A reward with a gradient allows a linear control variate: near no head :math:`r(m) \approx r(0) + g \cdot m`, whose expected
gradient is known, so that only the rest :math:`r(m) - c\,g \cdot m` is left to sampling. The coefficient c is the regression
of the rewards of all earlier steps on :math:`g \cdot m`, and so independent of the step's own masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import pandas as pd
import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.heads import HeadScores, HeadSet
from arm_lens.registry import SelectorSpec
from arm_lens.selection.effects import effects_alone, slopes
from arm_lens.selection.outcome import Masks, Objective, Selection
from arm_lens.selection.selector import Search

SCORE = "selection probability"
WARM = (-5.0, 2.0)
"""The range of initial logits after a warm start: no head is all but decided before the search."""

Reward: TypeAlias = Callable[[Masks, Sequence[int] | None], Float[Tensor, " mask"]]
"""Masks and the indices of the examples to judge (None: all) -> mean reward of each mask."""


class Reinforce(Search):
    """Options of the search; `PUBLISHED` are the published ones."""

    kind: Literal["reinforce"] = "reinforce"
    random: ClassVar[bool] = True
    steps: PositiveInt = 110
    """Steps of the search; the time it takes is proportional to them."""
    masks: Annotated[int, Field(ge=2)] = 16
    """Masks sampled per step."""
    examples_per_step: PositiveInt | None = None
    """Random examples, new for each step; None judges all examples in every step."""
    learning_rate: float = 0.15
    initial_logit: float | None = None
    """By default a probability of 0.27, or on larger models as much less as makes 13 heads likely: many means at once
    destroy what the model computes, and all that a search could learn then is to close every head."""
    warm_start: Literal["effects", "slopes"] | None = "effects"
    """Add what each head does alone, in standard deviations over heads, to its initial logit: its effect, which takes a
    mask for each head; or the slope of the reward as its gate opens, which takes one gradient for all and says less."""
    control_variate: bool = False
    """Leave only the part of the reward to sampling that is not linear in the heads; the reward must have a gradient."""
    patience: PositiveInt | None = None
    """Stop once the heads with p > threshold, of which there are some, have been the same for this many steps. Heads that
    do nothing, which take long to close, may then be left in the set. None makes all steps."""
    min_probability: Annotated[float, Field(ge=0, lt=0.5)] = 0.001
    """Probabilities are clamped to [this, 1 - this]."""
    baseline: Literal["standardised", "leave_one_out"] = "leave_one_out"
    """What is subtracted from the reward of a mask: ``leave_one_out``, the mean reward of the step's other masks;
    ``standardised``, the mean reward of all, after which it is divided by their standard deviation."""
    scale_advantage: bool = True
    """Divide the leave-one-out advantage by the step's standard deviation, so that the learning rate does not depend on
    the reward's unit. The standardised baseline always does."""
    entropy_bonus: float = 0.0
    """Times the mean entropy of the head variables, in nats, added to the objective."""
    final: Literal["threshold", "top_k", "best_of"] = "threshold"
    """How the set is made from probabilities: p > threshold; the k most probable; or the best of n sampled masks."""
    threshold: float = 0.5
    top_k: PositiveInt = 20
    best_of: PositiveInt = 10
    best_of_examples: PositiveInt | None = None
    """How many examples, at random, judge the sampled masks; None for all."""

    def resolved(self, shape: tuple[int, int]) -> Reinforce:
        """The same options with numbers in place of the defaults that depend on the model."""
        logit = self.first_logit(shape) if self.initial_logit is None else self.initial_logit
        return self.model_copy(update={"initial_logit": logit, "head_penalty": self.penalty(shape)})

    def _search(self, objective: Objective, seed: int, progress: bool) -> Selection:
        n_layers, n_heads = objective.shape
        return reinforce(
            objective, n_layers, n_heads, n_examples=len(objective), options=self, seed=seed, progress=progress
        )


PUBLISHED = Reinforce(
    steps=600,
    masks=32,
    examples_per_step=1,
    learning_rate=0.1,
    initial_logit=-1.0,
    warm_start=None,
    min_probability=0.001,
    baseline="standardised",
    head_penalty=0.0,
    entropy_bonus=0.0,
    final="best_of",
    best_of=10,
    best_of_examples=50,
)
"""The published loop: one example and 32 masks a step, standardised advantages, the best of ten sampled masks."""


def advantages(
    rewards: Float[Tensor, " mask"], baseline: Literal["standardised", "leave_one_out"], *, scale: bool = True
) -> Float[Tensor, " mask"]:
    """How much better each mask did than the others of its step.

    ``standardised``: (r - mean) / (std + 0.001), as published. ``leave_one_out``: r minus the mean of the *other* masks,
    independent of the mask itself and hence unbiased; with ``scale``, divided by std + 0.001 as well.
    """
    centred = rewards - rewards.mean()
    if baseline == "standardised":
        return centred / deviation(rewards)
    count = len(rewards)
    leave_one_out = centred * count / (count - 1)
    return leave_one_out / deviation(rewards) if scale else leave_one_out


def deviation(rewards: Float[Tensor, " mask"]) -> Float[Tensor, ""]:
    """What advantages are divided by: the standard deviation + 0.001."""
    return rewards.std() + 1e-3


class _LinearPart:
    """The part of the reward that is linear in the heads, and what it explained in earlier steps."""

    def __init__(self, slopes: Float[Tensor, "layer head"]) -> None:
        self._slopes = slopes
        self._products = self._squares = 0.0

    def split(
        self, rewards: Float[Tensor, " mask"], masks: Masks, probabilities: Float[Tensor, "layer head"]
    ) -> tuple[Float[Tensor, " mask"], Float[Tensor, ""]]:
        """The rewards without the linear part, and the expectation of that part, which has a gradient."""
        coefficient = self._products / self._squares if self._squares else 0.0
        linear = (self._slopes * masks).sum(dim=(1, 2))
        centred = linear - linear.mean()
        self._products += float(centred @ rewards)
        self._squares += float(centred @ centred)
        return rewards - coefficient * linear, coefficient * (self._slopes * probabilities).sum()


def log_prob(probabilities: Float[Tensor, "layer head"], masks: Masks) -> Float[Tensor, " mask"]:
    """The log-probability of each mask; heads with probability 0 or 1 (ineligible) contribute nothing."""
    chosen = torch.where(masks, probabilities, 1 - probabilities)
    fixed = (probabilities == 0) | (probabilities == 1)
    return torch.where(fixed, torch.ones_like(chosen), chosen).log().sum(dim=(-2, -1))


def reinforce(
    reward: Reward,
    n_layers: int,
    n_heads: int,
    *,
    n_examples: int,
    options: Reinforce | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Selection:
    """Search for the set of heads that maximises a reward.

    The scores are selection probabilities, 0 in layers that are not eligible. Each row of the history has the ``reward``
    (mean over the step's masks, before the penalty), ``reward_std``, ``entropy`` (mean per head, nats) and
    ``expected_heads``.

    The reward is that of masks on examples, of which it can judge ``n_examples``; `JudgingObjective` is one. The same seed
    gives the same set.

    Raises:
        ValueError: if an eligible layer lies outside the model, or there is no example.
    """
    options = (options or Reinforce()).resolved((n_layers, n_heads))
    if n_examples < 1:
        raise ValueError("REINFORCE needs at least one example")
    generator = torch.Generator().manual_seed(seed)
    eligible = options.eligible((n_layers, n_heads))
    logits = _initial_logits(options, reward, eligible).requires_grad_()
    penalty = options.penalty((n_layers, n_heads))
    optimizer = torch.optim.Adam([logits], lr=options.learning_rate)
    linear = _LinearPart(slopes(reward, eligible)) if options.control_variate else None
    rows, trajectory = [], []
    unchanged, before = 0, None
    steps = tqdm(range(options.steps), desc="selecting heads", unit="step", disable=not progress)
    for step in steps:
        probabilities = _probabilities(logits, options, eligible)
        current = probabilities.detach()
        masks = torch.rand(options.masks, n_layers, n_heads, generator=generator) < current
        rewards = reward(masks, _some(options.examples_per_step, n_examples, generator)).to(current)
        penalised = rewards - penalty * masks.sum(dim=(1, 2))
        sampled, known = (penalised, 0.0) if linear is None else linear.split(penalised, masks, probabilities)
        scaled = options.scale_advantage or options.baseline == "standardised"
        advantage = advantages(sampled, options.baseline, scale=scaled)
        p = probabilities[eligible]
        entropy = (torch.special.entr(p) + torch.special.entr(1 - p)).mean()
        expected = (log_prob(probabilities, masks) * advantage).mean() + known / (deviation(sampled) if scaled else 1.0)
        objective = expected + options.entropy_bonus * entropy
        optimizer.zero_grad()
        torch.autograd.backward(-objective)
        optimizer.step()
        trajectory.append(current)
        rows.append(
            {
                "step": step,
                "reward": float(rewards.mean()),
                "reward_std": float(rewards.std()),
                "entropy": float(entropy.detach()),
                "expected_heads": float(current.sum()),
            }
        )
        if progress:
            steps.set_postfix(reward=f"{rows[-1]['reward']:.3f}", heads=f"{rows[-1]['expected_heads']:.1f}")
        likely = current > options.threshold
        unchanged = unchanged + 1 if before is not None and bool(likely.any()) and torch.equal(likely, before) else 0
        before = likely
        if options.patience is not None and unchanged >= options.patience:
            break
    final = _probabilities(logits.detach(), options, eligible)
    scores = HeadScores(SCORE, final)
    heads = _final_set(scores, reward, n_examples, options, generator)
    return Selection(heads, scores, pd.DataFrame(rows), torch.stack(trajectory))


def _initial_logits(
    options: Reinforce, reward: Reward, eligible: Bool[Tensor, "layer head"]
) -> Float[Tensor, "layer head"]:
    assert options.initial_logit is not None, "resolved"
    logits = torch.full(eligible.shape, options.initial_logit)
    if options.warm_start is not None:
        alone = effects_alone(reward, eligible) if options.warm_start == "effects" else slopes(reward, eligible)
        spread = float(alone[eligible].std(correction=0))
        if spread > 0:
            logits[eligible] = (logits[eligible] + alone[eligible] / spread).clamp(*WARM)
    return logits


def _probabilities(
    logits: Float[Tensor, "layer head"], options: Reinforce, eligible: Bool[Tensor, "layer head"]
) -> Float[Tensor, "layer head"]:
    clamped = torch.sigmoid(logits).clamp(options.min_probability, 1 - options.min_probability)
    return torch.where(eligible, clamped, torch.zeros_like(clamped))


def _some(count: int | None, n_examples: int, generator: torch.Generator) -> list[int] | None:
    """As many examples at random; None for all."""
    if count is None or count >= n_examples:
        return None
    return torch.randperm(n_examples, generator=generator)[:count].tolist()


def _final_set(
    scores: HeadScores, reward: Reward, n_examples: int, options: Reinforce, generator: torch.Generator
) -> HeadSet:
    probabilities = scores.values
    if options.final == "threshold":
        found = scores.above(options.threshold)
        return found if len(found) else _best_alone(reward, options, probabilities > 0)
    if options.final == "top_k":
        return scores.top(min(options.top_k, int((probabilities > 0).sum())))
    masks = torch.rand(options.best_of, *probabilities.shape, generator=generator) < probabilities
    judged = _some(options.best_of_examples, n_examples, generator)
    return HeadSet.from_mask(masks[int(reward(masks, judged).argmax())])


def _best_alone(reward: Reward, options: Reinforce, eligible: Bool[Tensor, "layer head"]) -> HeadSet:
    """The head that helps most alone; none if none outweighs its penalty."""
    effects = HeadScores(SCORE, effects_alone(reward, eligible).nan_to_num(-math.inf))
    n_layers, n_heads = eligible.shape
    return effects.top(int(float(effects.values.max()) > options.penalty((n_layers, n_heads))))


SPEC = SelectorSpec(
    name="reinforce",
    options=Reinforce,
    summary="REINFORCE over head masks: sampled masks are rewarded, and heads that help become likelier.",
)
SPECS = (
    SPEC,
    SPEC.preset(
        "published",
        PUBLISHED.model_dump(exclude_unset=True),
        summary="REINFORCE as published: one example and 32 masks a step, standardised advantages, the best of ten masks.",
    ),
)
