"""What a judge says about a test, and the register of judges.

A judge of a benchmark is a function: given the task's material it fits one of the library's reward models, or asks one,
and gives `Verdicts`. Its keyword arguments are its options in a configuration, with their defaults.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from arm_lens.benchmark.config import BenchmarkConfig, BenchmarkConfigError
from arm_lens.benchmark.data import Task
from arm_lens.benchmark.material import Material
from arm_lens.judges.base import RewardModel
from arm_lens.preferences import PreferencePair


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a judge says about a test."""

    rewards: Float[np.ndarray, " text"] | None
    """Of each text of the test; None for a judge that only compares."""
    scale: Float[np.ndarray, " text"] | None
    """What pairs are compared by: the rewards on a scale that does not saturate."""
    probabilities: Float[np.ndarray, " text"] | None = None
    """P(meets the criterion), if the judge gives one."""
    threshold: float | None = 0.5
    """The reward above which a response meets the criterion; None for a judge that has no such place: its rewards are
    then cut at their median over the test."""
    margins: Float[np.ndarray, " pair"] | None = None
    """Of each pair of the test, for a judge that sees both responses at once."""
    log_odds: bool = False
    """Whether the scale, or the margins, are log-odds, so that a pair's margin is a probability too."""
    fit: dict[str, Any] = field(default_factory=dict)
    """What is known of the fit: fit_accuracy, n_heads, heads, position_bias."""


@dataclass(frozen=True, eq=False)
class At:
    """Where a judge is made: the task's material, and the seed."""

    material: Material
    seed: int
    cache: Path
    """The file in which answers of endpoints are kept."""

    @property
    def task(self) -> Task:
        """The examples, and what is tested."""
        return self.material.task

    def scored(self, judge: RewardModel, **about: Any) -> Verdicts:
        """What a judge that scores responses one by one says."""
        prompts, responses = zip(*self.task.test.texts, strict=True)
        rewards = judge.score(prompts, responses).double().numpy()
        return Verdicts(rewards, rewards, **about)


@dataclass(frozen=True)
class JudgeKind:
    """A judge that can be asked for by name."""

    name: str
    make: Callable[..., Verdicts]
    random: bool
    """Whether it depends on a seed."""
    examples: bool
    """Whether it makes use of examples, if its options do not say otherwise."""

    @property
    def about(self) -> str:
        """One line for people."""
        return (self.make.__doc__ or "").splitlines()[0]

    def learns(self, options: dict[str, Any]) -> bool:
        """Whether it makes use of examples: not if none are to be shown."""
        demonstrations = inspect.signature(self.make).parameters.get("demonstrations")
        return self.examples and (demonstrations is None or options.get("demonstrations", demonstrations.default) != 0)

    def check(self, options: dict[str, Any]) -> None:
        """Refuse options that the judge does not have, and the lack of one that it needs.

        Raises:
            BenchmarkConfigError: naming the option, and those there are.
        """
        parameters = inspect.signature(self.make).parameters
        known = list(parameters)[1:]
        unknown = [name for name in options if name not in known]
        if unknown:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise BenchmarkConfigError(f"the judge {self.name!r} has no option {unknown[0]!r}; {there}")
        for name in known:
            if name not in options and parameters[name].default is inspect.Parameter.empty:
                raise BenchmarkConfigError(f"the judge {self.name!r} needs the option {name!r}")

        key = options.get("api_key_env", "OPENAI_API_KEY") if self.name == "endpoint" else None
        if key is not None and key not in os.environ:
            raise BenchmarkConfigError(
                f"the judge {self.name!r} needs a key in the environment variable {key}, which is not set; "
                "api_key_env: null for an endpoint without keys"
            )
        if len(options.get("prices") or (0, 0)) != 2:
            raise BenchmarkConfigError(
                "prices are two numbers: of a million prompt tokens, of a million completion tokens"
            )

    def check_data(self, options: dict[str, Any], task: Task) -> None:
        """Refuse a judge that compares two responses where there are single ones.

        Raises:
            BenchmarkConfigError: naming the judge and the task.
        """
        ranked = self.name.startswith("ranked") or options.get("layout") == "ranked"
        if ranked and not (task.test.pairs and all(isinstance(one, PreferencePair) for one in task.examples)):
            raise BenchmarkConfigError(
                f"the judge {self.name!r} compares two responses, but {task.study!r} has single ones; leave it out there"
            )


JUDGES: dict[str, JudgeKind] = {}
"""By name."""


def register(
    *, random: bool = False, examples: bool = True
) -> Callable[[Callable[..., Verdicts]], Callable[..., Verdicts]]:
    """Enter a function into `JUDGES` under its own name."""

    def enter(make: Callable[..., Verdicts]) -> Callable[..., Verdicts]:
        name = make.__name__
        if name in JUDGES:
            raise ValueError(f"there are two judges called {name!r}")
        JUDGES[name] = JudgeKind(name, make, random, examples)
        return make

    return enter


def check_judges(config: BenchmarkConfig) -> None:
    """Refuse judges that there are not, and options that they do not have.

    Raises:
        BenchmarkConfigError: naming the judge.
    """
    for choice in [*config.judges, *(one for study in config.studies for one in study.judges or ())]:
        if choice.judge not in JUDGES:
            raise BenchmarkConfigError(f"there is no judge {choice.judge!r}; there are {', '.join(JUDGES)}")
        JUDGES[choice.judge].check(choice.options)
