"""Probes: logistic regression on the last-token activations of all heads, the trained upper bound.

What a linear readout can tell from the same activations that head selection works with (Alain and Bengio, 2016, arXiv
1610.01644). It is trained on the examples alone and reads the bare question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike
from arm_lens.judges.artefact import check_tensors
from arm_lens.judges.base import EVERY_KIND, ScoreKind
from arm_lens.judges.checks import Texts, scores_of_rest
from arm_lens.judges.generative import GenerativeJudge, bare_prompt
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.judges.sav import ActivationJudge, ActivationRecord, question_activations
from arm_lens.preferences import Preference
from arm_lens.preferences.overlap import data_digest, text_digests
from arm_lens.registry import JudgeSpec, OptionsModel, Style

ROUNDING = 1e-5
"""Activations that vary by less than this share of their size are constant except for rounding."""


@dataclass(frozen=True, eq=False)
class HeadProbe(ActivationJudge):
    """The log-odds of meeting the criterion as an affine function of all heads' activations, trained on the examples."""

    kind: ClassVar[str] = "head probe"
    score_kinds: ClassVar[tuple[ScoreKind, ...]] = EVERY_KIND
    weights: Float[Tensor, "layer head d_head"]
    """Of the activations as they are (not standardised), in float64."""
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
        """Train on labelled preferences; otherwise as `FittedJudge.fit`.

        ``inverse_penalty`` is scikit-learn's ``C``: smaller values give smaller weights. The layout is scalar, and the
        examples must be of both kinds.

        Raises:
            ImportError: if scikit-learn is not installed.
        """
        judge = cls.scalar_judge(model, question)
        questions = questions_of(examples, judge.template, judge.layout)
        labels = [one.positive for one in questions]
        if len(set(labels)) < 2:
            raise ValueError(f"a probe is trained on examples of both kinds; all {len(labels)} are of one")
        z = question_activations(judge, questions, progress=progress)
        weights, bias = _regression(z, labels, inverse_penalty)
        return cls(judge, weights, bias, fitted_on=text_digests(examples), data=data_digest(examples))

    @property
    def log_odds(self) -> bool:
        """Gaps are log-odds."""
        return True

    def log_odds_of(self, z: Float[Tensor, "example layer head d_head"]) -> Float[Tensor, " example"]:
        """The log-odds of meeting the criterion, from activations at the last token of bare questions."""
        found: Tensor = einsum(z.double(), self.weights, "example layer head d, layer head d -> example")
        return found + self.bias

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """P(meets the criterion) of each response, or its log-odds (``gap``); both order responses alike."""
        self.check_kind(kind)
        rewards, gaps = self.rewards_and_gaps(prompts, responses, progress=progress)
        return (gaps if kind == "gap" else rewards).float()

    def rewards_and_gaps(
        self, prompts: Texts, responses: Texts, *, progress: bool = False
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """P(meets the criterion) of each response, and its log-odds."""

        def log_odds(prompts: Texts, responses: Texts) -> Tensor:
            return self.log_odds_of(self.activations(prompts, responses, progress=progress))

        gaps = scores_of_rest(prompts, responses, self.left_out(prompts, responses), log_odds)
        return torch.sigmoid(gaps), gaps

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        tensors = {"weights": self.weights, "bias": torch.tensor([self.bias], dtype=torch.float64)}
        fitted = {"fitted_on": list(self.fitted_on), "data": self.data}
        return self.model, tensors, {**self.judge.record(), **fitted}

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> HeadProbe:
        found = ActivationRecord.parse(record)
        judge = GenerativeJudge.of_record(model, found)
        shape = (judge.model.n_layers, judge.model.n_heads, judge.model.d_head)
        check_tensors(tensors, {"weights": shape, "bias": (1,)}, dtypes=(torch.float64,))
        own = judge, tensors["weights"], float(tensors["bias"][0])
        return cls(*own, fitted_on=tuple(found.fitted_on), data=found.data)

    def __repr__(self) -> str:
        n_layers, n_heads, _ = self.weights.shape
        return f"HeadProbe({n_layers} layers x {n_heads} heads, on {self.model.info.name})"


def _regression(
    z: Float[Tensor, "example layer head d_head"], labels: Sequence[bool], inverse_penalty: float
) -> tuple[Float[Tensor, "layer head d_head"], float]:
    """Fit on standardised activations; the weights and bias are those of the activations themselves."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "a probe is fitted with scikit-learn, which is not installed: pip install 'arm-lens[all]'"
        ) from error
    features = rearrange(z, "example layer head d -> example (layer head d)").double()
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    # An activation that is constant except for rounding is not blown up to the variance of the others.
    constant = (scale == 0) | (scale < ROUNDING * features.abs().amax(dim=0))
    scale = torch.where(constant, 1.0, scale)
    fitted: Any = LogisticRegression(C=inverse_penalty, max_iter=2000)
    fitted.fit(((features - mean) / scale).numpy(), list(labels))
    weights = torch.tensor(fitted.coef_[0], dtype=torch.float64) / scale
    return weights.reshape(z.shape[1:]), float(fitted.intercept_[0]) - float(weights @ mean)


class ProbeOptions(OptionsModel):
    """Options of the probe."""

    question: QuestionOptions = QuestionOptions()
    inverse_penalty: float = 1.0


SPEC = JudgeSpec(
    name="probe",
    judge=HeadProbe,
    options=ProbeOptions,
    fit=lambda context, options: context.fit(HeadProbe, options),
    summary="Logistic regression on the activations of all heads.",
    style=Style(label="Linear probe", color="#000000", symbol="cross", group="Readouts"),
    checks_fit=True,
    prompt=bare_prompt,
    place=210,
)
