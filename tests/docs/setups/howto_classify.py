"""docs/howto/classify.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    rows = [
        (f"this is day {day} and it is {word}", label)
        for day in range(70)
        for word, label in (("fine", "joy"), ("bad", "anger"))
    ]
    _small.write_csv(page.folder / "tweets.csv", "text,label", *rows)
    return {_small.QWEN: _small.chat_model(page.cache)}
