"""What every judge can do: score responses, compare two of them, and be handed to a trainer.

A judge gives each response a *reward*, on whatever scale it has, and compares two responses by the difference of their
*gaps*, which are the rewards on a scale that does not saturate: the log-odds of a probability, the reward itself where
there is nothing better. A judge that is asked in the ranked layout only compares, always in both orders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, overload, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.preferences import Preference, Prompt

ScoreKind = Literal["probability", "two_way", "gap"]


@dataclass(frozen=True)
class Comparison:
    """Which of two responses a judge prefers."""

    preferred: Literal["a", "b", "tie"]
    margin: float
    """How much better the first response is, by the difference of gaps; positive when ``a`` is preferred."""

    @classmethod
    def of(cls, margin: float) -> Comparison:
        """From the margin alone; exactly zero is a tie."""
        return cls("a" if margin > 0 else "b" if margin < 0 else "tie", margin)


class Judge(ABC):
    """Scores responses to prompts, and prefers one of two."""

    kind: ClassVar[str] = "judge"
    """What it is, in words."""
    threshold: ClassVar[float | None] = 0.5
    """The reward above which a response meets the criterion; None for a judge that has no such place."""

    @property
    def log_odds(self) -> bool:
        """Whether gaps are log-odds of meeting the criterion, so that they and their differences are probabilities too."""
        return False

    @property
    def states_probability(self) -> bool:
        """Whether a reward is P(meets the criterion)."""
        return self.log_odds

    @property
    def compares_only(self) -> bool:
        """Whether it is asked in the ranked layout, and has no reward of a single response."""
        return False

    @abstractmethod
    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The reward of each response; higher is better.

        Args:
            prompts: one per response.
            responses: what is judged.
            progress: show a progress bar.

        Raises:
            ValueError: if there are not as many prompts as responses, or the judge only compares.
            PromptTooLongError: naming the example.
        """

    def rewards_and_gaps(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """The reward and the gap of each response, judged once; otherwise as `score`."""
        rewards = self.score(prompts, responses, progress=progress)
        return rewards, rewards

    def gaps(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """What responses are compared by: the reward on a scale that does not saturate."""
        return self.rewards_and_gaps(prompts, responses, progress=progress)[1]

    def margins(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``: the difference of their gaps.

        Raises:
            ValueError: if there are not as many prompts as responses on each side.
        """
        check_pairs(prompts, a, b)
        if not len(prompts):
            return torch.zeros(0)
        gaps = self.gaps([*prompts, *prompts], [*a, *b], progress=progress)
        return gaps[: len(prompts)] - gaps[len(prompts) :]

    @overload
    def prefer(self, prompts: Prompt, a: Prompt, b: Prompt, *, progress: bool = False) -> Comparison: ...

    @overload
    def prefer(
        self, prompts: list[Prompt], a: list[Prompt], b: list[Prompt], *, progress: bool = False
    ) -> list[Comparison]: ...

    def prefer(self, prompts: Any, a: Any, b: Any, *, progress: bool = False) -> Comparison | list[Comparison]:
        """Which of two responses to a prompt is better; of lists, which of each two.

        Args:
            prompts: a prompt, or a list of them.
            a: the first response, or one for each prompt.
            b: the second, likewise.
            progress: show a progress bar.

        Raises:
            ValueError: if there are not as many prompts as responses on each side.
        """
        if isinstance(prompts, list):
            return [Comparison.of(one) for one in self.margins(prompts, a, b, progress=progress).tolist()]
        return Comparison.of(float(self.margins([prompts], [a], [b], progress=progress)[0]))

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name."""
        return self.kind.replace(" ", "_")

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """As a reward function of TRL's GRPOTrainer: keywords only, a float per completion."""
        rewards = self.score([_prompt(one) for one in prompts], [_prompt(one) for one in completions])
        return [float(one) for one in rewards]

    def facts(self) -> dict[str, Any]:
        """What is known of the fit and of the answers so far, as far as it applies: n_heads, heads, unparsed, cost."""
        return {}


JudgeType = TypeVar("JudgeType", bound="FittedJudge")


class FittedJudge(Judge):
    """A judge that is fitted to labelled preferences, and can be saved.

    Every class has ``fit(model, examples, *, question=None, ..., progress=False)``.
    """

    @abstractmethod
    def save(self, path: str | Path) -> Path:
        """Write the judge, without the language model, to a folder; see `arm_lens.judges.artefact`."""

    @classmethod
    @abstractmethod
    def load(
        cls: type[JudgeType], path: str | Path, model: ModelLike | None = None, *, device: str | None = None
    ) -> JudgeType:
        """Read what `save` wrote.

        Args:
            path: the folder.
            model: what to load it onto; by default the recorded model is loaded, by its recorded name and class.
            device: where the recorded model goes, if none is given.

        Raises:
            FileNotFoundError: if the folder holds no judge.
            ArtefactError: if it holds one of another kind, or is damaged.
            WrongModelError: if the model is not the one it was fitted on; the message says in what they differ.
        """


@runtime_checkable
class VerdictsLike(Protocol):
    """What a judge's verdicts on a number of responses have in common."""

    @property
    def two_way(self) -> Float[Tensor, " example"]:
        """P(positive), of the two verdicts alone."""
        ...

    @property
    def gap(self) -> Float[Tensor, " example"]:
        """The log-odds of the positive verdict."""
        ...


Found = TypeVar("Found", bound=VerdictsLike)


class VerdictJudge(Judge, Generic[Found]):
    """A judge that is asked for a verdict: Yes or No (scalar), A or B (ranked). The reward is how likely the first is."""

    @property
    def log_odds(self) -> bool:
        """A gap is the log-odds of the positive verdict."""
        return True

    @abstractmethod
    def verdicts(self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False) -> Found:
        """The verdict on each response, ``[example]``; otherwise as `score`."""

    @abstractmethod
    def orders(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response stands first: ``a`` in the first column, ``b`` in the second.

        `PositionBias.of` says what they tell about the judge.

        Raises:
            ValueError: if the judge is scalar (it sees one response at a time), or lengths differ.
        """

    def rewards_and_gaps(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """The two-way probability of the positive verdict on each response, and its log-odds."""
        found = self.verdicts(prompts, responses, progress=progress)
        return found.two_way, found.gap

    def margins(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``, in log-odds.

        The difference of the two gaps; for a ranked judge, the mean over both orders, which cancels a liking for the first
        or second place.
        """
        if not self.compares_only or not len(prompts):
            return super().margins(prompts, a, b, progress=progress)
        orders = self.orders(prompts, a, b, progress=progress)
        return (orders[:, 0] - orders[:, 1]) / 2


def check_pairs(prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt]) -> None:
    """Make sure that there are two responses for each prompt.

    Raises:
        ValueError: saying how many there are.
    """
    if not len(prompts) == len(a) == len(b):
        raise ValueError(f"{len(prompts)} prompts for {len(a)} first and {len(b)} second responses")


def check_as_many(prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> None:
    """Make sure that there is a response for each prompt.

    Raises:
        ValueError: saying how many there are.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses")


@dataclass(frozen=True)
class PositionBias:
    """How the order of two responses moves a judge that sees both."""

    first: float
    """The share of verdicts for the response that stands first, over both orders of each pair: 0.5 without bias."""
    inconsistent: float
    """The share of pairs of which another response wins when they change places; a tie in one order only is half a
    change."""
    n: int
    """Pairs."""

    @classmethod
    def of(cls, orders: Float[Tensor, "pair order"]) -> PositionBias:
        """From the margins in favour of the first place, in each order; exact ties count one half for each place.

        Raises:
            ValueError: if there are no pairs.
        """
        if not len(orders):
            raise ValueError("position bias is measured on pairs, and there are none")
        wins = (orders > 0).double() + 0.5 * (orders == 0)
        # What the second order leaves to the second place is the same response's as the first order's first place.
        changed = (wins[:, 0] - (1 - wins[:, 1])).abs()
        return cls(float(wins.mean()), float(changed.mean()), len(orders))


def score_of(scores: VerdictScores, kind: ScoreKind) -> Float[Tensor, " example"]:
    """One kind of score."""
    if kind not in ("probability", "two_way", "gap"):
        raise ValueError(f"the kind of score is 'probability', 'two_way' or 'gap', not {kind!r}")
    chosen: Tensor = getattr(scores, kind)
    return chosen


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a judge is fitted with, by whoever asks for it by name; see `arm_lens.registry.JudgeSpec.fit`."""

    model: ModelLike
    examples: Sequence[Preference]
    question: QuestionOptions = field(default_factory=QuestionOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    seed: int = 0
    """Of what is random beside the reading."""
    like_seed: int = 0
    """Of the search that random heads are compared with."""
    cache: Path | None = None
    """The file in which answers of endpoints are kept."""
    workers: int = 1
    """Processes that share what an endpoint bears."""


def fit_context(
    model: ModelLike,
    examples: Sequence[Preference],
    options: Any,
    *,
    question: QuestionOptions | None = None,
    reading: ReadingOptions | None = None,
    **rest: Any,
) -> FitContext:
    """The context with what the options say about question and reading in place of what the caller says.

    Args:
        model: what judges.
        examples: labelled preferences.
        options: a judge's; their fields ``question`` and ``reading``, if there are such, go before the caller's.
        question: the caller's.
        reading: the caller's.
        rest: the other fields of `FitContext`.
    """
    question, reading = question or QuestionOptions(), reading or ReadingOptions()
    return FitContext(
        model=model,
        examples=examples,
        question=question.model_copy(update=_own(options, "question")),
        reading=reading.model_copy(update=_own(options, "reading")),
        **rest,
    )


def _own(options: Any, group: str) -> Mapping[str, Any]:
    own = getattr(options, group, None)
    return {} if own is None else {name: getattr(own, name) for name in own.model_fields_set}


Fit = Callable[[FitContext, Any], Judge]


def _prompt(value: Any) -> Prompt:
    return value if isinstance(value, str) else tuple(value)
