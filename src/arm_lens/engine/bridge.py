"""`TransformerBridge` (TransformerLens 3.x and 4.x) as a `LanguageModel`: everything that is particular to the class.

A bridge runs the Hugging Face model with hook points put between its modules. So keys and values go through a Hugging Face
cache, attention masks are additive and ready-made, and the model may be asked for the last position's logits only.

A plain Hugging Face model is wrapped in a bridge of its own. As a bridge exchanges modules of the model that it wraps, it
is given a twin: other modules with the same weights in memory, so that the user's model stays as it is.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerLensConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, CacheLayerMixin

from arm_lens.engine.kv_segments import KVSegment, visible
from arm_lens.engine.protocol import BUNDLED_NAME, STRETCHED, Findings, LanguageModel, ModelInfo, bundled_model_path
from arm_lens.engine.tokens import TokenBatch

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Where a module of torch holds what is called with it."""


class BridgeModel(LanguageModel):
    """A `TransformerBridge`, or a Hugging Face model within one.

    Args:
        raw: the user's own object: the bridge, or the Hugging Face model that it was made for.
        bridge: what computes.
        findings: what is known of the model.
        tokenizer: the user's own, of a Hugging Face model; by default the bridge's.
    """

    model_class = "TransformerBridge"

    def __init__(
        self,
        raw: nn.Module,
        bridge: TransformerBridge,
        findings: Findings,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(raw, bridge, findings)
        self._bridge, self._given = bridge, tokenizer
        self._keeps_logits = "logits_to_keep" in inspect.signature(bridge.original_model.forward).parameters

    @property
    def info(self) -> ModelInfo:
        """Name, shape and state."""
        cfg, name = self._config, str(self._bridge.cfg.model_name)
        return ModelInfo(
            name=BUNDLED_NAME if name == str(bundled_model_path()) else name,
            revision=getattr(self._bridge.original_model.config, "_commit_hash", None),
            architecture=type(self._bridge.original_model).__name__,
            model_class=self.model_class,
            weight_processing="compatibility mode" if self._bridge.compatibility_mode else "raw",
            dtype=str(cfg.dtype).removeprefix("torch."),
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            d_head=cfg.d_head,
            d_model=cfg.d_model,
            n_ctx=cfg.n_ctx,
        )

    @property
    def _config(self) -> TransformerLensConfig:
        config: TransformerLensConfig = self._bridge.cfg
        return config

    @property
    def _text_config(self) -> PretrainedConfig:
        """The Hugging Face config of the language model."""
        config: PretrainedConfig = self._bridge.original_model.config.get_text_config()  # type: ignore[union-attr, operator]
        return config

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The user's tokenizer, or the bridge's."""
        tokenizer: PreTrainedTokenizerBase = self._bridge.tokenizer if self._given is None else self._given
        return tokenizer

    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules of a block, and those of the layer that it wraps: some of those may have no bridge."""
        layer = block._modules.get("_original_component")
        parts = [*block.children(), *(() if layer is None else layer.children())]
        return [part for part in parts if part is not layer]

    def modules(self) -> Iterator[nn.Module]:
        """Every module of the bridge and of the model that it wraps."""
        return iter(dict.fromkeys((*self._bridge.modules(), *self._bridge.original_model.modules())))

    # -------------------------------------------------------------------------------------------- passes

    @torch.inference_mode()
    def logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position."""
        logits: Tensor = self._bridge(batch.tokens, **_mask(batch))
        return logits

    @torch.inference_mode()
    def last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after each sequence's last real token."""
        if self._keeps_logits and bool((batch.last == batch.tokens.shape[1] - 1).all()):
            return self.last_logits_with_gradient(batch)
        rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
        return self.logits(batch)[rows, batch.last]

    def last_logits_with_gradient(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after left-padded sequences."""
        logits: Tensor = self._bridge(
            batch.tokens, **_mask(batch), **({"logits_to_keep": 1} if self._keeps_logits else {})
        )
        return logits[:, -1]

    def no_extension(self, longest: int) -> str | None:
        """Why new tokens cannot be read after KV segments, as far as the config tells."""
        config = self._text_config
        rope = getattr(config, "rope_parameters", None) or {}
        for one in (
            rope,
            *(part for part in rope.values() if isinstance(part, dict)),
        ):  # one, or one for each kind of layer
            if one.get("rope_type") not in ("dynamic", "longrope"):
                continue
            if longest > int(one.get("original_max_position_embeddings") or config.max_position_embeddings):
                return STRETCHED
        if getattr(self._bridge.original_model.config, "is_encoder_decoder", False):
            return "it is an encoder-decoder model"
        others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if others:
            return f"it has layers of the kind {', '.join(sorted(others))}"
        if getattr(self._config, "positional_embedding_type", None) == "alibi":
            return "its positions are distances between slots (ALiBi)"
        try:
            for layer in range(self.n_layers):
                self.hook_z(layer)
        except ValueError as error:
            return str(error)
        return None

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
        layers = [
            _PastLayer([segment.keys[layer] for segment in past], [segment.values[layer] for segment in past])
            for layer in range(self.n_layers)
        ]
        with self._unembedding_only(rows) as done:
            logits: Tensor = self._bridge(
                tokens,
                past_key_values=Cache(layers=list(layers)),
                attention_mask=self._additive(past, positions, sees),
                position_ids=positions.clamp(min=0),
                use_past_kv_cache=True,
                **({"logits_to_keep": 1} if last_only and self._keeps_logits else {}),
            )
        if keep is not None:
            for number, layer in enumerate(layers):
                if layer.new is None:
                    raise NotImplementedError(f"layer {number} has no keys and values of its own")
                keep.append(layer.new)
        logits = logits[:, -1:] if last_only else logits
        return logits if done or rows is None else logits[..., rows.to(logits.device)]

    @contextlib.contextmanager
    def _unembedding_only(self, rows: Tensor | None) -> Iterator[bool]:
        """Within, the unembedding has these rows only; whatever comes after it (a softcap, a scale) is as ever.

        The module is exchanged for another, and nothing in it is touched. Gives False where that cannot be done, because
        it is no plain matrix.
        """
        parts = self._bridge.unembed._modules
        head = parts["_original_component"]
        if rows is None or not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
            yield rows is None
            return
        parts["_original_component"] = _Rows(head, rows)
        try:
            yield True
        finally:
            parts["_original_component"] = head

    def _additive(self, past: Sequence[KVSegment], positions: Tensor, sees: Tensor) -> Tensor | dict[str, Tensor]:
        """The attention mask as Hugging Face takes it ready-made: one, or one for each kind of layer."""
        config, dtype = self._text_config, self.dtype
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        kinds = set(getattr(config, "layer_types", None) or ())
        lowest = torch.finfo(dtype).min

        def additive(window: int | None) -> Tensor:
            seen = visible(past, positions, sees, window)
            return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, lowest)

        if "sliding_attention" in kinds:
            return {"full_attention": additive(None), "sliding_attention": additive(window)}
        return additive(None if kinds else window)


def _mask(batch: TokenBatch) -> dict[str, Tensor]:
    return {"attention_mask": batch.attention_mask} if batch.padded else {}


class _PastLayer(CacheLayerMixin):
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


class _Rows(nn.Module):
    """Some rows of an unembedding, multiplied in float32: half precision has too few digits for the gap of two logits."""

    def __init__(self, head: nn.Linear, rows: Tensor) -> None:
        super().__init__()
        rows = rows.to(head.weight.device)
        self.rows = (head.weight[rows], None if head.bias is None else head.bias[rows])

    def forward(self, hidden: Tensor) -> Tensor:
        weight, bias = self.rows
        return nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())


# ------------------------------------------------------------------------------------------ plain Hugging Face models


@torch.inference_mode(False)  # what is made here may take part in gradients
def bridge_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TransformerBridge:
    """A bridge that computes with a Hugging Face model's weights, as they lie in memory, and leaves the model as it is.

    The twin within is in evaluation mode and attends eagerly, as what `arm_lens.load_model` gives; hooks that are on the
    model's modules are on the twin's too.
    """
    # What is in the memo is taken for its own copy: new parameters that share the old ones' storage, so that an adapter
    # which gives one other data, or needs no gradient, does so in the twin only (quantised weights are of other classes);
    # and hooks, whose functions may hold anything.
    twins: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) if type(weight) is nn.Parameter else weight
        for weight in model.parameters()
    }
    twins |= {id(hooks): copy.copy(hooks) for hooks in _hooks_of(model)}
    twin = copy.deepcopy(model, twins)
    twin.train(False)
    twin.set_attn_implementation("eager")
    spare = copy.deepcopy(tokenizer)  # which side it pads is set
    # So that it is taken as it is: without, it would be read again from where it came from, and tokens added since be lost.
    spare.init_kwargs |= {"add_bos_token": True, "name_or_path": tokenizer.name_or_path}
    name = str(model.name_or_path)
    return TransformerBridge.boot_transformers(
        str(Path(name).resolve()) if Path(name).is_dir() else name,
        hf_model=twin,
        tokenizer=spare,
        device=model.device,
        dtype=model.dtype,
    )


def hooks_on(model: PreTrainedModel) -> tuple[int, ...]:
    """Ids of the hooks of torch that are on a Hugging Face model."""
    return tuple(hook for hooks in _hooks_of(model) for hook in hooks)


def _hooks_of(model: PreTrainedModel) -> Iterator[dict[int, Any]]:
    """Where the modules hold what is called with them."""
    return (getattr(module, name) for module in model.modules() for name in HOOKS)
