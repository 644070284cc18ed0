"""Do the heads of one criterion serve another?

Two reward models of the same language model differ in their heads and in their means. B's means at A's heads measure whether
the *heads* transfer: whether they represent criteria in general. A's means at A's heads measure whether A's reward model
*judges* as B's does. There are two controls: random heads, as many in every layer as B's own, and none (no steering).

Prompts are read once per criterion, and all masks are tried on them together (`arm_lens.engine.replay`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from arm_lens.comparison.tables import same_size
from arm_lens.evaluation.statistics import accuracy
from arm_lens.preferences import Preference
from arm_lens.reward.algebra import check_same_model
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.selection import JudgingObjective

WhoseMeans = Literal["of the criterion", "of the heads"]
RANDOM, NONE = "random heads", "none"
"""The controls, in the column ``heads_of``."""


def transfer(
    rewards: Mapping[str, ActivationRewardModel],
    examples: Mapping[str, Sequence[Preference]],
    *,
    means: WhoseMeans = "of the criterion",
    random_sets: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """The accuracy of each criterion's heads on each criterion's examples.

    The question is always that of the criterion that is judged (its criterion text, layout and template).

    Args:
        rewards: fitted reward models of one language model, by name.
        examples: held-out examples to judge, by the names of some or all reward models; positive and negative ones for each.
        means: whose means and injection are written at A's heads: B's (``of the criterion``) or A's (``of the heads``).
        random_sets: random sets of heads per criterion.
        seed: of the random sets.
        progress: show progress bars.

    Returns:
        A row per pair: heads_of, used_for, means_of, accuracy, ci_low, ci_high, n (examples). An accuracy counts a tie one
        half; its 95 % interval is over examples, with those of one prompt together (`arm_lens.evaluation.accuracy`). Two
        controls follow for each criterion: ``random heads``, with as many in every layer as its own and with its own means,
        the mean over random sets with an interval over sets and examples; and ``none``, where nothing is written.

    Raises:
        ValueError: if there is no example, or examples are for an unknown reward model; if a reward model has the name of a
            control, moves heads by soft gates (it has no set to transfer), or belongs to another language model; naming it.
    """
    _check(rewards, examples, means)
    if random_sets < 1:
        raise ValueError(f"the control needs at least one random set of heads, not {random_sets}")
    own = torch.stack([reward.heads.mask for reward in rewards.values()])
    rows = []
    for used_for in tqdm(list(examples), desc="transferring heads", unit="criterion", disable=not progress):
        reward, generator = rewards[used_for], torch.Generator().manual_seed(seed)
        objective = reward.objective(examples[used_for], progress=progress)
        random = [reward.heads.random_like(generator).mask for _ in range(random_sets)]
        controls = torch.stack([*random, torch.zeros_like(random[0])])
        if means == "of the criterion":
            margins = objective.margins(torch.cat([own, controls]))
            whose = [used_for] * len(rewards)
        else:
            written = [as_written_by(other, objective).margins(other.heads.mask[None]) for other in rewards.values()]
            margins = torch.cat([*written, objective.margins(controls)], dim=1)
            whose = list(rewards)
        correct = np.heaviside(margins.T.double().numpy(), 0.5)  # [mask, example]; a tie counts one half
        parts = np.split(correct, [*range(1, len(rewards) + 1), len(correct) - 1])
        names = zip([*rewards, RANDOM, NONE], [*whose, used_for, NONE], strict=True)
        for (heads_of, means_of), verdicts in zip(names, parts, strict=True):
            found = accuracy(verdicts, clusters=objective.clusters, seed=seed)
            rows.append((heads_of, used_for, means_of, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["heads_of", "used_for", "means_of", "accuracy", "ci_low", "ci_high", "n"])


def _check(
    rewards: Mapping[str, ActivationRewardModel], examples: Mapping[str, Sequence[Preference]], means: str
) -> None:
    if means not in get_args(WhoseMeans):
        raise ValueError(f"means are {' or '.join(map(repr, get_args(WhoseMeans)))}, not {means!r}")
    if not examples:
        raise ValueError("there are no examples to use heads for")
    for name in examples:
        if name not in rewards:
            raise ValueError(
                f"there are examples for {name!r}, but no such reward model: {', '.join(map(repr, rewards))}"
            )
    for name, reward in rewards.items():
        if name in (RANDOM, NONE):
            raise ValueError(f"no reward model may be called {name!r}, which is the name of a control")
        reward.check_heads(name)
    same_size({name: reward.means.values.shape for name, reward in rewards.items()}, "reward models")
    first, *others = rewards
    for name in others:
        check_same_model(rewards[first], rewards[name], (first, name))


def as_written_by(other: ActivationRewardModel, objective: JudgingObjective) -> JudgingObjective:
    """The same prompts with the means and the injection of another reward model."""
    replay = objective.replay.with_injection(other.injection)
    labels = [bool(label) for label in objective.labels]
    return JudgingObjective(
        replay, other.means.values, labels, objective.kind, objective.clusters, criterion=objective.criterion
    )
