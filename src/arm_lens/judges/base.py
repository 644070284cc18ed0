"""What every judge can do: score responses, compare two of them, and be handed to a trainer.

A judge gives each response a *reward*, on a scale of its own, and compares two responses by the difference of their
*gaps*: the rewards on a scale that does not saturate, such as the log-odds of a probability. A judge in the ranked layout
only compares, always in both orders.

A number that is not finite is never a verdict: `checked` raises a `NotFiniteError` that names the example. Only a judge that
was told to leave out what is too long (``on_too_long="skip"``) gives NaN for those examples, with a warning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.display.caution import caution
from arm_lens.engine.hooks import without_autocast
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.checks import (
    SkippedWarning,
    Texts,
    check_as_many,
    check_kind,
    check_lengths,
    check_pairs,
    checked,
    checked_text,
    scattered_verdicts,
    warn_of_skipped,
)
from arm_lens.judges.options import Layout, QuestionOptions, ReadingOptions
from arm_lens.judges.questions import Question, listed_names
from arm_lens.judges.saving import Savable
from arm_lens.judges.template import JudgeTemplate
from arm_lens.judges.verdict_mass import VerdictMass
from arm_lens.preferences import Preference, PreferenceFieldError, Prompt
from arm_lens.preferences.formats.vision import place_images
from arm_lens.registry import OptionsModel

ScoreKind: TypeAlias = Literal["reward", "probability", "two_way", "gap"]
"""``reward`` is what a judge gives by default, ``gap`` what responses are compared by; the others are probabilities."""
EVERY_KIND: tuple[ScoreKind, ...] = get_args(ScoreKind)


@dataclass(frozen=True)
class Comparison:
    """Which of two responses a judge prefers."""

    preferred: Literal["a", "b", "tie"] | None
    """None if the pair was left out because it is too long."""
    margin: float
    """How much better the first response is, by the difference of gaps; positive if ``a`` is preferred."""

    @classmethod
    def of(cls, margin: float) -> Comparison:
        """From the margin alone; exactly zero is a tie, and NaN no preference."""
        return cls("a" if margin > 0 else "b" if margin < 0 else "tie" if margin == 0 else None, margin)


class Judge(ABC):
    """Scores responses to prompts, and prefers one of two."""

    kind: ClassVar[str] = "judge"
    """What it is, in words."""
    threshold: ClassVar[float | None] = 0.5
    """The reward above which a response meets the criterion; None if no reward means that."""
    score_kinds: ClassVar[tuple[ScoreKind, ...]] = ("reward", "gap")
    """The kinds of score that it gives."""

    def check_kind(self, kind: str) -> None:
        """Raise a ValueError unless the judge gives scores of this kind."""
        check_kind(kind, self.score_kinds, f"the {self.kind}")

    @property
    def log_odds(self) -> bool:
        """Whether gaps are log-odds of meeting the criterion, so that they and their differences are probabilities too."""
        return False

    @property
    def states_probability(self) -> bool:
        """Whether a reward is P(meets the criterion)."""
        return self.log_odds

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that the judge was fitted on or has as demonstrations, as far as it has recorded that."""
        return ()

    @property
    def compares_only(self) -> bool:
        """Whether the layout is ranked, so that a single response has no reward."""
        return False

    @abstractmethod
    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The reward of each response; higher is better.

        Args:
            prompts: one per response.
            responses: what is judged.
            kind: ``reward``, the judge's own scale, or ``gap``, the scale by which `prefer` compares, if it is another one;
                some judges give further kinds.
            progress: show a progress bar.

        Raises:
            ValueError: if there are not as many prompts as responses, if one is not a text, if the judge only compares, or if
                it does not give that kind of score.
            PromptTooLongError: naming the example.
            NotFiniteError: naming the example whose score is not a number.
        """

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed the model's context, each with the error; without a context, none."""
        return {}

    def rewards_and_gaps(
        self, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """The reward and the gap of each response, judged once; otherwise as `score`."""
        rewards = self.score(prompts, responses, progress=progress)
        return rewards, rewards

    def gaps(self, prompts: Texts, responses: Texts, *, progress: bool = False) -> Float[Tensor, " example"]:
        """What responses are compared by: the reward on a scale that does not saturate."""
        return self.rewards_and_gaps(prompts, responses, progress=progress)[1]

    def margins(self, prompts: Texts, a: Texts, b: Texts, *, progress: bool = False) -> Float[Tensor, " pair"]:
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
        """Which of two responses is better: to one prompt, or to each of a list. Errors as `margins`.

        The better response has the higher score of the kind ``gap``.
        """
        conversation = isinstance(prompts, list) and bool(prompts) and isinstance(prompts[0], Mapping)
        if isinstance(prompts, list) and not conversation:
            return [Comparison.of(one) for one in self.margins(prompts, a, b, progress=progress).tolist()]
        return Comparison.of(float(self.margins([prompts], [a], [b], progress=progress)[0]))

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name."""
        return self.kind.replace(" ", "_")

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Score completions as a reward function of TRL's GRPOTrainer, which passes keywords only.

        Returns:
            A float per completion; None, which TRL accepts, for one that cannot be judged (it is None, its messages are
            malformed, it exceeds the model's context), with one warning that names the rows.
        """
        return RewardFunction(self)(prompts=prompts, completions=completions, **columns)

    def reward_function(self, kind: ScoreKind = "reward") -> RewardFunction:
        """A reward function of TRL's GRPOTrainer that gives scores of the chosen kind; a ValueError if the judge has none."""
        return RewardFunction(self, kind)

    def facts(self) -> dict[str, Any]:
        """What is known of the fit and of the answers so far, as far as it applies: n_heads, heads, unparsed, cost."""
        return {}


@dataclass(frozen=True)
class RewardFunction:
    """A judge as a reward function of TRL's GRPOTrainer.

    A completion that cannot be judged (it is None, its messages are malformed, it exceeds the model's context) has the reward
    None, which TRL accepts, with one warning that names the rows: it does not end the training run.
    """

    judge: Judge
    kind: ScoreKind = "reward"

    def __post_init__(self) -> None:
        self.judge.check_kind(self.kind)

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name."""
        return self.judge.__name__ + ("" if self.kind == "reward" else f"_{self.kind}")

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """A reward for each completion; of further columns of the data set, ``images`` and ``image`` are read.

        TRL's trainers put images into the messages of prompts; where they have not, those of the columns are put there.
        """
        check_lengths(prompts, completions)
        images = _images_of(columns, len(prompts))
        usable: list[tuple[int, Prompt, Prompt]] = []
        refused: dict[int, str] = {}
        for row, texts in enumerate(zip(prompts, completions, strict=True)):
            try:
                placed = place_images(texts[0], images[row]) if images[row] else texts[0]
                prompt, completion = checked_text(placed, "prompt"), checked_text(texts[1], "completion")
                usable.append((row, prompt, completion))
            except PreferenceFieldError as error:
                refused[row] = str(error)
        too_long = self.judge.too_long([one for _, one, _ in usable], [one for _, _, one in usable])
        refused |= {usable[number][0]: reason for number, reason in too_long.items()}
        usable = [one for one in usable if one[0] not in refused]
        if refused:
            first = min(refused)
            caution(
                f"{listed_names([f'row {row}' for row in sorted(refused)])}: no reward (None); row {first}: {refused[first]}",
                SkippedWarning,
            )
        rewards: list[float | None] = [None] * len(prompts)
        if usable:
            kind: dict[str, Any] = {} if self.kind == "reward" else {"kind": self.kind}
            with without_autocast():  # of the trainer
                scores = self.judge.score([one for _, one, _ in usable], [one for _, _, one in usable], **kind)
            for (row, _, _), score in zip(usable, scores.tolist(), strict=True):
                rewards[row] = score
        return rewards


def _images_of(columns: Mapping[str, Any], count: int) -> list[Sequence[Any]]:
    """The images of each row, from the columns of a data set."""
    if columns.get("images") is not None:
        return [row if isinstance(row, (list, tuple)) else [] if row is None else [row] for row in columns["images"]]
    return [[] if row is None else [row] for row in columns.get("image") or [None] * count]


FittedType = TypeVar("FittedType", bound="FittedJudge")


class SavableJudge(Savable, Judge):
    """A judge that can be saved, shared and loaded."""


class FittedJudge(SavableJudge):
    """A judge that is fitted to labelled preferences, and can be saved.

    A class of its own options takes them as further keywords of `fit`.
    """

    @classmethod
    @abstractmethod
    def fit(
        cls: type[FittedType],
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        progress: bool = False,
    ) -> FittedType:
        """Fit a judge to labelled preferences.

        Args:
            model: any that `arm_lens.engine.language_model` accepts; it is not changed.
            examples: pairs, or (in the scalar layout) labelled responses too.
            question: how the question is put; a bare string is the criterion in words.
            progress: show progress bars.

        Raises:
            ValueError: naming the example, if a single labelled response is to be ranked.
            PromptTooLongError: naming the example whose prompt exceeds the model's context.
        """


class VerdictJudge(Judge):
    """A judge that is asked for a verdict: Yes or No (scalar), A or B (ranked). The reward is how likely the first is."""

    score_kinds: ClassVar[tuple[ScoreKind, ...]] = EVERY_KIND
    _question: QuestionOptions

    @property
    def question(self) -> QuestionOptions:
        """How the question is put, its template included."""
        return self._question

    @property
    def template(self) -> JudgeTemplate:
        """The wording."""
        return self.question.template or JudgeTemplate()

    @property
    def layout(self) -> Layout:
        """Scalar or ranked."""
        return self.question.layout

    @property
    def criterion_text(self) -> str:
        """The criterion in words, or empty."""
        return self.question.criterion_text

    @property
    def compares_only(self) -> bool:
        """Whether the layout is ranked."""
        return self.layout == "ranked"

    @property
    def log_odds(self) -> bool:
        """A gap is the log-odds of the positive verdict."""
        return True

    @abstractmethod
    def verdict(self, questions: Sequence[Question], *, progress: bool = False) -> VerdictScores:
        """The verdict on each question, ``[question]``."""

    def too_long_questions(self, questions: Sequence[Question]) -> dict[int, str]:
        """The questions, by number, that exceed the model's context, each with the error; without a context, none."""
        return {}

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed the model's context, each with the error; none if they are clipped."""
        return self.too_long_questions(self.scalar_questions(prompts, responses))

    @cached_property
    def verdict_mass(self) -> VerdictMass:
        """How much probability the model has given to all verdicts together so far, and what it would rather write."""
        return VerdictMass()

    def judged(self, questions: Sequence[Question], *, progress: bool = False) -> VerdictScores:
        """`verdict`, checked: every number is finite, except for questions that are left out because they are too long.

        Raises:
            NotFiniteError: naming the question.
        """
        left_out = self.too_long_questions(questions) if self.question.on_too_long == "skip" else {}
        if left_out:
            warn_of_skipped({questions[number].name: reason for number, reason in left_out.items()})
        rest = [one for number, one in enumerate(questions) if number not in left_out]
        if left_out and not rest:
            return scattered_verdicts(None, len(questions), left_out)
        found = self.verdict(rest, progress=progress)
        for values in (found.gap, found.probability):
            checked(values, [one.name for one in rest])
        self.verdict_mass.add(found)
        return scattered_verdicts(found, len(questions), left_out) if left_out else found

    def scalar_questions(self, prompts: Texts, responses: Texts) -> list[Question]:
        """The question about each response, of a scalar judge. Its right verdict is unknown, and set to the positive one."""
        if self.compares_only:
            raise ValueError("a ranked judge compares two responses and has no score of one; use prefer")
        prompts, responses = check_as_many(prompts, responses)
        return [
            Question(self.template.question(prompt, response), True, f"example {number}")
            for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]

    def ranked_questions(self, prompts: Texts, a: Texts, b: Texts) -> list[Question]:
        """Two questions about each pair, one for either order, of a ranked judge."""
        if not self.compares_only:
            raise ValueError("a scalar judge sees one response at a time: there is no order; use layout='ranked'")
        prompts, a, b = check_pairs(prompts, a, b)
        return [
            Question(self.template.ranked_question(prompt, *pair), True, f"pair {number}")
            for number, (prompt, one, two) in enumerate(zip(prompts, a, b, strict=True))
            for pair in ((one, two), (two, one))
        ]

    def verdicts(self, prompts: Texts, responses: Texts, *, progress: bool = False) -> VerdictScores:
        """The verdict on each response, ``[example]``; otherwise as `score`."""
        return self.judged(self.scalar_questions(prompts, responses), progress=progress)

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The reward of each response; otherwise as `Judge.score`.

        ``kind`` is ``reward`` or ``probability``, P(Yes), of a language model over its full vocabulary, as in the paper;
        ``two_way``, P(Yes) / (P(Yes) + P(No)); or ``gap``, the log-odds. `prefer` compares log-odds: P(Yes) alone also
        says how likely the model is to give a verdict at all, and may order two responses otherwise.

        Warns:
            VerdictMassWarning: once, if the model would rather write something else than a verdict.
        """
        self.check_kind(kind)
        found = self.verdicts(prompts, responses, progress=progress)
        return of_kind(found, kind)

    def rewards_and_gaps(
        self, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """The two-way probability of the positive verdict on each response, and its log-odds."""
        found = self.verdicts(prompts, responses, progress=progress)
        return found.two_way, found.gap

    def orders(self, prompts: Texts, a: Texts, b: Texts, *, progress: bool = False) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response stands first: ``a`` in the first column, ``b`` in the second.

        `PositionBias.of` says what they tell about the judge.

        Raises:
            ValueError: if the judge is scalar (it sees one response at a time), or lengths differ.
        """
        return self.judged(self.ranked_questions(prompts, a, b), progress=progress).gap.reshape(-1, 2)

    def margins(self, prompts: Texts, a: Texts, b: Texts, *, progress: bool = False) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``, in log-odds; errors name the pair.

        The difference of the two gaps; for a ranked judge, the mean over both orders, which cancels a liking for the first
        or second place.
        """
        count = len(prompts)
        if not count:
            return super().margins(prompts, a, b, progress=progress)
        if self.compares_only:
            orders = self.orders(prompts, a, b, progress=progress)
            return (orders[:, 0] - orders[:, 1]) / 2
        check_pairs(prompts, a, b)
        questions = self.scalar_questions([*prompts, *prompts], [*a, *b])
        named = [replace(one, name=f"pair {number % count}") for number, one in enumerate(questions)]
        gaps = self.judged(named, progress=progress).gap
        return gaps[:count] - gaps[count:]


def of_kind(verdicts: VerdictScores, kind: ScoreKind) -> Float[Tensor, " *shape"]:
    """The scores of a kind of a judge's verdicts; the reward is the probability."""
    scores: Tensor = getattr(verdicts, "probability" if kind == "reward" else kind)
    return scores


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a judge is fitted with if it is asked for by name; see `arm_lens.registry.JudgeSpec.fit`."""

    model: ModelLike
    examples: Sequence[Preference]
    question: QuestionOptions = field(default_factory=QuestionOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    seed: int = 0
    """Of what is random in addition to the reading."""
    like_seed: int = 0
    """Of the search that random heads are compared with."""
    cache: Path | None = None
    """The folder in which answers of endpoints are stored."""
    workers: int = 1
    """Processes that call the same endpoint."""

    def with_options(self, options: Any) -> FitContext:
        """The context in which what a judge's options say about question and reading replaces what the caller says."""
        changed = {}
        for group in ("question", "reading"):
            if (own := getattr(options, group, None)) is not None:
                update = {name: getattr(own, name) for name in own.model_fields_set}
                changed[group] = getattr(self, group).model_copy(update=update)
        return replace(self, **changed)

    def fit(self, judge: type[FittedType], options: OptionsModel, **more: Any) -> FittedType:
        """Call ``judge.fit`` with every option by its name; question and reading are the context's."""
        own = dict(options) | {group: getattr(self, group) for group in options.groups}
        return judge.fit(self.model, self.examples, **(own | more))
