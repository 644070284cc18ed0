"""A study of heads: everything that is known of the heads of several criteria, in tidy tables.

From reward models of one language model, one per criterion, and held-out examples: attribution of every head by several
measures, how far those agree, interactions of the chosen heads, accuracy against their number, and the criteria against
each other (shared heads, rank correlations, cosines between means, transfer). Heads are attributed on one half of the
examples and rankings are judged on the other. What is finished of a criterion is kept, so that an interrupted study goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from arm_lens.activations import fingerprint
from arm_lens.attribution import accuracy_by_heads, attribute, head_card, interactions, scores_of
from arm_lens.comparison import agreement, depth_profile, mean_cosines, overlap, rank_correlation, stability, transfer
from arm_lens.evaluation import RunResults
from arm_lens.evaluation.demo import head_frames
from arm_lens.models import Model
from arm_lens.preferences import LabelledResponse, Preference
from arm_lens.reward import ActivationRewardModel

CURVES = ("shapley", "injection", "gradient", "selection_probability")
"""The measures whose rankings are judged by their curves."""
STEPS = 40
"""So many steps of a search are kept, evenly spread."""
FOLDER = "study"
"""Where the study of a run is kept in the run's folder."""


@dataclass(frozen=True, eq=False)
class HeadStudy:
    """The tables of a study; columns as the functions that make them say."""

    heads: pd.DataFrame
    """criterion, seed, layer, head, probability, selected; of all seeds that are known."""
    trajectory: pd.DataFrame
    """criterion, step, layer, head, probability: the search, thinned; empty if no search has a trajectory."""
    attributions: pd.DataFrame
    agreement: pd.DataFrame
    interactions: pd.DataFrame
    curve: pd.DataFrame
    overlap: pd.DataFrame
    rank_correlation: pd.DataFrame
    cosines: pd.DataFrame
    """Empty with fewer than three criteria, which cannot be centred."""
    stability: pd.DataFrame
    """Empty with a single seed."""
    transfer: pd.DataFrame
    depth: pd.DataFrame
    card_attention: pd.DataFrame
    """What the card of each criterion's head of the highest Shapley value shows: criterion, layer, head, and the columns of
    `HeadCard.attention`."""
    card_tokens: pd.DataFrame
    """criterion, layer, head, and the columns of `HeadCard.tokens`."""

    def save(self, folder: str | Path) -> Path:
        """Write one Parquet file per table."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            getattr(self, field.name).to_parquet(folder / f"{field.name}.parquet", index=False)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> HeadStudy:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: naming the table that is missing.
        """
        folder = Path(folder)
        missing = [field.name for field in fields(cls) if not (folder / f"{field.name}.parquet").exists()]
        if missing:
            raise FileNotFoundError(f"{folder} holds no study of heads: {missing[0]}.parquet is missing")
        return cls(**{field.name: pd.read_parquet(folder / f"{field.name}.parquet") for field in fields(cls)})


def study_heads(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    *,
    heads: pd.DataFrame | None = None,
    out: str | Path | None = None,
    standard_error: float = 0.01,
    random_draws: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> HeadStudy:
    """Study the heads of several criteria.

    Args:
        rewards: a fitted reward model per criterion, of one language model.
        examples: labelled examples per criterion that its reward model was not fitted on, both kinds; one half is for
            attribution, the other for the curves and for transfer.
        heads: the table of chosen heads over several seeds, for stability; by default that of ``rewards``.
        out: a folder to write the study to; what is finished in it of a criterion, made of the same, is not made again.
        standard_error: of the Shapley values, see `arm_lens.attribution.shapley_values`.
        random_draws: random sets and rankings that the chosen ones are compared with.
        seed: of everything random.
        progress: show progress bars.

    Raises:
        ValueError: if there is no reward model, or no examples for one, or too few to halve.
    """
    if not rewards:
        raise ValueError("there are no reward models to study")
    lacking = [name for name in rewards if len(examples.get(name, ())) < 4]
    if lacking:
        raise ValueError(f"at least four examples are needed to study {lacking[0]!r}")
    out = None if out is None else Path(out)
    parts = []
    for name, reward in tqdm(rewards.items(), desc="criteria", unit="criterion", disable=not progress):
        halves = _halves(examples[name])
        options = {"standard_error": standard_error, "random_draws": random_draws, "seed": seed}
        digest = _digest(reward, examples[name], options)
        folder = None if out is None else out / "parts" / f"{_file_name(name)}-{digest}"
        parts.append(_study_one(name, reward, halves, folder, standard_error, random_draws, seed, progress))
    attributions, interacting, curve = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    attention, tokens = _cards(rewards, examples, attributions)
    sets = {name: reward.heads for name, reward in rewards.items()}
    scores = scores_of(attributions)
    heads = _heads(rewards) if heads is None else heads
    several = heads.groupby("criterion")["seed"].nunique().min() > 1
    means = {name: reward.means for name, reward in rewards.items()}
    judged = {name: _halves(examples[name])[1] for name in rewards}
    study = HeadStudy(
        heads=heads,
        trajectory=_trajectories(rewards),
        attributions=attributions,
        agreement=agreement(attributions),
        interactions=interacting,
        curve=curve,
        overlap=overlap(sets, within_layers=True) if len(sets) > 1 else pd.DataFrame(),
        rank_correlation=rank_correlation(scores) if len(scores) > 1 else pd.DataFrame(),
        cosines=mean_cosines(means) if len(means) > 2 else pd.DataFrame(),
        stability=stability(heads) if several else pd.DataFrame(),
        transfer=transfer(rewards, judged, random_draws=random_draws, seed=seed, progress=progress),
        depth=depth_profile(sets),
        card_attention=attention,
        card_tokens=tokens,
    )
    if out is not None:
        study.save(out)
    return study


def study_run(
    folder: str | Path,
    *,
    model: Model | None = None,
    examples: int = 80,
    standard_error: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> HeadStudy:
    """Study the reward models of a run's first seed, on items the run judged, and keep the study in the run's folder.

    Args:
        folder: what ``arm-lens demo`` wrote: results, ``items.parquet``, ``reward_models/``.
        model: the language model; by default the recorded one is loaded.
        examples: items per criterion, half of them for attribution.
        standard_error: of the Shapley values.
        seed: of everything random.
        progress: show progress bars.

    Raises:
        FileNotFoundError: if the folder holds no such run.
    """
    folder = Path(folder)
    results = RunResults.load(folder)
    first = results.heads["seed"].min()
    rewards: dict[str, ActivationRewardModel] = {}
    for criterion in results.heads["criterion"].unique():
        path = folder / "reward_models" / f"{criterion}-{first}"
        model = model or ActivationRewardModel.load(path).judge.model
        rewards[criterion] = ActivationRewardModel.load(path, model)
    items = results.items[results.items["seed"] == first].drop_duplicates(["criterion", "item"])
    held_out = {criterion: _balanced(rows, examples) for criterion, rows in items.groupby("criterion", sort=False)}
    return study_heads(
        rewards,
        held_out,
        heads=results.heads,
        out=folder / FOLDER,
        standard_error=standard_error,
        seed=seed,
        progress=progress,
    )


def _study_one(
    name: str,
    reward: ActivationRewardModel,
    halves: tuple[list[Preference], list[Preference]],
    folder: Path | None,
    standard_error: float,
    random_draws: int,
    seed: int,
    progress: bool,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Attributions, interactions and curve of one criterion; read, if they are kept."""
    tables = ("attributions", "interactions", "curve")
    if folder is not None and all((folder / f"{table}.parquet").exists() for table in tables):
        attributions, interacting, curve = (pd.read_parquet(folder / f"{table}.parquet") for table in tables)
        return attributions, interacting, curve
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    attributions = attribute(
        reward,
        halves[0],
        standard_error=standard_error,
        seed=seed,
        checkpoint=None if folder is None else folder / "shapley.pt",
        progress=progress,
    ).assign(criterion=name)
    objective = reward.objective(halves[0])
    several = len(reward.heads) > 1
    interacting = interactions(objective, reward.heads, criterion=name).frame() if several else pd.DataFrame()
    measured = [measure for measure in CURVES if measure in set(attributions["measure"])]
    curve = accuracy_by_heads(
        reward.objective(halves[1]),
        {measure: scores_of(attributions, measure)[name] for measure in measured},
        random_rankings=random_draws,
        seed=seed,
        criterion=name,
    )
    if folder is not None:
        for table, frame in zip(tables, (attributions, interacting, curve), strict=True):
            partial = folder / f"{table}.parquet.partial"
            frame.to_parquet(partial, index=False)
            partial.replace(folder / f"{table}.parquet")
    return attributions, interacting, curve


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name)[:80]


def _halves(examples: Sequence[Preference]) -> tuple[list[Preference], list[Preference]]:
    """The first and the second half of each kind of example."""
    kinds: dict[Any, list[Preference]] = {}
    for example in examples:
        kinds.setdefault(example.label if isinstance(example, LabelledResponse) else "pair", []).append(example)
    halves: tuple[list[Preference], list[Preference]] = ([], [])
    for some in kinds.values():
        halves[0].extend(some[: len(some) // 2])
        halves[1].extend(some[len(some) // 2 :])
    return halves


def _balanced(items: pd.DataFrame, count: int) -> list[Preference]:
    """So many items, half of them of each kind, as labelled responses."""
    some = pd.concat([rows.head(count // 2) for _, rows in items.groupby("label")])
    return [
        LabelledResponse(row["prompt"], row["response"], bool(row["label"]), id=f"item {row['item']}")
        for _, row in some.iterrows()
    ]


def _cards(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    attributions: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attention and tokens of the head with the highest Shapley value of each criterion."""
    attention: list[pd.DataFrame] = []
    tokens: list[pd.DataFrame] = []
    for name, scores in scores_of(attributions).items():
        (head,) = scores.top(1)
        card = head_card(rewards[name], head, _halves(examples[name])[0])
        for tables, table in ((attention, card.shown_attention()), (tokens, card.tokens)):
            tables.append(table.assign(criterion=name, layer=head.layer, head=head.head))
    return pd.concat(attention, ignore_index=True), pd.concat(tokens, ignore_index=True)


def _heads(rewards: Mapping[str, ActivationRewardModel]) -> pd.DataFrame:
    frames = [
        head_frames(reward)[0].assign(criterion=name, seed=reward.record.seed) for name, reward in rewards.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _trajectories(rewards: Mapping[str, ActivationRewardModel]) -> pd.DataFrame:
    """The searches' probabilities at some steps, the last among them."""
    frames = []
    for name, reward in rewards.items():
        trajectory = None if reward.selection is None else reward.selection.trajectory
        if trajectory is None:
            continue
        steps = sorted({round(step) for step in torch.linspace(0, len(trajectory) - 1, STEPS).tolist()})
        grid = pd.MultiIndex.from_product(
            [steps, range(trajectory.shape[1]), range(trajectory.shape[2])], names=["step", "layer", "head"]
        )
        frame = grid.to_frame(index=False)
        frames.append(frame.assign(criterion=name, probability=trajectory[steps].flatten().numpy()))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _digest(reward: ActivationRewardModel, examples: Sequence[Preference], options: Mapping[str, Any]) -> str:
    """Of everything that a criterion's part depends on."""
    tensors = [fingerprint(reward.judge.model), reward.means.values]
    if reward.selection is not None:
        tensors.append(reward.selection.scores.values)
    told = {
        "tensors": [hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for tensor in tensors],
        "heads": reward.heads.to_list(),
        "injection": reward.injection.to_dict(),
        "asked": [reward.judge.layout, reward.judge.wording, reward.judge.template.to_dict()],
        "examples": repr(list(examples)),
        "options": dict(options),
        "version": version("arm-lens"),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
