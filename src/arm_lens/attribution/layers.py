r"""Ablation by layer: what the MLPs do next to the heads.

A judge may decide in its MLPs: circuits found in judging models have their evaluator in middle and late MLPs (arXiv
2605.16023). Measures of heads do not see that. So the output of each MLP, and of all heads of each layer together, is
replaced at the last token of the unsteered model, as `arm_lens.attribution.ablation` does with single heads: by zeros, by
its mean over these questions, or by that of other questions at random. The outcomes, the examples, and the meaning of the
sign are the same, so that an MLP's score can be compared with that of any head. What the MLP adds to the residual stream is
replaced, after a norm behind it if there is one. In blocks where attention and MLP are parallel the two do not read each
other's output; elsewhere the MLP of a layer reads what its attention has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.attribution.ablation import Margins, at_the_last, donors_of, losses
from arm_lens.attribution.grid import measured
from arm_lens.attribution.outcomes import Outcome, criterion_of, towards_right
from arm_lens.attribution.result import Estimates
from arm_lens.display import card, frame_table, frame_text
from arm_lens.engine.variants import Change, pieces
from arm_lens.selection.objective import JudgingObjective

LayerAblationKind: TypeAlias = Literal["zero", "mean", "resample"]
Part: TypeAlias = Literal["mlp", "attention"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerAblation(Estimates):
    """What each outcome loses without a part of a layer, ``[layer part]``: the MLP, or all heads together."""

    measure: str
    """``ablation_zero``, ``ablation_mean`` or ``ablation_resample``: as for single heads."""

    def frame(self) -> pd.DataFrame:
        """Tidy table, a row per outcome, layer and part.

        Columns: criterion, measure, outcome, layer, part (mlp or attention), score, se, ci_low, ci_high (95 %, as in
        `Attribution.frame`), sampling_se, n.
        """
        rows = [(layer, part) for layer in range(len(self.values["gap"])) for part in PARTS]
        places = pd.DataFrame(rows, columns=["layer", "part"])
        parts = [places.join(self._effects(outcome)).assign(outcome=outcome) for outcome in self.values]
        table = pd.concat(parts, ignore_index=True).assign(criterion=self.criterion, measure=self.measure)
        front = ["criterion", "measure", "outcome"]
        return table[[*front, *table.columns.drop(front)]]

    def by_layer(self, outcome: Outcome = "probability") -> pd.DataFrame:
        """The scores, a row per layer and a column per part, for an outcome that was measured."""
        return pd.DataFrame(self._values(outcome, self.measure).numpy(), columns=PARTS).rename_axis("layer")

    def __repr__(self) -> str:
        of = f" of {self.criterion!r}" if self.criterion else ""
        return (
            f"LayerAblation({self.measure!r}{of}, n = {self.n}) on probability\n{frame_text(self.by_layer().round(3))}"
        )

    def _repr_html_(self) -> str:
        facts = {"criterion": self.criterion or None, "outcomes": ", ".join(self.outcomes), "n": self.n}
        return card(f"Layers: {self.measure} on probability", facts, frame_table(self.by_layer()))


def layer_ablation(
    objective: JudgingObjective,
    kind: LayerAblationKind = "mean",
    *,
    layers: Sequence[int] | None = None,
    resamples: int = 8,
    seed: int = 0,
    criterion: str = "",
    progress: bool = False,
) -> LayerAblation:
    """What the unsteered model's judging loses without each MLP, and without all heads of each layer, at the last token.

    Args:
        objective: labelled prompts, as for `ablation`; its ``values`` and its injection play no part.
        kind: the replacement, as for `ablation`: ``zero``, ``mean`` or ``resample``.
        layers: which layers to measure; by default all. Others have no value.
        resamples: ``resample``: other questions per question, without repetition.
        seed: ``resample``: of the choice of other questions.
        criterion: its name, for the table; by default that of the examples' objective.
        progress: show a bar.

    Raises:
        ValueError: if an option is unknown, ``resample`` has fewer than two questions or fewer than two resamples, or a layer
            has no MLP of its own.
        RuntimeError: if a layer's MLP runs outside TransformerLens.
    """
    if kind not in get_args(LayerAblationKind):
        raise ValueError(f"kind is one of {', '.join(map(repr, get_args(LayerAblationKind)))}, not {kind!r}")
    n_layers, n_heads = objective.shape
    wanted = sorted({head.layer for head in measured(objective.shape, None, layers)})
    donors = donors_of(len(objective), resamples, seed) if kind == "resample" else None
    every_head = torch.eye(n_layers, dtype=torch.bool)[wanted][:, :, None].expand(-1, -1, n_heads)
    by_part = (
        _without_mlps(objective, kind, donors, wanted, progress),
        at_the_last(objective, kind, donors, every_head, progress),
    )
    found = [losses(*margins) for margins in by_part]

    def stacked(values: list[Float[Tensor, "*example measured"]]) -> Float[Tensor, "*example layer part"]:
        full = torch.full((*values[0].shape[:-1], n_layers, len(PARTS)), torch.nan, dtype=torch.float64)
        full[..., wanted, :] = torch.stack(values, dim=-1)
        return full

    outcomes = list(found[0][0])
    result = LayerAblation.of(
        {outcome: stacked([per_example[outcome] for per_example, _ in found]) for outcome in outcomes},
        objective.clusters,
        measure=f"ablation_{kind}",
        criterion=criterion_of(objective, criterion),
    )
    return replace(
        result, sampling_errors={outcome: stacked([sampled[outcome] for _, sampled in found]) for outcome in outcomes}
    )


def _without_mlps(
    objective: JudgingObjective,
    kind: LayerAblationKind,
    donors: Int[Tensor, "example resample"] | None,
    layers: list[int],
    progress: bool,
) -> Margins:
    """The margins of the unsteered model, and with each MLP's output replaced."""
    unsteered, outputs = _mlp_outputs(objective, layers)
    count = 1 if donors is None else donors.shape[1]
    ablated = torch.empty(len(objective), len(layers), count)
    constant = outputs.mean(dim=0) if kind == "mean" else torch.zeros_like(outputs[0])
    work = list(pieces(objective.replay, len(layers) * count))
    for piece in tqdm(work, desc="ablating MLPs", unit="pass", disable=not progress):
        variants = range(len(layers) * count)[piece.variants]  # all resamples of a layer stand next to each other
        changes: dict[int, Change] = {}
        for place in sorted({variant // count for variant in variants}):
            here = [index for index, variant in enumerate(variants) if variant // count == place]
            if donors is None:
                new = constant[place].expand(len(piece.examples), len(here), -1)
            else:
                new = outputs[donors[piece.examples][:, [variants[index] % count for index in here]], place]
            changes[layers[place]] = _replacing(here, new)
        with torch.inference_mode():
            verdicts = piece.verdict_logits(mlps=changes)
        margins = towards_right(verdicts[..., 0] - verdicts[..., 1], objective.labels[piece.examples])
        ablated.flatten(1)[piece.examples, piece.variants] = margins
    return unsteered, ablated


def _replacing(variants: list[int], new: Float[Tensor, "example some d_model"]) -> Change:
    def replaced(output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, variants] = new.to(output)
        return changed

    return replaced


def _mlp_outputs(
    objective: JudgingObjective, layers: list[int]
) -> tuple[Float[Tensor, " example"], Float[Tensor, "example layer d_model"]]:
    """The margins of the unsteered model, and what each MLP adds at the last token, in float32 on the CPU."""
    model = objective.replay.model
    margins = torch.empty(len(objective))
    outputs = torch.empty(len(objective), len(layers), model.d_model)
    for piece in pieces(objective.replay, 1):
        seen: dict[int, Tensor] = {}

        def reading(layer: int, seen: dict[int, Tensor] = seen) -> Change:
            def read(output: Tensor) -> None:
                seen[layer] = output[:, 0].float().cpu()

            return read

        with torch.inference_mode():
            verdicts = piece.verdict_logits(mlps={layer: reading(layer) for layer in layers})[:, 0]
        missing = [layer for layer in layers if layer not in seen]
        if missing:
            raise RuntimeError(f"hook_mlp_out of layer {missing[0]} did not fire: its MLP runs outside TransformerLens")
        margins[piece.examples] = towards_right(verdicts[:, 0] - verdicts[:, 1], objective.labels[piece.examples])
        outputs[piece.examples] = torch.stack([seen[layer] for layer in layers], dim=1)
    return margins, outputs
