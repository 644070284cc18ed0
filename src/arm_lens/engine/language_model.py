"""From a user's model to a `LanguageModel`: every function of the engine that takes a model begins here.

Accepted are a `TransformerBridge`, a `HookedTransformer`, and a plain Hugging Face model with its tokenizer, which is
wrapped in a bridge that shares its weights and leaves it as it is. A model has one adapter as long as the adapter is in
use, and what was found out about a model (that it can be replayed exactly, say) is remembered exactly as long as the model
lives.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from arm_lens.engine.bridge import BridgeModel, bridge_of, hooks_on
from arm_lens.engine.hooked import HookedModel, HookedTransformer
from arm_lens.engine.identity import verify
from arm_lens.engine.images import processor_of
from arm_lens.engine.model_info import Findings, ModelInfo, weights_state
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import TokenBatch

if TYPE_CHECKING:
    ModelLike: TypeAlias = (
        LanguageModel
        | TransformerBridge
        | HookedTransformer
        | PreTrainedModel
        | tuple[PreTrainedModel, PreTrainedTokenizerBase | ProcessorMixin]
    )
    """The models that every function with a ``model`` accepts."""
else:
    ModelLike: TypeAlias = object  # anything else is refused by `language_model`, not by a run-time type checker

ACCEPTED = (
    "a TransformerBridge, a HookedTransformer (arm_lens.load_model gives either), or a Hugging Face model together with its "
    "tokenizer or processor, as a tuple (model, tokenizer)"
)


@dataclass(eq=False)
class _Wrapped:
    """What is known about a Hugging Face model; it shares the model's weights and has no reference to the model."""

    tokenizer: PreTrainedTokenizerBase
    processor: Any
    """What makes pixels of images; None if the model reads text only, or it is not to be had."""
    state: tuple[object, ...]
    """The model's weights and hooks."""
    findings: Findings = field(default_factory=Findings)
    bridge: TransformerBridge | None = None


_BOOKKEEPING = threading.Lock()
"""Held while the two tables below are looked up and changed, never while a model is used."""
_FINDINGS: weakref.WeakKeyDictionary[nn.Module, Findings] = weakref.WeakKeyDictionary()
_WRAPPED: weakref.WeakKeyDictionary[PreTrainedModel, _Wrapped] = weakref.WeakKeyDictionary()


def language_model(
    model: ModelLike, tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None
) -> LanguageModel:
    """The `LanguageModel` of a model; a `LanguageModel` is returned as it is.

    Args:
        model: a `TransformerBridge`, a `HookedTransformer`, a Hugging Face model, or a tuple (Hugging Face model, tokenizer).
        tokenizer: the tokenizer of a Hugging Face model, or its processor if it reads images; by default the one that was
            given before, or else the one that is found under the model's ``name_or_path``.

    Raises:
        TypeError: if the model is anything else, if its tokenizer cannot be found, or if a tokenizer is given for a model
            that has one.
        ModelMismatchError: if the model does not compute what its Hugging Face module computes; see
            `arm_lens.engine.identity`. That is found out once, with a few short passes.
        UnsupportedModelError: if it is not a causal language model with the same heads in every layer.
        NotFiniteError: if its logits are NaN or infinite.
    """
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], PreTrainedModel) and tokenizer is None:
        model, tokenizer = model
    if isinstance(model, PreTrainedModel) and tokenizer is not None:
        if not isinstance(tokenizer, (PreTrainedTokenizerBase, ProcessorMixin)):
            raise TypeError(f"expected {ACCEPTED}; the second of the tuple is a {type(tokenizer).__name__}")
    elif tokenizer is not None:
        raise TypeError(f"only a Hugging Face model is given a tokenizer, not a {type(model).__name__}")
    found = adapter_of(model, tokenizer)
    verify(found)
    return found


def adapter_of(model: ModelLike, tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None) -> LanguageModel:
    """As `language_model`, but the model is not compared with its Hugging Face module."""
    if isinstance(model, LanguageModel):
        return model
    if isinstance(model, PreTrainedModel):
        return _of_hugging_face(model, tokenizer)
    adapter: type[BridgeModel | HookedModel]
    if isinstance(model, TransformerBridge):
        adapter = BridgeModel
    elif HookedTransformer is not None and isinstance(model, HookedTransformer):
        adapter = HookedModel
    else:
        given = ", ".join(type(one).__name__ for one in model) if isinstance(model, tuple) else type(model).__name__
        hint = f"; load_model({str(model)!r}) loads one" if isinstance(model, (str, Path)) else ""
        raise TypeError(f"expected {ACCEPTED}, not {f'({given})' if isinstance(model, tuple) else given}{hint}")
    with _BOOKKEEPING:
        findings = _FINDINGS.setdefault(model, Findings())
    with findings.lock:
        return _in_use(findings) or adapter(model, model, findings)


def _in_use(findings: Findings) -> LanguageModel | None:
    return None if findings.adapter is None else findings.adapter()


def _of_hugging_face(model: PreTrainedModel, given: PreTrainedTokenizerBase | ProcessorMixin | None) -> LanguageModel:
    hooks = hooks_on(model)
    state = (*weights_state((*model.parameters(), *model.buffers())), *hooks)
    new_processor = given if isinstance(given, ProcessorMixin) else None
    own: Any = given if new_processor is None else new_processor.tokenizer
    with _BOOKKEEPING:
        known = _WRAPPED.get(model)
        tokenizer = known.tokenizer if known is not None and own is None else own
        processor = known.processor if known is not None and new_processor is None else new_processor
        if (
            known is None
            or known.state != state
            or known.tokenizer is not tokenizer
            or known.processor is not processor
        ):
            if any(type(module).__module__.startswith("transformer_lens") for module in model.modules()):
                raise TypeError(f"this {type(model).__name__} is part of a TransformerBridge: give that")
            blind = None
            if processor is None:
                processor, blind = processor_of(str(model.name_or_path), model.config)
            if tokenizer is None:
                tokenizer = _tokenizer_of(model)
            known = _WRAPPED[model] = _Wrapped(tokenizer, processor, state)
            known.findings.blind = (
                blind and f"{blind}; or give the model with its processor, as a tuple (model, processor)"
            )
    with known.findings.lock:
        adapter = _in_use(known.findings)
        if adapter is None:
            bridge = known.bridge or bridge_of(model, known.tokenizer, processor=known.processor)
            if not hooks:  # a hook may refer to the model, which this table must not keep alive
                known.bridge = bridge
            adapter = BridgeModel(model, bridge, known.findings, known.tokenizer)
        return adapter


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    name = str(model.name_or_path)
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise TypeError(
            f"no tokenizer of this {type(model).__name__} was found under its name, {name!r}; expected {ACCEPTED}"
        ) from error
    return found


def describe(model: ModelLike) -> ModelInfo:
    """Name, shape and state of a model."""
    return language_model(model).info


def last_logits(model: ModelLike, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
    """Next-token logits after each sequence's last real token; hooks on the model take part."""
    return language_model(model).last_logits(batch)
