"""One criterion of a study: its attributions, interactions and curve, each in the store as soon as it is there.

The sampled Shapley values, ``NAME shapley DIGEST.checkpoint``, are found by everything that sampling depends on but how
long it goes on: the reward model, the language model, the halves of the examples, the seed. Another standard error goes on
from them. The finished tables are found by that, the standard error and the number of random rankings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from arm_lens.attribution import accuracy_by_heads, attribute, interactions, scores_of
from arm_lens.engine.reading import fingerprint
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import Store, digest_of, digest_of_bytes
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
    sampled = _digest(name, reward, halves, options)
    checkpoint = None if out is None else out / f"{file_names([name])[name]} shapley {sampled}.checkpoint"
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

    def kept(table: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if out is None:
            return make()
        digest = digest_of([sampled, table, options.standard_error, options.random_sets])
        return Store(out).frame(digest, make, name=f"{name} {table}")

    attributions = kept("attributions", attributed)
    measured = set(attributions["measure"])

    def curve() -> pd.DataFrame:
        rankings = {measure: scores_of(attributions, measure)[name] for measure in CURVES if measure in measured}
        objective = reward.objective(halves[1], progress=progress)
        return accuracy_by_heads(objective, rankings, random_rankings=options.random_sets, seed=seed, criterion=name)

    return Part(attributions, kept("interactions", interacting), kept("curve", curve))


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


def _digest(name: str, reward: ActivationRewardModel, halves: Halves, options: PartOptions) -> str:
    """Of all that attribution depends on but how long sampling goes on."""
    tensors = [fingerprint(reward.judge.model), reward.means.values]
    if reward.selection is not None:
        tensors.append(reward.selection.head_scores.values.detach().float().cpu())
    judge = reward.judge
    depends_on = {
        "criterion": name,
        "tensors": [digest_of_bytes(tensor.numpy().tobytes()) for tensor in tensors],
        "heads": reward.heads.to_list(),
        "by": None if reward.selection is None else reward.selection.head_scores.name,
        "injection": reward.injection.to_dict(),
        "questions": [judge.layout, judge.criterion_text, judge.template.to_dict(), reward.record.seed],
        "examples": repr(halves),
        "seed": options.seed,
        "version": version("arm-lens"),
    }
    return digest_of(depends_on)
