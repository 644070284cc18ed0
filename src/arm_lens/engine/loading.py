"""Loading models with unchanged weights.

Both classes then compute the same activations, so what is fitted on one may be used on the other. That they do is checked;
see `arm_lens.engine.identity`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, overload

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from arm_lens.engine.bridge import ALIKE, bridge_of, for_transformer_lens
from arm_lens.engine.gguf_files import GgufFile, gguf_path, read_gguf
from arm_lens.engine.hooked import HookedTransformer
from arm_lens.engine.identity import UnsupportedModelError, other_than, verify
from arm_lens.engine.images import processor_given, processor_of
from arm_lens.engine.language_model import adapter_of
from arm_lens.engine.model_info import BUNDLED, BUNDLED_NAME, ModelClass, bundled_model_path
from arm_lens.engine.placement import DeviceMap, check_placement, quantised_model
from arm_lens.engine.precision import QUANTISED, DtypeName, chosen_dtype, dtype_of


@overload
def load_model(
    name_or_path: str | Path | None = ...,
    *,
    model_class: Literal["TransformerBridge"] = "TransformerBridge",
    device: str | torch.device | None = ...,
    dtype: DtypeName | torch.dtype = ...,
    revision: str | None = ...,
    tokenizer: PreTrainedTokenizerBase | None = ...,
    trust_remote_code: bool = ...,
    device_map: DeviceMap | None = ...,
    quantization_config: QuantizationConfigMixin | None = ...,
) -> TransformerBridge: ...


@overload
def load_model(
    name_or_path: str | Path | None = ...,
    *,
    model_class: Literal["HookedTransformer"],
    device: str | torch.device | None = ...,
    dtype: DtypeName | torch.dtype = ...,
    revision: str | None = ...,
    tokenizer: PreTrainedTokenizerBase | None = ...,
    trust_remote_code: bool = ...,
) -> HookedTransformer: ...


def load_model(
    name_or_path: str | Path | None = None,
    *,
    model_class: ModelClass = "TransformerBridge",
    device: str | torch.device | None = None,
    dtype: DtypeName | torch.dtype = "auto",
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    trust_remote_code: bool = False,
    device_map: DeviceMap | None = None,
    quantization_config: QuantizationConfigMixin | None = None,
) -> TransformerBridge | HookedTransformer:
    """Load a model with its weights unchanged: no layer norm folded, nothing centred.

    Args:
        name_or_path: a Hugging Face hub name, a local folder, or a GGUF file or a folder with one (extra ``gguf``); by
            default the bundled judge model. ``"arm_lens image judge"`` is the bundled one that sees.
        model_class: `HookedTransformer` needs TransformerLens 3.
        device: by default CUDA if there is one, else the CPU.
        dtype: the dtype of weights and activations; by default what the weights and the machine are good at
            (`arm_lens.engine.precision`): bfloat16 for weights in half precision where that is faster, else float32.
        revision: hub branch, tag or commit.
        tokenizer: used instead of the model's own, and not changed. (For some families, such as Qwen2, Transformers takes
            the family's tokenizer class whatever the folder's tokenizer files say.)
        trust_remote_code: passed to Hugging Face.
        device_map: how the model is spread over several GPUs, instead of ``device``: ``"auto"``, ``"balanced"``,
            ``"sequential"``, or devices by module; passed to Hugging Face. Nothing is offloaded to disk.
        quantization_config: quantise the weights while loading, such as ``BitsAndBytesConfig(load_in_4bit=True)`` of
            transformers. Pass the model yourself to load what was fitted on it.

    Raises:
        FileNotFoundError: if there is no such folder or GGUF file, or a folder lacks its ``config.json``.
        ImportError: naming the package, if GGUF files or quantised weights need one that is not installed.
        ValueError: if ``model_class``, devices or quantisation are not available here, or if a folder has several GGUF
            files.
        ModelMismatchError: if TransformerLens does not compute what the Hugging Face model in the folder computes; the
            error says what to use instead.
        UnsupportedModelError: if the model is not a causal language model with the same heads in every layer.
        NotFiniteError: if its logits are NaN or infinite, as in float16 those of some models are.
    """
    wanted = dtype_of(dtype)
    if model_class not in get_args(ModelClass):
        raise ValueError(f"model_class must be 'TransformerBridge' or 'HookedTransformer', not {model_class!r}")
    if model_class == "HookedTransformer" and HookedTransformer is None:
        raise ValueError("this TransformerLens has no HookedTransformer (removed in 4.0); use TransformerBridge")
    check_placement(model_class, device, device_map, quantization_config)
    path, file = _on_disk(str(BUNDLED_NAME if name_or_path is None else name_or_path))
    if file is not None and (revision is not None or quantization_config is not None):
        raise ValueError(f"{path} is a GGUF file: revision and quantization_config are for Hugging Face weights")
    place = _place(device)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    raw: Any = None
    model: TransformerBridge | HookedTransformer
    try:
        if wanted is None:
            quantised = quantization_config is not None
            wanted = chosen_dtype(path, QUANTISED, place) if quantised else _default_dtype(path, file, place, **hub)
        bridge, own = model_class == "TransformerBridge", tokenizer
        config = _config(path, **hub) if bridge and file is None else None
        processor, blind = processor_of(path, config, **hub)
        if file is not None:
            raw, own = file.model(wanted, device_map), file.tokenizer() if tokenizer is None else tokenizer
        elif quantization_config is not None:
            raw = quantised_model(path, quantization_config, wanted, device_map or {"": place}, **hub)
        elif not bridge and Path(path).is_dir():
            raw = AutoModelForCausalLM.from_pretrained(path, dtype=wanted, **hub)
        if raw is None:
            load = TransformerBridge.boot_transformers if bridge else HookedTransformer.from_pretrained_no_processing
            where = {"device": place} if device_map is None else {"device_map": device_map}
            spare = None if own is None else for_transformer_lens(own)
            alike = [ALIKE[one] for one in getattr(config, "architectures", None) or () if one in ALIKE]
            overrides: dict[str, Any] = {"hf_config_overrides": {"original_architecture": alike[0]}} if alike else {}
            with processor_given(processor):
                model = load(path, dtype=wanted, tokenizer=spare, **where, **overrides, **hub)
        elif bridge:
            raw = raw if device_map is not None or quantization_config is not None else raw.to(place)
            own = AutoTokenizer.from_pretrained(path, **hub) if own is None else own
            model = bridge_of(raw, own, path, processor)
        else:
            spare = AutoTokenizer.from_pretrained(path, **hub) if own is None else for_transformer_lens(own)
            model = _hooked_around(raw, spare, path, place)
    except (OSError, ImportError, torch.OutOfMemoryError, UnsupportedModelError):
        raise
    except Exception as error:  # TransformerLens meets configs that it does not know with errors of any kind
        raise UnsupportedModelError(
            f"{path}: TransformerLens {version('transformer-lens')} cannot make a {model_class} of this model "
            f"({type(error).__name__}: {error}); {other_than(model_class, _architecture(path, raw, **hub))}"
        ) from error
    if tokenizer is not None:
        _use_tokenizer(model, tokenizer)
    found = adapter_of(model)
    found.findings.blind = blind
    verify(found, raw)
    return model


def _config(path: str, **hub: Any) -> PretrainedConfig | None:
    """The Hugging Face config; None for a name that only TransformerLens knows, or nobody: loading it says so."""
    try:
        found: PretrainedConfig = AutoConfig.from_pretrained(path, **hub)
    except (OSError, ValueError):
        return None
    return found


def _on_disk(path: str) -> tuple[str, GgufFile | None]:
    """A path that is valid in every working directory, so that it may be recorded, and the GGUF file there; or a hub name.

    Errors as for `load_model`.
    """
    if path in BUNDLED:
        path = str(bundled_model_path(path))
    found = gguf_path(Path(path))
    if found is not None:
        return str(found), read_gguf(found)
    if not Path(path).is_dir():
        if path.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
            raise FileNotFoundError(f"{path}: no such folder, and not a hub name such as Qwen/Qwen2.5-1.5B-Instruct")
        return path, None
    if not (Path(path) / "config.json").exists():
        raise FileNotFoundError(
            f"{path} is a folder without a config.json or a GGUF file: not a model in Hugging Face or GGUF format"
        )
    return str(Path(path).resolve()), None


def default_dtype(name_or_path: str | Path | None = None, *, device: str | torch.device | None = None) -> torch.dtype:
    """The dtype in which `load_model` loads a model by default; its weights are not read. Errors as there."""
    path, file = _on_disk(str(BUNDLED_NAME if name_or_path is None else name_or_path))
    return _default_dtype(path, file, _place(device))


def _place(device: str | torch.device | None) -> torch.device:
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"there is no device {str(device)!r}; pass device='cpu' or device='cuda'") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {str(place)!r} here; pass device='cpu'")
    return place


def _default_dtype(path: str, file: GgufFile | None, device: torch.device, **hub: Any) -> torch.dtype:
    """The default for weights in a GGUF file, or as the config of a hub name or folder says what they are."""
    if file is not None:
        return chosen_dtype(path, file.weights, device)
    config = _config(path, **hub)
    if config is None:
        return torch.float32
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return chosen_dtype(path, getattr(torch, found, None) if isinstance(found, str) else found, device)


def _architecture(path: str, raw: PreTrainedModel | None, **hub: Any) -> str:
    """The Hugging Face class of a model that could not be loaded; empty if that is not known either."""
    if raw is not None:
        return type(raw).__name__
    with contextlib.suppress(Exception):  # the error is about the model, not about its config
        return str((AutoConfig.from_pretrained(path, **hub).architectures or [""])[0])
    return ""


def _hooked_around(
    hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str, device: torch.device
) -> HookedTransformer:
    """Do for a Hugging Face model what `HookedTransformer.from_pretrained` does for hub names only."""
    loading = import_module("transformer_lens.loading_from_pretrained")
    hf_config: Any = hf_model.config
    with tempfile.TemporaryDirectory() as neutral:
        # The conversion guesses the architecture from the path ("llama") before it looks into the config, and needs a field
        # of GPT-2 that only old configs have.
        known = hf_config.to_dict()
        known.setdefault("n_ctx", known.get("n_positions"))
        (Path(neutral) / "config.json").write_text(json.dumps(known), encoding="utf-8")
        config = {key: value for key, value in loading.convert_hf_model_config(neutral).items() if value is not None}
    config |= {"model_name": path, "tokenizer_name": path, "device": str(device), "dtype": hf_model.dtype}
    # TransformerLens caps or fixes some families' context; never let it exceed the model's own.
    config["n_ctx"] = min(config["n_ctx"], getattr(hf_config, "max_position_embeddings", None) or config["n_ctx"])
    d_head = getattr(hf_config, "head_dim", None)
    if d_head and d_head != config["d_head"]:  # for some families TransformerLens takes d_model // n_heads
        rotary = {"rotary_dim": d_head} if config.get("rotary_dim") == config["d_head"] else {}
        config |= {"d_head": d_head, **rotary}
    cfg = import_module("transformer_lens").HookedTransformerConfig.from_dict(config)
    state = loading.get_pretrained_state_dict(path, cfg, hf_model=hf_model, dtype=hf_model.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer=tokenizer)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


def _use_tokenizer(model: TransformerBridge | HookedTransformer, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a TransformerLens model use a tokenizer object as it is; its setters load another one."""
    if isinstance(model, TransformerBridge):
        model._tokenizer = tokenizer  # type: ignore[assignment]
    else:
        model.tokenizer = tokenizer
    encoded = tokenizer.encode("a")
    model.cfg.tokenizer_prepends_bos = len(encoded) > 1 and encoded[0] == tokenizer.bos_token_id
