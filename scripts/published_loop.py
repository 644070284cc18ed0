"""The published search for heads, as a TransformerLens user would write it: one hooked forward pass for every mask.

This is what `arm_lens.PUBLISHED` on the replay is measured against (bench_selection.py) and must agree with (tests). It
takes random numbers from its generator in the same order as `arm_lens.selection.reinforce`, so that both see the same
masks and the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


def overwriting(mask: Tensor, values: Tensor) -> list[tuple[str, Callable[..., Tensor]]]:
    """TransformerLens hooks that write ``values`` at the last token of the heads in ``mask`` [layer, head]."""

    def hook_of(layer: int) -> Callable[..., Tensor]:
        def write(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, -1] = torch.where(mask[layer, :, None], values[layer], z[:, -1])
            return z

        return write

    return [(f"blocks.{layer}.attn.hook_z", hook_of(layer)) for layer in range(len(mask)) if mask[layer].any()]


@torch.no_grad()
def full_pass(model: Any, tokens: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """Next-token logits [batch, vocab] of whole prompts under one mask."""
    return model.run_with_hooks(tokens, fwd_hooks=overwriting(mask, values))[:, -1]


def published_loop(
    model: Any,
    sequences: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    values: Tensor,
    *,
    steps: int = 600,
    masks_per_step: int = 32,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> tuple[Tensor, list[float]]:
    """The chosen heads [layer, head], and the mean reward of each step.

    Args:
        model: a TransformerLens model.
        sequences: prompts as token ids, each ending where the verdict is due.
        targets: for each prompt the tokens that spell its right verdict.
        values: what is written, [layer, head, d_head].
        steps: of REINFORCE; each takes one random prompt.
        masks_per_step: each takes a full pass.
        learning_rate: Adam's.
        seed: of masks and examples.
    """
    device = values.device
    prompts = [torch.tensor([list(sequence)], device=device) for sequence in sequences]

    def reward(item: int, mask: Tensor) -> float:
        logits = full_pass(model, prompts[item], mask.to(device), values)[0].float()
        return float(logits[list(targets[item])].logsumexp(0) - logits.logsumexp(0))

    generator = torch.Generator().manual_seed(seed)
    theta = torch.full(values.shape[:2], -1.0, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=learning_rate)
    history = []
    for _ in tqdm(range(steps), desc="published loop", unit="step", leave=False):
        p = torch.sigmoid(theta).clamp(0.001, 0.999)
        masks = torch.rand(masks_per_step, *p.shape, generator=generator) < p.detach()
        item = int(torch.randperm(len(prompts), generator=generator)[0])
        rewards = torch.tensor([reward(item, mask) for mask in masks])
        advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-3)
        log_prob = torch.where(masks, p, 1 - p).log().sum(dim=(1, 2))
        loss = -(log_prob * advantage).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        history.append(float(rewards.mean()))
    p = torch.sigmoid(theta.detach()).clamp(0.001, 0.999)
    candidates = torch.rand(10, *p.shape, generator=generator) < p
    judged = range(min(50, len(prompts)))
    scores = [sum(reward(item, mask) for item in judged) for mask in tqdm(candidates, desc="best of ten", leave=False)]
    return candidates[int(torch.tensor(scores).argmax())], history
