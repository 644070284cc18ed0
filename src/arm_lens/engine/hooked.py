"""`HookedTransformer` (TransformerLens 3.x) as a `LanguageModel`: everything that is particular to the class.

A `HookedTransformer` is TransformerLens' own implementation of a model. It takes no attention mask but one of padding, finds
positions by counting that mask's tokens, and unembeds all positions it has read unless stopped before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerLensConfig
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.kv_segments import KVSegment, visible
from arm_lens.engine.protocol import BUNDLED_NAME, STRETCHED, Findings, LanguageModel, ModelInfo, bundled_model_path
from arm_lens.engine.tokens import TokenBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer as HookedTransformer
else:
    try:
        HookedTransformer = import_module("transformer_lens").HookedTransformer
    except ImportError:  # removed in TransformerLens 4
        HookedTransformer = None


class HookedModel(LanguageModel):
    """A `HookedTransformer`.

    Args:
        raw: the user's own object.
        findings: what is known of the model.
    """

    model_class = "HookedTransformer"

    def __init__(self, raw: HookedTransformer, findings: Findings) -> None:
        super().__init__(raw, raw, findings)
        self._model = raw

    @property
    def info(self) -> ModelInfo:
        """Name, shape and state."""
        cfg = self._model.cfg
        name = str(cfg.model_name)
        return ModelInfo(
            name=BUNDLED_NAME if name == str(bundled_model_path()) else name,
            revision=None,
            architecture=str(cfg.original_architecture),
            model_class=self.model_class,
            weight_processing="folded" if str(cfg.normalization_type).endswith("Pre") else "raw",
            dtype=str(cfg.dtype).removeprefix("torch."),
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            d_head=cfg.d_head,
            d_model=cfg.d_model,
            n_ctx=cfg.n_ctx,
        )

    @property
    def _config(self) -> TransformerLensConfig:
        return self._model.cfg

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        assert self._model.tokenizer is not None
        return self._model.tokenizer

    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules of a block."""
        return list(block.children())

    def modules(self) -> Iterator[nn.Module]:
        """Every module of the model."""
        return self._model.modules()

    # -------------------------------------------------------------------------------------------- passes

    def _residual(self, batch: TokenBatch) -> Float[Tensor, "batch pos d_model"]:
        """What the last block leaves."""
        # Without a mask a HookedTransformer whose tokenizer pads on the left makes one by looking for pad tokens, and may
        # find them among the real ones (pad is often eos, or token 0).
        residual: Tensor = self._model(batch.tokens, stop_at_layer=self.n_layers, attention_mask=batch.attention_mask)
        return residual

    @torch.inference_mode()
    def logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position."""
        return self._unembed(self._residual(batch))

    @torch.inference_mode()
    def last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after each sequence's last real token."""
        residual = self._residual(batch)
        rows = torch.arange(len(batch.tokens), device=residual.device)
        return self._unembed(residual[rows, batch.last.to(residual.device)][:, None])[:, 0]

    def last_logits_with_gradient(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after left-padded sequences."""
        return self._unembed(self._residual(batch)[:, -1:])[:, 0]

    def _unembed(
        self, residual: Float[Tensor, "batch pos d_model"], rows: Int[Tensor, " verdict"] | None = None
    ) -> Float[Tensor, "batch pos vocab"]:
        """Final layer norm, unembedding and softcap; on request of some tokens' logits only."""
        cfg = self._model.cfg
        normed = self._model.ln_final(residual) if cfg.normalization_type is not None else residual
        if rows is None:
            logits: Tensor = self._model.unembed(normed)
        else:
            rows = rows.to(normed.device)
            # half has too few digits
            logits = normed.float() @ self._model.W_U[:, rows].float() + self._model.b_U[rows].float()
        cap = cfg.output_logits_soft_cap
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

    def no_extension(self, longest: int) -> str | None:
        """Why new tokens cannot be read after KV segments, as far as the config tells."""
        cfg = self._model.cfg
        if getattr(cfg, "use_dynamic_ntk_rope", False) or getattr(cfg, "use_logn_attn", False):
            return STRETCHED
        kind = cfg.positional_embedding_type
        return None if kind in ("rotary", "standard") else f"its positions are of the kind {kind!r}"

    def extend(
        self,
        tokens: Int[Tensor, "row new"],
        past: Sequence[KVSegment],
        positions: Int[Tensor, "row new"],
        sees: Bool[Tensor, "row new new"],
        *,
        rows: Int[Tensor, " verdict"] | None = None,
        last_only: bool = False,
        keep: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Float[Tensor, "row kept vocab"]:
        """Read new tokens after what was read before."""
        cache = import_module("transformer_lens.cache.key_value_cache").TransformerLensKeyValueCache.init_cache(
            self._model.cfg, self.device, len(tokens)
        )
        for layer, entry in enumerate(cache.entries):
            if past:
                entry.past_keys = _side_by_side([segment.keys[layer] for segment in past], len(tokens))
                entry.past_values = _side_by_side([segment.values[layer] for segment in past], len(tokens))
        real = [(segment.positions >= 0).int().to(positions.device).expand(len(tokens), -1) for segment in past]
        cache.previous_attention_mask = torch.cat([cache.previous_attention_mask.to(positions.device), *real], dim=1)
        if keep is None:
            cache.freeze()
        # Positions are found by counting the tokens of the attention mask; these counts give those wanted.
        before = cache.previous_attention_mask.sum(dim=1, keepdim=True)
        counts = torch.cat([before, torch.maximum(positions + 1, before)], dim=1).cummax(dim=1).values
        with self._attending(past, positions, sees):
            residual = self._model(
                tokens, attention_mask=counts.diff(dim=1), past_kv_cache=cache, stop_at_layer=self.n_layers
            )
        if keep is not None:
            new = tokens.shape[1]
            keep += [(one.past_keys[:, -new:].clone(), one.past_values[:, -new:].clone()) for one in cache.entries]
        return self._unembed(residual[:, -1:] if last_only else residual, rows)

    @contextlib.contextmanager
    def _attending(self, past: Sequence[KVSegment], positions: Tensor, sees: Tensor) -> Iterator[None]:
        """Within, each new token attends to what it is to see, and absolute position embeddings are those of ``positions``.

        The step in which layers mask their scores is replaced.
        """

        def masking(window: int | None) -> Callable[..., Tensor]:
            seen = visible(past, positions, sees, window)

            def apply_causal_mask(scores: Tensor, *_: Any, **__: Any) -> Tensor:
                return scores.masked_fill(~seen.to(scores.device), -torch.inf)

            return apply_causal_mask

        model = self._model
        kinds: dict[int | None, Callable[..., Tensor]] = {}
        attentions = [block.attn for block in model.blocks]
        handle = None
        if model.cfg.positional_embedding_type == "standard":
            embedded = model.W_pos[positions.clamp(min=0).to(model.W_pos.device)]
            handle = model.hook_pos_embed.register_forward_hook(lambda *_: embedded)
        try:
            for attention in attentions:
                window = model.cfg.window_size if attention.attn_type == "local" else None
                if window not in kinds:
                    kinds[window] = masking(window)
                attention.__dict__["apply_causal_mask"] = kinds[window]
            yield
        finally:
            for attention in attentions:
                attention.__dict__.pop("apply_causal_mask", None)
            if handle is not None:
                handle.remove()


def _side_by_side(parts: list[Tensor], count: int) -> Tensor:
    """Keys or values of segments, ``[row, slot, head, d_head]``, as one."""
    parts = [part.expand(count, -1, -1, -1) for part in parts]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
