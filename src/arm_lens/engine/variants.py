"""Variants: many changes to a prompt's last token, side by side in one pass, whatever they change, and with gradients.

`arm_lens.engine.replay` tries head masks with one value per head. Here each variant may change anything at ``hook_z`` or at
the output of an MLP: its own value per head, its own gates, the output of one MLP. As in the replay, the variants of
a prompt stand side by side as copies of its last token, which attend to the prompt's prefix and to themselves. If the replay
is not exact for a model, every variant reads the prompts in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.engine.finite import naming_prompts
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.memory import Footprint
from arm_lens.engine.replay import Replay
from arm_lens.engine.tokens import chunks, pad

Change: TypeAlias = Callable[[Float[Tensor, "example variant ..."]], Float[Tensor, "example variant ..."] | None]
"""From an activation at the last token of each prompt, in each variant, to the new one; None leaves it as it is."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Some variants of some prompts, which go into one pass."""

    replay: Replay
    examples: list[int]
    """The prompts, by index."""
    variants: slice
    _past: list[KVSegment] | None
    """What was read of the prompts; None if they are read in full, one variant at a time."""
    _as_rows: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The number of prompts, and of variants."""
        return len(self.examples), self.variants.stop - self.variants.start

    def logits(
        self,
        heads: Mapping[int, Change] | None = None,
        mlps: Mapping[int, Change] | None = None,
        *,
        rows: Int[Tensor, " token"] | None = None,
    ) -> Float[Tensor, "example variant token"]:
        """Next-token logits in float32, on the model's device; gradients are recorded if allowed.

        Args:
            heads: by layer, the change to ``hook_z``, ``[example, variant, head, d_head]``.
            mlps: by layer, the change to what the MLP gives, ``[example, variant, d_model]``.
            rows: the tokens whose logits are given; by default the whole vocabulary.
        """
        model, sequences = self.replay.model, [self.replay.sequences[example] for example in self.examples]
        at_heads, at_mlps = (
            {layer: self._hook(change) for layer, change in (given or {}).items()} for given in (heads, mlps)
        )
        rows = None if rows is None else rows.to(self.replay.device)
        with naming_prompts(self.examples), model.hooked(at_heads, at_mlps):
            if self._past is not None:
                logits = model.extend(self._side_by_side(sequences, self._past), rows=rows)
            else:
                logits = model.last_logits_with_gradient(pad(sequences, device=self.replay.device))
                logits = logits if rows is None else logits[:, rows.to(logits.device)]
        return logits.float().reshape(*self.shape, -1)

    def verdict_logits(
        self, heads: Mapping[int, Change] | None = None, mlps: Mapping[int, Change] | None = None
    ) -> Float[Tensor, "example variant verdict"]:
        """Logits of the two verdicts, all spellings together, in float32 on the CPU; otherwise as `logits`.

        Raises:
            NotFiniteError: if a logit is NaN or infinite.
        """
        replay = self.replay
        verdicts = replay.verdicts.in_rows().sums(self.logits(heads, mlps, rows=replay.verdicts.rows()))
        finite = verdicts.detach().isfinite().flatten(1).all(dim=1)
        with naming_prompts(self.examples):
            whole = pad([replay.sequences[example] for example in self.examples], device=replay.device)
            replay.model.check_rows(finite, "the verdict's logits", whole)
        return verdicts.cpu()

    def _side_by_side(self, sequences: list[list[int]], past: list[KVSegment]) -> NewTokens:
        """The last token of each prompt, once for each variant: as positions of one row, or as rows of their own."""
        (prompts, count), device = self.shape, self.replay.device
        last = torch.tensor([sequence[-1:] for sequence in sequences], device=device).expand(-1, count)
        places = torch.tensor([[len(sequence) - 1] for sequence in sequences], device=device).expand(-1, count)
        if self._as_rows:
            order = torch.arange(prompts, device=device).repeat_interleave(count)
            past, last, places = [one.rows(order) for one in past], last.reshape(-1, 1), places.reshape(-1, 1)
        return NewTokens.side_by_side(last, past, places)

    def _hook(self, change: Change) -> Callable[[Tensor], Tensor | None]:
        """The change as a function of what a pass gives there, ``[row, pos, ...]``."""

        def hook(given: Tensor) -> Tensor | None:
            if self._past is None:
                changed = change(given[:, -1:])
                return None if changed is None else torch.cat([given[:, :-1], changed.to(given)], dim=1)
            if not self._as_rows:
                return change(given)
            changed = change(rearrange(given, "(e v) 1 ... -> e v ...", e=len(self.examples)))
            return None if changed is None else rearrange(changed, "e v ... -> (e v) 1 ...")

        return hook


def pieces(
    replay: Replay,
    count: int,
    *,
    examples: Sequence[int] | None = None,
    differentiable: bool = False,
    vocabulary: bool = False,
) -> Iterator[Piece]:
    """Cut ``count`` variants of each prompt into passes that fit into the replay's memory budget.

    Args:
        replay: the prompts, read before or at this call.
        count: variants of each prompt, at least one.
        examples: which prompts, by index; by default all. Each is in as many pieces as its variants are cut into.
        differentiable: gradients will be taken of each piece, which stores the activations of all layers.
        vocabulary: there must be room for the logits of the whole vocabulary, and not only for the verdicts'.
    """
    replay.find_out(count)
    model, wanted = replay.model, set(range(len(replay)) if examples is None else examples)
    as_rows = replay.masks_as_rows
    budget = replay.memory_budget / 2 / (model.n_layers if differentiable else 1)
    for number, batch in enumerate(replay.prefixes.batches):
        picked = [row for row, example in enumerate(batch) if example in wanted]
        if not picked:
            continue
        if not replay.exact:
            for variant in range(count):
                yield Piece(replay, [batch[row] for row in picked], slice(variant, variant + 1), None, False)
            continue
        past = replay.prefixes.of_batch(number)
        slots = sum(segment.positions.shape[1] for segment in past)
        rows = None if vocabulary else len(replay.verdicts.rows())
        prompts, per_pass = Footprint.of(model).cut(count, slots, rows, budget, as_rows)
        for some in chunks(len(picked), prompts):
            those = _selected(past, picked[some], len(batch), replay.device, differentiable)
            for span in chunks(count, per_pass):
                yield Piece(replay, [batch[row] for row in picked[some]], span, those, as_rows)


def _selected(
    past: list[KVSegment], rows: list[int], of: int, device: torch.device, differentiable: bool
) -> list[KVSegment]:
    """Some rows of what a batch has read; as copies that may take part in gradients if these are wanted."""
    index = torch.tensor(rows, device=device)
    if not differentiable:
        return past if len(rows) == of else [segment.rows(index) for segment in past]
    with torch.inference_mode(False):  # then what is selected is a copy that may; a row that all share is not selected
        return [
            segment.rows(index) if len(segment.positions) > 1 else segment.outside_inference_mode() for segment in past
        ]
