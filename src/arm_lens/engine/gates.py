r"""Gates: how far each head is moved towards what is written, and the gradient with respect to that.

At the last token :math:`z[l, m] \leftarrow z[l, m] + g[l, m]\,(w[l, m] - z[l, m])`, where :math:`w` is what an injection
would write and :math:`g \in [0, 1]`. As in the replay, gates act on the last token only, so that everything before it
is read once and without gradients; one token per prompt is differentiated.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.engine.finite import has_maximum, naming_prompts
from arm_lens.engine.gradients import differentiating, frozen_weights
from arm_lens.engine.kv_segments import NewTokens
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import steer
from arm_lens.engine.tokens import pad
from arm_lens.engine.variants import Change, pieces


def gated_verdicts(
    replay: Replay,
    gates: Float[Tensor, "layer head"] | Float[Tensor, "example layer head"],
    values: Float[Tensor, "layer head d_head"],
    normalised: bool,
) -> Float[Tensor, "example verdict"]:
    """Logits of the two verdicts, all spellings together, after each prompt of a replay; in float32 on the CPU.

    Args:
        replay: the prompts, read before or at this call.
        gates: numbers in [0, 1], the same for all prompts or each prompt's own; the result is differentiable in them.
        values: what is written.
        normalised: give log-probabilities over the whole vocabulary instead.

    Raises:
        ValueError: if there are gates for each prompt, but not for as many prompts as the replay has.
    """
    if gates.ndim == 3 and len(gates) != len(replay):
        raise ValueError(f"there are gates for {len(gates)} prompts, but {len(replay)} prompts")
    replay.find_out()
    with frozen_weights(replay.model):
        verdicts = [
            _verdicts(replay, number, gates if gates.ndim == 2 else gates[batch], values, normalised)
            for number, batch in enumerate(replay.prefixes.batches)
        ]
    return torch.cat(verdicts)[_order(replay)]


def gap_slopes(
    replay: Replay, values: Float[Tensor, "layer head d_head"]
) -> tuple[Float[Tensor, "example layer head"], Float[Tensor, " example"]]:
    r"""The derivative of each prompt's verdict gap with respect to each gate, where all gates are closed; and the gap there.

    At gates of 0, which leave the model unsteered, :math:`\partial\,\text{gap} / \partial g[l, m] = (w[l, m] - z[l, m])
    \cdot \partial\,\text{gap} / \partial z[l, m]`. Otherwise as `gated_slopes`.
    """
    slopes, gaps = gated_slopes(replay, values, torch.zeros(1, *values.shape[:2], device="cpu"))
    return slopes[:, 0], gaps[:, 0]


def gated_slopes(
    replay: Replay, values: Float[Tensor, "layer head d_head"], gates: Float[Tensor, "variant layer head"]
) -> tuple[Float[Tensor, "example variant layer head"], Float[Tensor, "example variant"]]:
    """The derivative of each prompt's verdict gap with respect to each gate, under several settings of all gates.

    The settings go through the model side by side. The graph of each pass is freed before the next one is built.

    Args:
        replay: the prompts, read before or at this call.
        values: what is written.
        gates: numbers in [0, 1].

    Returns:
        Slopes and gaps (positive verdict minus negative, in logits), in float32 on the CPU.
    """
    gates = gates.detach().float().cpu()
    slopes = torch.empty(len(replay), *gates.shape)
    gaps = torch.empty(len(replay), len(gates))
    for piece in pieces(replay, len(gates), differentiable=True):
        with differentiating(replay.model):
            copies = gates[piece.variants].expand(len(piece.examples), -1, -1, -1).clone().requires_grad_()
            written = values.clone()  # they may come from an inference mode

            def change(layer: int, copies: Tensor = copies, written: Tensor = written) -> Change:
                return lambda z: replay.injection.apply(z, written[layer].to(z), copies[:, :, layer].to(z.device))

            verdicts = piece.verdict_logits({layer: change(layer) for layer in range(len(values))})
            gap = verdicts[..., 0] - verdicts[..., 1]
            (slope,) = torch.autograd.grad(gap.sum(), copies)
        slopes[piece.examples, piece.variants], gaps[piece.examples, piece.variants] = slope, gap.detach()
    return slopes, gaps


def _order(replay: Replay) -> Int[Tensor, " example"]:
    """Where each prompt is among the prompts of all batches, one batch after the other."""
    return torch.tensor([example for batch in replay.prefixes.batches for example in batch]).argsort()


def _verdicts(
    replay: Replay,
    number: int,
    gates: Float[Tensor, "layer head"] | Float[Tensor, "batch layer head"],
    values: Float[Tensor, "layer head d_head"],
    normalised: bool,
) -> Float[Tensor, "batch verdict"]:
    """`gated_verdicts` of one of the replay's batches; the whole vocabulary is multiplied only if it is needed."""
    examples, verdict_tokens = replay.prefixes.batches[number], replay.verdicts
    sequences = [replay.sequences[example] for example in examples]
    with naming_prompts(examples), steer(replay.model, gates, values, injection=replay.injection):
        if replay.exact:
            past = [segment.outside_inference_mode() for segment in replay.prefixes.of_batch(number)]
            last = pad([sequence[-1:] for sequence in sequences], device=replay.device)
            rows = None if normalised else replay.verdicts.rows().to(replay.device)
            verdict_tokens = verdict_tokens if normalised else verdict_tokens.in_rows()
            logits = replay.model.extend(NewTokens.following(last, past), rows=rows)[:, -1].float()
        else:
            logits = replay.model.last_logits_with_gradient(pad(sequences, device=replay.device)).float()
        verdicts = verdict_tokens.sums(logits)
        finite = has_maximum(logits.detach()) & verdicts.detach().isfinite().all(dim=-1)
        replay.model.check_rows(finite, "the verdict's logits", pad(sequences, device=replay.device))
    if normalised:
        verdicts = verdicts - logits.logsumexp(dim=-1, keepdim=True)
    return verdicts.cpu()
