"""Random vision-language models on disk and loaded, shared by tests, which must not change them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import torch

if find_spec("torchvision"):
    # Beside a CPU build of torch, the wheel from the package index lacks these two operators, and is not imported without.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@dataclass(frozen=True)
class Seeing:
    """A model of a family: as arm_lens has it, and as transformers does."""

    family: str
    model: Any
    raw: Any
    processor: Any

    def outputs(self) -> list[torch.nn.Module]:
        """The raw output projections of the language model's layers, not of the tower's."""
        return [
            part
            for name, part in self.raw.named_modules()
            if name.endswith("self_attn.o_proj") and ("language_model" in name or "text_model" in name)
        ]


@pytest.fixture(scope="session")
def seeing_of(tmp_path_factory):
    """seeing_of(family)."""
    import transformers
    from vision_models import FAMILIES, save

    from arm_lens import load_model
    from arm_lens.engine.language_model import language_model

    made: dict[str, Seeing] = {}

    def make(family: str) -> Seeing:
        if family not in made:
            folder = save(family, tmp_path_factory.mktemp("vision") / family)
            raw = (
                FAMILIES[family]()[0].from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)
            )
            processor = transformers.AutoProcessor.from_pretrained(folder)
            made[family] = Seeing(family, language_model(load_model(folder)), raw, processor)
        return made[family]

    return make
