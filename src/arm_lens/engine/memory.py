"""How much memory there is, and what reading prompts and trying head masks on them takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import psutil
import torch

from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import remembered

SHARE_OF_FREE = 0.5
"""How much of a device's free memory is taken if no budget is given."""


_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)


@contextlib.contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Within, budgets are this many bytes, however much is free: passes are then cut alike on every run."""
    token = _LIMIT.set(nbytes)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free on a device, in bytes, unless `memory_limit` says otherwise.

    Where readings are shared it is what was free at first, so that what is alike fits into the same budget.
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
"""Prompts times masks in one pass, at most: enough to use the weights well, few enough for a processor's cache. On
accelerators 4096, which was not measured."""
MASKS_PER_PASS = 128
"""Each of a pass's masks is scored against each other's key, to be masked: more at once cost more than they save."""


@dataclass(frozen=True)
class Footprint:
    """Estimates, on the high side, of the bytes that passes through a model take beside its weights."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    d_vocab: int
    itemsize: int
    positions_per_pass: int

    @classmethod
    def of(cls, model: LanguageModel) -> Footprint:
        """From what a model says of itself."""
        weights = next(iter(model.parameters()))
        return cls(
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            n_key_value_heads=model.n_key_value_heads,
            d_head=model.d_head,
            d_model=model.d_model,
            d_mlp=model.d_mlp,
            d_vocab=model.d_vocab,
            itemsize=weights.element_size(),
            positions_per_pass=POSITIONS_PER_PASS.get(weights.device.type, 4096),
        )

    def kept(self, slots: int) -> int:
        """Keys and values of one prompt's tokens, kept."""
        return 2 * self.n_layers * self.n_key_value_heads * self.d_head * slots * self.itemsize

    def reading(self, new: int, before: int = 0) -> int:
        """One prompt's pass over ``new`` tokens after ``before`` others, without what is kept."""
        return self._pass(new, before) + 4 * new * (new + before)

    def trying(self, masks: int, slots: int, logits: int) -> int:
        """One prompt's pass over so many masks, after ``slots`` tokens, giving so many logits each."""
        return self._pass(masks, slots) + masks * logits * (self.itemsize + 8)

    def _pass(self, new: int, before: int) -> int:
        # Joined, rotated, repeated for grouped queries, and each once more on the way.
        keys_and_values = 10 * self.n_heads * self.d_head * (new + before)
        # Of a layer at work, and of those done: some bridges hold on to each layer's last pattern.
        scores = (6 + self.n_layers) * self.n_heads * new * (new + before)
        hidden = new * (8 * self.d_model + 3 * self.d_mlp + 4 * self.n_heads * self.d_head)
        return (keys_and_values + hidden) * self.itemsize + scores * max(self.itemsize, 4)

    def batches(self, lengths: Sequence[int], shared: int, most: int, budget: float) -> Iterator[list[int]]:
        """Prompts of like length together, at most so many, that can be read and kept within a budget.

        Args:
            lengths: tokens to read of each prompt, after ``shared`` others.
            shared: tokens read before.
            most: prompts per batch.
            budget: in bytes; a batch has one prompt at least.
        """
        batch: list[int] = []
        for prompt in sorted(range(len(lengths)), key=lengths.__getitem__):
            each = self.reading(lengths[prompt], shared) + self.kept(lengths[prompt])
            if batch and (len(batch) == most or each * (len(batch) + 1) > budget):
                yield batch
                batch = []
            batch.append(prompt)
        yield batch

    def cut(self, masks: int, slots: int, logits: int | None, budget: float, as_rows: bool) -> tuple[int, int]:
        """How many prompts, and how many masks on each, go into one pass within a budget; at least one of each."""
        logits = self.d_vocab if logits is None else logits

        def size(count: int) -> int:
            return self.trying(count, slots, logits) + self.kept(slots)  # picked out of a batch they are copied

        if as_rows:
            rows = max(1, min(int(budget // size(1)), self.positions_per_pass))
            return max(1, rows // masks), min(masks, rows)
        per_prompt = min(masks, MASKS_PER_PASS)
        while per_prompt > 1 and size(per_prompt) > budget:
            per_prompt //= 2
        prompts = min(int(budget // size(per_prompt)), self.positions_per_pass // per_prompt)
        return max(1, prompts), per_prompt
