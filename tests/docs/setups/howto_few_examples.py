"""docs/howto/few_examples.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(names, folder, cache):
    """Write the files of the page; gives what stands for the names of models."""
    _small.labelled(folder / "few.csv", 20)
    _small.labelled(folder / "pool.csv", 60)
    return {_small.QWEN: _small.chat_model(cache)}
