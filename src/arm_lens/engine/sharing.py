"""Readings that several judges share: computed once within a context, always afresh outside it.

Judges of one task ask the same questions of the same model: an Activation Reward Model with six ways of choosing heads
reads the same demonstrations six times, a probe and Sparse Attention Vectors the same activations. Within
`shared_readings` whatever goes through `remembered` is computed at its first use and handed out again for an equal key.
Nothing is remembered otherwise, so that memory is never held unasked and a user's hooks always take part.

Results must not depend on who computes first: a key holds everything that its value depends on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")

_REMEMBERED: ContextVar[dict[Hashable, object] | None] = ContextVar("remembered", default=None)


@contextlib.contextmanager
def shared_readings() -> Iterator[None]:
    """Within, equal readings are computed once. A context inside another one shares with it."""
    if _REMEMBERED.get() is not None:
        yield
        return
    token = _REMEMBERED.set({})
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


def sharing() -> bool:
    """Whether readings are shared here."""
    return _REMEMBERED.get() is not None


def remembered(key: Hashable, make: Callable[[], Value]) -> Value:
    """What ``make`` gives, computed once for equal keys within `shared_readings`."""
    known = _REMEMBERED.get()
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    return known[key]  # type: ignore[return-value]
