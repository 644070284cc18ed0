r"""Denoised means: a weighted principal component analysis in place of the plain mean (an interpretation).

The second version of the Activation Reward Models paper mentions "activation denoising" by a weighted PCA over the
activations, without a definition. What is built here is one reading of that sentence, not the authors' method. For each
head, let :math:`z_i` be its output on prompt i and :math:`w_i` the probability that the model itself gives to that prompt's
right verdict (prompts that the model did not understand count for less); then

.. math:: C = \sum_i w_i z_i z_i^\top / \sum_i w_i, \qquad \bar z = \sum_i w_i z_i / \sum_i w_i,
          \qquad \mu = P_k\, \bar z,

where :math:`P_k` projects on the k leading eigenvectors of the (uncentred) second moment C that explain a given share of
its trace. Directions in which single prompts differ, and which add up to little, are taken out of the mean. This has an
effect if prompts differ along some directions by more than the length of the mean; a mean that outweighs their differences
is, noise included, its own leading direction, and stays nearly as it is. Moments are summed up batch by batch: memory does
not depend on the number of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.engine.finite import naming_prompts
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.reading import HeadMeans, read_with_logits
from arm_lens.engine.sharing import remembered_of
from arm_lens.engine.tokens import chunks, pad
from arm_lens.engine.verdict_tokens import VerdictTokens, verdict_scores
from arm_lens.judges.options import Denoise


def denoised_means(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    right: Sequence[bool],
    verdicts: VerdictTokens,
    options: Denoise,
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> HeadMeans:
    """The denoised mean of every head at the last token of prompts.

    Each of the prompts, as token ids, ends where the verdict is due; ``right`` says whether its right verdict is the positive
    one. ``verdicts`` are the tokens of the verdicts, and ``options`` say how much is retained.

    Raises:
        ValueError: if there is no prompt, or the right verdicts are not as many.
    """
    if not sequences or len(right) != len(sequences):
        raise ValueError(
            f"denoised means need prompts, and a verdict for each: {len(right)} for {len(sequences)} prompts"
        )
    model = language_model(model)

    def read() -> HeadMeans:
        total = torch.zeros((), dtype=torch.float64)
        first = second = total
        spans = list(chunks(len(sequences), batch_size))
        for span in tqdm(spans, desc="reading heads", unit="batch", disable=not progress):
            with naming_prompts(range(span.start, span.stop)):
                z, logits = read_with_logits(model, pad(sequences[span], device=model.device))
            scores = verdict_scores(logits, verdicts)
            positive = torch.tensor(right[span], device=logits.device)
            # By the gap: one minus a probability of nearly 1 would be 0, and so might be the sum of all weights.
            weights = torch.sigmoid(torch.where(positive, scores.gap, -scores.gap).double())
            weights = weights if options.weighted else torch.ones_like(weights)
            z = z.double().to(weights.device)
            total = total + weights.sum().cpu()
            first = first + einsum(weights, z, "b, b layer head d -> layer head d").cpu()
            second = second + einsum(weights, z, z, "b, b layer head d, b layer head e -> layer head d e").cpu()
        return HeadMeans(principal_part(first / total, second / total, options.explained).float(), len(sequences))

    what = ("denoised means", tuple(right), verdicts, options, batch_size)
    return remembered_of(model, what, sequences, read)


def principal_part(
    mean: Float[Tensor, "layer head d_head"], moment: Float[Tensor, "layer head d_head d_head"], explained: float
) -> Float[Tensor, "layer head d_head"]:
    """The mean, projected on the leading eigenvectors of the second moment that explain a share of its trace."""
    values, vectors = torch.linalg.eigh(moment)  # ascending
    values, vectors = values.flip(-1).clamp(min=0), vectors.flip(-1)
    before = values.cumsum(dim=-1) - values
    retained = before < explained * values.sum(dim=-1, keepdim=True)  # up to the first that reaches the share
    along = einsum(vectors, mean, "layer head d k, layer head d -> layer head k")
    projected: Tensor = einsum(vectors, along * retained, "layer head d k, layer head k -> layer head d")
    return projected
