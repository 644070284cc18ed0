"""docs/howto/few_examples.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    _small.labelled(page.folder / "few.csv", 20)
    _small.labelled(page.folder / "pool.csv", 60)
    return {_small.QWEN: _small.chat_model(page.cache)}
