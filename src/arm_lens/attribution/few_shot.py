"""Questions behind demonstrations, as the means were read on: where heads that gather from earlier tokens show.

`ActivationRewardModel.objective` asks the bare question, which is what is steered. What a head does while the criterion is
being told by examples is seen on these prompts only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from arm_lens.engine.replay import Replay
from arm_lens.judges.questions import Question, encode_questions, prompts_behind, questions_of
from arm_lens.preferences import Preference
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.selection.objective import JudgingObjective


def few_shot_objective(
    reward: ActivationRewardModel,
    examples: Sequence[Preference],
    pool: Sequence[Preference],
    *,
    demonstrations: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> JudgingObjective:
    """Labelled examples asked about after demonstrations, as an objective for head masks.

    Otherwise as `ActivationRewardModel.objective`, whose prompts show no demonstrations.

    Args:
        reward: the model and how it is asked, and what is written if masks are tried.
        examples: what is asked about.
        pool: where demonstrations are taken from, freshly for each question; usually what ``reward`` was fitted on. No
            question is shown an example with its own prompt, which might give the verdict away.
        demonstrations: how many.
        seed: of their drawing.
        progress: show a bar while prompts are read.

    Raises:
        ValueError: if there is no example, or there are too few to show.
        PromptTooLongError: naming the example whose prompt exceeds the model's context.
    """
    judge = reward.judge
    questions = asked_about(reward, examples)
    sequences = few_shot_prompts(reward, examples, pool, demonstrations=demonstrations, seed=seed)
    replay = Replay(
        judge.model,
        sequences,
        judge.verdict_tokens,
        injection=reward.injection,
        batch_size=judge.batch_size,
        progress=progress,
    )
    labels = [question.positive for question in questions]
    clusters = prompts_behind(examples, judge.layout)
    return JudgingObjective(replay, reward.means.values, labels, "probability", clusters)


def asked_about(reward: ActivationRewardModel, examples: Sequence[Preference]) -> list[Question]:
    """The questions that a reward model asks about examples.

    Raises:
        ValueError: if there is none.
    """
    questions = questions_of(examples, reward.judge.template, reward.judge.layout, seed=reward.record.seed)
    if not questions:
        raise ValueError("there are no examples to ask about")
    return questions


def few_shot_prompts(
    reward: ActivationRewardModel,
    examples: Sequence[Preference],
    pool: Sequence[Preference],
    *,
    demonstrations: int,
    seed: int,
) -> list[list[int]]:
    """The token ids of each example's question after ``demonstrations`` demonstrations, none of which has its prompt.

    Raises:
        ValueError: naming the question for which there are too few.
        PromptTooLongError: naming the question whose prompt exceeds the model's context.
    """
    judge = reward.judge
    questions = asked_about(reward, examples)
    pool_questions = questions_of(pool, judge.template, judge.layout, seed=reward.record.seed)
    behind = prompts_behind(pool, judge.layout)
    order, contexts = random.Random(seed), []
    for question, prompt in zip(questions, prompts_behind(examples, judge.layout), strict=True):
        others = [one for one, other in zip(pool_questions, behind, strict=True) if other != prompt]
        if len(others) < demonstrations:
            raise ValueError(
                f"{demonstrations} demonstrations are wanted for {question.name}, but there are {len(others)} with another prompt"
            )
        contexts.append(order.sample(others, demonstrations))
    return encode_questions(
        judge.model,
        judge.template,
        questions,
        layout=judge.layout,
        criterion_text=judge.criterion_text,
        demonstrations=contexts,
    )
