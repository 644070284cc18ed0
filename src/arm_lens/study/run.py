"""Making a study: criterion by criterion what takes long, then the criteria against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from arm_lens.attribution import head_card, scores_of
from arm_lens.benchmark.parts import REWARD_MODELS, head_frames
from arm_lens.benchmark.results import BenchmarkResults
from arm_lens.comparison import agreement, depth_profile, mean_cosines, overlap, rank_correlation, stability, transfer
from arm_lens.engine.language_model import ModelLike
from arm_lens.preferences import LabelledResponse, Preference
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import locked
from arm_lens.study.halves import Halves, check, in_halves
from arm_lens.study.parts import Part, PartOptions, study_part
from arm_lens.study.tables import HeadStudy

STEPS = 40
"""So many steps of a search are kept, evenly spread."""
FOLDER = "study"
"""Where the study of a run is kept in the run's folder."""


def study_heads(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    *,
    heads: pd.DataFrame | None = None,
    out: str | Path | None = None,
    standard_error: float = 0.01,
    random_sets: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> HeadStudy:
    """Study the heads of several criteria.

    Args:
        rewards: a fitted reward model per criterion, of one language model.
        examples: labelled examples per criterion that its reward model was not fitted on, both kinds; one half is for
            attribution, the other for the curves and for transfer (`in_halves`).
        heads: the table of chosen heads over several seeds, for stability; by default that of ``rewards``.
        out: a folder to write the study to; what is finished in it of a criterion, made of the same, is not made again.
        standard_error: of the Shapley values and interactions, see `arm_lens.attribution.shapley_values`. Shapley values
            that ``out`` holds at a smaller one are taken as they are.
        random_sets: random sets and rankings that the chosen ones are compared with.
        seed: of everything random, the halves included.
        progress: show progress bars.

    Raises:
        ValueError: before anything is measured: if there is no reward model; or naming the criterion, if it has no
            examples that give two halves, cannot be asked about them, has a name that tables need (``all``,
            ``random heads``, ``none``), or a reward model by soft gates or of another language model than the first.
        StoreBusyError: if another process is writing a study to ``out``.
        DamagedFileError: naming the file, if what is finished in ``out`` was changed since.
    """
    check(rewards, examples)
    if random_sets < 1:
        raise ValueError(f"the controls need at least one random draw, not {random_sets}")
    halves = {
        name: in_halves(examples[name], criterion=name, layout=reward.judge.layout, seed=seed)
        for name, reward in rewards.items()
    }
    among = _among_criteria(rewards, _heads(rewards) if heads is None else heads)
    parts_folder = None if out is None else Path(out) / "parts"
    options = PartOptions(standard_error=standard_error, random_sets=random_sets, seed=seed, progress=progress)

    def study() -> HeadStudy:
        parts = [
            study_part(name, reward, halves[name], options, out=parts_folder)
            for name, reward in tqdm(rewards.items(), desc="criteria", unit="criterion", disable=not progress)
        ]
        judged = {name: second for name, (_, second) in halves.items()}
        transferred = transfer(rewards, judged, random_sets=random_sets, seed=seed, progress=progress)
        return _gathered(rewards, halves, parts, among, transferred)

    if out is None:
        return study()
    with locked(out):
        made = study()
        made.save(out)
    return made


def study_run(
    folder: str | Path,
    *,
    model: ModelLike | None = None,
    examples: int = 80,
    standard_error: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> HeadStudy:
    """Study the reward models of a run's first seed, on items the run judged, and keep the study in the run's folder.

    Args:
        folder: what ``arm-lens demo`` wrote, or ``arm-lens benchmark`` with ``keep_reward_models``. The first benchmark is
            studied in which the lead judge chose heads.
        model: the language model; by default the recorded one is loaded.
        examples: items per criterion, at most; half of them for attribution.
        standard_error: of the Shapley values and interactions.
        seed: of everything random.
        progress: show progress bars.

    Raises:
        FileNotFoundError: if the folder holds no such run.
        ValueError: as `study_heads`.
    """
    folder = Path(folder)
    if not (folder / "results.json").exists():
        raise FileNotFoundError(f"{folder} is no run's folder to study: it holds no results.json")
    results = BenchmarkResults.load(folder)
    heads, items, fits = (results.of_lead(table) for table in ("heads", "items", "fits"))
    if heads.empty or "reward_model" not in fits or not (folder / REWARD_MODELS).is_dir():
        raise FileNotFoundError(
            f"{folder} holds no reward models, whose heads are studied; `arm-lens demo` keeps them, and `arm-lens "
            "benchmark` does where its configuration says keep_reward_models"
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
        rewards,
        held_out,
        heads=heads,
        out=folder / FOLDER,
        standard_error=standard_error,
        seed=seed,
        progress=progress,
    )


def _among_criteria(rewards: Mapping[str, ActivationRewardModel], heads: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that need no example, made first: they take no time, and may refuse what they are given."""
    sets = {name: reward.heads for name, reward in rewards.items()}
    means = {name: reward.means for name, reward in rewards.items()}
    several = heads.groupby("criterion")["seed"].nunique().min() > 1
    return {
        "heads": heads,
        "trajectory": _trajectories(rewards),
        "overlap": overlap(sets, within_layers=True) if len(sets) > 1 else pd.DataFrame(),
        "cosines": mean_cosines(means) if len(means) > 2 else pd.DataFrame(),
        "stability": stability(heads) if several else pd.DataFrame(),
        "depth": depth_profile(sets),
    }


def _gathered(
    rewards: Mapping[str, ActivationRewardModel],
    halves: Mapping[str, Halves],
    parts: Sequence[Part],
    among: Mapping[str, pd.DataFrame],
    transferred: pd.DataFrame,
) -> HeadStudy:
    attributions = pd.concat([part.attributions for part in parts], ignore_index=True)
    scores = scores_of(attributions)
    attention, tokens = _cards(rewards, {name: first for name, (first, _) in halves.items()}, attributions)
    return HeadStudy(
        **among,
        attributions=attributions,
        agreement=agreement(attributions),
        interactions=pd.concat([part.interactions for part in parts], ignore_index=True),
        curve=pd.concat([part.curve for part in parts], ignore_index=True),
        rank_correlation=rank_correlation(scores) if len(scores) > 1 else pd.DataFrame(),
        transfer=transferred,
        card_attention=attention,
        card_tokens=tokens,
    )


def _balanced(items: pd.DataFrame, count: int) -> list[Preference]:
    """So many items, half of them of each kind, as labelled responses."""
    some = pd.concat([rows.head(count // 2) for _, rows in items.groupby("label")])
    return [
        LabelledResponse(row["prompt"], row["response"], bool(row["label"]), id=str(row["item"]))
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
        card = head_card(rewards[name], head, examples[name])
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
