"""The judges that a service offers: saved in folders, loaded onto one language model, each with a name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arm_lens.engine.images import ImageReader
from arm_lens.engine.language_model import ModelLike, describe, language_model
from arm_lens.heads import HeadSet
from arm_lens.judges.base import Judge, VerdictJudge
from arm_lens.judges.by_name import load_judge
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.generative import AskingJudge
from arm_lens.judges.hub import digest_of_judge
from arm_lens.reward.model import ActivationRewardModel


@dataclass(frozen=True, eq=False)
class Served:
    """A judge with the name by which requests choose it."""

    name: str
    judge: Judge
    digest: str
    """That of the folder's content: another one means other heads, means or questions."""
    fingerprint: str
    """That of the language model's answers to fixed texts and of its weights."""

    @property
    def reader(self) -> ImageReader | None:
        """What reads images for its language model; None if that reads text only."""
        model = language_model(_model_of(self.judge))
        return None if model.findings.blind else model.images

    def facts(self) -> dict[str, Any]:
        """What clients may know of it, for JSON."""
        judge, info = self.judge, describe(_model_of(self.judge))
        heads = judge.facts().get("heads")
        chosen = judge.chosen if isinstance(judge, ActivationRewardModel) else None
        return {
            "name": self.name,
            "kind": judge.kind,
            "criterion": judge.record.criterion if isinstance(judge, ActivationRewardModel) else "",
            "criterion_text": judge.criterion_text if isinstance(judge, VerdictJudge) else "",
            "layout": "ranked" if judge.compares_only else "scalar",
            "heads": None if heads is None else [list(one) for one in heads],
            "gates": None if chosen is None or isinstance(chosen, HeadSet) else chosen.tolist(),
            "n_layers": info.n_layers,
            "n_heads": info.n_heads,
            "model": info.name,
            "dtype": info.dtype,
            "fingerprint": self.fingerprint,
            "digest": self.digest,
        }


def _model_of(judge: Judge) -> ModelLike:
    model: ModelLike = judge.model  # type: ignore[attr-defined]  # of every judge that is saved
    return model


def named_folders(texts: Sequence[str]) -> dict[str, str]:
    """Folders by the name that was given, ``NAME=FOLDER``, or by an empty name and a number.

    Raises:
        ValueError: if there is no folder, or a name is given twice.
    """
    if not texts:
        raise ValueError("there is no reward model to serve; name a folder that fit wrote")
    found: dict[str, str] = {}
    for number, text in enumerate(texts):
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            name, folder = f"={number}", text
        if name in found:
            raise ValueError(f"two folders are to be called {name!r}: {found[name]} and {folder}")
        found[name] = folder
    return found


def load_served(
    texts: Sequence[str],
    model: ModelLike | None = None,
    *,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Served]:
    """Load saved judges onto one language model, which is loaded once.

    Args:
        texts: folders or names on the hub, or ``NAME=FOLDER``; without a name, a judge is called by its criterion, or else by
            its folder.
        model: what to load them onto; by default the model that the first one was fitted on.
        device: where that model goes.
        options: of `ActivationRewardModel.asking`, for all judges that have them.

    Raises:
        FileNotFoundError: if a folder or repository has no judge in it.
        UnconfirmedModelError: if the first is from the hub, needs a model, and none is given.
        ValueError: if two judges have the same name, or one has no language model.
        WrongModelError: naming the folder and both models, if a judge was fitted on another model than the first.
    """
    folders = named_folders(texts)
    for folder in folders.values():
        digest_of_judge(folder)  # before a model is loaded
    found: dict[str, Served] = {}
    sources: dict[str, str] = {}
    fingerprint = ""
    for given, folder in folders.items():
        judge = load_judge(folder, model, device=device)
        if options and isinstance(judge, ActivationRewardModel):
            judge = judge.asking(**options)
        if not isinstance(judge, (VerdictJudge, AskingJudge)) or not hasattr(judge, "model"):
            raise ValueError(f"{folder} holds a {judge.kind}, which cannot be served; serve reward models and probes")
        model = _model_of(judge)
        fingerprint = fingerprint or fingerprint_of(model).digest
        criterion = judge.record.criterion if isinstance(judge, ActivationRewardModel) else ""
        name = criterion or Path(folder).resolve().name if given.startswith("=") else given
        if name in found:
            raise ValueError(f"{sources[name]} and {folder} are both called {name!r}; name one, NAME={folder}")
        found[name], sources[name] = Served(name, judge, digest_of_judge(folder), fingerprint), folder
    return list(found.values())
