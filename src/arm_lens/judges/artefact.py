"""Fitted judges on disk: a folder of one JSON and one safetensors file that is replaced as a whole or not at all.

The language model itself is not saved, but what identifies it is: name, revision, weight processing, dtype, hook, token
position, template, seed, versions, and a fingerprint, the activations of the model on a few fixed tokens. Means read from
one model mean nothing in another, so loading onto a model whose fingerprint differs is refused, with the reason.

Two files cannot be renamed at once. So the tensors get a new name, ``tensors-DIGEST.safetensors``; the JSON, which names
its tensors by that digest, replaces the older one in one step; and only then the older tensors are deleted. A process that
is killed in between leaves the old judge or the new one, never one's heads with another's means. The JSON also contains a
digest of itself: a changed byte is an error, not another number.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from arm_lens.engine.language_model import ModelLike, describe
from arm_lens.engine.loading import load_model
from arm_lens.engine.protocol import BUNDLED_NAME, ModelInfo
from arm_lens.engine.reading import fingerprint
from arm_lens.storage import digest_of, digest_of_bytes, locked, write_bytes, write_text

FORMAT = 3
RECORD = "judge.json"
RECORDED_VERSIONS = ("arm-lens", "torch", "transformer-lens", "transformers")
FINGERPRINT_TOLERANCE = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 3e-2}
"""Largest difference allowed, relative to the largest activation, by dtype: a few units in its last place, room for
another class or kernel but not for another weight processing or, in float32, a fine-tune."""
BUSY_SECONDS = 60.0
"""How long to wait for another process that saves to the same folder, rather than lose an expensive fit."""


class ArtefactError(ValueError):
    """A folder does not contain the expected judge: it is damaged, incomplete, of another kind or format."""


class WrongModelError(ValueError):
    """A fitted judge cannot be loaded onto a model that it was not fitted on."""


def write_artefact(
    path: str | Path, kind: str, model: ModelLike, tensors: Mapping[str, Tensor], record: Mapping[str, Any]
) -> Path:
    """Write a fitted judge to a folder, with all that identifies its language model.

    The folder is made if missing; an older judge in it is replaced as a whole or not at all. ``kind`` is the judge's, in
    words (``reward model``); the model is recorded as it is without steering; the tensor name ``fingerprint`` is reserved;
    ``record`` is everything else, as JSON.

    Raises:
        StoreBusyError: if another process is saving to the folder, and is not done in a minute.
    """
    folder = Path(path)
    content = save({name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
                   | {"fingerprint": fingerprint(model)})  # fmt: skip
    whole: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "tensors": digest_of_bytes(content),
        "model": describe(model).to_dict(),
        "hook": "blocks.{layer}.attn.hook_z",
        "token_position": "last token of the prompt, where the verdict is due",
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        **record,
    }
    whole["digest"] = digest_of(json.loads(json.dumps(whole)))
    with locked(folder, wait=BUSY_SECONDS, deep=False):
        own = write_bytes(folder / _tensors_file(whole), content)
        write_text(folder / RECORD, json.dumps(whole, indent=1) + "\n")  # from here on it is the new one
        for other in folder.glob("tensors-*.safetensors"):
            if other != own:
                other.unlink(missing_ok=True)
    return folder


def read_artefact(
    path: str | Path, kind: str, model: ModelLike | None = None, *, device: str | None = None
) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
    """The model, tensors and record of a folder that `write_artefact` wrote.

    ``kind`` is the expected kind of judge; `arm_lens.judges.base.FittedJudge.load` describes the rest, and the errors.
    """
    folder = Path(path)
    record, tensors = _whole(folder, kind)
    with decoding(folder):
        info, expected = ModelInfo.from_dict(record["model"]), tensors["fingerprint"]
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
    _check_model(model, info, expected, folder)
    return model, tensors, record


def digest_of_artefact(path: str | Path) -> str:
    """A digest of a fitted judge: heads, tensors, the model that it was fitted on; errors as `read_artefact`."""
    return str(_record(Path(path), None)["digest"])


def kind_of_artefact(path: str | Path) -> str:
    """The kind of the judge in a folder; errors as `read_artefact`."""
    return str(_record(Path(path), None)["kind"])


@contextlib.contextmanager
def decoding(folder: Path) -> Iterator[None]:
    """Turn errors about missing or unexpected content of a record or of tensors into an `ArtefactError`."""
    try:
        yield
    except (ArtefactError, WrongModelError):
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{folder} was not written by this arm_lens, or by hand: {error!r}") from error


def _whole(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record and its own tensors."""
    for _ in range(2):  # a judge that was replaced since its record was read is read again
        record = _record(folder, kind)
        file = folder / _tensors_file(record)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            continue
        if digest_of_bytes(content) != record["tensors"]:
            raise ArtefactError(f"{file} was changed or damaged since it was written; save the {kind} again")
        return record, load(content)
    raise ArtefactError(f"{file} is missing; save the {kind} again")


def _record(folder: Path, kind: str | None) -> dict[str, Any]:
    file = folder / RECORD
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no {kind or 'fitted judge'} ({RECORD} is missing)")
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{file} is damaged, or no JSON: {error}") from error
    if not isinstance(record, dict) or "format" not in record:
        raise ArtefactError(f"{file} is no record of a fitted judge")
    if record["format"] != FORMAT:
        raise ArtefactError(f"{file} has format {record['format']!r}; this arm_lens reads format {FORMAT}")
    if record.pop("digest", None) != (digest := digest_of(record)):
        raise ArtefactError(f"{file} was changed or damaged since it was written; save the {kind or 'judge'} again")
    if kind is not None and record["kind"] != kind:
        raise ArtefactError(f"{folder} holds a {record['kind']}, not a {kind}")
    return record | {"digest": digest}


def _tensors_file(record: Mapping[str, Any]) -> str:
    return f"tensors-{record['tensors'][:16]}.safetensors"


def _check_model(model: ModelLike, fitted_on: ModelInfo, expected: Tensor, folder: Path) -> None:
    here = describe(model)
    for what in ("n_layers", "n_heads", "d_head", "dtype"):
        if getattr(here, what) != getattr(fitted_on, what):
            raise WrongModelError(
                f"{folder} was fitted on {fitted_on.name} with {what} = {getattr(fitted_on, what)}; "
                f"{here.name} has {what} = {getattr(here, what)}"
            )
    before, now = fitted_on.to_dict(), here.to_dict()
    changes = "; ".join(f"{key}: {before[key]} then, {now[key]} now" for key in before if before[key] != now[key])
    difference = float((fingerprint(model) - expected).abs().max() / expected.abs().max())
    if not difference <= FINGERPRINT_TOLERANCE[fitted_on.dtype]:  # not a number is refused too
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name}, but {here.name} computes other activations: they differ by "
            f"{difference:.1%} on a fixed probe ({changes or 'the weights differ'})"
        )
