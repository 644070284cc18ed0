"""Prefixes: what prompts have in common, read once.

Prompts that begin alike (with the same demonstrations, say) need their common part read once; the rest of each is then
read after it. Whether a model can go on from keys and values is not taken on trust, but compared with a full pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.engine.memory import Footprint
from arm_lens.engine.models import Model, device_of, foreign_hooks, last_logits, silenced
from arm_lens.engine.passes import KVSegment, advance, unfit
from arm_lens.engine.tokens import TokenBatch, pad

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""How far logits may be off, relative to the largest, to count as the same up to rounding; in other dtypes 0.05."""
SHORTEST_SHARED = 8
"""Common beginnings shorter than this are not worth a pass of their own."""

_CONTINUED: weakref.WeakKeyDictionary[Model, tuple[int, int] | None] = weakref.WeakKeyDictionary()
"""The longest prompt, and the most padding, with which a model was found to go on exactly; None if it does not."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all sequences begin, of each at most all but its last."""
    # What the first and the last in lexicographic order share is shared by all.
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    shared = 0
    while shared < min(map(len, sequences)) - 1 and first[shared] == last[shared]:
        shared += 1
    return list(first[:shared])


class Prefixes:
    """All tokens but the last of prompts, read batch by batch: once, as far as memory allows, else whenever needed.

    What all prompts begin with is read once for all. Reading begins at the first question.

    Args:
        model: of either class.
        sequences: the prompts, of at least two tokens.
        batch_size: prompts read together, at most.
        memory_budget: bytes that what is kept may take; half as much may be taken by reading a batch.
        progress: show a bar while prompts are read.
    """

    def __init__(
        self, model: Model, sequences: Sequence[Sequence[int]], *, batch_size: int, memory_budget: float, progress: bool
    ) -> None:
        self.model, self.sequences = model, [list(sequence[:-1]) for sequence in sequences]
        self._room, self._progress = memory_budget, progress
        common = common_prefix(self.sequences) if len(sequences) > 1 else []
        self._common = common if len(common) >= SHORTEST_SHARED else []
        new = [len(sequence) - len(self._common) for sequence in self.sequences]
        self.batches = list(Footprint.of(model).batches(new, len(self._common), batch_size, memory_budget / 2))
        """Which prompts are read together, by index."""
        self._shared: list[KVSegment] | None = None
        self._kept: dict[int, KVSegment] | None = None

    def of_batch(self, number: int) -> list[KVSegment]:
        """What was read of one of the batches: the part common to all prompts, and their own."""
        if self._kept is None:
            kept: dict[int, KVSegment] = {}
            room = self._room
            bar = tqdm(self.batches, desc="reading prompts", unit="batch", disable=not self._progress)
            for place, examples in enumerate(bar):
                segment = self._own(examples)
                room -= segment.nbytes
                if room < 0:
                    break
                kept[place] = segment
            self._kept = kept
        own = self._kept[number] if number in self._kept else self._own(self.batches[number])
        return [*self._beginning(), own]

    def read(self, examples: Sequence[int]) -> list[KVSegment]:
        """The same of any prompts, read now and not kept."""
        return [*self._beginning(), self._own(examples)]

    @property
    def nbytes(self) -> int:
        """The memory taken by what is kept."""
        return sum(segment.nbytes for segment in [*(self._shared or ()), *(self._kept or {}).values()])

    def _beginning(self) -> list[KVSegment]:
        if self._shared is None:
            device = device_of(self.model)
            self._shared = [read_stretch(self.model, pad([self._common], device=device))] if self._common else []
        return self._shared

    def _own(self, examples: Sequence[int]) -> KVSegment:
        rest = [self.sequences[example][len(self._common) :] for example in examples]
        return read_stretch(self.model, pad(rest, device=device_of(self.model)), self._beginning())


def shared_beginning(model: Model, sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that are worth reading once for all these prompts; none if the model cannot go on from them exactly.

    With hooks other than those of arm_lens on the model nothing is shared: they may expect whole prompts.
    """
    common = common_prefix(sequences)
    longest = max(sequences, key=len)
    worthwhile = len(common) >= SHORTEST_SHARED and len(common) * len(sequences) >= 4 * len(longest)
    if not worthwhile or unfit(model, len(longest)) is not None or foreign_hooks(model):
        return []
    shortest = min(sequences, key=len)
    padding = len(longest) - len(shortest)
    known = _CONTINUED.get(model, (0, -1))
    if known is not None and (len(longest) > known[0] or padding > known[1]):
        device, pair = device_of(model), (longest, shortest)
        whole, rest = pad(pair, device=device), pad([tokens[len(common) :] for tokens in pair], device=device)
        past = [read_stretch(model, pad([common], device=device))]
        try:
            difference = differs(read_on(model, rest, past), last_logits(model, whole))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an unknown architecture makes of it is the answer
            difference = f"{type(error).__name__}: {error}"
        known = _CONTINUED[model] = None if difference else (len(longest), padding)
    return [] if known is None else common


def differs(found: Float[Tensor, "*batch logit"], expected: Float[Tensor, "*batch logit"]) -> str | None:
    """What to say of logits that differ by more than rounding; None if they do not."""
    off = (found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp(min=1.0)
    if off <= TOLERANCE.get(expected.dtype, 0.05):
        return None
    return f"its logits come out different by {float(off):.1g} of the largest"


@torch.inference_mode()
def read_stretch(model: Model, batch: TokenBatch, past: Sequence[KVSegment] = ()) -> KVSegment:
    """Read left-padded tokens after what was read before. Hooks at the last token of prompts are silent meanwhile."""
    positions = positions_after(batch, past)
    kept: list[tuple[Tensor, Tensor]] = []
    nothing = torch.zeros(0, dtype=torch.long)
    sees = _one_after_another(positions)
    with silenced():
        advance(model, batch.tokens, past, positions, sees, rows=nothing, last_only=True, keep=kept)
    return KVSegment([keys for keys, _ in kept], [values for _, values in kept], positions)


@torch.inference_mode()
def read_on(model: Model, batch: TokenBatch, past: Sequence[KVSegment]) -> Float[Tensor, "batch vocab"]:
    """Next-token logits after left-padded tokens that follow what was read before; hooks on the model take part."""
    positions = positions_after(batch, past)
    return advance(model, batch.tokens, past, positions, _one_after_another(positions), last_only=True)[:, -1]


def positions_after(batch: TokenBatch, past: Sequence[KVSegment]) -> Int[Tensor, "batch pos"]:
    """The position of each token of a left-padded batch that follows what was read before; -1 at padding."""
    positions = batch.attention_mask.cumsum(dim=1) - 1
    for segment in past:
        positions = positions + (segment.positions >= 0).sum(dim=1, keepdim=True).to(positions.device)
    return positions.masked_fill(batch.attention_mask == 0, -1)


def _one_after_another(positions: Int[Tensor, "row new"]) -> Bool[Tensor, "row new new"]:
    """Each new token sees itself and the real ones before it. Padding sees itself: softmax needs something."""
    itself = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    return ((positions >= 0)[:, None, :] & torch.ones_like(itself).tril()) | itself
