"""Passes that start at a later block, because what earlier blocks compute is known.

A head mask changes nothing before the first layer in which it has a head. So the inputs of all blocks are noted once,
without any mask, and masks start at the first block that one of them changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from arm_lens.engine.protocol import LanguageModel


def block_inputs(model: LanguageModel, run: Callable[[], object]) -> list[Float[Tensor, "row pos d_model"]]:
    """What enters each block while a function runs a pass."""
    found: dict[int, Tensor] = {}

    def noting(layer: int) -> Callable[[nn.Module, Any], None]:
        return lambda _, args: found.__setitem__(layer, args[0].detach())

    with model.exclusive(), contextlib.ExitStack() as handles:
        for layer, block in enumerate(model.blocks):
            handles.enter_context(block.register_forward_pre_hook(noting(layer)))
        run()
    return [found[layer] for layer in range(model.n_layers)]


@contextlib.contextmanager
def starting_at(model: LanguageModel, layer: int, hidden: Float[Tensor, "row pos d_model"]) -> Iterator[None]:
    """Within, passes begin with this block, whose input is ``hidden``; 0 changes nothing.

    Keys and values of earlier blocks are not computed.
    """
    blocks = model.blocks[: layer + 1] if layer else ()
    before = [vars(block).get("forward") for block in blocks]  # of libraries that replace it too
    with model.exclusive():
        try:
            for block in blocks[:-1]:
                vars(block)["forward"] = _pass_on
            if blocks:
                vars(blocks[-1])["forward"] = _beginning(blocks[-1].forward, hidden)
            yield
        finally:
            for block, forward in zip(blocks, before, strict=True):
                vars(block).pop("forward", None)
                if forward is not None:
                    vars(block)["forward"] = forward


def _pass_on(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden


def _beginning(forward: Callable[..., Any], hidden: Tensor) -> Callable[..., Any]:
    return lambda _, *args, **kwargs: forward(hidden, *args, **kwargs)
