"""A head card: everything there is to know about one head on one page.

Which tokens it attends to where the verdict is due, on given examples; which tokens the mean that is written at it promotes
and suppresses, by the direct path alone; and how it scores, for every criterion and measure given, among all heads. The
card is a set of tidy tables that shows itself in a notebook and in a terminal; `arm_lens.plots.head_card_figure` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.attribution.few_shot import asked_about, few_shot_prompts
from arm_lens.attribution.head_card_views import ZERO_SHOT, FEW_SHOT, HeadCard
from arm_lens.attribution.outcomes import Outcome
from arm_lens.attribution.reading import attention_rows, direct_logits, token_texts
from arm_lens.engine.reading import mean_heads
from arm_lens.frames import ATTRIBUTIONS, checked
from arm_lens.heads import Head, HeadSet, Named, ScoredLike, attributions_frame
from arm_lens.judges.questions import Question, encode_questions, verdicts_of
from arm_lens.preferences import Preference
from arm_lens.reward.model import ActivationRewardModel

SCORES = ATTRIBUTIONS.needing(*ATTRIBUTIONS.required, "se", "sampling_se")


def head_card(
    reward: ActivationRewardModel,
    head: Head | tuple[int, int],
    examples: Sequence[Preference],
    *,
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame | None = None,
    demonstrations_from: Sequence[Preference] | None = None,
    demonstrations: int | None = None,
    centred: bool = False,
    top: int = 10,
    examples_shown: int = 3,
    outcome: Outcome = "probability",
    seed: int = 0,
) -> HeadCard:
    """Everything about one head of a reward model's language model, which is read unsteered.

    Args:
        reward: the reward model; the head need not be one of those it writes at.
        head: (layer, head).
        examples: what the model is asked about while the head is watched.
        attributions: scores of heads, of any criteria and measures together: attributions, also by the criterion's name, or
            their table.
        demonstrations_from: read each question a second time, after demonstrations taken from these, as the means were.
        demonstrations: how many; by default as many as the means were read with.
        centred: what the mean writes is told without the head's own mean on these questions: injection by replacing puts
            the mean in the place of what is there, and changes only what differs.
        top: tokens promoted, and suppressed, at most.
        examples_shown: examples that the card shows; its tables have all.
        outcome: which outcome's scores the card shows.
        seed: of the drawing of demonstrations.

    Raises:
        ValueError: if the head is not the model's, there is no example, a column of the attributions is missing, or they
            know the head twice.
        RuntimeError: if the model does not show its attention pattern.
    """
    judge, values = reward.judge, reward.means.values
    n_layers, n_heads = values.shape[:2]
    (place,) = HeadSet.of(n_layers, n_heads, [head])
    scores = _scores_of(place, None if attributions is None else attributions_frame(attributions))
    questions = asked_about(reward, examples)
    sequences = encode_questions(
        judge.model, judge.template, questions, layout=judge.layout, criterion_text=judge.criterion_text
    )
    positive, negative = (side[0] for side in verdicts_of(judge.template, judge.layout))
    prompts = {ZERO_SHOT: sequences}
    if demonstrations_from is not None:
        demonstrations = reward.record.demonstrations if demonstrations is None else demonstrations
        prompts[FEW_SHOT] = few_shot_prompts(
            reward, examples, demonstrations_from, demonstrations=demonstrations, seed=seed
        )
    attention = pd.concat(
        [
            _attention(reward, place, setting, questions, (positive, negative), some)
            for setting, some in prompts.items()
        ],
        ignore_index=True,
    )
    vector = values[place.layer, place.head]
    if centred:
        own = mean_heads(judge.model, sequences, batch_size=judge.batch_size).values
        vector = vector - own[place.layer, place.head]
    logits, gap = direct_logits(
        judge.model, sequences, *place, vector, judge.verdict_tokens, batch_size=judge.batch_size
    )
    return HeadCard(
        head=place,
        criterion=reward.record.criterion,
        model=reward.info.name,
        chosen=place in reward.heads,
        n=len(questions),
        attention=attention,
        attention_by_token=_by_token(attention),
        tokens=_extreme_tokens(reward, logits, top),
        gap_effect=gap,
        verdicts=(positive, negative),
        centred=centred,
        scores=scores,
        outcome=outcome,
        examples_shown=examples_shown,
    )


def _attention(
    reward: ActivationRewardModel,
    head: Head,
    setting: str,
    questions: Sequence[Question],
    verdicts: tuple[str, str],
    sequences: Sequence[Sequence[int]],
) -> pd.DataFrame:
    """One row for each token of each prompt."""
    judge = reward.judge
    rows = attention_rows(judge.model, sequences, *head, batch_size=judge.batch_size)
    parts = [
        pd.DataFrame(
            {
                "setting": setting,
                "example": question.name,
                "verdict": verdicts[0] if question.positive else verdicts[1],
                "position": range(len(sequence)),
                "token": token_texts(judge.model.tokenizer, sequence),
                "weight": row.double().numpy(),
            }
        )
        for question, sequence, row in zip(_named(questions), sequences, rows, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _named(questions: Sequence[Question]) -> list[Question]:
    """The questions with names that differ: a pair's two responses share one."""
    seen: dict[str, int] = {}
    named = []
    for question in questions:
        seen[question.name] = count = seen.get(question.name, 0) + 1
        name = question.name if count == 1 else f"{question.name} ({count})"
        named.append(Question(question.text, question.positive, name))
    return named


def _by_token(attention: pd.DataFrame) -> pd.DataFrame:
    prompts = attention.groupby("setting", sort=False)["example"].nunique()
    tokens = attention.groupby(["setting", "token"], sort=False).agg(
        total=("weight", "sum"), weight=("weight", "mean"), places=("weight", "size"), prompts=("example", "nunique")
    )
    tokens = tokens.reset_index()
    tokens["n"] = tokens["setting"].map(prompts)
    tokens.insert(2, "share", tokens.pop("total") / tokens["n"])
    order = {ZERO_SHOT: 0, FEW_SHOT: 1}
    by = tokens.assign(order=tokens["setting"].map(order))
    by = by.sort_values(["order", "share"], ascending=[True, False], kind="stable")
    return by.drop(columns="order").reset_index(drop=True)


def _extreme_tokens(reward: ActivationRewardModel, logits: Float[Tensor, " vocab"], top: int) -> pd.DataFrame:
    tokenizer = reward.judge.model.tokenizer
    known = logits[: len(tokenizer)]  # beyond it are rows that pad the unembedding
    count = min(top, len(known))
    parts = []
    for direction, largest in (("promoted", True), ("suppressed", False)):
        found = torch.topk(known, count, largest=largest)
        ids = found.indices.tolist()
        columns = {
            "direction": direction,
            "rank": range(1, count + 1),
            "token": token_texts(tokenizer, ids),
            "token_id": ids,
            "effect": found.values.double().numpy(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _scores_of(head: Head, attributions: pd.DataFrame | None) -> pd.DataFrame:
    """A head's rows, with its rank among all heads of the same criterion, measure and outcome."""
    if attributions is None:
        return pd.DataFrame(columns=[*SCORES.required, "rank", "heads"])
    if len(attributions):
        checked(attributions, SCORES)
    keys = ["criterion", "measure", "outcome"]
    groups = attributions.groupby(keys, sort=False)["score"]
    ranked = attributions.assign(rank=groups.rank(ascending=False, method="min"), heads=groups.transform("count"))
    own = ranked[(ranked["layer"] == head.layer) & (ranked["head"] == head.head)]
    if own.empty and len(attributions):
        raise ValueError(f"the attributions do not know {head}")
    return own[[*SCORES.required, "rank", "heads"]].reset_index(drop=True)
