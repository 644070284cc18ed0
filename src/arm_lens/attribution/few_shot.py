"""Questions behind demonstrations, as in the prompts that the means were read on.

`ActivationRewardModel.objective` has the bare question. Heads that gather the criterion from examples at earlier tokens have
an effect on the prompts of this module only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from arm_lens.judges.questions import Question, clusters_behind, questions_of
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
    """`ActivationRewardModel.objective` with demonstrations before each question.

    Args:
        reward: the model, its questions, and its means.
        examples: labelled examples, one or two questions for each.
        pool: the source of demonstrations, random for each question; usually what ``reward`` was fitted on. No
            question gets a demonstration of its own cluster (`arm_lens.preferences.clusters`: with its prompt, as a rule),
            which might reveal the verdict.
        demonstrations: for each question.
        seed: of the choice of demonstrations.
        progress: show a bar while prompts are read.

    Raises:
        ValueError: if there is no example, or too few demonstrations.
        PromptTooLongError: naming the example whose prompt exceeds the model's context.
    """
    prompts = few_shot_prompts(reward, examples, pool, demonstrations=demonstrations, seed=seed)
    replay = reward.judge.replay(prompts, bare=False, injection=reward.injection, progress=progress)
    labels = [question.positive for question in questions_about(reward, examples)]
    clusters = clusters_behind(examples, reward.judge.layout)
    values, criterion = reward.means.values, reward.record.criterion
    return JudgingObjective(replay, values, labels, "probability", clusters, criterion=criterion)


def questions_about(reward: ActivationRewardModel, examples: Sequence[Preference]) -> list[Question]:
    """The questions of a reward model about examples, of which there must be one."""
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
    """The token ids of each example's question after ``demonstrations`` demonstrations of other clusters.

    Raises:
        ValueError: naming the question for which there are too few.
        PromptTooLongError: naming the question whose prompt exceeds the model's context.
    """
    judge, questions = reward.judge, questions_about(reward, examples)
    pool_questions = questions_of(pool, judge.template, judge.layout, seed=reward.record.seed)
    known = clusters_behind([*examples, *pool], judge.layout)
    own, theirs = known[: len(questions)], known[len(questions) :]
    order, contexts = random.Random(seed), []
    for question, cluster in zip(questions, own, strict=True):
        others = [one for one, other in zip(pool_questions, theirs, strict=True) if other != cluster]
        if len(others) < demonstrations:
            raise ValueError(
                f"{demonstrations} demonstrations are wanted for {question.name}, but there are {len(others)} about another "
                "prompt or text"
            )
        contexts.append(order.sample(others, demonstrations))
    return judge.encode(questions, contexts)
