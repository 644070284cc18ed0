"""What a selection of heads maximises: how well the steered model judges labelled examples.

For a mask S and an example with label y the reward is the log-probability of the right verdict (the published choice:
minus the cross-entropy of the first target token), the same with the two verdicts as the only tokens there are, whether
the verdict is right, or the margin by which it is right, log P(right) - log P(wrong). The first needs the logits of the
whole vocabulary; the others need those of the verdicts only, which is faster by what the unembedding weighs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.replay import Replay

RewardKind = Literal["log_prob", "two_way", "accuracy", "margin"]


class JudgingObjective:
    """Labelled prompts of one criterion, as a reward for head masks.

    Args:
        replay: the prompts, without examples in context.
        values: what is written at the heads of a mask.
        labels: whether the right verdict is the positive one, per prompt.
        kind: the reward of one example.
    """

    def __init__(
        self,
        replay: Replay,
        values: Float[Tensor, "layer head d_head"],
        labels: Sequence[bool],
        kind: RewardKind = "log_prob",
    ) -> None:
        if kind not in get_args(RewardKind):
            raise ValueError(f"the reward is one of {', '.join(map(repr, get_args(RewardKind)))}, not {kind!r}")
        if len(labels) != len(replay):
            raise ValueError(f"{len(labels)} labels for {len(replay)} prompts")
        self.replay, self.values, self.kind = replay, values, kind
        self.labels = torch.tensor(list(labels), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def per_example(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask"]:
        """The reward of each mask on each example."""
        labels = self.labels if examples is None else self.labels[list(examples)]
        if self.kind == "log_prob":
            logs = self.replay.log_probs(masks, self.values, examples)
            return torch.where(labels[:, None], logs[..., 0], logs[..., 1])
        logits = self.replay.verdict_logits(masks, self.values, examples)
        gap = logits[..., 0] - logits[..., 1]
        margin = torch.where(labels[:, None], gap, -gap)
        if self.kind == "margin":
            return margin
        if self.kind == "two_way":
            return torch.nn.functional.logsigmoid(margin)
        return (margin > 0).float() + 0.5 * (margin == 0).float()

    def __call__(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        return self.per_example(masks, examples).mean(dim=0)


class PooledObjective:
    """Several objectives as one: their examples side by side, in order, each judged by its own.

    Args:
        objectives: at least one.
    """

    def __init__(self, objectives: Sequence[JudgingObjective]) -> None:
        if not objectives:
            raise ValueError("there is no objective to pool")
        self.objectives = tuple(objectives)

    def __len__(self) -> int:
        return sum(map(len, self.objectives))

    def per_example(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask"]:
        """The reward of each mask on each example."""
        wanted = range(len(self)) if examples is None else examples
        found = torch.empty(len(wanted), len(masks))
        start = 0
        for objective in self.objectives:
            here = [place for place, example in enumerate(wanted) if start <= example < start + len(objective)]
            if here:
                found[here] = objective.per_example(masks, [wanted[place] - start for place in here])
            start += len(objective)
        return found

    def __call__(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        return self.per_example(masks, examples).mean(dim=0)
