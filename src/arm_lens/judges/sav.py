r"""Sparse Attention Vectors: a few heads whose activations tell the two kinds of example apart, and vote (arXiv 2412.00142).

Of each head, the activations at the last token of the bare question are averaged over the examples that meet the
criterion and over those that do not. A response belongs to the class whose mean is nearer (by cosine),

.. math:: \hat y[l, m] = \big[\cos(z[l, m], \mu^+[l, m]) > \cos(z[l, m], \mu^-[l, m])\big],

and the heads that classify the examples best are kept. Their majority is the verdict, the share of their votes the
reward. The published code scores an example against a mean that contains it; here it is left out. Nothing is written
into the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from arm_lens.display import card, code_line, counted, listed, score_map
from arm_lens.engine.models import Model, describe
from arm_lens.engine.reading import read_heads
from arm_lens.heads import HeadScores, HeadSet
from arm_lens.judges.base import ScoresResponses
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.questions import Question, encode_questions, questions_of, scalar_questions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Preference, Prompt

ALIKE = 1e-6
"""Cosines closer than this are a tie: at some heads every prompt gives the same activation but for rounding, and rounding
would tell the classes apart, or mix them up, perfectly."""


@dataclass(frozen=True, eq=False)
class SparseAttentionVectors(ScoresResponses):
    """A fitted judge: class means of every head, and which heads vote."""

    judge: GenerativeJudge
    """The model and how it is asked."""
    positive: Float[Tensor, "layer head d_head"]
    """The mean of the examples that meet the criterion."""
    negative: Float[Tensor, "layer head d_head"]
    heads: HeadSet
    scores: HeadScores
    """The leave-one-out accuracy of each head on the examples."""

    @classmethod
    def fit(
        cls,
        model: Model,
        examples: Sequence[Preference],
        *,
        heads: int = 20,
        criterion_text: str = "",
        template: JudgeTemplate | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> SparseAttentionVectors:
        """Read the examples and choose the heads that vote.

        Args:
            model: of either class; it is not changed.
            examples: pairs or labelled responses, of both kinds.
            heads: how many vote; all, if the model has fewer. Of equally good ones, those in earlier layers.
            criterion_text: the criterion in words, put into every prompt; empty to leave it to the examples alone.
            template: by default the model's own, or the general one.
            batch_size: prompts per forward pass.
            progress: show progress bars.

        Raises:
            ValueError: if the examples are all of one kind.
            PromptTooLongError: naming the example whose prompt exceeds the model's context.
        """
        judge = GenerativeJudge(model, criterion_text=criterion_text, template=template, batch_size=batch_size)
        questions = questions_of(examples, judge.template)
        labels = torch.tensor([question.positive for question in questions])
        z = question_activations(judge, questions, progress=progress)
        scores = HeadScores("leave-one-out accuracy", leave_one_out_accuracy(z, labels))
        chosen = scores.top(min(heads, scores.values.numel()))
        return cls(judge, z[labels].mean(dim=0), z[~labels].mean(dim=0), chosen, scores)

    def votes(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "example layer head"]:
        """Every head's verdict on each response: 1, 0, or 0.5 where both means are equally near."""
        questions = scalar_questions(self.judge.template, prompts, responses)
        return self.verdicts(question_activations(self.judge, questions, progress=progress))

    def verdicts(self, z: Float[Tensor, "example layer head d_head"]) -> Float[Tensor, "example layer head"]:
        """Every head's verdict, from activations at the last token of bare questions."""
        to_positive, to_negative = (
            cosine_similarity(z.double(), mean.double(), dim=-1) for mean in (self.positive, self.negative)
        )
        return _nearer(to_positive, to_negative).float()

    def share(self, verdicts: Float[Tensor, "example layer head"]) -> Float[Tensor, " example"]:
        """The share of the chosen heads that vote for each response."""
        return verdicts[:, self.heads.mask].mean(dim=1)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The share of the chosen heads that vote for each response; above one half, the majority does."""
        return self.share(self.votes(prompts, responses, progress=progress))

    def __repr__(self) -> str:
        model = describe(self.judge.model).name
        heads = f"{counted(len(self.heads), 'head')} {listed(self.heads)}"
        return f"SparseAttentionVectors({heads}, on {model})"

    def _repr_html_(self) -> str:
        facts = {
            "model": describe(self.judge.model).name,
            "criterion_text": self.judge.criterion_text or None,
            "heads that vote": listed(self.heads),
            "shade": self.scores.name,
        }
        grid = score_map(self.scores.values, chosen=self.heads.mask)
        return card(
            "Sparse Attention Vectors", facts, grid, code_line("sav.score(prompts, responses)  # share of votes")
        )


def question_activations(
    judge: GenerativeJudge, questions: Sequence[Question], *, progress: bool = False
) -> Float[Tensor, "example layer head d_head"]:
    """``hook_z`` at the last token of bare questions, without demonstrations; in float32 on the CPU."""
    sequences = encode_questions(judge.model, judge.template, questions, criterion_text=judge.criterion_text)
    parts = read_heads(judge.model, sequences, batch_size=4 * judge.batch_size, progress=progress)
    return torch.cat([part.float().cpu() for part in parts])


def leave_one_out_accuracy(
    z: Float[Tensor, "example layer head d_head"], labels: Bool[Tensor, " example"]
) -> Float[Tensor, "layer head"]:
    """How often each head, with class means of all other examples, classifies an example rightly; ties count one half.

    An example that is alone in its class leaves no mean behind and is not counted.

    Raises:
        ValueError: if all examples are of one kind, or each class has a single one.
    """
    counts = int(labels.sum()), int((~labels).sum())
    if min(counts) == 0:
        kind = "positive" if counts[0] else "negative"
        raise ValueError(f"heads are compared on examples of both kinds; all {len(labels)} are {kind}")
    if max(counts) == 1:
        raise ValueError("leaving one out needs at least two examples of one kind; there is one of each")
    z = z.double()
    sums = {True: z[labels].sum(dim=0), False: z[~labels].sum(dim=0)}
    right = torch.zeros(z.shape[1:3], dtype=torch.float64)
    counted = 0
    for one, label in zip(z, labels.tolist(), strict=True):
        if counts[0 if label else 1] == 1:
            continue
        # Cosine does not see the difference between a sum and a mean.
        mine, theirs = sums[label] - one, sums[not label]
        right += _nearer(cosine_similarity(one, mine, dim=-1), cosine_similarity(one, theirs, dim=-1))
        counted += 1
    return (right / counted).float()


def _nearer(one: Float[Tensor, "*shape"], two: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    difference = torch.where((one - two).abs() < ALIKE, 0.0, one - two)
    return (difference > 0).to(one) + 0.5 * (difference == 0)
