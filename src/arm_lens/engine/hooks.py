"""Hooks and modes of a model's modules: put there for a while, taken away for a while, and left as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

Hook: TypeAlias = Callable[[Float[Tensor, "batch pos head d_head"]], Float[Tensor, "batch pos head d_head"] | None]
MLPHook: TypeAlias = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"] | None]

OURS: set[int] = set()
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


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Within, everything is computed in the dtype that it has, also inside a trainer's ``torch.autocast``."""
    with contextlib.ExitStack() as disabled:
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(kind):
                disabled.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within, none of the modules is in training mode (there is no dropout, say); afterwards each has its own mode again."""
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def without_hooks(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within, no hook acts except those with which libraries connect modules; afterwards all do, in the same order."""
    removed: list[tuple[dict[int, Any], dict[int, Any]]] = []
    try:
        for module in modules:
            hooked = set(foreign_hooks(module))
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                if hooked & hooks.keys():
                    removed.append((hooks, dict(hooks)))
                    for hook in hooked & hooks.keys():
                        del hooks[hook]
        yield
    finally:
        for hooks, before in removed:
            hooks.clear()
            hooks.update(before)


def foreign_hooks(module: nn.Module) -> Iterator[int]:
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


def as_lens_hook(function: Hook, n_heads: int) -> Callable[..., Tensor | None]:
    """A function of heads as a TransformerLens hook, which acts only in the `silenced` block that it is made in."""
    silence = _SILENCE.get()

    def lens_hook(z: Tensor, hook: HookPoint) -> Tensor | None:
        if _SILENCE.get() is not silence:
            return None
        if z.shape[2:-1] == (n_heads,):
            return function(z)
        # Some bridge layers give the heads in one axis with d_head, and some cut them by the width of the keys.
        flat = z.flatten(start_dim=2)
        result = function(rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=n_heads))
        return None if result is None else result.reshape(z.shape)

    return lens_hook


def as_mlp_hook(function: MLPHook) -> Callable[..., Tensor | None]:
    """A function of what an MLP gives as a TransformerLens hook, which acts as that of `as_lens_hook` does."""
    silence = _SILENCE.get()

    def lens_hook(output: Tensor, hook: HookPoint) -> Tensor | None:
        if _SILENCE.get() is not silence:
            return None
        if output.ndim != 3:
            raise ValueError(f"{hook.name} gives the shape {tuple(output.shape)}, not [batch, pos, d_model]")
        return function(output)

    return lens_hook
