r"""What one head reads and writes: its attention from the last token, and what a vector at its place does to the logits.

*Reads.* The attention pattern's last row, :math:`A[l, m][\text{last}, \cdot]`: how much of each token's value vector goes
into the head's output where the verdict is due. Weights say where a head looks, not what it does with what it sees.

*Writes.* A vector :math:`v` at the head's place in ``hook_z`` goes through the head's slice of the output projection into the
residual stream, and, left alone by all later layers, through the final norm and the unembedding into every token's logit,

.. math:: \Delta(v) = \frac{1}{n} \sum_i W_U^\top\, \Big(w \odot \frac{C\, W_O[l, m]^\top v}{s(x_i)}\Big),

where C centres (in a layer norm) or does nothing (in an RMS norm), and the scale :math:`s` is the norm's own on each
prompt's final residual :math:`x_i`, held fixed: see `arm_lens.engine.direct_path`. It is the direct path only. What
later layers make of the vector may be more, and may be the opposite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.direct_path import direct_paths
from arm_lens.engine.gradients import differentiating
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.tokens import chunks, pad
from arm_lens.engine.verdict_tokens import VerdictTokens

NEWLINE = "⏎"


def attention_rows(
    model: ModelLike, sequences: Sequence[Sequence[int]], layer: int, head: int, *, batch_size: int = 16
) -> list[Float[Tensor, " pos"]]:
    """How much a head attends to each token from the last one, per prompt, in float32 on the CPU.

    The weights of a prompt add up to 1, except in models whose heads may attend to nothing.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; hooks on it take part.
        sequences: prompts as token ids.
        layer: of the head.
        head: its index in the layer; in grouped-query models too, a query head's.
        batch_size: prompts per pass.

    Raises:
        ValueError: if the layer has no attention heads.
        RuntimeError: if the model does not show its attention pattern, as one loaded with a fused attention.
    """
    model = language_model(model)
    seen: list[Tensor] = []
    found: list[Tensor] = []
    watched = model.hook_pattern(layer).register_forward_hook(lambda *args: seen.append(args[2].detach()))
    try:
        for span in chunks(len(sequences), batch_size):
            model.last_logits(pad(sequences[span], device=model.device))
            if not seen:
                raise RuntimeError(
                    f"{model.info.name} does not show the attention pattern of layer {layer}: load it with "
                    "attn_implementation='eager', as arm_lens.load_model does"
                )
            rows = seen.pop()[:, head, -1].float().cpu()
            seen.clear()
            # Padding is on the left; a sliding layer may hold fewer slots than there are tokens.
            for row, sequence in zip(rows, sequences[span], strict=True):
                kept = row[-min(len(sequence), len(row)) :]
                found.append(torch.cat([torch.zeros(len(sequence) - len(kept)), kept]))
    finally:
        watched.remove()
    return found


def direct_logits(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    layer: int,
    head: int,
    vector: Float[Tensor, " d_head"],
    verdicts: VerdictTokens,
    *,
    batch_size: int = 16,
) -> tuple[Float[Tensor, " vocab"], float]:
    """What a vector, added to a head's output at the last token, adds to each logit by the direct path; see the module.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; hooks on it take part.
        sequences: prompts over whose final norms the effect is averaged.
        layer: of the head.
        head: its index in the layer.
        vector: in the place of the head's ``hook_z``.
        verdicts: the tokens of the two verdicts.
        batch_size: prompts per pass.

    Returns:
        The change of each token's logit, in float32 on the CPU, and that of the verdict gap (all spellings together,
        positive minus negative).
    """
    model = language_model(model)
    logits = torch.zeros(0)
    gap = 0.0
    for span in chunks(len(sequences), batch_size):
        batch = pad(sequences[span], device=model.device)
        with differentiating(model), direct_paths(model):
            moved: list[Tensor] = []

            def move(z: Tensor, moved: list[Tensor] = moved) -> Tensor:
                step = torch.zeros(z.shape[-1], dtype=z.dtype, device=z.device, requires_grad=True)
                moved.append(step)
                last = z[:, -1].detach().clone()
                last = torch.cat([last[:, :head], (last[:, head] + step)[:, None], last[:, head + 1 :]], dim=1)
                return torch.cat([z[:, :-1].detach(), last[:, None]], dim=1)

            with model.hooked({layer: move}):
                each = model.last_logits_with_gradient(batch).float()
            step = moved[-1]
            along = vector.detach().clone().to(step)
            sides = (each[:, list(side)].logsumexp(dim=-1) for side in (verdicts.positive, verdicts.negative))
            positive, negative = sides
            (slope,) = torch.autograd.grad((positive - negative).sum(), step, retain_graph=True)
            gap += float((slope * along).sum()) / len(sequences)
            # The slope of all logits at once: a product with the Jacobian, as the derivative of one with its transpose.
            weights = torch.zeros_like(each[0]).requires_grad_()
            (back,) = torch.autograd.grad((each.sum(dim=0) * weights).sum(), step, create_graph=True)
            (forth,) = torch.autograd.grad((back * along).sum(), weights)
        part = forth.detach().float().cpu() / len(sequences)
        logits = part if not logits.numel() else logits + part
    return logits, gap


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Each token as a person reads it, with the space that it may begin with.

    A line's end is ⏎; a part of a character is as the tokenizer writes its bytes.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    texts = []
    for token, piece in zip(tokens, pieces, strict=True):
        text = str(tokenizer.decode([token]))
        if text.strip("�") == "" and piece:
            text = str(piece)
        elif str(piece).startswith("▁") and not text.startswith(" "):
            text = " " + text
        texts.append(text.replace("\r", "").replace("\n", NEWLINE).replace("\t", "⇥"))
    return texts
