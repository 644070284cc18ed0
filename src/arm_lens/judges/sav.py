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
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from arm_lens.display import card, code_line, counted, listed, score_map
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.reading import read_all
from arm_lens.heads import HeadScores, HeadSet
from arm_lens.judges.artefact import decoding, read_artefact, write_artefact
from arm_lens.judges.base import FitContext, FittedJudge
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, encode_questions, questions_of
from arm_lens.preferences import Preference, Prompt
from arm_lens.registry import JudgeSpec, OptionsModel, Style

ALIKE = 1e-6
"""Cosines closer than this are a tie: at some heads every prompt gives the same activation but for rounding, and rounding
would tell the classes apart, or mix them up, perfectly."""


@dataclass(frozen=True, eq=False)
class SparseAttentionVectors(FittedJudge):
    """A fitted judge: class means of every head, and which heads vote."""

    kind: ClassVar[str] = "sparse attention vectors"
    judge: GenerativeJudge
    """The model and how it is asked."""
    positive: Float[Tensor, "layer head d_head"]
    """The mean of the examples that meet the criterion."""
    negative: Float[Tensor, "layer head d_head"]
    heads: HeadSet
    head_scores: HeadScores
    """The leave-one-out accuracy of each head on the examples."""

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        heads: int = 20,
        progress: bool = False,
    ) -> SparseAttentionVectors:
        """Read the examples and choose the heads that vote.

        Args:
            model: any that `arm_lens.engine.language_model` accepts; it is not changed.
            examples: pairs or labelled responses, of both kinds.
            question: how it is asked, scalar; a bare string is the criterion in words.
            heads: how many vote; all, if the model has fewer. Of equally good ones, those in earlier layers.
            progress: show progress bars.

        Raises:
            ValueError: if the examples are all of one kind.
            PromptTooLongError: naming the example whose prompt exceeds the model's context.
        """
        judge = GenerativeJudge(model, question=question)
        questions = questions_of(examples, judge.template, judge.layout)
        labels = torch.tensor([question.positive for question in questions])
        z = question_activations(judge, questions, progress=progress)
        scores = HeadScores("leave-one-out accuracy", leave_one_out_accuracy(z, labels))
        chosen = scores.top(min(heads, scores.values.numel()))
        return cls(judge, z[labels].mean(dim=0), z[~labels].mean(dim=0), chosen, scores)

    @property
    def model(self) -> LanguageModel:
        """The model that is read."""
        return self.judge.model

    @property
    def states_probability(self) -> bool:
        """The share of votes is what this judge has for a probability."""
        return True

    def facts(self) -> dict[str, Any]:
        """How many heads vote, and which."""
        return {"n_heads": len(self.heads), "heads": self.heads.to_list()}

    def votes(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "example layer head"]:
        """Every head's verdict on each response: 1, 0, or 0.5 where both means are equally near."""
        questions = self.judge.scalar_questions(prompts, responses)
        z = question_activations(self.judge, questions, progress=progress)
        to_positive, to_negative = (
            cosine_similarity(z.double(), mean.double(), dim=-1) for mean in (self.positive, self.negative)
        )
        return _nearer(to_positive, to_negative).float()

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The share of the chosen heads that vote for each response; above one half, the majority does."""
        return self.votes(prompts, responses, progress=progress)[:, self.heads.mask].mean(dim=1)

    def save(self, path: str | Path) -> Path:
        """Write class means, heads and question to a folder; see `arm_lens.judges.artefact`."""
        tensors = {"positive": self.positive, "negative": self.negative, "head_scores": self.head_scores.values}
        record = {**self.judge.record(), "heads": self.heads.to_list(), "head_scores": self.head_scores.name}
        return write_artefact(path, self.kind, self.model, tensors, record)

    @classmethod
    def load(
        cls, path: str | Path, model: ModelLike | None = None, *, device: str | None = None
    ) -> SparseAttentionVectors:
        """Read what `save` wrote; see `FittedJudge.load`."""
        model, tensors, record = read_artefact(path, cls.kind, model, device=device)
        with decoding(Path(path)):
            scores = HeadScores(record["head_scores"], tensors["head_scores"])
            n_layers, n_heads = scores.values.shape
            heads = HeadSet.of(n_layers, n_heads, [(layer, head) for layer, head in record["heads"]])
            judge = GenerativeJudge.of_record(model, record)
            return cls(judge, tensors["positive"], tensors["negative"], heads, scores)

    def __repr__(self) -> str:
        model = self.model.info.name
        heads = f"{counted(len(self.heads), 'head')} {listed(self.heads)}"
        return f"SparseAttentionVectors({heads}, on {model})"

    def _repr_html_(self) -> str:
        facts = {
            "model": self.model.info.name,
            "criterion_text": self.judge.criterion_text or None,
            "heads that vote": listed(self.heads),
            "shade": self.head_scores.name,
        }
        grid = score_map(self.head_scores.values, chosen=self.heads.mask)
        return card(
            "Sparse Attention Vectors", facts, grid, code_line("sav.score(prompts, responses)  # share of votes")
        )


def question_activations(
    judge: GenerativeJudge, questions: Sequence[Question], *, progress: bool = False
) -> Float[Tensor, "example layer head d_head"]:
    """``hook_z`` at the last token of bare questions, without demonstrations; in float32 on the CPU."""
    sequences = encode_questions(judge.model, judge.template, questions, criterion_text=judge.criterion_text)
    return read_all(judge.model, sequences, batch_size=4 * judge.batch_size, progress=progress).float()


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


class SAVOptions(OptionsModel):
    """Options of Sparse Attention Vectors."""

    groups: ClassVar[tuple[str, ...]] = ("question",)
    question: QuestionOptions = QuestionOptions()
    heads: int = 20
    """How many vote."""


def _fit(context: FitContext, options: SAVOptions) -> SparseAttentionVectors:
    return SparseAttentionVectors.fit(context.model, context.examples, question=context.question, heads=options.heads)


SPEC = JudgeSpec(
    name="sav",
    judge=SparseAttentionVectors,
    options=SAVOptions,
    fit=_fit,
    summary="Sparse Attention Vectors: the share of the best heads that vote for a response.",
    paragraph=(
        "A few heads whose activations tell the two kinds of example apart by the nearer class mean, and vote (arXiv "
        "2412.00142). Nothing is written into the model."
    ),
    style=Style(label="SAV", color="#6a3d9a", symbol="star", group="Readouts"),
    checks_fit=True,
    place=200,
)
