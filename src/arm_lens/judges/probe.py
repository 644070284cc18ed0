"""Probes: logistic regression on the last-token activations of all heads, the trained upper bound.

What a linear readout can tell from the same activations that head selection works with (Alain and Bengio, 2016, arXiv
1610.01644). It is trained on the examples alone and reads the bare question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.protocol import LanguageModel
from arm_lens.judges.artefact import decoding, read_artefact, write_artefact
from arm_lens.judges.base import FitContext, FittedJudge
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.judges.sav import question_activations
from arm_lens.preferences import Preference, Prompt
from arm_lens.registry import JudgeSpec, OptionsModel, Style

ROUNDING = 1e-5
"""Activations that vary by less than this share of their size are constant but for rounding."""


@dataclass(frozen=True, eq=False)
class HeadProbe(FittedJudge):
    """A fitted probe: the log-odds of meeting the criterion are an affine function of all heads' activations."""

    kind: ClassVar[str] = "head probe"
    judge: GenerativeJudge
    """The model and how it is asked."""
    weights: Float[Tensor, "layer head d_head"]
    """Of the activations as they are, in float64."""
    bias: float

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        inverse_penalty: float = 1.0,
        progress: bool = False,
    ) -> HeadProbe:
        """Train on labelled preferences.

        Args:
            model: any that `arm_lens.engine.language_model` accepts; it is not changed.
            examples: pairs or labelled responses, of both kinds.
            question: how it is asked, scalar; a bare string is the criterion in words.
            inverse_penalty: scikit-learn's ``C``: smaller values keep the weights smaller.
            progress: show progress bars.

        Raises:
            ImportError: if scikit-learn is not installed.
            ValueError: if the examples are all of one kind.
            PromptTooLongError: naming the example whose prompt exceeds the model's context.
        """
        judge = GenerativeJudge(model, question=question)
        questions = questions_of(examples, judge.template, judge.layout)
        labels = [one.positive for one in questions]
        if len(set(labels)) < 2:
            raise ValueError(f"a probe is trained on examples of both kinds; all {len(labels)} are of one")
        z = question_activations(judge, questions, progress=progress)
        weights, bias = _regression(z, labels, inverse_penalty)
        return cls(judge, weights, bias)

    @property
    def model(self) -> LanguageModel:
        """The model that is read."""
        return self.judge.model

    @property
    def log_odds(self) -> bool:
        """Gaps are log-odds."""
        return True

    def log_odds_of(self, z: Float[Tensor, "example layer head d_head"]) -> Float[Tensor, " example"]:
        """The log-odds of meeting the criterion, from activations at the last token of bare questions."""
        found: Tensor = einsum(z.double(), self.weights, "example layer head d, layer head d -> example")
        return found + self.bias

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """P(meets the criterion) of each response."""
        return self.rewards_and_gaps(prompts, responses, progress=progress)[0].float()

    def rewards_and_gaps(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """P(meets the criterion) of each response, and its log-odds."""
        questions = self.judge.scalar_questions(prompts, responses)
        gaps = self.log_odds_of(question_activations(self.judge, questions, progress=progress))
        return torch.sigmoid(gaps), gaps

    def save(self, path: str | Path) -> Path:
        """Write coefficients and question to a folder; see `arm_lens.judges.artefact`."""
        tensors = {"weights": self.weights, "bias": torch.tensor([self.bias], dtype=torch.float64)}
        return write_artefact(path, self.kind, self.model, tensors, self.judge.record())

    @classmethod
    def load(cls, path: str | Path, model: ModelLike | None = None, *, device: str | None = None) -> HeadProbe:
        """Read what `save` wrote; see `FittedJudge.load`."""
        model, tensors, record = read_artefact(path, cls.kind, model, device=device)
        with decoding(Path(path)):
            return cls(GenerativeJudge.of_record(model, record), tensors["weights"], float(tensors["bias"][0]))

    def __repr__(self) -> str:
        n_layers, n_heads, _ = self.weights.shape
        return f"HeadProbe({n_layers} layers x {n_heads} heads, on {self.model.info.name})"


def _regression(
    z: Float[Tensor, "example layer head d_head"], labels: Sequence[bool], inverse_penalty: float
) -> tuple[Float[Tensor, "layer head d_head"], float]:
    """Weights and bias of a logistic regression on standardised activations, as of the activations themselves."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "a probe is fitted with scikit-learn, which is not installed: pip install 'arm-lens[all]'"
        ) from error
    features = rearrange(z, "example layer head d -> example (layer head d)").double()
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    # What is constant but for rounding is not blown up to the variance of the others.
    scale = torch.where(scale < ROUNDING * features.abs().amax(dim=0), 1.0, scale)
    scale = torch.where(scale == 0, 1.0, scale)
    fitted: Any = LogisticRegression(C=inverse_penalty, max_iter=2000)
    fitted.fit(((features - mean) / scale).numpy(), list(labels))
    weights = torch.tensor(fitted.coef_[0], dtype=torch.float64) / scale
    return weights.reshape(z.shape[1:]), float(fitted.intercept_[0]) - float(weights @ mean)


class ProbeOptions(OptionsModel):
    """Options of the probe."""

    groups: ClassVar[tuple[str, ...]] = ("question",)
    question: QuestionOptions = QuestionOptions()
    inverse_penalty: float = 1.0


def _fit(context: FitContext, options: ProbeOptions) -> HeadProbe:
    return HeadProbe.fit(
        context.model, context.examples, question=context.question, inverse_penalty=options.inverse_penalty
    )


SPEC = JudgeSpec(
    name="probe",
    judge=HeadProbe,
    options=ProbeOptions,
    fit=_fit,
    summary="Logistic regression on the activations of all heads.",
    paragraph="What a linear readout can tell from the activations that head selection works with: the trained upper bound.",
    style=Style(label="Linear probe", color="#000000", symbol="cross", group="Readouts"),
    checks_fit=True,
    place=210,
)
