r"""Ablation: what is lost when a head of the unsteered model is knocked out.

All other measures ask what the model gains when a head's mean is written. Ablation asks the older question, whether the
model as it is uses the head: each head alone is overwritten by something that says nothing about the question at hand,
and its score is what the outcome loses,

.. math:: s[l, m] = v(\text{unsteered}) - v(z[l, m] \leftarrow r[l, m]),

so that positive means that the head helps, as everywhere. What is written, :math:`r`, is a choice that results depend on
(Zhang and Nanda, arXiv 2309.16042):

- ``zero``: zeros. Simple, but far from what later layers ever see; a head whose constant part they rely on looks important.
- ``mean``: the head's mean over these same questions (Wang et al., arXiv 2211.00593), not the criterion's mean that is
  injected. Its constant part stays, what differs between questions is gone.
- ``resample``: the head's activation on another of these questions, drawn at random (as in causal scrubbing, Chan et al.,
  2022). What is written is then an activation that the head really has; the outcome is averaged over draws.

And where: at the last token, where verdicts are given and injections written, or at every token of the prompt, as the
field's ablations of whole heads do. Only the latter sees heads that gather or move information at earlier tokens, the worked
examples of a few-shot prompt for one. The beginning-of-sequence token is a token like any other: it is ablated too, and
takes part in the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.outcomes import OUTCOMES, Outcome, outcomes_of
from arm_lens.attribution.result import Attribution, clustered_error
from arm_lens.engine.memory import Footprint
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import Injection
from arm_lens.engine.tokens import pad
from arm_lens.selection.objective import JudgingObjective

AblationKind: TypeAlias = Literal["zero", "mean", "resample"]
Positions: TypeAlias = Literal["last", "all"]
EXAMPLES_PER_READ = 64
"""Activations of all heads are read of so many prompts at a time, where only their sum is kept."""


def ablation(
    objective: JudgingObjective,
    kind: AblationKind = "mean",
    *,
    positions: Positions = "last",
    draws: int = 8,
    seed: int = 0,
    batch_size: int = 16,
    criterion: str = "",
    progress: bool = False,
) -> Attribution:
    """What the unsteered model's judging loses when each head is knocked out alone, on all three outcomes.

    Args:
        objective: labelled prompts; its ``values`` and its way of injecting play no part. For prompts that show worked
            examples see `arm_lens.attribution.few_shot_objective`.
        kind: what is written: ``zero``, ``mean`` (of the head over these questions) or ``resample`` (its activation on
            another question).
        positions: ``last`` token only, on the replay: a position of one pass per head, so it costs little. Or ``all`` tokens
            of the prompt: a full pass for each head and batch of prompts. The mean is then over all tokens of all prompts,
            and another question's activations are aligned at the end, those of a shorter one starting over.
        draws: ``resample``: how many other questions per question, without repetition; with as many as there are, nothing is
            left to chance and the sampling error is 0.
        seed: ``resample``: of the draws, independent from question to question.
        batch_size: prompts per full pass, at most; of no effect at the last token.
        criterion: its name, for the table.
        progress: show a bar.

    Returns:
        Measure ``ablation_zero``, ``ablation_mean`` or ``ablation_resample``. ``sampling_errors`` is the error by drawing
        other questions; ``errors`` contains it already, as draws differ between questions. Neither knows that the mean, or
        the questions drawn from, would be others on other questions.

    Raises:
        ValueError: if an option is unknown, or ``resample`` has fewer than two questions or one draw.
    """
    for name, given, known in (("kind", kind, AblationKind), ("positions", positions, Positions)):
        if given not in get_args(known):
            raise ValueError(f"{name} is one of {', '.join(map(repr, get_args(known)))}, not {given!r}")
    donors: list[list[int]] | None = None
    if kind == "resample":
        donors = _donors(len(objective), draws, seed)
    if positions == "last":
        unsteered, losses = _at_the_last(objective, kind, donors, progress)
    else:
        unsteered, losses = _everywhere(objective, kind, donors, batch_size, progress)
    return _summary(f"ablation_{kind}", objective, unsteered, losses, donors, criterion)


# ------------------------------------------------------------------------------------------ what is drawn, what comes of it


def _donors(count: int, draws: int, seed: int) -> list[list[int]]:
    """For each question, which others it is written the activations of."""
    if count < 2:
        raise ValueError(f"resampling takes activations from other questions; there is {count} question")
    if draws < 2 and count > 2:
        raise ValueError(f"resampling needs at least 2 draws, to tell its own error; not {draws}")
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for question in range(count):
        others = torch.randperm(count - 1, generator=generator)[:draws].tolist()
        drawn.append([other + (other >= question) for other in others])
    return drawn


Margins: TypeAlias = Iterator[tuple[Sequence[int], slice, Tensor]]
"""Margins ``[example, head]`` of some examples and some heads (counted through all layers), each drawn once more."""


def _summary(
    measure: str,
    objective: JudgingObjective,
    unsteered: Float[Tensor, " example"],
    losses: Margins,
    donors: list[list[int]] | None,
    criterion: str,
) -> Attribution:
    n, (n_layers, n_heads) = len(objective), objective.shape
    draws = 1 if donors is None else len(donors[0])
    before = {outcome: one[:, None] for outcome, one in outcomes_of(unsteered).items()}
    sums = {outcome: torch.zeros(n, n_layers * n_heads, dtype=torch.float64) for outcome in OUTCOMES}
    squares = {outcome: torch.zeros_like(one) for outcome, one in sums.items()}
    for examples, heads, margins in losses:
        rows = torch.tensor(list(examples))
        for outcome, after in outcomes_of(margins).items():
            lost = before[outcome][rows] - after
            sums[outcome][rows, heads] += lost
            squares[outcome][rows, heads] += lost.square()
    values: dict[Outcome, Tensor] = {}
    errors: dict[Outcome, Tensor] = {}
    sampled: dict[Outcome, Tensor] = {}
    for outcome in OUTCOMES:
        means = rearrange(sums[outcome] / draws, "example (layer head) -> example layer head", layer=n_layers)
        values[outcome], errors[outcome] = means.mean(dim=0), clustered_error(means, objective.clusters)
        sampled[outcome] = torch.zeros(n_layers, n_heads, dtype=torch.float64)
        if draws > 1:
            spread = (squares[outcome] - sums[outcome].square() / draws).clamp(min=0) / (draws - 1)
            of_mean = spread / draws * (1 - draws / (n - 1))  # drawn without repetition from n - 1 others
            sampled[outcome] = (of_mean.sum(dim=0).sqrt() / n).reshape(n_layers, n_heads)
    return Attribution(measure, values, errors, sampled, n, len(set(objective.clusters)), criterion)


# ------------------------------------------------------------------------------------------ at the last token


def _at_the_last(
    objective: JudgingObjective, kind: AblationKind, donors: list[list[int]] | None, progress: bool
) -> tuple[Float[Tensor, " example"], Margins]:
    n_layers, n_heads = objective.shape
    replay = objective.replay.with_injection(Injection())
    replaced = JudgingObjective(replay, objective.values, objective.labels.tolist(), "margin")
    none = torch.zeros(1, n_layers, n_heads, dtype=torch.bool)
    each = torch.eye(n_layers * n_heads, dtype=torch.bool).reshape(-1, n_layers, n_heads)
    everyone, every_head = range(len(objective)), slice(0, len(each))

    def losses() -> Margins:
        if donors is None:
            written = torch.zeros_like(objective.values)
            if kind == "mean":
                for start in range(0, len(objective), EXAMPLES_PER_READ):
                    some = list(everyone[start : start + EXAMPLES_PER_READ])
                    written += replay.hook_z(none, objective.values, some)[:, 0].sum(dim=0) / len(objective)
            yield everyone, every_head, replaced.margins_writing(written, each)
            return
        z = replay.hook_z(none, objective.values)[:, 0]
        # What is written is the same for all masks and prompts of a pass; so donors are gone through, one by one.
        for donor in tqdm(everyone, desc="ablating", unit="question", disable=not progress):
            takers = [example for example in everyone if donor in donors[example]]
            if takers:
                yield takers, every_head, replaced.margins_writing(z[donor], each, takers)

    return replaced.margins(none)[:, 0], losses()


# ------------------------------------------------------------------------------------------ at every token


def _everywhere(
    objective: JudgingObjective, kind: AblationKind, donors: list[list[int]] | None, batch_size: int, progress: bool
) -> tuple[Float[Tensor, " example"], Margins]:
    replay, (n_layers, n_heads) = objective.replay, objective.shape
    lengths = [len(sequence) for sequence in replay.sequences]
    room = replay.memory_budget / 2
    batches = list(Footprint.of(replay.model).batches(lengths, 0, batch_size, room))
    draws = 1 if donors is None else len(donors[0])

    def losses() -> Margins:
        bar = tqdm(total=n_layers * n_heads * draws, desc="ablating", unit="head", disable=not progress)
        with bar:
            for layer in range(n_layers):
                read = [] if kind == "zero" else _read_layer(replay, layer, batches)
                mean = torch.cat(read).double().mean(dim=0) if kind == "mean" else None
                for head in range(n_heads):
                    place = layer * n_heads + head
                    for draw in range(draws):
                        for batch in batches:
                            if donors is not None:
                                taken = [read[donors[example][draw]][:, head] for example in batch]
                                written = _aligned(taken, max(lengths[example] for example in batch))
                            else:
                                written = torch.zeros(()) if mean is None else mean[head]
                            margins = _margins(objective, batch, layer, head, written)
                            yield batch, slice(place, place + 1), margins[:, None]
                        bar.update()

    unsteered = torch.empty(len(objective))
    for batch in batches:
        unsteered[batch] = _margins(objective, batch)
    return unsteered, losses()


def _read_layer(replay: Replay, layer: int, batches: list[list[int]]) -> list[Float[Tensor, "pos head d_head"]]:
    """``hook_z`` of one layer at every token of each prompt, on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(replay)
    for batch in batches:

        def keep(z: Tensor, batch: list[int] = batch) -> None:
            for row, example in zip(z, batch, strict=True):
                found[example] = row[-len(replay.sequences[example]) :].to("cpu", copy=True)

        with replay.model.hooked({layer: keep}):
            replay.model.last_logits(pad([replay.sequences[example] for example in batch], device=replay.device))
    return found


def _aligned(donors: Sequence[Float[Tensor, "_ d_head"]], length: int) -> Float[Tensor, "example pos d_head"]:
    """Each donor's activations so that its last token stands last, repeated towards the front as far as needed."""
    back = torch.arange(length - 1, -1, -1)  # tokens from the end
    return torch.stack([donor[len(donor) - 1 - back % len(donor)] for donor in donors])


def _margins(
    objective: JudgingObjective,
    batch: Sequence[int],
    layer: int = 0,
    head: int | None = None,
    written: Float[Tensor, ...] | None = None,
) -> Float[Tensor, " example"]:
    """Log P(right) - log P(wrong) by full passes, a head being overwritten at every token."""
    replay = objective.replay

    def write(z: Tensor) -> Tensor:
        changed = z.clone()
        if written is not None:
            changed[:, :, head] = written.to(z)
        return changed

    with replay.model.hooked({} if head is None else {layer: write}):
        tokens = pad([replay.sequences[example] for example in batch], device=replay.device)
        logits = replay.model.last_logits(tokens).float().cpu()
    sides = (replay.verdicts.positive, replay.verdicts.negative)
    positive, negative = (logits[:, list(side)].logsumexp(dim=-1) for side in sides)
    right: Bool[Tensor, " example"] = objective.labels[list(batch)]
    return torch.where(right, positive - negative, negative - positive)
