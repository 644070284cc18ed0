"""docs/real_models.md: a reader has imported what loads models."""

from __future__ import annotations

from docs.setups import _small

from arm_lens import load_model

GIVEN = ("load_model",)
NOT_RUN = {
    "from transformers import BitsAndBytesConfig": "needs a GPU and bitsandbytes",
}


def prepare(page):
    """Give what stands for the names of models; a GGUF file is read in tests/engine/test_loading.py."""
    page.names["load_model"] = load_model
    return dict.fromkeys((_small.QWEN, "path/to/folder", "model.gguf"), _small.chat_model(page.cache))
