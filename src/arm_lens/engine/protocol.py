"""What arm_lens needs of a language model, whatever class holds it: the `LanguageModel` protocol.

The activation read and written everywhere is ``blocks.{layer}.attn.hook_z``: the output of each attention head before
the output projection, ``[batch, pos, head, d_head]``. Beside it a model is asked for next-token logits, for keys and values
(`KVSegment`), and for the parts of its blocks. `arm_lens.engine.bridge` and `arm_lens.engine.hooked` say how each class
of TransformerLens answers; nothing else asks which class a model is of.
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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerLensConfig
from transformer_lens.hook_points import HookPoint, LensHandle
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.kv_segments import KVSegment, one_after_another, positions_after
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
    """What has to be known about a model to read activations of it, or to trust activations read before."""

    name: str
    """Hub name or folder, or `BUNDLED_NAME`."""
    revision: str | None
    """Hub commit, where Hugging Face recorded one."""
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
    """What was found out about one model by trying; it holds no reference to the model."""

    replayed: list[tuple[int, int]] = field(default_factory=list)
    """With how long a prompt, and how many masks in a pass, its replay was found exact; so it is with no more of either."""
    extended: tuple[int, int] | None = (0, -1)
    """The longest prompt, and the most padding, with which reading on was found exact; None if it is not."""
    warned: bool = False
    """Whether it was said that it cannot be replayed."""
    identity: object = field(default_factory=object)
    """Stands for the model in keys of `arm_lens.engine.sharing`."""
    adapter: weakref.ref[LanguageModel] | None = None
    """The adapter in use."""


def weights_state(weights: Iterable[Tensor]) -> tuple[object, ...]:
    """Another value once any of the weights was moved, cast, exchanged, or changed in place."""
    return tuple(
        (id(weight), weight.data_ptr(), weight.device, weight.dtype, 0 if weight.is_inference() else weight._version)
        for weight in weights
    )


_OURS: set[int] = set()
"""Ids of the hooks that `LanguageModel.hooked` has put on any model."""
_SILENCE: ContextVar[object] = ContextVar("silence", default=None)
"""The innermost `silenced` block that runs; a hook acts in the one it was put on in, and in no other."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within, hooks of `LanguageModel.hooked` that were put on outside do nothing.

    What is read is a part of prompts that does not end where they end, or the model as nobody steers it. Hooks put on within
    act, and act there alone: another thread that uses the model meanwhile does not run into them.
    """
    token = _SILENCE.set(object())
    try:
        yield
    finally:
        _SILENCE.reset(token)


class LanguageModel(ABC):
    """A language model as arm_lens uses it; `arm_lens.engine.language_model` gives the one of a model.

    Args:
        raw: the user's own object.
        lens: the TransformerLens model that computes; often the same object.
        findings: what is known of the model.
    """

    model_class: ClassVar[ModelClass]

    def __init__(self, raw: nn.Module, lens: nn.Module, findings: Findings) -> None:
        self.raw, self._lens, self.findings = raw, lens, findings
        findings.adapter = weakref.ref(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name}, {self.n_layers} layers x {self.n_heads} heads)"

    # -------------------------------------------------------------------------------------------- what it is

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """Name, shape and state."""

    @property
    @abstractmethod
    def _config(self) -> TransformerLensConfig:
        """TransformerLens' config."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self._config.n_layers

    @property
    def n_heads(self) -> int:
        """Attention heads per layer; of grouped-query attention, the query heads."""
        return self._config.n_heads

    @property
    def n_key_value_heads(self) -> int:
        """Heads per layer that have keys and values of their own."""
        return self._config.n_key_value_heads or self._config.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head's output."""
        return self._config.d_head

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._config.d_model

    @property
    def d_mlp(self) -> int:
        """Width of an MLP's hidden layer."""
        return self._config.d_mlp or 4 * self._config.d_model

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return self._config.d_vocab

    @property
    def n_ctx(self) -> int:
        """Longest context, in tokens."""
        return self._config.n_ctx

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return self._config.dtype

    @property
    def device(self) -> torch.device:
        """Where the token embedding lives: where the model's input belongs."""
        return next(iter(self.parameters())).device

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights that the model computes with."""
        return self._lens.parameters()

    def state(self) -> tuple[object, ...]:
        """Stands for the model with the weights it has now, in keys of what was read of it; it is hashable."""
        return (self.findings.identity, *weights_state(self.parameters()))

    # -------------------------------------------------------------------------------------------- its parts

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, as TransformerLens wraps them; none where it knows of none."""
        found = getattr(self._lens, "blocks", None)
        return list(found) if isinstance(found, nn.ModuleList) else []

    def hook_z(self, layer: int) -> HookPoint:
        """The hook point in front of the output projection of a layer's attention, ``[batch, pos, head, d_head]``.

        Raises:
            ValueError: if the layer has none (a state-space layer, say).
        """
        return self._attention_point(layer, "hook_z")

    def hook_pattern(self, layer: int) -> HookPoint:
        """The hook point of a layer's attention pattern, ``[batch, head, query, key]``.

        Raises:
            ValueError: if the layer has none.
        """
        return self._attention_point(layer, "hook_pattern")

    def _attention_point(self, layer: int, name: str) -> HookPoint:
        # Not by name from hook_dict: a bridge makes that afresh, with every alias, each time it is asked.
        blocks = getattr(self._lens, "blocks", None)
        point = None if blocks is None else getattr(getattr(blocks[layer], "attn", None), name, None)
        if isinstance(point, HookPoint):
            return point
        raise ValueError(f"{self.info.name} has no blocks.{layer}.attn.{name}: layer {layer} has no attention heads")

    @abstractmethod
    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules that a block's layer is made of."""

    @abstractmethod
    def modules(self) -> Iterator[nn.Module]:
        """Every module that may take part in a pass."""

    # -------------------------------------------------------------------------------------------- hooks

    @contextlib.contextmanager
    def hooked(self, hooks: Mapping[int, Hook]) -> Iterator[None]:
        """Run with a function at ``hook_z`` of the given layers; a function that returns a tensor replaces the activation.

        Exactly these hooks are removed on exit, also after an exception; hooks of the user's stay. The hook points are
        used directly, because the bridge's own context manager calls a hook once per alias in compatibility mode.
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
        """Whether any hook is on any of its modules: it is steered, watched, or changed by a hook of the user's."""
        return any(True for module in self._lens.modules() for _ in _hooks_on(module))

    def has_foreign_hooks(self) -> bool:
        """Whether hooks are on its hook points that `hooked` did not put there.

        They may care where in a prompt a token stands.
        """
        points = (module for module in self._lens.modules() if isinstance(module, HookPoint))
        return any(hook not in _OURS for point in points for hook in _hooks_on(point))

    # -------------------------------------------------------------------------------------------- tokens

    def encode(self, texts: Sequence[str], *, chat: bool, names: Sequence[str] | None = None) -> list[list[int]]:
        """Whole prompts as token ids.

        A chat template writes its own special tokens into the text. For a base model a beginning-of-sequence token is put
        in front where the tokenizer has one and TransformerLens' ``cfg.default_prepend_bos`` says so.

        Args:
            texts: whole prompts.
            chat: whether the texts come from a chat template.
            names: what to call each text in an error; by default its number.

        Raises:
            PromptTooLongError: naming the first text that has more tokens than the model's context.
        """
        bos = self.tokenizer.bos_token_id
        prepend = not chat and bos is not None and getattr(self._config, "default_prepend_bos", True)
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

    @abstractmethod
    def last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after each sequence's last real token, without gradients; hooks on the model take part."""

    @abstractmethod
    def last_logits_with_gradient(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """The same after left-padded sequences, with gradients unless the caller forbids them."""

    @abstractmethod
    def no_extension(self, longest: int) -> str | None:
        """Why new tokens cannot be read after KV segments, as far as class and config tell; None if nothing tells.

        Args:
            longest: tokens of the longest prompt.
        """

    @abstractmethod
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
        """Read new tokens after what was read before, and give their next-token logits.

        Gradients are recorded unless the caller forbids it.

        Args:
            tokens: what is new.
            past: what was read before, in order; each with one row or as many as ``tokens``.
            positions: where in its prompt each new token stands; -1 at padding.
            sees: which new tokens each new token attends to. All of the past is attended to, as far as a window reaches.
            rows: of which tokens the logits are wanted, in float32; by default of the whole vocabulary. Only these rows of
                the unembedding are multiplied.
            last_only: give the logits of the last new token only.
            keep: filled with the new tokens' keys and values, layer by layer.
        """

    @torch.inference_mode()
    def prefill(self, batch: TokenBatch, past: Sequence[KVSegment] = ()) -> KVSegment:
        """Read left-padded tokens after what was read before. Hooks of `hooked`, at the last token, are silent meanwhile."""
        positions = positions_after(batch, past)
        keep: list[tuple[Tensor, Tensor]] = []
        nothing = torch.zeros(0, dtype=torch.long)
        with silenced():
            sees = one_after_another(positions)
            self.extend(batch.tokens, past, positions, sees, rows=nothing, last_only=True, keep=keep)
        return KVSegment([keys for keys, _ in keep], [values for _, values in keep], positions)

    @torch.inference_mode()
    def last_logits_after(self, past: Sequence[KVSegment], batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after left-padded tokens that follow what was read before; hooks on the model take part."""
        positions = positions_after(batch, past)
        return self.extend(batch.tokens, past, positions, one_after_another(positions), last_only=True)[:, -1]


def _hooks_on(module: nn.Module) -> Iterator[int]:
    """Ids of the hooks on a module, without those by which libraries themselves connect modules."""
    by_lens = {handle.hook.id: handle for handle in module.fwd_hooks} if isinstance(module, HookPoint) else {}
    for hook, function in (*module._forward_hooks.items(), *module._forward_pre_hooks.items()):
        handle = by_lens.get(hook)
        # What a user puts on through a bridge is wrapped in functions of TransformerLens', but not for good.
        for_good = handle is None or handle.is_permanent
        wiring = for_good and _is_of_library(function if handle is None else handle.user_hook)
        if not wiring:
            yield hook


def _is_of_library(function: object) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] in (
        "transformer_lens",
        "transformers",
        "accelerate",
    )


def _as_lens_hook(function: Hook, n_heads: int) -> Callable[..., Tensor | None]:
    silence = _SILENCE.get()

    def lens_hook(z: Tensor, hook: HookPoint) -> Tensor | None:
        if _SILENCE.get() is not silence:
            return None
        if z.ndim == 4:
            return function(z)
        # Some bridge layers hand out the heads side by side.
        result = function(rearrange(z, "batch pos (head d_head) -> batch pos head d_head", head=n_heads))
        return None if result is None else rearrange(result, "batch pos head d_head -> batch pos (head d_head)")

    return lens_hook
