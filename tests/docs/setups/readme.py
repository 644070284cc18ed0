"""README.md: a reader has loaded tokens, and has examples that were held out."""

from __future__ import annotations

import torch
from docs.setups import _small

GIVEN = ("tokens", "held_out")


def prepare(page):
    """Write the examples; give what stands for the name of the model, and a search that ends with heads in a random one."""
    _small.pairs(page.folder / "preferences.jsonl", 12)
    page.names |= {"tokens": torch.tensor([[5, 6, 7]]), "held_out": _small.examples(page.folder, 4, first=500)}
    return {
        _small.QWEN: _small.chat_model(page.cache, layers=15),  # the page names layers up to 14
        "import ActivationRewardModel, load_model": "import ActivationRewardModel, Reinforce, load_model",
        "top_k=8": "top_k=8, steps=5",
        "progress=True": 'selector=Reinforce(steps=3, final="top_k", top_k=2)',
    }
