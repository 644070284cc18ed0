"""What a study must be able to rely on: examples in two halves that share no prompt, and reward models that can be compared.

A study takes minutes to hours, so that whatever would be refused at its end is refused here, before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arm_lens.comparison.agreement import ALL
from arm_lens.comparison.transfer import NONE, RANDOM
from arm_lens.engine.reading import fingerprint
from arm_lens.heads import HeadSet
from arm_lens.judges.options import Layout
from arm_lens.preferences import LabelledResponse, Preference, PreferencePair, split_preferences
from arm_lens.reward.model import ActivationRewardModel

RESERVED = {
    ALL: "that is the name of rows over all criteria",
    RANDOM: "that is the name of a control",
    NONE: "that is the name of a control",
}
"""What no criterion may be called, and why."""
SAME_MODEL = 0.02
"""How far, in share of the largest, fingerprints of one language model may be apart (on two devices, say)."""
Halves = tuple[list[Preference], list[Preference]]


def check(rewards: Mapping[str, ActivationRewardModel], examples: Mapping[str, Sequence[Preference]]) -> None:
    """Refuse what some table of a study would refuse.

    Raises:
        ValueError: if there is no reward model; or naming the criterion, if it has a name that tables need for something
            else, less than four examples or some that its reward model cannot be asked about, or a reward model that moves
            heads by gates or belongs to another language model than the first.
    """
    if not rewards:
        raise ValueError("there are no reward models to study")
    for name, reward in rewards.items():
        if name in RESERVED:
            raise ValueError(f"no criterion may be called {name!r}: {RESERVED[name]}")
        if not isinstance(reward.chosen, HeadSet):
            raise ValueError(
                f"{name!r} moves all heads by soft gates and has no set of heads to study; fit it with "
                "SoftGate(discrete=True), or take with_heads(reward.heads)"
            )
        some = examples.get(name, ())
        if len(some) < 4:
            raise ValueError(f"at least four examples are needed to study {name!r}, not {len(some)}")
        single = next((number for number, one in enumerate(some) if isinstance(one, LabelledResponse)), None)
        if reward.judge.layout == "ranked" and single is not None:
            raise ValueError(
                f"the reward model of {name!r} compares two responses, and example {single} is a single labelled one; give "
                "it pairs"
            )
    _check_models(rewards)


def _check_models(rewards: Mapping[str, ActivationRewardModel]) -> None:
    """Means and heads can be compared within one language model only."""
    models = {id(reward.judge.model): reward.judge.model for reward in rewards.values()}
    prints = {key: fingerprint(model) for key, model in models.items()}
    first, *others = rewards
    known, info = prints[id(rewards[first].judge.model)], rewards[first].info
    for name in others:
        own, told = prints[id(rewards[name].judge.model)], rewards[name].info
        if own.shape == known.shape and float((own - known).abs().max()) <= SAME_MODEL * float(known.abs().max()):
            continue
        raise ValueError(
            f"reward models of one language model are studied together, but that of {first!r} is of {info.name} "
            f"({info.n_layers} layers of {info.n_heads} heads, {info.weight_processing} weights) and that of {name!r} of "
            f"{told.name} ({told.n_layers} layers of {told.n_heads} heads, {told.weight_processing} weights)"
        )


def in_halves(examples: Sequence[Preference], *, criterion: str, layout: Layout = "scalar", seed: int = 0) -> Halves:
    """Two halves of labelled examples that share no prompt, near equal in size and with the same share of each kind.

    Args:
        examples: of one criterion; they may name it, or not.
        criterion: its name, for the error.
        layout: how they are asked about. A pair gives questions of both kinds in the scalar layout; in the ranked one it
            gives one, so that it takes two pairs.
        seed: decides which prompts go where among splits that are equally good (`arm_lens.preferences.split_preferences`).

    Raises:
        ValueError: naming the criterion, if its examples do not give two such halves with questions of both kinds each.
    """
    # What is split names no criterion: there, the same prompt under two criteria is two.
    stand_ins = [_unnamed(one) for one in examples]
    behind = {id(stand_in): one for stand_in, one in zip(stand_ins, examples, strict=True)}
    try:
        parts = split_preferences(stand_ins, {"first": 0.5, "second": 0.5}, seed=seed, stratify="label")
    except ValueError:  # all examples are of one prompt
        parts = {"first": stand_ins, "second": []}
    first, second = ([behind[id(one)] for one in parts[half]] for half in ("first", "second"))
    if not (_both_kinds(first, layout) and _both_kinds(second, layout)):
        raise ValueError(
            f"the {len(examples)} examples of {criterion!r} are too few, or too many of one prompt or kind, for two "
            "halves that share no prompt and have questions of both kinds each"
        )
    return first, second


def _unnamed(example: Preference) -> Preference:
    if isinstance(example, PreferencePair):
        return PreferencePair(example.prompt, example.chosen, example.rejected)
    return LabelledResponse(example.prompt, example.response, example.label)


def _both_kinds(half: Sequence[Preference], layout: Layout) -> bool:
    """Whether the questions about these examples have right verdicts of both kinds."""
    if layout == "ranked":
        return len(half) > 1
    labels = [one.label for one in half if isinstance(one, LabelledResponse)]
    return len(labels) < len(half) or len(set(labels)) > 1
