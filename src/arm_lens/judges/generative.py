"""The reward-model protocol, and the model itself as a judge: P("Yes") of the verdict, zero-shot or with examples.

`GenerativeJudge` asks the unsteered model. With demonstrations in the prompt it is the few-shot judge every Activation
Reward Model is compared with; without, it is the zero-shot one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.engine.models import Model, device_of, last_logits
from arm_lens.engine.prefix_cache import read_on, read_stretch, shared_beginning
from arm_lens.engine.tokens import chunks, pad
from arm_lens.engine.verdict_tokens import VerdictScores, verdict_scores
from arm_lens.judges.base import Comparison, ScoreKind, check_pairs, score_of
from arm_lens.judges.questions import Layout, Question, encode_questions, questions_of, scalar_questions, verdict_tokens
from arm_lens.judges.template import JudgeTemplate, default_template
from arm_lens.preferences import Preference, Prompt


class GenerativeJudge:
    """Asks the model as it is whether a response meets the criterion.

    Args:
        model: of either TransformerLens class.
        criterion_text: the criterion in words, put into every prompt; empty for an unnamed criterion.
        examples: demonstrations shown before every question, in this order.
        layout: ``scalar`` asks about one response; ``ranked`` asks which of two is better, in both orders.
        template: by default the model's own, or the general one.
        batch_size: prompts per forward pass.
    """

    def __init__(
        self,
        model: Model,
        *,
        criterion_text: str = "",
        examples: Sequence[Preference] = (),
        layout: Layout = "scalar",
        template: JudgeTemplate | None = None,
        batch_size: int = 16,
    ) -> None:
        self.model, self.criterion_text, self.layout, self.batch_size = model, criterion_text, layout, batch_size
        self.template = template or default_template(model)
        self.verdicts = verdict_tokens(model.tokenizer, self.template, layout)
        self.demonstrations = tuple(questions_of(examples, self.template, layout))

    def verdict(
        self,
        questions: Sequence[Question],
        *,
        demonstrations: Sequence[Sequence[Question]] | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> VerdictScores:
        """The verdict on each question, ``[question]``.

        Args:
            questions: the questions.
            demonstrations: demonstrations for each question, instead of the judge's own.
            temperature: what logits are divided by, above 0.
            progress: show a progress bar.
        """
        if not temperature > 0:
            raise ValueError(f"the temperature of a verdict must be above 0, not {temperature}")
        contexts = [self.demonstrations] * len(questions) if demonstrations is None else demonstrations
        sequences = encode_questions(
            self.model,
            self.template,
            questions,
            layout=self.layout,
            criterion_text=self.criterion_text,
            demonstrations=contexts,
        )
        # Batches of like length waste the least on padding.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        spans = tqdm(
            list(chunks(len(order), self.batch_size)), desc="judging", unit="batch", disable=not progress, leave=False
        )
        device = device_of(self.model)
        common = shared_beginning(self.model, sequences) if sequences else []
        past = [read_stretch(self.model, pad([common], device=device))] if common else []
        parts: list[Tensor] = []
        for span in spans:
            batch = pad([sequences[index][len(common) :] for index in order[span]], device=device)
            logits = read_on(self.model, batch, past) if past else last_logits(self.model, batch)
            scores = verdict_scores(logits.float() / temperature, self.verdicts)
            parts.append(torch.stack([scores.log_positive, scores.log_negative]).cpu())
        if not parts:
            raise ValueError("there is nothing to judge")
        logs = torch.empty(2, len(order))
        logs[:, order] = torch.cat(parts, dim=1)
        gap = logs[0] - logs[1]
        return VerdictScores(logs[0].exp(), torch.sigmoid(gap), gap, logs[0], logs[1])

    def scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> VerdictScores:
        """Every kind of score of each response, ``[example]``.

        Args:
            prompts: one per response.
            responses: what is judged.
            progress: show a progress bar.

        Raises:
            ValueError: if the judge is ranked (it has no score of one response), or lengths differ.
            PromptTooLongError: naming the example.
        """
        if self.layout == "ranked":
            raise ValueError("a ranked judge compares two responses and has no score of one; use prefer")
        questions = scalar_questions(self.template, prompts, responses)
        return self.verdict(questions, progress=progress)

    def score(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Prompt],
        *,
        kind: ScoreKind = "probability",
        progress: bool = False,
    ) -> Float[Tensor, " example"]:
        """The reward of each response.

        ``kind`` is ``probability``, P(Yes) over the full vocabulary; ``two_way``, P(Yes) / (P(Yes) + P(No)); or ``gap``,
        the logit gap. Otherwise as `scores`.
        """
        return score_of(self.scores(prompts, responses, progress=progress), kind)

    def margins(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``, in log-odds.

        The difference of the two logit gaps; for a ranked judge, the mean over both orders, which cancels a liking for
        the first or second place.
        """
        check_pairs(prompts, a, b)
        if self.layout == "scalar":
            gaps = self.score([*prompts, *prompts], [*a, *b], kind="gap", progress=progress)
            return gaps[: len(prompts)] - gaps[len(prompts) :]
        orders = self.orders(prompts, a, b, progress=progress)
        return (orders[:, 0] - orders[:, 1]) / 2

    def orders(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response is shown first: ``a`` in the first column, ``b`` in the second.

        `PositionBias.of` says what they tell about the judge.

        Raises:
            ValueError: if the judge is scalar (it sees one response at a time), or lengths differ.
        """
        if self.layout != "ranked":
            raise ValueError("a scalar judge sees one response at a time, in no order; only a ranked judge has orders")
        check_pairs(prompts, a, b)
        questions = [
            Question(self.template.ranked_question(prompt, *pair), True, f"pair {number}")
            for number, (prompt, one, two) in enumerate(zip(prompts, a, b, strict=True))
            for pair in ((one, two), (two, one))
        ]
        return self.verdict(questions, progress=progress).gap.reshape(-1, 2)

    def prefer(self, prompt: Prompt, a: Prompt, b: Prompt) -> Comparison:
        """Which of two responses to a prompt the judge prefers."""
        return Comparison.of(float(self.margins([prompt], [a], [b])[0]))
