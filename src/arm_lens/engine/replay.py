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

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.kv_segments import KVSegment
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.memory import MASKS_PER_PASS, Footprint, default_budget
from arm_lens.engine.prefix_cache import Prefixes, differs
from arm_lens.engine.protocol import Hook
from arm_lens.engine.reading import read_batch
from arm_lens.engine.steering import Injection, steer
from arm_lens.engine.tokens import chunks, pad
from arm_lens.engine.verdict_tokens import VerdictTokens


class SlowReplayWarning(UserWarning):
    """This model's prompts are read in full for every mask."""


class Replay:
    """Prompts of one model, read once, on which any number of head masks can be tried.

    Prompts are read at the first call, with whatever hooks the model has then.

    Args:
        model: any that `arm_lens.engine.language_model` accepts; it is not changed.
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
        self._verdict_rows = torch.tensor([*verdicts.positive, *verdicts.negative])
        self._refusal = self.model.no_extension(max(map(len, self.sequences)))
        self._masks_as_rows = False
        self._checked = 0

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def exact(self) -> bool:
        """Whether masks are replayed; False once it is known that each takes a full pass."""
        return self._refusal is None

    @property
    def nbytes(self) -> int:
        """The memory taken by what is kept of the prompts."""
        return self.prefixes.nbytes

    def with_injection(self, injection: Injection) -> Replay:
        """The same prompts, what was read of them included, with values written in another way."""
        other = copy.copy(self)
        other.injection = injection
        return other

    def verdict_logits(
        self,
        masks: Bool[Tensor, "mask layer head"] | Float[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask verdict"]:
        """Logits of the positive and the negative verdict, all spellings together (logsumexp), in float32 on the CPU.

        Only the verdicts' rows of the unembedding are multiplied. Their difference is the verdict gap.

        Args:
            masks: heads at which the values are written; or gates in [0, 1], see `steer`.
            values: what is written there.
            examples: which prompts, by index; by default all.
        """
        return self._each(masks, values, examples, self._sides, self._verdict_rows)

    def log_probs(
        self,
        masks: Bool[Tensor, "mask layer head"] | Float[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, "example mask verdict"]:
        """Log-probabilities, over the whole vocabulary, of the positive and the negative verdict; else as above.

        The vocabulary is summed up pass by pass, on the model's device: only two numbers a prompt and mask are kept.
        Logits are divided by the temperature first.
        """

        def normalised(logits: Tensor) -> Tensor:
            logits = logits / temperature
            verdicts = logits[..., self._verdict_rows.to(logits.device)]
            return self._sides(verdicts) - logits.logsumexp(dim=-1, keepdim=True)

        return self._each(masks, values, examples, normalised, None)

    def logits(
        self,
        masks: Bool[Tensor, "mask layer head"] | Float[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask vocab"]:
        """Next-token logits of each prompt under each mask, in float32 on the CPU; else as `verdict_logits`."""
        return self._each(masks, values, examples, lambda logits: logits, None)

    def hook_z(
        self,
        masks: Bool[Tensor, "mask layer head"] | Float[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask layer head d_head"]:
        """What enters each output projection at the last token, after writing, in float32 on the CPU."""
        return self._each(masks, values, examples, None, self._verdict_rows[:1])

    def _sides(self, verdicts: Float[Tensor, "*batch token"]) -> Float[Tensor, "*batch verdict"]:
        first = len(self.verdicts.positive)
        positive, negative = verdicts[..., :first], verdicts[..., first:]
        return torch.stack([positive.logsumexp(dim=-1), negative.logsumexp(dim=-1)], dim=-1)

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
        self._check(masks, wanted)
        values = values.to(self.device, self.model.dtype)
        masks = masks.to(self.device)
        run = self._replayed if self._is_exact(masks, values) else self._in_full
        found = torch.empty(0)
        places = {example: [place for place, other in enumerate(wanted) if other == example] for example in set(wanted)}
        for number, batch in enumerate(self.prefixes.batches):
            here = [row for row, example in enumerate(batch) if example in places]
            for some, span, part in run(number, here, masks, values, reduce, rows) if here else ():
                if not found.numel():
                    found = torch.empty(len(wanted), len(masks), *part.shape[2:])
                for row, one in zip(some, part.float().cpu(), strict=True):
                    found[places[batch[row]], span] = one
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

    def _replayed(
        self,
        number: int,
        here: list[int],
        masks: Tensor,
        values: Tensor,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
    ) -> Iterator[tuple[list[int], slice, Tensor]]:
        past, batch = self.prefixes.of_batch(number), self.prefixes.batches[number]
        slots = sum(segment.positions.shape[1] for segment in past)
        logits = None if rows is None else len(rows)
        as_rows = self._masks_as_rows or self._is_hooked()
        prompts, per_prompt = self._sizes.cut(len(masks), slots, logits, self.memory_budget / 2, as_rows)
        for some in chunks(len(here), prompts):
            picked = here[some]
            index = torch.tensor(picked, device=self.device)
            those = past if len(picked) == len(batch) else [segment.rows(index) for segment in past]
            last = torch.tensor([self.sequences[batch[row]][-1:] for row in picked], device=self.device)
            lengths = torch.tensor([[len(self.sequences[batch[row]]) - 1] for row in picked], device=self.device)
            for span in chunks(len(masks), per_prompt):
                part = self._pass(those, last, lengths, masks[span], values, reduce, rows, as_rows)
                yield picked, span, part

    def _pass(
        self,
        past: Sequence[KVSegment],
        last: Tensor,
        lengths: Tensor,
        masks: Tensor,
        values: Tensor,
        reduce: Callable[[Tensor], Tensor] | None,
        rows: Tensor | None,
        as_rows: bool,
    ) -> Tensor:
        """All masks on some prompts: one position for each, or one row."""
        prompts, count = len(last), len(masks)
        if as_rows:
            order = repeat(torch.arange(prompts, device=self.device), "e -> (e m)", m=count)
            past, last, lengths = [segment.rows(order) for segment in past], last[order], lengths[order]
            masks = repeat(masks, "m layer head -> (e m) 1 layer head", e=prompts)
        else:
            last, lengths = last.expand(-1, count), lengths.expand(-1, count)
        alone = torch.eye(last.shape[1], dtype=torch.bool, device=self.device).expand(len(last), -1, -1)
        seen: dict[int, Tensor] = {}
        with self.model.hooked(self._writers(masks, values, seen if reduce is None else None)):
            logits = self.model.extend(last, past, lengths, alone, rows=rows)
        if reduce is None:
            found = torch.stack([seen[layer].to(self.device) for layer in range(self.model.n_layers)], dim=2)
        else:
            found = reduce(logits.float())
        return found.reshape(prompts, count, *found.shape[2:])

    def _is_hooked(self) -> bool:
        """Whether the model is steered, say, already: such hooks act at the last position, which must be each mask's."""
        return any(self.model.hook_z(layer).fwd_hooks for layer in range(self.model.n_layers))

    def _writers(self, masks: Tensor, values: Tensor, seen: dict[int, Tensor] | None) -> dict[int, Hook]:
        """A hook for each layer that any mask touches; for all, if what they write is to be ``seen``."""

        def writer(layer: int) -> Hook:
            def write(z: Tensor) -> Tensor:
                written = self.injection.apply(z, values[layer].to(z), masks[..., layer, :].to(z.device))
                if seen is not None:
                    seen[layer] = written
                return written

            return write

        touched = masks.any(dim=-1).flatten(0, -2).any(dim=0).tolist()
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
        batch = pad([self.sequences[self.prefixes.batches[number][row]] for row in here], device=self.device)
        for place, mask in enumerate(masks):
            with steer(self.model, mask, values, injection=self.injection):
                if reduce is None:
                    part = read_batch(self.model, batch)
                else:
                    logits = self.model.last_logits(batch).float()
                    part = reduce(logits if rows is None else logits[:, rows.to(logits.device)])
            yield here, slice(place, place + 1), part[:, None]

    def _is_exact(self, masks: Tensor, values: Tensor) -> bool:
        """Compare the longest and the shortest prompt with full passes, unless it is known how that comes out.

        Models that count slots instead of positions (GPT-Neo's local layers) may be right with masks as repeated rows.
        """
        longest, count = max(map(len, self.sequences)), min(len(masks), MASKS_PER_PASS)
        if self._refusal is None and not self._masks_as_rows and count > self._checked:
            foreign = self.model.has_foreign_hooks()
            known = [] if foreign else self.model.findings.replayed
            if not any(longest <= tokens and count <= most for tokens, most in known):
                self._refusal = self._difference(count, values)
                if self._refusal is None and not foreign:
                    others = (one for one in known if one[0] > longest or one[1] > count)
                    self.model.findings.replayed = [(longest, count), *others]
            if self._refusal is None:
                self._checked = count
            else:
                self._masks_as_rows = True
                self._refusal = self._difference(1, values)
        if self._refusal is not None and not self.model.findings.warned:
            self.model.findings.warned = True
            reason = self._refusal + (", perhaps by a hook that is on it" if self.model.has_foreign_hooks() else "")
            what = f"{self.model.info.architecture} cannot be replayed ({reason})"
            warnings.warn(f"{what}: every mask reads every prompt in full", SlowReplayWarning, stacklevel=5)
        return self._refusal is None

    def _difference(self, count: int, values: Tensor) -> str | None:
        """How the replay differs from full passes, under random masks at the first and the last of so many places."""
        lengths = [len(sequence) for sequence in self.sequences]
        examples = sorted({lengths.index(min(lengths)), lengths.index(max(lengths))})
        as_rows = self._masks_as_rows or self._is_hooked()
        room, rows = self.memory_budget / 2, self._verdict_rows.to(self.device)
        prompts, count = self._sizes.cut(count, max(lengths), len(rows), room, as_rows)
        examples = examples if prompts > 1 else [lengths.index(max(lengths))]
        masks = torch.rand(count, *values.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.5
        masks = masks.to(self.device)
        whole = pad([self.sequences[example] for example in examples], device=self.device)
        ends, expected = [0, -1], []
        for mask in masks[ends]:
            with steer(self.model, mask, values, injection=self.injection):
                expected.append(self.model.last_logits(whole)[:, rows])
        before = whole.attention_mask.sum(dim=1, keepdim=True) - 1
        try:
            past = self.prefixes.read(examples)
            found = self._pass(past, whole.tokens[:, -1:], before, masks, values, lambda x: x, rows, as_rows)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an unknown architecture makes of it is the answer
            return f"{type(error).__name__}: {error}"
        return differs(found[:, ends], torch.stack(expected, dim=1))
