"""`HookedTransformer` (TransformerLens 3.x) as a `LanguageModel`: everything that is particular to the class.

A `HookedTransformer` is TransformerLens' own implementation of a model. The only attention mask that it accepts is a mask of
padding. It finds positions by counting that mask's tokens, and unembeds every position unless it is stopped before.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.model_info import Findings
from arm_lens.engine.protocol import STRETCHED, LanguageModel
from arm_lens.engine.tokens import TokenBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer as HookedTransformer
else:
    try:
        HookedTransformer = import_module("transformer_lens").HookedTransformer
    except ImportError:  # removed in TransformerLens 4
        HookedTransformer = None


@functools.cache
def known_to_hooked_transformer() -> frozenset[str]:
    """The architectures that TransformerLens makes a HookedTransformer of, whatever the model's name; none from 4.0 on."""
    if HookedTransformer is None:
        return frozenset()
    convert = import_module("transformer_lens.loading_from_pretrained").convert_hf_model_config
    return frozenset(re.findall(r'architecture == "(\w+)"', inspect.getsource(convert)))


class HookedModel(LanguageModel):
    """A `HookedTransformer`."""

    model_class = "HookedTransformer"
    _lens: HookedTransformer

    def _provenance(self) -> tuple[str | None, str, str]:
        cfg = self._lens.cfg
        return None, str(cfg.original_architecture), "folded" if str(cfg.normalization_type).endswith("Pre") else "raw"

    @property
    def config(self) -> Any:
        """Nothing: a HookedTransformer does not have its Hugging Face config."""
        return SimpleNamespace()

    def raw_module(self) -> nn.Module:
        """There is none: TransformerLens computes with weights of its own."""
        raise LookupError("a HookedTransformer has no Hugging Face module")

    def with_weights_of(self, module: nn.Module) -> HookedModel:
        """A HookedTransformer of the same config and weight processing, with a Hugging Face module's weights."""
        lens, folded = copy.deepcopy(self._lens), self._provenance()[2] == "folded"
        state = import_module("transformer_lens.loading_from_pretrained").get_pretrained_state_dict(
            str(lens.cfg.model_name), lens.cfg, hf_model=module, dtype=self.dtype
        )
        lens.load_and_process_state_dict(
            state, fold_ln=folded, center_writing_weights=folded, center_unembed=folded, fold_value_biases=folded
        )
        return HookedModel(lens, lens, Findings())

    def structural_difference(self, windows: Sequence[int | None], frequencies: Sequence[Tensor]) -> str | None:
        """Sliding windows and the frequencies of rotary positions, which few tokens may not show."""
        cfg, blocks = self._lens.cfg, self._lens.blocks
        for layer, (window, block) in enumerate(zip(windows, blocks, strict=True)):
            local = cfg.window_size if block.attn.attn_type == "local" else None
            there, here = window or cfg.n_ctx, local or cfg.n_ctx
            if min(there, cfg.n_ctx) != min(here, cfg.n_ctx):
                return f"a token of layer {layer} attends to {there} tokens there and to {here} here"
        if cfg.positional_embedding_type != "rotary" or not frequencies:
            return None
        for layer, block in enumerate(blocks):
            sin, cos = (table[1].detach().float().cpu() for table in (block.attn.rotary_sin, block.attn.rotary_cos))
            own = torch.atan2(sin, cos).sort().values[::2]  # each frequency is there twice
            if not any(
                own.shape == one.shape and torch.allclose(own, one, rtol=1e-2, atol=1e-6) for one in frequencies
            ):
                return f"the frequencies of rotary positions in layer {layer} are others"
        return None

    def _residual(self, batch: TokenBatch) -> Float[Tensor, "batch pos d_model"]:
        # Without a mask a HookedTransformer whose tokenizer pads on the left makes one by looking for pad tokens, and may
        # find them among the real ones (pad is often eos, or token 0).
        with self.exclusive():
            residual: Tensor = self._lens(
                batch.tokens, stop_at_layer=self.n_layers, attention_mask=batch.attention_mask
            )
        return residual

    def unchecked_logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position."""
        with self.exclusive():
            return self._unembed(self._residual(batch))

    def unchecked_last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after the last real tokens."""
        with self.exclusive():
            residual = self._residual(batch)
            rows = torch.arange(len(batch.tokens), device=residual.device)
            return self._unembed(residual[rows, batch.last.to(residual.device)][:, None])[:, 0]

    def _unembed(
        self, residual: Float[Tensor, "batch pos d_model"], rows: Int[Tensor, " verdict"] | None = None
    ) -> Float[Tensor, "batch pos vocab"]:
        """Final layer norm, unembedding and softcap, of all tokens' logits or only of some ``rows``."""
        cfg = self._lens.cfg
        normed = self._lens.ln_final(residual) if cfg.normalization_type is not None else residual
        if rows is None:
            logits: Tensor = self._lens.unembed(normed)
        else:
            rows = rows.to(normed.device)
            # half has too few digits
            logits = normed.float() @ self._lens.W_U[:, rows].float() + self._lens.b_U[rows].float()
        cap = cfg.output_logits_soft_cap
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

    def no_extension(self, longest: int) -> str | None:
        """Why the model cannot read new tokens after KV segments."""
        cfg = self._lens.cfg
        if getattr(cfg, "use_dynamic_ntk_rope", False) or getattr(cfg, "use_logn_attn", False):
            return STRETCHED
        kind = cfg.positional_embedding_type
        return None if kind in ("rotary", "standard") else f"its positions are of the kind {kind!r}"

    def extend(
        self,
        new: NewTokens,
        *,
        rows: Int[Tensor, " verdict"] | None = None,
        last_only: bool = False,
        keep: list[KVSegment] | None = None,
    ) -> Float[Tensor, "row new vocab"]:
        """Read new tokens after what was read before."""
        count, positions = len(new.tokens), new.positions
        cache = import_module("transformer_lens.cache.key_value_cache").TransformerLensKeyValueCache.init_cache(
            self._lens.cfg, self.device, count
        )
        for layer, entry in enumerate(cache.entries):
            if new.past:
                entry.past_keys = _joined([segment.keys[layer] for segment in new.past], count)
                entry.past_values = _joined([segment.values[layer] for segment in new.past], count)
        real = [(segment.positions >= 0).int().to(positions.device).expand(count, -1) for segment in new.past]
        cache.previous_attention_mask = torch.cat([cache.previous_attention_mask.to(positions.device), *real], dim=1)
        if keep is None:
            cache.freeze()
        # The class finds positions by counting the tokens of the attention mask; these counts give ours.
        before = cache.previous_attention_mask.sum(dim=1, keepdim=True)
        counts = torch.cat([before, torch.maximum(positions + 1, before)], dim=1).cummax(dim=1).values
        with self.exclusive(), self._attending(new):
            residual = self._lens(
                new.tokens, attention_mask=counts.diff(dim=1), past_kv_cache=cache, stop_at_layer=self.n_layers
            )
        if keep is not None:
            own = slice(-new.tokens.shape[1], None)
            keys = [entry.past_keys[:, own].clone() for entry in cache.entries]
            keep.append(KVSegment(keys, [entry.past_values[:, own].clone() for entry in cache.entries], positions))
        with self.exclusive():
            return self._unembed(residual[:, -1:] if last_only else residual, rows)

    @contextlib.contextmanager
    def _attending(self, new: NewTokens) -> Iterator[None]:
        """Within, each new token attends to what it is to see, and absolute position embeddings are those of its position.

        The step in which layers mask their scores is replaced.
        """
        model = self._lens
        hidden: dict[int | None, Tensor] = {}
        handle = None
        if model.cfg.positional_embedding_type == "standard":
            embedded = model.W_pos[new.positions.clamp(min=0).to(model.W_pos.device)]
            handle = model.hook_pos_embed.register_forward_hook(lambda *_: embedded)
        try:
            for block in model.blocks:
                window = model.cfg.window_size if block.attn.attn_type == "local" else None
                if window not in hidden:
                    hidden[window] = ~new.visible(window)
                block.attn.__dict__["apply_causal_mask"] = partial(_mask, hidden[window])
            yield
        finally:
            for block in model.blocks:
                block.attn.__dict__.pop("apply_causal_mask", None)
            if handle is not None:
                handle.remove()


def _mask(hidden: Tensor, scores: Tensor, *_: Any, **__: Any) -> Tensor:
    return scores.masked_fill(hidden.to(scores.device), -torch.inf)


def _joined(parts: list[Tensor], count: int) -> Tensor:
    """Keys or values of segments, ``[row, slot, head, d_head]``, as one."""
    parts = [part.expand(count, -1, -1, -1) for part in parts]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
