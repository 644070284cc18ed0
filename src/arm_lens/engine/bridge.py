"""`TransformerBridge` (TransformerLens 3.x and 4.x) as a `LanguageModel`: everything that is particular to the class.

A bridge runs the Hugging Face model with hook points between its modules. So keys and values go through a Hugging Face
cache, attention masks are additive, and some models can give the last position's logits only.

A plain Hugging Face model is wrapped in a bridge. A bridge exchanges modules of the model that it wraps; so it wraps a copy
whose modules share the original's weights in memory, and the user's model stays as it is.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, CacheLayerMixin

from arm_lens.engine.bridge_attention import natively
from arm_lens.engine.hooks import foreign_hooks
from arm_lens.engine.images import ImageReader, processor_given, same_image
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.model_info import sum_of_bits
from arm_lens.engine.protocol import STRETCHED, LanguageModel
from arm_lens.engine.tokens import MixedLengthsError, TokenBatch

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""The attributes in which a torch module stores its hooks."""


ALIKE = {"SmolVLMForConditionalGeneration": "Idefics3ForConditionalGeneration"}
"""Architectures that TransformerLens lacks, with those whose modules have the same names and which it has."""


class BridgeModel(LanguageModel):
    """A `TransformerBridge`, or a Hugging Face model within one."""

    model_class = "TransformerBridge"
    _lens: TransformerBridge

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether the model can give some positions' logits only."""
        return "logits_to_keep" in inspect.signature(self._lens.original_model.forward).parameters

    def _provenance(self) -> tuple[str | None, str, str]:
        inner = self._lens.original_model
        processing = "compatibility mode" if self._lens.compatibility_mode else "raw"
        return getattr(inner.config, "_commit_hash", None), type(inner).__name__, processing

    @property
    def config(self) -> PretrainedConfig:
        """The Hugging Face config of the language model."""
        config: Any = self._lens.original_model.config
        # Of an encoder-decoder model, the text config is that of the decoder.
        text: PretrainedConfig = config if getattr(config, "is_encoder_decoder", False) else config.get_text_config()
        return text

    def raw_module(self) -> nn.Module:
        """The user's own Hugging Face model, or one built around the bridge's weights."""
        if isinstance(self.raw, PreTrainedModel):
            return self.raw
        if self._lens.compatibility_mode:
            raise LookupError("its weights were processed")
        inner: Any = self._lens.original_model
        return rebuilt(inner)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """As `LanguageModel.exclusive`; a Hugging Face model takes part with the weights and hooks that it has now."""
        with super().exclusive():
            raw = self.raw if self.findings.depth == 1 else None
            if isinstance(raw, PreTrainedModel) and _MADE_OF[self._lens] != _made_of(raw, _MADE_OF[self._lens].copied):
                self._lens = bridge_of(raw, self.tokenizer, processor=getattr(self._lens, "processor", None))
                self._cfg = self._lens.cfg
            yield

    def attending(self) -> contextlib.AbstractContextManager[bool]:
        """As `LanguageModel.attending`."""
        return natively(self._lens) if self.findings.natively else super().attending()

    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules of a block and of the layer that it wraps: some of the layer's have no bridge."""
        layer = block._modules.get("_original_component")
        parts = [*block.children(), *(() if layer is None else layer.children())]
        return [part for part in parts if part is not layer]

    def modules(self) -> Iterator[nn.Module]:
        """Every module of the bridge and of the model that it wraps."""
        return iter(dict.fromkeys((*self._lens.modules(), *self._lens.original_model.modules())))

    def unchecked_logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position."""
        return self._pass(batch)

    def unchecked_last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after the last real tokens."""
        if self._keeps_logits and bool((batch.last == batch.tokens.shape[1] - 1).all()):
            return self._pass(batch, logits_to_keep=1)[:, -1]
        rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
        return self._pass(batch)[rows, batch.last]

    def _pass(self, batch: TokenBatch, **options: int) -> Float[Tensor, "batch pos vocab"]:
        mask = {"attention_mask": batch.attention_mask} if batch.padded else {}
        tokens, seen = self._seen(batch.tokens)
        if self._has_axes:
            seen |= {"position_ids": self._on_axes(tokens, batch.attention_mask, seen)}
        with self.exclusive(), self.attending(), self._unembedding_only(None):
            self._check_lengths(batch)
            self._forget_lengths()
            logits: Tensor = self._lens(tokens, **mask, **seen, **options)
        return logits

    # -------------------------------------------------------------------------------------------- images

    @property
    def images(self) -> ImageReader | None:
        """As `LanguageModel.images`."""
        processor = getattr(self._lens, "processor", None)
        if processor is None or not getattr(self._cfg, "is_multimodal", False):
            return None
        known: ImageReader | None = self.findings.images
        if known is None or known.processor is not processor or known.tokenizer is not self.tokenizer:
            known = self.findings.images = ImageReader(processor, self.tokenizer, self._lens.original_model.config)
        return known

    def _seen(self, tokens: Int[Tensor, "row pos"]) -> tuple[Int[Tensor, "row pos"], dict[str, Tensor]]:
        """Tokens as the model has them, and what it reads besides if some stand for images."""
        if self.images is None:
            return tokens, {}
        tokens, seen = self.images.inputs(tokens)
        return tokens, {name: one.to(self.dtype) if one.is_floating_point() else one for name, one in seen.items()}

    @cached_property
    def _has_axes(self) -> bool:
        """Whether positions have several axes: an image's height and width too (Qwen-VL)."""
        return hasattr(getattr(self._lens.original_model, "model", None), "get_rope_index")

    def _on_axes(
        self, tokens: Int[Tensor, "row pos"], real: Int[Tensor, "row pos"], seen: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis row pos"]:
        """Rotary positions on each axis, from 0 at the first real token of each row."""
        if not seen:
            return (real.cumsum(dim=1) - 1).clamp(min=0).expand(3, -1, -1)
        inner: Any = self._lens.original_model
        grids = {name: one for name, one in seen.items() if name in ("image_grid_thw", "mm_token_type_ids")}
        positions: Tensor = inner.model.get_rope_index(tokens, attention_mask=real, **grids)[0]
        return positions

    def _positions(
        self, new: NewTokens, tokens: Int[Tensor, "row new"], seen: Mapping[str, Tensor]
    ) -> tuple[Int[Tensor, "row new"] | Int[Tensor, "axis row new"], Int[Tensor, " row"] | None]:
        """Rotary positions of new tokens; and by how much those of later tokens are shifted by images among the new."""
        positions = new.positions.clamp(min=0)
        if not self._has_axes:
            return positions, None
        if not seen:
            return (positions + new.shift[:, None]).clamp(min=0).expand(3, -1, -1), None
        real = (new.positions >= 0).long()
        first = torch.where(real.bool(), positions, positions.amax() + 1).amin(dim=1)
        on_axes = self._on_axes(tokens, real, seen)
        shift = on_axes.amax(dim=(0, 2)) + 1 - real.sum(dim=1)
        return (on_axes + (first + new.shift)[:, None]) * real, shift

    @cached_property
    def _stretched_beyond(self) -> float:
        """The number of tokens beyond which rotary positions depend on the length of the longest prompt of a batch."""
        rope = getattr(self.config, "rope_parameters", None) or {}
        by_kind = [part for part in rope.values() if isinstance(part, dict)]  # of models with several kinds of layers
        return min(
            (
                float(part.get("original_max_position_embeddings") or self.config.max_position_embeddings)
                for part in (rope, *by_kind)
                if part.get("rope_type") in ("dynamic", "longrope")
            ),
            default=math.inf,
        )

    def reads_alone(self, lengths: Iterable[int]) -> bool:
        """Whether a prompt is long enough for its rotary positions to be scaled by the length of the batch."""
        return max(lengths, default=0) > self._stretched_beyond

    def _check_lengths(self, batch: TokenBatch) -> None:
        """Refuse a batch of several lengths if transformers scales the positions of all rows by the longest one."""
        if self._stretched_beyond == math.inf:
            return
        lengths = sorted(set(batch.attention_mask.sum(dim=1).tolist()))
        if len(lengths) > 1 and self.reads_alone(lengths):
            raise MixedLengthsError(
                f"{self.info.name} scales the positions of all prompts of a batch by its longest beyond "
                f"{self._stretched_beyond:g} tokens, so that prompts of {lengths[0]} and {lengths[-1]} tokens cannot be read "
                "together: pass batch_size=1"
            )

    def _forget_lengths(self) -> None:
        """Have rotary positions start anew: transformers goes on with the scale of the longest prompt that it ever read."""
        if self._stretched_beyond == math.inf:
            return
        for module in self.modules():
            for name, original in [*module.named_buffers(recurse=False)]:
                if name.endswith("original_inv_freq"):
                    prefix = name.removesuffix("original_inv_freq")
                    setattr(module, f"{prefix}inv_freq", original.clone())
                    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

    def no_extension(self, longest: int) -> str | None:
        """Why the model cannot read new tokens after KV segments."""
        if longest > self._stretched_beyond:
            return STRETCHED
        config = self.config
        others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if others:
            return f"it has layers of the kind {', '.join(sorted(others))}"
        if getattr(self._lens.cfg, "positional_embedding_type", None) == "alibi":
            return "its positions are distances between slots (ALiBi)"
        return None

    def extend(
        self,
        new: NewTokens,
        *,
        rows: Int[Tensor, " verdict"] | None = None,
        last_only: bool = False,
        keep: list[KVSegment] | None = None,
    ) -> Float[Tensor, "row new vocab"]:
        """Read new tokens after what was read before."""
        layers = [
            _PastLayer([segment.keys[layer] for segment in new.past], [segment.values[layer] for segment in new.past])
            for layer in range(self.n_layers)
        ]
        tokens, seen = self._seen(new.tokens)
        positions, shift = self._positions(new, tokens, seen)
        with self.exclusive(), self.attending(), self._unembedding_only(rows) as done:
            self._forget_lengths()
            logits: Tensor = self._lens(
                tokens,
                past_key_values=Cache(layers=list(layers)),
                attention_mask=self._additive(new),
                position_ids=positions,
                use_past_kv_cache=True,
                **seen,
                **({"logits_to_keep": 1} if last_only and self._keeps_logits else {}),
            )
        if keep is not None:
            own = [layer.new for layer in layers if layer.new is not None]
            if len(own) < self.n_layers:
                raise NotImplementedError("a layer has no keys and values of its own")
            keep.append(KVSegment([keys for keys, _ in own], [values for _, values in own], new.positions, shift))
        logits = logits[:, -1:] if last_only else logits
        return logits if done or rows is None else logits[..., rows.to(logits.device)]

    @contextlib.contextmanager
    def _unembedding_only(self, rows: Tensor | None) -> Iterator[bool]:
        """Within, the unembedding has these rows only; what comes after it (a softcap, a scale) still runs.

        The module is exchanged for another one and is not changed itself. Yields False if the unembedding is not a plain
        matrix, so that it has all rows. What it multiplies is contiguous.
        """
        parts = self._lens.unembed._modules
        head = parts["_original_component"]
        assert head is not None
        plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward
        parts["_original_component"] = _Rows(head, rows) if plain and rows is not None else _Contiguous(head)
        try:
            yield plain or rows is None
        finally:
            parts["_original_component"] = head

    def _additive(self, new: NewTokens) -> Tensor | dict[str, Tensor]:
        """The attention mask in the form that Hugging Face uses unchanged: one, or one for each kind of layer."""
        config, dtype = self.config, self.dtype
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        kinds = set(getattr(config, "layer_types", None) or ())
        lowest = torch.finfo(dtype).min
        # Gemma's processors mark the tokens of images by this name, and its models let them attend to each other.
        together = same_image(new.tokens) if self.images is not None and self.images.both_ways else None

        def additive(window: int | None) -> Tensor:
            seen = new.visible(window, together)
            return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, lowest)

        if "sliding_attention" in kinds:
            return {"full_attention": additive(None), "sliding_attention": additive(window)}
        return additive(None if kinds else window)


class _PastLayer(CacheLayerMixin):
    """One layer of the past for Hugging Face attention: joins its keys and values with the new ones, and does not grow."""

    is_sliding = False

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._past = (keys, values)
        self.new: tuple[Tensor, Tensor] | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The keys and values of the past and of the new tokens, ``[row, head, slot, d_head]``."""
        self.new = (key_states, value_states)
        keys, values = (
            torch.cat([*(part.expand(len(new), -1, -1, -1) for part in parts), new], dim=-2) if parts else new
            for parts, new in zip(self._past, self.new, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """The number of slots read before."""
        return sum(part.shape[-2] for part in self._past[0])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of slots, and the index of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is no maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers 5.9


class _Rows(nn.Module):
    """Some rows of an unembedding, multiplied in float32: half precision is too coarse for the gap of two logits."""

    def __init__(self, head: nn.Linear, rows: Tensor) -> None:
        super().__init__()
        rows = rows.to(head.weight.device)
        self.rows = (head.weight[rows], None if head.bias is None else head.bias[rows])

    def forward(self, hidden: Tensor) -> Tensor:
        weight, bias = self.rows
        return nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())


class _Contiguous(nn.Module):
    """An unembedding of contiguous input: on CPUs, PyTorch can take 400 times as long for a slice in bfloat16."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden.contiguous())
        return logits


# ------------------------------------------------------------------------------------------ plain Hugging Face models


def rebuilt(inner: PreTrainedModel) -> nn.Module:
    """A Hugging Face module of the same class, config and weights as one whose parts TransformerLens has exchanged.

    The weights are shared; nothing of them is copied.

    Raises:
        LookupError: if the weights are not those of the class, as in quantised models.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        module: nn.Module = type(inner)(copy.deepcopy(inner.config))
    weights: dict[str, list[Tensor]] = {}
    for of_inner in (inner.named_parameters(remove_duplicate=False), inner.named_buffers(remove_duplicate=False)):
        for name, weight in of_inner:
            weights.setdefault(name.replace("_original_component.", ""), []).append(weight)
    device = next(inner.parameters()).device

    def take(name: str, like: Tensor) -> Tensor:
        fitting = [weight for weight in weights.get(name, ()) if weight.shape == like.shape]
        if not fitting or fitting[0].device != device:
            raise LookupError(f"the weight {name} is missing, has another shape, or is on another device")
        return fitting[0].detach()

    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(take(prefix + name, parameter), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:  # those that are not saved, like rotary frequencies, are computed anew
                saved = name not in part._non_persistent_buffers_set
                part._buffers[name] = take(prefix + name, buffer) if saved else buffer.to(device)
    return module.train(False)


@torch.inference_mode(False)  # what is made here may take part in gradients
def bridge_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | None = None, processor: Any = None
) -> TransformerBridge:
    """A bridge that computes with a Hugging Face model's weights in memory, and leaves the model as it is.

    The copy inside is in evaluation mode and attends eagerly, like a model of `arm_lens.load_model`; hooks on the model's
    modules are also on the copy's. Its ``name`` is by default the model's ``name_or_path``.
    """
    # deepcopy takes what the memo has for an object as its copy: here, new parameters that share the old ones' storage, so
    # that what TransformerLens does to a parameter stays in the copy (quantised weights have other classes and are shared
    # themselves); and shallow copies of the hooks, whose functions may refer to anything.
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) if type(weight) is nn.Parameter else weight
        for weight in model.parameters()
    }
    memo |= {id(hooks): copy.copy(hooks) for hooks in _hooks_of(model)}
    inner = copy.deepcopy(model, memo)
    for module in inner.modules():
        # A function that a trainer has put in place of a module's own often refers to the user's model, past all hooks of the
        # copy; accelerate's hooks, which place weights on devices, do not.
        if "_hf_hook" not in module.__dict__:
            module.__dict__.pop("forward", None)
    inner.train(False)
    inner.set_attn_implementation("eager")
    inner.config.architectures = inner.config.architectures or [type(model).__name__]
    if type(model).__name__ in ALIKE:
        inner.config.original_architecture = ALIKE[type(model).__name__]
    name = str(model.name_or_path) if name is None else name
    with processor_given(processor):
        bridge = TransformerBridge.boot_transformers(
            str(Path(name).resolve()) if name and Path(name).is_dir() else name,
            hf_model=inner,
            tokenizer=for_transformer_lens(tokenizer),
            device=model.device,
            dtype=model.dtype,
        )
    shared = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    copied = any(weight.untyped_storage().data_ptr() not in shared for weight in bridge.parameters())
    _MADE_OF[bridge] = _made_of(model, copied)
    return bridge


class _Made(NamedTuple):
    """What a bridge was made of: it changes once the bridge computes with other weights or hooks than the model has."""

    copied: bool
    """Whether the bridge has weights of its own: those that several projections have in common are split, and so copied."""
    weights: list[tuple[object, ...]]
    """Where they are and, if some were copied, what they contain."""
    hooks: tuple[int, ...]


_MADE_OF: weakref.WeakKeyDictionary[nn.Module, _Made] = weakref.WeakKeyDictionary()
"""What the bridges of Hugging Face models were made of."""


def _made_of(model: PreTrainedModel, copied: bool) -> _Made:
    return _Made(
        copied,
        [(one.data_ptr(), one.dtype, one.device, sum_of_bits(one) if copied else 0) for one in model.parameters()],
        hooks_on(model),
    )


def for_transformer_lens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer for TransformerLens, which sets special tokens and the padding side."""
    spare = copy.deepcopy(tokenizer)
    # Without these it would load the tokenizer anew, without the chat template and the tokens that were added since.
    spare.init_kwargs |= {"add_bos_token": True, "name_or_path": tokenizer.name_or_path}
    return spare


def hooks_on(model: PreTrainedModel) -> tuple[int, ...]:
    """Ids of the torch hooks on a Hugging Face model, without those that transformers puts there at the first pass."""
    return tuple(hook for module in model.modules() for hook in foreign_hooks(module))


def _hooks_of(model: PreTrainedModel) -> Iterator[dict[int, Any]]:
    return (getattr(module, name) for module in model.modules() for name in HOOKS)
