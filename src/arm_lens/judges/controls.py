"""Trivial controls: judges that know nothing of the criterion. A benchmark they do well on measures something else.

The length of a response alone beats language models on some subsets of published benchmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.judges.base import ScoresResponses
from arm_lens.preferences import Prompt, text_of


class LengthJudge(ScoresResponses):
    """Prefers the longer response; with ``shorter``, the shorter one. The reward is the number of characters."""

    def __init__(self, *, shorter: bool = False) -> None:
        self.sign = -1.0 if shorter else 1.0

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Float[Tensor, " example"]:
        """The number of characters of each response, negative if shorter ones are preferred."""
        return self.sign * torch.tensor([float(len(text_of(response))) for response in responses])


class RandomJudge(ScoresResponses):
    """A uniform number for each prompt and response, always the same one for the same texts and seed."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Float[Tensor, " example"]:
        """Numbers in [0, 1)."""
        pairs = zip(prompts, responses, strict=True)
        numbers = [uniform_of(self.seed, text_of(prompt), text_of(response)) for prompt, response in pairs]
        return torch.tensor(numbers, dtype=torch.float64)  # in float32 the largest would become 1


class ConstantJudge(ScoresResponses):
    """Gives every response the same reward: every comparison is a tie."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> Float[Tensor, " example"]:
        """One half for each."""
        return torch.full((len(responses),), 0.5)


def uniform_of(*key: object) -> float:
    """A number in [0, 1) that is a fixed, well mixed function of texts and numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
