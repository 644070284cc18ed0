"""Prefixes: what prompts have in common, read once.

Prompts that begin alike (with the same demonstrations, say) need their common part read once; the rest of each is then
read after it. Whether a model can go on from keys and values is not taken on trust, but compared with a full pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.engine.kv_segments import KVSegment
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.memory import Footprint
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import readings_key, remembered
from arm_lens.engine.tokens import chunks, pad

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""How far logits may be off, relative to the largest, to count as the same up to rounding; in other dtypes 0.05."""
SHORTEST_SHARED = 8
"""Common beginnings shorter than this are not worth a pass of their own."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all sequences begin, of each at most all but its last."""
    # What the first and the last in lexicographic order share is shared by all.
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    shared = 0
    while shared < min(map(len, sequences)) - 1 and first[shared] == last[shared]:
        shared += 1
    return list(first[:shared])


@dataclass(eq=False)
class _Read:
    """What was read of prompts: what all begin with, and batch by batch the rest, as far as there was room."""

    beginning: list[KVSegment]
    own: dict[int, KVSegment] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in (*self.beginning, *self.own.values()))


class Prefixes:
    """All tokens but the last of prompts, read batch by batch: once, as far as memory allows, else whenever needed.

    What all prompts begin with is read once for all. Reading begins at the first question. Within
    `arm_lens.engine.sharing.shared_readings` equal prompts that are read in equal batches are read once, whoever asks;
    what is remembered there stays within one budget, and what was not used for longest goes first.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        sequences: the prompts, of at least two tokens.
        batch_size: prompts read together, at most.
        memory_budget: bytes that what is kept may take; half as much may be taken by reading a batch.
        progress: show a bar while prompts are read.
    """

    def __init__(
        self,
        model: ModelLike,
        sequences: Sequence[Sequence[int]],
        *,
        batch_size: int,
        memory_budget: float,
        progress: bool,
    ) -> None:
        self.model = language_model(model)
        self.sequences = [list(sequence[:-1]) for sequence in sequences]
        self._budget, self._progress = memory_budget, progress
        common = common_prefix(self.sequences) if len(sequences) > 1 else []
        self._common = common if len(common) >= SHORTEST_SHARED else []
        new = [len(sequence) - len(self._common) for sequence in self.sequences]
        sizes = Footprint.of(self.model)
        self.batches = list(sizes.batches(new, len(self._common), batch_size, memory_budget / 2))
        """Which prompts are read together, by index."""
        self._expected = min(memory_budget, sizes.kept(sum(new) + len(self._common)))
        self._what = ("prefixes", batch_size, memory_budget)
        self._beginning: list[KVSegment] | None = None
        self._read: _Read | None = None

    def of_batch(self, number: int) -> list[KVSegment]:
        """What was read of one of the batches: the part common to all prompts, and their own."""
        if self._read is None:
            self._read = self._shared_or_read()
            self._beginning = self._read.beginning
        own = self._read.own.get(number)
        return [*self._read.beginning, self._segment(self.batches[number]) if own is None else own]

    def read(self, examples: Sequence[int]) -> list[KVSegment]:
        """The same of any prompts, read now and not kept."""
        return [*self._common_segment(), self._segment(examples)]

    @property
    def nbytes(self) -> int:
        """The memory taken by what is kept."""
        if self._read is not None:
            return self._read.nbytes
        return sum(segment.nbytes for segment in self._beginning or ())

    def _shared_or_read(self) -> _Read:
        key = readings_key(self.model, self._what, self.sequences)
        if key is None:
            return self._read_all()
        known: OrderedDict[object, _Read] = remembered("prefixes", OrderedDict)
        if key in known:
            known.move_to_end(key)
            return known[key]
        while known and sum(one.nbytes for one in known.values()) + self._expected > self._budget:
            known.popitem(last=False)
        known[key] = found = self._read_all()
        return found

    def _read_all(self) -> _Read:
        found = _Read(self._common_segment())
        room = self._budget
        bar = tqdm(self.batches, desc="reading prompts", unit="batch", disable=not self._progress)
        for place, examples in enumerate(bar):
            segment = self._segment(examples)
            room -= segment.nbytes
            if room < 0:
                break
            found.own[place] = segment
        return found

    def _common_segment(self) -> list[KVSegment]:
        if self._beginning is None:
            device = self.model.device
            self._beginning = [self.model.prefill(pad([self._common], device=device))] if self._common else []
        return self._beginning

    def _segment(self, examples: Sequence[int]) -> KVSegment:
        rest = [self.sequences[example][len(self._common) :] for example in examples]
        return self.model.prefill(pad(rest, device=self.model.device), self._common_segment())


def each_last_logits(
    model: ModelLike, sequences: Sequence[Sequence[int]], *, batch_size: int = 16, progress: bool = False
) -> Iterator[tuple[list[int], Float[Tensor, "batch vocab"]]]:
    """Next-token logits after each of many prompts, batch by batch: which prompts, and theirs. Hooks take part.

    Prompts of like length go together, as they waste least on padding; what all begin with is read once.
    """
    model = language_model(model)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    common = shared_beginning(model, sequences) if sequences else []
    past = [model.prefill(pad([common], device=model.device))] if common else []
    spans = list(chunks(len(order), batch_size))
    for span in tqdm(spans, desc="judging", unit="batch", disable=not progress, leave=False):
        here = order[span]
        batch = pad([sequences[index][len(common) :] for index in here], device=model.device)
        yield here, model.last_logits_after(past, batch) if past else model.last_logits(batch)


def shared_beginning(model: ModelLike, sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that are worth reading once for all these prompts; none if the model cannot go on from them exactly.

    With hooks other than those of arm_lens on the model nothing is shared: they may expect whole prompts.
    """
    model = language_model(model)
    common = common_prefix(sequences)
    longest = max(sequences, key=len)
    worthwhile = len(common) >= SHORTEST_SHARED and len(common) * len(sequences) >= 4 * len(longest)
    if not worthwhile or model.no_extension(len(longest)) is not None or model.has_foreign_hooks():
        return []
    return common if extends_exactly(model, sequences, len(common)) else []


def extends_exactly(model: LanguageModel, sequences: Sequence[Sequence[int]], common: int | None = None) -> bool:
    """Whether prompts that are read in two parts give the logits of whole ones: the longest and the shortest must show it.

    What was found out is remembered with the model, up to the longest prompt and the most padding that were tried.

    Args:
        model: the model.
        sequences: the prompts.
        common: so many tokens are the first part, the same of all; by default all tokens but the last.
    """
    longest, shortest = max(sequences, key=len), min(sequences, key=len)
    padding, known = len(longest) - len(shortest), model.findings.extended
    if known is None or (len(longest) <= known[0] and padding <= known[1]):
        return known is not None
    device = model.device
    whole = pad([longest, shortest], device=device)
    try:
        if common is None:
            before, rest = whole.last_apart()
        else:
            before = pad([longest[:common]], device=device)
            rest = pad([longest[common:], shortest[common:]], device=device)
        difference = differs(model.last_logits_after([model.prefill(before)], rest), model.last_logits(whole))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever an unknown architecture makes of it is the answer
        difference = f"{type(error).__name__}: {error}"
    reach = max(len(longest), known[0]), max(padding, known[1])
    model.findings.extended = None if difference else reach
    return difference is None


def differs(found: Float[Tensor, "*batch logit"], expected: Float[Tensor, "*batch logit"]) -> str | None:
    """What to say of logits that differ by more than rounding; None if they do not."""
    off = (found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp(min=1.0)
    if off <= TOLERANCE.get(expected.dtype, 0.05):
        return None
    return f"its logits come out different by {float(off):.1g} of the largest"
