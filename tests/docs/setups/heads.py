"""docs/heads.md: a reader has a reward model, and examples that were held out."""

from __future__ import annotations

from docs.setups import _small

from arm_lens import load_model

GIVEN = ("reward", "held_out")


def prepare(page):
    """Fit the reward model."""
    page.names["reward"] = _small.reward_model(page.folder, load_model(_small.chat_model(page.cache)))
    page.names["held_out"] = _small.examples(page.folder, 4, first=500)
