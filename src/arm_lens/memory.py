"""How much memory there is, and what reading prompts and trying head masks on them takes."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from arm_lens.models import Model

SHARE_OF_FREE = 0.5
"""How much of a device's free memory is taken if no budget is given."""


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free on a device, in bytes."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    else:
        free = psutil.virtual_memory().available
    return int(SHARE_OF_FREE * free)


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

    @classmethod
    def of(cls, model: Model) -> Footprint:
        """From a model's config."""
        cfg = model.cfg
        return cls(
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_key_value_heads=getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
            d_head=cfg.d_head,
            d_model=cfg.d_model,
            d_mlp=getattr(cfg, "d_mlp", None) or 4 * cfg.d_model,
            d_vocab=cfg.d_vocab,
            itemsize=next(iter(model.parameters())).element_size(),
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
        keys_and_values = 4 * self.n_heads * self.d_head * (new + before)  # joined, then repeated for grouped queries
        scores = 3 * self.n_heads * new * (new + before)
        hidden = new * (8 * self.d_model + 3 * self.d_mlp + 4 * self.n_heads * self.d_head)
        return (keys_and_values + hidden) * self.itemsize + scores * max(self.itemsize, 4)
