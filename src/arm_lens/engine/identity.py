r"""Whether a model is the model: what TransformerLens computes is compared with the Hugging Face module before it is used.

TransformerLens runs other people's models through code of its own, and what it does not know (a bias, a scaling of rotary
positions, a sliding window, a scale of the logits) it leaves out silently. So when a model is first seen, a few short rows
of tokens are read by the raw Hugging Face module, one row at a time, and by TransformerLens, one row at a time and as
batches padded on the left and on the right. The logits must be the same up to rounding,

.. math:: \max_i |\ell_i - \hat\ell_i| \le \tau\,\mathrm{sd}(\ell)

with a tolerance :math:`\tau` for each dtype, and another one for processed weights. Further passes show how many heads of
which width ``hook_z`` has in each layer, and whether what is written there reaches the logits.

The raw module of a `TransformerBridge` is built anew from its config around the same weights, without TransformerLens; a
`HookedTransformer` is compared with the files on disk from which it was loaded. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

from arm_lens.engine.deviation import deviation, tolerance
from arm_lens.engine.finite import NotFiniteError, cause_in, has_maximum
from arm_lens.engine.hooked import known_to_hooked_transformer
from arm_lens.engine.hooks import evaluating, without_hooks
from arm_lens.engine.image_identity import image_problem
from arm_lens.engine.model_info import ModelClass, Reference
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import pad


class UnsupportedModelError(ValueError):
    """arm_lens cannot use a model of this kind."""


class ModelMismatchError(UnsupportedModelError):
    """TransformerLens does not compute what the Hugging Face module of the same weights computes."""


class UncheckedModelWarning(UserWarning):
    """A model could not be compared with its Hugging Face module."""


LENGTHS = (12, 7, 4)
"""Tokens of the rows that are read."""
LONGEST = 272
"""A row may have as many tokens as this to go beyond a sliding window or a scaling of positions."""

# ------------------------------------------------------------------------------------------ the raw module


@torch.no_grad()
def reference(module: nn.Module, vocabulary: int, dtype: torch.dtype) -> Reference:
    """Read the rows with a raw Hugging Face module; its hooks are silent and its modes restored.

    Raises:
        UnsupportedModelError: if the module is not a causal language model.
        NotFiniteError: if its logits are NaN or infinite.
    """
    config: Any = module.config
    name = type(module).__name__
    rows = _rows(config.get_text_config(), vocabulary)
    modules = list(module.modules())
    device = next(module.parameters()).device
    with without_hooks(modules), evaluating(modules):

        def read(row: list[int]) -> Tensor:
            logits = getattr(module(torch.tensor([row], device=device), use_cache=False), "logits", None)
            if not isinstance(logits, Tensor):
                raise UnsupportedModelError(f"{name} gives no next-token logits; arm_lens uses causal language models")
            return logits[0].float().cpu()

        logits = [read(row) for row in rows]
        beginning = read(rows[1][: LENGTHS[-1]])
    if not all(bool(has_maximum(one).all()) for one in logits):
        raise NotFiniteError.of(f"the logits of {name} itself", None, None, cause_in(dtype))
    quantised = getattr(config, "quantization_config", None) is not None
    if not deviation(logits[1][: len(beginning)], beginning) <= tolerance(dtype, quantised=quantised):
        raise UnsupportedModelError(
            f"{name} is not causal: its logits at a token depend on later tokens, so that there is no next-token verdict"
        )
    rotary = [buffer for path, buffer in module.named_buffers() if path.endswith("inv_freq") and "original" not in path]
    frequencies = [one.float().cpu().flatten().sort().values for one in rotary]
    logits = [one[-LENGTHS[0] :].clone() for one in logits]
    return Reference(name, rows, logits, frequencies, _windows(config.get_text_config()))


def _rows(config: Any, vocabulary: int) -> list[list[int]]:
    """Rows of fixed tokens; the first goes beyond a sliding window or a scaling of positions, if that is short."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = (rope, *(part for part in rope.values() if isinstance(part, dict)))
    ends = [kind.get("original_max_position_embeddings") for kind in kinds]
    ends += [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    beyond = [end + 4 for end in ends if isinstance(end, int) and end + 4 <= LONGEST]
    longest = min(max([LENGTHS[0], *beyond]), getattr(config, "max_position_embeddings", None) or LONGEST)
    tokens = min(vocabulary, 1000)
    lengths = (longest, *(min(length, longest) for length in LENGTHS[1:]))
    return [[(7 * (place + 1) + row) % tokens for place in range(length)] for row, length in enumerate(lengths)]


def _windows(config: Any) -> list[int | None]:
    if kinds := getattr(config, "attention_layers", None):  # GPT-Neo's names
        return [config.window_size if kind == "local" else None for kind in kinds]
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


# ------------------------------------------------------------------------------------------ the comparison


@torch.inference_mode()
def compare(model: LanguageModel, expected: Reference, *, quantised: bool = False) -> None:
    """Refuse a model whose logits are not those of its Hugging Face module.

    Raises:
        ModelMismatchError: saying where they differ, by how much, and what to use instead.
    """
    processed = model.info.weight_processing != "raw"
    allowed = tolerance(model.dtype, processed=processed, quantised=quantised)

    def centred(logits: Tensor) -> Tensor:  # as probabilities do not change by it, weights may be processed to do it
        logits = logits.float().cpu()
        return logits.log_softmax(dim=-1) if processed else logits

    def difference() -> str | None:
        for row, logits in zip(expected.rows, expected.logits, strict=True):
            found = model.unchecked_logits(pad([row], device=model.device))[0]
            off = deviation(centred(found[-len(logits) :]), centred(logits))
            if not off <= allowed:
                return f"the logits of {len(row)} tokens differ by {off:.2g} standard deviations"
        first = int(model.reads_alone(map(len, expected.rows)))  # 1: without the longest row
        last = centred(torch.stack([logits[-1] for logits in expected.logits[first:]]))
        for side in ("left", "right"):
            found = model.unchecked_last_logits(pad(expected.rows[first:], side=side, device=model.device))
            off = deviation(centred(found), last)
            if not off <= allowed:
                return f"with padding on the {side}, logits differ by {off:.2g} standard deviations"
        return None

    model.findings.natively = False
    with model.exclusive(), without_hooks(model.modules()):
        problem = model.structural_difference(expected.windows, expected.frequencies) or difference()
        if problem is None:
            model.findings.natively = _attends_natively(model, difference, allowed)
    if problem is not None:
        raise ModelMismatchError(
            f"{model.info.name}: {model.model_class} of TransformerLens {version('transformer-lens')} does not compute "
            f"what {expected.architecture} of transformers computes: {problem} (rounding in {model.info.dtype} explains "
            f"{allowed:g}); {_remedy(model)}"
        )


def _attends_natively(model: LanguageModel, difference: Callable[[], str | None], allowed: float) -> bool:
    """Whether Hugging Face modules may compute attention: logits are right, and ``hook_z`` is where it was.

    What is written over all heads hides how attention was computed, so logits are the same then, even in half precision.
    """
    model.findings.natively = True
    with model.attending() as natively:
        pass
    if not natively or difference() is not None:
        return False
    batch = pad([list(range(1, 1 + LENGTHS[1]))], device=model.device)
    with model.hooked(dict.fromkeys(range(model.n_layers), _ramp)):
        found = model.unchecked_last_logits(batch)
        model.findings.natively = False
        written = model.unchecked_last_logits(batch)
    return deviation(found.float().cpu(), written.float().cpu()) <= allowed


def _ramp(z: Tensor) -> Tensor:
    """Values for every head that do not depend on what is there."""
    return torch.linspace(-3.0, 3.0, z.shape[-1]).to(z).expand_as(z).clone()


def _remedy(model: LanguageModel) -> str:
    if model.info.weight_processing != "raw":
        return (
            "use raw weights: fold_ln=False, center_writing_weights=False, center_unembed=False and "
            "fold_value_biases=False, or a TransformerBridge without enable_compatibility_mode()"
        )
    if model.dtype == torch.float64:
        return "use dtype=torch.float32 (in float64 the attention masks of transformers overflow)"
    return other_than(model.model_class, model.info.architecture)


def other_than(model_class: ModelClass, architecture: str) -> str:
    """What may work instead of a model class: the other one only if this TransformerLens has it for the architecture."""
    other = "TransformerBridge" if model_class == "HookedTransformer" else "HookedTransformer"
    known = SUPPORTED_ARCHITECTURES if other == "TransformerBridge" else known_to_hooked_transformer()
    first = f"model_class='{other}', or " if architecture in known else ""
    return f"try {first}another version of TransformerLens (pip install --upgrade transformer-lens)"


# ------------------------------------------------------------------------------------------ the heads


@torch.inference_mode()
def head_shape(model: LanguageModel) -> tuple[int, int]:
    """Heads per layer and d_head, as ``hook_z`` has them.

    Raises:
        UnsupportedModelError: if a layer has no heads, if layers differ, or if what is written there has no effect.
    """
    name, layers = model.info.architecture, range(model.n_layers)
    points = {layer: point for layer in layers if (point := model.attention_point(layer, "hook_z")) is not None}
    if len(points) < model.n_layers:
        missing = [layer for layer in layers if layer not in points]
        raise UnsupportedModelError(
            f"{name}: {_listed('layer', missing)} of {model.n_layers} without attention heads (no hook_z)"
            f"{_kinds(model, missing)}; arm_lens reads and writes the heads of every layer, so it cannot use state-space, "
            "recurrent, convolutional or hybrid models"
        )
    shapes: dict[int, tuple[int, ...]] = {}

    def noting(layer: int) -> Callable[..., None]:
        return lambda _module, _args, z: shapes.__setitem__(layer, tuple(z.shape[2:]))

    batch = pad([list(range(1, 1 + LENGTHS[1]))], device=model.device)
    with model.exclusive(), without_hooks(model.modules()):
        with contextlib.ExitStack() as handles:
            for layer, point in points.items():
                handles.enter_context(point.register_forward_hook(noting(layer)))
            plain = model.unchecked_last_logits(batch)
        silent = [layer for layer in layers if layer not in shapes]
        if silent:
            raise UnsupportedModelError(
                f"{name}: hook_z of {_listed('layer', silent)} does not fire: attention runs outside TransformerLens"
            )
        shape = _one_shape(name, shapes, getattr(model.config, "num_attention_heads", model.n_heads))
        model.findings.shape = shape
        with model.hooked(dict.fromkeys(layers, _ramp)):
            written = model.unchecked_last_logits(batch)
    if torch.equal(plain, written) and not _reads_heads(model):
        raise UnsupportedModelError(f"{name}: what is written at hook_z has no effect: attention does not read it")
    return shape


def _reads_heads(model: LanguageModel) -> bool:
    """Whether logits depend on what is written at ``hook_z``, even if all weights on the way are zero."""
    with torch.inference_mode(False), torch.enable_grad():
        batch = pad([list(range(1, 1 + LENGTHS[1]))], device=model.device)
        shift = torch.zeros((), device=model.device, dtype=model.dtype, requires_grad=True)
        with model.exclusive(), model.hooked(dict.fromkeys(range(model.n_layers), lambda z: z + shift)):
            logits = model.last_logits_with_gradient(batch)
        return logits.requires_grad and torch.autograd.grad(logits.sum(), shift, allow_unused=True)[0] is not None


def _one_shape(name: str, shapes: dict[int, tuple[int, ...]], n_heads: int) -> tuple[int, int]:
    """Heads and d_head that all layers have; some bridges give both in one axis, or cut them by the width of the keys."""
    if len(set(shapes.values())) > 1:
        layers: dict[tuple[int, ...], list[int]] = {}
        for layer, shape in shapes.items():
            layers.setdefault(shape, []).append(layer)
        each = "; ".join(f"{_listed('layer', some)}: {' x '.join(map(str, shape))}" for shape, some in layers.items())
        raise UnsupportedModelError(
            f"{name}: its layers differ in heads or in their width ({each}), so that no tensor [layer, head, d_head] holds "
            "them; arm_lens cannot use such models"
        )
    width = math.prod(shapes[0])
    if width % n_heads:
        raise UnsupportedModelError(f"{name}: hook_z of shape {shapes[0]} cannot be cut into {n_heads} heads")
    return n_heads, width // n_heads


def _listed(noun: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"{noun}{'s' if len(numbers) > 1 else ''} {shown}"


def _kinds(model: LanguageModel, layers: Sequence[int]) -> str:
    kinds = getattr(model.config, "layer_types", None) or getattr(model.config, "layers_block_type", None) or []
    found = sorted({kinds[layer] for layer in layers if layer < len(kinds)})
    return f", of the kind {', '.join(found)}" if found else ""


# ------------------------------------------------------------------------------------------ when a model is taken


def verify(model: LanguageModel, module: nn.Module | None = None) -> None:
    """Compare a model with its Hugging Face module and find the shape of its heads, unless that was done.

    A model is compared again once its weights were processed.

    Args:
        model: the model.
        module: the raw module, if it is at hand; by default it is looked for.

    Raises:
        ModelMismatchError: if logits differ.
        UnsupportedModelError: if the model is not a causal language model with heads in every layer.
        NotFiniteError: if its logits are NaN or infinite.
    """
    findings, processing = model.findings, model.info.weight_processing
    if findings.compared == processing:
        return
    with model.exclusive():
        if findings.compared == processing:  # by another thread meanwhile
            return
        if getattr(model.config, "is_encoder_decoder", False):
            raise UnsupportedModelError(
                f"{model.info.architecture} is an encoder-decoder model; arm_lens uses decoder-only language models"
            )
        if not model.reads_text:
            raise UnsupportedModelError(
                f"{model.info.architecture} reads no text; arm_lens uses causal language models"
            )
        try:
            head_shape(model)
            quantised = getattr(model.config, "quantization_config", None) is not None
            if module is None and findings.reference is not None:
                compare(model, findings.reference, quantised=quantised)
            else:
                _compare_with_module(model, module, quantised)
        except (UnsupportedModelError, NotFiniteError, UncheckedModelWarning, torch.OutOfMemoryError):
            raise
        except Exception as error:  # TransformerLens meets models that it does not know with errors of any kind
            raise UnsupportedModelError(
                f"{model.info.name}: {model.model_class} of TransformerLens {version('transformer-lens')} cannot run this "
                f"model ({type(error).__name__}: {error}); {other_than(model.model_class, model.info.architecture)}"
            ) from error
        findings.compared = processing


def _compare_with_module(model: LanguageModel, module: nn.Module | None, quantised: bool) -> None:
    """Find the raw module and compare the model with it; warn if there is none."""
    try:
        own = module is not None
        with contextlib.suppress(LookupError):
            module, own = (model.raw_module(), True) if module is None else (module, own)
        module = model.module_on_disk() if module is None else module
        expected = reference(module, model.d_vocab, model.dtype)
    except (UnsupportedModelError, NotFiniteError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # foreign code of an unknown architecture may fail in any way
        _warn(model, f"could not be compared with its Hugging Face module ({type(error).__name__}: {error})")
        return
    try:
        compare(model, expected, quantised=quantised)
    except ModelMismatchError:
        if own:
            raise
        if (other := model.with_weights_of(module)) is not None:  # is it the class, or are the weights the user's own?
            compare(other, expected)
        _warn(model, "has other weights than the model on disk from which it was loaded, with which it was compared")
        return
    model.findings.reference = expected.last_only()
    if model.images is not None and model.findings.blind is None:
        model.findings.blind = image_problem(model, model.images, module, quantised=quantised)


def _warn(model: LanguageModel, what: str) -> None:
    remedy = "load it with arm_lens.load_model, or give the Hugging Face model itself, to have its logits compared"
    warnings.warn(f"{model.info.name} {what}; {remedy}", UncheckedModelWarning, stacklevel=5)
