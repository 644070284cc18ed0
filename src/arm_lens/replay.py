"""The exact replay: try many head masks on a prompt without reading the prompt again.

An injection touches the last token only, and attention is causal: the keys and values of all earlier tokens are the same
whatever mask is tried. So each prompt's prefix (all tokens but the last) is read once, what all prompts have in common
once for all, and each mask costs one token.

The masks of a prompt are laid side by side as positions of one pass: M copies of the last token, all at the last
token's position, each seeing the prefix and itself and none of its siblings (the attention mask of tree-shaped
speculative decoding). ``hook_z`` then arrives as ``[example, mask, head, d_head]``, and the prefix is held once per
prompt, not once per mask.

Whether a model can be replayed is not taken on trust: before anything else the longest and the shortest prompt are
compared with full passes. Where they differ, or where there are no keys and values to go on from (state-space, hybrid
and encoder-decoder models), every mask reads every prompt in full, and a warning says so once.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.activations import read_batch
from arm_lens.memory import Footprint, default_budget
from arm_lens.models import Hook, Model, describe, device_of, hooked, last_logits
from arm_lens.prefixes import Stretch, advance, common_prefix, read_stretch, unfit
from arm_lens.prompts import VerdictTokens
from arm_lens.steering import Injection, steer
from arm_lens.tokens import chunks, pad

POSITIONS_PER_PASS = 512
"""Prompts times masks in one pass, at most: enough to use the weights well, few enough for a processor's cache."""
MASKS_PER_PASS = 128
"""Each of a pass's masks is scored against each other's key, to be masked: more at once cost more than they save."""
SHORTEST_SHARED = 8
"""Common beginnings shorter than this are not worth a pass of their own."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""How far a logit may be off, relative to the largest, for a model to count as replayed exactly; otherwise 0.05."""

_CHECKED: weakref.WeakKeyDictionary[Model, tuple[int, int]] = weakref.WeakKeyDictionary()
"""The longest prompt and the most masks a pass for which a model's replay was found exact."""
_WARNED: weakref.WeakSet[Model] = weakref.WeakSet()


class SlowReplayWarning(UserWarning):
    """This model's prompts are read in full for every mask."""


class Replay:
    """Prompts of one model, read once, on which any number of head masks can be tried.

    Prompts are read at the first call, with whatever hooks the model has then.

    Args:
        model: of either class; it is not changed.
        sequences: the prompts as token ids, each ending where the verdict is due, of at least two tokens.
        verdicts: the tokens whose logits decide.
        injection: how values are written.
        batch_size: prompts per pass, at most.
        memory_budget: bytes to stay within, beside the model's weights; by default half of what is free on its device.
            Half of it may hold prompts that were read; those beyond are read again each time. Passes are cut to the rest,
            but never below one mask on one prompt.
        progress: show a bar while prompts are read.

    Raises:
        ValueError: if there is no prompt, or one has a single token.
    """

    def __init__(
        self,
        model: Model,
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
        self.model, self.verdicts = model, verdicts
        self.injection = injection or Injection()
        self.sequences = [list(sequence) for sequence in sequences]
        self.device = device_of(model)
        self.memory_budget = default_budget(self.device) if memory_budget is None else memory_budget
        self._batch_size, self._progress = batch_size, progress
        self._sizes = Footprint.of(model)
        self._shared: list[Stretch] | None = None
        self._kept: dict[int, Stretch] = {}
        self._refusal = unfit(model)
        self._verdict_rows = torch.tensor([*verdicts.positive, *verdicts.negative])
        common = common_prefix([sequence[:-1] for sequence in self.sequences]) if len(sequences) > 1 else []
        self._common = common if len(common) >= SHORTEST_SHARED else []
        self._batches = list(self._cut_batches())

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def exact(self) -> bool:
        """Whether masks are replayed; False once it is known that each takes a full pass."""
        return self._refusal is None

    def verdict_logits(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask verdict"]:
        """Logits of the positive and the negative verdict, all spellings together (logsumexp), in float32 on the CPU.

        Only the verdicts' rows of the unembedding are multiplied. Their difference is the verdict gap.

        Args:
            masks: heads at which the values are written.
            values: what is written there.
            examples: which prompts, by index; by default all.
        """
        return self._each(masks, values, examples, self._sides, self._verdict_rows)

    def log_probs(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask verdict"]:
        """Log-probabilities, over the whole vocabulary, of the positive and the negative verdict; else as above.

        The vocabulary is summed up pass by pass, on the model's device: only two numbers a prompt and mask are kept.
        """

        def normalised(logits: Tensor) -> Tensor:
            verdicts = logits[..., self._verdict_rows.to(logits.device)]
            return self._sides(verdicts) - logits.logsumexp(dim=-1, keepdim=True)

        return self._each(masks, values, examples, normalised, None)

    def logits(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask vocab"]:
        """Next-token logits of each prompt under each mask, in float32 on the CPU; else as `verdict_logits`."""
        return self._each(masks, values, examples, lambda logits: logits, None)

    def hook_z(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask layer head d_head"]:
        """What enters each output projection at the last token, after writing, in float32 on the CPU."""
        return self._each(masks, values, examples, None, self._verdict_rows[:1])

    def _sides(self, verdicts: Float[Tensor, "*batch token"]) -> Float[Tensor, "*batch verdict"]:
        positive, negative = verdicts.split([len(self.verdicts.positive), len(self.verdicts.negative)], dim=-1)
        return torch.stack([positive.logsumexp(dim=-1), negative.logsumexp(dim=-1)], dim=-1)

    # ------------------------------------------------------------------------------------------ passes

    @torch.inference_mode()
    def _each(
        self,
        masks: Tensor,
        values: Tensor,
        examples: Sequence[int] | None,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
    ) -> Tensor:
        """What ``reduce`` makes of each pass's logits (None: hook_z instead), gathered on the CPU."""
        wanted = list(range(len(self))) if examples is None else list(examples)
        values = values.to(self.device, self.model.cfg.dtype)
        masks = masks.to(self.device)
        run = self._in_full
        if self._is_exact(masks, values):
            run = self._in_positions
        found: Tensor | None = None
        places: dict[int, list[int]] = {}
        for place, example in enumerate(wanted):
            places.setdefault(example, []).append(place)
        for number, batch in enumerate(self._batches):
            here = [row for row, example in enumerate(batch) if example in places]
            for some, span, part in run(number, here, masks, values, reduce, rows) if here else ():
                if found is None:
                    found = torch.empty(len(wanted), len(masks), *part.shape[2:])
                for row, one in zip(some, part.float().cpu(), strict=True):
                    found[places[batch[row]], span] = one
        if found is None:
            raise ValueError("no example was asked for")
        return found

    def _in_positions(
        self,
        number: int,
        here: list[int],
        masks: Tensor,
        values: Tensor,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
    ) -> Iterator[tuple[list[int], slice, Tensor]]:
        past, batch = self._past(number), self._batches[number]
        slots = sum(stretch.positions.shape[1] for stretch in past)
        prompts, per_pass = self._cut_pass(len(masks), slots, None if rows is None else len(rows))
        for some in chunks(len(here), prompts):
            picked = here[some]
            index = torch.tensor(picked, device=self.device)
            those = past if len(picked) == len(batch) else [stretch.rows(index) for stretch in past]
            last = torch.tensor([self.sequences[batch[row]][-1:] for row in picked], device=self.device)
            lengths = torch.tensor([[len(self.sequences[batch[row]]) - 1] for row in picked], device=self.device)
            for span in chunks(len(masks), per_pass):
                part = self._pass(those, last, lengths, masks[span], values, reduce, rows)
                yield picked, span, part

    def _pass(
        self,
        past: Sequence[Stretch],
        last: Tensor,
        lengths: Tensor,
        masks: Tensor,
        values: Tensor,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
    ) -> Tensor:
        """All masks on some prompts: one position for each."""
        count = len(masks)
        seen: dict[int, Tensor] = {}
        alone = repeat(torch.eye(count, dtype=torch.bool, device=self.device), "m k -> e m k", e=len(last))
        with hooked(self.model, self._writers(masks, values, seen if reduce is None else None)):
            logits = advance(
                self.model, last.expand(-1, count), past, lengths.expand(-1, count).contiguous(), alone, rows=rows
            )
        if reduce is not None:
            return reduce(logits.float())
        return torch.stack([seen[layer].to(self.device) for layer in range(self.model.cfg.n_layers)], dim=2)

    def _writers(self, masks: Tensor, values: Tensor, seen: dict[int, Tensor] | None) -> dict[int, Hook]:
        """A hook for each layer that any mask touches; for all, if what they write is to be ``seen``."""

        def writer(layer: int) -> Hook:
            def write(z: Tensor) -> Tensor:
                written = self.injection.apply(z, values[layer].to(z), masks[:, layer].to(z.device))
                if seen is not None:
                    seen[layer] = written
                return written

            return write

        touched = masks.flatten(2).any(dim=2).any(dim=0).tolist()
        return {layer: writer(layer) for layer in range(len(touched)) if touched[layer] or seen is not None}

    def _in_full(
        self,
        number: int,
        here: list[int],
        masks: Tensor,
        values: Tensor,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
    ) -> Iterator[tuple[list[int], slice, Tensor]]:
        batch = pad([self.sequences[self._batches[number][row]] for row in here], device=self.device)
        for place, mask in enumerate(masks):
            with steer(self.model, mask, values, injection=self.injection):
                if reduce is None:
                    part = read_batch(self.model, batch)
                else:
                    logits = last_logits(self.model, batch).float()
                    part = reduce(logits if rows is None else logits[:, rows.to(logits.device)])
            yield here, slice(place, place + 1), part[:, None]

    # ------------------------------------------------------------------------------------------ prefixes

    def _cut_batches(self) -> Iterator[list[int]]:
        """Prompts of like length together, as many as a quarter of the budget can read at once."""
        order = sorted(range(len(self)), key=lambda example: len(self.sequences[example]))
        shared = len(self._common)
        batch: list[int] = []
        for example in order:
            new = len(self.sequences[example]) - 1 - shared
            each = self._sizes.reading(new, shared) + self._sizes.kept(new)
            if batch and (len(batch) == self._batch_size or each * (len(batch) + 1) > self.memory_budget / 4):
                yield batch
                batch = []
            batch.append(example)
        yield batch

    def _cut_pass(self, masks: int, slots: int, logits: int | None) -> tuple[int, int]:
        """How many prompts, and how many masks on each, go into one pass."""
        logits = self._sizes.d_vocab if logits is None else logits
        per_pass = min(masks, MASKS_PER_PASS)
        while per_pass > 1 and self._sizes.trying(per_pass, slots, logits) > self.memory_budget / 2:
            per_pass //= 2
        fitting = int(self.memory_budget / 2) // self._sizes.trying(per_pass, slots, logits)
        return max(1, min(fitting, POSITIONS_PER_PASS // per_pass)), per_pass

    def _past(self, number: int) -> list[Stretch]:
        """What is known of a batch of prompts before their last token: the part common to all, and their own."""
        if self._shared is None:
            common = pad([self._common], device=self.device) if self._common else None
            self._shared = [read_stretch(self.model, common)] if common is not None else []
            bar = tqdm(range(len(self._batches)), desc="reading prompts", unit="batch", disable=not self._progress)
            room = self.memory_budget / 2
            for batch in bar:
                stretch = self._read(self._batches[batch])
                if sum(kept.nbytes for kept in self._kept.values()) + stretch.nbytes > room:
                    break
                self._kept[batch] = stretch
        own = self._kept.get(number)
        return [*self._shared, self._read(self._batches[number]) if own is None else own]

    def _read(self, examples: Sequence[int]) -> Stretch:
        shared = len(self._common)
        batch = pad([self.sequences[example][shared:-1] for example in examples], device=self.device)
        return read_stretch(self.model, batch, self._shared or ())

    # ------------------------------------------------------------------------------------------ is it exact?

    def _is_exact(self, masks: Tensor, values: Tensor) -> bool:
        """Compare the longest and the shortest prompt with full passes, unless longer ones have been before."""
        longest, count = max(map(len, self.sequences)), min(len(masks), MASKS_PER_PASS)
        known = _CHECKED.get(self.model, (0, 0))
        if self._refusal is None and (longest > known[0] or count > known[1]):
            self._refusal = self._difference(max(count, known[1]), values)
            if self._refusal is None:
                _CHECKED[self.model] = (max(longest, known[0]), max(count, known[1]))
        if self._refusal is not None and self.model not in _WARNED:
            _WARNED.add(self.model)
            warnings.warn(
                f"{describe(self.model).architecture} cannot be replayed exactly ({self._refusal}): "
                "every mask reads every prompt in full",
                SlowReplayWarning,
                stacklevel=4,
            )
        return self._refusal is None

    def _difference(self, count: int, values: Tensor) -> str | None:
        """In what the replay differs from full passes, under a random mask at the last of so many places."""
        order = sorted(range(len(self)), key=lambda example: len(self.sequences[example]))
        examples = sorted({order[0], order[-1]})
        mask = torch.rand(values.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.5
        masks = torch.zeros(count, *mask.shape, dtype=torch.bool)
        masks[-1] = mask
        masks = masks.to(self.device)
        whole = pad([self.sequences[example] for example in examples], device=self.device)
        with steer(self.model, masks[-1], values, injection=self.injection):
            expected = last_logits(self.model, whole)[:, self._verdict_rows.to(self.device)].float()
        probe: dict[str, Any] = {
            "last": whole.tokens[:, -1:],
            "lengths": whole.attention_mask.sum(dim=1, keepdim=True) - 1,
        }
        try:
            common = [read_stretch(self.model, pad([self._common], device=self.device))] if self._common else []
            rest = pad([self.sequences[example][len(self._common) : -1] for example in examples], device=self.device)
            past = [*common, read_stretch(self.model, rest, common)]
            found = self._pass(past, **probe, masks=masks, values=values, reduce=lambda x: x, rows=self._verdict_rows)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an unknown architecture makes of it is the answer
            return f"{type(error).__name__}: {error}"
        off = float((found[:, -1].to(expected) - expected).abs().max() / expected.abs().max().clamp(min=1.0))
        allowed = TOLERANCE.get(self.model.cfg.dtype, 0.05)
        return None if off <= allowed else f"its logits are off by {off:.1g} of the largest"
