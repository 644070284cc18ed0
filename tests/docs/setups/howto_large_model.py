"""docs/howto/large_model.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    _small.labelled(page.folder / "few.csv", 12)
    return {_small.QWEN_7B: _small.chat_model(page.cache)}


NOT_RUN = {"from transformers import BitsAndBytesConfig": "needs several GPUs, and bitsandbytes"}
