"""Sampling: continue prompts token by token, several times each, the same way whatever else is in the batch.

Every row has its own uniform numbers, one for each step, and the token of a step is the one at which the cumulative
distribution passes that number. So a sample depends on the prompt, the row's numbers and the model, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.engine.finite import has_maximum
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.prefix_cache import extends_exactly
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import pad


@torch.inference_mode()
def sample_tokens(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    uniforms: Float[Tensor, "row step"],
    *,
    temperature: float = 1.0,
    stop: Collection[int] = (),
) -> list[list[int]]:
    """Continue each sequence by sampling, by up to as many tokens as there are numbers; never by an image.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        sequences: token ids; a sequence may be given several times.
        uniforms: numbers in [0, 1).
        temperature: the divisor of the logits, not negative; 0 takes the likeliest token.
        stop: tokens that end a continuation and are left out of it.

    Raises:
        ValueError: if a continuation could exceed the model's context, if the numbers of rows and of sequences differ, or
            if the temperature is negative.
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
    steps = uniforms.shape[1]
    prompts = [list(sequence) for sequence in sequences]
    written: list[list[int]] = [[] for _ in prompts]
    going = [True] * len(prompts)
    # An image's placeholder that is sampled would be one without an image.
    never = torch.tensor([] if model.images is None else [model.images.placeholder], dtype=torch.long)
    reading_on = _can_read_on(model, prompts, steps)
    new, past = pad(prompts, device=model.device), list[KVSegment]()
    if reading_on:
        before, new = new.last_apart()
        past.append(model.prefill(before))
    for step in range(steps):
        logits = (
            model.extend(NewTokens.following(new, past), keep=past)[:, -1] if reading_on else model.last_logits(new)
        )
        model.check_rows(has_maximum(logits), "the logits", None if reading_on else new)
        allowed = logits.float().index_fill(1, never.to(logits.device), -torch.inf)
        chosen = choose_tokens(allowed, uniforms[:, step], temperature).tolist()
        going = [one and token not in stop for one, token in zip(going, chosen, strict=True)]
        if not any(going):
            break
        for row, token in enumerate(chosen):
            if going[row]:
                written[row].append(token)
            prompts[row].append(token)
        new = pad([[token] for token in chosen] if reading_on else prompts, device=model.device)
    return written


def choose_tokens(
    logits: Float[Tensor, "row vocab"], uniforms: Float[Tensor, " row"], temperature: float = 1.0
) -> Int[Tensor, " row"]:
    """The token of each row at which the cumulative distribution passes the row's number in [0, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    # Scaled, because rounding may leave the sum short of 1; right=True, so that the number 0 never takes a token without
    # probability.
    numbers = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, numbers, right=True)[:, 0]


def _can_read_on(model: LanguageModel, sequences: Sequence[Sequence[int]], steps: int) -> bool:
    """Whether reading on from keys and values is exact; not tried with hooks, which act on whole prompts."""
    longest = max(map(len, sequences))
    if longest < 2 or model.no_extension(longest + steps) is not None or model.is_hooked():
        return False
    return extends_exactly(model, sequences)
