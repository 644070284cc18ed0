"""Gradients through a model, of activations and gates, never of weights; they leave nothing in the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from arm_lens.engine.protocol import LanguageModel


@contextlib.contextmanager
def frozen_weights(model: LanguageModel) -> Iterator[None]:
    """Within, weights take no part in gradients: nothing is stored for them, and ``backward`` gives them none."""
    with model.exclusive():
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        try:
            for weight in learning:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in learning:
                weight.requires_grad_(True)


@contextlib.contextmanager
def differentiating(model: LanguageModel) -> Iterator[None]:
    """Within, gradients are recorded whatever the caller's mode, but not for weights; afterwards no graph is left."""
    with model.exclusive():
        try:
            with frozen_weights(model), torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            for module in model.modules():
                forget(module)


def forget(module: nn.Module) -> None:
    """Detach what a module stores of its last pass (some bridges store the attention pattern), which frees its graph."""
    for name, held in list(vars(module).items()):
        if isinstance(held, Tensor) and held.requires_grad:
            setattr(module, name, held.detach())
