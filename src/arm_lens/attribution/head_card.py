"""A head card: everything there is to know about one head on one page.

Which tokens it attends to where the verdict is due, on given examples; which tokens the mean that is written at it promotes
and suppresses, by the direct path alone; and how it scores, for every criterion and measure given, among all heads. The
card is a set of tidy tables that shows itself in a notebook and in a terminal; `arm_lens.plots.head_card_figure` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.attribution.few_shot import asked_about, few_shot_prompts
from arm_lens.attribution.head_card_views import card_html, card_text
from arm_lens.attribution.outcomes import Outcome
from arm_lens.attribution.reading import attention_rows, direct_logits, token_texts
from arm_lens.engine.reading import mean_heads
from arm_lens.heads import Head, HeadSet
from arm_lens.judges.questions import Question, encode_questions, verdicts_of
from arm_lens.preferences import Preference
from arm_lens.reward.model import ActivationRewardModel

BARE, SHOWN = "zero-shot", "few-shot"
"""The two kinds of prompts: the bare question, and the question behind demonstrations."""
SCORES = ("criterion", "measure", "outcome", "layer", "head", "score", "se", "ci_low", "ci_high", "sampling_se", "n")


@dataclass(frozen=True, eq=False)
class HeadCard:
    """What one head reads, what its mean writes, and how it scores; see `head_card`."""

    head: Head
    criterion: str
    model: str
    chosen: bool
    """Whether the reward model writes at it."""
    n: int
    """Questions."""
    attention: pd.DataFrame
    """How much the last token attends to each token: setting (``zero-shot`` or ``few-shot``), example, verdict (the right
    one), position, token, weight; one row for each token of each prompt."""
    attention_by_token: pd.DataFrame
    """The same by the token's text: setting, token, share (of a prompt's attention, all its places together; mean over
    prompts), weight (mean over its places), places, prompts (in which it stands), n (prompts); highest share first."""
    tokens: pd.DataFrame
    """What the mean does to logits by the direct path: direction (``promoted``, ``suppressed``), rank, token, token_id,
    effect (change of the logit)."""
    gap_effect: float
    """What it does to the gap between the verdicts, positive minus negative, by the direct path."""
    verdicts: tuple[str, str]
    """How the positive and the negative verdict are spelt."""
    centred: bool
    """Whether the head's own mean on these questions was taken away before."""
    scores: pd.DataFrame
    """Rows of the given attributions for this head, with rank (1 for the highest score) and heads (how many there are)."""
    outcome: Outcome
    """Which of the outcomes the card shows; measures without it show the first they have."""
    examples_shown: int
    """How many examples the card shows."""

    @property
    def name(self) -> str:
        """As it is called in titles."""
        return f"Head {self.head}" + (f" for '{self.criterion}'" if self.criterion else "")

    def frame(self) -> pd.DataFrame:
        """The scores; the other tables are `attention`, `attention_by_token` and `tokens`."""
        return self.scores

    def shown_attention(self, setting: str = BARE) -> pd.DataFrame:
        """The rows of `attention` for the examples that the card shows, both verdicts in turn."""
        rows = self.attention[self.attention["setting"] == setting]
        return rows[rows["example"].isin(_picked(rows, self.examples_shown))]

    def shown_scores(self) -> pd.DataFrame:
        """The rows of `scores` that the card shows: of each measure one outcome."""
        known = self.scores.groupby("measure")["outcome"].transform(lambda one: (one == self.outcome).any())
        first = self.scores.groupby("measure")["outcome"].transform("first")
        wanted = first.where(~known.astype(bool), self.outcome)
        return self.scores[self.scores["outcome"] == wanted]

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)


def head_card(
    reward: ActivationRewardModel,
    head: Head | tuple[int, int],
    examples: Sequence[Preference],
    *,
    attributions: pd.DataFrame | None = None,
    worked: Sequence[Preference] | None = None,
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
        attributions: scores of heads, as `Attribution.frame` gives them, of any criteria and measures together.
        worked: read each question a second time, after demonstrations taken from these, as the means were.
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
    scores = _scores_of(place, attributions)
    questions = asked_about(reward, examples)
    sequences = encode_questions(
        judge.model, judge.template, questions, layout=judge.layout, criterion_text=judge.criterion_text
    )
    positive, negative = (side[0] for side in verdicts_of(judge.template, judge.layout))
    prompts = {BARE: sequences}
    if worked is not None:
        demonstrations = reward.record.demonstrations if demonstrations is None else demonstrations
        prompts[SHOWN] = few_shot_prompts(reward, examples, worked, demonstrations=demonstrations, seed=seed)
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
    logits, gap = direct_logits(judge.model, sequences, *place, vector, judge.verdicts, batch_size=judge.batch_size)
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
    order = {BARE: 0, SHOWN: 1}
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
        return pd.DataFrame(columns=[*SCORES, "rank", "heads"])
    missing = [column for column in SCORES if column not in attributions.columns]
    if missing:
        raise ValueError(f"the attributions lack the column {', '.join(map(repr, missing))}")
    keys = ["criterion", "measure", "outcome"]
    twice = attributions[attributions.duplicated([*keys, "layer", "head"])]
    if len(twice):
        where = ", ".join(f"{key} {twice.iloc[0][key]!r}" for key in keys)
        raise ValueError(f"the attributions have L{twice.iloc[0]['layer']}H{twice.iloc[0]['head']} twice for {where}")
    groups = attributions.groupby(keys, sort=False)["score"]
    ranked = attributions.assign(rank=groups.rank(ascending=False, method="min"), heads=groups.transform("count"))
    own = ranked[(ranked["layer"] == head.layer) & (ranked["head"] == head.head)]
    if own.empty and len(attributions):
        raise ValueError(f"the attributions do not know {head}")
    return own[[*SCORES, "rank", "heads"]].reset_index(drop=True)


def _picked(rows: pd.DataFrame, count: int) -> list[str]:
    """The first examples of each verdict in turn."""
    firsts = rows.drop_duplicates("example")
    by_verdict = [group["example"].tolist() for _, group in firsts.groupby("verdict", sort=False)]
    turns = [name for turn in zip_longest(*by_verdict) for name in turn if name is not None]
    return turns[:count]
