"""Probes: logistic regression on the last-token activations of all heads, the trained upper bound.

What a linear readout can tell from the same activations that head selection works with (Alain and Bengio, 2016, arXiv
1610.01644). It is trained on the examples alone and reads the bare question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from arm_lens.engine.models import Model
from arm_lens.judges.base import ScoresResponses, check_pairs
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.questions import questions_of, scalar_questions
from arm_lens.judges.sav import question_activations
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Preference, Prompt

ROUNDING = 1e-5
"""Activations that vary by less than this share of their size are constant but for rounding."""


@dataclass(frozen=True, eq=False)
class HeadProbe(ScoresResponses):
    """A fitted probe."""

    judge: GenerativeJudge
    """The model and how it is asked."""
    classifier: Any
    """scikit-learn's pipeline: standardisation, then logistic regression."""

    @classmethod
    def fit(
        cls,
        model: Model,
        examples: Sequence[Preference],
        *,
        inverse_penalty: float = 1.0,
        criterion_text: str = "",
        template: JudgeTemplate | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> HeadProbe:
        """Train on labelled preferences.

        Args:
            model: of either class; it is not changed.
            examples: pairs or labelled responses, of both kinds.
            inverse_penalty: scikit-learn's ``C``: smaller values keep the weights smaller.
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
        labels = [question.positive for question in questions]
        if len(set(labels)) < 2:
            raise ValueError(f"a probe is trained on examples of both kinds; all {len(labels)} are of one")
        z = question_activations(judge, questions, progress=progress)
        features = _flat(z)
        scaler = _standardisation(features)
        regression = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(scaler.transform(features), labels)
        return cls(judge, make_pipeline(scaler, regression))

    def log_odds(self, z: Float[Tensor, "example layer head d_head"]) -> Float[Tensor, " example"]:
        """The log-odds of meeting the criterion, from activations at the last token of bare questions."""
        return torch.tensor(self.classifier.decision_function(_flat(z)), dtype=torch.float64)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """P(meets the criterion) of each response."""
        return torch.sigmoid(self.gaps(prompts, responses, progress=progress)).float()

    def gaps(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The log-odds of each response, which tell apart what is certain and what is more certain still."""
        questions = scalar_questions(self.judge.template, prompts, responses)
        return self.log_odds(question_activations(self.judge, questions, progress=progress))

    def margins(self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt]) -> Float[Tensor, " pair"]:
        """How much higher the log-odds of each ``a`` are than those of its ``b``."""
        check_pairs(prompts, a, b)
        gaps = self.gaps([*prompts, *prompts], [*a, *b])
        return gaps[: len(prompts)] - gaps[len(prompts) :]


def _standardisation(features: Any) -> Any:
    """Fitted to features; what is constant but for rounding is not blown up to the variance of the others."""
    scaler = StandardScaler().fit(features)
    scaler.scale_[scaler.scale_ < ROUNDING * abs(features).max(axis=0)] = 1.0
    return scaler


def _flat(z: Float[Tensor, "example layer head d_head"]) -> Any:
    return rearrange(z, "example layer head d_head -> example (layer head d_head)").double().numpy()
