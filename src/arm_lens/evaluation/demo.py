"""The demonstration: a reward model for each criterion of the bundled judge model, beside its controls.

Reward models are fitted on labelled replies written with the sentence frames the judge model was trained on and judged
on replies whose frames and word combinations neither has seen. Criteria are never named: all the judge knows is what
the examples show. Each finished (criterion, seed) is kept in the output folder, so that an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from arm_lens.engine.models import Model, describe, load_model
from arm_lens.engine.reading import fingerprint
from arm_lens.evaluation.methods import judge_items
from arm_lens.evaluation.results import RunResults
from arm_lens.heads import HeadScores
from arm_lens.judge_model import CRITERIA, CRITERION_WORDING, labelled_responses
from arm_lens.preferences import LabelledResponse
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.selection import Reinforce

TEST_SEED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What is run."""

    criteria: tuple[str, ...] = tuple(CRITERIA)
    seeds: tuple[int, ...] = (0, 1, 2)
    examples: int = 40
    """Labelled replies per criterion and seed, read and chosen on by halves in turn."""
    test_items: int = 400
    demonstrations: int = 8
    random_sets: int = 20
    batch_size: int = 5
    """Prompts per forward pass; on a CPU, small batches of long prompts are the quicker ones."""
    selector: Reinforce = field(default_factory=Reinforce)

    def __post_init__(self) -> None:
        unknown = [name for name in self.criteria if name not in CRITERIA]
        if unknown:
            raise ValueError(f"unknown criterion {unknown[0]!r}; the judge model knows {', '.join(CRITERIA)}")


def run_demo(
    out: str | Path, *, options: DemoOptions | None = None, model: Model | None = None, progress: bool = True
) -> RunResults:
    """Fit and evaluate every criterion and seed, and write results and reward models to ``out``.

    Args:
        out: folder; finished parts in it, made with the same options, are not run again.
        options: what is run.
        model: by default the bundled judge model.
        progress: show a progress bar.
    """
    options = options or DemoOptions()
    out, model = Path(out), model or load_model()
    jobs = [(criterion, seed) for seed in options.seeds for criterion in options.criteria]
    bar = tqdm(jobs, desc="criteria x seeds", unit="fit", disable=not progress)
    for criterion, seed in bar:
        bar.set_postfix_str(f"{criterion}, seed {seed}")
        _run_part(out, model, criterion, seed, options)
    parts = [RunResults.load(_part_folder(out, *job)) for job in jobs]
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    results = RunResults(
        meta=_meta(model, options, sum(part.meta["seconds"] for part in parts)),
        rows=_ordered(rows, options),
        items=_ordered(pd.concat([part.items for part in parts], ignore_index=True), options),
        heads=_ordered(pd.concat([part.heads for part in parts], ignore_index=True), options),
        history=_ordered(pd.concat([part.history for part in parts], ignore_index=True), options),
    )
    results.save(out)
    return results


def test_items(criterion: str, options: DemoOptions) -> list[LabelledResponse]:
    """The held-out items a criterion is judged on; the same for every seed."""
    return labelled_responses(criterion, options.test_items, split="test", seed=TEST_SEED)


def _part_folder(out: Path, criterion: str, seed: int) -> Path:
    return out / "parts" / f"{criterion}-{seed}"


def _run_part(out: Path, model: Model, criterion: str, seed: int, options: DemoOptions) -> None:
    folder = _part_folder(out, criterion, seed)
    # Which criteria and seeds belong to the run does not matter to one of them.
    made_with = {
        "options": json.loads(json.dumps(asdict(options) | {"criteria": None, "seeds": None})),
        "model": describe(model).to_dict(),
        "weights": hashlib.sha256(fingerprint(model).numpy().tobytes()).hexdigest(),
        "version": version("arm-lens"),
    }
    done = folder / "results.json"
    if done.exists() and {k: v for k, v in RunResults.load(folder).meta.items() if k != "seconds"} == made_with:
        return
    started = time.monotonic()
    examples = labelled_responses(criterion, options.examples, split="train", seed=seed)
    fitted = ActivationRewardModel.fit(
        model,
        examples,
        criterion=criterion,
        demonstrations=options.demonstrations,
        selector=options.selector,
        seed=seed,
        batch_size=options.batch_size,
    )
    fitted.save(out / "reward_models" / f"{criterion}-{seed}")
    test = test_items(criterion, options)
    items, rows = judge_items(
        fitted, test, examples, demonstrations=options.demonstrations, random_sets=options.random_sets, seed=seed
    )
    items["prompt"] = items["item"].map(lambda number: test[number].prompt)
    items["response"] = items["item"].map(lambda number: test[number].response)
    heads, history = head_frames(fitted)
    which: dict[str, Any] = {"criterion": criterion, "seed": seed}
    RunResults(
        meta={**made_with, "seconds": time.monotonic() - started},
        rows=rows.assign(**which),
        items=items.assign(**which),
        heads=heads.assign(**which),
        history=history.assign(**which),
    ).save(folder)


def head_frames(fitted: ActivationRewardModel) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per head, its selection probability and whether it was selected; per step, the search's history."""
    given = HeadScores("given", fitted.heads.mask.float())  # heads that were not searched for were certain
    scores = given if fitted.selection is None else fitted.selection.scores
    heads = scores.frame().rename(columns={"score": "probability"})
    heads["selected"] = [(layer, head) in fitted.heads for layer, head in zip(heads.layer, heads["head"], strict=True)]
    return heads, pd.DataFrame() if fitted.selection is None else fitted.selection.history


def _ordered(frame: pd.DataFrame, options: DemoOptions) -> pd.DataFrame:
    """Criteria in the order asked for, then seeds."""
    position = frame["criterion"].map(list(options.criteria).index)
    keyed = frame.assign(_position=position).sort_values(["_position", "seed"], kind="stable")
    return keyed.drop(columns="_position").reset_index(drop=True)


def _meta(model: Model, options: DemoOptions, seconds: float) -> dict[str, object]:
    return {
        "title": "Eight preferences, read from attention heads",
        "model": describe(model).name,
        "date": datetime.now(UTC).date().isoformat(),
        "seeds": list(options.seeds),
        "n_test": options.test_items,
        "n_examples": options.examples,
        "demonstrations": options.demonstrations,
        "n_random_sets": options.random_sets,
        "runtime_seconds": round(seconds, 1),
        "versions": {name: version(name) for name in ("arm-lens", "torch", "transformer-lens", "transformers")},
        "command": "arm-lens demo",
        "criteria": {name: CRITERION_WORDING[name] for name in options.criteria},
        "notes": list(_notes(options)),
    }


def _notes(options: DemoOptions) -> Iterator[str]:
    yield (
        f"Every reward model was fitted on {options.examples} labelled replies, cross-fitted: each half was read, "
        f"{options.demonstrations} demonstrations in each prompt, to choose heads on the other. The criterion is never named to "
        "the judge."
    )
    yield (
        f"All methods judge the same {options.test_items} held-out replies, whose sentence frames and word combinations "
        "occur neither in the judge's training nor in the examples."
    )
    yield (
        "few_shot sees the same labelled replies as the reward model, a fresh draw of "
        f"{options.demonstrations} in every prompt. random_heads is the mean over {options.random_sets} sets with as many heads "
        "per layer as were chosen."
    )
