"""What every judge that can be saved has: `save`, `load`, `push_to_hub` and the metrics that were saved with it."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pandas as pd
from torch import Tensor

from arm_lens.engine.language_model import ModelLike, describe
from arm_lens.judges import hub
from arm_lens.judges.artefact import decoding, read_artefact, write_artefact
from arm_lens.judges.head_picture import head_picture
from arm_lens.judges.metrics import Metrics, metrics_frame, metrics_of
from arm_lens.judges.model_card import heads_of

SavableType = TypeVar("SavableType", bound="Savable")


class Savable(ABC):
    """A judge that can be saved, shared and loaded.

    ``_artefact`` and ``_from_artefact`` say what is saved: the language model (only described, not saved), tensors by name,
    and a record for JSON.
    """

    kind: ClassVar[str]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What was saved with the judge of how well it does: metric, benchmark, subset, value, low, high, n. Often empty."""
        return metrics_frame(())

    def save(self, path: str | Path, *, metrics: Metrics | None = None, picture: bool = False) -> Path:
        """Write the judge, without the language model, to a folder; see `arm_lens.judges.artefact`.

        Args:
            path: the folder; made if missing. A judge in it is replaced, a model card that was edited is not.
            metrics: how well the judge does: what `arm_lens.benchmark.judge_preferences` returns for it, or rows of metric,
                value, low, high and n. By default those that it was loaded with.
            picture: draw the head map as a picture too, for which a Chromium is started.

        Warns:
            NoPictureWarning: if the picture cannot be drawn here; the card has the head map as text.

        Raises:
            ValueError: naming the row and the field, if a metric is not finite or lacks its interval or n.
        """
        return self._write(path, metrics, picture)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        metrics: Metrics | None = None,
    ) -> str:
        """Write the judge, without the language model, to a repository on the Hugging Face hub, with a model card.

        Args:
            repo_id: ``owner/name``; made if missing. A judge in it is replaced, a model card that was edited is not.
            private: whether a repository that is made is private; by default as the owner's settings say.
            token: of the hub; by default that of ``hf auth login``.
            revision: the branch; made if missing.
            metrics: as `save` takes them.

        Returns:
            The commit, to be passed as ``revision=...`` to `load`.

        Raises:
            ValueError: as `save`; or if ``repo_id`` is not a name on the hub.
            PermissionError: if the hub refuses the token.
            ConnectionError: if the hub cannot be reached.
        """
        repository = hub.repository_of(repo_id)
        if repository is None:
            raise ValueError(f"{repo_id!r} is not the name of a repository; pass 'owner/name'")
        with tempfile.TemporaryDirectory() as folder:
            self._write(folder, metrics, picture=True, repository=repository)
            return hub.push(Path(folder), repository, private=private, token=token, revision=revision)

    @classmethod
    def load(
        cls: type[SavableType],
        path: str | Path,
        model: ModelLike | str | Path | None = None,
        *,
        device: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> SavableType:
        """Read what `save` or `push_to_hub` wrote.

        Args:
            path: the folder; or, if there is no such folder, ``owner/name`` or ``hf://owner/name`` on the hub.
            model: what to load it onto: a model, or the name of one, which is loaded with the recorded class, dtype and
                revision. By default the recorded model is loaded; for a judge from the hub, only if it is the bundled one.
            device: where a model goes that is loaded.
            revision: branch, tag or commit of a repository on the hub.
            token: of the hub; by default that of ``hf auth login``.

        Raises:
            FileNotFoundError: if the folder or the repository has no judge in it, or there is none.
            ArtefactError: if the judge is of another kind, or damaged.
            WrongModelError: if the model is not the one that the judge was fitted on; the message says how they differ.
            UnconfirmedModelError: if a judge from the hub needs a model that was not named.
            PermissionError: if the hub refuses the token.
            ConnectionError: if the hub cannot be reached, and the judge was not loaded before.
        """
        return cls._read(hub.source_of(path, revision=revision, token=token), model, device)

    @classmethod
    def _read(
        cls: type[SavableType], source: hub.Source, model: ModelLike | str | Path | None, device: str | None
    ) -> SavableType:
        with source.naming():
            found = read_artefact(source.folder, cls.kind, model, device=device, confirmed=source.repository is None)
            with decoding(source.folder):
                judge = cls._from_artefact(found.model, found.tensors, found.record)
        vars(judge)["metrics"] = metrics_frame(found.metrics)
        return judge

    def _write(self, path: str | Path, metrics: Metrics | None, picture: bool, repository: str | None = None) -> Path:
        known = metrics_of(self.metrics if metrics is None else metrics)
        model, tensors, record = self._artefact()
        drawn = head_picture(heads_of({**record, "model": describe(model).to_dict()})) if picture else None
        return write_artefact(
            path, self.kind, model, tensors, record, metrics=known, picture=drawn, repository=repository
        )

    @abstractmethod
    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]: ...

    @classmethod
    @abstractmethod
    def _from_artefact(
        cls: type[SavableType], model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]
    ) -> SavableType: ...
