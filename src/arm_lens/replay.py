"""The exact replay: try many head masks on a prompt without reading the prompt again.

An injection touches the last token only, and attention is causal: the keys and values of all earlier tokens are the same
whatever mask is tried. So each prompt's prefix (all tokens but the last) is read once, and each mask costs one token.

On a `TransformerBridge` the masks of a prompt are laid side by side as positions of one pass: M copies of the last
token, all at the last token's position, each seeing the prefix and itself and none of its siblings (the attention mask
of tree-shaped speculative decoding). ``hook_z`` then arrives as ``[example, mask, head, d_head]``. On a
`HookedTransformer`, whose attention mask has no room for that, the masks are repeated batch rows against a frozen
key-value cache. Models for which neither is known to be exact are read in full, once per mask.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_lens.models import Hook, Model, class_of, describe, device_of, hooked, hooked_unembed, last_logits
from arm_lens.prompts import VerdictTokens
from arm_lens.steering import Injection, steer
from arm_lens.tokens import chunks, pad


class SlowReplayWarning(UserWarning):
    """This model's prompts are read in full for every mask."""


@dataclass(frozen=True)
class _Prefix:
    """A batch of prompts up to their last token, read."""

    examples: slice
    last_tokens: Int[Tensor, "example one"]
    lengths: Int[Tensor, " example"]
    """Real tokens before the last one."""
    attention_mask: Int[Tensor, "example prefix"]
    cache: Any
    """Keys and values, in the model class's own form."""


class Replay:
    """Prompts of one model, read once, on which any number of head masks can be tried.

    Args:
        model: of either class; it is not changed.
        sequences: the prompts as token ids, each ending where the verdict is due, of at least two tokens.
        verdicts: the tokens whose logits decide.
        injection: how values are written.
        batch_size: prompts per pass.
    """

    def __init__(
        self,
        model: Model,
        sequences: Sequence[Sequence[int]],
        verdicts: VerdictTokens,
        *,
        injection: Injection | None = None,
        batch_size: int = 32,
    ) -> None:
        if any(len(sequence) < 2 for sequence in sequences):
            raise ValueError("a prompt to replay needs at least two tokens")
        self.model, self.verdicts = model, verdicts
        self.injection = injection or Injection()
        self.sequences = [list(sequence) for sequence in sequences]
        self._batch_size = batch_size
        self._prefixes: list[_Prefix] | None = None
        self._run = self._choose_path()

    def __len__(self) -> int:
        return len(self.sequences)

    def _choose_path(self) -> Callable[[_Prefix, Tensor, Tensor, Tensor], Tensor] | None:
        if class_of(self.model) == "HookedTransformer":
            # Rotary and absolute positions are offset by the cache; other schemes and local windows are not.
            kinds = {"rotary", "standard"}
            if self.model.cfg.positional_embedding_type in kinds and not self.model.cfg.use_local_attn:
                return self._as_rows
        else:
            config = self.model.original_model.config
            layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
            window = getattr(config, "sliding_window", None) if layer_types != {"full_attention"} else None
            if window is None and config.model_type in _FULL_CAUSAL_ATTENTION:
                return self._as_positions
        warnings.warn(
            f"no exact replay is known for {describe(self.model).architecture}: every mask reads every prompt in full",
            SlowReplayWarning,
            stacklevel=3,
        )
        return None

    def logits(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask vocab"]:
        """Next-token logits of each prompt under each mask, in float32 on the CPU.

        Args:
            masks: heads at which the values are written.
            values: what is written there.
            examples: which prompts, by index; by default all.
        """
        return self._each(masks, values, examples, lambda logits: logits)

    def log_probs(
        self,
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
        examples: Sequence[int] | None = None,
    ) -> Float[Tensor, "example mask verdict"]:
        """Log-probabilities of the positive and the negative verdict, all spellings together; otherwise as `logits`.

        The vocabulary is summed up pass by pass, on the model's device: only two numbers a prompt and mask are kept.
        """
        sides = [list(side) for side in (self.verdicts.positive, self.verdicts.negative)]

        def verdict(logits: Tensor) -> Tensor:
            total = logits.logsumexp(dim=-1)
            return torch.stack([logits[..., side].logsumexp(dim=-1) - total for side in sides], dim=-1)

        return self._each(masks, values, examples, verdict)

    @torch.inference_mode()
    def _each(
        self, masks: Tensor, values: Tensor, examples: Sequence[int] | None, reduce: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "example mask out"]:
        """What ``reduce`` makes of each pass's float32 logits, gathered on the CPU."""
        wanted = list(range(len(self))) if examples is None else list(examples)
        if self._run is None:
            return torch.stack([self._in_full(wanted, mask, values, reduce) for mask in masks], dim=1)
        found: dict[int, Tensor] = {}
        for prefix in self._read_prefixes():
            first = prefix.examples.start
            rows = sorted({index - first for index in wanted if prefix.examples.start <= index < prefix.examples.stop})
            if rows:
                reduced = reduce(self._run(prefix, torch.tensor(rows), masks, values).float()).cpu()
                found.update({first + row: one for row, one in zip(rows, reduced, strict=True)})
        return torch.stack([found[index] for index in wanted])

    # ------------------------------------------------------------------------------------------ full passes

    def _in_full(
        self, examples: Sequence[int], mask: Tensor, values: Tensor, reduce: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "example out"]:
        found = []
        with steer(self.model, mask, values, injection=self.injection):
            for span in chunks(len(examples), self._batch_size):
                batch = pad([self.sequences[i] for i in examples[span]], device=device_of(self.model))
                found.append(reduce(last_logits(self.model, batch).float()).cpu())
        return torch.cat(found)

    # ------------------------------------------------------------------------------------------ prefixes

    def _read_prefixes(self) -> list[_Prefix]:
        if self._prefixes is None:
            self._prefixes = [self._read_prefix(span) for span in chunks(len(self), self._batch_size)]
        return self._prefixes

    def _read_prefix(self, span: slice) -> _Prefix:
        device = device_of(self.model)
        batch = pad([sequence[:-1] for sequence in self.sequences[span]], device=device)
        last = torch.tensor([sequence[-1:] for sequence in self.sequences[span]], device=device)
        if class_of(self.model) == "HookedTransformer":
            cache_class = import_module("transformer_lens.cache.key_value_cache").TransformerLensKeyValueCache
            cache = cache_class.init_cache(self.model.cfg, device, len(last))
            # Not stop_at_layer=0 or the like: every layer's keys and values are wanted, and nothing else.
            self.model(batch.tokens, attention_mask=batch.attention_mask, past_kv_cache=cache, return_type=None)
        else:
            keep = {"attention_mask": batch.attention_mask} if batch.padded else {}
            _, cache = self.model(batch.tokens, return_type="logits_and_cache", use_past_kv_cache=True, **keep)
        return _Prefix(span, last, batch.attention_mask.sum(dim=1), batch.attention_mask, cache)

    # ------------------------------------------------------------------------------------------ bridge

    def _as_positions(
        self,
        prefix: _Prefix,
        rows: Int[Tensor, " example"],
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
    ) -> Float[Tensor, "example mask vocab"]:
        device, count = prefix.last_tokens.device, len(masks)
        rows = rows.to(device)
        dtype = self.model.cfg.dtype
        sees = torch.cat(
            [
                repeat(prefix.attention_mask[rows].bool(), "example key -> example 1 mask key", mask=count),
                repeat(torch.eye(count, dtype=torch.bool, device=device), "m k -> example 1 m k", example=len(rows)),
            ],
            dim=-1,
        )
        additive = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill(~sees, torch.finfo(dtype).min)
        positions = repeat(prefix.lengths[rows], "example -> example mask", mask=count)
        with hooked(self.model, self._writers(masks, values)):
            logits: Tensor = self.model(
                prefix.last_tokens[rows].expand(-1, count).contiguous(),
                past_key_values=_rows_of(prefix.cache, rows),
                attention_mask=additive,
                position_ids=positions,
                use_past_kv_cache=True,
            )
        return logits

    def _writers(
        self, masks: Bool[Tensor, "mask layer head"], values: Float[Tensor, "layer head d_head"]
    ) -> dict[int, Hook]:
        def writer(layer: int) -> Hook:
            def write(z: Tensor) -> Tensor:
                return self.injection.apply(z, values[layer].to(z), masks[:, layer].to(z.device))

            return write

        return {layer: writer(layer) for layer in range(self.model.cfg.n_layers) if bool(masks[:, layer].any())}

    # ------------------------------------------------------------------------------------------ HookedTransformer

    def _as_rows(
        self,
        prefix: _Prefix,
        rows: Int[Tensor, " example"],
        masks: Bool[Tensor, "mask layer head"],
        values: Float[Tensor, "layer head d_head"],
    ) -> Float[Tensor, "example mask vocab"]:
        device = prefix.last_tokens.device
        order = repeat(rows.to(device), "example -> (example mask)", mask=len(masks))
        source = prefix.cache
        cache = type(source)(
            entries=[
                type(entry)(past_keys=entry.past_keys[order], past_values=entry.past_values[order], frozen=True)
                for entry in source.entries
            ],
            previous_attention_mask=prefix.attention_mask[order],
            frozen=True,
        )
        tokens = prefix.last_tokens[order]
        flat = repeat(masks, "mask layer head -> (example mask) layer head", example=len(rows))
        with steer(self.model, flat, values, injection=self.injection):
            residual = self.model(
                tokens,
                attention_mask=torch.ones_like(tokens),
                past_kv_cache=cache,
                stop_at_layer=self.model.cfg.n_layers,
            )
        logits = hooked_unembed(self.model, residual[:, -1])
        return rearrange(logits, "(example mask) vocab -> example mask vocab", mask=len(masks))


_FULL_CAUSAL_ATTENTION = frozenset(["llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gptj", "mistral", "bitnet"])
"""Hugging Face model types whose layers, without a sliding window, all attend causally to the whole prefix and take a
4-D attention mask with explicit position ids."""


def _rows_of(cache: Any, rows: Int[Tensor, " example"]) -> Any:
    """Some batch rows of a Hugging Face cache, as a cache that can grow without the given one growing too.

    A cache layer grows by binding a new, longer tensor; so it is enough to copy the objects, not the tensors.
    """
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        if len(rows) != len(layer.keys):
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return chosen
