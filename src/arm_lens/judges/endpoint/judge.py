"""A language model behind an OpenAI-compatible endpoint as a judge: zero-shot, few-shot, voting.

The questions are those every judge in arm_lens is asked; demonstrations are earlier turns of the conversation, as a
chat model gets them anywhere (`arm_lens.judges.template.JudgeTemplate.render`). One verdict at temperature 0 gives

    reward = P(Yes) / (P(Yes) + P(No)),

where the endpoint tells probabilities, and 1 or 0 from the words of its answer where not. With ``votes`` the endpoint
is asked k times at temperature 1 and the reward is the share of Yes. An answer with neither verdict is half a Yes, and
`Usage.unparsed` counts it: a judge that does not answer must not look like one that says No.

Margins are in log-odds whatever an answer gave: the difference of the verdict's log-probabilities, or, from y yes and n
no among the verdicts, the empirical logit log((y + 1/2) / (n + 1/2)) (Haldane 1956; Anscombe 1956), which is finite
where all verdicts agree and orders responses as the shares do.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.judges.base import Comparison
from arm_lens.judges.endpoint.answers import Answer
from arm_lens.judges.endpoint.client import ChatClient, ChatRequest, Usage
from arm_lens.judges.endpoint.verdicts import VerdictReader
from arm_lens.judges.questions import Layout, Question, questions_of, verdicts_of
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Message, Preference, Prompt

RATIONALE = (
    "\n\nFirst give your reasons in a few sentences. Then write your answer alone on the last line: "
    "{positive} or {negative}."
)
"""After the question, for a rationale before the verdict."""
VERDICT_TOKENS, RATIONALE_TOKENS = 16, 1024
"""How long an answer may be, in tokens, without and with a rationale."""
TOP_LOGPROBS = 20
"""As many as the protocol allows."""


@dataclass(frozen=True)
class EndpointVerdicts:
    """What an endpoint said about each question."""

    probability: Float[Tensor, " question"]
    """P(positive) of the two verdicts alone, or the share of positive ones among the votes."""
    gap: Float[Tensor, " question"]
    """The log-odds of the positive verdict."""
    unparsed: Int[Tensor, " question"]
    """How many of the votes were no verdict; each counts half."""


class EndpointJudge:
    """Asks an OpenAI-compatible endpoint whether a response meets the criterion.

    Args:
        model: its name at the endpoint.
        base_url: such as ``http://localhost:8000/v1``; by default ``OPENAI_BASE_URL`` or OpenAI itself.
        api_key_env: the environment variable with the key, which is never stored; None for an endpoint without keys.
        template: the wording of the questions; its texts for base models are not used.
        criterion_text: the criterion in words, put into every conversation; empty for an unnamed criterion.
        examples: demonstrations shown before every question, in this order.
        layout: ``scalar`` asks about one response; ``ranked`` asks which of two is better, in both orders.
        votes: verdicts per question.
        temperature: by default 0 for one verdict and 1 for votes.
        rationale: ask for reasons before the verdict. The examples still show verdicts alone, and no probability is
            asked for: once the reasons are written, the verdict is settled. Sample votes for a graded reward.
        seed: of sampling, and of the order of the two responses in ranked examples. Every vote on every question gets
            a seed of its own; not every endpoint heeds it.
        max_tokens: of an answer, 16 or with a rationale 1024; a model that thinks before it answers may want more.
        max_retries: how often a request is repeated after a lost connection, a timeout, or the status 429 or 5xx.
        timeout: seconds without a sign of the endpoint before a request counts as lost.
        requests_per_minute: at most, evenly spaced, repeated requests included.
        concurrency: requests on their way at a time.
        prices: of a million prompt tokens and of a million completion tokens.
        budget: the most to spend, in the unit of the prices, as long as this judge lives; each request is priced at a
            token per byte and the longest answer until its cost is known.
        cache: a file, or an existing folder to keep one in, for the answers: asked again, they cost nothing, so that a
            run which was stopped goes on where it was. By default they are remembered as long as this judge.

    Raises:
        ImportError: if the openai client is not installed.
        ValueError: if an option makes no sense, or the environment variable is not set.
        AnswersFileError: if the cache is damaged or another program's file.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        template: JudgeTemplate | None = None,
        criterion_text: str = "",
        examples: Sequence[Preference] = (),
        layout: Layout = "scalar",
        votes: int = 1,
        temperature: float | None = None,
        rationale: bool = False,
        seed: int = 0,
        max_tokens: int | None = None,
        max_retries: int = 5,
        timeout: float = 60.0,
        requests_per_minute: float | None = None,
        concurrency: int = 4,
        prices: tuple[float, float] | None = None,
        budget: float | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.model, self.criterion_text, self.layout, self.votes = model, criterion_text, layout, votes
        self.rationale, self.seed = rationale, seed
        self.template = template or JudgeTemplate()
        self.temperature = float(votes > 1) if temperature is None else float(temperature)
        usual = RATIONALE_TOKENS if rationale else VERDICT_TOKENS
        self.max_tokens = usual if max_tokens is None else max_tokens
        self.demonstrations = tuple(questions_of(examples, self.template, layout, seed=seed))
        self.verdicts = verdicts_of(self.template, layout)
        for name, value, least in (
            ("votes", votes, 1), ("concurrency", concurrency, 1), ("max_retries", max_retries, 0),
            ("max_tokens", self.max_tokens, 1), ("temperature", self.temperature, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        for name, amount in (("timeout", timeout), ("requests_per_minute", requests_per_minute), ("budget", budget)):
            if amount is not None and not amount > 0:
                raise ValueError(f"{name} is {amount}; it must be more than 0")
        if votes > 1 and not self.temperature:
            raise ValueError(f"{votes} votes at temperature 0 would all be the same; leave temperature out")
        if budget is not None and prices is None:
            raise ValueError("a budget needs prices: (per million prompt tokens, per million completion tokens)")
        self._reader = VerdictReader(*self.verdicts, rationale=rationale)
        self._client = ChatClient(
            base_url=base_url,
            api_key=_key(api_key_env),
            key_name=api_key_env,
            max_retries=max_retries,
            timeout=float(timeout),
            requests_per_minute=requests_per_minute,
            concurrency=concurrency,
            prices=prices,
            budget=budget,
            cache=None if cache is None else Path(cache),
        )
        self._unparsed = self._from_text = self._prompt_tokens = self._completion_tokens = 0

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far, and how many answers were no verdict."""
        price = self._client.price(self._prompt_tokens, self._completion_tokens)
        return replace(self._client.usage, price=price, unparsed=self._unparsed, from_text=self._from_text)

    def messages(self, question: Question, *, demonstrations: Sequence[Question] | None = None) -> list[Message]:
        """The conversation that asks a question: each demonstration a turn, the criterion in front of the first."""
        positive, negative = (spellings[0] for spellings in self.verdicts)
        header = self.template.header.replace("{criterion}", self.criterion_text) if self.criterion_text else ""
        messages: list[Message] = []
        for example in self.demonstrations if demonstrations is None else demonstrations:
            messages.append({"role": "user", "content": example.text})
            messages.append({"role": "assistant", "content": positive if example.positive else negative})
        after = RATIONALE.format(positive=positive, negative=negative) if self.rationale else ""
        messages.append({"role": "user", "content": question.text + after})
        messages[0]["content"] = header + messages[0]["content"]
        return messages

    def verdict(
        self,
        questions: Sequence[Question],
        *,
        demonstrations: Sequence[Sequence[Question]] | None = None,
        progress: bool = False,
    ) -> EndpointVerdicts:
        """The verdict on each question, ``[question]``.

        Args:
            questions: the questions.
            demonstrations: demonstrations for each question, instead of the judge's own.
            progress: show a progress bar.

        Raises:
            EndpointError: naming the question, if the endpoint gives no usable answer; all answers so far are kept.
            BudgetReachedError: an EndpointError, before the budget is exceeded.
            PromptTooLongError: naming the question.
        """
        if not questions:
            raise ValueError("there is nothing to judge")
        contexts = [self.demonstrations] * len(questions) if demonstrations is None else demonstrations
        requests = [
            self._request(question, context, vote)
            for question, context in zip(questions, contexts, strict=True)
            for vote in range(self.votes)
        ]
        answers = self._client.ask(requests, progress=progress)
        read = [self._read(answers[start : start + self.votes]) for start in range(0, len(answers), self.votes)]
        probability, gap, unparsed = zip(*read, strict=True)
        self._unparsed += sum(unparsed)
        self._prompt_tokens += sum(answer.prompt_tokens or 0 for answer in answers)
        self._completion_tokens += sum(answer.completion_tokens or 0 for answer in answers)
        return EndpointVerdicts(torch.tensor(probability), torch.tensor(gap), torch.tensor(unparsed))

    def scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> EndpointVerdicts:
        """The verdict on each response, ``[example]``.

        Args:
            prompts: one per response.
            responses: what is judged.
            progress: show a progress bar.

        Raises:
            ValueError: if the judge is ranked (it has no score of one response), or lengths differ.
            EndpointError: naming the example; otherwise as `verdict`.
        """
        if self.layout == "ranked":
            raise ValueError("a ranked judge compares two responses and has no score of one; use prefer")
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses")
        questions = [
            Question(self.template.question(prompt, response), True, f"example {number}")
            for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        return self.verdict(questions, progress=progress)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """P(Yes), or the share of Yes among the votes, of each response; otherwise as `scores`."""
        return self.scores(prompts, responses, progress=progress).probability

    def margins(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``, in log-odds.

        The difference of the two log-odds; for a ranked judge, the mean over both orders, which cancels a liking for
        the first or second place.
        """
        gaps = self._gaps(prompts, a, b, progress)
        difference = gaps[:, 0] - gaps[:, 1]
        return difference / 2 if self.layout == "ranked" else difference

    def orders(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response is shown first: ``a`` in the first column, ``b`` in the second.

        `arm_lens.judges.base.PositionBias.of` says what they tell about the judge. After `margins` they cost nothing: the
        answers are there.

        Raises:
            ValueError: if the judge is scalar.
        """
        if self.layout != "ranked":
            raise ValueError("a scalar judge sees one response at a time: there is no order; use layout='ranked'")
        return self._gaps(prompts, a, b, progress)

    def prefer(self, prompt: Prompt, a: Prompt, b: Prompt) -> Comparison:
        """Which of two responses to a prompt the judge prefers."""
        return Comparison.of(float(self.margins([prompt], [a], [b])[0]))

    def _gaps(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], progress: bool
    ) -> Float[Tensor, "pair two"]:
        """The log-odds of each response, or of the first in each order."""
        if not len(prompts) == len(a) == len(b):
            raise ValueError(f"{len(prompts)} prompts for {len(a)} first and {len(b)} second responses")
        questions = []
        for number, (prompt, one, two) in enumerate(zip(prompts, a, b, strict=True)):
            if self.layout == "ranked":
                texts = [self.template.ranked_question(prompt, *pair) for pair in ((one, two), (two, one))]
            else:
                texts = [self.template.question(prompt, response) for response in (one, two)]
            questions += [Question(text, True, f"pair {number}") for text in texts]
        return self.verdict(questions, progress=progress).gap.reshape(-1, 2)

    def _request(self, question: Question, demonstrations: Sequence[Question], vote: int) -> ChatRequest:
        messages = self.messages(question, demonstrations=demonstrations)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if self.temperature:
            # Not the same seed for all: an endpoint that heeds it would give every question the same luck.
            drawn = hashlib.sha256(json.dumps([messages, self.seed, vote]).encode()).digest()
            body["seed"] = int.from_bytes(drawn[:4]) >> 1
        if self._wants_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return ChatRequest(question.name, body, vote)

    @property
    def _wants_logprobs(self) -> bool:
        return self.votes == 1 and not self.rationale

    def _read(self, answers: Sequence[Answer]) -> tuple[float, float, int]:
        """P(positive), log-odds and the number of answers that are no verdict, from the votes on one question."""
        readings = [self._reader.read(answer) for answer in answers]
        without = sum(reading.positive is None and reading.log_odds is None for reading in readings)
        only = readings[0]
        if len(readings) == 1 and only.log_odds is not None:
            return only.probability, only.log_odds, without
        self._from_text += self._wants_logprobs
        yes = sum(reading.probability for reading in readings)
        no = len(readings) - yes
        return yes / len(readings), math.log((yes + 0.5) / (no + 0.5)), without


def _key(name: str | None) -> str:
    if name is None:
        return "none"  # the client insists on one
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(
            f"the environment variable {name} is not set; put the endpoint's key there, name another variable with "
            "api_key_env, or pass api_key_env=None for an endpoint that wants none"
        )
    return key
