"""Passes of the last token alone: what is before it is read once, and has no gradient.

Whatever is read at the last token, and every gradient with respect to what a head writes there, takes one token of each
prompt; all earlier ones are the same. So they are read as in the replay (`arm_lens.engine.prefix_cache`), what all prompts
have in common once for all. If the model cannot read on from keys and values exactly, or has hooks that are not arm_lens's,
passes are over whole prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.finite import has_maximum, naming_prompts
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.memory import Footprint, default_budget
from arm_lens.engine.prefix_cache import SHORTEST_SHARED, Prefixes, common_prefix, extends_exactly
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import TokenBatch, pad


@dataclass(frozen=True, eq=False)
class LastTokens:
    """The last tokens of some prompts."""

    model: LanguageModel
    examples: list[int]
    """Which prompts, by index."""
    whole: TokenBatch
    """The prompts."""
    past: Sequence[KVSegment]
    """What was read before the last tokens; empty if passes are over whole prompts."""

    def logits(self) -> Float[Tensor, "batch vocab"]:
        """Next-token logits; gradients are recorded unless the caller forbids it. Hooks take part.

        Raises:
            NotFiniteError: naming the prompt whose logits are NaN or infinite.
        """
        with naming_prompts(self.examples):
            if not self.past:
                return self.model.last_logits_with_gradient(self.whole)
            past = self.past
            if not torch.is_inference_mode_enabled():
                past = [segment.outside_inference_mode() for segment in past]
            _, last = self.whole.last_apart()
            logits = self.model.extend(NewTokens.following(last, past), last_only=True)[:, -1]
            self.model.check_rows(has_maximum(logits.detach()), "the logits", self.whole)
            return logits

    @property
    def real(self) -> Bool[Tensor, "batch slot"]:
        """Which of the slots that the last tokens attend to are tokens of the prompt, in order; the others are padding."""
        if not self.past:
            return self.whole.attention_mask.bool()
        rows = len(self.examples)
        before = [(segment.positions >= 0).expand(rows, -1) for segment in self.past]
        itself = torch.ones(rows, 1, dtype=torch.bool, device=self.whole.tokens.device)
        return torch.cat([*(one.to(itself.device) for one in before), itself], dim=1)


def last_tokens(
    model: LanguageModel, sequences: Sequence[Sequence[int]], *, batch_size: int, prefixes: Prefixes | None = None
) -> Iterator[LastTokens]:
    """The last tokens of prompts, batch by batch, with what is before them.

    Args:
        model: hooks of `LanguageModel.hooked` that are on it take part in passes.
        sequences: the prompts as token ids.
        batch_size: prompts per pass, at most; fewer if memory is short.
        prefixes: the same prompts, if they have been read.
    """
    budget, device = default_budget(model.device) / 2, model.device
    if reads_apart(model, sequences):
        prefixes = prefixes or Prefixes(model, sequences, batch_size=batch_size, memory_budget=budget, progress=False)
        for number, examples in enumerate(prefixes.batches):
            whole = pad([sequences[example] for example in examples], device=device)
            yield LastTokens(model, list(examples), whole, prefixes.of_batch(number))
        return
    for examples in Footprint.of(model).batches(list(map(len, sequences)), 0, batch_size, budget):
        yield LastTokens(model, list(examples), pad([sequences[example] for example in examples], device=device), ())


def reads_apart(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> bool:
    """Whether the last token of each prompt can be read on its own, after the rest, with the logits of whole prompts."""
    lengths = [len(sequence) for sequence in sequences]
    if min(lengths) < 2 or model.no_extension(max(lengths)) is not None or model.has_foreign_hooks():
        return False
    common = len(common_prefix([sequence[:-1] for sequence in sequences])) if len(sequences) > 1 else 0
    shares = common >= SHORTEST_SHARED
    return extends_exactly(model, sequences) and (not shares or extends_exactly(model, sequences, common))
