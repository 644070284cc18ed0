"""A language model behind an OpenAI-compatible endpoint as a judge: zero-shot, few-shot, voting.

The questions are those of every judge in arm_lens; demonstrations are earlier turns of the conversation, as for any chat
model (`arm_lens.judges.template.JudgeTemplate.messages`). One verdict at temperature 0 gives

    reward = P(Yes) / (P(Yes) + P(No)),

if the endpoint states probabilities, else 1 or 0 from the words of its answer. With ``votes`` the endpoint is asked k
times at temperature 1 and the reward is the share of Yes. An answer with neither verdict is half a Yes, so that a judge
that does not answer does not look like one that says No, and `Usage.unparsed` counts it.

Margins are always in log-odds: the difference of the verdict's log-probabilities or, from y yes and n no among the
verdicts, the empirical logit log((y + 1/2) / (n + 1/2)) (Haldane 1956; Anscombe 1956), which is finite if all verdicts
agree and orders responses as the shares do.
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
from jaxtyping import Int
from torch import Tensor

from arm_lens.engine.images import NoImagesError
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.base import FitContext, VerdictJudge
from arm_lens.judges.endpoint.answers import Answer
from arm_lens.judges.endpoint.client import NO_KEY, ChatClient, ChatRequest, Usage
from arm_lens.judges.endpoint.images import in_parts, refusal
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.judges.endpoint.verdicts import VerdictReader
from arm_lens.judges.generative import demonstrations_of, shows_demonstrations
from arm_lens.judges.options import QuestionOptions, ReadingOptions, question_options
from arm_lens.judges.questions import Question, questions_of, shown_among, verdicts_of, warn_of_own_answers
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import Preference
from arm_lens.preferences.images import marks_in
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
class EndpointVerdicts(VerdictScores):
    """An endpoint's verdict on each question: the share of positive votes, or P(positive) of the two verdicts alone."""

    unparsed: Int[Tensor, " question"]
    """How many of the votes were no verdict; each counts half."""


class EndpointJudge(VerdictJudge):
    """Asks an OpenAI-compatible endpoint whether a response meets the criterion.

    Args:
        model: its name at the endpoint.
        examples: demonstrations before every question, in this order.
        question: how the question is put; a bare string is the criterion in words. The template's texts for base models
            are not used.
        endpoint: how the endpoint is called.
        votes: verdicts per question.
        temperature: by default 0 for one verdict and 1 for votes.
        rationale: ask for reasons before the verdict. The demonstrations have verdicts alone, and no probability is
            requested, because the reasons already settle the verdict. Sample votes for a graded reward.
        max_tokens: of an answer, 16 or with a rationale 1024; a model that thinks before it answers may need more.
        seed: of sampling, and of the order of the two responses in ranked demonstrations. Every vote on every question has
            its own seed; not every endpoint uses it.

    Raises:
        ImportError: if the openai client is not installed.
        ValueError: if an option is impossible, or the environment variable is not set.
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
        self._question = question.model_copy(update={"template": question.template or JudgeTemplate()})
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
        self._endpoint = endpoint
        self._client = ChatClient(endpoint, api_key=_key(endpoint.api_key_env))
        self._unparsed = self._from_text = self._prompt_tokens = self._completion_tokens = 0

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that are among the demonstrations."""
        return shown_among(self.demonstrations, examples, self.template, self.layout)

    @property
    def log_odds(self) -> bool:
        """Whether all verdicts so far were read off stated probabilities, not from words or counts of votes."""
        return self._wants_logprobs and not self._from_text

    def facts(self) -> dict[str, Any]:
        """The part of `usage` that does not depend on how often a run was stopped."""
        price = self.usage.price
        return {"unparsed": self._unparsed, "cost": None if math.isnan(price) else price}

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far, and how many answers were no verdict."""
        price = self._client.price(self._prompt_tokens, self._completion_tokens)
        return replace(self._client.usage, price=price, unparsed=self._unparsed, from_text=self._from_text)

    def too_long_questions(self, questions: Sequence[Question]) -> dict[int, str]:
        """The questions, by number, whose images cannot be sent, each with the error."""
        reasons = {number: self._refusal(one) for number, one in enumerate(questions)}
        return {number: reason for number, reason in reasons.items() if reason}

    def _refusal(self, question: Question) -> str | None:
        reason = refusal([question.text], self._endpoint, self.model)
        return reason and f"{question.name} {reason}"

    def messages(self, question: Question, *, demonstrations: Sequence[Question] | None = None) -> list[dict[str, str]]:
        """The conversation that asks a question; see `JudgeTemplate.messages`. An image is its mark.

        Raises:
            NoImagesError: naming the question or demonstration, if there is an image in it that cannot be sent.
        """
        positive, negative = (spellings[0] for spellings in self.spellings)
        context = self.demonstrations if demonstrations is None else demonstrations
        if reason := next(filter(None, map(self._refusal, (question, *context))), None):
            raise NoImagesError(reason)
        if marks_in(self.question.system):
            raise NoImagesError(
                "the system message has an image in it; endpoints read images in the user's messages only"
            )
        examples = [(one.text, positive if one.positive else negative) for one in context]
        after = RATIONALE.format(positive=positive, negative=negative) if self.rationale else ""
        return self.template.messages(
            question.text + after, examples=examples, criterion=self.criterion_text, system=self.question.system
        )

    def verdict(
        self,
        questions: Sequence[Question],
        *,
        demonstrations: Sequence[Sequence[Question]] | None = None,
        progress: bool = False,
    ) -> EndpointVerdicts:
        """The verdict on each question, ``[question]``.

        ``demonstrations`` are those for each question, instead of the judge's own.

        Raises:
            EndpointError: naming the question, if the endpoint gives no usable answer; all answers so far are stored.
            BudgetReachedError: an EndpointError, before the budget is exceeded.
            PromptTooLongError: naming the question.
        """
        if not questions:
            raise ValueError("there is nothing to judge")
        contexts = [self.demonstrations] * len(questions) if demonstrations is None else demonstrations
        warn_of_own_answers(questions, contexts)
        requests = [
            self._request(question, context, vote)
            for question, context in zip(questions, contexts, strict=True)
            for vote in range(self.votes)
        ]
        answers = self._client.ask(requests, progress=progress)
        read = [self._read(answers[start : start + self.votes]) for start in range(0, len(answers), self.votes)]
        probability, gap, unparsed = (torch.tensor(column) for column in zip(*read, strict=True))
        self._unparsed += int(unparsed.sum())
        self._prompt_tokens += sum(answer.prompt_tokens or 0 for answer in answers)
        self._completion_tokens += sum(answer.completion_tokens or 0 for answer in answers)
        logs = probability.log(), (1 - probability).log()
        return EndpointVerdicts(probability, probability, gap, *logs, unparsed)

    def _request(self, question: Question, demonstrations: Sequence[Question], vote: int) -> ChatRequest:
        messages = self.messages(question, demonstrations=demonstrations)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [in_parts(one, self._endpoint.image_detail) for one in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if self.temperature:
            # Not the same seed for all: an endpoint that uses it would sample alike for every question.
            digest = hashlib.sha256(json.dumps([messages, self.seed, vote]).encode()).digest()
            body["seed"] = int.from_bytes(digest[:4]) >> 1
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
        return NO_KEY
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(
            f"the judge 'endpoint' needs a key, but the environment variable {name} is not set; put the key there, name "
            "another variable with api_key_env, or set api_key_env to None (null) for an endpoint without keys"
        )
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the environment variable {name} has a character in it that no key can have; set it again")
    return key


class EndpointJudgeOptions(OptionsModel):
    """Options of the endpoint judge."""

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
        seed=seed,
        **options.model_dump(include={"votes", "temperature", "rationale", "max_tokens"}),
    )


def _prompt(context: FitContext, options: EndpointJudgeOptions, example: Preference) -> str:
    """The conversation that is sent; no key is needed for it, and nothing is sent."""
    endpoint = options.endpoint.model_copy(update={"api_key_env": None, "cache": None})
    judge = _fit(replace(context, cache=None), options.model_copy(update={"endpoint": endpoint}))
    messages = judge.messages(questions_of([example], judge.template, judge.layout)[0])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


SPEC = JudgeSpec(
    name="endpoint",
    judge=EndpointJudge,
    options=EndpointJudgeOptions,
    fit=_fit,
    defaults={"reading": {"demonstrations": 0}},
    summary="A model behind an OpenAI-compatible endpoint; its answers are stored, so that none is paid for twice.",
    style=Style(label="Endpoint", color="#003a5a", symbol="bowtie", group="Asking the model"),
    reads_examples=shows_demonstrations,
    prompt=_prompt,
    check=lambda options: _key(options.endpoint.api_key_env),
    keys=lambda options: options.endpoint.keys(),
    place=320,
)
