"""The only module that knows TransformerLens model classes.

`HookedTransformer` (up to TransformerLens 3.9) and `TransformerBridge` (3.x and 4.x) differ in how they are loaded and
called. Everything else in the package speaks of a model through the functions here: load it, describe it, find the hook
point in front of a layer's output projection, and run a batch of token sequences up to the logits of the last token.

The activation read and written everywhere is ``blocks.{layer}.attn.hook_z``: the output of each attention head before
the output projection, ``[batch, pos, head, d_head]``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from arm_lens.engine.tokens import TokenBatch

HookedTransformer: Any
try:
    HookedTransformer = import_module("transformer_lens").HookedTransformer
except ImportError:  # removed in TransformerLens 4
    HookedTransformer = None

Model: TypeAlias = Any
"""A `TransformerBridge` or a `HookedTransformer`. (TransformerLens ships no type both share.)"""
ModelClass = Literal["TransformerBridge", "HookedTransformer"]
Hook: TypeAlias = Callable[[Float[Tensor, "batch pos head d_head"]], Float[Tensor, "batch pos head d_head"] | None]

BUNDLED_NAME = "arm_lens judge model"


def bundled_model_path() -> Path:
    """The folder of the bundled judge model, in Hugging Face format."""
    return Path(str(resources.files("arm_lens"))) / "judge_model" / "weights"


def load_model(
    name_or_path: str | Path | None = None,
    *,
    model_class: ModelClass = "TransformerBridge",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model with its weights as they are: no layer norm folded, nothing centred.

    Both classes then compute the same activations, so what is fitted on one may be used on the other.

    Args:
        name_or_path: a Hugging Face hub name or local folder; by default the bundled judge model.
        model_class: `HookedTransformer` needs TransformerLens 3.
        device: by default CUDA where there is one, else the CPU.
        dtype: of the weights and activations.
        revision: hub branch, tag or commit.
        tokenizer: instead of the model's own. (Transformers takes some families' own tokenizer class, Qwen2's for one,
            whatever the folder's tokenizer files say.)
        trust_remote_code: passed to Hugging Face.

    Raises:
        FileNotFoundError: if a local folder lacks its ``config.json``.
        ValueError: if ``model_class`` is not available here.
    """
    path = str(bundled_model_path() if name_or_path is None else name_or_path)
    if Path(path).is_dir() and not (Path(path) / "config.json").exists():
        raise FileNotFoundError(f"{path} is a folder without a config.json: not a model in Hugging Face format")
    if Path(path).is_dir():
        path = str(Path(path).resolve())  # what is recorded must be found again from another folder
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if model_class == "TransformerBridge":
        return TransformerBridge.boot_transformers(
            path,
            device=device,
            dtype=dtype,
            revision=revision,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
        )
    if model_class != "HookedTransformer":
        raise ValueError(f"model_class must be 'TransformerBridge' or 'HookedTransformer', not {model_class!r}")
    if HookedTransformer is None:
        raise ValueError("this TransformerLens has no HookedTransformer (removed in 4.0); use TransformerBridge")
    if not Path(path).is_dir():
        return HookedTransformer.from_pretrained_no_processing(
            path,
            device=device,
            dtype=dtype,
            revision=revision,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
        )
    return _hooked_from_folder(path, device, dtype, tokenizer, trust_remote_code)


def _hooked_from_folder(
    path: str,
    device: str | torch.device,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None,
    trust_remote_code: bool,
) -> Model:
    """`HookedTransformer.from_pretrained` takes hub names only; this is its way, for a folder."""
    loading = import_module("transformer_lens.loading_from_pretrained")
    hf_config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    with tempfile.TemporaryDirectory() as neutral:
        # The conversion guesses the architecture from the path's letters ("llama") before it looks into the config, and
        # wants of GPT-2 a field that only old configs have.
        known = hf_config.to_dict()
        known.setdefault("n_ctx", known.get("n_positions"))
        (Path(neutral) / "config.json").write_text(json.dumps(known), encoding="utf-8")
        config = {key: value for key, value in loading.convert_hf_model_config(neutral).items() if value is not None}
    config |= {"model_name": path, "tokenizer_name": path, "device": str(device), "dtype": dtype}
    # TransformerLens caps or fixes some families' context; never let it exceed the model's own.
    config["n_ctx"] = min(config["n_ctx"], getattr(hf_config, "max_position_embeddings", None) or config["n_ctx"])
    d_head = getattr(hf_config, "head_dim", None)
    if d_head and d_head != config["d_head"]:  # for some families d_model // n_heads is taken
        rotary = {"rotary_dim": d_head} if config.get("rotary_dim") == config["d_head"] else {}
        config |= {"d_head": d_head, **rotary}
    cfg = import_module("transformer_lens").HookedTransformerConfig.from_dict(config)
    hf_model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=trust_remote_code)
    state = loading.get_pretrained_state_dict(path, cfg, hf_model=hf_model, dtype=dtype)
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer=tokenizer)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


def class_of(model: Model) -> ModelClass:
    """Which of the two classes a model is.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(model, TransformerBridge):
        return "TransformerBridge"
    if HookedTransformer is not None and isinstance(model, HookedTransformer):
        return "HookedTransformer"
    raise TypeError(
        f"expected a TransformerLens model (TransformerBridge or HookedTransformer), not {type(model).__name__}; "
        "load one with arm_lens.load_model"
    )


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What has to be known about a model to read activations of it, or to trust activations read before."""

    name: str
    """Hub name or folder, or `BUNDLED_NAME`."""
    revision: str | None
    """Hub commit, where Hugging Face recorded one."""
    architecture: str
    """Hugging Face class, e.g. ``LlamaForCausalLM``."""
    model_class: ModelClass
    weight_processing: str
    """``raw``; ``folded`` (HookedTransformer's layer norms); or ``compatibility mode`` (the bridge's)."""
    dtype: str
    n_layers: int
    n_heads: int
    d_head: int
    d_model: int
    n_ctx: int
    """Longest context, in tokens."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """From JSON; unknown keys are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def describe(model: Model) -> ModelInfo:
    """Name, shape and state of a model."""
    kind, cfg = class_of(model), model.cfg
    if kind == "TransformerBridge":
        hf_config = model.original_model.config
        processing = "compatibility mode" if model.compatibility_mode else "raw"
        architecture, revision = type(model.original_model).__name__, getattr(hf_config, "_commit_hash", None)
    else:
        processing = "folded" if str(cfg.normalization_type).endswith("Pre") else "raw"
        architecture, revision = str(cfg.original_architecture), None
    name = str(cfg.model_name)
    return ModelInfo(
        name=BUNDLED_NAME if name == str(bundled_model_path()) else name,
        revision=revision,
        architecture=architecture,
        model_class=kind,
        weight_processing=processing,
        dtype=str(cfg.dtype).removeprefix("torch."),
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        d_head=cfg.d_head,
        d_model=cfg.d_model,
        n_ctx=cfg.n_ctx,
    )


def device_of(model: Model) -> torch.device:
    """Where the model's token embedding lives: where its input belongs."""
    device: torch.device = next(iter(model.parameters())).device
    return device


# ---------------------------------------------------------------------------------------------- hooks and forward passes


def hook_z(model: Model, layer: int) -> HookPoint:
    """The hook point in front of the output projection of a layer's attention, ``[batch, pos, head, d_head]``.

    Raises:
        ValueError: if the layer has none (a state-space layer, say).
    """
    # Not by name from hook_dict: a bridge makes that afresh, with every alias, each time it is asked.
    blocks = getattr(model, "blocks", None)
    point = None if blocks is None else getattr(getattr(blocks[layer], "attn", None), "hook_z", None)
    if isinstance(point, HookPoint):
        return point
    raise ValueError(f"{describe(model).name} has no blocks.{layer}.attn.hook_z: layer {layer} has no attention heads")


@contextlib.contextmanager
def hooked(model: Model, hooks: Mapping[int, Hook]) -> Iterator[None]:
    """Run with a function at ``hook_z`` of the given layers; a function that returns a tensor replaces the activation.

    Exactly these hooks are removed on exit, also after an exception; hooks of the user's stay. The hook points are used
    directly, because the bridge's own context manager calls a hook once per alias in compatibility mode.
    """
    added: list[tuple[HookPoint, Any]] = []
    try:
        for layer, function in hooks.items():
            point = hook_z(model, layer)
            point.add_hook(_as_lens_hook(function, model.cfg.n_heads))
            added.append((point, point.fwd_hooks[-1]))
            _OURS.add(added[-1][1].hook.id)
        yield
    finally:
        for point, handle in added:
            handle.hook.remove()
            _OURS.discard(handle.hook.id)
            if handle in point.fwd_hooks:  # not if the hooks were reset meanwhile
                point.fwd_hooks.remove(handle)


_OURS: set[int] = set()
"""Ids of the hooks that `hooked` has put on any model."""


def foreign_hooks(model: Model) -> bool:
    """Whether a model has hooks that `hooked` did not put there, which may care where in a prompt a token stands."""
    points = {id(point): point for point in model.hook_dict.values()}.values()
    return any(handle.hook.id not in _OURS for point in points for handle in point.fwd_hooks)


_SILENCE: ContextVar[object] = ContextVar("silence", default=None)
"""The innermost `silenced` block that runs; a hook acts in the one it was put on in, and in no other."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within, hooks of `hooked` that were put on outside do nothing.

    What is read is a part of prompts that does not end where they end, or the model as nobody steers it. Hooks put on within
    act, and act there alone: another thread that uses the model meanwhile does not run into them.
    """
    token = _SILENCE.set(object())
    try:
        yield
    finally:
        _SILENCE.reset(token)


def _as_lens_hook(function: Hook, n_heads: int) -> Callable[..., Tensor | None]:
    silence = _SILENCE.get()

    def lens_hook(z: Tensor, hook: HookPoint) -> Tensor | None:
        if _SILENCE.get() is not silence:
            return None
        if z.ndim == 4:
            return function(z)
        # Some bridge layers hand out the heads side by side.
        result = function(rearrange(z, "batch pos (head d_head) -> batch pos head d_head", head=n_heads))
        return None if result is None else rearrange(result, "batch pos head d_head -> batch pos (head d_head)")

    return lens_hook


@torch.inference_mode()
def last_logits(model: Model, batch: TokenBatch) -> Float[Tensor, "batch vocab"]:
    """Next-token logits after each sequence's last real token; hooks already on the model take part."""
    rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
    mask = {"attention_mask": batch.attention_mask} if batch.padded else {}
    if class_of(model) == "HookedTransformer":
        # Without a mask a HookedTransformer whose tokenizer pads on the left makes one by looking for pad tokens, and may
        # find them among the real ones (pad is often eos, or token 0).
        residual = model(batch.tokens, stop_at_layer=model.cfg.n_layers, attention_mask=batch.attention_mask)
        return hooked_unembed(model, residual[rows.to(residual.device), batch.last.to(residual.device)][:, None])[:, 0]
    ends_together = bool((batch.last == batch.tokens.shape[1] - 1).all())
    if ends_together and keeps_logits(model):
        logits: Tensor = model(batch.tokens, logits_to_keep=1, **mask)
        return logits[:, -1]
    everywhere: Tensor = model(batch.tokens, **mask)
    return everywhere[rows, batch.last]


def hooked_unembed(
    model: Model, residual: Float[Tensor, "batch pos d_model"], rows: Int[Tensor, " verdict"] | None = None
) -> Float[Tensor, "batch pos vocab"]:
    """Final layer norm, unembedding and softcap of a `HookedTransformer`; on request of some tokens' logits only."""
    normed = model.ln_final(residual) if model.cfg.normalization_type is not None else residual
    if rows is None:
        logits: Tensor = model.unembed(normed)
    else:
        rows = rows.to(normed.device)
        logits = normed.float() @ model.W_U[:, rows].float() + model.b_U[rows].float()  # half has too few digits
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.tanh(logits / cap) if cap > 0 else logits


def keeps_logits(model: Model) -> bool:
    """Whether a bridge's model can be asked for the last positions' logits only."""
    return "logits_to_keep" in inspect.signature(model.original_model.forward).parameters
