"""Attention of a `TransformerBridge` as Hugging Face computes it, while no hook looks inside.

A bridge computes attention with rotary positions in steps of its own, so that scores, patterns and rotated queries have hook
points. That takes several times as long as the one fused operation with which transformers computes it. While nothing is
hooked at these points, a layer can attend by its Hugging Face module instead, whose projections are still the bridge's:
``hook_q``, ``hook_k``, ``hook_v`` and ``hook_z`` fire as ever.

`arm_lens.engine.identity` tries this when a model is first seen; it is used if logits are then still those of the raw Hugging
Face module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.generalized_components.position_embeddings_attention import (
    PositionEmbeddingsAttentionBridge,
)

IMPLEMENTATION = "sdpa"
"""What transformers calls the fused operation."""
NOT_FUSED = ("attn_logit_softcapping", "sinks")
"""Attributes of Hugging Face attention that the fused operation leaves out."""
OTHER_HOOKS = ("use_attn_result", "use_split_qkv_input", "use_attn_in")
"""Settings of TransformerLens with which more hook points fire than those that Hugging Face attention has."""


@contextlib.contextmanager
def natively(lens: TransformerBridge) -> Iterator[bool]:
    """Within, layers attend by their Hugging Face modules; yields whether they do, which takes that all of them can.

    Hooks may not be added within, and no other thread may use the model.
    """
    attentions: list[Any] = [getattr(block, "attn", None) for block in lens.blocks]
    inner: Any = lens.original_model
    if not getattr(inner, "_supports_sdpa", False) or lens.compatibility_mode or not all(map(_can, attentions)):
        yield False
        return
    configs: dict[int, Any] = {id(inner.config): inner.config}
    for attention in attentions:
        config = attention.original_component.config
        configs.setdefault(id(config), config)
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = IMPLEMENTATION
        for attention in attentions:
            attention.__dict__["forward"] = partial(AttentionBridge.forward, attention)
        yield True
    finally:
        for attention in attentions:
            attention.__dict__.pop("forward", None)
        for config, implementation in reversed(before):
            config._attn_implementation = implementation


def _can(attention: Any) -> bool:
    """Whether a layer's attention can be computed by its Hugging Face module alone."""
    if type(attention) is not PositionEmbeddingsAttentionBridge:
        return False
    module, config = attention.original_component, attention.config
    return not (
        any(getattr(module, name, None) is not None for name in NOT_FUSED)
        or any(getattr(config, name, False) for name in OTHER_HOOKS)
        or any(map(_is_hooked, _inner_points(attention)))
    )


def _inner_points(attention: nn.Module) -> Iterator[HookPoint]:
    """The hook points that only the bridge's own steps reach."""
    for name, point in attention.named_children():
        if isinstance(point, HookPoint) and name not in ("hook_in", "hook_out"):
            yield point


def _is_hooked(point: HookPoint) -> bool:
    return bool(point._forward_hooks or point._forward_pre_hooks or point._backward_hooks or point._backward_pre_hooks)
