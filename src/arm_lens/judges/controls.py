"""Trivial controls: judges that know nothing of the criterion. A benchmark that they do well on measures something else.

The length of a response alone beats language models on some subsets of published benchmarks.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.judges.base import Judge, ScoreKind
from arm_lens.judges.checks import Texts, check_as_many
from arm_lens.preferences import text_of
from arm_lens.preferences.images import split_at_images
from arm_lens.registry import JudgeSpec, OptionsModel, Style, always, never


class LengthJudge(Judge):
    """Prefers the longer response; with ``shorter``, the shorter one. The reward is the number of characters."""

    kind: ClassVar[str] = "length judge"
    threshold: ClassVar[float | None] = None

    def __init__(self, *, shorter: bool = False) -> None:
        self.sign = -1.0 if shorter else 1.0

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The number of characters of each response, without images, negative if shorter ones are preferred."""
        self.check_kind(kind)
        check_as_many(prompts, responses)
        pieces = [split_at_images(text_of(response)) for response in responses]
        return self.sign * torch.tensor(
            [float(sum(len(one) for one in some if isinstance(one, str))) for some in pieces]
        )


class RandomJudge(Judge):
    """A uniform number for each prompt and response, the same for the same texts and seed: what chance alone does."""

    kind: ClassVar[str] = "random judge"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """Numbers in [0, 1)."""
        self.check_kind(kind)
        check_as_many(prompts, responses)
        pairs = zip(prompts, responses, strict=True)
        numbers = [uniform_of(self.seed, text_of(prompt), text_of(response)) for prompt, response in pairs]
        return torch.tensor(numbers, dtype=torch.float64)  # in float32 the largest would become 1


class ConstantJudge(Judge):
    """Gives every response the same reward: every comparison is a tie, which tests how a benchmark counts ties."""

    kind: ClassVar[str] = "constant judge"

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """One half for each."""
        self.check_kind(kind)
        check_as_many(prompts, responses)
        return torch.full((len(responses),), 0.5)


def uniform_of(*key: object) -> float:
    """A number in [0, 1) that is a fixed, well mixed function of texts and numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class LengthOptions(OptionsModel):
    """Options of the length judge."""

    shorter: bool = False
    """Prefer the shorter response."""


LENGTH = JudgeSpec(
    name="length",
    judge=LengthJudge,
    options=LengthOptions,
    fit=lambda context, options: LengthJudge(shorter=options.shorter),
    summary="The longer response wins.",
    style=Style(label="Length", color="#5f5f5f", symbol="hourglass", group="Controls"),
    reads_examples=never,
    place=500,
)
RANDOM = JudgeSpec(
    name="random",
    judge=RandomJudge,
    options=OptionsModel,
    fit=lambda context, options: RandomJudge(seed=context.seed),
    summary="A random number for each response.",
    style=Style(label="Random", color="#7a7a7a", symbol="asterisk-open", group="Controls"),
    random=always,
    reads_examples=never,
    place=510,
)
CONSTANT = JudgeSpec(
    name="constant",
    judge=ConstantJudge,
    options=OptionsModel,
    fit=lambda context, options: ConstantJudge(),
    summary="The same reward for everything: every comparison is a tie.",
    style=Style(label="Constant", color="#8a8a8a", symbol="hash-open", group="Controls"),
    reads_examples=never,
    place=520,
)
