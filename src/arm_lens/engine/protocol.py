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
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerLensConfig
from transformer_lens.hook_points import HookPoint
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from arm_lens.engine.finite import NotFiniteError, cause_in, first_not_finite, has_maximum
from arm_lens.engine.hooks import (
    OURS,
    Hook,
    MLPHook,
    as_lens_hook,
    as_mlp_hook,
    evaluating,
    foreign_hooks,
    silenced,
    without_autocast,
)
from arm_lens.engine.images import ImageReader, NoImagesError
from arm_lens.engine.kv_segments import KVSegment, NewTokens
from arm_lens.engine.model_info import Findings, ModelClass, ModelInfo, portable_name, weights_state
from arm_lens.engine.tokens import PromptTooLongError, TokenBatch, UnreadableTextError, encode_text
from arm_lens.preferences.images import marks_in

STRETCHED = "its positions are stretched by the length of the prompt"
"""Why some models cannot go on from KV segments."""


class LanguageModel(ABC):
    """A language model as arm_lens uses it; made by `arm_lens.engine.language_model`.

    Several threads may use one model: each pass, and each block within which hooks are on the model, is one thread's alone
    (`exclusive`). Other threads wait meanwhile.

    Args:
        raw: the user's own object.
        lens: the TransformerLens model that computes; often the same object.
        findings: what is known about the model.
        tokenizer: the user's own; by default the TransformerLens model's.
    """

    model_class: ClassVar[ModelClass]

    def __init__(
        self, raw: nn.Module, lens: nn.Module, findings: Findings, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        self.raw, self._lens, self.findings, self._tokenizer = raw, lens, findings, tokenizer
        findings.adapter = weakref.ref(self)
        untyped: Any = lens  # torch types a module's attributes as modules and tensors
        self._cfg: Any = untyped.cfg
        config: TransformerLensConfig = self._cfg
        self.n_layers: int = config.n_layers
        self.n_key_value_heads: int = config.n_key_value_heads or config.n_heads
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
        revision, architecture, weight_processing = self._provenance()
        return ModelInfo(
            name=portable_name(str(self._cfg.model_name)),
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
    def n_heads(self) -> int:
        """Attention heads per layer; with grouped-query attention, the query heads."""
        return int(self._cfg.n_heads) if self.findings.shape is None else self.findings.shape[0]

    @property
    def d_head(self) -> int:
        """The width of a head in ``hook_z``: that of its values, which may differ from that of its keys."""
        return int(self._cfg.d_head) if self.findings.shape is None else self.findings.shape[1]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The user's tokenizer, or the TransformerLens model's."""
        lens: Any = self._lens
        tokenizer: PreTrainedTokenizerBase = lens.tokenizer if self._tokenizer is None else self._tokenizer
        return tokenizer

    @property
    def images(self) -> ImageReader | None:
        """What reads images; None if the model reads text only, or its processor is not to be had."""
        return None

    @property
    def reads_text(self) -> bool:
        """Whether the model's input is text, and not sound or images only."""
        return not (getattr(self._cfg, "is_audio_model", False) or getattr(self._cfg, "is_visual_model", False))

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
        with self.exclusive():
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
        return self._required(layer, "hook_z")

    def hook_pattern(self, layer: int) -> HookPoint:
        """The hook point of a layer's attention pattern, ``[batch, head, query, key]``; errors as for `hook_z`."""
        return self._required(layer, "hook_pattern")

    def hook_mlp_out(self, layer: int) -> HookPoint:
        """The hook point of what a layer's MLP adds to the residual stream, ``[batch, pos, d_model]``.

        Raises:
            ValueError: if the layer has none (a mixture of experts that is added with something else, say).
        """
        blocks = self.blocks
        point = getattr(blocks[layer], "hook_mlp_out", None) if blocks else None
        if not isinstance(point, HookPoint):
            raise ValueError(
                f"{self.info.name} has no blocks.{layer}.hook_mlp_out: layer {layer} has no MLP of its own"
            )
        return point

    def _required(self, layer: int, name: str) -> HookPoint:
        point = self.attention_point(layer, name)
        if point is None:
            raise ValueError(
                f"{self.info.name} has no blocks.{layer}.attn.{name}: layer {layer} has no attention heads"
            )
        return point

    def attention_point(self, layer: int, name: str) -> HookPoint | None:
        """A hook point of a layer's attention by name; None if the layer has none."""
        # Not from hook_dict: a bridge builds that anew, with every alias, at each access.
        blocks = getattr(self._lens, "blocks", None)
        point = None if blocks is None else getattr(getattr(blocks[layer], "attn", None), name, None)
        return point if isinstance(point, HookPoint) else None

    def parts_of(self, block: nn.Module) -> list[nn.Module]:
        """The modules that a block's layer is made of."""
        return list(block.children())

    def modules(self) -> Iterator[nn.Module]:
        """Every module that may take part in a pass."""
        return self._lens.modules()

    # ------------------------------------------------------------------------- its Hugging Face module, see `identity`

    @abstractmethod
    def raw_module(self) -> nn.Module:
        """The Hugging Face module of the same weights, without TransformerLens.

        Raises:
            LookupError: if it is not to be had.
        """

    def module_on_disk(self) -> nn.Module:
        """The Hugging Face model from which this one was loaded, from a folder or the hub's cache; never downloaded.

        Raises:
            LookupError: if it is not there.
        """
        names = [str(name) for name in dict.fromkeys((self._cfg.tokenizer_name, self._cfg.model_name)) if name]
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                return AutoModelForCausalLM.from_pretrained(name, dtype=self.dtype, local_files_only=True)
        raise LookupError(f"no model is on disk under {' or '.join(map(repr, names))}")

    def with_weights_of(self, module: nn.Module) -> LanguageModel | None:
        """A model of the same class and weight processing, with a Hugging Face module's weights; None if that is unknown."""
        return None

    @property
    @abstractmethod
    def config(self) -> Any:
        """The Hugging Face config of the language model; an empty namespace if it is not known."""

    def structural_difference(self, windows: Sequence[int | None], frequencies: Sequence[Tensor]) -> str | None:
        """How the model differs from its Hugging Face module beyond the reach of a few short rows; None if it does not.

        Args:
            windows: how many tokens back each layer attends; None for all.
            frequencies: the sorted frequencies of rotary positions, one tensor per kind.
        """
        return None

    # -------------------------------------------------------------------------------------------- hooks

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Within, this thread alone uses the model, in evaluation mode and in its own dtype; nested use is free.

        Each module's own mode is restored on exit, and so is a trainer's ``torch.autocast``. Another thread that uses the
        model waits, so do not wait for one within.
        """
        with self.findings.lock:
            depth = self.findings.depth
            try:
                self.findings.depth = depth + 1
                with without_autocast(), evaluating(() if depth else self.modules()):
                    yield
            finally:
                self.findings.depth = depth

    def attending(self) -> contextlib.AbstractContextManager[bool]:
        """Within, attention is computed by Hugging Face modules alone, if that is known to be right (``findings.natively``).

        The value of the block is whether it is so: not if a hook is at scores or patterns, say.
        """
        return contextlib.nullcontext(False)

    @contextlib.contextmanager
    def hooked(self, hooks: Mapping[int, Hook], mlps: Mapping[int, MLPHook] | None = None) -> Iterator[None]:
        """Run with a function at ``hook_z`` of each given layer; if it returns a tensor, that replaces the activation.

        Functions in ``mlps`` are at ``hook_mlp_out`` of their layers, in the same way.

        Exactly these hooks are removed on exit, also after an exception; the user's own stay. The hook points are used
        directly, because the bridge's own context manager calls a hook once per alias in compatibility mode. The block is
        `exclusive`: the hooks act on no other thread's passes.
        """
        added: list[tuple[HookPoint, Callable[..., Any]]] = []
        ids: set[int] = set()
        with self.exclusive():
            try:
                wanted: list[tuple[HookPoint, Callable[..., Any]]] = [
                    *((self.hook_z(layer), as_lens_hook(function, self.n_heads)) for layer, function in hooks.items()),
                    *((self.hook_mlp_out(layer), as_mlp_hook(function)) for layer, function in (mlps or {}).items()),
                ]
                for point, lens_hook in wanted:
                    added.append((point, lens_hook))  # before it is there, so that no interruption leaves it there
                    point.add_hook(lens_hook)
                    ids.add(point.fwd_hooks[-1].hook.id)
                    OURS.update(ids)
                yield
            finally:
                for point, lens_hook in added:
                    # none if the hooks were reset meanwhile
                    for handle in [one for one in point.fwd_hooks if one.user_hook is lens_hook]:
                        handle.hook.remove()
                        point.fwd_hooks.remove(handle)
                OURS.difference_update(ids)

    def is_hooked(self) -> bool:
        """Whether any hook is on any module: the model is steered, or a hook of the user's reads or changes it."""
        with self.exclusive():  # not the hooks of another thread, and those that the user's model has now
            return any(True for module in self.modules() for _ in foreign_hooks(module))

    def heads_are_hooked(self) -> bool:
        """Whether the model is already steered, say: a hook is at ``hook_z`` of a layer."""
        with self.exclusive():
            return any(self.hook_z(layer).fwd_hooks for layer in range(self.n_layers))

    def has_foreign_hooks(self) -> bool:
        """Whether there are hooks that `hooked` did not add; they may depend on a token's place in a prompt."""
        with self.exclusive():
            return any(hook not in OURS for module in self.modules() for hook in foreign_hooks(module))

    # -------------------------------------------------------------------------------------------- tokens

    def encode(self, texts: Sequence[str], *, chat: bool, names: Sequence[str] | None = None) -> list[list[int]]:
        """Whole prompts as token ids.

        Control tokens within the parts of a `MarkedText` that were given are read as text. A chat template writes its own
        beginning-of-sequence token, and none is added, as in Hugging Face's ``apply_chat_template``. For a base model one
        comes first, once, if the tokenizer has one and TransformerLens' ``cfg.default_prepend_bos`` is set.

        Args:
            texts: whole prompts.
            chat: whether the texts come from a chat template.
            names: the names of the texts in errors; by default their numbers.

        Raises:
            PromptTooLongError: naming the first text that has more tokens than the model's context.
            NoImagesError: naming the text, if there is an image in it that the model cannot read.
            UnreadableTextError: naming the text and the token, if the tokenizer has a token that the model does not have.
        """
        bos = self.tokenizer.bos_token_id
        wanted = not chat and getattr(self._cfg, "default_prepend_bos", True)
        prefix = [bos] if wanted and bos is not None else []
        sequences = []
        for number, text in enumerate(texts):
            name = names[number] if names is not None else f"text {number}"
            ids = self._ids_of(text, name)
            ids = ids if prefix and ids[:1] == prefix else prefix + ids
            self.check_tokens(ids, name)
            if len(ids) > self.n_ctx:
                raise PromptTooLongError(
                    f"{name}: the prompt has {len(ids)} tokens, the model's context {self.n_ctx}: shorten its texts, or "
                    "those of its demonstrations, leave the longest out, or show fewer. To score the rest, pass "
                    "on_too_long='skip' or on_too_long='clip'"
                )
            sequences.append(ids)
        return sequences

    def _ids_of(self, text: str, name: str) -> list[int]:
        """The token ids of a text, those that stand for images negative."""
        self.check_images(text, name)
        return encode_text(self.tokenizer, text) if self.images is None else self.images.encode(text, name)

    def decode(self, tokens: Sequence[int]) -> str:
        """A prompt as text, images described in words."""
        return str(self.tokenizer.decode(list(tokens))) if self.images is None else self.images.described(tokens)

    def check_images(self, text: str, name: str) -> None:
        """Raise a `NoImagesError` if there is an image in the text and the model cannot read it; ``name`` is the text's."""
        if marks_in(text) and (self.images is None or self.findings.blind is not None):
            reason = self.findings.blind or f"{self.info.architecture} reads text only"
            raise NoImagesError(f"{name} has an image in it, and {self.info.name} cannot read it: {reason}")

    def check_tokens(self, ids: Sequence[int], name: str) -> None:
        """Raise an `UnreadableTextError` if the tokenizer has given one of the tokens and the model does not have it."""
        highest = max(ids, default=0)
        if highest >= self.d_vocab:
            raise UnreadableTextError(
                f"{name}: {str(self.tokenizer.decode([highest]))!r} is token {highest} of the tokenizer, but the model has "
                f"{self.d_vocab} tokens; add tokens to both (model.resize_token_embeddings(len(tokenizer))) or to neither"
            )

    # -------------------------------------------------------------------------------------------- passes

    @torch.inference_mode()
    def logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position, without gradients; hooks already on the model take part.

        Raises:
            NotFiniteError: if those at a real token are NaN or infinite.
        """
        logits = self.unchecked_logits(batch)
        padding = (batch.attention_mask == 0).to(logits.device)
        self.check_rows((has_maximum(logits) | padding).all(dim=1), "the logits", batch)
        return logits

    @torch.inference_mode()
    def last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after each sequence's last real token, without gradients; hooks on the model take part.

        Raises:
            NotFiniteError: if they are NaN or infinite.
        """
        return self.last_logits_with_gradient(batch)

    def last_logits_with_gradient(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """The same as `last_logits`, with gradients unless the caller forbids them."""
        logits = self.unchecked_last_logits(batch)
        self.check_rows(has_maximum(logits.detach()), "the logits", batch)
        return logits

    def check_rows(self, finite: Bool[Tensor, " row"], what: str, batch: TokenBatch | None) -> None:
        """Raise a `NotFiniteError` unless all rows are finite.

        Args:
            finite: which rows are finite.
            what: the numbers, in the plural.
            batch: whole prompts; the first one that is not finite is read again, with the hooks that are on the model, to
                find the layer. None if the rows are parts of prompts.
        """
        if bool(finite.all()):
            return
        row = int((~finite).int().argmax())
        layer = None if batch is None else self._first_layer(batch, row)
        cause = cause_in(self.dtype) + (", and what hooks write into the model" if self.is_hooked() else "")
        raise NotFiniteError.of(what, row, layer, cause)

    def _first_layer(self, batch: TokenBatch, row: int) -> int | None:
        """The first block whose output at a row's last token is not finite."""
        with self.exclusive(), torch.no_grad():
            return first_not_finite(self.blocks, lambda: self.unchecked_last_logits(batch), row, int(batch.last[row]))

    @abstractmethod
    def unchecked_logits(self, batch: TokenBatch) -> Float[Tensor, "batch pos vocab"]:
        """Next-token logits at every position, whether they are finite or not."""

    @abstractmethod
    def unchecked_last_logits(self, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
        """Next-token logits after the last real tokens, whether they are finite or not."""

    def reads_alone(self, lengths: Iterable[int]) -> bool:
        """Whether prompts of these numbers of tokens must be read one by one, because a batch mate would change them."""
        return False

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
        """Next-token logits after left-padded tokens that follow what was read before; hooks on the model take part.

        Raises:
            NotFiniteError: if they are NaN or infinite.
        """
        logits = self.extend(NewTokens.following(batch, past), last_only=True)[:, -1]
        self.check_rows(has_maximum(logits), "the logits", None if past else batch)
        return logits
