"""Making a study: first each criterion by itself, which takes long, then the criteria against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm.auto import tqdm

from arm_lens.attribution import head_card, scores_of
from arm_lens.benchmark.parts import REWARD_MODELS, STUDY, head_frames
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.comparison import agreement, depth_profile, mean_cosines, overlap, rank_correlation, stability, transfer
from arm_lens.engine.language_model import ModelLike
from arm_lens.heads import HeadScores, trajectory_frame
from arm_lens.preferences import LabelledResponse, Preference
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import locked
from arm_lens.study.halves import Halves, check, in_halves
from arm_lens.study.parts import PartOptions, study_part
from arm_lens.study.tables import HeadStudy

STEPS = 40
"""Steps of a search in the table, evenly spread."""
FOLDER = STUDY
"""The folder of a run's study, in the run's folder."""


def study_heads(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    *,
    heads: pd.DataFrame | None = None,
    out: str | Path | None = None,
    standard_error: float = 0.01,
    random_sets: int = 20,
    seed: int = 0,
    on_overlap: Literal["raise", "warn"] = "raise",
    progress: bool = False,
) -> HeadStudy:
    """Study the heads of several criteria.

    Args:
        rewards: a fitted reward model per criterion, of one language model.
        examples: labelled examples per criterion that its reward model was not fitted on, both kinds; one half is for
            attribution, the other for the curves and for transfer (`in_halves`).
        heads: the table of chosen heads over several seeds, for stability; by default that of ``rewards``.
        out: a folder to write the study to; finished tables in it that are made of the same are read.
        standard_error: of the Shapley values and interactions, see `arm_lens.attribution.shapley_values`. Shapley values
            that ``out`` has at a smaller one are used unchanged.
        random_sets: random sets and rankings that the chosen ones are compared with.
        seed: of everything random, the halves included.
        on_overlap: with ``warn``, examples that a reward model was fitted on are an `OverlapWarning`.
        progress: show progress bars.

    Raises:
        OverlapError: naming the examples that their reward model was fitted on, unless ``on_overlap`` is ``warn``.
        ValueError: before anything is measured, if there is no reward model; or naming the criterion, if its examples do not
            give two halves or do not suit its questions, its name is one that tables need (``all``, ``random heads``,
            ``none``), or its reward model has soft gates or another language model than the first.
        StoreBusyError: if another process is writing a study to ``out``.
        DamagedFileError: naming the file, if a finished table in ``out`` was changed since.
    """
    check(rewards, examples, on_overlap)
    if random_sets < 1:
        raise ValueError(f"the controls need at least one random set, not {random_sets}")
    halves = {
        name: in_halves(examples[name], criterion=name, layout=reward.judge.layout, seed=seed)
        for name, reward in rewards.items()
    }
    among = _among_criteria(rewards, _heads(rewards) if heads is None else heads)
    options = PartOptions(standard_error=standard_error, random_sets=random_sets, seed=seed, progress=progress)
    if out is None:
        return _study(rewards, halves, among, options, None)
    with locked(out):
        study = _study(rewards, halves, among, options, Path(out) / "parts")
        study.save(out)
    return study


def study_run(
    folder: str | Path,
    *,
    model: ModelLike | None = None,
    examples: int = 80,
    standard_error: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> HeadStudy:
    """Study the reward models of a run's first seed, on items the run judged, and write the study to the run's folder.

    Args:
        folder: what ``arm-lens demo`` wrote, or ``arm-lens benchmark`` with ``keep_reward_models``. The study is of the
            first benchmark in which the lead judge chose heads.
        model: the language model; by default the recorded one is loaded.
        examples: items per criterion, at most; half of them for attribution.
        standard_error: of the Shapley values and interactions.
        seed: of everything random.
        progress: show progress bars.

    Raises:
        FileNotFoundError: if the folder has no such run.
        ValueError: like `study_heads`.
    """
    folder = Path(folder)
    if not (folder / "results.json").exists():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no results.json")
    results = BenchmarkResults.load(folder)
    heads, items, fits = (results.of_lead(table) for table in ("heads", "items", "fits"))
    if heads.empty or "reward_model" not in fits or not (folder / REWARD_MODELS).is_dir():
        raise FileNotFoundError(
            f"{folder} holds no reward models, whose heads are studied; `arm-lens demo` keeps them, and `arm-lens "
            "benchmark` does if its configuration has keep_reward_models"
        )
    first = heads["seed"].min()
    rewards: dict[str, ActivationRewardModel] = {}
    for fit in fits[fits["seed"] == first].itertuples():
        name = str(fit.subset)
        rewards[name] = ActivationRewardModel.load(folder / REWARD_MODELS / str(fit.reward_model), model)
        model = rewards[name].judge.model
    judged = items[items["seed"] == first]
    held_out = {criterion: _balanced(rows, examples) for criterion, rows in judged.groupby("subset", sort=False)}
    return study_heads(
        rewards, held_out, heads=heads, out=folder / FOLDER, standard_error=standard_error, seed=seed, progress=progress
    )


def _among_criteria(rewards: Mapping[str, ActivationRewardModel], heads: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that need no example, made first: they take no time, and may raise errors."""
    sets = {name: reward.heads for name, reward in rewards.items()}
    means = {name: reward.means for name, reward in rewards.items()}
    if "sample" in heads and heads["sample"].nunique() > 1:  # sets of one sample are not independent of each other
        heads_apart = heads[heads["seed"] == heads.groupby(["criterion", "sample"])["seed"].transform("min")]
    else:
        heads_apart = heads
    several = heads_apart.groupby("criterion")["seed"].nunique().min() > 1
    return {
        "heads": heads,
        "trajectory": trajectory_frame(rewards, steps=STEPS),
        "overlap": overlap(sets, within_layers=True) if len(sets) > 1 else pd.DataFrame(),
        "cosines": mean_cosines(means) if len(means) > 2 else pd.DataFrame(),
        "stability": stability(heads_apart) if several else pd.DataFrame(),
        "depth": depth_profile(sets),
    }


def _study(
    rewards: Mapping[str, ActivationRewardModel],
    halves: Mapping[str, Halves],
    among: Mapping[str, pd.DataFrame],
    options: PartOptions,
    out: Path | None,
) -> HeadStudy:
    parts = [
        study_part(name, reward, halves[name], options, out=out)
        for name, reward in tqdm(rewards.items(), desc="criteria", unit="criterion", disable=not options.progress)
    ]
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    scores = scores_of(tables["attributions"])
    attention, tokens = _cards(rewards, halves, scores)
    held_out = {name: second for name, (_, second) in halves.items()}
    return HeadStudy(
        **among,
        **tables,
        agreement=agreement(tables["attributions"]),
        rank_correlation=rank_correlation(scores) if len(scores) > 1 else pd.DataFrame(),
        transfer=transfer(
            rewards, held_out, random_sets=options.random_sets, seed=options.seed, progress=options.progress
        ),
        card_attention=attention,
        card_tokens=tokens,
    )


def _balanced(items: pd.DataFrame, count: int) -> list[Preference]:
    """At most ``count`` items, half of them of each kind, as labelled responses."""
    some = pd.concat([rows.head(count // 2) for _, rows in items.groupby("label")])
    return [
        LabelledResponse(row["prompt"], row["response"], bool(row["label"]), id=str(row["item"]))
        for _, row in some.iterrows()
    ]


def _cards(
    rewards: Mapping[str, ActivationRewardModel], halves: Mapping[str, Halves], scores: Mapping[str, HeadScores]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attention and tokens of the head with the highest score of each criterion, on the first half."""
    attention, tokens = [], []
    for name, values in scores.items():
        (head,) = values.top(1)
        card = head_card(rewards[name], head, halves[name][0])
        about: dict[str, Any] = {"criterion": name, "layer": head.layer, "head": head.head}
        attention.append(card.displayed_attention().assign(**about))
        tokens.append(card.tokens.assign(**about))
    return pd.concat(attention, ignore_index=True), pd.concat(tokens, ignore_index=True)


def _heads(rewards: Mapping[str, ActivationRewardModel]) -> pd.DataFrame:
    frames = [
        head_frames(reward)[0].assign(criterion=name, seed=reward.record.seed) for name, reward in rewards.items()
    ]
    return pd.concat(frames, ignore_index=True)
