"""Large models: spread over several GPUs, or with weights that are quantised while they are loaded.

Both are done by Hugging Face (accelerate; bitsandbytes or another package), and are refused in words where machine or
packages do not have what they need. Nothing is installed, and nothing is offloaded to disk: the modules that
TransformerLens puts between those of a model would not find their weights there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import QuantizationConfigMixin

from arm_lens.engine.identity import UnsupportedModelError
from arm_lens.engine.model_info import ModelClass

DeviceMap: TypeAlias = str | Mapping[str, str | int]
"""``auto``, ``balanced``, ``balanced_low_0``, ``sequential``; or a device for each module by its path."""
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")


def check_placement(
    model_class: ModelClass,
    device: str | torch.device | None,
    device_map: DeviceMap | None,
    quantization_config: QuantizationConfigMixin | None,
) -> None:
    """Refuse what this machine cannot do, before anything is loaded.

    Raises:
        ValueError: naming the argument.
        ImportError: naming the package that quantised weights need.
    """
    if model_class != "TransformerBridge" and not (device_map is None and quantization_config is None):
        raise ValueError(
            f"a {model_class} takes neither device_map nor quantization_config; use model_class='TransformerBridge'"
        )
    if device_map is not None:
        if device is not None:
            raise ValueError(
                f"device={str(device)!r} and device_map={device_map!r} contradict each other; pass one of them"
            )
        _check_devices(device_map)
    if quantization_config is not None:
        if not isinstance(quantization_config, QuantizationConfigMixin):
            raise ValueError(
                "quantization_config must be a configuration of transformers, such as BitsAndBytesConfig(load_in_4bit=True), "
                f"not a {type(quantization_config).__name__}"
            )
        method = str(getattr(quantization_config.quant_method, "value", quantization_config.quant_method))
        if method.startswith("bitsandbytes") and importlib.util.find_spec("bitsandbytes") is None:
            raise ImportError("weights are quantised with the package bitsandbytes: pip install bitsandbytes")


def _check_devices(device_map: DeviceMap) -> None:
    if isinstance(device_map, str):
        if device_map not in STRATEGIES:
            raise ValueError(
                f"device_map={device_map!r} is not one of {', '.join(STRATEGIES)}; for a single device pass device=..."
            )
        if not torch.cuda.is_available():
            raise ValueError(
                f"device_map={device_map!r} spreads a model over GPUs, and torch finds none here; leave it out"
            )
        return
    for module, place in device_map.items():
        if str(place) in ("disk", "meta"):
            raise ValueError(
                f"device_map places {module or 'the model'!r} on {place}; arm_lens offloads nothing: use GPUs"
            )
        try:
            device = torch.device(place)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"device_map places {module or 'the model'!r} on {place!r}, which is not a device"
            ) from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device_map places {module or 'the model'!r} on {device}, and this machine has {torch.cuda.device_count()} "
                "CUDA devices"
            )


def quantised_model(
    path: str,
    quantization_config: QuantizationConfigMixin,
    dtype: torch.dtype,
    device_map: DeviceMap | Mapping[str, torch.device],
    **hub: Any,
) -> Any:
    """The Hugging Face model of a hub name or folder, its weights quantised while they are loaded.

    Raises:
        UnsupportedModelError: if they cannot be, in the words of transformers.
    """
    model: Any
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            quantization_config=quantization_config,
            dtype=dtype,
            device_map=device_map,
            attn_implementation="eager",
            **hub,
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UnsupportedModelError(f"{path} cannot be quantised here: {error}") from error
    return model.eval()
