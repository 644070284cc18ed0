"""Checks before a study, which takes minutes to hours, and its examples in two halves without a common prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from arm_lens.comparison.agreement import ALL
from arm_lens.comparison.transfer import NONE, RANDOM
from arm_lens.judges.options import Layout
from arm_lens.judges.questions import listed_names
from arm_lens.preferences import LabelledResponse, OverlapError, Preference, split_preferences
from arm_lens.reward.algebra import check_same_model
from arm_lens.reward.model import ActivationRewardModel

CONTROL = "that is the name of a control"
RESERVED = {ALL: "that is the name of rows over all criteria", RANDOM: CONTROL, NONE: CONTROL}
"""Names that a criterion must not have, and why."""
Halves = tuple[list[Preference], list[Preference]]


def check(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    on_overlap: Literal["raise", "warn"] = "raise",
) -> None:
    """Raise the errors that some table of a study would raise; `arm_lens.study.study_heads` lists them."""
    if not rewards:
        raise ValueError("there are no reward models to study")
    for name, reward in rewards.items():
        if name in RESERVED:
            raise ValueError(f"no criterion may be called {name!r}: {RESERVED[name]}")
        reward.check_heads(name)
        some = examples.get(name, ())
        if len(some) < 4:
            raise ValueError(f"at least four examples are needed to study {name!r}, not {len(some)}")
        if (known := reward.fitted_among(some)) and on_overlap == "raise":
            raise OverlapError(
                f"the reward model of {name!r} was fitted on {len(known)} of the {len(some)} examples that it is studied on: "
                f"{listed_names(known)}; give others, or pass on_overlap='warn'"
            )
        single = next((number for number, one in enumerate(some) if isinstance(one, LabelledResponse)), None)
        if reward.judge.layout == "ranked" and single is not None:
            raise ValueError(
                f"the reward model of {name!r} compares two responses, and example {single} is a single labelled one; give "
                "it pairs"
            )
    first, *others = rewards
    for name in others:
        check_same_model(rewards[first], rewards[name], (first, name))


def in_halves(examples: Sequence[Preference], *, criterion: str, layout: Layout = "scalar", seed: int = 0) -> Halves:
    """Two halves of labelled examples without a common prompt, near equal in size and in their share of each kind.

    Without prompts, or with one for all, they have no common text (`arm_lens.preferences.clusters`).

    Args:
        examples: of one criterion; they may name it, or not.
        criterion: its name, for the error.
        layout: of the questions. A pair gives questions of both kinds in the scalar layout, and one question in the ranked
            layout, which needs two pairs.
        seed: chooses between equally good splits (`arm_lens.preferences.split_preferences`).

    Raises:
        ValueError: naming the criterion, if its examples do not give two such halves with questions of both kinds each.
    """
    # A split distinguishes the same prompt under two criteria; here it must not.
    stand_ins = [replace(example, criterion="") for example in examples]
    original = {id(stand_in): example for stand_in, example in zip(stand_ins, examples, strict=True)}
    try:
        parts = split_preferences(stand_ins, {"first": 0.5, "second": 0.5}, seed=seed, stratify="label")
    except ValueError:  # they are too few, or all of one cluster
        parts = {"first": stand_ins, "second": []}
    first, second = ([original[id(one)] for one in part] for part in parts.values())
    if not (_both_kinds(first, layout) and _both_kinds(second, layout)):
        raise ValueError(
            f"the {len(examples)} examples of {criterion!r} are too few, or too many of one prompt or kind, for two "
            "halves that share no prompt (or text) and have questions of both kinds each"
        )
    return first, second


def _both_kinds(half: Sequence[Preference], layout: Layout) -> bool:
    """Whether the questions about these examples have right verdicts of both kinds."""
    if layout == "ranked":
        return len(half) > 1
    labels = [one.label for one in half if isinstance(one, LabelledResponse)]
    return len(labels) < len(half) or len(set(labels)) > 1
