"""What is known about a model: what identifies it, and what was found out by trying."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

ModelClass = Literal["TransformerBridge", "HookedTransformer"]
BUNDLED_NAME = "arm_lens judge model"
BUNDLED_IMAGE_NAME = "arm_lens image judge"
"""The bundled model that sees."""
BUNDLED = {BUNDLED_NAME: "weights", BUNDLED_IMAGE_NAME: "image_weights"}
"""The folders of bundled models by their names, which `load_model` knows on every machine."""


def bundled_model_path(name: str = BUNDLED_NAME) -> Path:
    """The folder of a bundled model, in Hugging Face format."""
    return Path(str(resources.files("arm_lens"))) / "judge_model" / BUNDLED[name]


def portable_name(name: str) -> str:
    """The name of a bundled model, if it was loaded from its folder; any other name or folder as it is."""
    return next((known for known in BUNDLED if str(bundled_model_path(known)) == name), name)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What identifies a model, as far as its activations depend on it."""

    name: str
    """Hub name or folder, or the name of a bundled model (`BUNDLED`)."""
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Reference:
    """What a raw Hugging Face module computes; see `arm_lens.engine.identity`."""

    architecture: str
    """Its class."""
    rows: list[list[int]]
    logits: list[Tensor]
    """Next-token logits at the last positions of each row, ``[pos, vocab]`` in float32 on the CPU."""
    frequencies: list[Tensor]
    """The frequencies of its rotary positions, sorted; one tensor per kind."""
    windows: list[int | None]
    """How many tokens back each layer attends; None for all."""

    def last_only(self) -> Reference:
        """The same with each row's last logits only, to be stored."""
        return replace(self, logits=[one[-1:].clone() for one in self.logits])


class Reach:
    """Cases for which something was exact, each a tuple of numbers; it contains those that exceed one of them in nothing."""

    def __init__(self) -> None:
        self._tried: list[tuple[int, ...]] = []

    def __contains__(self, case: tuple[int, ...]) -> bool:
        return any(all(map(operator.le, case, tried)) for tried in self._tried)

    def add(self, case: tuple[int, ...]) -> None:
        """Add a case that was tried."""
        self._tried = [case, *(one for one in self._tried if not all(map(operator.le, one, case)))]


@dataclass(eq=False)
class Findings:
    """What was found out about one model by trying, without a reference to the model."""

    replayed: Reach = field(default_factory=Reach)
    """Where replays were exact: the longest prompt, masks in a pass, the most padding before and within prompts, images."""
    extended: Reach | None = field(default_factory=Reach)
    """Where reading on was exact: the longest prompt, the most padding before and within prompts, images; None: nowhere."""
    images: Any = None
    """What reads its images, an `arm_lens.engine.images.ImageReader`."""
    blind: str | None = None
    """Why the model's images cannot be read; None if they can, or if it has no processor of images."""
    warned: bool = False
    """Whether the user was warned that the model cannot be replayed."""
    adapter: weakref.ref[Any] | None = None
    """The `arm_lens.engine.LanguageModel` in use."""
    reference: Reference | None = None
    """What the model's Hugging Face module computes, if it was at hand."""
    compared: str | None = None
    """The weight processing with which the model was compared with its Hugging Face module; None if it was not yet."""
    natively: bool = False
    """Whether layers attend by their Hugging Face modules while no hook looks inside; see `bridge_attention`."""
    late: bool | None = None
    """Whether passes may start at a later block, see `late_start`; None if that is not known yet."""
    shape: tuple[int, int] | None = None
    """Heads per layer and d_head, as ``hook_z`` has them; None if that is not known yet."""
    weights: Any = None
    """The weights when they were last looked at, an `arm_lens.engine.weights.WeightsMark`."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held by the thread that uses the model; see `LanguageModel.exclusive`."""
    depth: int = 0
    """How many `LanguageModel.exclusive` blocks of that thread are open."""


def weights_state(weights: Iterable[Tensor]) -> tuple[object, ...]:
    """A value that changes once any of the weights is moved, cast, exchanged, or changed in place."""
    return tuple(
        (id(weight), weight.data_ptr(), weight.device, weight.dtype, 0 if weight.is_inference() else weight._version)
        for weight in weights
    )


def sum_of_bits(weight: Tensor) -> int:
    """A number that is the same on every device, and changes, almost certainly, once the numbers of a tensor do."""
    flat = weight.detach().contiguous().flatten().view(torch.uint8)
    flat = flat.clone() if flat.storage_offset() % 8 else flat
    whole = len(flat) // 8 * 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())
