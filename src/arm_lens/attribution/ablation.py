r"""Ablation: what is lost when a head of the unsteered model is knocked out.

All other measures ask what the model gains when the mean of a head is written. Ablation asks whether the model itself uses
the head: each head alone is overwritten by something independent of the question, and its score is the loss in the outcome,

.. math:: s[l, m] = v(\text{unsteered}) - v(z[l, m] \leftarrow r[l, m]),

so that positive means that the head helps, as everywhere. Results depend on the choice of the replacement :math:`r`
(Zhang and Nanda, arXiv 2309.16042):

- ``zero``: zeros. Simple, but far from what later layers ever see; a head whose constant part they rely on looks important.
- ``mean``: the mean of the head over these same questions (Wang et al., arXiv 2211.00593), not the mean of the criterion that
  is injected. Only the differences between questions are lost.
- ``resample``: the head's activation on another of these questions at random (as in causal scrubbing, Chan et al., 2022),
  averaged over several other questions.
- ``optimal``: the constant that costs least (Li and Janson, arXiv 2409.09951), see `arm_lens.attribution.optimal`. What is
  lost even so is what only the differences between questions can give.

Heads are replaced at the last token, where verdicts are given and injections written, or at every token of the prompt,
beginning-of-sequence included, as is usual for whole heads. Only the latter finds heads that gather or move information at
earlier tokens, such as the demonstrations of a few-shot prompt. `arm_lens.attribution.layer_ablation` does the same to the
MLPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.grid import Heads, each_alone, measured, on_grid
from arm_lens.attribution.optimal import CostOf, margins_at_optimum
from arm_lens.attribution.outcomes import Outcome, criterion_of, gains, towards_right, verdict_gap
from arm_lens.attribution.result import Attribution
from arm_lens.engine.memory import Footprint
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import Injection
from arm_lens.engine.tokens import chunks, pad
from arm_lens.heads import Head
from arm_lens.selection.objective import JudgingObjective

AblationKind: TypeAlias = Literal["zero", "mean", "resample", "optimal"]
Positions: TypeAlias = Literal["last", "all"]
Margins: TypeAlias = tuple[Float[Tensor, " example"], Float[Tensor, "example part resample"]]
"""Of the unsteered model, and with each part (a head, say) replaced."""
Losses: TypeAlias = tuple[Mapping[Outcome, Float[Tensor, "example part"]], Mapping[Outcome, Float[Tensor, " part"]]]
"""By outcome: what each example loses, and the standard error by the choice of resamples."""
EXAMPLES_PER_READ = 64
"""Activations of all heads are read of so many prompts at a time if only their sum is needed."""


def ablation(
    objective: JudgingObjective,
    kind: AblationKind = "mean",
    *,
    heads: Heads = None,
    layers: Sequence[int] | None = None,
    positions: Positions = "last",
    resamples: int = 8,
    cost: CostOf = "verdicts",
    folds: int = 2,
    seed: int = 0,
    batch_size: int = 16,
    criterion: str = "",
    progress: bool = False,
) -> Attribution:
    """What the unsteered model's judging loses when each head is knocked out alone, on all three outcomes.

    Args:
        objective: labelled prompts; its ``values`` and its injection play no part. For prompts with demonstrations
            see `arm_lens.attribution.few_shot_objective`.
        kind: the replacement: ``zero``, ``mean`` (of the head over these questions), ``resample`` (its activation on
            another question) or ``optimal`` (the constant that costs least).
        heads: which heads to measure, a `HeadSet` or (layer, head) pairs; by default all.
        layers: which layers to measure; by default all. Other heads have no value.
        positions: ``last`` token only, on the replay, which costs little; or ``all`` tokens of the prompt, with a full pass
            for each head and batch of prompts. The mean is then over all tokens of all prompts, and the activations of
            another question are aligned at the end, those of a shorter one repeated.
        resamples: ``resample``: other questions per question, without repetition; with all, the sampling error is 0.
        cost: ``optimal``: what the constant is to leave as it is, see `arm_lens.attribution.optimal_constants`.
        folds: ``optimal``: each example is judged with a constant that was fitted on the other folds; 1 fits the constants
            on the same examples, on which they cost least, but look better than they are.
        seed: ``resample``: of the choice of other questions, independent from question to question; ``optimal``: of the
            folds.
        batch_size: prompts per full pass, at most, if ``all`` tokens are replaced.
        criterion: its name, for the table; by default that of the examples' objective.
        progress: show a bar.

    Returns:
        Measure ``ablation_zero``, ``ablation_mean``, ``ablation_resample`` or ``ablation_optimal``. ``sampling_errors`` is
        the error by the choice of other questions, which ``errors`` includes. Both are for these means, activations and
        constants.

    Raises:
        ValueError: if an option is unknown, ``resample`` has fewer than two questions or fewer than two resamples, or
            ``optimal`` is to replace all tokens or has fewer clusters of examples than folds.
    """
    for name, given, known in (("kind", kind, AblationKind), ("positions", positions, Positions)):
        if given not in get_args(known):
            raise ValueError(f"{name} is one of {', '.join(map(repr, get_args(known)))}, not {given!r}")
    players = measured(objective.shape, heads, layers)
    donors = donors_of(len(objective), resamples, seed) if kind == "resample" else None
    if kind == "optimal":
        if positions == "all":
            raise ValueError("an optimal constant is fitted for the last token only: pass positions='last'")
        unsteered, ablated = margins_at_optimum(objective, players, cost, folds=folds, seed=seed, progress=progress)
    elif positions == "last":
        unsteered, ablated = at_the_last(objective, kind, donors, each_alone(players), progress)
    else:
        unsteered, ablated = _everywhere(objective, kind, donors, list(players), batch_size, progress)
    per_example, sampled = losses(unsteered, ablated)
    found = Attribution.of(
        {outcome: on_grid(lost, list(players), objective.shape) for outcome, lost in per_example.items()},
        objective.clusters,
        measure=f"ablation_{kind}",
        criterion=criterion_of(objective, criterion),
    )
    # The spread over examples, each of which has other questions of its own, includes the error by their choice.
    return replace(
        found,
        sampling_errors={outcome: on_grid(error, list(players), objective.shape) for outcome, error in sampled.items()},
    )


def losses(unsteered: Float[Tensor, " example"], ablated: Float[Tensor, "example part resample"]) -> Losses:
    """What each example loses on average over resamples, and how far the mean over examples depends on their choice."""
    n, count = len(ablated), ablated.shape[-1]
    lost = gains(ablated, unsteered[:, None, None])
    per_example = {outcome: each.mean(dim=-1) for outcome, each in lost.items()}
    if count == 1:
        return per_example, {outcome: torch.zeros_like(each[0]) for outcome, each in per_example.items()}
    left_out = 1 - count / (n - 1)  # sampled without repetition from n - 1 others
    sampled = {outcome: (each.var(dim=-1) / count * left_out).sum(dim=0).sqrt() / n for outcome, each in lost.items()}
    return per_example, sampled


def donors_of(count: int, resamples: int, seed: int) -> Int[Tensor, "example resample"]:
    """For each question, the other questions whose activations replace its own."""
    if count < 2:
        raise ValueError(f"resampling takes activations from other questions; there is {count} question")
    if resamples < 2 and count > 2:
        raise ValueError(f"resampling needs at least 2 resamples to estimate its own error; not {resamples}")
    generator = torch.Generator().manual_seed(seed)
    others = torch.stack([torch.randperm(count - 1, generator=generator)[:resamples] for _ in range(count)])
    return others + (others >= torch.arange(count)[:, None])


def at_the_last(
    objective: JudgingObjective,
    kind: AblationKind,
    donors: Int[Tensor, "example resample"] | None,
    parts: Bool[Tensor, "part layer head"],
    progress: bool,
) -> Margins:
    """The margins with each part, the heads of a mask, replaced at the last token."""
    n, replay = len(objective), objective.replay.with_injection(Injection())
    replaced = JudgingObjective(replay, objective.values, objective.labels.tolist(), "margin")
    none = torch.zeros(1, *objective.shape, dtype=torch.bool)
    unsteered = replaced.margins(none)[:, 0]
    if donors is None:
        written = torch.zeros_like(objective.values)
        if kind == "mean":
            for span in chunks(n, EXAMPLES_PER_READ):
                written += replay.hook_z(none, objective.values, range(n)[span])[:, 0].sum(dim=0) / n
        return unsteered, replaced.margins(parts, values=written)[..., None]
    z = replay.hook_z(none, objective.values)[:, 0]
    ablated = torch.empty(n, len(parts), donors.shape[1])
    # A pass writes the same for all masks and prompts; so it takes one donor at a time.
    for donor in tqdm(range(n), desc="ablating", unit="question", disable=not progress):
        takers, resample = (donors == donor).nonzero(as_tuple=True)
        if len(takers):
            ablated[takers, :, resample] = replaced.margins(parts, takers.tolist(), values=z[donor])
    return unsteered, ablated


def _everywhere(
    objective: JudgingObjective,
    kind: AblationKind,
    donors: Int[Tensor, "example resample"] | None,
    heads: list[Head],
    batch_size: int,
    progress: bool,
) -> Margins:
    replay, n_heads = objective.replay, objective.shape[1]
    lengths = [len(sequence) for sequence in replay.sequences]
    batches = list(Footprint.of(replay.model).batches(lengths, 0, batch_size, replay.memory_budget / 2))
    unsteered = torch.empty(len(objective))
    for batch in batches:
        unsteered[batch] = _margins(objective, batch)
    ablated = torch.empty(len(objective), len(heads), 1 if donors is None else donors.shape[1])
    layer, read, mean = -1, list[Tensor](), torch.zeros(n_heads, 1)
    for place, head in enumerate(tqdm(heads, desc="ablating", unit="head", disable=not progress)):
        if kind != "zero" and head.layer != layer:
            layer, read = head.layer, _read_layer(replay, head.layer, batches)
            mean = torch.cat(read).double().mean(dim=0) if kind == "mean" else mean
        for resample in range(ablated.shape[-1]):
            for batch in batches:
                written = mean[head.head]
                if donors is not None:
                    activations = [read[donor][:, head.head] for donor in donors[batch, resample].tolist()]
                    written = _aligned(activations, max(lengths[example] for example in batch))
                ablated[batch, place, resample] = _margins(objective, batch, head, written)
    return unsteered, ablated


def _read_layer(replay: Replay, layer: int, batches: list[list[int]]) -> list[Float[Tensor, "pos head d_head"]]:
    """``hook_z`` of one layer at every token of each prompt, on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(replay)
    for batch in batches:

        def read(z: Tensor, batch: list[int] = batch) -> None:
            for row, example in zip(z, batch, strict=True):
                found[example] = row[-len(replay.sequences[example]) :].to("cpu", copy=True)

        with replay.model.hooked({layer: read}):
            replay.model.last_logits(pad([replay.sequences[example] for example in batch], device=replay.device))
    return found


def _aligned(donors: Sequence[Float[Tensor, "_ d_head"]], length: int) -> Float[Tensor, "example pos d_head"]:
    """The activations of each donor with its last token last, repeated towards the front as far as needed."""
    back = torch.arange(length - 1, -1, -1)  # tokens from the end
    return torch.stack([donor[len(donor) - 1 - back % len(donor)] for donor in donors])


def _margins(
    objective: JudgingObjective,
    batch: Sequence[int],
    head: Head | None = None,
    written: Float[Tensor, "*place d_head"] | None = None,
) -> Float[Tensor, " example"]:
    """Log P(right) - log P(wrong) by full passes, with a head overwritten at every token."""
    replay = objective.replay

    def write(z: Tensor) -> Tensor:
        changed = z.clone()
        if head is not None and written is not None:
            changed[:, :, head.head] = written.to(z)
        return changed

    with replay.model.hooked({} if head is None else {head.layer: write}):
        tokens = pad([replay.sequences[example] for example in batch], device=replay.device)
        logits = replay.model.last_logits(tokens).float().cpu()
    return towards_right(verdict_gap(logits, replay.verdicts), objective.labels[list(batch)])
