r"""The direct path: from a head's output to the logits without passing through any later attention or MLP.

The residual stream is a sum, so what a head writes into it reaches the unembedding in two ways: directly, and through later
blocks that read it. Within `direct_paths` gradients follow the direct way only. Every part of a block that reads the stream
reads a copy without gradient, and every norm on the path is linear around the present input,

.. math:: N(x') = N(x) + w \odot C(x' - x) / s(x), \qquad N(x) = w \odot C x / s(x) + b

with the scale :math:`s(x)` held fixed (the convention of direct logit attribution), where C takes the mean away in a layer
norm and does nothing in an RMS norm. Values are those of the ordinary pass; only gradients differ.

The parts of a block that read the stream are found among the modules of its layer, and a norm's weight, bias and centring
from its output for three known vectors. Both work for raw and folded weights, for either class, for norms after the
attention (Gemma 2, OLMo 2) and for parallel attention and MLP.
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
"""By how much a norm may differ from its formula, relative to its largest output; 0.05 in other dtypes."""
LARGE = 100.0
"""The size of a probing vector: large enough that a norm's epsilon is negligible, and its square fits into float16."""


@contextlib.contextmanager
def direct_paths(model: LanguageModel) -> Iterator[None]:
    """Within, gradients at the last position follow the direct paths only; see the module.

    Raises:
        RuntimeError: on exit, if a block's attention was not called as a module, so that its path was not cut.
        ValueError: in a pass, at a norm that is neither a layer norm nor an RMS norm.
    """
    called: set[nn.Module] = set()

    def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        called.add(module)
        forget(module)  # a bridge's attention may store the stream from before its norm
        # The second argument of BLOOM's parts is the stream to which they add their output: it stays on the path.
        return (*map(_detached, args[:1]), *args[1:]), {name: _detached(one) for name, one in kwargs.items()}

    with model.exclusive(), contextlib.ExitStack() as handles:
        for reader in _readers(model):
            handles.enter_context(reader.register_forward_pre_hook(cut, with_kwargs=True))
        for norm in filter(
            _is_norm, model.modules()
        ):  # of a bridge, both the bridge's modules and those that they wrap
            handles.enter_context(norm.register_forward_hook(_with_fixed_scale, with_kwargs=True))
        yield
        uncut = [layer for layer, block in enumerate(model.blocks) if block.get_submodule("attn") not in called]
        if uncut:
            name = model.info.architecture
            raise RuntimeError(f"{name}: the attention of layer {uncut[0]} runs outside TransformerLens' modules")


def _readers(model: LanguageModel) -> list[nn.Module]:
    """The modules that read the residual stream in each block: attention, MLP, or what takes their places."""
    on_path = (HookPoint, nn.Dropout, nn.Identity)
    parts = (part for block in model.blocks for part in model.parts_of(block))
    return list(dict.fromkeys(part for part in parts if not (_is_norm(part) or isinstance(part, on_path))))


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


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
            f"the direct path cannot be followed: {kind} is neither a layer norm nor an RMS norm (off by {float(off):.1g})"
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
