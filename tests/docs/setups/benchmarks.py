"""docs/benchmarks.md: a reader has written a configuration."""

from __future__ import annotations

import yaml
from docs.setups import _small


def prepare(page):
    """Write a small configuration and its data."""
    _small.labelled(page.folder / "replies.csv", 30)
    study = {"kind": "preferences", "name": "polite", "path": str(page.folder / "replies.csv"), "pool": 12}
    judge = {"judge": "arm_reinforce", "selector": {"kind": "reinforce", "steps": 3}}
    configuration = {
        "title": "Polite replies",
        "lead": "arm_reinforce",
        "model": _small.chat_model(page.cache),
        "judges": ["zero_shot", judge],
        "n_examples": [8],
        "studies": [study],
    }
    (page.folder / "my_benchmark.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
