r"""Implicit rewards: how likely the model finds the response itself.

The reward is the mean log-likelihood of the response's tokens given the prompt or, with a reference model, the log-ratio

.. math:: r(y \mid x) = \beta \sum_t \log \frac{\pi(y_t \mid x, y_{<t})}{\pi_\mathrm{ref}(y_t \mid x, y_{<t})},

the reward under which the model would be optimal against that reference (DPO, arXiv 2305.18290, equation 5). Neither knows
the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.loading import load_model
from arm_lens.engine.protocol import LanguageModel, ModelClass
from arm_lens.engine.tokens import PromptTooLongError, chunks, pad
from arm_lens.judges.base import FitContext, Judge, Texts, check_as_many
from arm_lens.judges.options import QuestionOptions, question_options
from arm_lens.judges.template import default_template
from arm_lens.preferences import Prompt, text_of
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
        question = question_options(question)
        self.template, self.batch_size = question.template or default_template(self.model), question.batch_size
        self.mean = reference is None if mean is None else mean
        self.beta = beta

    def score(self, prompts: Texts, responses: Texts, *, progress: bool = False) -> Float[Tensor, " example"]:
        """The reward of each response, in nats (per token, if means are taken).

        Raises:
            PromptTooLongError: naming the example that exceeds the model's (or the reference's) context.
            ValueError: naming the example, if its response has no tokens or no token stands before it; or if there are not
                as many prompts as responses.
        """
        check_as_many(prompts, responses)
        questions = [self._tokens(*pair, number) for number, pair in enumerate(zip(prompts, responses, strict=True))]
        total = log_likelihoods(self.model, questions, batch_size=self.batch_size, progress=progress)
        if self.reference is not None:
            other = log_likelihoods(self.reference, questions, batch_size=self.batch_size, progress=progress)
            total = self.beta * (total - other)
        return total / torch.tensor([float(len(response)) for _, response in questions]) if self.mean else total

    def _tokens(self, prompt: Prompt, response: Prompt, number: int) -> tuple[list[int], list[int]]:
        """The tokens before the response, and the response's own."""
        tokenizer = self.model.tokenizer
        chat = self.template.is_chat(tokenizer)
        if chat:
            turns = (
                [{"role": "user", "content": prompt}]
                if isinstance(prompt, str)
                else [{"role": one["role"], "content": one["content"]} for one in prompt]
            )
            before = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        else:
            before = self.template.scalar.split("{response}")[0].replace("{prompt}", text_of(prompt))
        context = self.model.encode([before], chat=chat, names=[f"example {number}"])[0]
        tokens = tokenizer.encode(text_of(response), add_special_tokens=False)
        if not tokens:
            raise ValueError(f"example {number}: the response has no tokens")
        if not context:
            raise ValueError(f"example {number}: nothing stands before the response for its first token to follow from")
        n_ctx = min(one.n_ctx for one in (self.model, self.reference) if one is not None)
        if len(context) + len(tokens) > n_ctx:
            raise PromptTooLongError(
                f"example {number}: prompt and response have {len(context) + len(tokens)} tokens, the context {n_ctx}"
            )
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
    like = language_model(context.model)
    reference = _reference(options.reference, like.info.model_class, like.dtype, str(like.device))
    return LikelihoodJudge(like, question=context.question, reference=reference, mean=options.mean, beta=options.beta)


@lru_cache(maxsize=1)
def _reference(name: str, model_class: ModelClass, dtype: torch.dtype, device: str) -> LanguageModel:
    """A reference, loaded once for all fits of a process."""
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
        place=400,
    ),
    JudgeSpec(
        name="likelihood_ratio",
        judge=LikelihoodJudge,
        options=LikelihoodRatioOptions,
        fit=_fit_ratio,
        summary="The log-ratio of the response's likelihood to that under a reference model (a hub name or folder).",
        style=Style(label="Log-likelihood ratio", color="#4d6600", symbol="triangle-right", group="Likelihood"),
        reads_examples=never,
        place=410,
    ),
)
