"""Prefixes: the part that prompts have in common, read once.

If prompts begin alike (with the same demonstrations, say), the common part is read once, and the rest of each prompt after
it. That a model can read on from keys and values is checked against a full pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.engine.finite import NotFiniteError, naming_prompts
from arm_lens.engine.images import has_images
from arm_lens.engine.kv_segments import KVSegment
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.memory import Footprint
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import readings_key, remembered
from arm_lens.engine.tokens import chunks, pad
from arm_lens.engine.weights import WeightsChangedError, WeightsMark

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""By how much logits may differ, relative to the largest, to count as the same up to rounding; `HALF` in other dtypes."""
HALF, AS_FAR = 0.05, 2.0
"""In half precision how far rounding goes depends on the model and on what is written into it. So logits may also differ by
`AS_FAR` times as much as two plain passes over the same prompts do, in a batch and one by one."""
SHORTEST_SHARED = 8
"""Common beginnings shorter than this are not worth a pass of their own."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all sequences begin; at most all but the last token of each."""
    # A prefix that the first and the last in lexicographic order share is shared by all.
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    shared = 0
    while shared < min(map(len, sequences)) - 1 and first[shared] == last[shared]:
        shared += 1
    return list(first[:shared])


class Prefixes:
    """All tokens but the last of prompts, read batch by batch: once if memory allows, else whenever needed.

    The common beginning of all prompts is read once. Reading begins at the first use. Within
    `arm_lens.engine.sharing.shared_readings` equal prompts that are read in equal batches are read once for all users;
    what is remembered there stays within one budget, and what was not used for longest goes first.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        sequences: the prompts, of at least two tokens.
        batch_size: the most prompts read together.
        memory_budget: bytes that the stored segments may take; reading a batch may take half as much.
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
        most = 1 if self.model.reads_alone(map(len, sequences)) else batch_size
        self.batches = list(sizes.batches(new, len(self._common), most, memory_budget / 2))
        """Which prompts are read together, by index."""
        self._expected = min(memory_budget, sizes.stored(sum(new) + len(self._common)))
        self._what = ("prefixes", batch_size, memory_budget)
        self._beginning: list[KVSegment] | None = None
        self._own: list[KVSegment] | None = None
        self._weights: WeightsMark | None = None

    def _check_weights(self) -> None:
        if self._weights is None:
            self._weights = WeightsMark.of(self.model)
        elif not self._weights.unchanged(self.model):
            raise WeightsChangedError(
                f"the weights of {self.model.info.name} have changed since these prompts were read; read them again, with "
                "means of the weights as they are now"
            )

    def of_batch(self, number: int) -> list[KVSegment]:
        """The segments of one of the batches: the beginning that all prompts share, and the prompts' own part.

        Raises:
            WeightsChangedError: if the model's weights have changed since the first use.
        """
        self._check_weights()
        if self._own is None:
            self._beginning, self._own = self._shared_or_read()
        own = self._own[number] if number < len(self._own) else self._segment(self.batches[number])
        return [*self._common_segment(), own]

    def read(self, examples: Sequence[int]) -> list[KVSegment]:
        """The segments of any prompts, read now and not stored; otherwise as `of_batch`."""
        self._check_weights()
        return [*self._common_segment(), self._segment(examples)]

    @property
    def gap(self) -> int:
        """The most padding between the beginning that all prompts share and a prompt's own tokens."""
        lengths = list(map(len, self.sequences))
        return max(lengths) - min(lengths) if self._common else 0

    @property
    def nbytes(self) -> int:
        """The memory that the stored segments take."""
        return _nbytes((self._beginning or [], self._own or []))

    def _shared_or_read(self) -> tuple[list[KVSegment], list[KVSegment]]:
        key = readings_key(self.model, self._what, self.sequences)
        if key is None:
            return self._read_all()
        known: dict[object, tuple[list[KVSegment], list[KVSegment]]] = remembered("prefixes", dict)
        found = known.pop(key, None)
        if found is None:
            while known and sum(map(_nbytes, known.values())) + self._expected > self._budget:
                del known[next(iter(known))]
            found = self._read_all()
        known[key] = found  # in the order of their last use
        return found

    def _read_all(self) -> tuple[list[KVSegment], list[KVSegment]]:
        """The shared beginning, and each batch's own segment as far as there is room."""
        own: list[KVSegment] = []
        room = self._budget
        for examples in tqdm(self.batches, desc="reading prompts", unit="batch", disable=not self._progress):
            segment = self._segment(examples)
            room -= segment.nbytes
            if room < 0:
                break
            own.append(segment)
        return self._common_segment(), own

    def _common_segment(self) -> list[KVSegment]:
        if self._beginning is None:
            device = self.model.device
            self._beginning = [self.model.prefill(pad([self._common], device=device))] if self._common else []
        return self._beginning

    def _segment(self, examples: Sequence[int]) -> KVSegment:
        rest = [self.sequences[example][len(self._common) :] for example in examples]
        return self.model.prefill(pad(rest, device=self.model.device), self._common_segment())


def _nbytes(segments: tuple[list[KVSegment], list[KVSegment]]) -> int:
    return sum(segment.nbytes for part in segments for segment in part)


def each_last_logits(
    model: ModelLike, sequences: Sequence[Sequence[int]], *, batch_size: int = 16, progress: bool = False
) -> Iterator[tuple[list[int], Float[Tensor, "batch vocab"]]]:
    """Next-token logits after each of many prompts, batch by batch: the prompts' indices and logits. Hooks take part.

    Prompts of similar length go together, which wastes least on padding; their common beginning is read once.
    """
    model = language_model(model)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    common = shared_beginning(model, sequences) if sequences else []
    past = [model.prefill(pad([common], device=model.device))] if common else []
    spans = list(chunks(len(order), 1 if model.reads_alone(map(len, sequences)) else batch_size))
    for span in tqdm(spans, desc="judging", unit="batch", disable=not progress, leave=False):
        here = order[span]
        batch = pad([sequences[index][len(common) :] for index in here], device=model.device)
        with naming_prompts(here):
            try:
                logits = model.last_logits_after(past, batch) if past else model.last_logits(batch)
            except NotFiniteError:
                # Whole prompts also show the layer.
                model.last_logits(pad([sequences[index] for index in here], device=model.device))
                raise
        yield here, logits


def shared_beginning(model: ModelLike, sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that are worth reading once for all these prompts; none if the model cannot read on from them exactly.

    Nothing is shared if there are hooks on the model that are not arm_lens's: they may expect whole prompts.
    """
    model = language_model(model)
    common = common_prefix(sequences)
    longest = max(sequences, key=len)
    worthwhile = len(common) >= SHORTEST_SHARED and len(common) * len(sequences) >= 4 * len(longest)
    if not worthwhile or model.no_extension(len(longest)) is not None or model.has_foreign_hooks():
        return []
    return common if extends_exactly(model, sequences, len(common)) else []


def most_telling(sequences: Sequence[Sequence[int]]) -> Sequence[int]:
    """The longest prompt of those with images, if there are any."""
    return max(sequences, key=lambda sequence: (has_images(sequence), len(sequence)))


def extends_exactly(model: LanguageModel, sequences: Sequence[Sequence[int]], common: int | None = None) -> bool:
    """Whether prompts that are read in two parts give the logits of whole prompts, tried on the longest and the shortest.

    The result is remembered with the model, up to the longest prompt and the most padding that were tried.

    Args:
        model: the model.
        sequences: the prompts.
        common: length of the first part, which all prompts share; by default all tokens but the last.
    """
    longest, shortest = most_telling(sequences), min(sequences, key=len)
    padding, known = abs(len(longest) - len(shortest)), model.findings.extended
    case = (max(map(len, sequences)), padding, 0 if common is None else padding, int(has_images(longest)))
    if known is None or case in known:
        return known is not None
    device = model.device
    whole = pad([longest, shortest], device=device)
    try:
        if common is None:
            before, rest = whole.last_apart()
        else:
            before = pad([longest[:common]], device=device)
            rest = pad([longest[common:], shortest[common:]], device=device)
        difference = differs(
            model.last_logits_after([model.prefill(before)], rest),
            model.last_logits(whole),
            lambda: torch.cat([model.last_logits(pad([one], device=device)) for one in (longest, shortest)]),
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of an unknown architecture any error is the answer
        difference = f"{type(error).__name__}: {error}"
    if difference is None:
        known.add(case)
    else:
        model.findings.extended = None
    return difference is None


def differs(
    found: Float[Tensor, "*batch logit"],
    expected: Float[Tensor, "*batch logit"],
    again: Callable[[], Float[Tensor, "*batch logit"]],
    largest: float = 0.0,
) -> str | None:
    """A description of how logits differ; None if they are the same up to rounding.

    Args:
        found: what is checked.
        expected: what plain passes give.
        again: computes the latter in another plain way; used in half precision only, if the logits are far apart.
        largest: the largest logit, if not all of them are compared; used in half precision only, where how far rounding
            goes depends on the activations, and not on how large the logits of a few tokens happen to be.
    """
    largest = max(float(expected.float().abs().max()), 1.0 if expected.dtype in TOLERANCE else largest, 1.0)

    def off(other: Tensor) -> float:
        return float((other.float() - expected.float()).abs().max() / largest)

    difference, allowed = off(found), TOLERANCE.get(expected.dtype, HALF)
    if difference > allowed and expected.dtype not in TOLERANCE:
        allowed = max(allowed, AS_FAR * off(again()))
    return None if difference <= allowed else f"its logits differ by {difference:.1g} of the largest"
