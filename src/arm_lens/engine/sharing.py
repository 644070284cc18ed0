"""Readings that several judges share: computed once within a context, and anew for each use outside it.

Judges of one task ask the same model the same questions: an Activation Reward Model with six selectors reads the same
demonstrations six times, and a probe and Sparse Attention Vectors read the same activations. Within `shared_readings`,
what goes through `remembered` is computed at its first use and returned again for an equal key. Outside, nothing is
remembered, so that no memory is held and a user's hooks always take part.

Contexts can be nested: a value is stored in the innermost, and values of the outer ones are found. A context can be
entered again and still has its values; its memory is freed with the object.

Results must not depend on who computes first, so a key contains everything that its value depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from arm_lens.engine.protocol import LanguageModel

Value = TypeVar("Value")


class SharedReadings:
    """A context within which equal readings are computed once; see the module."""

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}
        self._tokens: list[Token[tuple[dict[Hashable, object], ...]]] = []

    def __enter__(self) -> SharedReadings:
        self._tokens.append(_REMEMBERED.set((self._known, *_REMEMBERED.get())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _REMEMBERED.reset(self._tokens.pop())


_REMEMBERED: ContextVar[tuple[dict[Hashable, object], ...]] = ContextVar("remembered", default=())
"""The values of the contexts, the innermost first."""


def shared_readings() -> SharedReadings:
    """A context within which equal readings are computed once."""
    return SharedReadings()


def sharing() -> bool:
    """Whether readings are shared here."""
    return bool(_REMEMBERED.get())


def remembered(key: Hashable, make: Callable[[], Value]) -> Value:
    """The result of ``make``, computed once for equal keys within `shared_readings`."""
    contexts = _REMEMBERED.get()
    if not contexts:
        return make()
    for known in contexts:
        if key in known:
            return known[key]  # type: ignore[return-value]
    value = contexts[0][key] = make()
    return value


def content_of(value: Tensor | Sequence[Sequence[int]]) -> str:
    """A short stand-in, for keys, for a tensor or token sequences; equal for equal content."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        numbers = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        content = f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + numbers
    else:
        content = repr([list(one) for one in value]).encode()
    return hashlib.sha256(content).hexdigest()


def readings_key(model: LanguageModel, what: Hashable, sequences: Sequence[Sequence[int]]) -> Hashable | None:
    """The key of a reading of a model's prompts: the model's state, what is read, and the prompts; None if not shared.

    With hooks on the model nothing is shared: steered, or changed by a hook of the user's, it is not the model that others
    read.
    """
    if not sharing() or model.is_hooked():
        return None
    return (model.state(), what, content_of(sequences))


def remembered_of(
    model: LanguageModel, what: Hashable, sequences: Sequence[Sequence[int]], make: Callable[[], Value]
) -> Value:
    """The result of ``make``, which reads a model's prompts, computed once within `shared_readings`; see `readings_key`."""
    key = readings_key(model, what, sequences)
    return make() if key is None else remembered(key, make)


def recalled(model: LanguageModel, what: Hashable, sequences: Sequence[Sequence[int]]) -> object | None:
    """The value that `remembered_of` has, or None."""
    key = readings_key(model, what, sequences)
    return None if key is None else next((known[key] for known in _REMEMBERED.get() if key in known), None)
