"""One criterion of a study: its attributions, interactions and curve, each stored as soon as it is finished.

The digest in ``NAME shapley DIGEST.checkpoint``, the samples of the Shapley values, is of everything that sampling depends on
except its length: the reward model, the language model, the halves of the examples, the seed. Another standard error
continues from them. The digests of the tables also include the standard error and the number of random rankings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from arm_lens.attribution import accuracy_by_heads, attribute, interactions, scores_of
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import Store, digest_of, digest_of_bytes
from arm_lens.study.halves import Halves

CURVES = ("shapley", "injection", "gradient", "selection_probability")
"""The measures whose rankings are judged by their curves."""


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How a criterion is studied."""

    standard_error: float
    """Of sampled values: Shapley values, interactions of many heads."""
    random_sets: int
    """Random rankings."""
    seed: int
    progress: bool = False


def study_part(
    name: str, reward: ActivationRewardModel, halves: Halves, options: PartOptions, *, out: Path | None = None
) -> dict[str, pd.DataFrame]:
    """Attribute on the first half, and judge the rankings on the second; read the tables that the folder ``out`` has.

    Returns:
        Tables by name: ``attributions``, ``interactions`` (empty with fewer than two chosen heads) and ``curve``.
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

    def stored(table: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if out is None:
            return make()
        digest = digest_of([sampled, table, error, options.random_sets])
        return Store(out).frame(digest, make, name=f"{name} {table}")

    attributions = stored("attributions", attributed)

    def curve() -> pd.DataFrame:
        measured = [measure for measure in CURVES if measure in set(attributions["measure"])]
        rankings = {measure: scores_of(attributions, measure)[name] for measure in measured}
        objective = reward.objective(halves[1], progress=progress)
        return accuracy_by_heads(objective, rankings, random_rankings=options.random_sets, seed=seed, criterion=name)

    return {
        "attributions": attributions,
        "interactions": stored("interactions", interacting),
        "curve": stored("curve", curve),
    }


def file_names(names: Sequence[str], *, most: int = 60) -> dict[str, str]:
    """A file name for each name, of ASCII letters, digits, ``_`` and ``-``, all different even without regard to case.

    Args:
        names: all different.
        most: characters, without the number that distinguishes equal file names.
    """
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", name)[:most].strip("_-") or "criterion"
        taken = {used.lower() for used in found.values()}
        candidates = (stem if count == 1 else f"{stem}-{count}" for count in itertools.count(1))
        found[name] = next(candidate for candidate in candidates if candidate.lower() not in taken)
    return found


def _digest(name: str, reward: ActivationRewardModel, halves: Halves, options: PartOptions) -> str:
    """A digest of everything that attribution depends on, except the length of sampling."""
    judge, scores = reward.judge, None if reward.selection is None else reward.selection.head_scores
    tensors = [reward.means.values]
    if scores is not None:
        tensors.append(scores.values.detach().float().cpu())
    depends_on = {
        "criterion": name,
        "model": fingerprint_of(judge.model, judge.question, judge.demonstrations).digest,
        "tensors": [digest_of_bytes(tensor.numpy().tobytes()) for tensor in tensors],
        "heads": reward.heads.to_list(),
        "by": None if scores is None else scores.name,
        "injection": reward.injection.to_dict(),
        "questions": [judge.layout, judge.criterion_text, judge.template.to_dict(), reward.record.seed],
        "examples": repr(halves),
        "seed": options.seed,
        "version": version("arm-lens"),
    }
    return digest_of(depends_on)
