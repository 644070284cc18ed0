r"""From labelled examples to means, and to an objective that heads are chosen by.

Heads chosen on the very examples whose activations are written back look better than they are; so the two sets of examples
must differ. With few examples that is a loss: heads chosen on a handful of them fit whatever these happen to have in
common. Cross-fitting (as in Chernozhukov et al., 2018, arXiv 1608.00060) uses each example for both. The examples are cut
into folds; a head mask is judged on each fold with the means read from all others,

.. math:: r(m) = \frac{1}{n} \sum_{k} \sum_{i \in \text{fold } k} r_i(m;\; \mu^{(-k)}),

so that no example is judged with a mean that contains it, and all of them help to choose the heads. In the end the average
of the folds' means is written.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

import torch

from arm_lens.engine.finite import naming_examples
from arm_lens.engine.reading import HeadMeans, mean_heads
from arm_lens.engine.sharing import remembered_of
from arm_lens.engine.steering import Injection
from arm_lens.judges.chat import template_key
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.questions import Question, in_turn, questions_of, sample_demonstrations
from arm_lens.preferences import Preference, split_preferences
from arm_lens.reward.checkpoint import FitCheckpoint
from arm_lens.reward.denoising import denoised_means
from arm_lens.selection import JudgingObjective, PooledObjective, RewardKind


def means_and_objective(
    judge: GenerativeJudge,
    examples: Sequence[Preference],
    reading: ReadingOptions | None = None,
    *,
    validation: Sequence[Preference] | None = None,
    injection: Injection | None = None,
    reward: RewardKind = "two_way",
    checkpoint: FitCheckpoint | None = None,
    progress: bool = False,
) -> tuple[HeadMeans, PooledObjective]:
    """The means, and an objective for head masks that judges no example with a mean that contains it.

    Args:
        judge: the model and how the question is put.
        examples: pairs or labelled responses.
        reading: how examples are read. Folds are of equal size and have the same share of each kind; the readings are
            divided among them.
        validation: what masks are judged on, with all examples read; by default the examples themselves, cross-fitted.
        injection: how values are written.
        reward: what the objective measures.
        checkpoint: what an interrupted fit has stored.
        progress: show progress bars.

    Raises:
        ValueError: if there are too few examples, or masks would be judged on examples of one kind only.
        PromptTooLongError: naming the example whose prompt exceeds the model's context.
    """
    reading, kept = reading or ReadingOptions(), checkpoint or FitCheckpoint(None, {})
    seed, folds, readings = reading.seed or 0, reading.folds, reading.readings

    def questions_about(some: Sequence[Preference]) -> list[Question]:
        return questions_of(some, judge.template, judge.layout, seed=seed)

    if validation is not None:
        pairs = [(questions_about(examples), questions_about(validation))]
    elif folds < 2:
        raise ValueError(f"cross-fitting needs at least 2 folds, not {folds}; or give examples for validation")
    else:
        parts = split_preferences(examples, {f"fold {number}": 1 / folds for number in range(folds)}, seed=seed)
        questions = [questions_about(part) for part in parts.values()]
        pairs = [([one for other in questions if other is not fold for one in other], fold) for fold in questions]
    for _, chosen_on in pairs:
        _check_kinds(chosen_on, "questions of a fold" if validation is None else "validation questions")
    means, objectives = [], []
    for number, (pool, chosen_on) in enumerate(pairs):
        share = max(1, readings // len(pairs) + (number < readings % len(pairs)))
        own = reading.model_copy(update={"readings": share, "seed": seed + number})
        mean = kept.means(number, partial(read_means, judge, pool, own, progress=progress))
        objective = judging_objective(judge, chosen_on, mean, injection=injection, reward=reward, progress=progress)
        objectives.append(objective)
        means.append(mean)
    count = sum(mean.count for mean in means)
    average = torch.stack([mean.values * (mean.count / count) for mean in means]).sum(dim=0)
    return HeadMeans(average, count), PooledObjective(objectives)


def read_means(
    judge: GenerativeJudge, pool: Sequence[Question], reading: ReadingOptions | None = None, *, progress: bool = False
) -> HeadMeans:
    """The means over a number of prompts, each a question of the pool after others of the pool as demonstrations.

    Each question of the pool comes in turn (`in_turn`), as often as needed, with new random demonstrations; if the pool is
    too small, with all others. Of a pool larger than the readings, a random choice is asked.
    Denoised means are put through a weighted PCA, each prompt weighted by the probability that the model gives to its right
    verdict.

    Raises:
        ValueError: if there is nothing to read.
        NotFiniteError: naming the example and the layer, if the model computes numbers that are not finite.
    """
    reading = reading or ReadingOptions()
    if not pool:
        raise ValueError("there are no examples to read")

    def read() -> HeadMeans:
        questions = in_turn(pool, reading.readings, seed=reading.seed or 0)
        demonstrations = min(reading.demonstrations, len(pool) - 1)
        contexts = sample_demonstrations(pool, questions, demonstrations, seed=reading.seed or 0)
        sequences, batch_size = judge.encode(questions, contexts), judge.batch_size
        with naming_examples([question.name for question in questions]):
            if reading.denoise is None:
                return mean_heads(judge.model, sequences, batch_size=batch_size, progress=progress)
            right = [question.positive for question in questions]
            verdicts, denoise = judge.verdict_tokens, reading.denoise
            return denoised_means(
                judge.model, sequences, right, verdicts, denoise, batch_size=batch_size, progress=progress
            )

    # Keyed by the questions, so that prompts which were read before need not even be encoded.
    asked = (judge.question, template_key(judge.model.tokenizer), judge.verdict_tokens)
    return remembered_of(judge.model, ("means of questions", asked, tuple(pool), reading), (), read)


def _check_kinds(questions: Sequence[Question], what: str) -> None:
    """Raise a ValueError if all questions have the same right verdict, or there is none."""
    kinds = {question.positive for question in questions}
    if len(kinds) < 2:
        which = "positive" if True in kinds else "negative"
        found = f"the {len(questions)} {what} are all {which}" if kinds else f"there are no {what}"
        raise ValueError(
            f"heads are chosen on positive and negative examples, and {found}: check the labels, or add examples of the "
            "other kind (those that share a prompt, or a response if they have none, stay together)"
        )


def judging_objective(
    judge: GenerativeJudge,
    validation: Sequence[Question],
    means: HeadMeans,
    *,
    injection: Injection | None = None,
    reward: RewardKind = "two_way",
    clusters: Sequence[Hashable] | None = None,
    criterion: str = "",
    progress: bool = False,
) -> JudgingObjective:
    """The reward of a head mask: how well the model steered by it judges the validation questions, zero-shot.

    ``clusters`` says which questions belong together, for standard errors; by default each stands alone. ``criterion`` is its
    name, for tables.

    Raises:
        ValueError: if there is no question, or all have the same right verdict.
    """
    _check_kinds(validation, "validation questions")
    replay = judge.replay(judge.encode(validation), bare=True, injection=injection, progress=progress)
    labels, names = [question.positive for question in validation], [question.name for question in validation]
    return JudgingObjective(replay, means.values, labels, reward, clusters, names, criterion)
