"""Judges by name: any that the registry knows, fitted or loaded without importing its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arm_lens.engine.language_model import ModelLike
from arm_lens.judges.artefact import ArtefactError, kind_of_artefact
from arm_lens.judges.base import FitContext, FittedJudge, Judge
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


def load_judge(path: str | Path, model: ModelLike | None = None, *, device: str | None = None) -> FittedJudge:
    """Read a judge of any kind that was saved; otherwise as `FittedJudge.load`.

    Raises:
        ArtefactError: also if no installed judge is of the saved kind.
    """
    kind = kind_of_artefact(path)
    try:
        judge = judge_class(kind)
    except ValueError as error:
        raise ArtefactError(f"{path} holds a {kind}, and {error}") from error
    return judge.load(path, model, device=device)


def judge_class(kind: str) -> type[FittedJudge]:
    """The class of the fitted judges of a kind; a ValueError if no installed judge is of that kind."""
    for spec in JUDGES.values():
        if issubclass(spec.judge, FittedJudge) and spec.judge.kind == kind:
            return spec.judge
    raise ValueError("no judge that is installed is of that kind")
