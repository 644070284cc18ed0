"""What judges, selection, reward and benchmark still import under their old names; each goes with its last user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from arm_lens.engine.language_model import describe, language_model, last_logits
from arm_lens.engine.loading import load_model
from arm_lens.engine.protocol import BUNDLED_NAME, ModelClass, ModelInfo

__all__ = [
    "BUNDLED_NAME", "Model", "ModelClass", "ModelInfo", "describe", "device_of", "encode", "last_logits", "load_model"
]  # fmt: skip

Model: TypeAlias = Any


def device_of(model: Model) -> torch.device:
    """Where the model's input belongs."""
    return language_model(model).device


def encode(model: Model, texts: Sequence[str], *, chat: bool, names: Sequence[str] | None = None) -> list[list[int]]:
    """Texts as token ids."""
    return language_model(model).encode(texts, chat=chat, names=names)
