r"""Ratings: the model is asked for a number from 1 to 5, and the reward is the mean rating under its probabilities.

.. math:: r(y \mid x) = \sum_{k=1}^{5} k \, \frac{p(k \mid x, y)}{\sum_{j=1}^{5} p(j \mid x, y)}

The rating that a model writes is often the same for most responses; its mean under the probabilities of all five is not
(arXiv 2509.24678, where it is not normalised; here it is, so that it is a rating also if the model would rather write
something else, which a `VerdictMassWarning` says). Nothing is fitted and no example is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.sharing import shared_readings, sharing
from arm_lens.judges.artefact import QuestionRecord, check_tensors
from arm_lens.judges.base import FitContext, ScoreKind
from arm_lens.judges.checks import Texts, checked, scores_of_rest
from arm_lens.judges.generative import AskingJudge, GenerativeJudge
from arm_lens.judges.options import QuestionOptions, question_options
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Preference
from arm_lens.registry import JudgeSpec, OptionsModel, Style, never

RATINGS = 5
RATING_TEMPLATE = JudgeTemplate(
    scalar=(
        "Prompt:\n{prompt}\n\nResponse:\n{response}\n\n"
        "How well does this response meet the specified criteria? Answer with a number from 1 (not at all) to 5 (fully)."
    ),
    ranked=None,
    no=("1", "2", "3", "4"),
    yes=("5",),
)
"""How a rating is asked for. The template's ``no`` are the spellings of the ratings below the best, from the worst, and its
``yes`` is the spelling of the best."""


@dataclass(frozen=True, eq=False)
class RatingJudge(AskingJudge):
    """The mean rating of a response from 1 to 5, under the probabilities that the model gives to the ratings' tokens.

    Raises:
        ValueError: if the layout is ranked, or the template does not spell five ratings.
        VerdictTokenError: naming the rating that cannot be read from one token.
    """

    kind: ClassVar[str] = "rating judge"
    threshold: ClassVar[float | None] = (1 + RATINGS) / 2
    """The middle of the scale."""

    def __post_init__(self) -> None:
        template = self.judge.template
        if self.judge.compares_only:
            raise ValueError("a rating is asked for single responses: use layout='scalar', not 'ranked'")
        if len(template.no) != RATINGS - 1 or len(template.yes) != 1:
            raise ValueError(
                f"a rating template spells {RATINGS} ratings: no=(...) the {RATINGS - 1} below the best, from the worst, and "
                f"yes=(...) the best; this one has {len(template.no)} and {len(template.yes)}"
            )

    @cached_property
    def each(self) -> tuple[GenerativeJudge, ...]:
        """For each rating, from the worst, the judge that sets it against the four others; the last is `judge` itself."""
        question, template = self.judge.question, self.judge.template
        asked = [
            question.model_copy(
                update={"template": replace(template, yes=(one,), no=_without(template.no + template.yes, one))}
            )
            for one in template.no
        ]
        return (*(GenerativeJudge(self.model, question=one) for one in asked), self.judge)

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference] = (),
        *,
        question: QuestionOptions | str | None = None,
        progress: bool = False,
    ) -> RatingJudge:
        """A judge that asks for ratings, by `RATING_TEMPLATE` unless the question has a template; no example is read."""
        question = question_options(question)
        template = question.template or RATING_TEMPLATE
        return cls(GenerativeJudge(model, question=question.model_copy(update={"template": template})))

    def probabilities(
        self, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> Float[Tensor, "example rating"]:
        """P(rating) of each response among the five ratings, from the worst; otherwise as `score`."""
        questions = self.judge.scalar_questions(prompts, responses)
        names = [question.name for question in questions]
        with contextlib.nullcontext() if sharing() else shared_readings():  # prompts are read once for the five of them
            verdicts = [judge.verdict(questions, progress=progress) for judge in self.each]
        self.judge.verdict_mass.add(verdicts[-1])
        return checked(torch.stack([one.two_way for one in verdicts], dim=-1), names)

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The mean rating of each response, from 1 to 5, of either kind.

        Warns:
            VerdictMassWarning: once, if the model would rather write something else than a rating.
        """
        self.check_kind(kind)
        left_out = self.too_long(prompts, responses) if self.judge.question.on_too_long == "skip" else {}

        def means(prompts: Texts, responses: Texts) -> Tensor:
            return self.probabilities(prompts, responses, progress=progress) @ torch.arange(1.0, RATINGS + 1)

        return scores_of_rest(prompts, responses, left_out, means)

    def prompt_of(self, example: Preference) -> str:
        """The first question about an example as the model reads it, and then which tokens are read as its rating."""
        return self.judge.prompt_of(example)

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        return self.model, {}, self.judge.record()

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> RatingJudge:
        check_tensors(tensors, {})
        return cls(GenerativeJudge.of_record(model, QuestionRecord.parse(record)))

    def __repr__(self) -> str:
        return f"RatingJudge(1 to {RATINGS}, on {self.model.info.name})"


def _without(spellings: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(other for other in spellings if other != one)


class RatingOptions(OptionsModel):
    """Options of the rating judge."""

    question: QuestionOptions = QuestionOptions()


def _check_scalar(options: RatingOptions) -> None:
    if options.question.layout == "ranked":
        raise ValueError("a rating is asked for single responses: use layout='scalar', not 'ranked'")


def _prompt(context: FitContext, options: RatingOptions, example: Preference) -> str:
    return context.fit(RatingJudge, options).prompt_of(example)


SPEC = JudgeSpec(
    name="rating",
    judge=RatingJudge,
    options=RatingOptions,
    fit=lambda context, options: context.fit(RatingJudge, options),
    summary="The mean rating from 1 to 5 under the model's probabilities, nothing in the prompt.",
    style=Style(label="Rating", color="#004d40", symbol="star-square", group="Asking the model"),
    reads_examples=never,
    prompt=_prompt,
    check=_check_scalar,
    place=308,
)
