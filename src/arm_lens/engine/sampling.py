"""Sampling: continue prompts token by token, several times each, the same way whatever else is in the batch.

Every row brings its own uniform numbers, one for each step, and a token is the place where the cumulative distribution
passes that number. So what is sampled depends on the prompt, the row's numbers and the model, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.engine.kv_segments import KVSegment, positions_after
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.prefix_cache import extends_exactly
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import TokenBatch, pad


@torch.inference_mode()
def sample_tokens(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    uniforms: Float[Tensor, "row step"],
    *,
    temperature: float = 1.0,
    stop: Collection[int] = (),
) -> list[list[int]]:
    """What the model writes after each sequence, up to as many tokens as there are numbers.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        sequences: token ids, one row each; the same one may come several times.
        uniforms: in [0, 1).
        temperature: what logits are divided by, not negative; 0 takes the likeliest token.
        stop: tokens that end a continuation, and are left out of it.

    Raises:
        ValueError: if a continuation could exceed the model's context, there are not as many rows of numbers as
            sequences, or the temperature is negative.
    """
    if len(uniforms) != len(sequences):
        raise ValueError(f"{len(uniforms)} rows of numbers for {len(sequences)} sequences")
    if not temperature >= 0:
        raise ValueError(f"the temperature must be 0 or above, not {temperature}")
    if not sequences:
        return []
    model = language_model(model)
    longest = max(map(len, sequences)) + uniforms.shape[1]
    if longest > model.n_ctx:
        raise ValueError(f"prompt and continuation may take {longest} tokens, the model's context {model.n_ctx}")
    written: list[list[int]] = [[] for _ in sequences]
    going = [True] * len(sequences)
    state = _Reading(model, sequences, uniforms.shape[1])
    for step in range(uniforms.shape[1]):
        tokens = _draw(state.logits(), uniforms[:, step], temperature).tolist()
        going = [one and token not in stop for one, token in zip(going, tokens, strict=True)]
        if not any(going):
            break
        for row, token in enumerate(tokens):
            if going[row]:
                written[row].append(token)
        state.append(tokens)
    return written


def _draw(
    logits: Float[Tensor, "row vocab"], uniforms: Float[Tensor, " row"], temperature: float
) -> Int[Tensor, " row"]:
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    # The sum may fall short of 1 by rounding; and a token without probability has no place, not even for the number 0.
    numbers = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, numbers, right=True)[:, 0]


def _goes_on(model: LanguageModel, sequences: Sequence[list[int]], steps: int) -> bool:
    """Whether a model goes on from keys and values exactly.

    With hooks on it, it is not tried: they are for the last token of whole prompts.
    """
    longest = max(map(len, sequences))
    if longest < 2 or model.no_extension(longest + steps) is not None or model.is_hooked():
        return False
    return extends_exactly(model, sequences)


class _Reading:
    """Prompts that grow, read as far as they go: by what was read before, where the model can go on from that."""

    def __init__(self, model: LanguageModel, sequences: Sequence[Sequence[int]], steps: int) -> None:
        self.model, self.device = model, model.device
        self.sequences = [list(sequence) for sequence in sequences]
        self._goes_on = _goes_on(model, self.sequences, steps)
        self._past: list[KVSegment] = []
        self._new = pad(self.sequences, device=self.device)

    def logits(self) -> Float[Tensor, "row vocab"]:
        """Next-token logits of every row."""
        if not self._goes_on:
            return self.model.last_logits(pad(self.sequences, device=self.device)).float()
        if not self._past:
            before, self._new = self._new.last_apart()
            self._past = [self.model.prefill(before)]
        positions = positions_after(self._new, self._past)
        keep: list[tuple[Tensor, Tensor]] = []
        itself = torch.ones(len(positions), 1, 1, dtype=torch.bool, device=self.device)
        logits = self.model.extend(self._new.tokens, self._past, positions, itself, keep=keep)[:, -1]
        self._past.append(KVSegment([keys for keys, _ in keep], [values for _, values in keep], positions))
        return logits.float()

    def append(self, tokens: Sequence[int]) -> None:
        """One more token for every row."""
        for sequence, token in zip(self.sequences, tokens, strict=True):
            sequence.append(token)
        new = torch.tensor(tokens, device=self.device)[:, None]
        self._new = TokenBatch(new, torch.ones_like(new))
