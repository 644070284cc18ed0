"""Fitted judges on disk: a folder of one JSON and one safetensors file that is replaced as a whole or not at all.

The language model itself is not saved, but what identifies it is: name, revision, weight processing, dtype, hook, token
position, versions, and its fingerprint on fixed texts (`arm_lens.judges.fingerprint`). Means read from one model mean
nothing in another, and a question rendered by another chat template is another question; so loading onto a model that
differs in template, tokenizer, activations or verdicts is refused, and the error says in which.

Two files cannot be renamed at once. So the tensors get a new name, ``tensors-DIGEST.safetensors``; the JSON, which names
its tensors by that digest, replaces the older one in one step; and only then the older tensors are deleted. A process that
is killed in between leaves the old judge or the new one, never one's heads with another's means. The JSON also contains a
digest of itself: a changed byte is an error, not another number. Last comes the model card (`arm_lens.judges.model_card`),
which is for people: it is in no digest, and nothing is read from it.

Format 5 added the data's digest, the verdicts' tokens and metrics; format 6 what made pixels of images. Older folders, from
format 4 on, are read as judges without them. Images in demonstrations are tensors too: the bytes of their files.

A folder may come from a stranger, who can compute digests too. So nothing in it is trusted: sizes and depth are bounded,
every field has its type and no other field is accepted, every tensor its shape, and every number is finite. Whatever is
wrong is an `ArtefactError` that names the file.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jinja2 import TemplateError
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from arm_lens.display.caution import caution
from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.language_model import ModelLike, describe, language_model
from arm_lens.engine.loading import load_model
from arm_lens.engine.model_info import BUNDLED, ModelClass
from arm_lens.engine.verdict_tokens import VerdictPieceWarning
from arm_lens.judges.artefact_images import (
    ImagesRecord,
    image_tensors,
    images_record,
    remember_images,
    warn_of_other_pixels,
)
from arm_lens.judges.fingerprint import Fingerprint, fingerprint_of
from arm_lens.judges.metrics import Metric
from arm_lens.judges.model_card import card_of, write_card
from arm_lens.judges.older_formats import in_newest_format
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, render_question, verdict_tokens_of
from arm_lens.judges.records import Printable, Record
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences.fields import short_repr
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

FORMAT, OLDEST = 6, 4
"""The format that is written, and the oldest that is read."""
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


class UnconfirmedModelError(WrongModelError):
    """A judge from the hub names a language model, which is not loaded unless the user names it too."""


class QuestionRecord(Record):
    """How a judge asks."""

    question: QuestionOptions
    demonstrations: list[Question]


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


class _Token(Record):
    """A token with which a verdict is spelled."""

    id: int
    text: str


class _Verdicts(Record):
    """The tokens of a verdict and of its opposite."""

    positive: list[_Token]
    negative: list[_Token]


class _Header(Record):
    """What every record has, whatever the judge."""

    format: Literal[4, 5, 6]
    kind: Annotated[str, Field(pattern=r"^[\w .-]{1,80}$")]
    tensors: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model: _Model
    fingerprint: _Fingerprint
    hook: str
    token_position: str
    verdict_tokens: _Verdicts | None
    images: ImagesRecord | None
    metrics: list[Metric]
    versions: dict[str, str]
    digest: str


class Artefact(NamedTuple):
    """What was read of a fitted judge."""

    model: ModelLike
    tensors: dict[str, Tensor]
    """The judge's own."""
    record: dict[str, Any]
    """The judge's own."""
    metrics: list[Metric]


def write_artefact(
    path: str | Path,
    kind: str,
    model: ModelLike,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    metrics: Sequence[Metric] = (),
    picture: bytes | None = None,
    repository: str | None = None,
) -> Path:
    """Write a fitted judge to a folder, with all that identifies its language model.

    The folder is made if missing; an older judge in it is replaced as a whole or not at all. ``kind`` is the judge's, in
    words (``reward model``); the model is recorded as it is without steering and hooks; ``record`` is everything else, as
    JSON: if it has the fields of `QuestionRecord`, the model is identified by the judge's own questions. ``picture`` is a
    PNG for the model card, and ``repository`` where on the hub its code loads the judge from.

    Warns:
        HooksNotSavedWarning: if hooks that are not arm_lens's are on the model.

    Raises:
        NotFiniteError: naming the tensor or field, if a number is infinite or not a number.
        StoreBusyError: if another process is saving to the folder, and is not done in a minute.
    """
    folder, asks = Path(path), _asks(record)
    fingerprint = _fingerprint(model, asks)
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
    known = {ACTIVATIONS: fingerprint.activations, LOGITS: fingerprint.logits, **image_tensors(record)}
    content = save({name: one.detach().cpu().contiguous().clone() for name, one in {**tensors, **known}.items()})
    whole: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "tensors": digest_of_bytes(content),
        "model": describe(model).to_dict(),
        "fingerprint": {name: getattr(fingerprint, name) for name in _Fingerprint.model_fields},
        "hook": "blocks.{layer}.attn.hook_z",
        "token_position": "last token of the prompt, where the verdict is due",
        "verdict_tokens": _verdicts(model, asks),
        "images": images_record(model),
        "metrics": [one.model_dump() for one in metrics],
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        **record,
    }
    try:
        whole["digest"] = digest_of(json.loads(json.dumps(whole, allow_nan=False)))
    except ValueError as error:
        raise NotFiniteError(f"the record of this {kind} cannot be saved to {folder}: {error}") from error
    with locked(folder, wait=BUSY_SECONDS, deep=False):
        own = write_bytes(folder / tensors_file(whole["tensors"]), content)
        write_text(folder / RECORD, json.dumps(whole, indent=1) + "\n")  # from here on it is the new one
        for other in folder.glob(f"tensors-{'[0-9a-f]' * 16}.safetensors"):  # and nobody else's files
            if other != own:
                other.unlink(missing_ok=True)
        card = card_of(
            whole,
            question=None if asks is None else _as_read(model, asks.question),
            soft="gates" in tensors,
            picture=picture is not None,
            repository=repository,
        )
        write_card(folder, card, picture)  # when the judge is safe
    return folder


def read_artefact(
    path: str | Path,
    kind: str,
    model: ModelLike | str | Path | None = None,
    *,
    device: str | None = None,
    confirmed: bool = True,
) -> Artefact:
    """What a folder has that `write_artefact` wrote, and the language model.

    ``kind`` is the expected kind of judge, and ``confirmed`` says whether the recorded model may be loaded if no model is
    given; `arm_lens.judges.saving.Savable.load` describes the rest, and the errors.
    """
    folder = Path(path)
    header, own, tensors = _whole(folder, kind)
    with decoding(folder):
        remember_images(tensors, folder)
        asks = _asks(own)
        expected = _recorded_fingerprint(header, tensors)
    if model is None and not confirmed and header.model.name not in BUNDLED:
        raise UnconfirmedModelError(
            f"{folder} was fitted on {header.model.name!r}, and a judge from the hub loads no model that you do not name: "
            f"pass model={header.model.name!r} to load that one, or the model that you have loaded"
        )
    if model is None or isinstance(model, (str, Path)):
        model = _loaded(header.model, model, device, folder)
    _check_model(model, header.model, expected, asks, folder)
    if header.verdict_tokens is not None and header.verdict_tokens.model_dump() != _verdicts(model, asks):
        raise ArtefactError(f"{folder / RECORD} names other tokens for the verdicts than its own questions have")
    warn_of_other_pixels(model, header.images, folder)
    return Artefact(model, tensors, own, header.metrics)


def _loaded(fitted_on: _Model, name: str | Path | None, device: str | None, folder: Path) -> ModelLike:
    """The recorded model, or the one with the given name, in the recorded form; no code of a repository is run."""
    if fitted_on.weight_processing != "raw":
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name!r} with processed weights ({fitted_on.weight_processing}); load and "
            "process the model as you did then, and pass it"
        )
    found = fitted_on.name if name is None else str(name)
    try:
        return load_model(
            found,
            model_class=fitted_on.model_class,
            device=device,
            dtype=fitted_on.dtype,
            revision=fitted_on.revision if found == fitted_on.name else None,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name!r}, and {found!r} cannot be loaded here; load that model yourself and "
            f"pass it as model=... ({' '.join(str(error).split())[:300]})"
        ) from error


def header_of(path: str | Path) -> _Header:
    """What the record in a folder says of the judge that was fitted; errors as `read_artefact`."""
    return _record(Path(path), None)[0]


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
        file = folder / tensors_file(header.tensors)
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
    found = record["format"]
    if type(found) is not int or not OLDEST <= found <= FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        remedy = "upgrade arm_lens: pip install -U arm-lens" if newer else "fit and save the judge again"
        known = f"formats {OLDEST} to {FORMAT}"
        raise ArtefactError(f"{file} has format {short_repr(found)[:60]}; this arm_lens reads {known}; {remedy}")
    digest = digest_of({key: value for key, value in record.items() if key != "digest"})
    if record.get("digest") != digest:
        raise ArtefactError(f"{file} was changed or damaged since it was written; save the {expected} again")
    with decoding(folder):
        record = in_newest_format(record, found)
    own = {key: value for key, value in record.items() if key not in _Header.model_fields}
    with decoding(folder):
        header = _Header.parse({key: value for key, value in record.items() if key in _Header.model_fields})
    if kind is not None and header.kind != kind:
        raise ArtefactError(f"{folder} holds a {header.kind}, not a {kind}: load it by load_judge")
    return header, own


def tensors_file(digest: str) -> str:
    """The name of the file of tensors with this digest."""
    return f"tensors-{digest[:16]}.safetensors"


def _asks(own: Mapping[str, Any]) -> QuestionRecord | None:
    """How a judge asks, if its record says so; a ValueError if it says so in another form."""
    fields = {key: own[key] for key in QuestionRecord.model_fields if key in own}
    return QuestionRecord.parse(fields) if fields else None


def _fingerprint(model: ModelLike, asks: QuestionRecord | None) -> Fingerprint:
    return fingerprint_of(model) if asks is None else fingerprint_of(model, asks.question, asks.demonstrations)


def _verdicts(model: ModelLike, asks: QuestionRecord | None) -> dict[str, list[dict[str, Any]]] | None:
    """The tokens by which a judge that asks reads its verdicts, as ids and as text."""
    if asks is None:
        return None
    tokenizer = language_model(model).tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictPieceWarning)  # the judge itself has warned
        found = verdict_tokens_of(tokenizer, asks.question)
    sides = {"positive": found.positive, "negative": found.negative}
    return {side: [{"id": one, "text": tokenizer.decode([one])} for one in ids] for side, ids in sides.items()}


def _as_read(model: ModelLike, options: QuestionOptions) -> str:
    """The text that the model reads, without demonstrations, and with names for the texts that are judged."""
    template = options.template or JudgeTemplate()
    prompt = "{prompt}" if template.takes_prompt(options.layout) else ""
    if options.layout == "scalar":
        text = template.question(prompt, "{response}")
    else:
        text = template.ranked_question(prompt, "{response_a}", "{response_b}")
    return str(render_question(language_model(model).tokenizer, options, Question(text, True, "an example")))


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
    model: ModelLike, fitted_on: _Model, expected: Fingerprint, asks: QuestionRecord | None, folder: Path
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
        difference = expected.difference(_fingerprint(model, asks))
    except (ValueError, TypeError, LookupError, ArithmeticError, TemplateError) as error:
        difference = f"cannot be asked this judge's questions: {error}"
    if difference is not None:
        before, now = fitted_on.model_dump(), here.to_dict()
        changes = [f"{key}: {before[key]} then, {now[key]} now" for key in before if before[key] != now[key]]
        raise WrongModelError(
            f"{folder} was fitted on {fitted_on.name!r}, but {here.name!r} {difference}"
            + (f" ({'; '.join(changes)})" if changes else "")
        )
