r"""What one head reads and writes: its attention from the last token, and what a vector in its output does to the logits.

*Reads.* The last row of the attention pattern, :math:`A[l, m][\text{last}, \cdot]`: how much of each token's value vector
goes into the head's output at the verdict. The weights say which tokens a head uses, not how.

*Writes.* A vector :math:`v` in the head's ``hook_z`` goes through the head's slice of the output projection into the
residual stream, and, unchanged by all later layers, through the final norm and the unembedding into every token's logit,

.. math:: \Delta(v) = \frac{1}{n} \sum_i W_U^\top\, \Big(w \odot \frac{C\, W_O[l, m]^\top v}{s(x_i)}\Big),

where C centres (in a layer norm) or does nothing (in an RMS norm), and the scale :math:`s` is the norm's own on each
prompt's final residual :math:`x_i`, held fixed: see `arm_lens.engine.direct_path`. This is the direct path only: the
effect of the vector through later layers may be larger, and opposite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.functional import jvp
from transformers import PreTrainedTokenizerBase

from arm_lens.attribution.outcomes import verdict_gap
from arm_lens.engine.direct_path import direct_paths
from arm_lens.engine.gradients import differentiating
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.last_token import LastTokens, last_tokens
from arm_lens.engine.verdict_tokens import VerdictTokens

NEWLINE = "⏎"


def attention_rows(
    model: ModelLike, sequences: Sequence[Sequence[int]], layer: int, head: int, *, batch_size: int = 16
) -> list[Float[Tensor, " pos"]]:
    """How much a head attends to each token from the last one, per prompt, in float32 on the CPU.

    The weights of a prompt add up to 1, except in models whose heads may attend to no token.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; hooks on it take part.
        sequences: prompts as token ids.
        layer: of the head.
        head: its index in the layer; in grouped-query models too, a query head's.
        batch_size: prompts per pass.

    Raises:
        ValueError: if the layer has no attention heads.
        RuntimeError: if the model does not expose its attention pattern, because it was loaded with a fused attention.
    """
    model = language_model(model)
    found: dict[int, Tensor] = {}
    for part in last_tokens(model, sequences, batch_size=batch_size):
        seen: list[Tensor] = []
        watch = model.hook_pattern(layer).register_forward_hook
        with model.exclusive(), torch.inference_mode(), watch(lambda *args, to=seen: to.append(args[2].detach())):
            part.logits()
        if not seen:
            raise RuntimeError(
                f"{model.info.name} does not expose the attention pattern of layer {layer}: load it with "
                "attn_implementation='eager', as arm_lens.load_model does"
            )
        for example, row, real in zip(part.examples, seen[-1][:, head, -1].float().cpu(), part.real.cpu(), strict=True):
            # A sliding layer may have fewer slots than there are tokens: those of the last.
            row = F.pad(row, (max(len(real) - len(row), 0), 0))
            found[example] = row[real]
    return [found[example] for example in range(len(sequences))]


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
        vector: what is added to the head's ``hook_z``.
        verdicts: the tokens of the two verdicts.
        batch_size: prompts per pass.

    Returns:
        The change of each token's logit, in float32 on the CPU, and that of the verdict gap (all spellings together,
        positive minus negative).
    """
    model = language_model(model)
    logits, gap = torch.zeros(model.d_vocab), 0.0
    for part in last_tokens(model, sequences, batch_size=batch_size):

        def moved(step: Tensor, part: LastTokens = part) -> tuple[Tensor, Tensor]:
            """The logits and the gap, summed over the batch, after a step of the head's output."""

            def move(z: Tensor) -> Tensor:
                last = z[:, -1].detach()
                last = torch.cat([last[:, :head], (last[:, head] + step.to(z))[:, None], last[:, head + 1 :]], dim=1)
                return torch.cat([z[:, :-1].detach(), last[:, None]], dim=1)

            with model.hooked({layer: move}):
                each = part.logits().float()
            return each.sum(dim=0), verdict_gap(each, verdicts).sum()

        with differentiating(model), direct_paths(model):
            along = vector.detach().clone().to(model.device, model.dtype)
            _, (logit_change, gap_change) = jvp(moved, torch.zeros_like(along), along)  # type: ignore[no-untyped-call]
        logits += logit_change.detach().float().cpu() / len(sequences)
        gap += float(gap_change) / len(sequences)
    return logits, gap


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Each token in readable form, with the space that it may begin with.

    A line break is ⏎; a part of a character is as the tokenizer writes its bytes; a patch of an image is ▦.
    """
    pieces = tokenizer.convert_ids_to_tokens([max(one, 0) for one in tokens])
    texts = []
    for token, piece in zip(tokens, pieces, strict=True):
        if token < 0:
            texts.append("▦")
            continue
        text = str(tokenizer.decode([token]))
        if text.strip("�") == "" and piece:
            text = str(piece)
        elif str(piece).startswith("▁") and not text.startswith(" "):
            text = " " + text
        texts.append(text.replace("\r", "").replace("\n", NEWLINE).replace("\t", "⇥"))
    return texts
