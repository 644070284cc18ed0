"""Passes: read new tokens after tokens that were read before.

Attention is causal: what a model makes of a token does not depend on what comes later. A `KVSegment` is a stretch of
tokens that was read, kept as keys and values; `advance` reads new tokens after any number of stretches. The new tokens
need not follow one another: each has a position and a row of an attention mask of its own, so that alternatives can
stand side by side.

Besides `arm_lens.engine.models` this is the only module that knows how the two TransformerLens classes are called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from arm_lens.engine.models import Model, class_of, device_of, hook_z, hooked_unembed, keeps_logits


@dataclass(frozen=True, eq=False)
class KVSegment:
    """A stretch of tokens, read: per layer its keys and values, in the model class's own form."""

    keys: list[Tensor]
    values: list[Tensor]
    positions: Int[Tensor, "row slot"]
    """The position of each token in its prompt; -1 at padding."""

    def rows(self, rows: Int[Tensor, " row"]) -> KVSegment:
        """Some rows; one row that is shared by all stays as it is."""
        if len(self.positions) == 1:
            return self
        return KVSegment(
            [keys[rows.to(keys.device)] for keys in self.keys],
            [values[rows.to(values.device)] for values in self.values],
            self.positions[rows.to(self.positions.device)],
        )

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return sum(kept.nbytes for kept in (*self.keys, *self.values))


def unfit(model: Model, longest: int) -> str | None:
    """Why reading cannot be continued from keys and values on this model, as far as its class and config tell.

    Args:
        model: of either class.
        longest: tokens of the longest prompt.
    """
    stretched = "its positions are stretched by the length of the prompt"
    if class_of(model) == "HookedTransformer":
        kind = model.cfg.positional_embedding_type
        if getattr(model.cfg, "use_dynamic_ntk_rope", False) or getattr(model.cfg, "use_logn_attn", False):
            return stretched
        return None if kind in ("rotary", "standard") else f"its positions are of the kind {kind!r}"
    config = text_config(model)
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (
        rope,
        *(part for part in rope.values() if isinstance(part, dict)),
    ):  # one, or one for each kind of layer
        if one.get("rope_type") not in ("dynamic", "longrope"):
            continue
        limit: Any = one.get("original_max_position_embeddings") or config.max_position_embeddings
        if longest > limit:
            return stretched
    if getattr(model.original_model.config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model"
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        return f"it has layers of the kind {', '.join(sorted(others))}"
    if getattr(model.cfg, "positional_embedding_type", None) == "alibi":
        return "its positions are distances between slots (ALiBi)"
    try:
        for layer in range(model.cfg.n_layers):
            hook_z(model, layer)
    except ValueError as error:
        return str(error)
    return None


def advance(
    model: Model,
    tokens: Int[Tensor, "row new"],
    past: Sequence[KVSegment],
    positions: Int[Tensor, "row new"],
    sees: Bool[Tensor, "row new new"],
    *,
    rows: Int[Tensor, " verdict"] | None = None,
    last_only: bool = False,
    keep: list[tuple[Tensor, Tensor]] | None = None,
) -> Float[Tensor, "row kept vocab"]:
    """Read new tokens after what was read before, and give their next-token logits.

    Gradients are recorded unless the caller forbids it.

    Args:
        model: of either class.
        tokens: what is new.
        past: what was read before, in order; each with one row or as many as ``tokens``.
        positions: where in its prompt each new token stands; -1 at padding.
        sees: which new tokens each new token attends to. All of the past is attended to, as far as a window reaches.
        rows: of which tokens the logits are wanted; by default of the whole vocabulary.
        last_only: give the logits of the last new token only.
        keep: filled with the new tokens' keys and values, layer by layer.
    """
    run = _advance_hooked if class_of(model) == "HookedTransformer" else _advance_bridge
    return run(model, tokens, list(past), positions, sees, rows, last_only, keep)


def _seen(
    past: list[KVSegment], positions: Int[Tensor, "row new"], sees: Bool[Tensor, "row new new"], window: int | None
) -> Bool[Tensor, "row 1 new slot"]:
    """Which slots each new token attends to, those of the past first."""
    before = [segment.positions.to(positions.device).expand(len(positions), -1) for segment in past]
    slots = torch.cat([*before, positions], dim=1)
    real = (slots[:, : slots.shape[1] - positions.shape[1]] >= 0)[:, None, :]
    seen = torch.cat([real.expand(-1, positions.shape[1], -1), sees], dim=2)
    if window is not None:
        seen = seen & (positions[:, :, None] - slots[:, None, :] < window)
    return seen[:, None]


# ---------------------------------------------------------------------------------------------- TransformerBridge


class _Layer(CacheLayerMixin):
    """One layer of the past for Hugging Face attention: hands on what it holds with what is new, and does not grow."""

    is_sliding = False

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._past = (keys, values)
        self.new: tuple[Tensor, Tensor] | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All keys and values there are, ``[row, head, slot, d_head]``."""
        self.new = (key_states, value_states)
        keys, values = (
            torch.cat([*(part.expand(len(new), -1, -1, -1) for part in parts), new], dim=-2) if parts else new
            for parts, new in zip(self._past, self.new, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """Slots read before."""
        return sum(part.shape[-2] for part in self._past[0])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many slots there are, and the number of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """There is none."""
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers 5.9


def _advance_bridge(
    model: Model,
    tokens: Tensor,
    past: list[KVSegment],
    positions: Tensor,
    sees: Tensor,
    rows: Tensor | None,
    last_only: bool,
    keep: list[tuple[Tensor, Tensor]] | None,
) -> Tensor:
    layers: list[Any] = [
        _Layer([segment.keys[layer] for segment in past], [segment.values[layer] for segment in past])
        for layer in range(model.cfg.n_layers)
    ]
    with _unembedding_only(model, rows) as done:
        logits: Tensor = model(
            tokens,
            past_key_values=Cache(layers=layers),
            attention_mask=_additive(model, past, positions, sees),
            position_ids=positions.clamp(min=0),
            use_past_kv_cache=True,
            **({"logits_to_keep": 1} if last_only and keeps_logits(model) else {}),
        )
    if keep is not None:
        for number, layer in enumerate(layers):
            if layer.new is None:
                raise NotImplementedError(f"layer {number} has no keys and values of its own")
            keep.append(layer.new)
    logits = logits[:, -1:] if last_only else logits
    return logits if done or rows is None else logits[..., rows.to(logits.device)]


class _Rows(torch.nn.Module):
    """Some rows of an unembedding, multiplied in float32: half precision has too few digits for the gap of two logits."""

    def __init__(self, head: torch.nn.Linear, rows: Tensor) -> None:
        super().__init__()
        rows = rows.to(head.weight.device)
        self.rows = (head.weight[rows], None if head.bias is None else head.bias[rows])

    def forward(self, hidden: Tensor) -> Tensor:
        weight, bias = self.rows
        return torch.nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())


@contextlib.contextmanager
def _unembedding_only(model: Model, rows: Tensor | None) -> Iterator[bool]:
    """Within, the bridge's unembedding has these rows only; whatever comes after it (a softcap, a scale) is as ever.

    The module is exchanged for another, and nothing in it is touched. Gives False where that cannot be done, because it
    is no plain matrix.
    """
    parts = model.unembed._modules
    head = parts["_original_component"]
    if rows is None or getattr(type(head), "forward", None) is not torch.nn.Linear.forward:
        yield rows is None
        return
    parts["_original_component"] = _Rows(head, rows)
    try:
        yield True
    finally:
        parts["_original_component"] = head


def _additive(model: Model, past: list[KVSegment], positions: Tensor, sees: Tensor) -> Tensor | dict[str, Tensor]:
    """The attention mask as Hugging Face takes it ready-made: one, or one for each kind of layer."""
    config = text_config(model)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ())
    lowest = torch.finfo(model.cfg.dtype).min

    def additive(window: int | None) -> Tensor:
        seen = _seen(past, positions, sees, window)
        return torch.zeros(seen.shape, dtype=model.cfg.dtype, device=seen.device).masked_fill_(~seen, lowest)

    if "sliding_attention" in kinds:
        return {"full_attention": additive(None), "sliding_attention": additive(window)}
    return additive(None if kinds else window)


def text_config(model: Model) -> Any:
    """The Hugging Face config of a bridge's language model."""
    return model.original_model.config.get_text_config()


# ---------------------------------------------------------------------------------------------- HookedTransformer


def _advance_hooked(
    model: Model,
    tokens: Tensor,
    past: list[KVSegment],
    positions: Tensor,
    sees: Tensor,
    rows: Tensor | None,
    last_only: bool,
    keep: list[tuple[Tensor, Tensor]] | None,
) -> Tensor:
    n_layers = model.cfg.n_layers
    cache = import_module("transformer_lens.cache.key_value_cache").TransformerLensKeyValueCache.init_cache(
        model.cfg, device_of(model), len(tokens)
    )
    for layer, entry in enumerate(cache.entries):
        if past:
            entry.past_keys = _side_by_side([segment.keys[layer] for segment in past], len(tokens))
            entry.past_values = _side_by_side([segment.values[layer] for segment in past], len(tokens))
    real = [(segment.positions >= 0).int().to(positions.device).expand(len(tokens), -1) for segment in past]
    cache.previous_attention_mask = torch.cat([cache.previous_attention_mask.to(positions.device), *real], dim=1)
    if keep is None:
        cache.freeze()
    # A HookedTransformer finds positions by counting the tokens of the attention mask; these counts give those wanted.
    before = cache.previous_attention_mask.sum(dim=1, keepdim=True)
    counts = torch.cat([before, torch.maximum(positions + 1, before)], dim=1).cummax(dim=1).values
    with _attention_as(model, past, positions, sees):
        residual = model(tokens, attention_mask=counts.diff(dim=1), past_kv_cache=cache, stop_at_layer=n_layers)
    if keep is not None:
        new = tokens.shape[1]
        keep += [(entry.past_keys[:, -new:].clone(), entry.past_values[:, -new:].clone()) for entry in cache.entries]
    return hooked_unembed(model, residual[:, -1:] if last_only else residual, rows)


def _side_by_side(parts: list[Tensor], count: int) -> Tensor:
    """Keys or values of stretches, ``[row, slot, head, d_head]``, as one."""
    parts = [part.expand(count, -1, -1, -1) for part in parts]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


@contextlib.contextmanager
def _attention_as(model: Model, past: list[KVSegment], positions: Tensor, sees: Tensor) -> Iterator[None]:
    """Within, each new token attends to what it is to see, and absolute position embeddings are those of ``positions``.

    A `HookedTransformer` takes no attention mask but one of padding; so the step in which its layers mask their scores
    is replaced.
    """

    def masking(window: int | None) -> Callable[..., Tensor]:
        seen = _seen(past, positions, sees, window)

        def apply_causal_mask(scores: Tensor, *_: Any, **__: Any) -> Tensor:
            return scores.masked_fill(~seen.to(scores.device), -torch.inf)

        return apply_causal_mask

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
            attention.apply_causal_mask = kinds[window]
        yield
    finally:
        for attention in attentions:
            attention.__dict__.pop("apply_causal_mask", None)
        if handle is not None:
            handle.remove()
