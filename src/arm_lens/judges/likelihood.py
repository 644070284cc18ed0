r"""Implicit rewards: how likely the model finds the response itself.

The reward is the mean log-likelihood of the response's tokens given the prompt or, where a reference model is given, the
log-ratio

.. math:: r(y \mid x) = \beta \sum_t \log \frac{\pi(y_t \mid x, y_{<t})}{\pi_\mathrm{ref}(y_t \mid x, y_{<t})},

the reward under which the model would be optimal against that reference (DPO, arXiv 2305.18290, equation 5). Neither knows
the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.models import Model, device_of
from arm_lens.engine.tokens import PromptTooLongError, chunks, encode, pad
from arm_lens.judges.base import ScoresResponses
from arm_lens.judges.template import JudgeTemplate, default_template
from arm_lens.preferences import Prompt, text_of


class LikelihoodJudge(ScoresResponses):
    """Rewards responses by their log-likelihood.

    Args:
        model: of either class.
        reference: a second model with the same tokenizer; the reward is then the log-ratio to it.
        template: what a base model reads before the response is the scalar question up to it; a chat model is given the
            prompt through its chat template.
        mean: divide by the number of the response's tokens; by default unless there is a reference.
        beta: of the log-ratio.
        batch_size: responses per pass.

    Raises:
        ValueError: if the two models' tokenizers do not have the same tokens under the same numbers.
    """

    def __init__(
        self,
        model: Model,
        *,
        reference: Model | None = None,
        template: JudgeTemplate | None = None,
        mean: bool | None = None,
        beta: float = 1.0,
        batch_size: int = 16,
    ) -> None:
        if reference is not None:
            _check_same_tokens(model.tokenizer, reference.tokenizer)
        self.model, self.reference = model, reference
        self.template = template or default_template(model)
        self.mean = reference is None if mean is None else mean
        self.beta, self.batch_size = beta, batch_size

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The reward of each response, in nats (per token, if means are taken).

        Raises:
            PromptTooLongError: naming the example that exceeds the model's (or the reference's) context.
            ValueError: naming the example whose response has no tokens, or has none before it to follow from; or if there
                are not as many prompts as responses.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses")
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
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            before = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        else:
            before = self.template.scalar.split("{response}")[0].replace("{prompt}", text_of(prompt))
        context = encode(self.model, [before], chat=chat, names=[f"example {number}"])[0]
        tokens = tokenizer.encode(text_of(response), add_special_tokens=False)
        if not tokens:
            raise ValueError(f"example {number}: the response has no tokens")
        if not context:
            raise ValueError(f"example {number}: nothing stands before the response for its first token to follow from")
        room = min(one.cfg.n_ctx for one in (self.model, self.reference) if one is not None)
        if len(context) + len(tokens) > room:
            raise PromptTooLongError(
                f"example {number}: prompt and response have {len(context) + len(tokens)} tokens, the context {room}"
            )
        return context, tokens


@torch.inference_mode()
def log_likelihoods(
    model: Model, questions: Sequence[tuple[list[int], list[int]]], *, batch_size: int = 16, progress: bool = False
) -> Float[Tensor, " example"]:
    """The summed log-probability, in nats, of the second token sequence of each pair after the first."""
    order = sorted(range(len(questions)), key=lambda index: sum(map(len, questions[index])))
    found = torch.empty(len(questions))
    for span in tqdm(list(chunks(len(order), batch_size)), desc="likelihood", unit="batch", disable=not progress):
        here = order[span]
        # Padded on the right, where no real token sees it and every position is as it should be.
        batch = pad(
            [[*questions[index][0], *questions[index][1]] for index in here], side="right", device=device_of(model)
        )
        logits: Tensor = model(batch.tokens, attention_mask=batch.attention_mask)
        for row, index in enumerate(here):
            context, tokens = questions[index]
            # The logits before each of the response's tokens; a float copy of all would take as much memory again.
            due = logits[row, len(context) - 1 : len(context) + len(tokens) - 1].float()
            found[index] = -cross_entropy(due, torch.tensor(tokens, device=due.device), reduction="sum").cpu()
    return found


def _check_same_tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
    one, other = ours.get_vocab(), theirs.get_vocab()
    if len(one) != len(other):
        raise ValueError(
            f"the model's tokenizer has {len(one)} tokens and the reference's {len(other)}: the log-ratio needs the same"
        )
    different = next((token for token, number in one.items() if other.get(token) != number), None)
    if different is not None:
        raise ValueError(
            f"the token {different!r} is number {one[different]} of the model's tokenizer and "
            f"{other.get(different, 'none')} of the reference's: the log-ratio needs the same tokens"
        )
