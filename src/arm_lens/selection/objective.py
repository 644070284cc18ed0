"""What a selection of heads maximises: how well the steered model judges labelled examples.

For a mask S and an example with label y the reward is, of the two verdicts alone, the log-probability of the right one
(``two_way``) or its probability, whether the verdict is right, or the margin log P(right) - log P(wrong). They need the
logits of the verdicts only, which saves most of the unembedding. Published is the log-probability among the whole vocabulary
(``log_prob``: minus the cross-entropy of the first target token). A model that would rather write something else gains most
of that reward by writing any verdict at all, and a search for it may tell nothing apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.finite import naming_examples
from arm_lens.engine.gates import gated_verdicts
from arm_lens.engine.replay import Replay
from arm_lens.engine.sharing import content_of
from arm_lens.selection.outcome import Masks

RewardKind = Literal["log_prob", "two_way", "probability", "accuracy", "margin"]
COIN: dict[RewardKind, float] = {
    "log_prob": math.log(0.5), "two_way": math.log(0.5), "probability": 0.5, "accuracy": 0.5, "margin": 0.0,
}  # fmt: skip
"""The most that a judge can earn which knows nothing of the examples, and gives both verdicts alike."""


class JudgingObjective:
    """Labelled prompts of one criterion, as a reward for head masks.

    Args:
        replay: the prompts, without demonstrations.
        values: what is written at the heads of a mask.
        labels: whether the right verdict is the positive one, per prompt.
        kind: the reward of one example.
        clusters: prompts that belong together, such as those about the responses to one prompt, share a value; by default
            each is its own. Standard errors depend on it, rewards do not.
        names: of the prompts' examples, for errors about numbers that are not finite.
        criterion: its name, which tables of attribution have; it changes no reward.
    """

    def __init__(
        self,
        replay: Replay,
        values: Float[Tensor, "layer head d_head"],
        labels: Sequence[bool],
        kind: RewardKind = "two_way",
        clusters: Sequence[Hashable] | None = None,
        names: Sequence[str] | None = None,
        criterion: str = "",
    ) -> None:
        if kind not in get_args(RewardKind):
            raise ValueError(f"the reward is one of {', '.join(map(repr, get_args(RewardKind)))}, not {kind!r}")
        for name, given in (("labels", labels), ("clusters", clusters), ("names", names)):
            if given is not None and len(given) != len(replay):
                raise ValueError(f"{len(given)} {name} for {len(replay)} prompts")
        self.replay, self.values, self.kind, self.criterion = replay, values, kind, criterion
        self.clusters: list[Hashable] = [object() for _ in labels] if clusters is None else list(clusters)
        self.labels = torch.tensor(list(labels), dtype=torch.bool)
        self.names = [f"example {number}" for number in range(len(labels))] if names is None else list(names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def content(self) -> Hashable:
        """All that rewards depend on: equal for objectives with equal rewards."""
        replay = self.replay
        prompts = (replay.model.state(), content_of(replay.sequences), replay.verdicts, replay.injection)
        return (*prompts, content_of(self.values), tuple(self.labels.tolist()), self.kind)

    def per_example(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, "example mask"]:
        """The reward of each mask on each example."""
        read = self.replay.log_probs if self.kind == "log_prob" else self.replay.verdict_logits
        with naming_examples(self.names):
            verdicts = read(masks, self.values, examples)
        return self._reward(verdicts, self._labels(examples))

    def margins(
        self,
        masks: Masks,
        examples: Sequence[int] | None = None,
        *,
        values: Float[Tensor, "layer head d_head"] | None = None,
    ) -> Float[Tensor, "example mask"]:
        """Log P(right) - log P(wrong) of each mask on each example, whatever the reward is; or with other values written."""
        with naming_examples(self.names):
            verdicts = self.replay.verdict_logits(masks, self.values if values is None else values, examples)
        return _margin(verdicts, self._labels(examples))

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates (see `steer`), differentiable with respect to them.

        Raises:
            ValueError: if the reward is the accuracy, which has no gradient.
        """
        if self.kind == "accuracy":
            raise ValueError("accuracy has no gradient: choose another reward for a search by gradient")
        with naming_examples(self.names):
            verdicts = gated_verdicts(self.replay, gates, self.values, self.kind == "log_prob")
        return self._reward(verdicts, self.labels)

    def _reward(
        self, verdicts: Float[Tensor, "example ... verdict"], labels: Bool[Tensor, " example"]
    ) -> Float[Tensor, "example ..."]:
        """From log-probabilities or logits of the two verdicts."""
        if self.kind == "log_prob":
            return _right(verdicts, labels)
        margin = _margin(verdicts, labels)
        if self.kind == "margin":
            return margin
        if self.kind == "two_way":
            return torch.nn.functional.logsigmoid(margin)
        if self.kind == "probability":
            return torch.sigmoid(margin)
        return (margin > 0).float() + 0.5 * (margin == 0).float()

    def _labels(self, examples: Sequence[int] | None) -> Bool[Tensor, " example"]:
        return self.labels if examples is None else self.labels[list(examples)]

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        return self.per_example(masks, examples).mean(dim=0)


def _right(
    verdicts: Float[Tensor, "example ... verdict"], labels: Bool[Tensor, " example"]
) -> Float[Tensor, "example ..."]:
    """The value of the right verdict: the positive one if the label is true."""
    labels = labels.reshape(-1, *(1 for _ in verdicts.shape[1:-1]))
    return torch.where(labels, verdicts[..., 0], verdicts[..., 1])


def _margin(
    verdicts: Float[Tensor, "example ... verdict"], labels: Bool[Tensor, " example"]
) -> Float[Tensor, "example ..."]:
    """Log P(right) - log P(wrong)."""
    return _right(verdicts, labels) - _right(verdicts, ~labels)


class PooledObjective:
    """Several objectives as one: their examples in order, each judged by its own objective.

    Args:
        objectives: at least one.
    """

    def __init__(self, objectives: Sequence[JudgingObjective]) -> None:
        if not objectives:
            raise ValueError("there is no objective to pool")
        self.objectives = tuple(objectives)
        self.clusters: list[Hashable] = [one for objective in objectives for one in objective.clusters]

    def __len__(self) -> int:
        return sum(map(len, self.objectives))

    @property
    def criterion(self) -> str:
        """The name of the criterion, if it is one; else empty."""
        names = {objective.criterion for objective in self.objectives}
        return names.pop() if len(names) == 1 else ""

    @property
    def content(self) -> Hashable:
        """All that rewards depend on; see `JudgingObjective.content`."""
        return tuple(objective.content for objective in self.objectives)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads per layer."""
        return self.objectives[0].shape

    def gated(self, gates: Float[Tensor, "layer head"]) -> Float[Tensor, " example"]:
        """The reward of each example under gates; see `JudgingObjective.gated`."""
        return torch.cat([objective.gated(gates) for objective in self.objectives])

    def per_example(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, "example mask"]:
        """The reward of each mask on each example."""
        return self._gather(JudgingObjective.per_example, masks, examples)

    def margins(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, "example mask"]:
        """Log P(right) - log P(wrong) of each mask on each example, whatever the reward is."""
        return self._gather(JudgingObjective.margins, masks, examples)

    def _gather(
        self,
        measure: Callable[[JudgingObjective, Masks, Sequence[int]], Tensor],
        masks: Masks,
        examples: Sequence[int] | None,
    ) -> Float[Tensor, "example mask"]:
        examples = range(len(self)) if examples is None else examples
        found = torch.empty(len(examples), len(masks))
        start = 0
        for objective in self.objectives:
            here = [row for row, example in enumerate(examples) if start <= example < start + len(objective)]
            if here:
                found[here] = measure(objective, masks, [examples[row] - start for row in here])
            start += len(objective)
        return found

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask."""
        return self.per_example(masks, examples).mean(dim=0)
