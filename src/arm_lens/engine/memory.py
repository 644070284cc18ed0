"""How much memory is free, and how much is taken by reading prompts and trying head masks on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import psutil
import torch

from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import remembered

SHARE_OF_FREE = 0.5
"""The share of a device's free memory that is used if no budget is given."""
_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)


@contextlib.contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Within, budgets are this many bytes, however much is free, so that passes are cut alike on every run."""
    token = _LIMIT.set(nbytes)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free on a device, in bytes, unless `memory_limit` says otherwise.

    Within `shared_readings` it is half of what was free at first, so that equal readings have equal budgets.
    """
    if (limit := _LIMIT.get()) is not None:
        return limit
    return remembered(("memory budget", str(device)), lambda: int(SHARE_OF_FREE * _free(device)))


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return psutil.virtual_memory().available


POSITIONS_PER_PASS = {"cpu": 512}
"""The most prompts times masks in one pass: enough to use the weights well, few enough for a processor's cache. On
accelerators it is 4096, which was not measured."""
MASKS_PER_PASS = 128
"""The most masks of one prompt in one pass. Each mask's query is scored against every other mask's key, only to be masked
out, so that more at once cost more than they save."""


@runtime_checkable
class Sized(Protocol):
    """The numbers by which a model's passes take memory: those of a `LanguageModel`, or of one that nobody has loaded."""

    @property
    def n_layers(self) -> int:
        """Layers."""

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""

    @property
    def n_key_value_heads(self) -> int:
        """Heads of a layer with keys and values of their own."""

    @property
    def d_head(self) -> int:
        """Width of a head."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def d_mlp(self) -> int:
        """Width within a feed-forward layer."""

    @property
    def d_vocab(self) -> int:
        """Tokens of the vocabulary."""


@dataclass(frozen=True)
class Footprint:
    """High estimates of the bytes that passes through a model take in addition to its weights."""

    model: Sized
    itemsize: int
    positions_per_pass: int

    @classmethod
    def of(cls, model: LanguageModel) -> Footprint:
        """The estimates for a model."""
        weights = next(iter(model.parameters()))
        return cls(model, weights.element_size(), POSITIONS_PER_PASS.get(weights.device.type, 4096))

    def stored(self, slots: int) -> int:
        """The keys and values of one prompt's tokens."""
        model = self.model
        return 2 * model.n_layers * model.n_key_value_heads * model.d_head * slots * self.itemsize

    def reading(self, new: int, before: int = 0) -> int:
        """One prompt's pass over ``new`` tokens after ``before`` others, without the keys and values that are stored."""
        return self._pass(new, before) + 4 * new * (new + before)

    def trying(self, masks: int, slots: int, logits: int) -> int:
        """One prompt's pass over ``masks`` masks, after ``slots`` tokens, with ``logits`` logits for each mask."""
        return self._pass(masks, slots) + masks * logits * (self.itemsize + 8)

    def _pass(self, new: int, before: int) -> int:
        model = self.model
        heads = model.n_heads * model.d_head
        # Joined, rotated, repeated for grouped queries, and each copied once more on the way.
        keys_and_values = 10 * heads * (new + before)
        # Of the layer at work, and of earlier layers: some bridges store each layer's last pattern.
        scores = (6 + model.n_layers) * model.n_heads * new * (new + before)
        hidden = new * (8 * model.d_model + 3 * model.d_mlp + 4 * heads)
        return (keys_and_values + hidden) * self.itemsize + scores * max(self.itemsize, 4)

    def batches(self, lengths: Sequence[int], shared: int, most: int, budget: float) -> Iterator[list[int]]:
        """Batches of prompts of similar length that can be read and stored within a budget.

        Args:
            lengths: the number of tokens to read of each prompt, after ``shared`` others.
            shared: tokens read before.
            most: the most prompts in a batch.
            budget: in bytes; a batch has at least one prompt.
        """
        batch: list[int] = []
        for prompt in sorted(range(len(lengths)), key=lengths.__getitem__):
            each = self.reading(lengths[prompt], shared) + self.stored(lengths[prompt])
            if batch and (len(batch) == most or each * (len(batch) + 1) > budget):
                yield batch
                batch = []
            batch.append(prompt)
        yield batch

    def cut(self, masks: int, slots: int, logits: int | None, budget: float, as_rows: bool) -> tuple[int, int]:
        """How many prompts, and how many masks for each, go into one pass within a budget; at least one of each."""
        logits = self.model.d_vocab if logits is None else logits

        def size(count: int) -> int:
            return self.trying(count, slots, logits) + self.stored(slots)  # segments picked out of a batch are copies

        if as_rows:
            rows = max(1, min(int(budget // size(1)), self.positions_per_pass))
            return max(1, rows // masks), min(masks, rows)
        per_prompt = min(masks, MASKS_PER_PASS)
        while per_prompt > 1 and size(per_prompt) > budget:
            per_prompt //= 2
        prompts = min(int(budget // size(per_prompt)), self.positions_per_pass // per_prompt)
        return max(1, prompts), per_prompt
