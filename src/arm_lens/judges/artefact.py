"""Fitted reward models on disk: a folder of one safetensors and one JSON file.

The language model itself is not saved. What is, is enough to know exactly what the reward model was fitted on: name,
revision, weight processing, dtype, hook, token position, template, seed, versions, and a fingerprint, the activations
of the model on a few fixed tokens. Means read from one model mean nothing in another, so loading onto a model whose
fingerprint differs is refused, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from arm_lens.engine.models import BUNDLED_NAME, Model, ModelInfo, describe, load_model
from arm_lens.engine.reading import fingerprint

FORMAT = 2
TENSORS, RECORD = "reward_model.safetensors", "reward_model.json"
RECORDED_VERSIONS = ("arm-lens", "torch", "transformer-lens", "transformers")
FINGERPRINT_TOLERANCE = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 3e-2}
"""Largest difference allowed, relative to the largest activation, by dtype: a few units in its last place, room for
another class or kernel but not for another weight processing or, in float32, a fine-tune."""


class WrongModelError(ValueError):
    """A reward model was to be loaded onto a model it was not fitted on."""


def write_artefact(path: str | Path, model: Model, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
    """Write tensors and a record to the folder ``path``, made where missing, with all that identifies ``model``."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "format": FORMAT,
        "model": describe(model).to_dict(),
        "hook": "blocks.{layer}.attn.hook_z",
        "token_position": "last token of the prompt, where the verdict is due",
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        **record,
    }
    save_file({**{k: t.contiguous() for k, t in tensors.items()}, "fingerprint": fingerprint(model)}, folder / TENSORS)
    (folder / RECORD).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return folder


def read_artefact(
    path: str | Path, model: Model | None = None, *, device: str | None = None
) -> tuple[Model, dict[str, Tensor], dict[str, Any]]:
    """The model, tensors and record of a folder.

    Args:
        path: the folder `write_artefact` wrote.
        model: what to load it onto; by default the recorded model is loaded, by its recorded name and class.
        device: where the recorded model goes, if none is given.

    Raises:
        FileNotFoundError: if the folder holds no reward model.
        ValueError: if it was written in another format.
        WrongModelError: if the model is not the one it was fitted on; the message says in what they differ.
    """
    folder = Path(path)
    if not (folder / RECORD).is_file() or not (folder / TENSORS).is_file():
        raise FileNotFoundError(f"{folder} holds no reward model ({RECORD} and {TENSORS})")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {record.get('format')!r}; this arm_lens reads format {FORMAT}")
    tensors = load_file(folder / TENSORS)
    info = ModelInfo.from_dict(record["model"])
    if model is None and info.weight_processing != "raw":
        raise WrongModelError(
            f"{folder} was fitted on {info.name} with processed weights ({info.weight_processing}); load and process the "
            "model as you did then, and pass it"
        )
    if model is None:
        model = load_model(
            None if info.name == BUNDLED_NAME else info.name,
            model_class=info.model_class,
            device=device,
            dtype=getattr(torch, info.dtype),
            revision=info.revision,
        )
    _check_model(model, info, tensors["fingerprint"], folder)
    return model, tensors, record


def _check_model(model: Model, fitted_on: ModelInfo, expected: Tensor, folder: Path) -> None:
    here = describe(model)
    for what in ("n_layers", "n_heads", "d_head", "dtype"):
        if getattr(here, what) != getattr(fitted_on, what):
            raise WrongModelError(
                f"{folder} was fitted on {fitted_on.name} with {what} = {getattr(fitted_on, what)}; "
                f"{here.name} has {what} = {getattr(here, what)}"
            )
    difference = float((fingerprint(model) - expected).abs().max() / expected.abs().max())
    if not difference <= FINGERPRINT_TOLERANCE[fitted_on.dtype]:  # not a number is refused too
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name}, but {here.name} computes other activations: they differ by "
            f"{difference:.1%} on a fixed probe ({_differences(fitted_on, here) or 'the weights differ'})"
        )


def _differences(one: ModelInfo, two: ModelInfo) -> str:
    """The recorded properties in which two models differ, in words."""
    before, after = one.to_dict(), two.to_dict()
    return "; ".join(f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key])
