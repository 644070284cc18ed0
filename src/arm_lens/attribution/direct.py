r"""Direct logit attribution: what each head writes towards the right verdict, later layers aside.

A head's output at the last token, :math:`z[l, m]`, goes through its part of the output projection into the residual stream,
and the final norm and the unembedding read it from there. With the norm's scale held fixed that path is linear, and so is
the verdict gap in the logits, near where they are: each side's logsumexp over spellings has its softmax weights as slopes, a
final softcap its own. The contribution to the gap is

.. math:: c_i[l, m] = \big(W_O[l, m]\, N^\top\, (\bar u_\text{positive} - \bar u_\text{negative})\big) \cdot z_i[l, m],

with :math:`N` the norm's linear map (after a norm behind the attention, where there is one) and :math:`\bar u` the
weighted mean of the spellings' unembedding rows. For verdicts of one spelling each and logits without softcap, the
contributions of all heads, MLPs, embeddings and biases add up to the gap. It says what a head writes in the *unsteered* model
and leaves out what later layers make of it, so a head that only prepares the ground for others has none. Its causal
counterpart is ablation: writing a mean takes the head's own contribution away, so signs of the two may well be opposite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.outcomes import outcomes_of
from arm_lens.attribution.result import Attribution
from arm_lens.engine.direct_path import direct_paths
from arm_lens.engine.gradients import differentiating
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.memory import Footprint, default_budget
from arm_lens.engine.protocol import Hook, LanguageModel
from arm_lens.engine.tokens import TokenBatch, pad
from arm_lens.engine.verdict_tokens import VerdictTokens
from arm_lens.selection.objective import JudgingObjective


def direct_contributions(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    verdicts: VerdictTokens,
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> tuple[Float[Tensor, "example layer head"], Float[Tensor, " example"]]:
    """What each head adds to the verdict gap along the direct path, and the gap (positive minus negative, in logits).

    Memory is that of a batch's pass without gradients, and little more: only the last position's way through the stream
    is differentiated. A projection's bias is no head's.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; hooks on it, such as `steer`'s, take part.
        sequences: prompts as token ids, each ending where the verdict is due.
        verdicts: the tokens whose logits decide.
        batch_size: prompts per pass, at most; fewer where memory is short.
        progress: show a bar.

    Raises:
        ValueError: if a layer has no attention heads, or there is no prompt.
        ValueError: if a norm on the way is neither a layer norm nor an RMS norm.
        RuntimeError: if the model's parts cannot be told apart well enough to find the path.
    """
    model = language_model(model)
    if not sequences:
        raise ValueError("there is no prompt to attribute")
    device = model.device
    contributions: list[Tensor] = [torch.empty(0)] * len(sequences)
    gaps = contributions.copy()
    lengths = [len(sequence) for sequence in sequences]
    batches = list(Footprint.of(model).batches(lengths, 0, batch_size, default_budget(device) / 2))
    for batch in tqdm(batches, desc="direct contributions", unit="batch", disable=not progress):
        found = _contributions(model, pad([sequences[example] for example in batch], device=device), verdicts)
        for example, contribution, gap in zip(batch, *found, strict=True):
            contributions[example], gaps[example] = contribution, gap
    return torch.stack(contributions), torch.stack(gaps)


def direct_logit_attribution(objective: JudgingObjective, *, criterion: str = "") -> Attribution:
    r"""What each outcome would lose if each head's direct contribution, alone, were taken away; the model is unsteered.

    Of an example with margin :math:`g_i` and a contribution :math:`c_i` towards the right verdict: ``gap`` :math:`c_i`;
    ``probability`` :math:`\sigma(g_i) - \sigma(g_i - c_i)`; ``accuracy`` the same with 1 where the margin is positive and one
    half at a tie.

    Args:
        objective: labelled examples, e.g. ``reward.objective(held_out)``; what it would write plays no part.
        criterion: its name, for the frame.
    """
    replay = objective.replay
    contributions, gaps = direct_contributions(replay.model, replay.sequences, replay.verdicts)
    sign = torch.where(objective.labels, 1.0, -1.0).double()[:, None, None]
    given, margins = sign * contributions.double(), sign * gaps.double()[:, None, None]
    before, after = outcomes_of(margins), outcomes_of(margins - given)
    per_example = {outcome: before[outcome] - after[outcome] for outcome in before} | {"gap": given}
    return Attribution.of("direct", per_example, objective.clusters, criterion=criterion)


def _contributions(model: LanguageModel, batch: TokenBatch, verdicts: VerdictTokens) -> tuple[Tensor, Tensor]:
    """Of one batch, in float32 on the CPU."""
    leaves: list[Tensor | None] = [None] * model.n_layers

    def leaf(layer: int) -> Hook:
        def start_here(z: Tensor) -> Tensor:
            last = leaves[layer] = z[:, -1].detach().clone().requires_grad_()
            return torch.cat([z[:, :-1].detach(), last[:, None]], dim=1)

        return start_here

    hooks = {layer: leaf(layer) for layer in range(model.n_layers)}
    with differentiating(model), direct_paths(model), model.hooked(hooks):
        logits = model.last_logits_with_gradient(batch).float()
        sides = (verdicts.positive, verdicts.negative)
        positive, negative = (logits[:, list(side)].logsumexp(dim=-1) for side in sides)
        found = [z for z in leaves if z is not None]
        slopes = torch.autograd.grad((positive - negative).sum(), found, allow_unused=True)
    if len(found) < len(leaves) or any(slope is None for slope in slopes):
        lost = [layer for layer, z in enumerate(leaves) if z is None] or [slopes.index(None)]
        raise RuntimeError(f"{model.info.architecture}: no direct path from layer {lost[0]} to the logits was found")
    each = [(z.detach().float() * slope.float()).sum(dim=-1).cpu() for z, slope in zip(found, slopes, strict=True)]
    return torch.stack(each, dim=1), (positive - negative).detach().cpu()
