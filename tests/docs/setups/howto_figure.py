"""docs/howto/figure.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(names, folder, cache):
    """Write the files of the page; gives what stands for the names of models."""
    model = _small.chat_model(cache)
    _small.saved_judge(folder, model)
    _small.labelled(folder / "few.csv", 8)
    _small.labelled(folder / "test.csv", 20, first=100)
    return {_small.QWEN: model}
