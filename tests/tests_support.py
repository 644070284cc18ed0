"""Independent computations that several tests compare with."""

from __future__ import annotations

import torch

from arm_lens import last_logits

OUTPUT_PROJECTION = {
    "llama": "model.layers.{}.self_attn.o_proj",
    "qwen2": "model.layers.{}.self_attn.o_proj",
    "qwen3": "model.layers.{}.self_attn.o_proj",
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
}


def raw_inputs_while(bridge, family, batch):
    """What enters the raw Hugging Face output projection of each layer, [batch, pos, head * d_head], in one pass."""
    seen, handles = [], []
    for layer in range(bridge.cfg.n_layers):
        wrapped = bridge.original_model.get_submodule(OUTPUT_PROJECTION[family].format(layer))
        raw = getattr(wrapped, "original_component", wrapped)
        handles.append(raw.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone())))
    try:
        with torch.no_grad():
            last_logits(bridge, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen
