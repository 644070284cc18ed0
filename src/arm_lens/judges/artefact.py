"""Fitted judges on disk: a folder of one JSON and one safetensors file that is replaced as a whole or not at all.

The language model itself is not saved, but what identifies it is: name, revision, weight processing, dtype, hook, token
position, versions, and its fingerprint on fixed texts (`arm_lens.judges.fingerprint`). Means read from one model mean
nothing in another, and a question rendered by another chat template is another question; so loading onto a model that
differs in template, tokenizer, activations or verdicts is refused, and the error says in which.

Two files cannot be renamed at once. So the tensors get a new name, ``tensors-DIGEST.safetensors``; the JSON, which names
its tensors by that digest, replaces the older one in one step; and only then the older tensors are deleted. A process that
is killed in between leaves the old judge or the new one, never one's heads with another's means. The JSON also contains a
digest of itself: a changed byte is an error, not another number.

A folder may come from a stranger, who can compute digests too. So nothing in it is trusted: sizes and depth are bounded,
every field has its type and no other field is accepted, every tensor its shape, and every number is finite. Whatever is
wrong is an `ArtefactError` that names the file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from arm_lens.display.caution import caution
from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.language_model import ModelLike, describe, language_model
from arm_lens.engine.loading import load_model
from arm_lens.engine.model_info import BUNDLED_NAME, ModelClass
from arm_lens.engine.precision import DtypeName
from arm_lens.judges.fingerprint import Fingerprint, fingerprint_of
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question
from arm_lens.storage import (
    DamagedFileError,
    digest_of,
    digest_of_bytes,
    locked,
    parse_json,
    read_regular,
    write_bytes,
    write_text,
)

FORMAT = 4
RECORD = "judge.json"
RECORDED_VERSIONS = ("arm-lens", "torch", "transformer-lens", "transformers")
ACTIVATIONS, LOGITS = "fingerprint_activations", "fingerprint_logits"
"""The tensors that identify the language model."""
MOST_RECORD, MOST_TENSORS = 2**26, 2**31
"""The largest files that are read, in bytes."""
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What a model may compute in."""
BUSY_SECONDS = 60.0
"""How long to wait for another process that saves to the same folder, rather than lose an expensive fit."""


class ArtefactError(ValueError):
    """A folder does not contain the expected judge: it is damaged, incomplete, of another kind or format."""


class HooksNotSavedWarning(UserWarning):
    """A judge is saved while hooks are on its model: loaded, it answers as the model without them."""


class WrongModelError(ValueError):
    """A fitted judge cannot be loaded onto a model that it was not fitted on."""


RecordType = TypeVar("RecordType", bound="Record")


class Record(BaseModel):
    """Fields of a record, each of exactly its type; a record with another field, or without one of these, is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls: type[RecordType], values: Mapping[str, Any]) -> RecordType:
        """From JSON.

        Raises:
            ValueError: naming the field.
        """
        try:
            text = json.dumps(values)
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from None
        changed = _first_difference(found.model_dump(mode="json"), json.loads(text))
        if changed is not None:
            raise ValueError(f"{changed} is unknown, missing, or not of its type")
        return found


class QuestionRecord(Record):
    """How a judge asks."""

    question: QuestionOptions
    demonstrations: list[Question]


Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,4096}$")]
"""Text that does nothing to a terminal in which an error shows it."""


class _Model(Record):
    """The fields of `ModelInfo`."""

    name: Printable
    revision: Printable | None
    architecture: Printable
    model_class: ModelClass
    weight_processing: Printable
    dtype: Literal["float64", "float32", "float16", "bfloat16"]
    n_layers: int
    n_heads: int
    d_head: int
    d_model: int
    n_ctx: int


class _Fingerprint(Record):
    """The digests of an `Fingerprint`."""

    prompts: str
    tokens: str
    weights: str


class _Header(Record):
    """What every record has, whatever the judge."""

    format: Literal[4]
    kind: Annotated[str, Field(pattern=r"^[\w .-]{1,80}$")]
    tensors: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model: _Model
    fingerprint: _Fingerprint
    hook: str
    token_position: str
    versions: dict[str, str]
    digest: str


def write_artefact(
    path: str | Path, kind: str, model: ModelLike, tensors: Mapping[str, Tensor], record: Mapping[str, Any]
) -> Path:
    """Write a fitted judge to a folder, with all that identifies its language model.

    The folder is made if missing; an older judge in it is replaced as a whole or not at all. ``kind`` is the judge's, in
    words (``reward model``); the model is recorded as it is without steering and hooks; ``record`` is everything else, as
    JSON: if it has the fields of `QuestionRecord`, the model is identified by the judge's own questions.

    Warns:
        HooksNotSavedWarning: if hooks that are not arm_lens's are on the model.

    Raises:
        NotFiniteError: naming the tensor or field, if a number is infinite or not a number.
        StoreBusyError: if another process is saving to the folder, and is not done in a minute.
    """
    folder, fingerprint = Path(path), _fingerprint(model, record)
    if language_model(model).has_foreign_hooks():
        caution(
            f"hooks are on the model, and are not saved with this {kind}: loaded, it answers as the model without them",
            HooksNotSavedWarning,
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise NotFiniteError(
                f"the {name} of this {kind} are not all finite numbers; it cannot be saved to {folder}"
            )
    known = {ACTIVATIONS: fingerprint.activations, LOGITS: fingerprint.logits}
    content = save({name: one.detach().cpu().contiguous().clone() for name, one in {**tensors, **known}.items()})
    whole: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "tensors": digest_of_bytes(content),
        "model": describe(model).to_dict(),
        "fingerprint": {name: getattr(fingerprint, name) for name in _Fingerprint.model_fields},
        "hook": "blocks.{layer}.attn.hook_z",
        "token_position": "last token of the prompt, where the verdict is due",
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        **record,
    }
    try:
        whole["digest"] = digest_of(json.loads(json.dumps(whole, allow_nan=False)))
    except ValueError as error:
        raise NotFiniteError(f"the record of this {kind} cannot be saved to {folder}: {error}") from error
    with locked(folder, wait=BUSY_SECONDS, deep=False):
        own = write_bytes(folder / _tensors_file(whole["tensors"]), content)
        write_text(folder / RECORD, json.dumps(whole, indent=1) + "\n")  # from here on it is the new one
        for other in folder.glob(f"tensors-{'[0-9a-f]' * 16}.safetensors"):  # and nobody else's files
            if other != own:
                other.unlink(missing_ok=True)
    return folder


def read_artefact(
    path: str | Path, kind: str, model: ModelLike | None = None, *, device: str | None = None
) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
    """The model, and the judge's own tensors and record, of a folder that `write_artefact` wrote.

    ``kind`` is the expected kind of judge; `arm_lens.judges.base.FittedJudge.load` describes the rest, and the errors.
    """
    folder = Path(path)
    header, own, tensors = _whole(folder, kind)
    info = header.model
    with decoding(folder):
        _asks(own)
        expected = _recorded_fingerprint(header, tensors)
    if model is None and info.weight_processing != "raw":
        raise WrongModelError(
            f"{folder} was fitted on {info.name!r} with processed weights ({info.weight_processing}); load and process the "
            "model as you did then, and pass it"
        )
    if model is None:
        try:
            model = load_model(
                None if info.name == BUNDLED_NAME else info.name,
                model_class=info.model_class,
                device=device,
                dtype=info.dtype,
                revision=info.revision,
            )
        except (OSError, ValueError, KeyError) as error:
            raise WrongModelError(
                f"{folder} was fitted on {info.name!r}, which cannot be loaded here; load that model yourself and pass it as "
                f"model=... ({' '.join(str(error).split())[:300]})"
            ) from error
    _check_model(model, info, expected, own, folder)
    return model, tensors, own


def digest_of_artefact(path: str | Path) -> str:
    """A digest of a fitted judge: heads, tensors, the model that it was fitted on; errors as `read_artefact`."""
    return _record(Path(path), None)[0].digest


def kind_of_artefact(path: str | Path) -> str:
    """The kind of the judge in a folder; errors as `read_artefact`."""
    return _record(Path(path), None)[0].kind


def dtype_of_artefact(path: str | Path) -> DtypeName:
    """The dtype of the model on which the judge in a folder was fitted; errors as `read_artefact`."""
    return _record(Path(path), None)[0].model.dtype


def check_tensors(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int | None, ...]],
    *,
    optional: Mapping[str, tuple[int | None, ...]] | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> None:
    """Raise a ValueError unless there are exactly these tensors, of these dtypes and shapes, with finite numbers.

    An axis of a shape may be None: of any length except 0. Tensors that are ``optional`` may be missing.
    """
    known = {**shapes, **(optional or {})}
    if missing := shapes.keys() - tensors.keys():
        raise ValueError(f"the tensor {min(missing)!r} is missing")
    if unknown := tensors.keys() - known.keys():
        raise ValueError(f"the tensor {min(unknown)[:80]!r} is unknown")
    for name, tensor in tensors.items():
        expected, shape = known[name], tuple(tensor.shape)
        fits = [axis == length or (axis is None and length) for axis, length in zip(expected, shape, strict=False)]
        if tensor.dtype not in dtypes or len(expected) != len(shape) or not all(fits):
            axes, kinds = [axis or "any" for axis in expected], " or ".join(map(str, dtypes))
            raise ValueError(f"the tensor {name!r} is {tensor.dtype} {list(shape)}, not {kinds} {axes}")
        if not tensor.isfinite().all():
            raise ValueError(f"the tensor {name!r} has numbers that are not finite")


@contextlib.contextmanager
def decoding(folder: Path) -> Iterator[None]:
    """Turn errors about missing or unexpected content of a record or of tensors into an `ArtefactError`."""
    try:
        yield
    except (ArtefactError, WrongModelError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        explained = str(error) if type(error) is ValueError else repr(error)
        raise ArtefactError(f"{folder / RECORD} was not written by this arm_lens, or by hand: {explained}") from error


def _whole(folder: Path, kind: str) -> tuple[_Header, dict[str, Any], dict[str, Tensor]]:
    """A record, in two parts: what every judge has, and this judge's own; and its tensors."""
    last = None
    while True:
        header, own = _record(folder, kind)
        file = folder / _tensors_file(header.tensors)
        try:
            content = read_regular(file, most=MOST_TENSORS)
        except FileNotFoundError:
            if header.digest == last:
                raise ArtefactError(f"{file} is missing; save the {kind} again") from None
            last = header.digest  # a judge that was replaced since its record was read is read again
            continue
        except DamagedFileError as error:
            raise ArtefactError(str(error)) from error
        if digest_of_bytes(content) != header.tensors:
            raise ArtefactError(f"{file} was changed or damaged since it was written; save the {kind} again")
        try:
            return header, own, load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise ArtefactError(f"{file} is not a file of tensors: {error}") from error


def _record(folder: Path, kind: str | None) -> tuple[_Header, dict[str, Any]]:
    file, expected = folder / RECORD, kind or "judge"
    try:
        record = parse_json(read_regular(file, most=MOST_RECORD))
    except (FileNotFoundError, NotADirectoryError) as error:
        if file.is_symlink():
            raise ArtefactError(f"{file} is a link to a file that is missing") from error
        why = f"holds no {kind or 'fitted judge'} ({RECORD} is missing)" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(f"{folder} {why}") from None
    except DamagedFileError as error:
        raise ArtefactError(str(error)) from error
    except OSError as error:  # a loop of links
        raise ArtefactError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtefactError(f"{file} is damaged, or no JSON: {error}") from error
    if not isinstance(record, dict) or "format" not in record:
        raise ArtefactError(f"{file} is no record of a fitted judge")
    if record["format"] != FORMAT:
        found = record["format"]
        newer = isinstance(found, int) and found > FORMAT
        remedy = "upgrade arm_lens: pip install -U arm-lens" if newer else "fit and save the judge again"
        raise ArtefactError(f"{file} has format {str(found)[:20]}; this arm_lens reads format {FORMAT}; {remedy}")
    digest = digest_of({key: value for key, value in record.items() if key != "digest"})
    if record.get("digest") != digest:
        raise ArtefactError(f"{file} was changed or damaged since it was written; save the {expected} again")
    own = {key: value for key, value in record.items() if key not in _Header.model_fields}
    with decoding(folder):
        header = _Header.parse({key: value for key, value in record.items() if key in _Header.model_fields})
    if kind is not None and header.kind != kind:
        raise ArtefactError(f"{folder} holds a {header.kind}, not a {kind}")
    return header, own


def _tensors_file(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _first_difference(one: Any, other: Any, at: str = "") -> str | None:
    """The first place at which a value that was parsed differs from the JSON that it was parsed from."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*other, *one):
            inner = f"{at}.{key}".lstrip(".")
            if key not in one or key not in other:
                return inner
            if found := _first_difference(one[key], other[key], inner):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for index, pair in pairs if (found := _first_difference(*pair, f"{at}.{index}"))), None)
    same_type = type(one) is type(other) or (isinstance(one, float) and type(other) is int)
    return None if same_type and one == other else at or "it"


def _asks(own: Mapping[str, Any]) -> QuestionRecord | None:
    """How a judge asks, if its record says so; a ValueError if it says so in another form."""
    fields = {key: own[key] for key in QuestionRecord.model_fields if key in own}
    return QuestionRecord.parse(fields) if fields else None


def _fingerprint(model: ModelLike, own: Mapping[str, Any]) -> Fingerprint:
    asks = _asks(own)
    return fingerprint_of(model) if asks is None else fingerprint_of(model, asks.question, asks.demonstrations)


def _recorded_fingerprint(header: _Header, tensors: dict[str, Tensor]) -> Fingerprint:
    """The recorded fingerprint; its tensors are taken out of ``tensors``."""
    info = header.model
    known = {name: tensors.pop(name) for name in (ACTIVATIONS, LOGITS) if name in tensors}
    shapes = {ACTIVATIONS: (None, info.n_layers, info.n_heads, info.d_head), LOGITS: (None, None)}
    check_tensors(known, shapes)
    return Fingerprint(
        **header.fingerprint.model_dump(), activations=known[ACTIVATIONS], logits=known[LOGITS], dtype=info.dtype
    )


def _check_model(
    model: ModelLike, fitted_on: _Model, expected: Fingerprint, own: Mapping[str, Any], folder: Path
) -> None:
    here = describe(model)
    for what in ("n_layers", "n_heads", "d_head", "dtype"):
        if getattr(here, what) != getattr(fitted_on, what):
            remedy = f"; load it with dtype={fitted_on.dtype!r}" if what == "dtype" else ""
            raise WrongModelError(
                f"{folder} was fitted on {fitted_on.name!r} with {what} = {getattr(fitted_on, what)}; "
                f"{here.name!r} has {what} = {getattr(here, what)}{remedy}"
            )
    try:
        difference = expected.difference(_fingerprint(model, own))
    except (ValueError, TypeError, LookupError, ArithmeticError, TemplateError) as error:
        difference = f"cannot be asked this judge's questions: {error}"
    if difference is not None:
        before, now = fitted_on.model_dump(), here.to_dict()
        changes = [f"{key}: {before[key]} then, {now[key]} now" for key in before if before[key] != now[key]]
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name!r}, but {here.name!r} {difference}"
            + (f" ({'; '.join(changes)})" if changes else "")
        )
