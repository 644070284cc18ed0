"""Judges by name: any that the registry knows, fitted or loaded without importing its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import isabstract
from pathlib import Path
from typing import Any

from arm_lens.engine.language_model import ModelLike
from arm_lens.judges.artefact import ArtefactError, header_of
from arm_lens.judges.base import FitContext, Judge, SavableJudge
from arm_lens.judges.hub import source_of
from arm_lens.judges.options import QuestionOptions, ReadingOptions, question_options
from arm_lens.preferences import Preference
from arm_lens.registry import JUDGES


def fit_judge(
    name: str,
    model: ModelLike,
    examples: Sequence[Preference] = (),
    options: Mapping[str, Any] | None = None,
    *,
    question: QuestionOptions | str | None = None,
    reading: ReadingOptions | None = None,
    seed: int = 0,
) -> Judge:
    """A judge by its name in the registry, fitted to labelled preferences as far as it makes use of them.

    ``name`` is that of a judge or preset, such as ``arm_reinforce``; `arm_lens.registry.JUDGES` lists them. Examples are
    pairs or labelled responses. ``options`` are as in a benchmark's configuration, ``{"selector": {"kind": "reinforce",
    "steps": 50}}``; ``question`` and ``reading`` apply as far as the options do not say. A judge without a language model
    ignores ``model``.

    Raises:
        ValueError: if there is no judge of that name, or it does not have those options; the message lists what there is.
    """
    spec = JUDGES[name]
    parsed = spec.parse(options)
    if spec.check is not None:
        spec.check(parsed)
    context = FitContext(
        model=model,
        examples=examples,
        question=question_options(question),
        reading=reading or ReadingOptions(),
        seed=seed,
    )
    judge: Judge = spec.fit(context.with_options(parsed), parsed)
    return judge


def load_judge(
    path: str | Path,
    model: ModelLike | str | Path | None = None,
    *,
    device: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> SavableJudge:
    """Read a judge of any kind that was saved or pushed to the hub; otherwise as `SavableJudge.load`.

    Raises:
        ArtefactError: also if no installed judge is of the saved kind.
    """
    source = source_of(path, revision=revision, token=token)
    with source.naming():
        kind = header_of(source.folder).kind
        try:
            judge = judge_class(kind)
        except ValueError as error:
            raise ArtefactError(f"{source.folder} has a {kind}, and {error}") from error
    return judge._read(source, model, device)


def judge_class(kind: str) -> type[SavableJudge]:
    """The class of the saved judges of a kind; a ValueError if no installed judge is of that kind."""
    registered = [spec.judge for spec in JUDGES.values() if issubclass(spec.judge, SavableJudge)]
    others = [one for base in SavableJudge.__subclasses__() for one in _with_subclasses(base)]
    for one in (*registered, *others):  # a weighted sum is made of others, and not asked for by name
        if one.kind == kind and not isabstract(one):
            return one
    raise ValueError("no judge that is installed is of that kind")


def _with_subclasses(judge: type[SavableJudge]) -> Iterator[type[SavableJudge]]:
    yield judge
    for one in judge.__subclasses__():
        yield from _with_subclasses(one)
