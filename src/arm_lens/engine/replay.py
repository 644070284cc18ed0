"""The exact replay: try many head masks on a prompt without reading the prompt again.

An injection touches the last token only, and attention is causal: the keys and values of all earlier tokens are the same
whatever mask is tried. So each prompt's prefix (all tokens but the last) is read once, what all prompts have in common
once for all, and each mask costs one token.

The masks of a prompt stand side by side as positions of one pass: M copies of the last token, all at the last token's
position, each of which attends to the prefix and to itself but not to the other copies (the attention mask of tree-shaped
speculative decoding). ``hook_z`` is then ``[example, mask, head, d_head]``, and the prefix is stored once per prompt, not
once per mask.

Masks start at the first layer in which they have a head: what enters each block without a mask is stored as well
(`arm_lens.engine.late_start`).

Before its first use a replay is checked: on the longest and the shortest prompt it is compared with full passes. If they
differ, or if the model cannot read on from keys and values, every mask reads every prompt in full, and one warning says so.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_lens.engine.finite import NotFiniteError, cause_in, has_maximum, naming_prompts
from arm_lens.engine.hooks import Hook
from arm_lens.engine.images import has_images
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.late_start import block_inputs, starting_at
from arm_lens.engine.memory import MASKS_PER_PASS, Footprint, default_budget
from arm_lens.engine.prefix_cache import TOLERANCE, Prefixes, differs, most_telling
from arm_lens.engine.reading import read_batch
from arm_lens.engine.steering import Injection, steer
from arm_lens.engine.tokens import TokenBatch, chunks, pad
from arm_lens.engine.verdict_tokens import VerdictTokens

CHECKED, CHECKED_IN_HALF = 0.5, 0.125
"""The share of heads that are overwritten when a replay is checked. Fewer in half precision: without half of its heads a
model amplifies rounding, so that two plain passes differ by a tenth of the largest logit."""


class SlowReplayWarning(UserWarning):
    """The model's prompts are read in full for every mask."""


HeadMasks: TypeAlias = Bool[Tensor, "mask layer head"] | Float[Tensor, "mask layer head"]


@dataclass(frozen=True, eq=False)
class _Trial:
    """What is tried on prompts, and what is taken from each pass."""

    masks: Tensor
    values: Tensor
    reduce: Callable[[Tensor], Tensor] | None
    """A function of the logits; None takes hook_z."""
    rows: Tensor | None = None
    """The tokens whose logits are computed; None for the whole vocabulary."""


class Replay:
    """Prompts of one model, read once, on which any number of head masks can be tried.

    Prompts are read at the first call, with whatever hooks the model has then.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; it is not changed.
        sequences: the prompts as token ids, each ending where the verdict is due, of at least two tokens.
        verdicts: the tokens whose logits decide.
        injection: how values are written.
        batch_size: prompts per pass, at most.
        memory_budget: bytes to stay within, in addition to the model's weights; by default half of what is free on its
            device. Half of it is for prompts that were read; prompts for which it has no room are read again each time.
            Passes are cut to the other half, but never below one mask on one prompt.
        progress: show a bar while prompts are read.

    Raises:
        ValueError: if there is no prompt, or one has a single token.
    """

    def __init__(
        self,
        model: ModelLike,
        sequences: Sequence[Sequence[int]],
        verdicts: VerdictTokens,
        *,
        injection: Injection | None = None,
        batch_size: int = 32,
        memory_budget: int | None = None,
        progress: bool = False,
    ) -> None:
        if not sequences:
            raise ValueError("there is no prompt to replay")
        short = [number for number, sequence in enumerate(sequences) if len(sequence) < 2]
        if short:
            raise ValueError(f"a prompt to replay needs at least two tokens; prompt {short[0]} has fewer")
        self.model, self.verdicts = language_model(model), verdicts
        self.injection = injection or Injection()
        self.sequences, self.device = [list(sequence) for sequence in sequences], self.model.device
        self.memory_budget = default_budget(self.device) if memory_budget is None else memory_budget
        self._sizes = Footprint.of(self.model)
        room = self.memory_budget / 2
        self.prefixes = Prefixes(
            self.model, self.sequences, batch_size=batch_size, memory_budget=room, progress=progress
        )
        self._verdict_rows = verdicts.rows()
        self._refusal = self.model.no_extension(max(map(len, self.sequences)))
        self._masks_as_rows = False
        self.checked = 0
        """Up to how many masks in a pass were compared with full passes."""
        self._inputs: dict[int, list[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def exact(self) -> bool:
        """Whether masks are replayed; False once it is known that each mask needs a full pass."""
        return self._refusal is None

    @property
    def masks_as_rows(self) -> bool:
        """Whether each mask is a row of its own, and not a position of its prompt's row."""
        return self._masks_as_rows or self.model.heads_are_hooked()

    @property
    def nbytes(self) -> int:
        """The memory that the stored prompts take."""
        return self.prefixes.nbytes

    def with_injection(self, injection: Injection) -> Replay:
        """The same prompts, including what was read of them, with values written in another way."""
        other = copy.copy(self)
        other.injection = injection
        return other

    def find_out(self, count: int = 1) -> None:
        """Decide whether replays are `exact` with so many masks of a prompt side by side, which the first use does too."""
        shape = (self.model.n_layers, self.model.n_heads)
        nothing = torch.zeros(min(count, MASKS_PER_PASS), *shape, dtype=torch.bool, device=self.device)
        values = torch.zeros(*shape, self.model.d_head, dtype=self.model.dtype, device=self.device)
        with torch.inference_mode():
            self._is_exact(_Trial(nothing, values, None))

    def verdict_logits(
        self, masks: HeadMasks, values: Float[Tensor, "layer head d_head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask verdict"]:
        """Logits of the positive and the negative verdict, all spellings together (logsumexp), in float32 on the CPU.

        Only the verdicts' rows of the unembedding are multiplied. The difference of the two is the verdict gap.

        Args:
            masks: heads at which the values are written; or gates in [0, 1], see `steer`.
            values: what is written there.
            examples: which prompts, by index; by default all.

        Raises:
            NotFiniteError: if any is NaN or infinite.
        """
        return self._each(_Trial(masks, values, self.verdicts.in_rows().sums, self._verdict_rows), examples)

    def log_probs(
        self,
        masks: HeadMasks,
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, "example mask verdict"]:
        """Log-probabilities of the two verdicts over the whole vocabulary; otherwise as `verdict_logits`.

        Logits are divided by the temperature first, and summed pass by pass on the model's device: only two numbers per
        prompt and mask are stored.
        """

        def normalised(logits: Tensor) -> Tensor:
            logits = logits / temperature
            return self.verdicts.sums(logits) - logits.logsumexp(dim=-1, keepdim=True)

        return self._each(_Trial(masks, values, normalised), examples)

    def logits(
        self, masks: HeadMasks, values: Float[Tensor, "layer head d_head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask vocab"]:
        """Next-token logits of each prompt under each mask; otherwise as `verdict_logits`."""
        return self._each(_Trial(masks, values, lambda logits: logits), examples)

    def hook_z(
        self, masks: HeadMasks, values: Float[Tensor, "layer head d_head"], examples: Sequence[int] | None = None
    ) -> Float[Tensor, "example mask layer head d_head"]:
        """What enters each output projection at the last token, after writing; otherwise as `verdict_logits`."""
        return self._each(_Trial(masks, values, None, self._verdict_rows[:1]), examples)

    @torch.inference_mode()
    def _each(self, trial: _Trial, examples: Sequence[int] | None) -> Tensor:
        """Try the masks on prompts, pass by pass, and gather the results on the CPU: ``[example, mask, ...]``."""
        wanted = list(range(len(self))) if examples is None else list(examples)
        self._check(trial.masks, wanted)
        trial = replace(
            trial,
            masks=trial.masks.to(self.device),
            values=trial.values.to(self.device, self.model.dtype),
            rows=None if trial.rows is None else trial.rows.to(self.device),
        )
        run = self._replayed if self._is_exact(trial) else self._in_full
        found = torch.empty(0)
        targets = {
            example: [index for index, other in enumerate(wanted) if other == example] for example in set(wanted)
        }
        for number, batch in enumerate(self.prefixes.batches):
            picked = [row for row, example in enumerate(batch) if example in targets]
            for rows, span, part in run(number, picked, trial) if picked else ():
                if not found.numel():
                    found = torch.empty(len(wanted), len(trial.masks), *part.shape[2:])
                self._check_finite(trial, [batch[row] for row in rows], span, part)
                for row, result in zip(rows, part.float().cpu(), strict=True):
                    for target in targets[batch[row]]:
                        found[target, span] = result
        return found

    def _check(self, masks: Tensor, wanted: Sequence[int]) -> None:
        shape = (self.model.n_layers, self.model.n_heads)
        if tuple(masks.shape[1:]) != shape:
            raise ValueError(
                f"the masks have shape {tuple(masks.shape)}, the model {shape[0]} layers of {shape[1]} heads"
            )
        if not len(masks) or not wanted:
            raise ValueError(f"there is nothing to try: {len(masks)} masks on {len(wanted)} prompts")
        outside = [example for example in wanted if not 0 <= example < len(self)]
        if outside:
            raise IndexError(f"there is no prompt {outside[0]}; there are {len(self)}")

    def _check_finite(self, trial: _Trial, examples: list[int], span: Tensor, part: Tensor) -> None:
        """Refuse results of a pass that are NaN or infinite; ``part`` is ``[example, mask, ...]``."""
        vocabulary = trial.rows is None and trial.reduce is not None and part.shape[-1] == self.model.d_vocab
        finite = has_maximum(part) if vocabulary else part.isfinite().flatten(2).all(dim=-1)
        if bool(finite.all()):
            return
        row, column = (~finite).nonzero()[0].tolist()
        mask = trial.masks[int(span[column])]
        whole = pad([self.sequences[examples[row]]], device=self.device)
        with naming_prompts([examples[row]]), steer(self.model, mask, trial.values, injection=self.injection):
            self.model.last_logits(whole)  # also shows the layer
        raise NotFiniteError.of("the verdict's logits", examples[row], None, cause_in(self.model.dtype))

    def _replayed(self, number: int, picked: list[int], trial: _Trial) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        past = self.prefixes.of_batch(number)
        slots = sum(segment.positions.shape[1] for segment in past)
        logits = None if trial.rows is None else len(trial.rows)
        as_rows = self.masks_as_rows
        firsts = self._first_layers(trial, as_rows)
        order, inputs = firsts.argsort(stable=True), self._block_inputs(number, past) if bool(firsts.any()) else None
        prompts, per_pass = self._sizes.cut(len(trial.masks), slots, logits, self.memory_budget / 2, as_rows)
        for some in chunks(len(picked), prompts):
            rows = picked[some]
            index = torch.tensor(rows, device=self.device)
            those = past if len(rows) == len(self.prefixes.batches[number]) else [one.rows(index) for one in past]
            last, positions = self._last_tokens(number, rows)
            for span in chunks(len(trial.masks), per_pass):
                masks = order[span]
                start = int(firsts[masks[0]])
                hidden = inputs[start][rows] if start and inputs is not None else None
                part_of_trial = replace(trial, masks=trial.masks[masks.to(trial.masks.device)])
                yield rows, masks, self._pass(those, last, positions, part_of_trial, as_rows, start, hidden)

    def _last_tokens(self, number: int, rows: Sequence[int]) -> tuple[Int[Tensor, "prompt 1"], Int[Tensor, "prompt 1"]]:
        """The last tokens of some prompts of a batch, and their positions."""
        sequences = [self.sequences[self.prefixes.batches[number][row]] for row in rows]
        last = torch.tensor([sequence[-1:] for sequence in sequences], device=self.device)
        return last, torch.tensor([[len(sequence) - 1] for sequence in sequences], device=self.device)

    def _first_layers(self, trial: _Trial, as_rows: bool) -> Int[Tensor, " mask"]:
        """The block at which each mask may start: the first in which it has a head, the last if it has none; or 0."""
        if as_rows or trial.reduce is None or self.model.has_foreign_hooks():
            return torch.zeros(len(trial.masks), dtype=torch.long)
        layers = torch.arange(self.model.n_layers)
        touched = trial.masks.cpu().any(dim=-1)
        firsts = layers.where(touched, self.model.n_layers - 1).amin(dim=-1)
        if bool(firsts.any()) and self.model.findings.late is None:
            self.model.findings.late = self._starts_late(trial.values)
        return firsts if self.model.findings.late else torch.zeros_like(firsts)

    def _block_inputs(self, number: int, past: Sequence[KVSegment]) -> list[Float[Tensor, "prompt 1 d_model"]]:
        """What enters each block at the last token of a batch's prompts, without a mask."""
        if number not in self._inputs:
            last, positions = self._last_tokens(number, range(len(self.prefixes.batches[number])))
            self._inputs[number] = self._unsteered_inputs(past, last, positions)
        return self._inputs[number]

    def _unsteered_inputs(
        self, past: Sequence[KVSegment], last: Tensor, positions: Tensor
    ) -> list[Float[Tensor, "prompt 1 d_model"]]:
        new, rows = NewTokens.side_by_side(last, past, positions), self._verdict_rows[:1].to(self.device)
        return block_inputs(self.model, lambda: self.model.extend(new, rows=rows))

    def _starts_late(self, values: Tensor) -> bool:
        """Whether a pass that starts in the middle of the model gives what a whole pass gives, under a random mask there."""
        middle = max(1, self.model.n_layers // 2)
        longest = max(range(len(self)), key=lambda example: len(self.sequences[example]))
        mask = torch.rand(1, *values.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.5
        mask[:, :middle] = False
        rows = self._verdict_rows.to(self.device)
        trial = _Trial(mask.to(self.device), values, lambda logits: logits, rows)
        last = torch.tensor([self.sequences[longest][-1:]], device=self.device)
        positions = torch.tensor([[len(self.sequences[longest]) - 1]], device=self.device)
        past = self.prefixes.read([longest])
        expected = self._pass(past, last, positions, trial, False)
        try:
            hidden = self._unsteered_inputs(past, last, positions)[middle]
            found = self._pass(past, last, positions, trial, False, middle, hidden)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, AttributeError, LookupError, RuntimeError):  # blocks that pass on more than one tensor
            return False
        return differs(found, expected, lambda: self._pass(past, last, positions, trial, True)) is None

    def _pass(
        self,
        past: Sequence[KVSegment],
        last: Tensor,
        positions: Tensor,
        trial: _Trial,
        as_rows: bool,
        start: int = 0,
        hidden: Float[Tensor, "prompt 1 d_model"] | None = None,
    ) -> Tensor:
        """All masks on some prompts: one position for each, or one row; from a block on, with what enters it."""
        prompts, masks = len(last), trial.masks
        count = len(masks)
        if as_rows:
            order = repeat(torch.arange(prompts, device=self.device), "e -> (e m)", m=count)
            past, last, positions = [segment.rows(order) for segment in past], last[order], positions[order]
            masks = repeat(masks, "m layer head -> (e m) 1 layer head", e=prompts)
        else:
            last, positions = last.expand(-1, count), positions.expand(-1, count)
        written: dict[int, Tensor] = {}

        def writer(layer: int) -> Hook:
            def write(z: Tensor) -> Tensor:
                new = self.injection.apply(z, trial.values[layer].to(z), masks[..., layer, :].to(z.device))
                if trial.reduce is None:
                    written[layer] = new
                return new

            return write

        touched = masks.any(dim=-1).flatten(0, -2).any(dim=0).tolist()
        layers = [layer for layer in range(self.model.n_layers) if touched[layer] or trial.reduce is None]
        late = nullcontext() if hidden is None else starting_at(self.model, start, hidden.expand(-1, count, -1))
        with self.model.hooked({layer: writer(layer) for layer in layers}), late:
            logits = self.model.extend(NewTokens.side_by_side(last, past, positions), rows=trial.rows)
        if trial.reduce is None:
            found = torch.stack([written[layer].to(self.device) for layer in layers], dim=2)
        else:
            found = trial.reduce(logits.float())
        return found.reshape(prompts, count, *found.shape[2:])

    def _in_full(self, number: int, picked: list[int], trial: _Trial) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        examples = [self.prefixes.batches[number][row] for row in picked]
        batch = pad([self.sequences[example] for example in examples], device=self.device)
        for index, mask in enumerate(trial.masks):
            with naming_prompts(examples), steer(self.model, mask, trial.values, injection=self.injection):
                if trial.reduce is None:
                    part = read_batch(self.model, batch)
                else:
                    logits = self.model.last_logits(batch).float()
                    part = trial.reduce(logits if trial.rows is None else logits[:, trial.rows.to(logits.device)])
            yield picked, torch.tensor([index]), part[:, None]

    def _is_exact(self, trial: _Trial) -> bool:
        """Compare the longest and the shortest prompt with full passes, unless the result is known.

        If there are images, it is the longest with one, since text shows nothing about them.

        Models that count slots instead of positions (GPT-Neo's local layers) may be exact with masks as repeated rows.
        """
        longest, count = max(map(len, self.sequences)), min(len(trial.masks), MASKS_PER_PASS)
        if self._refusal is None and not self._masks_as_rows and count > self.checked:
            foreign, known = self.model.has_foreign_hooks(), self.model.findings.replayed
            images = int(any(map(has_images, self.sequences)))
            case = (longest, count, longest - min(map(len, self.sequences)), self.prefixes.gap, images)
            if foreign or case not in known:
                self._refusal = self._difference(count, trial.values)
                if self._refusal is None and not foreign:
                    known.add(case)
            if self._refusal is None:
                self.checked = count
            else:
                self._masks_as_rows = True
                self._refusal = self._difference(1, trial.values)
        if self._refusal is not None and not self.model.findings.warned:
            self.model.findings.warned = True
            reason = self._refusal + (", perhaps by a hook that is on it" if self.model.has_foreign_hooks() else "")
            what = f"{self.model.info.architecture} cannot be replayed ({reason})"
            warnings.warn(f"{what}: every mask reads every prompt in full", SlowReplayWarning, stacklevel=5)
        return self._refusal is None

    def _difference(self, count: int, values: Tensor) -> str | None:
        """How the replay differs from full passes, with random masks at the first and the last of ``count`` positions."""
        lengths = [len(sequence) for sequence in self.sequences]
        telling = self.sequences.index([*most_telling(self.sequences)])
        examples = sorted({lengths.index(min(lengths)), telling})
        as_rows = self.masks_as_rows
        room, rows = self.memory_budget / 2, self._verdict_rows.to(self.device)
        prompts, count = self._sizes.cut(count, max(lengths), len(rows), room, as_rows)
        examples = examples if prompts > 1 else [telling]
        share = CHECKED if self.model.dtype in TOLERANCE else CHECKED_IN_HALF
        masks = torch.rand(count, *values.shape[:2], generator=torch.Generator().manual_seed(0)) < share
        masks = masks.to(self.device)
        whole = pad([self.sequences[example] for example in examples], device=self.device)
        ends, largest = [0, -1], 0.0

        def plain(batches: Sequence[TokenBatch]) -> Tensor:
            nonlocal largest
            found = []
            for mask in masks[ends]:
                with steer(self.model, mask, values, injection=self.injection):
                    logits = torch.cat([self.model.last_logits(batch) for batch in batches])
                largest = max(largest, float(logits.abs().max()))
                found.append(logits[:, rows])
            return torch.stack(found, dim=1)

        expected, before = plain([whole]), whole.attention_mask.sum(dim=1, keepdim=True) - 1
        try:
            past = self.prefixes.read(examples)
            found = self._pass(
                past, whole.tokens[:, -1:], before, _Trial(masks, values, lambda logits: logits, rows), as_rows
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of an unknown architecture any error is the answer
            return f"{type(error).__name__}: {error}"
        alone = [pad([self.sequences[example]], device=self.device) for example in examples]
        return differs(found[:, ends], expected, lambda: plain(alone), largest)
