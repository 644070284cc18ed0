"""docs/howto/long_prompts.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    _small.labelled(page.folder / "long.csv", 12)
    with (page.folder / "long.csv").open("a", encoding="utf-8") as file:
        file.write(f"What is this? {9000 * (chr(113) + chr(32))},Nothing.,0\n")
    return {_small.QWEN: _small.chat_model(page.cache)}
