r"""Verdicts at a corrected threshold: another judge's log-odds less a constant.

A judge that says Yes to everything may still order responses well: its threshold is wrong. A `CalibratedJudge` takes the
log-odds :math:`g(x)` of another judge's verdict on a response :math:`x` and subtracts an offset :math:`b`, so that

.. math:: \frac{P(\text{Yes} \mid x)}{P(\text{Yes} \mid x) + P(\text{No} \mid x)} = \sigma(g(x) - b),

and both verdicts together are as probable as before. The offset decides which single responses meet the criterion, and how
well probabilities are calibrated. It changes no order: AUC and verdicts on pairs are those of the other judge. There are
three rules for it:

``threshold``
    The offset under which the labels of the fitted examples are most likely: it maximises the mean of :math:`\log
    \sigma(g_i - b)` over examples that meet the criterion and :math:`\log \sigma(b - g_i)` over the others, together. This
    is logistic regression with a slope of one, so that there is exactly one maximum as soon as there are examples of both
    kinds, even if a threshold separates them (`fitted_threshold`).
``contextual``
    Contextual calibration (Zhao et al., 2021, arXiv 2102.09690): the probabilities of the verdicts are divided by their
    means over inputs without content, `CONTENT_FREE`, and normalised again: :math:`b = \log \bar P(\text{Yes}) - \log \bar
    P(\text{No})`. Such an input stands in place of prompt and response; a prompt that all examples share, or lack, is left
    as it is. No label is used.
``batch``
    Batch calibration (Zhou et al., 2023, arXiv 2309.17249): the mean over a batch of texts is subtracted from the
    log-probability of each verdict: :math:`b` is the mean of :math:`g`. The batch is the fitted examples, whose labels are
    not used. A score stays a function of its input and not of what else is judged; the published method takes the
    mean over the test itself, and `CalibratedJudge.of_batch` does so for texts that are given to it.

An example that is among the demonstrations of a few-shot judge is judged without itself, after the others. An Activation
Reward Model was fitted on the same examples as its threshold and tells them apart better than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from scipy.optimize import brentq
from scipy.special import log_expit, logsumexp
from torch import Tensor
from torch.nn.functional import logsigmoid

from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.base import FitContext, FittedJudge, VerdictJudge
from arm_lens.judges.by_name import judge_class
from arm_lens.judges.checks import Texts, checked
from arm_lens.judges.generative import GenerativeJudge, GenerativeOptions
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import Question, questions_of
from arm_lens.judges.records import Record
from arm_lens.preferences import Preference
from arm_lens.preferences.overlap import data_digest, known_among, text_digests
from arm_lens.registry import JudgeSpec, Style

Calibration: TypeAlias = Literal["threshold", "contextual", "batch"]
"""How an offset is found; see the module."""
CONTENT_FREE = ("N/A", "[MASK]", "")
"""The inputs without content of arXiv 2102.09690."""

RANKED = "a threshold does nothing for a ranked judge, whose verdicts in both orders are averaged: use layout='scalar'"


class CalibrationRecord(Record):
    """What is saved of a calibrated judge, in addition to the judge whose verdicts it corrects."""

    judge: str
    """The kind of that judge."""
    calibration: Calibration
    offset: Annotated[float, Field(allow_inf_nan=False)]
    fitted_on: list[str]
    data: str


@dataclass(frozen=True, eq=False)
class CalibratedJudge(VerdictJudge, FittedJudge):
    """Another judge's verdicts, an offset subtracted from their log-odds; see the module.

    Raises:
        ValueError: if there is no such calibration; if the other judge gives no verdicts, cannot be saved, or is ranked: an
            offset favours the response that stands first, and cancels over both orders.
    """

    kind: ClassVar[str] = "calibrated judge"
    judge: VerdictJudge
    """The judge whose verdicts are corrected: a `GenerativeJudge` or an Activation Reward Model."""
    calibration: Calibration
    offset: float
    """What is subtracted, in nats: the log-odds at which the other judge's verdict turns to Yes."""
    fitted_on: tuple[str, ...] = ()
    """Digests of the texts with whose labels the offset was found."""
    data: str = ""
    """The SHA-256 of those examples, with their labels; empty if the offset was found without labels."""

    def __post_init__(self) -> None:
        if self.calibration not in get_args(Calibration):
            raise ValueError(f"the calibration is one of {', '.join(get_args(Calibration))}, not {self.calibration!r}")
        if not (isinstance(self.judge, VerdictJudge) and isinstance(self.judge, FittedJudge)):
            raise ValueError(
                f"verdicts of a language model are calibrated, and {self.judge!r} gives none that can be saved"
            )
        if self.judge.compares_only:
            raise ValueError(RANKED)
        if isinstance(self.judge, GenerativeJudge):
            object.__setattr__(self, "judge", self.judge.bound(self.kind))

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        reading: ReadingOptions | None = None,
        calibration: Calibration = "threshold",
        progress: bool = False,
    ) -> CalibratedJudge:
        """A calibrated `GenerativeJudge`; otherwise as `GenerativeJudge.fit` and `of`."""
        judge = GenerativeJudge.fit(model, examples, question=question, reading=reading)
        return cls.of(judge, examples, calibration, progress=progress)

    @classmethod
    def of(
        cls,
        judge: VerdictJudge,
        examples: Sequence[Preference],
        calibration: Calibration = "threshold",
        *,
        progress: bool = False,
    ) -> CalibratedJudge:
        """Calibrate a judge that exists already on labelled preferences.

        Raises:
            ValueError: if a threshold is to be fitted and all examples are of one kind; if there are none (``contextual`` can
                do without).
            PromptTooLongError: naming the example whose prompt exceeds the model's context.
            NotFiniteError: naming the example whose verdict is not a number.
        """
        uncalibrated = cls(judge, calibration, 0.0)  # which checks the judge before any pass
        if calibration == "contextual":
            questions = content_free_questions(judge, examples)
            found = judge.verdict(questions, progress=progress)
            checked(found.gap, [one.name for one in questions])
            positive, negative = (one.double().logsumexp(dim=0) for one in (found.log_positive, found.log_negative))
            return replace(uncalibrated, offset=float(positive - negative))
        questions = questions_of(examples, judge.template)
        if calibration == "batch":
            return replace(uncalibrated, offset=float(gaps_without_own(judge, questions, progress=progress).mean()))
        labels = np.array([one.positive for one in questions], dtype=bool)
        check_both_kinds(labels)
        offset = fitted_threshold(gaps_without_own(judge, questions, progress=progress).numpy(), labels)
        return replace(uncalibrated, offset=offset, fitted_on=text_digests(examples), data=data_digest(examples))

    @classmethod
    def of_batch(
        cls, judge: VerdictJudge, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> CalibratedJudge:
        """Calibrate a judge by ``batch`` on texts without labels, such as those of a test; errors as `VerdictJudge.score`."""
        uncalibrated = cls(judge, "batch", 0.0)
        questions = judge.scalar_questions(prompts, responses)
        return replace(uncalibrated, offset=float(gaps_without_own(judge, questions, progress=progress).mean()))

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name: the other judge's."""
        return self.judge.__name__

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        model: LanguageModel = self.judge.model  # type: ignore[attr-defined]
        return model

    @property
    def question(self) -> QuestionOptions:
        """How the question is put, its template included."""
        return self.judge.question

    @property
    def heads(self) -> Any:
        """The heads of an Activation Reward Model; None for a judge without."""
        return getattr(self.judge, "heads", None)

    @property
    def selection(self) -> Any:
        """How these heads were found."""
        return getattr(self.judge, "selection", None)

    @property
    def record(self) -> Any:
        """How an Activation Reward Model was fitted."""
        return getattr(self.judge, "record", None)

    def facts(self) -> dict[str, Any]:
        """What is known of the other judge."""
        return self.judge.facts()

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that the other judge was fitted on or shows, or whose labels gave the threshold."""
        return tuple(dict.fromkeys([*self.judge.fitted_among(examples), *known_among(examples, self.fitted_on)]))

    def verdict(self, questions: Sequence[Question], *, progress: bool = False) -> VerdictScores:
        """The corrected verdict on each question, ``[question]``."""
        found = self.judge.verdict(questions, progress=progress)
        gap = found.gap - self.offset
        either = torch.logaddexp(found.log_positive, found.log_negative)
        scores = VerdictScores.of(either + logsigmoid(gap), either + logsigmoid(-gap), gap)
        return replace(scores, preferred=found.preferred)

    def too_long_questions(self, questions: Sequence[Question]) -> dict[int, str]:
        """The questions, by number, that exceed the model's context, each with the error; none if they are clipped."""
        return self.judge.too_long_questions(questions)

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        assert isinstance(self.judge, FittedJudge)
        model, tensors, record = self.judge._artefact()
        own = CalibrationRecord(
            judge=self.judge.kind,
            calibration=self.calibration,
            offset=self.offset,
            fitted_on=list(self.fitted_on),
            data=self.data,
        )
        return model, tensors, {**record, **own.model_dump()}

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> CalibratedJudge:
        names = CalibrationRecord.model_fields
        found = CalibrationRecord.parse({name: value for name, value in record.items() if name in names})
        others = {name: value for name, value in record.items() if name not in names}
        judge: Any = judge_class(found.judge)._from_artefact(model, tensors, others)
        return cls(judge, found.calibration, found.offset, tuple(found.fitted_on), found.data)

    def __repr__(self) -> str:
        return f"CalibratedJudge({self.calibration}, offset {self.offset:+.3g}, {self.judge!r})"


def fitted_threshold(gaps: Float[np.ndarray, " example"], labels: Bool[np.ndarray, " example"]) -> float:
    """The offset b that maximises the mean log-likelihood of labels under P(label) = sigmoid(gap - b).

    At the maximum the probability of Yes that the negative examples have together, and the probability of No that the
    positive ones have together, are equal. Their logarithms are compared, which differ even if all are next to zero.

    Raises:
        ValueError: if all labels are of one kind: there is no maximum.
    """
    check_both_kinds(labels)
    gaps = gaps.astype(np.float64)
    positive, negative = gaps[labels], gaps[~labels]

    def difference(offset: float) -> float:
        return float(logsumexp(log_expit(negative - offset)) - logsumexp(log_expit(offset - positive)))

    # So far below all gaps, or above, that one side outweighs the other whatever their numbers.
    margin = abs(np.log(len(positive) / len(negative))) + 1
    return float(brentq(difference, gaps.min() - margin, gaps.max() + margin, xtol=1e-12))


def check_both_kinds(labels: Bool[np.ndarray, " example"]) -> None:
    """Raise a ValueError unless some examples meet the criterion and others do not."""
    if len(set(labels.tolist())) < 2:
        raise ValueError(f"a threshold is fitted to examples of both kinds; all {len(labels)} are of one")


def gaps_without_own(
    judge: VerdictJudge, questions: Sequence[Question], *, progress: bool = False
) -> Float[Tensor, " question"]:
    """The log-odds of the verdict on each question, none of which is among its own demonstrations.

    Raises:
        ValueError: if there is no question.
        PromptTooLongError: naming the question that exceeds the model's context.
        NotFiniteError: naming the question.
    """
    if not questions:
        raise ValueError("a judge is calibrated on texts, and there are none; pass examples")
    if isinstance(judge, GenerativeJudge):
        shown = [(one.about, one) for one in judge.demonstrations]
        contexts = [tuple(one for about, one in shown if about != question.about) for question in questions]
        found = judge.verdict(questions, demonstrations=contexts, progress=progress)
    else:
        found = judge.verdict(questions, progress=progress)
    return checked(found.gap.double(), [one.name for one in questions])


def content_free_questions(judge: VerdictJudge, examples: Sequence[Preference]) -> list[Question]:
    """The questions about inputs without content; a prompt that all examples share, or lack, stays."""
    prompts = [one.prompt for one in examples]
    stays = bool(prompts) and all(one == prompts[0] for one in prompts)
    takes_prompt = judge.template.takes_prompt()
    return [
        Question(
            judge.template.question(prompts[0] if stays else text if takes_prompt else "", text),
            True,
            f"the content-free input {text!r}",
        )
        for text in CONTENT_FREE
    ]


def check_scalar(options: Any) -> None:
    """Raise a ValueError if a calibrated judge is to be ranked."""
    if options.question.layout == "ranked":
        raise ValueError(RANKED)


class CalibratedOptions(GenerativeOptions):
    """Options of the calibrated judge."""

    calibration: Calibration = "threshold"
    """How the threshold is found: ``threshold`` fits it to the examples, ``contextual`` and ``batch`` use no label."""


def _prompt(context: FitContext, options: CalibratedOptions, example: Preference) -> str:
    judge = GenerativeJudge.fit(context.model, context.examples, question=context.question, reading=context.reading)
    return judge.prompt_of(example)


SPEC = JudgeSpec(
    name="calibrated",
    judge=CalibratedJudge,
    options=CalibratedOptions,
    fit=lambda context, options: context.fit(CalibratedJudge, options),
    summary="The model's P(Yes), demonstrations in the prompt, at a threshold that is corrected on the examples.",
    style=Style(label="Calibrated", color="#0072b2", symbol="diamond-wide", group="Asking the model"),
    prompt=_prompt,
    check=check_scalar,
    place=305,
)
SPECS = (
    SPEC,
    SPEC.preset(
        "zero_shot_threshold",
        {"demonstrations": 0},
        summary="The model's P(Yes), nothing in the prompt, at the threshold that fits the examples best.",
        label="Zero-shot, fitted threshold",
        color="#56b4e9",
        symbol="diamond-dot",
    ),
    SPEC.preset(
        "few_shot_threshold",
        {},
        summary="P(Yes) with demonstrations in the prompt, at the threshold that fits the examples best.",
        label="Few-shot, fitted threshold",
        color="#0072b2",
        symbol="square-cross",
    ),
    SPEC.preset(
        "zero_shot_contextual",
        {"demonstrations": 0, "calibration": "contextual"},
        summary="P(Yes), nothing in the prompt, divided by that of inputs without content: contextual calibration.",
        label="Zero-shot, contextual calibration",
        color="#56b4e9",
        symbol="diamond-cross",
    ),
    SPEC.preset(
        "zero_shot_batch",
        {"demonstrations": 0, "calibration": "batch"},
        summary="P(Yes), nothing in the prompt, less the mean log-odds of the examples: batch calibration.",
        label="Zero-shot, batch calibration",
        color="#56b4e9",
        symbol="diamond-x",
    ),
)
