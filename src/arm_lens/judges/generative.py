"""The model itself as a judge: P("Yes") of its verdict, zero-shot or after demonstrations.

`GenerativeJudge` asks the unsteered model. With demonstrations in the prompt it is the few-shot judge every Activation
Reward Model is compared with; without, it is the zero-shot one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.prefix_cache import each_last_logits
from arm_lens.engine.replay import Replay
from arm_lens.engine.sharing import sharing
from arm_lens.engine.steering import Injection
from arm_lens.engine.verdict_tokens import VerdictScores, verdict_scores
from arm_lens.judges.artefact import decoding, read_artefact, write_artefact
from arm_lens.judges.base import FitContext, FittedJudge, ScoreKind, VerdictJudge, check_pairs, score_of
from arm_lens.judges.options import Layout, QuestionOptions, ReadingOptions, question_options
from arm_lens.judges.questions import (
    Question,
    encode_questions,
    question_record,
    questions_of,
    read_question_record,
    scalar_questions,
    verdict_tokens,
)
from arm_lens.judges.template import default_template
from arm_lens.preferences import LabelledResponse, Preference, PreferencePair, Prompt, unpair
from arm_lens.registry import JudgeSpec, OptionsModel, Style


class GenerativeJudge(VerdictJudge[VerdictScores], FittedJudge):
    """Asks the model as it is whether a response meets the criterion.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        examples: demonstrations before every question, in this order.
        question: how it is asked; a bare string is the criterion in words.
    """

    kind: ClassVar[str] = "generative judge"

    def __init__(
        self,
        model: ModelLike,
        *,
        examples: Sequence[Preference] = (),
        question: QuestionOptions | str | None = None,
    ) -> None:
        self.model = language_model(model)
        question = question_options(question)
        self.template = question.template or default_template(self.model)
        self.question = question.model_copy(update={"template": self.template})
        self.verdict_tokens = verdict_tokens(self.model.tokenizer, self.template, question.layout)
        self.demonstrations = tuple(questions_of(examples, self.template, question.layout))

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        reading: ReadingOptions | None = None,
        progress: bool = False,
    ) -> GenerativeJudge:
        """A few-shot judge, its demonstrations taken from labelled preferences.

        Args:
            model: any that `arm_lens.engine.language_model` accepts.
            examples: pairs, or (in the scalar layout) labelled responses too.
            question: how it is asked; a bare string is the criterion in words.
            reading: how many demonstrations, and the seed of their order; see `demonstrations_of`.
            progress: nothing here takes long.

        Raises:
            ValueError: naming the example, if a single labelled response is to be ranked.
        """
        question, reading = question_options(question), reading or ReadingOptions()
        chosen = demonstrations_of(examples, question.layout, reading.demonstrations, seed=reading.seed or 0)
        return cls(model, examples=chosen, question=question)

    @property
    def compares_only(self) -> bool:
        """In the ranked layout."""
        return self.question.layout == "ranked"

    @property
    def layout(self) -> Layout:
        """Scalar or ranked."""
        return self.question.layout

    @property
    def criterion_text(self) -> str:
        """The criterion in words, or empty."""
        return self.question.criterion_text

    @property
    def batch_size(self) -> int:
        """Prompts per forward pass."""
        return self.question.batch_size

    def verdict(
        self,
        questions: Sequence[Question],
        *,
        demonstrations: Sequence[Sequence[Question]] | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> VerdictScores:
        """The verdict on each question, ``[question]``.

        Within `arm_lens.engine.sharing.shared_readings`, and while nothing is hooked to the model, all tokens of a prompt but
        the last are read once for all judges that ask the same, as in `arm_lens.engine.replay`.

        Args:
            questions: the questions.
            demonstrations: demonstrations for each question, instead of the judge's own.
            temperature: what logits are divided by, above 0.
            progress: show a progress bar.
        """
        if not temperature > 0:
            raise ValueError(f"the temperature of a verdict must be above 0, not {temperature}")
        sequences = self._encode(questions, demonstrations)
        if sharing() and not self.model.is_hooked() and min(map(len, sequences)) > 1:
            nothing = torch.zeros(self.model.n_layers, self.model.n_heads, dtype=torch.bool)
            values = torch.zeros(*nothing.shape, self.model.d_head)
            bare = not (self.demonstrations if demonstrations is None else any(demonstrations))
            return self._replayed(sequences, nothing, values, None, temperature, progress, bare=bare)
        logs = torch.empty(2, len(sequences))
        for here, logits in each_last_logits(self.model, sequences, batch_size=self.batch_size, progress=progress):
            scores = verdict_scores(logits.float() / temperature, self.verdict_tokens)
            logs[:, here] = torch.stack([scores.log_positive, scores.log_negative]).cpu()
        return VerdictScores.of(logs[0], logs[1])

    def steered_verdict(
        self,
        questions: Sequence[Question],
        chosen: Bool[Tensor, "layer head"] | Float[Tensor, "layer head"],
        values: Float[Tensor, "layer head d_head"],
        *,
        injection: Injection | None = None,
        progress: bool = False,
    ) -> VerdictScores:
        """The verdict on each question with values written at the last token of heads: only that token is read anew.

        Args:
            questions: the questions.
            chosen: a mask, or gates in [0, 1].
            values: what is written.
            injection: how.
            progress: show a progress bar.
        """
        sequences, bare = self._encode(questions, None), not self.demonstrations
        return self._replayed(sequences, chosen, values, injection, 1.0, progress, bare=bare)

    def _encode(
        self, questions: Sequence[Question], demonstrations: Sequence[Sequence[Question]] | None
    ) -> list[list[int]]:
        if not questions:
            raise ValueError("there is nothing to judge")
        contexts = [self.demonstrations] * len(questions) if demonstrations is None else demonstrations
        return encode_questions(
            self.model,
            self.template,
            questions,
            layout=self.layout,
            criterion_text=self.criterion_text,
            demonstrations=contexts,
        )

    def _replayed(
        self,
        sequences: Sequence[Sequence[int]],
        chosen: Tensor,
        values: Tensor,
        injection: Injection | None,
        temperature: float,
        progress: bool,
        *,
        bare: bool,
    ) -> VerdictScores:
        replay = Replay(
            self.model,
            sequences,
            self.verdict_tokens,
            injection=injection,
            # Without demonstrations prompts are several times shorter than those that batch_size was chosen for.
            batch_size=self.batch_size * (4 if bare else 1),
            progress=progress,
        )
        logs = replay.log_probs(chosen[None], values, temperature=temperature)[:, 0]
        if self.model.dtype is torch.float32:
            return VerdictScores.of(logs[:, 0], logs[:, 1])
        # Half precision has too few digits for the gap of two logits; the verdicts' alone are multiplied in float32.
        verdicts = replay.verdict_logits(chosen[None], values)[:, 0] / temperature
        return VerdictScores.of(logs[:, 0], logs[:, 1], verdicts[:, 0] - verdicts[:, 1])

    def verdicts(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> VerdictScores:
        """Every kind of score of each response, ``[example]``; otherwise as `score`."""
        return self.verdict(self.scalar_questions(prompts, responses), progress=progress)

    def scalar_questions(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Question]:
        """The question about each response.

        Raises:
            ValueError: if the judge is ranked, or lengths differ.
        """
        return scalar_questions(self.template, prompts, responses, layout=self.layout)

    def score(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Prompt],
        *,
        kind: ScoreKind = "probability",
        progress: bool = False,
    ) -> Float[Tensor, " example"]:
        """The reward of each response.

        Args:
            prompts: one per response.
            responses: what is judged.
            kind: ``probability``, P(Yes) over the full vocabulary; ``two_way``, P(Yes) / (P(Yes) + P(No)); or ``gap``, the
                logit gap.
            progress: show a progress bar.

        Raises:
            ValueError: if the judge is ranked (it has no score of one response), or lengths differ.
            PromptTooLongError: naming the example.
        """
        return score_of(self.verdicts(prompts, responses, progress=progress), kind)

    def orders(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response stands first; see `VerdictJudge.orders`."""
        return self.verdict(self.ranked_questions(prompts, a, b), progress=progress).gap.reshape(-1, 2)

    def ranked_questions(self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt]) -> list[Question]:
        """Two questions about each pair, one for either order.

        Raises:
            ValueError: if the judge is scalar, or lengths differ.
        """
        if self.layout != "ranked":
            raise ValueError("a scalar judge sees one response at a time, in no order; only a ranked judge has orders")
        check_pairs(prompts, a, b)
        return [
            Question(self.template.ranked_question(prompt, *pair), True, f"pair {number}")
            for number, (prompt, one, two) in enumerate(zip(prompts, a, b, strict=True))
            for pair in ((one, two), (two, one))
        ]

    def save(self, path: str | Path) -> Path:
        """Write question and demonstrations, as JSON, to a folder; see `arm_lens.judges.artefact`."""
        return write_artefact(path, self.kind, self.model, {}, self.record())

    def record(self) -> dict[str, Any]:
        """How it asks, for JSON."""
        return {
            "question": self.question.model_dump(mode="json"),
            "demonstrations": [question_record(one) for one in self.demonstrations],
        }

    @classmethod
    def of_record(cls, model: ModelLike, record: dict[str, Any]) -> GenerativeJudge:
        """The judge behind a `record`."""
        judge = cls(model, question=QuestionOptions.model_validate(record["question"]))
        judge.demonstrations = tuple(read_question_record(one) for one in record["demonstrations"])
        return judge

    @classmethod
    def load(cls, path: str | Path, model: ModelLike | None = None, *, device: str | None = None) -> GenerativeJudge:
        """Read what `save` wrote; see `FittedJudge.load`."""
        model, _, record = read_artefact(path, cls.kind, model, device=device)
        with decoding(Path(path)):
            return cls.of_record(model, record)

    def __repr__(self) -> str:
        shots = f", {len(self.demonstrations)} demonstrations" if self.demonstrations else ""
        return f"GenerativeJudge({self.layout}{shots}, on {self.model.info.name})"


def demonstrations_of(
    examples: Sequence[Preference], layout: Layout, count: int, *, seed: int = 0
) -> list[LabelledResponse] | list[PreferencePair]:
    """Demonstrations for a prompt, the same for every question.

    In the scalar layout as many of either kind as there are, in mixed order; in the ranked layout the first pairs.

    Raises:
        ValueError: naming the example, if a single labelled response is to be ranked.
    """
    if layout == "ranked":
        pairs = []
        for one in examples if count else ():
            if not isinstance(one, PreferencePair):
                raise ValueError(f"{one.id} is a single labelled response; the demonstrations of a ranked judge are pairs")
            pairs.append(one)
        return pairs[:count]
    singles = unpair(examples)
    order = random.Random(f"shown {seed}")
    kinds = [[one for one in singles if one.label is kind] for kind in (True, False)]
    for one_kind in kinds:
        order.shuffle(one_kind)
    half = count // 2
    picked = [*kinds[0][: max(half, count - len(kinds[1]))], *kinds[1]][:count]
    order.shuffle(picked)
    return picked


class GenerativeOptions(OptionsModel):
    """Options of the generative judge."""

    groups: ClassVar[tuple[str, ...]] = ("question", "reading")
    question: QuestionOptions = QuestionOptions()
    reading: ReadingOptions = ReadingOptions()


def _fit(context: FitContext, options: GenerativeOptions) -> GenerativeJudge:
    return GenerativeJudge.fit(context.model, context.examples, question=context.question, reading=context.reading)


def shows_demonstrations(options: Any) -> bool:
    """Whether a judge with these options has demonstrations in its prompts, as far as they say."""
    return bool(options.reading.demonstrations)


SPEC = JudgeSpec(
    name="generative",
    judge=GenerativeJudge,
    options=GenerativeOptions,
    fit=_fit,
    summary="The model's P(Yes), demonstrations in the prompt.",
    paragraph=(
        "The unsteered model is asked whether a response meets the criterion, and the probability of Yes is the reward. "
        "Demonstrations, the same before every question and as many of either kind, show it what is meant; in the ranked "
        "layout it is asked which of two responses is better, in both orders."
    ),
    style=Style(label="Generative", color="#0072b2", symbol="square-dot", group="Asking the model"),
    reads_examples=shows_demonstrations,
    place=300,
)
SPECS = (
    SPEC,
    SPEC.preset(
        "zero_shot",
        {"demonstrations": 0},
        summary="The model's P(Yes), nothing in the prompt and nothing written: generative scoring.",
        label="Zero-shot",
        color="#56b4e9",
        symbol="diamond",
    ),
    SPEC.preset(
        "few_shot",
        {},
        summary="P(Yes) with demonstrations in the prompt, as many of either kind, the same before every question.",
        label="Few-shot (in prompt)",
        color="#0072b2",
        symbol="square",
    ),
    SPEC.preset(
        "ranked_zero_shot",
        {"layout": "ranked", "demonstrations": 0},
        summary="Which of two responses is better, asked in both orders; nothing in the prompt.",
        label="Ranked, zero-shot",
        color="#56b4e9",
        symbol="diamond-open",
    ),
    SPEC.preset(
        "ranked_few_shot",
        {"layout": "ranked", "demonstrations": 4},
        summary="Which of two responses is better, asked in both orders, after demonstrations.",
        label="Ranked, few-shot",
        color="#0072b2",
        symbol="square-open",
    ),
)
