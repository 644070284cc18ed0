r"""The direct path: from a head's output to the logits without passing through any later attention or MLP.

The residual stream is a sum, so what a head writes into it reaches the unembedding in two ways: as it is, and as read and
answered by later blocks. Within `direct_paths` gradients see the first way only. Every part of a block that reads the
stream reads a copy without gradient, and every norm on the path is the linear map it is at the present input,

.. math:: N(x') = N(x) + w \odot C(x' - x) / s(x), \qquad N(x) = w \odot C x / s(x) + b

with the scale :math:`s(x)` held fixed (the convention of direct logit attribution), where C takes the mean away in a layer
norm and does nothing in an RMS norm. Values are those of the ordinary pass; only gradients differ.

Which parts of a block read the stream is told by the modules its layer is made of, and what a norm is (its weight, its
bias, whether it centres) by what it does to three known vectors: both hold for raw and folded weights, for either class, for
norms after the attention (Gemma 2, OLMo 2) and for blocks whose attention and MLP stand side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from arm_lens.engine.gradients import forget
from arm_lens.engine.protocol import LanguageModel

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.02}
"""By dtype, how far a norm may be from its formula, as a share of its largest output; else 0.05."""
LARGE = 100.0
"""The size of a probing vector: a norm's epsilon does not show beside it, and its square fits into float16."""


@contextlib.contextmanager
def direct_paths(model: LanguageModel) -> Iterator[None]:
    """Within, gradients at the last position follow the direct paths alone; see the module.

    Raises:
        RuntimeError: on exit, if a block's attention was not called as a module, so that its path was not cut.
        ValueError: in a pass, at a norm that is neither a layer norm nor an RMS norm.
    """
    called: set[nn.Module] = set()

    def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        called.add(module)
        forget(module)  # a bridge's attention may hold the stream from before its norm
        # BLOOM's parts are also given the stream that they add their answer to, second: that one stays on the path.
        return (*map(_detached, args[:1]), *args[1:]), {name: _detached(one) for name, one in kwargs.items()}

    handles = [reader.register_forward_pre_hook(cut, with_kwargs=True) for reader in readers(model)]
    handles += [norm.register_forward_hook(_with_fixed_scale, with_kwargs=True) for norm in norms(model)]
    try:
        yield
        uncut = [layer for layer, block in enumerate(model.blocks) if block.get_submodule("attn") not in called]
        if uncut:
            name = model.info.architecture
            raise RuntimeError(f"{name}: the attention of layer {uncut[0]} runs outside TransformerLens' modules")
    finally:
        for handle in handles:
            handle.remove()


def readers(model: LanguageModel) -> list[nn.Module]:
    """What reads the residual stream in each block, past its norms: attention, MLP, or whatever takes their places."""
    parts = (part for block in model.blocks for part in model.parts_of(block))
    return list(dict.fromkeys(part for part in parts if not _passes_on(part)))


def norms(model: LanguageModel) -> list[nn.Module]:
    """Every norm of the model; of a bridge, both the bridge's and the module that it wraps."""
    return [module for module in model.modules() if _is_norm(module)]


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _passes_on(module: nn.Module) -> bool:
    """Whether a module may stand on the direct path."""
    return _is_norm(module) or isinstance(module, (HookPoint, nn.Dropout, nn.Identity))


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _with_fixed_scale(norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
    """A forward hook: the same values, linear in the input at the last position and constant elsewhere."""
    given = next(iter((*args, *kwargs.values())), None)
    if not (isinstance(given, Tensor) and given.requires_grad and isinstance(output, Tensor)):
        return None
    last, made = given[:, -1:], output[:, -1:].detach()
    weight, bias, centres = _formula(norm, last)

    def weighted(x: Tensor) -> Tensor:
        return weight * (x - x.mean(dim=-1, keepdim=True) if centres else x)

    with torch.no_grad():
        beyond, direction = made.to(weight) - bias, weighted(last.to(weight))
        inverse = (beyond * direction).sum(dim=-1, keepdim=True) / direction.square().sum(-1, keepdim=True).clamp(1e-30)
        off = (beyond - inverse * direction).abs().max() / beyond.abs().max().clamp(1e-30)
    if not off <= TOLERANCE.get(output.dtype, 0.05):
        kind = type(getattr(norm, "_original_component", norm)).__name__
        raise ValueError(
            f"the direct path cannot be told: {kind} is neither a layer norm nor an RMS norm (off by {float(off):.1g})"
        )
    moved = inverse * weighted((last - last.detach()).to(weight))
    return torch.cat([output[:, :-1].detach(), made + moved.to(made)], dim=1)


@torch.no_grad()
def _formula(norm: nn.Module, like: Tensor) -> tuple[Tensor, Tensor, bool]:
    """A norm's effective weight and bias, at least in float32, and whether it takes the mean away."""
    width = like.shape[-1]
    signs = torch.ones(width, dtype=torch.float32, device=like.device)
    signs[1::2] = -1.0
    if width % 2:  # of mean zero all the same
        signs[-3:] = torch.tensor([1.0, 1.0, -2.0])
    signs = signs / signs.square().mean().sqrt()
    probes = torch.stack([torch.zeros_like(signs), LARGE * signs, LARGE * torch.ones_like(signs)])
    flat, waved, level = norm.forward(probes[None].to(like))[0].to(torch.promote_types(like.dtype, torch.float32))
    weight = (waved - flat) / signs
    return weight, flat, bool((level - flat).abs().max() < weight.abs().max() / 2)
