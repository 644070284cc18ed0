"""What arm_lens needs of a language model, whatever its class: the `LanguageModel` protocol.

The activation that is read and written everywhere is ``blocks.{layer}.attn.hook_z``: the output of each attention head
before the output projection, ``[batch, pos, head, d_head]``. A model also gives next-token logits, keys and values
(`KVSegment`), and the parts of its blocks. `arm_lens.engine.bridge` and `arm_lens.engine.hooked` implement this for the two
classes of TransformerLens; no other module asks for a model's class.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerLensConfig
from transformer_lens.hook_points import HookPoint, LensHandle
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.tokens import PromptTooLongError, TokenBatch

ModelClass = Literal["TransformerBridge", "HookedTransformer"]
Hook: TypeAlias = Callable[[Float[Tensor, "batch pos head d_head"]], Float[Tensor, "batch pos head d_head"] | None]

BUNDLED_NAME = "arm_lens judge model"
STRETCHED = "its positions are stretched by the length of the prompt"
"""Why some models cannot go on from KV segments."""


def bundled_model_path() -> Path:
    """The folder of the bundled judge model, in Hugging Face format."""
    return Path(str(resources.files("arm_lens"))) / "judge_model" / "weights"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What identifies a model, as far as its activations depend on it."""

    name: str
    """Hub name or folder, or `BUNDLED_NAME`."""
    revision: str | None
    """Hub commit, if Hugging Face recorded one."""
    architecture: str
    """Hugging Face class, e.g. ``LlamaForCausalLM``."""
    model_class: ModelClass
    weight_processing: str
    """``raw``, ``folded`` (layer norms folded by HookedTransformer) or ``compatibility mode`` (by TransformerBridge)."""
    dtype: str
    n_layers: int
    n_heads: int
    d_head: int
    d_model: int
    n_ctx: int
    """Longest context, in tokens."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """From JSON; unknown keys are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(eq=False)
class Findings:
    """What was found out about one model by trying, without a reference to the model."""

    replayed: list[tuple[int, int]] = field(default_factory=list)
    """Prompt lengths and numbers of masks in a pass for which replays were exact, and so are with no more of either."""
    extended: tuple[int, int] | None = (0, -1)
    """The longest prompt and the most padding for which reading on was exact; None if it is not."""
    warned: bool = False
    """Whether the user was warned that the model cannot be replayed."""
    adapter: weakref.ref[LanguageModel] | None = None
    """The adapter in use."""


def weights_state(weights: Iterable[Tensor]) -> tuple[object, ...]:
    """A value that changes once any of the weights is moved, cast, exchanged, or changed in place."""
    return tuple(
        (id(weight), weight.data_ptr(), weight.device, weight.dtype, 0 if weight.is_inference() else weight._version)
        for weight in weights
    )


_OURS: set[int] = set()
"""Ids of the hooks that `LanguageModel.hooked` has put on any model."""
_SILENCE: ContextVar[object] = ContextVar("silence", default=None)
"""The innermost `silenced` block that runs; a hook acts only in the block in which it was added."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within, hooks of `LanguageModel.hooked` that were added outside do nothing.

    It is for reading a part of prompts that does not end where the prompts end, or the unsteered model. Hooks that are added
    within act only within: they do not affect another thread that uses the model meanwhile.
    """
    token = _SILENCE.set(object())
    try:
        yield
    finally:
        _SILENCE.reset(token)


class LanguageModel(ABC):
    """A language model as arm_lens uses it; made by `arm_lens.engine.language_model`.

    Args:
        raw: the user's own object.
        lens: the TransformerLens model that computes; often the same object.
        findings: what is known about the model.
        tokenizer: the user's own; by default the TransformerLens model's.
    """

    model_class: ClassVar[ModelClass]

    def __init__(
        self,
        raw: nn.Module,
        lens: nn.Module,
        findings: Findings,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.raw, self._lens, self.findings, self._tokenizer = raw, lens, findings, tokenizer
        findings.adapter = weakref.ref(self)
        untyped: Any = lens  # torch types a module's attributes as modules and tensors
        self._cfg: Any = untyped.cfg
        config: TransformerLensConfig = self._cfg
        self.n_layers: int = config.n_layers
        self.n_heads: int = config.n_heads
        """Attention heads per layer; with grouped-query attention, the query heads."""
        self.n_key_value_heads: int = config.n_key_value_heads or config.n_heads
        self.d_head: int = config.d_head
        self.d_model: int = config.d_model
        self.d_mlp: int = config.d_mlp or 4 * config.d_model
        self.d_vocab: int = config.d_vocab
        self.n_ctx: int = config.n_ctx
        """Longest context, in tokens."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name}, {self.n_layers} layers x {self.n_heads} heads)"

    # -------------------------------------------------------------------------------------------- what it is

    @property
    def info(self) -> ModelInfo:
        """Name, shape and state."""
        name, (revision, architecture, weight_processing) = str(self._cfg.model_name), self._provenance()
        return ModelInfo(
            name=BUNDLED_NAME if name == str(bundled_model_path()) else name,
            revision=revision,
            architecture=architecture,
            model_class=self.model_class,
            weight_processing=weight_processing,
            dtype=str(self.dtype).removeprefix("torch."),
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_head=self.d_head,
            d_model=self.d_model,
            n_ctx=self.n_ctx,
        )

    @abstractmethod
    def _provenance(self) -> tuple[str | None, str, str]:
        """Revision, architecture and weight processing, for `info`."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The user's tokenizer, or the TransformerLens model's."""
        lens: Any = self._lens
        tokenizer: PreTrainedTokenizerBase = lens.tokenizer if self._tokenizer is None else self._tokenizer
        return tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations."""
        dtype: torch.dtype = self._cfg.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the token embedding, where the model's input belongs."""
        return next(iter(self.parameters())).device

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights that the model computes with."""
        return self._lens.parameters()

    def state(self) -> tuple[object, ...]:
        """A hashable stand-in, for keys, for the model with its present weights."""
        return (self.findings, *weights_state(self.parameters()))

    # -------------------------------------------------------------------------------------------- its parts

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, as TransformerLens wraps them; empty if it knows of none."""
        found = getattr(self._lens, "blocks", None)
        return list(found) if isinstance(found, nn.ModuleList) else []

    def hook_z(self, layer: int) -> HookPoint:
        """The hook point before the output projection of a layer's attention, ``[batch, pos, head, d_head]``.

        Raises:
            ValueError: if the layer has none (a state-space layer, say).
        """
        return self._attention_point(layer, "hook_z")

    def hook_pattern(self, layer: int) -> HookPoint:
        """The hook point of a layer's attention pattern, ``[batch, head, query, key]``; errors as for `hook_z`."""
        return self._attention_point(layer, "hook_pattern")

    def _attention_point(self, layer: int, name: str) -> HookPoint:
        # Not from hook_dict: a bridge builds that anew, with every alias, at each access.
        blocks = getattr(self._lens, "blocks", None)
        point = None if blocks is None else getattr(getattr(blocks[layer], "attn", None), name, None)
        if isinstance(point, HookPoint):
            return point
        raise ValueError(f"{self.info.name} has no blocks.{layer}.attn.{name}: layer {layer} has no attention heads")

    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules that a block's layer is made of."""
        return list(block.children())

    def modules(self) -> Iterator[nn.Module]:
        """Every module that may take part in a pass."""
        return self._lens.modules()

    # -------------------------------------------------------------------------------------------- hooks

    @contextlib.contextmanager
    def hooked(self, hooks: Mapping[int, Hook]) -> Iterator[None]:
        """Run with a function at ``hook_z`` of each given layer; if it returns a tensor, that replaces the activation.

        Exactly these hooks are removed on exit, also after an exception; the user's own stay. The hook points are used
        directly, because the bridge's own context manager calls a hook once per alias in compatibility mode.
        """
        added: list[tuple[HookPoint, LensHandle]] = []
        try:
            for layer, function in hooks.items():
                point = self.hook_z(layer)
                point.add_hook(_as_lens_hook(function, self.n_heads))
                added.append((point, point.fwd_hooks[-1]))
                _OURS.add(added[-1][1].hook.id)
            yield
        finally:
            for point, handle in added:
                handle.hook.remove()
                _OURS.discard(handle.hook.id)
                if handle in point.fwd_hooks:  # not if the hooks were reset meanwhile
                    point.fwd_hooks.remove(handle)

    def is_hooked(self) -> bool:
        """Whether any hook is on any module: the model is steered, or a hook of the user's reads or changes it."""
        return any(True for module in self._lens.modules() for _ in _hooks_on(module))

    def has_foreign_hooks(self) -> bool:
        """Whether hooks that `hooked` did not add are on the hook points; they may depend on a token's place in a prompt."""
        points = (module for module in self._lens.modules() if isinstance(module, HookPoint))
        return any(hook not in _OURS for point in points for hook in _hooks_on(point))

    # -------------------------------------------------------------------------------------------- tokens

    def encode(self, texts: Sequence[str], *, chat: bool, names: Sequence[str] | None = None) -> list[list[int]]:
        """Whole prompts as token ids.

        A chat template writes its own special tokens into the text. For a base model a beginning-of-sequence token comes
        first if the tokenizer has one and TransformerLens' ``cfg.default_prepend_bos`` is set.

        Args:
            texts: whole prompts.
            chat: whether the texts come from a chat template.
            names: the names of the texts in errors; by default their numbers.

        Raises:
            PromptTooLongError: naming the first text that has more tokens than the model's context.
        """
        bos = self.tokenizer.bos_token_id
        prepend = not chat and bos is not None and getattr(self._cfg, "default_prepend_bos", True)
        prefix = [bos] if prepend else []
        sequences = []
        for number, text in enumerate(texts):
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            ids = ids if prefix and ids[:1] == prefix else prefix + ids
            if len(ids) > self.n_ctx:
                name = names[number] if names is not None else f"text {number}"
                raise PromptTooLongError(
                    f"{name}: the prompt has {len(ids)} tokens, the model's context {self.n_ctx}; "
                    "use fewer examples or shorter texts (nothing is cut)"
                )
            sequences.append(ids)
        return sequences

    # -------------------------------------------------------------------------------------------- passes

    @abstractmethod
    def logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position, without gradients; hooks already on the model take part."""

    @torch.inference_mode()
    def last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after each sequence's last real token, without gradients; hooks on the model take part."""
        return self.last_logits_with_gradient(batch)

    @abstractmethod
    def last_logits_with_gradient(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """The same as `last_logits`, with gradients unless the caller forbids them."""

    @abstractmethod
    def no_extension(self, longest: int) -> str | None:
        """Why the model cannot read new tokens after KV segments, as far as class and config show; None if it may.

        Args:
            longest: tokens of the longest prompt.
        """

    @abstractmethod
    def extend(
        self,
        new: NewTokens,
        *,
        rows: Int[Tensor, " verdict"] | None = None,
        last_only: bool = False,
        keep: list[KVSegment] | None = None,
    ) -> Float[Tensor, "row new vocab"]:
        """Read new tokens after what was read before, and give their next-token logits.

        Gradients are recorded unless the caller forbids it.

        Args:
            new: the tokens and the past. All of the past is attended to, as far as a sliding window reaches.
            rows: the tokens whose logits are given, in float32; by default the whole vocabulary. Only these rows of the
                unembedding are multiplied.
            last_only: give the logits of the last new token only.
            keep: a list to which the new tokens' KV segment is appended.
        """

    @torch.inference_mode()
    def prefill(self, batch: TokenBatch, past: Sequence[KVSegment] = ()) -> KVSegment:
        """Read left-padded tokens after what was read before. Hooks of `hooked`, at the last token, are silent meanwhile."""
        keep: list[KVSegment] = []
        nothing = torch.zeros(0, dtype=torch.long)
        with silenced():
            self.extend(NewTokens.following(batch, past), rows=nothing, last_only=True, keep=keep)
        return keep[0]

    @torch.inference_mode()
    def last_logits_after(self, past: Sequence[KVSegment], batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after left-padded tokens that follow what was read before; hooks on the model take part."""
        return self.extend(NewTokens.following(batch, past), last_only=True)[:, -1]


def _hooks_on(module: nn.Module) -> Iterator[int]:
    """Ids of the hooks on a module, without those with which libraries connect modules."""
    by_lens = {handle.hook.id: handle for handle in module.fwd_hooks} if isinstance(module, HookPoint) else {}
    for hook, function in (*module._forward_hooks.items(), *module._forward_pre_hooks.items()):
        handle = by_lens.get(hook)
        # A user's hook on a bridge is wrapped in a function of TransformerLens, but is not permanent.
        permanent = handle is None or handle.is_permanent
        origin = function if handle is None else handle.user_hook
        library = str(getattr(origin, "__module__", "")).partition(".")[0]
        if not (permanent and library in ("transformer_lens", "transformers", "accelerate")):
            yield hook


def _as_lens_hook(function: Hook, n_heads: int) -> Callable[..., Tensor | None]:
    silence = _SILENCE.get()

    def lens_hook(z: Tensor, hook: HookPoint) -> Tensor | None:
        if _SILENCE.get() is not silence:
            return None
        if z.ndim == 4:
            return function(z)
        # Some bridge layers give the heads in one axis with d_head.
        result = function(rearrange(z, "batch pos (head d_head) -> batch pos head d_head", head=n_heads))
        return None if result is None else rearrange(result, "batch pos head d_head -> batch pos (head d_head)")

    return lens_hook
