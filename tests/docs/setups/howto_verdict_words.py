"""docs/howto/verdict_words.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    return {_small.QWEN: _small.chat_model(page.cache)}
