r"""Writing: put given values at the last token of chosen heads, before the output projection.

At the last token, for heads in the set,

.. math:: z[l, m] \leftarrow (1 - \alpha)\, z[l, m] + \alpha\, \mu[l, m] \quad \text{(replace, strength } \alpha = 1)

or :math:`z[l, m] \leftarrow z[l, m] + \alpha\, \mu[l, m]` (add). The model is never changed: hooks return new tensors
and are gone when the context manager exits, also after an exception.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from torch import Tensor

from arm_lens.engine.hooks import Hook
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.heads import HeadSet


@dataclass(frozen=True, kw_only=True)
class Injection:
    """How values are written at a head."""

    mode: Literal["replace", "add"] = "replace"
    strength: float = 1.0
    """1 writes the mean itself (or adds it once); 0 leaves the model as it is."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.mode not in ("replace", "add"):
            raise ValueError(f"an injection's mode is 'replace' or 'add', not {self.mode!r}")
        if not math.isfinite(self.strength):
            raise ValueError(f"an injection's strength is a finite number, not {self.strength}")

    def apply(self, z: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
        """``z`` with ``values`` written where ``chosen``; shapes [..., head, d_head] and [..., head] broadcast.

        ``chosen`` may be gates in [0, 1] instead: how far ``z`` is moved towards what would be written.
        """
        if self.mode == "add":
            written = z + self.strength * values
        elif self.strength == 1.0:
            written = values.expand_as(z)
        else:
            written = z + self.strength * (values - z)
        if chosen.is_floating_point():
            return torch.lerp(z, written, chosen[..., None].to(z))  # gates of 0 and 1 are exact, as booleans are
        return torch.where(chosen[..., None], written, z)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@contextlib.contextmanager
def steer(
    model: ModelLike,
    heads: HeadSet | Bool[Tensor, "*batch layer head"] | Float[Tensor, "*batch layer head"],
    values: Float[Tensor, "layer head d_head"],
    *,
    injection: Injection | None = None,
    positions: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Write ``values`` at ``heads``, at the last token of every sequence the model reads inside the context.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        heads: a set or mask for all sequences, or ``[batch, layer, head]``, a mask for each; or, in either shape, gates in
            [0, 1], which move each head that far towards what would be written.
        values: what to write, e.g. `HeadMeans.values`; it is moved to the model's device and dtype.
        injection: replace (default) or add, and how strongly.
        positions: the last token of each sequence; by default the last position, which is right for single sequences,
            left-padded batches and generation. For right padding give `TokenBatch.last`.

    Within, the model is this thread's alone: other threads wait for it, so do not wait for one of them within.

    Raises:
        ValueError: if shapes do not fit the model.
    """
    model, injection = language_model(model), injection or Injection()
    mask = heads.mask if isinstance(heads, HeadSet) else heads
    n_layers, n_heads = model.n_layers, model.n_heads
    if tuple(mask.shape[-2:]) != (n_layers, n_heads):
        raise ValueError(f"the head mask has shape {tuple(mask.shape)}, the model {n_layers} layers of {n_heads} heads")
    if tuple(values.shape[:2]) != (n_layers, n_heads):
        raise ValueError(f"the values have shape {tuple(values.shape)}, not [layer {n_layers}, head {n_heads}, d_head]")

    def writer(layer: int) -> Hook:
        chosen, value = mask[..., layer, :], values[layer]

        def write(z: Tensor) -> Tensor:
            rows = torch.arange(len(z), device=z.device)
            last = torch.full_like(rows, z.shape[1] - 1) if positions is None else positions.to(z.device)
            written = z.clone()
            written[rows, last] = injection.apply(z[rows, last], value.to(z), chosen.to(z.device))
            return written

        return write

    # Gates of 0 change nothing, but their gradient needs the hook.
    touched = [layer for layer in range(n_layers) if mask.requires_grad or bool(mask[..., layer, :].any())]
    with model.hooked({layer: writer(layer) for layer in touched}):
        yield
