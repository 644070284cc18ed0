"""docs/training.md: a reader has a language model, a saved judge, and conversations."""

from __future__ import annotations

from docs.setups import _small

from arm_lens import load_model

GIVEN = ("model", "conversations")


def prepare(page):
    """Save the judge; give what stands for the name of the model."""
    folder = _small.chat_model(page.cache)
    _small.saved_judge(page.folder, folder)
    turns = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Please look at street 4."}]
    page.names |= {"model": load_model(folder), "conversations": [turns, turns * 2]}
    return {
        _small.QWEN: folder,
        "beta=0.05": "beta=0.05, max_steps=1, max_completion_length=8",
    }  # a default run takes minutes
