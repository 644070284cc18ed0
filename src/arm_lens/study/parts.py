"""One criterion of a study: its attributions, interactions and curve, each kept in a file as soon as it is there.

A folder ``NAME-DIGEST`` stands for everything that sampling depends on but how long it goes on: the reward model, the
language model, the halves of the examples, the seed. In it lie the sampled Shapley values (``shapley.pt``), which another
standard error goes on from, and per standard error and number of random draws a folder with the finished tables.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from arm_lens.attribution import accuracy_by_heads, attribute, interactions, scores_of
from arm_lens.engine.reading import fingerprint
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.study.halves import Halves

CURVES = ("shapley", "injection", "gradient", "selection_probability")
"""The measures whose rankings are judged by their curves."""


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How a criterion is studied."""

    standard_error: float
    """Of what is sampled: Shapley values, interactions of many heads."""
    random_sets: int
    """Random rankings."""
    seed: int
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """The tables of one criterion."""

    attributions: pd.DataFrame
    interactions: pd.DataFrame
    """Empty with fewer than two chosen heads."""
    curve: pd.DataFrame


def study_part(
    name: str, reward: ActivationRewardModel, halves: Halves, options: PartOptions, *, out: Path | None = None
) -> Part:
    """Attribute on the first half, and judge the rankings on the second; tables that are kept in ``out`` are read.

    Args:
        name: of the criterion, in the tables.
        reward: its reward model.
        halves: its examples.
        options: how.
        out: the folder of all parts.
    """
    sampled, tables = (None, None) if out is None else _folders(out, name, reward, halves, options)
    checkpoint = None if sampled is None else sampled / "shapley.pt"
    seed, progress, error = options.seed, options.progress, options.standard_error

    def attributed() -> pd.DataFrame:
        return attribute(
            reward, halves[0], standard_error=error, seed=seed, checkpoint=checkpoint, progress=progress
        ).assign(criterion=name)

    def interacting() -> pd.DataFrame:
        if len(reward.heads) < 2:
            return pd.DataFrame()
        objective = reward.objective(halves[0], progress=progress)
        return interactions(
            objective, reward.heads, standard_error=error, seed=seed, criterion=name, progress=progress
        ).frame()

    attributions = _kept(tables, "attributions", attributed)
    measured = set(attributions["measure"])

    def curve() -> pd.DataFrame:
        rankings = {measure: scores_of(attributions, measure)[name] for measure in CURVES if measure in measured}
        objective = reward.objective(halves[1], progress=progress)
        return accuracy_by_heads(objective, rankings, random_rankings=options.random_sets, seed=seed, criterion=name)

    return Part(attributions, _kept(tables, "interactions", interacting), _kept(tables, "curve", curve))


def file_names(names: Sequence[str], *, most: int = 60) -> dict[str, str]:
    """A file name for each name, of ASCII letters, digits, ``_`` and ``-``, no two alike even where capitals do not count.

    Args:
        names: all different.
        most: characters, but for the number that tells apart those that come to the same.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", name)[:most].strip("_-") or "criterion"
        safe, count = stem, 1
        while safe.lower() in taken:
            count += 1
            safe = f"{stem}-{count}"
        taken.add(safe.lower())
        found[name] = safe
    return found


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """The file is there whole, or as it was."""
    partial = path.with_name(path.name + ".partial")
    frame.to_parquet(partial, index=False)
    partial.replace(path)


def _kept(folder: Path | None, table: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table as it is in the folder; if it is not there, it is made and put there."""
    if folder is None:
        return make()
    path = folder / f"{table}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    folder.mkdir(parents=True, exist_ok=True)
    frame = make()
    write_table(frame, path)
    return frame


def _folders(
    out: Path, name: str, reward: ActivationRewardModel, halves: Halves, options: PartOptions
) -> tuple[Path, Path]:
    """Where the sampled Shapley values go, and where the tables."""
    tensors = [fingerprint(reward.judge.model), reward.means.values]
    if reward.selection is not None:
        tensors.append(reward.selection.head_scores.values.detach().float().cpu())
    judge = reward.judge
    told = {
        "criterion": name,
        "tensors": [hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for tensor in tensors],
        "heads": reward.heads.to_list(),
        "by": None if reward.selection is None else reward.selection.head_scores.name,
        "injection": reward.injection.to_dict(),
        "questions": [judge.layout, judge.criterion_text, judge.template.to_dict(), reward.record.seed],
        "examples": repr(halves),
        "seed": options.seed,
        "version": version("arm-lens"),
    }
    sampled = out / f"{file_names([name])[name]}-{_digest(told)}"
    finished = {"standard_error": options.standard_error, "random_sets": options.random_sets}
    return sampled, sampled / _digest(finished)[:8]


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
