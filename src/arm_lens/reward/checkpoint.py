"""Fits that can be interrupted: what was read and judged so far is on disk, and the same call goes on from there.

Two things take time in a fit, and each is stored as soon as it is known: the means of a fold, and the rewards of each call
of the objective. A search is a function of its seed and of these rewards. So a search that is started again with the
rewards it has had goes through the same steps, with the same random numbers, without asking the model; and then it goes on.
The result has the same bytes as that of a fit that was never interrupted. (A search by gradient needs more than rewards: it
begins again, with the stored means.)

Both are found by a digest of everything that they depend on: the model's fingerprint, the examples, the options, the seeds,
the versions of what computes. Another fit in the same folder has other files.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from arm_lens.display import counted
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.sharing import content_of
from arm_lens.judges.artefact import RECORDED_VERSIONS
from arm_lens.selection.outcome import Masks, Objective, ObjectiveProxy
from arm_lens.storage import Growing, Store, digest_of, growing


class FitCheckpoint:
    """What a fit has already done.

    Args:
        folder: made if missing; None stores nothing.
        made_of: all that the fit depends on, JSON-like, except the versions of what computes.

    Raises:
        NotADirectoryError: if there is something else than a folder.
    """

    def __init__(self, folder: str | Path | None, made_of: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"a checkpoint is a folder, and {self.folder} is none")
        self._digest = digest_of([dict(made_of), *map(version, RECORDED_VERSIONS)])
        self._found, self._stored = 0, 0
        self._rewards: RecordedRewards | None = None

    def means(self, fold: int, read: Callable[[], HeadMeans]) -> HeadMeans:
        """The means of a fold, read unless they are stored.

        Raises:
            DamagedFileError: if a file was changed.
        """
        if self.folder is None:
            return read()
        store, name = Store(self.folder, ".safetensors"), digest_of([self._digest, "means", fold])
        if name in store:
            self._found += 1
            tensors = load(store.read(name))
            return HeadMeans(tensors["means"], int(tensors["count"]))
        means = read()
        content = save({"means": means.values.contiguous(), "count": torch.tensor(means.count)})
        store.put(name, content, name=f"means of fold {fold}")
        self._stored += 1
        return means

    @contextlib.contextmanager
    def rewards(self, objective: Objective) -> Iterator[Objective]:
        """An objective that stores its rewards, and gives those that are stored.

        Raises:
            StoreBusyError: if another process fits the same at the same time.
            DamagedFileError: if the file of rewards was changed.
        """
        if self.folder is None:
            yield objective
            return
        with growing(self.folder / f"rewards {self._digest}.jsonl", {"fit": self._digest}) as file:
            self._rewards = RecordedRewards(objective, file)
            yield self._rewards

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Within, an error or Ctrl-C says what was stored."""
        try:
            yield
        except BaseException as error:
            rewards = self._rewards.known if self._rewards is not None else 0
            if self.folder is not None and (folds := self._found + self._stored):
                error.add_note(
                    f"{counted(folds, 'mean')} and {counted(rewards, 'step')} of the search are stored in {self.folder}; the "
                    "same call goes on from there"
                )
            raise


class RecordedRewards(ObjectiveProxy):
    """An objective whose rewards are in a file: those that are there are not computed again."""

    def __init__(self, objective: Objective, file: Growing) -> None:
        super().__init__(objective)
        self._file = file
        lines = map(json.loads, file.path.read_bytes().splitlines())
        self._known = {
            line["call"]: torch.tensor(line["rewards"], dtype=getattr(torch, line["dtype"])) for line in lines
        }

    @property
    def known(self) -> int:
        """How many calls are stored."""
        return self._file.pieces

    def __call__(self, masks: Masks, examples: Sequence[int] | None = None) -> Float[Tensor, " mask"]:
        """The mean reward of each mask, stored before it is returned."""
        call = digest_of([content_of(masks), None if examples is None else list(examples)])
        if call not in self._known:
            rewards = self._known[call] = self.objective(masks, examples).cpu()
            dtype = str(rewards.dtype).removeprefix("torch.")
            self._file.append(json.dumps({"call": call, "dtype": dtype, "rewards": rewards.tolist()}).encode() + b"\n")
        return self._known[call]
