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
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_lens.judges.base import FitContext, VerdictJudge, check_pairs
from arm_lens.judges.endpoint.answers import Answer
from arm_lens.judges.endpoint.client import ChatClient, ChatRequest, Usage
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.judges.endpoint.verdicts import VerdictReader
from arm_lens.judges.generative import demonstrations_of, shows_demonstrations
from arm_lens.judges.options import QuestionOptions, ReadingOptions, question_options
from arm_lens.judges.questions import Question, questions_of, scalar_questions, verdicts_of
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Message, Preference, Prompt
from arm_lens.registry import JudgeSpec, OptionsModel, Style

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

    @property
    def two_way(self) -> Float[Tensor, " question"]:
        """The probability again: an endpoint tells the verdicts' alone."""
        return self.probability


class EndpointJudge(VerdictJudge[EndpointVerdicts]):
    """Asks an OpenAI-compatible endpoint whether a response meets the criterion.

    Args:
        model: its name at the endpoint.
        examples: demonstrations before every question, in this order.
        question: how it is asked; a bare string is the criterion in words. The template's texts for base models are not used.
        endpoint: how it is called.
        votes: verdicts per question.
        temperature: by default 0 for one verdict and 1 for votes.
        rationale: ask for reasons before the verdict. The demonstrations still show verdicts alone, and no probability is
            asked for: once the reasons are written, the verdict is settled. Sample votes for a graded reward.
        max_tokens: of an answer, 16 or with a rationale 1024; a model that thinks before it answers may want more.
        seed: of sampling, and of the order of the two responses in ranked demonstrations. Every vote on every question gets
            a seed of its own; not every endpoint heeds it.

    Raises:
        ImportError: if the openai client is not installed.
        ValueError: if an option makes no sense, or the environment variable is not set.
        AnswersFileError: if the cache is damaged or another program's file.
    """

    kind: ClassVar[str] = "endpoint judge"

    def __init__(
        self,
        model: str,
        *,
        examples: Sequence[Preference] = (),
        question: QuestionOptions | str | None = None,
        endpoint: EndpointOptions | None = None,
        votes: int = 1,
        temperature: float | None = None,
        rationale: bool = False,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        question, endpoint = question_options(question), endpoint or EndpointOptions()
        self.model, self.votes, self.rationale, self.seed = model, votes, rationale, seed
        self.template = question.template or JudgeTemplate()
        self.question = question.model_copy(update={"template": self.template})
        self.temperature = float(votes > 1) if temperature is None else float(temperature)
        usual = RATIONALE_TOKENS if rationale else VERDICT_TOKENS
        self.max_tokens = usual if max_tokens is None else max_tokens
        self.demonstrations = tuple(questions_of(examples, self.template, question.layout, seed=seed))
        self.spellings = verdicts_of(self.template, question.layout)
        for name, value, least in (
            ("votes", votes, 1), ("max_tokens", self.max_tokens, 1), ("temperature", self.temperature, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if votes > 1 and not self.temperature:
            raise ValueError(f"{votes} votes at temperature 0 would all be the same; leave temperature out")
        self._reader = VerdictReader(*self.spellings, rationale=rationale)
        self._client = ChatClient(endpoint, api_key=_key(endpoint.api_key_env))
        self._unparsed = self._from_text = self._prompt_tokens = self._completion_tokens = 0

    @property
    def compares_only(self) -> bool:
        """In the ranked layout."""
        return self.question.layout == "ranked"

    @property
    def log_odds(self) -> bool:
        """Whether all verdicts so far were read off stated probabilities, not from words, and not counted."""
        return self._wants_logprobs and not self._from_text

    def facts(self) -> dict[str, Any]:
        """What of `usage` does not depend on how often a run was stopped."""
        price = self.usage.price
        return {"unparsed": self._unparsed, "cost": None if math.isnan(price) else price}

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far, and how many answers were no verdict."""
        price = self._client.price(self._prompt_tokens, self._completion_tokens)
        return replace(self._client.usage, price=price, unparsed=self._unparsed, from_text=self._from_text)

    def messages(self, question: Question, *, demonstrations: Sequence[Question] | None = None) -> list[Message]:
        """The conversation that asks a question: each demonstration a turn, the criterion in front of the first."""
        positive, negative = (spellings[0] for spellings in self.spellings)
        header = self.template.header.replace("{criterion}", self.question.criterion_text)
        header = header if self.question.criterion_text else ""
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

    def verdicts(
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
        questions = scalar_questions(self.template, prompts, responses, layout=self.question.layout)
        return self.verdict(questions, progress=progress)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " example"]:
        """P(Yes), or the share of Yes among the votes, of each response; otherwise as `verdicts`."""
        return self.verdicts(prompts, responses, progress=progress).probability

    def margins(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, " pair"]:
        """How much better each ``a`` is than its ``b``, in log-odds; see `VerdictJudge.margins`. Errors name the pair."""
        if not len(prompts):
            return super().margins(prompts, a, b, progress=progress)
        gaps = self._gaps(prompts, a, b, progress)
        difference = gaps[:, 0] - gaps[:, 1]
        return difference / 2 if self.compares_only else difference

    def orders(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], *, progress: bool = False
    ) -> Float[Tensor, "pair order"]:
        """A ranked judge's log-odds for whichever response stands first; see `VerdictJudge.orders`.

        After `margins` they cost nothing: the answers are there.
        """
        if not self.compares_only:
            raise ValueError("a scalar judge sees one response at a time: there is no order; use layout='ranked'")
        return self._gaps(prompts, a, b, progress)

    def _gaps(
        self, prompts: Sequence[Prompt], a: Sequence[Prompt], b: Sequence[Prompt], progress: bool
    ) -> Float[Tensor, "pair two"]:
        """The log-odds of each response, or of the first in each order."""
        check_pairs(prompts, a, b)
        questions = []
        for number, (prompt, one, two) in enumerate(zip(prompts, a, b, strict=True)):
            if self.compares_only:
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


class EndpointJudgeOptions(OptionsModel):
    """Options of the endpoint judge."""

    groups: ClassVar[tuple[str, ...]] = ("question", "reading", "endpoint")
    model: str
    """Its name at the endpoint."""
    question: QuestionOptions = QuestionOptions()
    reading: ReadingOptions = ReadingOptions()
    endpoint: EndpointOptions = EndpointOptions()
    votes: int = 1
    temperature: float | None = None
    rationale: bool = False
    max_tokens: int | None = None


def _fit(context: FitContext, options: EndpointJudgeOptions) -> EndpointJudge:
    reading, question = context.reading, context.question
    seed = reading.seed or 0
    endpoint = options.endpoint.shared_by(context.workers)
    if endpoint.cache is None:
        endpoint = endpoint.model_copy(update={"cache": context.cache})
    return EndpointJudge(
        options.model,
        examples=demonstrations_of(context.examples, question.layout, reading.demonstrations, seed=seed),
        question=question,
        endpoint=endpoint,
        votes=options.votes,
        temperature=options.temperature,
        rationale=options.rationale,
        max_tokens=options.max_tokens,
        seed=seed,
    )


def _check(options: EndpointJudgeOptions) -> None:
    key = options.endpoint.api_key_env
    if key is not None and key not in os.environ:
        raise ValueError(
            f"the judge 'endpoint' needs a key in the environment variable {key}, which is not set; api_key_env: null for "
            "an endpoint without keys"
        )


SPEC = JudgeSpec(
    name="endpoint",
    judge=EndpointJudge,
    options=EndpointJudgeOptions,
    fit=_fit,
    defaults={"reading": {"demonstrations": 0}},
    summary="A model behind an OpenAI-compatible endpoint; its answers are kept, so that none is paid for twice.",
    paragraph=(
        "Any chat model behind an endpoint, asked the same questions as every other judge. Its verdict is read off the "
        "probabilities of its answer where it states them, else off its words."
    ),
    style=Style(label="Endpoint", color="#003a5a", symbol="bowtie", group="Asking the model"),
    reads_examples=shows_demonstrations,
    check=_check,
    place=320,
)
