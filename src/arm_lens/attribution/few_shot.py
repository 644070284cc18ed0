"""Questions behind worked examples, as the means were read on: where heads that gather from earlier tokens show.

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
    shown: Sequence[Preference],
    *,
    shots: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> JudgingObjective:
    """Labelled examples asked about after worked examples, as an objective for head masks.

    Otherwise as `ActivationRewardModel.objective`, whose prompts show no worked examples.

    Args:
        reward: the model and how it is asked, and what is written if masks are tried.
        examples: what is asked about.
        shown: where worked examples are taken from, freshly for each question; usually what ``reward`` was fitted on. No
            question is shown an example with its own prompt, which might give the verdict away.
        shots: how many.
        seed: of their drawing.
        progress: show a bar while prompts are read.

    Raises:
        ValueError: if there is no example, or there are too few to show.
        PromptTooLongError: naming the example whose prompt exceeds the model's context.
    """
    judge = reward.judge
    asked = asked_about(reward, examples)
    sequences = few_shot_prompts(reward, examples, shown, shots=shots, seed=seed)
    replay = Replay(
        judge.model,
        sequences,
        judge.verdicts,
        injection=reward.injection,
        batch_size=judge.batch_size,
        progress=progress,
    )
    labels = [question.positive for question in asked]
    clusters = prompts_behind(examples, judge.layout)
    return JudgingObjective(replay, reward.means.values, labels, "probability", clusters)


def asked_about(reward: ActivationRewardModel, examples: Sequence[Preference]) -> list[Question]:
    """The questions that a reward model asks about examples.

    Raises:
        ValueError: if there is none.
    """
    asked = questions_of(examples, reward.judge.template, reward.judge.layout, seed=reward.record.seed)
    if not asked:
        raise ValueError("there are no examples to ask about")
    return asked


def few_shot_prompts(
    reward: ActivationRewardModel,
    examples: Sequence[Preference],
    shown: Sequence[Preference],
    *,
    shots: int,
    seed: int,
) -> list[list[int]]:
    """The token ids of each example's question after ``shots`` worked examples, none of which has its prompt.

    Raises:
        ValueError: naming the question for which there are too few.
        PromptTooLongError: naming the question whose prompt exceeds the model's context.
    """
    judge = reward.judge
    asked = asked_about(reward, examples)
    pool = questions_of(shown, judge.template, judge.layout, seed=reward.record.seed)
    behind = prompts_behind(shown, judge.layout)
    order, contexts = random.Random(seed), []
    for question, prompt in zip(asked, prompts_behind(examples, judge.layout), strict=True):
        others = [one for one, other in zip(pool, behind, strict=True) if other != prompt]
        if len(others) < shots:
            raise ValueError(
                f"{shots} worked examples are wanted for {question.name}, but there are {len(others)} with another prompt"
            )
        contexts.append(order.sample(others, shots))
    return encode_questions(
        judge.model, judge.template, asked, layout=judge.layout, wording=judge.wording, shown=contexts
    )
