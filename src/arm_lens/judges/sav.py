r"""Sparse Attention Vectors: a few heads whose activations tell the two kinds of example apart, and vote (arXiv 2412.00142).

The activations of each head at the last token of the bare question are averaged over the examples that meet the criterion
and over those that do not. A response belongs to the class whose mean is nearer (by cosine),

.. math:: \hat y[l, m] = \big[\cos(z[l, m], \mu^+[l, m]) > \cos(z[l, m], \mu^-[l, m])\big],

and the heads that classify the examples best vote. Their majority is the verdict, the share of their votes the
reward. The published code scores an example against a mean that contains it; here it is left out. Nothing is written
into the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import cosine_similarity

from arm_lens.display import card, code_line, counted, listed, score_map
from arm_lens.engine.finite import naming_examples
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.reading import read_all
from arm_lens.heads import HeadScores, HeadSet
from arm_lens.judges.artefact import DTYPES, QuestionRecord, check_tensors
from arm_lens.judges.base import ScoreKind
from arm_lens.judges.checks import Texts, checked, scores_of_rest
from arm_lens.judges.generative import AskingJudge, GenerativeJudge, bare_prompt
from arm_lens.judges.options import QuestionOptions, question_options
from arm_lens.judges.questions import Question, questions_of
from arm_lens.preferences import Preference
from arm_lens.preferences.overlap import data_digest, known_among, text_digests
from arm_lens.registry import JudgeSpec, OptionsModel, Style

ALIKE = 1e-6
"""Cosines closer than this are a tie: some heads give every prompt the same activation except for rounding, by which the
classes would be told apart, or mixed up, perfectly."""


@dataclass(frozen=True, eq=False)
class ActivationJudge(AskingJudge):
    """A judge that reads activations at the last token of the bare question, and writes nothing into the model."""

    fitted_on: tuple[str, ...] = field(default=(), kw_only=True)
    """Digests of the texts that it was fitted on (`arm_lens.preferences.overlap.text_digests`)."""
    data: str = field(default="", kw_only=True)
    """The SHA-256 of the examples, with their labels (`arm_lens.preferences.overlap.data_digest`); empty if not recorded."""

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples with a text that it was fitted on."""
        return known_among(examples, self.fitted_on)

    def activations(
        self, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> Float[Tensor, "example layer head d_head"]:
        """``hook_z`` at the last token of the question about each response; otherwise as `score`."""
        return question_activations(self.judge, self.judge.scalar_questions(prompts, responses), progress=progress)

    @classmethod
    def scalar_judge(cls, model: ModelLike, question: QuestionOptions | str | None) -> GenerativeJudge:
        """The judge that puts the questions that are read; a ValueError unless they are about single responses."""
        if question_options(question).layout != "scalar":
            raise ValueError(
                f"a judge of the kind {cls.kind!r} scores single responses: use layout='scalar', not 'ranked'"
            )
        return GenerativeJudge(model, question=question)

    def left_out(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples that get no score because they are too long, each with the error; none unless the options say so."""
        return self.too_long(prompts, responses) if self.judge.question.on_too_long == "skip" else {}


class ActivationRecord(QuestionRecord):
    """What is saved of a judge that reads activations, in addition to tensors."""

    fitted_on: list[str]
    data: str


class VectorsRecord(ActivationRecord):
    """What is saved of Sparse Attention Vectors, in addition to tensors."""

    heads: list[tuple[int, int]]
    head_scores: str
    """What the scores are."""


@dataclass(frozen=True, eq=False)
class SparseAttentionVectors(ActivationJudge):
    """Class means of every head's activations, and the heads that vote by them; nothing is written into the model."""

    kind: ClassVar[str] = "sparse attention vectors"
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
        """Read the examples and choose the heads that vote; otherwise as `FittedJudge.fit`.

        ``heads`` says how many: all, if the model has fewer; of equally good ones, those in earlier layers. The layout is
        scalar, and the examples must be of both kinds.

        Raises:
            ValueError: if there are no heads to vote, or the examples are of one kind.
        """
        if heads < 1:
            raise ValueError(f"heads is {heads}: at least one head votes")
        judge = cls.scalar_judge(model, question)
        questions = questions_of(examples, judge.template, judge.layout)
        labels = torch.tensor([question.positive for question in questions])
        z = question_activations(judge, questions, progress=progress)
        scores = HeadScores("leave-one-out accuracy", leave_one_out_accuracy(z, labels))
        chosen = scores.top(min(heads, scores.values.numel()))
        means = z[labels].mean(dim=0), z[~labels].mean(dim=0)
        return cls(judge, *means, chosen, scores, fitted_on=text_digests(examples), data=data_digest(examples))

    @property
    def states_probability(self) -> bool:
        """The share of votes counts as a probability."""
        return True

    def facts(self) -> dict[str, Any]:
        """How many heads vote, and which."""
        return {"n_heads": len(self.heads), "heads": self.heads.to_list()}

    def votes(self, prompts: Texts, responses: Texts, *, progress: bool = False) -> Float[Tensor, "example layer head"]:
        """Every head's verdict on each response: 1, 0, or 0.5 if both means are equally near."""
        z = self.activations(prompts, responses, progress=progress)
        to_positive, to_negative = (
            cosine_similarity(z.double(), mean.double(), dim=-1) for mean in (self.positive, self.negative)
        )
        return _nearer(to_positive, to_negative).float()

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The share of the chosen heads that vote for each response, of either kind; above one half, the majority does."""
        self.check_kind(kind)

        def share(prompts: Texts, responses: Texts) -> Tensor:
            return self.votes(prompts, responses, progress=progress)[:, self.heads.mask].mean(dim=1)

        return scores_of_rest(prompts, responses, self.left_out(prompts, responses), share)

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        tensors = {"positive": self.positive, "negative": self.negative, "head_scores": self.head_scores.values}
        record = {**self.judge.record(), "heads": self.heads.to_list(), "head_scores": self.head_scores.name}
        return self.model, tensors, record | {"fitted_on": list(self.fitted_on), "data": self.data}

    @classmethod
    def _from_artefact(
        cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]
    ) -> SparseAttentionVectors:
        found = VectorsRecord.parse(record)
        judge = GenerativeJudge.of_record(model, found)
        shape = (judge.model.n_layers, judge.model.n_heads)
        means = dict.fromkeys(("positive", "negative"), (*shape, judge.model.d_head))
        check_tensors(tensors, {**means, "head_scores": shape}, dtypes=DTYPES)
        scores = HeadScores(found.head_scores, tensors["head_scores"])
        own = tensors["positive"], tensors["negative"], HeadSet.of(*shape, found.heads), scores
        return cls(judge, *own, fitted_on=tuple(found.fitted_on), data=found.data)

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
    """``hook_z`` at the last token of bare questions, without demonstrations; in float32 on the CPU.

    Raises:
        NotFiniteError: naming the question.
    """
    sequences = judge.encode(questions)
    names = [question.name for question in questions]
    with naming_examples(names):
        z = read_all(judge.model, sequences, batch_size=4 * judge.batch_size, progress=progress).float()
    return checked(z, names)


def leave_one_out_accuracy(
    z: Float[Tensor, "example layer head d_head"], labels: Bool[Tensor, " example"]
) -> Float[Tensor, "layer head"]:
    """How often each head, with the class means of all other examples, classifies an example rightly; a tie is one half.

    An example that is alone in its class is not counted: without it the class has no mean.

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
        # The cosine is the same with a sum as with a mean.
        mine, theirs = sums[label] - one, sums[not label]
        right += _nearer(cosine_similarity(one, mine, dim=-1), cosine_similarity(one, theirs, dim=-1))
        counted += 1
    return (right / counted).float()


def _nearer(one: Float[Tensor, "*shape"], two: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    difference = torch.where((one - two).abs() < ALIKE, 0.0, one - two)
    return (difference > 0).to(one) + 0.5 * (difference == 0)


class SAVOptions(OptionsModel):
    """Options of Sparse Attention Vectors."""

    question: QuestionOptions = QuestionOptions()
    heads: PositiveInt = 20
    """How many vote."""


SPEC = JudgeSpec(
    name="sav",
    judge=SparseAttentionVectors,
    options=SAVOptions,
    fit=lambda context, options: context.fit(SparseAttentionVectors, options),
    summary="Sparse Attention Vectors: the share of the best heads that vote for a response.",
    style=Style(label="SAV", color="#6a3d9a", symbol="star", group="Readouts"),
    checks_fit=True,
    prompt=bare_prompt,
    place=200,
)
