"""docs/howto/grpo.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    model = _small.chat_model(page.cache)
    _small.saved_judge(page.folder, model)
    return {_small.QWEN: model}
