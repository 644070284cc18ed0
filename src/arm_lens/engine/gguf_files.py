"""GGUF files: models as llama.cpp stores them, config, tokenizer and quantised weights in one file.

Transformers reads them, unpacked into ordinary weights in the dtype that is wanted, so that everything else here is as for
any other model. It does not read all that such a file may say: what it leaves out silently, and what would change the
logits, is an error here.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from arm_lens.engine.identity import UnsupportedModelError
from arm_lens.engine.placement import DeviceMap
from arm_lens.engine.precision import QUANTISED

SUFFIX = ".gguf"
WEIGHTS = ("*.safetensors", "*.bin")
"""The weights of a folder in Hugging Face format."""
UNREAD_TENSORS = ("rope_freqs", "rope_factors")
"""The beginnings of the names of tensors that scale rotary positions, and that transformers leaves out."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that transformers can read as a whole."""

    path: Path
    weights: torch.dtype
    """The dtype of the largest weights; `QUANTISED` for blocks."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer in the file, with its chat template."""
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.path.parent, gguf_file=self.path.name)
        return found

    def model(self, dtype: torch.dtype, device_map: DeviceMap | None = None) -> Any:
        """The Hugging Face model in the file, its weights unpacked into a dtype; on the CPU unless a device map is given.

        Raises:
            UnsupportedModelError: if transformers does not know the architecture, or if weights are missing.
        """
        options: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
        if unpacking := getattr(transformers, "GgufConfig", None):  # newer versions could also compute with the blocks
            options["quantization_config"] = unpacking(dequantize=True)
        read: Any
        try:
            read = AutoModelForCausalLM.from_pretrained(
                self.path.parent,
                gguf_file=self.path.name,
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
                **options,
            )
        except (ValueError, NotImplementedError) as error:
            raise self._unread(str(error)) from error
        model, loaded = read
        if missing := sorted(loaded["missing_keys"]):  # they would be random numbers
            raise self._unread(f"{len(missing)} of the model's weights are not found, such as {missing[0]}")
        model.hf_quantizer = None  # these are ordinary weights now
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.architectures = [type(model).__name__]  # which the file does not say
        model.name_or_path = str(self.path)
        return model.eval()

    def _unread(self, reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{self.path} cannot be read by transformers {version('transformers')}: {reason}; use the model's Hugging Face "
            "folder or hub name"
        )


def gguf_path(path: Path) -> Path | None:
    """The GGUF file that a path means: the file itself, or the only one in a folder without weights in another format.

    Raises:
        FileNotFoundError: if a path to a GGUF file leads to none.
        ValueError: listing the files, if a folder has several.
    """
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {path}; download it first (a hub name alone loads the model's Hugging Face weights)"
            )
        return path.resolve()
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []
    if not found or any(True for pattern in WEIGHTS for _ in path.glob(pattern)):
        return None
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{path} has {len(found)} GGUF files ({names}); pass the path of one of them")
    return found[0].resolve()


def read_gguf(path: Path) -> GgufFile:
    """Look into a GGUF file, without reading its weights.

    Raises:
        ImportError: naming the extra, if the package gguf is not installed.
        ValueError: if it is not a GGUF file, is damaged, is one of several parts, or scales its rotary positions in a way
            that transformers leaves out.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(f"{path.name} is read with the package gguf: pip install 'arm-lens[gguf]'")
    from gguf import GGMLQuantizationType, GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, KeyError, IndexError, OverflowError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a GGUF file, or is damaged or incomplete ({error}); download it again"
        ) from error
    split = reader.get_field("split.count")
    if split is not None and (parts := int(split.contents())) > 1:
        raise ValueError(f"{path} is one of {parts} parts; join them with llama.cpp's gguf-split --merge first")
    scaling = [tensor.name for tensor in reader.tensors if tensor.name.startswith(UNREAD_TENSORS)]
    for name, field in reader.fields.items():
        if name.endswith("rope.scaling.type") and field.contents() != "none":
            scaling.append(f"{name} = {field.contents()}")
    if scaling:
        raise UnsupportedModelError(
            f"{path} scales its rotary positions ({', '.join(scaling)}), which transformers {version('transformers')} does "
            "not read from GGUF files; use the model's Hugging Face folder or hub name"
        )
    plain = {
        GGMLQuantizationType.F32: torch.float32,
        GGMLQuantizationType.F16: torch.float16,
        GGMLQuantizationType.BF16: torch.bfloat16,
    }
    if not len(reader.tensors):
        raise ValueError(f"{path} has no weights: it is a vocabulary only")
    largest = max(reader.tensors, key=lambda tensor: int(tensor.n_elements))
    return GgufFile(path, plain.get(largest.tensor_type, QUANTISED))
