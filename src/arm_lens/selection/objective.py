"""What a selection of heads maximises: how well the steered model judges labelled examples.

For a mask S and an example with label y the reward is the log-probability of the right verdict (the published choice:
minus the cross-entropy of the first target token), whether the verdict is right, or the margin by which it is right,
log P(right) - log P(wrong).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.replay import Replay

RewardKind = Literal["log_prob", "accuracy", "margin"]


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
        if kind not in ("log_prob", "accuracy", "margin"):
            raise ValueError(f"the reward is 'log_prob', 'accuracy' or 'margin', not {kind!r}")
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
        logs = self.replay.log_probs(masks, self.values, examples)
        labels = self.labels if examples is None else self.labels[list(examples)]
        right = torch.where(labels[:, None], logs[..., 0], logs[..., 1])
        wrong = torch.where(labels[:, None], logs[..., 1], logs[..., 0])
        if self.kind == "log_prob":
            return right
        margin = right - wrong
        return margin if self.kind == "margin" else (margin > 0).float() + 0.5 * (margin == 0).float()

    def __call__(
        self, masks: Bool[Tensor, "mask layer head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        return self.per_example(masks, examples).mean(dim=0)
