r"""Direct logit attribution: what each head writes towards the right verdict, apart from later layers.

The output of a head at the last token, :math:`z[l, m]`, goes through its part of the output projection into the residual
stream, and the final norm and the unembedding read it from there. With the norm's scale held fixed that path is linear, and
so is the verdict gap in the logits, near their present values: the logsumexp of each side over spellings has its softmax
weights as slopes, a final softcap its own. The contribution to the gap is

.. math:: c_i[l, m] = \big(W_O[l, m]\, N^\top\, (\bar u_\text{positive} - \bar u_\text{negative})\big) \cdot z_i[l, m],

with :math:`N` the norm's linear map (after a norm behind the attention, where there is one) and :math:`\bar u` the
weighted mean of the spellings' unembedding rows. For verdicts of one spelling each and logits without softcap, the
contributions of all heads, MLPs, embeddings and biases add up to the gap. It measures what a head writes in the *unsteered*
model without the effect of later layers, so it is zero for a head that only passes information to others. Its causal
counterpart is ablation: writing a mean removes the head's own contribution, so the signs of the two may well be opposite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.grid import Heads, measured, only
from arm_lens.attribution.outcomes import criterion_of, gains, towards_right, verdict_gap
from arm_lens.attribution.result import Attribution
from arm_lens.engine.direct_path import direct_paths
from arm_lens.engine.gradients import differentiating
from arm_lens.engine.hooks import Hook
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.last_token import LastTokens, last_tokens
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.verdict_tokens import VerdictTokens
from arm_lens.selection.objective import JudgingObjective

BATCH_SIZE = 16


def direct_contributions(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    verdicts: VerdictTokens,
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> tuple[Float[Tensor, "example layer head"], Float[Tensor, " example"]]:
    """What each head adds to the verdict gap along the direct path, and the gap (positive minus negative, in logits).

    Only the last token's way through the stream is differentiated; what is before it is read once, without gradients. The
    bias of a projection belongs to no head.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; hooks on it, such as `steer`'s, take part.
        sequences: prompts as token ids, each ending where the verdict is due.
        verdicts: the tokens whose logits decide.
        batch_size: prompts per pass, at most; fewer if memory is short.
        progress: show a bar.

    Raises:
        ValueError: if a layer has no attention heads, there is no prompt, or a norm is neither a layer norm nor an RMS norm.
        RuntimeError: if the path cannot be found among the model's parts.
    """
    model = language_model(model)
    if not sequences:
        raise ValueError("there is no prompt to attribute")
    return _all_contributions(
        model, sequences, verdicts, last_tokens(model, sequences, batch_size=batch_size), progress
    )


def direct_logit_attribution(
    objective: JudgingObjective, *, heads: Heads = None, layers: Sequence[int] | None = None, criterion: str = ""
) -> Attribution:
    r"""What each outcome would lose without the direct contribution of each head, alone; the model is unsteered.

    For an example with margin :math:`g_i` and a contribution :math:`c_i` towards the right verdict: ``gap`` :math:`c_i`;
    ``probability`` :math:`\sigma(g_i) - \sigma(g_i - c_i)`; ``accuracy`` the same with 1 for a positive margin and one
    half for a tie. What the objective would write plays no part. Only ``heads`` (a `HeadSet` or (layer, head) pairs) in
    ``layers`` have a value; by default all.
    """
    wanted = measured(objective.shape, heads, layers)
    replay = objective.replay
    parts = last_tokens(replay.model, replay.sequences, batch_size=BATCH_SIZE, prefixes=replay.prefixes)
    contributions, gaps = _all_contributions(replay.model, replay.sequences, replay.verdicts, parts, False)
    given = towards_right(contributions.double(), objective.labels)
    margins = towards_right(gaps.double()[:, None, None], objective.labels)
    return Attribution.of(
        only(gains(margins - given, margins), wanted),
        objective.clusters,
        measure="direct",
        criterion=criterion_of(objective, criterion),
    )


def _all_contributions(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    verdicts: VerdictTokens,
    parts: Iterable[LastTokens],
    progress: bool,
) -> tuple[Float[Tensor, "example layer head"], Float[Tensor, " example"]]:
    contributions, gaps = torch.empty(len(sequences), model.n_layers, model.n_heads), torch.empty(len(sequences))
    with tqdm(total=len(sequences), desc="direct contributions", unit="prompt", disable=not progress) as bar:
        for part in parts:
            contributions[part.examples], gaps[part.examples] = _contributions(model, part, verdicts)
            bar.update(len(part.examples))
    return contributions, gaps


def _contributions(model: LanguageModel, part: LastTokens, verdicts: VerdictTokens) -> tuple[Tensor, Tensor]:
    """The contributions and gaps of one batch, in float32 on the CPU."""
    leaves: dict[int, Tensor] = {}

    def leaf(layer: int) -> Hook:
        def start_here(z: Tensor) -> Tensor:
            leaves[layer] = z[:, -1].detach().clone().requires_grad_()
            return torch.cat([z[:, :-1].detach(), leaves[layer][:, None]], dim=1)

        return start_here

    hooks = {layer: leaf(layer) for layer in range(model.n_layers)}
    with differentiating(model), direct_paths(model), model.hooked(hooks):
        gap = verdict_gap(part.logits().float(), verdicts)
        slopes = torch.autograd.grad(gap.sum(), list(leaves.values()), allow_unused=True)
    slope_of = dict(zip(leaves, slopes, strict=True))
    each = []
    for layer in range(model.n_layers):
        if (slope := slope_of.get(layer)) is None:
            raise RuntimeError(f"{model.info.architecture}: no direct path from layer {layer} to the logits was found")
        each.append((leaves[layer].detach().float() * slope.float()).sum(dim=-1).cpu())
    return torch.stack(each, dim=1), gap.detach().cpu()
