"""The model itself as a judge: P("Yes") of its verdict, zero-shot or after demonstrations.

`GenerativeJudge` asks the unsteered model. With demonstrations in the prompt it is the few-shot judge that every
Activation Reward Model is compared with; without, it is the zero-shot one.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.engine.finite import naming_examples
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.prefix_cache import each_last_logits
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.replay import Replay
from arm_lens.engine.sharing import sharing
from arm_lens.engine.steering import Injection
from arm_lens.engine.verdict_tokens import VerdictScores, VerdictTokens, verdict_scores
from arm_lens.engine.weights import WeightsMark
from arm_lens.evaluation.health import LEAST_MASS
from arm_lens.judges.artefact import QuestionRecord, WrongModelError, check_tensors
from arm_lens.judges.base import FitContext, FittedJudge, VerdictJudge
from arm_lens.judges.checks import Texts
from arm_lens.judges.options import Layout, QuestionOptions, ReadingOptions, TooLong, question_options
from arm_lens.judges.questions import (
    Question,
    encode_questions,
    questions_of,
    shown_among,
    too_long,
    verdict_tokens_of,
    with_template,
)
from arm_lens.preferences import LabelledResponse, Preference, PreferencePair, unpair
from arm_lens.registry import JudgeSpec, OptionsModel, Style

MOST_DEMONSTRATIONS = 10_000
"""More than there are examples: all of them, as far as they fit if the question's options say ``on_too_long="clip"``."""


class GenerativeJudge(VerdictJudge, FittedJudge):
    """Asks the model as it is whether a response meets the criterion; in the ranked layout, which of two is better.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        examples: demonstrations before every question, in this order.
        question: how it is asked; a bare string is the criterion in words.
    """

    kind: ClassVar[str] = "generative judge"

    def __init__(
        self, model: ModelLike, *, examples: Sequence[Preference] = (), question: QuestionOptions | str | None = None
    ) -> None:
        self.model = language_model(model)
        self._question = with_template(self.model, question_options(question))
        self.model.check_tokens([*self.verdict_tokens.positive, *self.verdict_tokens.negative], "the verdicts")
        self.demonstrations = tuple(questions_of(examples, self.template, self.layout))
        self._bound: tuple[str, WeightsMark] | None = None

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
        """A few-shot judge, its demonstrations taken from labelled preferences; otherwise as `FittedJudge.fit`.

        ``reading`` says how many demonstrations, and gives the seed of their order; see `demonstrations_of`.
        """
        question, reading = question_options(question), reading or ReadingOptions()
        chosen = demonstrations_of(examples, question.layout, reading.demonstrations, seed=reading.seed or 0)
        return cls(model, examples=chosen, question=question)

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that are among the demonstrations."""
        return shown_among(self.demonstrations, examples, self.template, self.layout)

    @property
    def verdict_tokens(self) -> VerdictTokens:
        """The tokens by which a verdict is read, with the chat template that the tokenizer has now."""
        return verdict_tokens_of(self.model.tokenizer, self.question)

    @property
    def batch_size(self) -> int:
        """Prompts per forward pass."""
        return self.question.batch_size

    def encode(
        self, questions: Sequence[Question], demonstrations: Sequence[Sequence[Question]] | None = None
    ) -> list[list[int]]:
        """The token ids of whole prompts, one per question, as this judge asks; see `encode_questions`.

        ``demonstrations`` are those in front of each question; by default none, not the judge's own.
        """
        if not questions:
            raise ValueError("there is nothing to judge")
        self.check_weights()
        return encode_questions(self.model, self.question, questions, demonstrations=demonstrations)

    def prompt_of(self, example: Preference) -> str:
        """The first question about an example as the model reads it, and then which tokens are read as its verdict."""
        [tokens] = self.encode(questions_of([example], self.template, self.layout)[:1], [self.demonstrations])
        return f"{self.model.decode(tokens)}\n{self.verdict_note(len(tokens))}"

    def verdict_note(self, count: int) -> str:
        """A line about what is read after a prompt of so many tokens."""
        positive, negative = (
            ", ".join(repr(self.model.tokenizer.decode([token])) for token in side)
            for side in (self.verdict_tokens.positive, self.verdict_tokens.negative)
        )
        return f"{count} tokens; the next is read as a verdict: {positive} against {negative}"

    def too_long_questions(self, questions: Sequence[Question]) -> dict[int, str]:
        """The questions, by number, that exceed the model's context after this judge's demonstrations, with the error."""
        return too_long(self.model, self.question, questions, self.demonstrations)

    def verdict(
        self,
        questions: Sequence[Question],
        *,
        demonstrations: Sequence[Sequence[Question]] | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> VerdictScores:
        """The verdict on each question, ``[question]``.

        In half precision, whose logits have too few digits to compare two, the verdicts' own are computed in float32, as in
        `arm_lens.engine.replay`. Within `arm_lens.engine.sharing.shared_readings` all tokens of a prompt except the last are
        read once for all judges that ask the same. Both only while nothing is hooked to the model.

        ``demonstrations`` are those for each question, instead of the judge's own; logits are divided by ``temperature``,
        which must be above 0.
        """
        if not temperature > 0:
            raise ValueError(f"the temperature of a verdict must be above 0, not {temperature}")
        if demonstrations is None:
            demonstrations = [self.demonstrations] * len(questions)
        sequences, names = self.encode(questions, demonstrations), [question.name for question in questions]
        coarse = self.model.dtype.itemsize < 4 and self.model.no_extension(max(map(len, sequences))) is None
        if (sharing() or coarse) and not self.model.is_hooked() and min(map(len, sequences)) > 1:
            nothing = torch.zeros(self.model.n_layers, self.model.n_heads, dtype=torch.bool)
            values = torch.zeros(*nothing.shape, self.model.d_head)
            with naming_examples(names):
                replay = self.replay(sequences, bare=not any(demonstrations), progress=progress)
                return self._replayed(replay, nothing, values, temperature)
        logs = torch.empty(2, len(sequences))
        preferred: tuple[tuple[str, float], ...] = ()
        with naming_examples(names):
            for here, logits in each_last_logits(self.model, sequences, batch_size=self.batch_size, progress=progress):
                scores = verdict_scores(logits.float() / temperature, self.verdict_tokens)
                logs[:, here] = torch.stack([scores.log_positive, scores.log_negative]).cpu()
                if not preferred and float(scores.mass.mean()) < LEAST_MASS:
                    preferred = self._most_probable(logits)
        return replace(VerdictScores.of(logs[0], logs[1]), preferred=preferred)

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

        ``chosen`` is a mask, or gates in [0, 1]; ``values`` are written there, in the way that ``injection`` says.
        """
        sequences = self.encode(questions, [self.demonstrations] * len(questions))
        with naming_examples([question.name for question in questions]):
            replay = self.replay(sequences, bare=not self.demonstrations, injection=injection, progress=progress)
            return self._replayed(replay, chosen, values)

    def replay(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        bare: bool,
        injection: Injection | None = None,
        progress: bool = False,
    ) -> Replay:
        """A replay of encoded prompts that end where a verdict is due; ``bare`` ones contain no demonstrations."""
        # Bare prompts are several times shorter than those that batch_size was chosen for.
        return Replay(
            self.model,
            sequences,
            self.verdict_tokens,
            injection=injection,
            batch_size=self.batch_size * (4 if bare else 1),
            progress=progress,
        )

    def _replayed(self, replay: Replay, chosen: Tensor, values: Tensor, temperature: float = 1.0) -> VerdictScores:
        logs = replay.log_probs(chosen[None], values, temperature=temperature)[:, 0]
        preferred: tuple[tuple[str, float], ...] = ()
        if float(logs.logsumexp(dim=-1).exp().mean()) < LEAST_MASS:
            some = range(min(len(replay), self.batch_size))
            preferred = self._most_probable(replay.logits(chosen[None], values, some)[:, 0])
        if self.model.dtype is torch.float32:
            return replace(VerdictScores.of(logs[:, 0], logs[:, 1]), preferred=preferred)
        # Half precision has too few digits for the gap of two logits; the verdicts' alone are multiplied in float32.
        verdicts = replay.verdict_logits(chosen[None], values)[:, 0] / temperature
        scores = VerdictScores.of(logs[:, 0], logs[:, 1], verdicts[:, 0] - verdicts[:, 1])
        return replace(scores, preferred=preferred)

    def _most_probable(self, logits: Float[Tensor, "question vocab"], count: int = 5) -> tuple[tuple[str, float], ...]:
        """The tokens that the model would write, with their mean probabilities."""
        shares, tokens = logits.float().softmax(dim=-1).mean(dim=0).topk(min(count, logits.shape[-1]))
        pairs = zip(tokens.tolist(), shares.tolist(), strict=True)
        return tuple((str(self.model.tokenizer.decode([token])), share) for token, share in pairs)

    def asking(self, *, on_too_long: TooLong | None = None, batch_size: int | None = None) -> GenerativeJudge:
        """The same judge with other options that change no question: what is too long, prompts per pass."""
        changes = {"on_too_long": on_too_long, "batch_size": batch_size}
        judge = self._copy()
        judge._question = self._question.model_copy(
            update={name: value for name, value in changes.items() if value is not None}
        )
        return judge

    def bound(self, kind: str) -> GenerativeJudge:
        """The same judge, for a judge of this kind whose numbers were read from the model with its present weights.

        Once the weights have changed it neither asks nor can be saved: `WrongModelError`. A bound judge is returned as it is.
        """
        if self._bound:
            return self
        judge = self._copy()
        judge._bound = kind, WeightsMark.of(self.model)
        return judge

    def _copy(self) -> GenerativeJudge:
        judge = copy.copy(self)
        judge.__dict__.pop("verdict_mass", None)
        return judge

    def check_weights(self) -> None:
        """Raise a `WrongModelError` if this judge's numbers were read from the model with other weights; see `bound`."""
        if self._bound and not self._bound[1].unchanged(self.model):
            raise WrongModelError(
                f"the weights of {self.model.info.name} have changed since this {self._bound[0]} was fitted or loaded: its "
                "numbers were read from the weights as they were, and mean nothing with others. Before a model is trained, "
                "merged, cast or given adapters, save the judge and load it onto a second copy: load(folder, "
                "load_model(...)); or train a copy: copy.deepcopy of the Hugging Face model"
            )

    def record(self) -> dict[str, Any]:
        """How it asks, for JSON."""
        self.check_weights()
        return {
            "question": self.question.model_dump(mode="json"),
            "demonstrations": [asdict(one) for one in self.demonstrations],
        }

    @classmethod
    def of_record(cls, model: ModelLike, record: QuestionRecord) -> GenerativeJudge:
        """The judge behind a `record`."""
        judge = cls(model, question=record.question)
        judge.demonstrations = tuple(record.demonstrations)
        return judge

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        return self.model, {}, self.record()

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> GenerativeJudge:
        check_tensors(tensors, {})
        return cls.of_record(model, QuestionRecord.parse(record))

    def __repr__(self) -> str:
        count = f", {len(self.demonstrations)} demonstrations" if self.demonstrations else ""
        return f"GenerativeJudge({self.layout}{count}, on {self.model.info.name})"


@dataclass(frozen=True, eq=False)
class AskingJudge(FittedJudge):
    """A fitted judge whose questions are put by a `GenerativeJudge`."""

    judge: GenerativeJudge
    """The model and how the question is put; bound to the weights that the model had when it was made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", self.judge.bound(self.kind))

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return self.judge.model

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed the model's context, each with the error; none if they are clipped."""
        return self.judge.too_long(prompts, responses)


def demonstrations_of(
    examples: Sequence[Preference], layout: Layout, count: int, *, seed: int = 0
) -> list[LabelledResponse] | list[PreferencePair]:
    """Demonstrations for a prompt, the same for every question.

    In the scalar layout as many of either kind as there are, in mixed order; in the ranked layout the first pairs.

    Raises:
        ValueError: naming the example, if a single labelled response is to be ranked.
    """
    if layout == "ranked":
        pairs = [one for one in examples if isinstance(one, PreferencePair)]
        if count and len(pairs) < len(examples):
            single = next(one for one in examples if not isinstance(one, PreferencePair))
            raise ValueError(
                f"{single.id} is a single labelled response; the demonstrations of a ranked judge are pairs"
            )
        return pairs[:count]
    singles = unpair(examples)
    order = random.Random(f"shown {seed}")
    positive = [one for one in singles if one.label]
    negative = [one for one in singles if not one.label]
    order.shuffle(positive)
    order.shuffle(negative)
    picked = [*positive[: max(count // 2, count - len(negative))], *negative][:count]
    order.shuffle(picked)
    return picked


class GenerativeOptions(OptionsModel):
    """Options of the generative judge, and of others that are asked by one."""

    question: QuestionOptions = QuestionOptions()
    reading: ReadingOptions = ReadingOptions()


def bare_prompt(context: FitContext, options: Any, example: Preference) -> str:
    """The bare question about an example as the model reads it, for judges that put demonstrations elsewhere."""
    return GenerativeJudge(context.model, question=context.question).prompt_of(example)


def shows_demonstrations(options: Any) -> bool:
    """Whether a judge with these options has demonstrations in its prompts, as far as they say."""
    return bool(options.reading.demonstrations)


SPEC = JudgeSpec(
    name="generative",
    judge=GenerativeJudge,
    options=GenerativeOptions,
    fit=lambda context, options: context.fit(GenerativeJudge, options),
    summary="The model's P(Yes), demonstrations in the prompt.",
    style=Style(label="Generative", color="#0072b2", symbol="square-dot", group="Asking the model"),
    reads_examples=shows_demonstrations,
    prompt=lambda context, options, example: context.fit(GenerativeJudge, options).prompt_of(example),
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
        "few_shot_all",
        {"demonstrations": MOST_DEMONSTRATIONS, "on_too_long": "clip"},
        summary="P(Yes) with all examples in the prompt; those that do not fit in the context are left out.",
        label="Few-shot, all examples",
        color="#004c7a",
        symbol="square-x",
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
