r"""Implicit rewards: how likely the model finds the response itself.

The reward is the mean log-likelihood of the response's tokens given the prompt or, with a reference model, the log-ratio

.. math:: r(y \mid x) = \beta \sum_t \log \frac{\pi(y_t \mid x, y_{<t})}{\pi_\mathrm{ref}(y_t \mid x, y_{<t})},

the reward under which the model would be optimal against that reference (DPO, arXiv 2305.18290, equation 5). Neither knows
the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from arm_lens.display.caution import caution
from arm_lens.engine.finite import naming_examples, naming_prompts
from arm_lens.engine.images import NoImagesError, beyond_image
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.loading import load_model
from arm_lens.engine.model_info import ModelClass
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import MarkedText, PromptError, PromptTooLongError, chunks, continuation, pad
from arm_lens.judges.base import FitContext, Judge, ScoreKind
from arm_lens.judges.chat import Turn, chat_text
from arm_lens.judges.checks import Texts, check_as_many, checked, scores_of_rest
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.options import QuestionOptions, question_options
from arm_lens.judges.questions import ClippedPromptWarning, fewest_left_out, with_template
from arm_lens.judges.template import JudgeTemplate, checked_prompt
from arm_lens.preferences import Preference, Prompt, text_of, unpair
from arm_lens.preferences.images import marks_in
from arm_lens.registry import JudgeSpec, OptionsModel, Style, never


class LikelihoodJudge(Judge):
    """Rewards responses by their log-likelihood, or its ratio to a reference's; it knows nothing of the criterion.

    Args:
        model: any that `arm_lens.engine.language_model` accepts.
        question: a base model reads its template's scalar question up to the response; a chat model reads the prompt
            through its chat template. The criterion is not put into words: nothing is asked.
        reference: a second model with the same tokenizer; the reward is then the log-ratio to it.
        mean: divide by the number of the response's tokens; by default unless there is a reference.
        beta: of the log-ratio.

    Raises:
        ValueError: if the two models' tokenizers do not have the same tokens under the same numbers.
    """

    kind: ClassVar[str] = "likelihood judge"
    threshold: ClassVar[float | None] = None

    def __init__(
        self,
        model: ModelLike,
        *,
        question: QuestionOptions | str | None = None,
        reference: ModelLike | None = None,
        mean: bool | None = None,
        beta: float = 1.0,
    ) -> None:
        self.model = language_model(model)
        self.reference = None if reference is None else language_model(reference)
        if self.reference is not None:
            _check_same_tokens(self.model.tokenizer, self.reference.tokenizer)
        self.question = with_template(self.model, question_options(question))
        self.template, self.batch_size = self.question.template or JudgeTemplate(), self.question.batch_size
        self.mean = reference is None if mean is None else mean
        self.beta = beta

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The reward of each response, of either kind, in nats (per token, if means are taken).

        Raises:
            PromptTooLongError: naming the example that exceeds the model's (or the reference's) context.
            ValueError: naming the example, if its response has no tokens or no token stands before it; or if there are not
                as many prompts as responses.
            NotFiniteError: naming the example whose likelihood is not a number.
        """
        self.check_kind(kind)
        prompts, responses = check_as_many(prompts, responses)
        left_out = self.too_long(prompts, responses) if self.question.on_too_long == "skip" else {}
        return scores_of_rest(prompts, responses, left_out, lambda one, two: self._scores(one, two, progress))

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed a model's context, each with the error; none if they are clipped."""
        found: dict[int, str] = {}
        for number, pair in enumerate(zip(*check_as_many(prompts, responses), strict=True)):
            try:
                self._tokens(*pair, f"example {number}")
            except PromptError as error:
                found[number] = str(error)
        return found

    def prompt_of(self, example: Preference) -> str:
        """What the model reads about an example, of a pair about the chosen response, and which tokens count."""
        single = unpair([example])[0]
        before, answer = self._tokens(single.prompt, single.response, single.id)
        text = self.model.decode([*before, *answer])
        return f"{text}\n{len(before) + len(answer)} tokens; the likelihood is that of the last {len(answer)}"

    def _scores(self, prompts: Texts, responses: Texts, progress: bool) -> Float[Tensor, " example"]:
        prompts, responses = check_as_many(prompts, responses)
        names = [f"example {number}" for number in range(len(prompts))]
        questions = [self._tokens(*both) for both in zip(prompts, responses, names, strict=True)]
        with naming_examples(names):
            total = log_likelihoods(self.model, questions, batch_size=self.batch_size, progress=progress)
            if self.reference is not None:
                other = log_likelihoods(self.reference, questions, batch_size=self.batch_size, progress=progress)
                total = self.beta * (total - other)
        checked(total, names)
        return total / torch.tensor([float(len(response)) for _, response in questions]) if self.mean else total

    def _tokens(self, prompt: Prompt, response: Prompt, name: str) -> tuple[list[int], list[int]]:
        """The tokens before the response, and the response's own."""
        turns = [("user", prompt)] if isinstance(prompt, str) else [(one["role"], text_of([one])) for one in prompt]
        answer = MarkedText.of("response", text_of(response))
        n_ctx = min(one.n_ctx for one in (self.model, self.reference) if one is not None)

        def without(count: int) -> tuple[list[int], list[int]] | None:
            """The tokens, without characters at the beginning of the prompt; None if they exceed the context."""
            (role, text), *later = turns
            try:
                found = self._split(
                    self._before(prompt, [(role, text[beyond_image(text, count) :]), *later]), answer, name
                )
            except PromptTooLongError:
                return None
            return found if sum(map(len, found)) <= n_ctx else None

        tokens = without(0)
        if tokens is None and self.question.on_too_long == "clip":
            tokens = fewest_left_out(len(turns[0][1]), without)
            caution(
                f"{name}: the beginning of the prompt was left out, which exceeds the context", ClippedPromptWarning
            )
        if tokens is None:
            length = sum(map(len, self._split(self._before(prompt, turns), answer, name)))
            raise PromptTooLongError(f"{name}: prompt and response have {length} tokens, the context {n_ctx}")
        return tokens

    def _before(self, prompt: Prompt, turns: Sequence[tuple[str, str]]) -> MarkedText:
        """What stands before the response."""
        system = MarkedText.of("system", self.question.system)
        if self.template.is_chat(self.model.tokenizer):
            messages = [Turn("system", system, "the system message")] if system else []
            for number, (role, text) in enumerate(turns, start=1):
                messages.append(Turn(role, MarkedText.of("prompt", text), f"message {number} of the prompt"))
            return chat_text(
                self.model.tokenizer,
                messages,
                kwargs=self.question.chat_template_kwargs,
                date=self.question.date,
                prefill=self.template.prefill,
            )
        text = (
            turns[0][1] if isinstance(prompt, str) else text_of([{"role": role, "content": one} for role, one in turns])
        )
        checked_prompt(text, self.template.takes_prompt())
        words = self.template.scalar.split("{response}")[0].split("{prompt}")
        filled = [words[0], *(piece for rest in words[1:] for piece in (MarkedText.of("prompt", text), rest))]
        return MarkedText.joined([system, "\n\n", *filled] if system else filled)

    def _split(self, before: MarkedText, answer: MarkedText, name: str) -> tuple[list[int], list[int]]:
        """The tokens before an answer, and the answer's as they are after them."""
        if marks_in(answer):
            raise NoImagesError(f"{name}: the response has an image in it, which has no likelihood")
        if marks_in(before) and self.reference is not None:
            raise NoImagesError(f"{name}: the prompt has an image in it; with a reference model, prompts are text only")
        changed, tokens = continuation(self.model.tokenizer, before, answer)
        prefix = self.model.encode([before], chat=self.template.is_chat(self.model.tokenizer), names=[name])[0]
        context = prefix[: len(prefix) - changed]
        if not tokens or not answer:
            raise ValueError(f"{name}: the response has no tokens")
        if not context:
            raise ValueError(f"{name}: nothing stands before the response for its first token to follow from")
        return context, tokens


@torch.inference_mode()
def log_likelihoods(
    model: ModelLike, questions: Sequence[tuple[list[int], list[int]]], *, batch_size: int = 16, progress: bool = False
) -> Float[Tensor, " example"]:
    """The summed log-probability, in nats, of the second token sequence of each pair after the first."""
    model = language_model(model)
    order = sorted(range(len(questions)), key=lambda index: sum(map(len, questions[index])))
    found = torch.empty(len(questions))
    for span in tqdm(list(chunks(len(order), batch_size)), desc="likelihood", unit="batch", disable=not progress):
        here = order[span]
        # Padded on the right: no real token attends to the padding, and every position is as it should be.
        batch = pad([[*questions[index][0], *questions[index][1]] for index in here], side="right", device=model.device)
        with naming_prompts(here):
            logits = model.logits(batch)
        for row, index in enumerate(here):
            context, tokens = questions[index]
            # Only the logits before the response's tokens: a float copy of all would take as much memory again.
            due = logits[row, len(context) - 1 : len(context) + len(tokens) - 1].float()
            found[index] = -cross_entropy(due, torch.tensor(tokens, device=due.device), reduction="sum").cpu()
    return found


def _check_same_tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
    one, other = ours.get_vocab(), theirs.get_vocab()
    different = next((token for token in one | other if one.get(token) != other.get(token)), None)
    if different is not None:
        raise ValueError(
            f"the token {different!r} is number {one.get(different, 'none')} of the model's {len(one)} tokens and "
            f"{other.get(different, 'none')} of the reference's {len(other)}: the log-ratio needs the same tokens"
        )


class LikelihoodOptions(OptionsModel):
    """Options of the likelihood judge."""

    question: QuestionOptions = QuestionOptions()
    mean: bool = True
    """Divide by the number of the response's tokens."""


class LikelihoodRatioOptions(LikelihoodOptions):
    """Options of the likelihood judge with a reference."""

    mean: bool = False
    reference: str
    """The reference model: a hub name or a folder."""
    beta: float = 1.0


def _fit_ratio(context: FitContext, options: LikelihoodRatioOptions) -> LikelihoodJudge:
    reference = _reference_of(options, context.model)
    return LikelihoodJudge(
        context.model, question=context.question, reference=reference, mean=options.mean, beta=options.beta
    )


def _prompt(context: FitContext, options: LikelihoodOptions, example: Preference) -> str:
    return LikelihoodJudge(context.model, question=context.question).prompt_of(example)


def _reference_of(options: LikelihoodRatioOptions, model: ModelLike) -> LanguageModel:
    """The reference, of the same class, in the same precision and on the same device as a model."""
    like = language_model(model)
    files = sorted((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in Path(options.reference).glob("*"))
    return _reference(options.reference, like.info.model_class, like.dtype, str(like.device), tuple(files))


@lru_cache(maxsize=1)
def _reference(
    name: str, model_class: ModelClass, dtype: torch.dtype, device: str, files: tuple[tuple[str, int, int], ...]
) -> LanguageModel:
    """A reference, loaded once for all fits of a process, and again if the files in its folder change."""
    return language_model(load_model(name, model_class=model_class, dtype=dtype, device=device))


SPECS = (
    JudgeSpec(
        name="likelihood",
        judge=LikelihoodJudge,
        options=LikelihoodOptions,
        fit=lambda context, options: LikelihoodJudge(context.model, question=context.question, mean=options.mean),
        summary="The response's own log-likelihood, per token or in all.",
        style=Style(label="Log-likelihood", color="#7d9b2c", symbol="triangle-left", group="Likelihood"),
        reads_examples=never,
        prompt=_prompt,
        place=400,
    ),
    JudgeSpec(
        name="likelihood_ratio",
        judge=LikelihoodJudge,
        options=LikelihoodRatioOptions,
        fit=_fit_ratio,
        depends_on=lambda options, model: fingerprint_of(_reference_of(options, model)).digest,
        summary="The log-ratio of the response's likelihood to that under a reference model (a hub name or folder).",
        style=Style(label="Log-likelihood ratio", color="#4d6600", symbol="triangle-right", group="Likelihood"),
        reads_examples=never,
        prompt=_prompt,
        place=410,
    ),
)
