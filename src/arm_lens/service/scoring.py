"""From a text and a judge to a score: what is prepared for each request, and what the batcher's thread computes.

Reward models are asked together, in shared passes (`arm_lens.reward.together`). Other judges (probes, Sparse Attention
Vectors, the unsteered model) score their own part of each batch, with their own methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.base import Judge, VerdictJudge
from arm_lens.judges.questions import Question
from arm_lens.preferences import Prompt
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.reward.together import Asked, encoded, verdicts_together
from arm_lens.service.served import Served


@dataclass(frozen=True)
class Scores:
    """What a judge says about a text."""

    reward: float
    """The judge's own scale: P(Yes) of a reward model."""
    gap: float
    """What responses are compared by: the log-odds of a reward model."""
    two_way: float | None
    """P(Yes) / (P(Yes) + P(No)); None if the judge has no such score."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One question to one judge, ready to be computed."""

    judge: Judge
    question: Asked | Question | tuple[Prompt, Prompt]
    """For a reward model, as the language model reads it; for another judge that gives verdicts, in words; else the texts."""


def units_of_response(served: Served, prompt: Prompt, response: Prompt, name: str) -> list[Unit]:
    """The question about a response; ``name`` is what errors call it.

    Raises:
        PromptTooLongError: if the model cannot read it as a whole, and it is not to be clipped.
        ValueError: if it cannot be put to this judge.
    """
    judge = served.judge
    if isinstance(judge, VerdictJudge):
        return _asking(judge, [replace(one, name=name) for one in judge.scalar_questions([prompt], [response])])
    if reasons := judge.too_long([prompt], [response]):
        raise PromptTooLongError(reasons[0].replace("example 0", name, 1))
    return [Unit(judge, (prompt, response))]


def units_of_pair(served: Served, prompt: Prompt, a: Prompt, b: Prompt) -> list[Unit]:
    """Two questions that compare two responses: one about each; for a ranked judge, one for each order. Errors likewise."""
    judge = served.judge
    if isinstance(judge, VerdictJudge) and judge.compares_only:
        questions = judge.ranked_questions([prompt], [a], [b])
        return _asking(judge, [replace(one, name=name) for one, name in zip(questions, ("a, b", "b, a"), strict=True)])
    return [*units_of_response(served, prompt, a, "a"), *units_of_response(served, prompt, b, "b")]


def _asking(judge: VerdictJudge, questions: Sequence[Question]) -> list[Unit]:
    if isinstance(judge, ActivationRewardModel):
        return [Unit(judge, one) for one in encoded([(judge, question) for question in questions])]
    if reasons := judge.too_long_questions(questions):
        raise PromptTooLongError(next(iter(reasons.values())))
    return [Unit(judge, one) for one in questions]


def scored(units: Sequence[Unit]) -> list[Scores | Exception]:
    """The scores of questions to any judges; reward models are asked together."""
    groups: dict[int, list[int]] = {}
    for number, unit in enumerate(units):
        groups.setdefault(0 if isinstance(unit.question, Asked) else id(unit.judge), []).append(number)
    found: list[Scores | Exception] = [RuntimeError("not scored")] * len(units)
    for numbers in groups.values():
        for number, scores in zip(numbers, _scored_alike([units[one] for one in numbers]), strict=True):
            finite = all(math.isfinite(one) for one in (scores.reward, scores.gap, scores.two_way or 0.0))
            found[number] = scores if finite else NotFiniteError("the model computes a score that is not a number")
    return found


def _scored_alike(units: Sequence[Unit]) -> list[Scores]:
    """The scores of questions to reward models, or to one other judge."""
    judge, asked = units[0].judge, [one.question for one in units if isinstance(one.question, Asked)]
    if asked:
        return _of_verdicts(verdicts_together(asked))
    if isinstance(judge, VerdictJudge):
        return _of_verdicts(judge.judged([one.question for one in units if isinstance(one.question, Question)]))
    texts = [one.question for one in units if isinstance(one.question, tuple)]
    rewards, gaps = judge.rewards_and_gaps([one for one, _ in texts], [one for _, one in texts])
    return [Scores(reward, gap, None) for reward, gap in zip(rewards.tolist(), gaps.tolist(), strict=True)]


def _of_verdicts(found: VerdictScores) -> list[Scores]:
    columns = (found.probability.tolist(), found.gap.tolist(), found.two_way.tolist())
    return [Scores(*row) for row in zip(*columns, strict=True)]
