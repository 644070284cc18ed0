"""One fitted reward model and its controls on the same labelled items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from arm_lens.engine.replay import Replay
from arm_lens.evaluation.statistics import accuracy
from arm_lens.heads import HeadSet
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.questions import Question, encode_questions, questions_of, sample_demonstrations
from arm_lens.preferences import Preference
from arm_lens.reward.model import ActivationRewardModel

METHODS = ("zero_shot", "few_shot", "all_heads", "random_heads", "reinforce")
"""The unsteered model without and with examples in the prompt; then steered at all heads, at random ones (as many per
layer as were chosen), and at the chosen ones."""


def judge_items(
    fitted: ActivationRewardModel,
    test: Sequence[Preference],
    pool: Sequence[Preference],
    *,
    demonstrations: int = 8,
    random_sets: int = 20,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method's verdict on every test item, and the accuracies.

    Args:
        fitted: the reward model.
        test: labelled items, none of which it was fitted on.
        pool: where the demonstrations of ``few_shot`` are drawn from, afresh for each item.
        demonstrations: demonstrations in a few-shot prompt; fewer if the pool is smaller.
        random_sets: random head sets.
        seed: of the draws.

    Returns:
        Items, one row per item and method: ``method``, ``item``, ``id``, ``label``, ``reward`` (P(Yes)), ``gap`` and
        ``correct`` (for ``random_heads``, means over the draws). And accuracies, one row per method: ``method``,
        ``accuracy``, ``ci_low``, ``ci_high``, ``n``, ``n_heads``, ``heads`` (None for ``random_heads``).
    """
    judge = fitted.judge
    questions = questions_of(test, judge.template, judge.layout, seed=seed)
    labels = torch.tensor([question.positive for question in questions])
    generator = torch.Generator().manual_seed(seed)
    everything = HeadSet.all(fitted.heads.n_layers, fitted.heads.n_heads)
    nothing = HeadSet.none(fitted.heads.n_layers, fitted.heads.n_heads)
    sets = [nothing, everything, fitted.chosen, *(fitted.heads.random_like(generator) for _ in range(random_sets))]
    steered = _replayed(fitted, questions, sets)
    pool_questions = questions_of(pool, judge.template, judge.layout, seed=seed)
    demonstrations = min(demonstrations, len(pool_questions))
    few = few_shot_logs(judge, questions, pool_questions, demonstrations=demonstrations, seed=seed)
    logs = {
        "zero_shot": steered[:1],
        "few_shot": few[None],
        "all_heads": steered[1:2],
        "random_heads": steered[3:],
        "reinforce": steered[2:3],
    }
    sizes = {"all_heads": everything, "random_heads": fitted.heads, "reinforce": fitted.heads}
    items, rows = [], []
    for method in METHODS:
        if not len(logs[method]):
            continue
        gaps = logs[method][..., 0] - logs[method][..., 1]
        correct = np.where(gaps == 0, 0.5, (gaps > 0) == labels.numpy()).astype(float)
        items.append(
            pd.DataFrame(
                {
                    "method": method,
                    "item": np.arange(len(questions)),
                    "id": [question.name for question in questions],
                    "label": labels.numpy(),
                    "reward": np.exp(logs[method][..., 0]).mean(axis=0),
                    "gap": gaps.mean(axis=0),
                    "correct": correct.mean(axis=0),
                }
            )
        )
        estimate = accuracy(correct if method == "random_heads" else correct[0], seed=seed)
        heads = sizes.get(method, nothing)
        rows.append(
            {
                "method": method,
                "accuracy": estimate.accuracy,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "n": estimate.n,
                "n_heads": len(heads),
                "heads": None if method == "random_heads" else heads.to_list(),
            }
        )
    return pd.concat(items, ignore_index=True), pd.DataFrame(rows)


def few_shot_logs(
    judge: GenerativeJudge, questions: Sequence[Question], pool: Sequence[Question], *, demonstrations: int, seed: int
) -> np.ndarray:
    """Log-probabilities [item, verdict] with freshly drawn demonstrations in every prompt."""
    verdict = judge.verdict(questions, demonstrations=sample_demonstrations(pool, questions, demonstrations, seed=seed))
    return torch.stack([verdict.log_positive, verdict.log_negative], dim=-1).double().numpy()


def _replayed(
    fitted: ActivationRewardModel, questions: Sequence[Question], sets: Sequence[HeadSet | torch.Tensor]
) -> np.ndarray:
    """Log-probabilities [set, item, verdict] of the zero-shot prompt under each head set, or gates."""
    judge = fitted.judge
    sequences = encode_questions(
        judge.model, judge.template, questions, layout=judge.layout, criterion_text=judge.criterion_text
    )
    masks = [one.mask if isinstance(one, HeadSet) else one for one in sets]
    gated = any(one.is_floating_point() for one in masks)
    replay = Replay(judge.model, sequences, judge.verdicts, injection=fitted.injection, batch_size=4 * judge.batch_size)
    tried = torch.stack([one.float() if gated else one for one in masks])
    return replay.log_probs(tried, fitted.means.values).transpose(0, 1).double().numpy()
