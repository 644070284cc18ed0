"""Saving and loading fitted reward models: a folder of one safetensors and one JSON file.

The language model itself is not saved. What is, is enough to know exactly what the reward model was fitted on: name,
revision, weight processing, dtype, hook, token position, template, seed, versions, and a fingerprint, the activations
of the model on a few fixed tokens. Means read from one model mean nothing in another, so loading onto a model whose
fingerprint differs is refused, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from arm_lens.activations import HeadMeans
from arm_lens.heads import HeadSet
from arm_lens.judging import GenerativeJudge
from arm_lens.models import BUNDLED_NAME, Model, ModelInfo, describe, fingerprint, load_model
from arm_lens.prompts import JudgeTemplate
from arm_lens.reward import ActivationRewardModel, FitRecord
from arm_lens.selection import Selection
from arm_lens.steering import Injection

FORMAT = 1
TENSORS, RECORD = "reward_model.safetensors", "reward_model.json"
RECORDED_VERSIONS = ("arm-lens", "torch", "transformer-lens", "transformers")
FINGERPRINT_TOLERANCE = 1e-3
"""Largest difference allowed, relative to the largest activation: room for another class or kernel in float32, not for
other weights, another weight processing or a coarser dtype."""


class WrongModelError(ValueError):
    """A reward model was to be loaded onto a model it was not fitted on."""


def save(fitted: ActivationRewardModel, path: str | Path) -> Path:
    """Write a reward model to the folder ``path``, which is made where missing."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    judge, selection = fitted.judge, fitted.selection
    tensors: dict[str, Tensor] = {"means": fitted.means.values, "fingerprint": fingerprint(judge.model)}
    history = None
    if selection is not None:
        tensors |= {"probabilities": selection.probabilities, "trajectory": selection.trajectory}
        history = selection.history.to_dict(orient="list")
    record = {
        "format": FORMAT,
        "model": fitted.info.to_dict(),
        "hook": "blocks.{layer}.attn.hook_z",
        "token_position": "last token of the prompt, where the verdict is due",
        "heads": fitted.heads.to_list(),
        "means_count": fitted.means.count,
        "injection": fitted.injection.to_dict(),
        "layout": judge.layout,
        "wording": judge.wording,
        "template": judge.template.to_dict(),
        "batch_size": judge.batch_size,
        "fit": asdict(fitted.record),
        "history": history,
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder


def load(path: str | Path, model: Model | None = None) -> ActivationRewardModel:
    """Read a reward model.

    Args:
        path: the folder `save` wrote.
        model: what to load it onto; by default the recorded model is loaded, by its recorded name and class.

    Raises:
        FileNotFoundError: if the folder holds no reward model.
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
    if model is None:
        model = load_model(
            None if info.name == BUNDLED_NAME else info.name,
            model_class=info.model_class,
            dtype=getattr(torch, info.dtype),
            revision=info.revision,
        )
    _check_model(model, info, tensors["fingerprint"], folder)
    judge = GenerativeJudge(
        model,
        wording=record["wording"],
        layout=record["layout"],
        template=JudgeTemplate.from_dict(record["template"]),
        batch_size=record["batch_size"],
    )
    heads = HeadSet.of(info.n_layers, info.n_heads, [(layer, head) for layer, head in record["heads"]])
    selection = None
    if record["history"] is not None:
        history = pd.DataFrame(record["history"])
        selection = Selection(heads, tensors["probabilities"], history, tensors["trajectory"])
    means = HeadMeans(tensors["means"], record["means_count"])
    return ActivationRewardModel(
        judge, heads, means, Injection(**record["injection"]), selection, FitRecord(**record["fit"])
    )


def _check_model(model: Model, fitted_on: ModelInfo, expected: Tensor, folder: Path) -> None:
    here = describe(model)
    for what in ("n_layers", "n_heads", "d_head"):
        if getattr(here, what) != getattr(fitted_on, what):
            raise WrongModelError(
                f"{folder} was fitted on {fitted_on.name} with {what} = {getattr(fitted_on, what)}; "
                f"{here.name} has {what} = {getattr(here, what)}"
            )
    difference = (fingerprint(model) - expected).abs().max() / expected.abs().max()
    if not float(difference) <= FINGERPRINT_TOLERANCE:
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name}, but {here.name} computes other activations: they differ by "
            f"{float(difference):.1%} on a fixed probe ({_differences(fitted_on, here) or 'the weights differ'})"
        )


def _differences(one: ModelInfo, two: ModelInfo) -> str:
    """The recorded properties in which two models differ, in words."""
    before: dict[str, Any] = one.to_dict()
    after = two.to_dict()
    return "; ".join(f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key])
