r"""Gates: how far each head is moved towards what is written, and the gradient with respect to that.

At the last token :math:`z[l, m] \leftarrow z[l, m] + g[l, m]\,(w[l, m] - z[l, m])`, where :math:`w` is what an injection
would write and :math:`g \in [0, 1]`. As in the replay, gates act on the last token only, so that everything before it
is read once and without gradients; one token per prompt is differentiated.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.gradients import differentiating, frozen_weights
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import steer
from arm_lens.engine.tokens import pad


def gated_verdicts(
    replay: Replay,
    gates: Float[Tensor, "layer head"] | Float[Tensor, "example layer head"],
    values: Float[Tensor, "layer head d_head"],
    normalised: bool,
) -> Float[Tensor, "example verdict"]:
    """The two verdicts' logits, all spellings together, on each prompt of a replay; in float32 on the CPU.

    Args:
        replay: prompts that were or will be read.
        gates: in [0, 1], the same for all prompts or each prompt's own; the result is differentiable with respect to them.
        values: what is written.
        normalised: give log-probabilities over the whole vocabulary instead.

    Raises:
        ValueError: if gates of their own are given to another number of prompts.
    """
    if gates.ndim == 3 and len(gates) != len(replay):
        raise ValueError(f"there are gates for {len(gates)} prompts, and {len(replay)} prompts")
    _find_out(replay, values)
    found: list[Tensor] = [torch.empty(0)] * len(replay)
    with frozen_weights(replay.model):
        for number, batch in enumerate(replay.prefixes.batches):
            verdicts = _verdicts(replay, number, gates if gates.ndim == 2 else gates[batch], values, normalised)
            for place, example in enumerate(batch):
                found[example] = verdicts[place]
    return torch.stack(found)


def gap_slopes(
    replay: Replay, values: Float[Tensor, "layer head d_head"]
) -> tuple[Float[Tensor, "example layer head"], Float[Tensor, " example"]]:
    r"""The derivative of each prompt's verdict gap with respect to each gate, where all are closed; and the gap there.

    At gates of 0, where the model is as it is, :math:`\partial\,\text{gap} / \partial g[l, m] = (w[l, m] - z[l, m])
    \cdot \partial\,\text{gap} / \partial z[l, m]`. Batch by batch: a batch's graph is gone before the next one's is made.

    Args:
        replay: prompts that were or will be read.
        values: what is written.

    Returns:
        Slopes and gaps (positive verdict minus negative, in logits), in float32 on the CPU.
    """
    _find_out(replay, values)
    slopes: list[Tensor] = [torch.empty(0)] * len(replay)
    gaps = slopes.copy()
    for number, batch in enumerate(replay.prefixes.batches):
        with differentiating(replay.model):
            gates = torch.zeros(len(batch), *values.shape[:2], requires_grad=True)
            verdicts = _verdicts(replay, number, gates, values.clone(), False)  # they may come from an inference mode
            gap = verdicts[:, 0] - verdicts[:, 1]
            slope = torch.autograd.grad(gap.sum(), gates)[0]
        for place, example in enumerate(batch):
            slopes[example], gaps[example] = slope[place], gap[place].detach()
    return torch.stack(slopes), torch.stack(gaps)


def _find_out(replay: Replay, values: Float[Tensor, "layer head d_head"]) -> None:
    """The first use decides whether the model can be replayed."""
    with torch.inference_mode():
        replay.verdict_logits(torch.zeros(1, *values.shape[:2], dtype=torch.bool, device="cpu"), values, [0])


def _verdicts(
    replay: Replay,
    number: int,
    gates: Float[Tensor, "layer head"] | Float[Tensor, "batch layer head"],
    values: Float[Tensor, "layer head d_head"],
    normalised: bool,
) -> Float[Tensor, "batch verdict"]:
    """The same of one of the replay's batches."""
    with steer(replay.model, gates, values, injection=replay.injection):
        logits = _last_logits(replay, number, replay.prefixes.batches[number]).float()
    sides = (replay.verdicts.positive, replay.verdicts.negative)
    verdicts = torch.stack([logits[:, list(side)].logsumexp(dim=-1) for side in sides], dim=-1)
    if normalised:
        verdicts = verdicts - logits.logsumexp(dim=-1, keepdim=True)
    return verdicts.cpu()


def _last_logits(replay: Replay, number: int, batch: list[int]) -> Float[Tensor, "example vocab"]:
    """Next-token logits of one batch of prompts, with a gradient."""
    sequences = [replay.sequences[example] for example in batch]
    if not replay.exact:
        return replay.model.last_logits_with_gradient(pad(sequences, device=replay.device))
    past = [segment.outside_inference_mode() for segment in replay.prefixes.of_batch(number)]
    last = torch.tensor([sequence[-1:] for sequence in sequences], device=replay.device)
    positions = torch.tensor([[len(sequence) - 1] for sequence in sequences], device=replay.device)
    itself = torch.ones(len(batch), 1, 1, dtype=torch.bool, device=replay.device)
    return replay.model.extend(last, past, positions, itself)[:, -1]
