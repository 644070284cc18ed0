"""A head card: one head on one page.

It has the tokens that the head attends to at the end of a question, on given examples; the tokens that its mean promotes and
suppresses by the direct path; and its scores and ranks among all heads, for given criteria and measures. The card is a set of
tidy tables with a view for notebooks and one for terminals; `arm_lens.plots.head_card_figure` draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.attribution.few_shot import few_shot_prompts, questions_about
from arm_lens.attribution.head_card_views import FEW_SHOT, ZERO_SHOT, HeadCard
from arm_lens.attribution.outcomes import Outcome
from arm_lens.attribution.reading import attention_rows, direct_logits, token_texts
from arm_lens.engine.images import SeenImage
from arm_lens.engine.reading import mean_heads
from arm_lens.engine.sharing import shared_readings
from arm_lens.evaluation.trust import COLUMNS, with_trust
from arm_lens.frames import ATTRIBUTIONS, PATCHES, checked
from arm_lens.heads import Head, HeadSet, Named, ScoredLike, attributions_frame
from arm_lens.judges.questions import Question, verdicts_of
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
    max_examples: int = 3,
    outcome: Outcome = "probability",
    seed: int = 0,
) -> HeadCard:
    """Everything about one head of a reward model's language model, which is read unsteered.

    Args:
        reward: the reward model; it need not write at the head.
        head: (layer, head).
        examples: what the questions are about while the head is watched.
        attributions: scores of heads, for any criteria and measures: attributions, also by the name of the criterion, or
            their table.
        demonstrations_from: read each question a second time, after demonstrations from these examples, as for the means.
        demonstrations: how many; by default as many as the means were read with.
        centred: subtract the head's own mean on these questions from the mean that is written: injection by replacing puts
            the one in the place of the other, and changes only the difference.
        top: tokens promoted, and suppressed, at most.
        max_examples: examples that the card displays; its tables have all.
        outcome: the outcome whose scores the card displays.
        seed: of the choice of demonstrations.

    Raises:
        ValueError: if the head is not the model's, there is no example, a column of the attributions is missing, or they
            have the head twice.
        RuntimeError: if the model does not expose its attention pattern.
    """
    judge, values = reward.judge, reward.means.values
    (place,) = HeadSet.of(values.shape[0], values.shape[1], [head])
    scores = _scores_of(place, None if attributions is None else attributions_frame(attributions))
    questions = questions_about(reward, examples)
    sequences = judge.encode(questions)
    positive, negative = (side[0] for side in verdicts_of(judge.template, judge.layout))
    right = {name: positive if question.positive else negative for name, question in _named(questions).items()}
    with shared_readings():  # each prompt is read once
        attention = [_attention(reward, place, ZERO_SHOT, right, sequences)]
        if demonstrations_from is not None:
            count = reward.record.demonstrations if demonstrations is None else demonstrations
            prompts = few_shot_prompts(reward, examples, demonstrations_from, demonstrations=count, seed=seed)
            attention.append(_attention(reward, place, FEW_SHOT, right, prompts))
        vector = values[place]
        if centred:
            vector = vector - mean_heads(judge.model, sequences, batch_size=judge.batch_size).values[place]
        logits, gap = direct_logits(
            judge.model, sequences, *place, vector, judge.verdict_tokens, batch_size=judge.batch_size
        )
    table, patches = (pd.concat(parts, ignore_index=True) for parts in zip(*attention, strict=True))
    return HeadCard(
        head=place,
        criterion=reward.record.criterion,
        model=reward.info.name,
        chosen=place in reward.heads,
        n=len(questions),
        attention=table,
        attention_by_token=_by_token(table),
        patches=patches,
        tokens=_extreme_tokens(reward, logits, top),
        gap_effect=gap,
        verdicts=(positive, negative),
        centred=centred,
        scores=scores,
        outcome=outcome,
        max_examples=max_examples,
    )


def _named(questions: Sequence[Question]) -> dict[str, Question]:
    """The questions by names that differ: the two responses of a pair may share one."""
    seen: Counter[str] = Counter()
    named = {}
    for question in questions:
        seen[question.name] += 1
        count = seen[question.name]
        named[question.name if count == 1 else f"{question.name} ({count})"] = question
    return named


def _attention(
    reward: ActivationRewardModel,
    head: Head,
    setting: str,
    right: Mapping[str, str],
    sequences: Sequence[Sequence[int]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row for each token of each prompt and for each image, and one for each patch of an image."""
    judge = reward.judge
    rows = attention_rows(judge.model, sequences, *head, batch_size=judge.batch_size)
    of_tokens, of_patches = [], [pd.DataFrame(columns=[*PATCHES.required, "setting"])]
    for (name, verdict), sequence, row in zip(right.items(), sequences, rows, strict=True):
        about = {"setting": setting, "example": name, "verdict": verdict}
        weights, texts = row.double().numpy(), token_texts(judge.model.tokenizer, sequence)
        seen, merged = ([] if judge.model.images is None else judge.model.images.seen_in(sequence)), list[int]()
        for number, image in enumerate(seen, start=1):
            first, *others = image.positions
            weights[first], texts[first] = weights[image.positions].sum(), f"[image {number}]"
            of_patches.append(_of_patches(image, row).assign(picture=number, **about))
            merged += others
        tokens = pd.DataFrame({**about, "position": range(len(sequence)), "token": texts, "weight": weights})
        of_tokens.append(tokens.drop(index=merged))
    return pd.concat(of_tokens, ignore_index=True), pd.concat(of_patches, ignore_index=True)


def _of_patches(image: SeenImage, row: Float[Tensor, " pos"]) -> pd.DataFrame:
    """How much goes to each patch of the picture of the whole image; no rows if it is not known which these are."""
    patches = image.patches
    if patches is None:
        return pd.DataFrame()
    places = image.positions[patches.start : patches.start + patches.rows * patches.columns]
    down, across = (index.flatten() for index in np.indices((patches.rows, patches.columns)))
    (width, height), (left, top, right, bottom) = image.image.size, patches.region
    wide, high = (right - left) / patches.columns, (bottom - top) / patches.rows
    return pd.DataFrame({
        "image": image.image.digest, "width": width, "height": height, "row": down, "column": across,
        "weight": row.double().numpy()[places],
        "left": left + across * wide, "top": top + down * high, "right": left + (across + 1) * wide,
        "bottom": top + (down + 1) * high,
    })  # fmt: skip


def _by_token(attention: pd.DataFrame) -> pd.DataFrame:
    prompts = attention.groupby("setting")["example"].nunique()
    tokens = attention.groupby(["setting", "token"], sort=False).agg(
        share=("weight", "sum"), weight=("weight", "mean"), places=("weight", "size"), prompts=("example", "nunique")
    )
    tokens = tokens.reset_index()
    tokens["n"] = tokens["setting"].map(prompts)
    tokens["share"] /= tokens["n"]
    # Of the settings' names the zero-shot one is the last in the alphabet.
    return tokens.sort_values(["setting", "share"], ascending=False, kind="stable", ignore_index=True)


def _extreme_tokens(reward: ActivationRewardModel, logits: Float[Tensor, " vocab"], top: int) -> pd.DataFrame:
    tokenizer = reward.judge.model.tokenizer
    known = logits[: len(tokenizer)]  # beyond it are rows that pad the unembedding
    count = min(top, len(known))
    parts = []
    for direction in ("promoted", "suppressed"):
        effects, ids = torch.topk(known, count, largest=direction == "promoted")
        tokens = {"token": token_texts(tokenizer, ids.tolist()), "token_id": ids.tolist(), "effect": effects.double()}
        parts.append(pd.DataFrame({"direction": direction, "rank": range(1, count + 1), **tokens}))
    return pd.concat(parts, ignore_index=True)


def _scores_of(head: Head, attributions: pd.DataFrame | None) -> pd.DataFrame:
    """A head's rows, with its rank among all heads of the same criterion, measure and outcome, and how far to trust it."""
    columns = [*SCORES.required, "rank", "heads"]
    if attributions is None or attributions.empty:
        return pd.DataFrame(columns=columns)
    attributions = with_trust(checked(attributions, SCORES))
    columns += [column for column in COLUMNS if column in attributions.columns]
    groups = attributions.groupby(["criterion", "measure", "outcome"], sort=False)["score"]
    ranked = attributions.assign(rank=groups.rank(ascending=False, method="min"), heads=groups.transform("count"))
    own = ranked[(ranked["layer"] == head.layer) & (ranked["head"] == head.head)]
    if own.empty:
        raise ValueError(f"the attributions have no row of {head}")
    return own[columns].reset_index(drop=True)
