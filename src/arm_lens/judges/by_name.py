"""Judges by name: any that the registry knows, fitted or loaded without importing its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arm_lens.engine.language_model import ModelLike
from arm_lens.judges.artefact import ArtefactError, kind_of_artefact
from arm_lens.judges.base import FittedJudge, Judge, fit_context
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

    Args:
        name: of a judge or preset, such as ``arm_reinforce``; `arm_lens.registry.JUDGES` lists them.
        model: any that `arm_lens.engine.language_model` accepts; what needs none ignores it.
        examples: pairs or labelled responses.
        options: the judge's, as in a benchmark's configuration: ``{"selector": {"kind": "reinforce", "steps": 50}}``.
        question: how it is asked, where the options do not say.
        reading: how examples are read, where the options do not say.
        seed: of what is random.

    Raises:
        ValueError: if there is no judge of that name, or it does not have those options; the message lists what there is.
    """
    spec = JUDGES[name]
    parsed = spec.parse(options)
    if spec.check is not None:
        spec.check(parsed)
    context = fit_context(model, examples, parsed, question=question_options(question), reading=reading, seed=seed)
    judge: Judge = spec.fit(context, parsed)
    return judge


def load_judge(path: str | Path, model: ModelLike | None = None, *, device: str | None = None) -> FittedJudge:
    """Read a judge of whichever kind was saved.

    Args:
        path: the folder that its ``save`` wrote.
        model: what to load it onto; by default the recorded model is loaded, by its recorded name and class.
        device: where the recorded model goes, if none is given.

    Raises:
        FileNotFoundError: if the folder holds no judge.
        ArtefactError: if it holds one of an unknown kind, or is damaged.
        WrongModelError: if the model is not the one it was fitted on; the message says in what they differ.
    """
    kind = kind_of_artefact(path)
    for spec in JUDGES.values():
        if issubclass(spec.judge, FittedJudge) and spec.judge.kind == kind:
            loaded: FittedJudge = spec.judge.load(path, model, device=device)
            return loaded
    raise ArtefactError(f"{path} holds a {kind}, and no judge that is installed is of that kind")
