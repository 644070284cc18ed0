"""Many chat requests to one endpoint: at a pace, within a budget, several at a time, each of them once.

The ``openai`` client repeats a request after a lost connection, a timeout and the statuses 408, 409, 429 and 5xx, waits as
long as ``Retry-After`` says (up to its own maximum of a minute or two) and otherwise backs off exponentially with jitter.
Added here are a pace that repeated requests keep to as well, since it is set where requests leave; a budget, met by
reserving the most that a request can cost before it is sent; and the answers on disk. Answers come in the order of the
requests, whenever they arrived.

What an endpoint sends is a stranger's. A response is bounded in size, and in time as the timeout says, in all
(`arm_lens.judges.endpoint.transport`); redirects are not followed, so that keys and questions go to the address that was
given and to no other; an answer whose fields are not of their types, or whose probabilities are none, is an error and is not
stored; and keys and passwords are taken out of messages and answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
import weakref
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator
from tqdm.auto import tqdm

from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges.endpoint.answers import Answer, AnswerStore, AnswerToken, Count, LogProb
from arm_lens.judges.endpoint.answers import explained as in_a_line
from arm_lens.judges.endpoint.errors import (
    BudgetReachedError,
    EndpointError,
    Secrets,
    UnusableResponse,
    explained,
    is_too_long,
    message_of,
)
from arm_lens.judges.endpoint.images import text_and_images, with_images
from arm_lens.judges.endpoint.options import EndpointOptions, own_address, public_address
from arm_lens.judges.endpoint.transport import Deadline, http_client
from arm_lens.preferences import PreferenceFieldError
from arm_lens.storage import parse_json

TOKENS_AROUND_A_MESSAGE = 32
"""Upper bound on what a chat template adds to a message."""
MOST_PROBABILITY = 1.05
"""What the probabilities of different tokens at one place may add up to, as rounded by an endpoint."""
NO_KEY = "none"
"""What the client is given for an endpoint without keys; it needs some text."""
LEAST_SECRET = 4
"""Characters of a key or password that is taken out of answers; a shorter one is also part of ordinary words."""
OPTIONAL = {"logprobs": "logprob", "seed": "seed", "max_tokens": "max_completion_tokens"}
"""Fields that can be left out (``max_tokens`` has a newer name), and the word by which an error says that one is refused."""


class _Stopped(BaseException):
    """Ends a request that nobody waits for; not an Exception, after which the client would try again."""


@dataclass(frozen=True)
class ChatRequest:
    """A request for one answer."""

    name: str
    """What errors call it."""
    body: Mapping[str, Any]
    """The body of the chat completion, in the terms of the protocol."""
    vote: int = 0
    """Distinguishes requests with the same body that each get an answer."""

    def key(self, url: str) -> str:
        """A hash of everything that determines the answer."""
        text = json.dumps([url.rstrip("/"), self.body, self.vote], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Requests, tokens and cost so far."""

    requests: int = 0
    """Sent, including repeated ones."""
    retries: int = 0
    """The requests that repeated another."""
    answers: int = 0
    """New answers, which are what is paid for."""
    cached: int = 0
    """Answers that were already stored."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = math.nan
    """In the unit of the prices; NaN without prices. A provider's discounts are not known here, nor what it bills for
    requests that it did not answer."""
    price: float = math.nan
    """What all answers in use cost when they were new, cached ones included; NaN without prices."""
    refused: tuple[str, ...] = ()
    """Fields that the endpoint does not accept, and that were left out."""
    unparsed: int = 0
    """Answers, cached ones included, with neither verdict."""
    from_text: int = 0
    """Answers, cached ones included, without the log-probabilities that were requested."""


class Gate:
    """Where requests leave: counts them and keeps them apart by at least a minute's share."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self.requests = self.retries = 0
        self.stop = threading.Event()
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> None:
        """Hold a request of the HTTP client until it may leave."""
        with self._lock:  # held while waiting, so that a late request delays the next and never crowds it
            if self._interval:
                self.stop.wait(max(0.0, self._next - time.monotonic()))
                self._next = time.monotonic() + self._interval
            if self.stop.is_set():
                raise _Stopped
            self.requests += 1
            self.retries += request.headers.get("x-stainless-retry-count", "0") != "0"


class Budget:
    """Money; the most that a request can cost is set aside before it is sent."""

    def __init__(self, limit: float | None) -> None:
        self.limit, self.spent = limit, 0.0
        self._reserved: list[float] = []  # the rounding errors of a running total would be waited for for ever
        self._changed = threading.Condition()

    def reserve(self, most: float, name: str, stop: threading.Event) -> None:
        """Wait until the budget allows a request, given what the unfinished ones turn out to cost.

        Raises:
            BudgetReachedError: if it will not.
        """
        with self._changed:
            while self.limit is not None and math.fsum([self.spent, *self._reserved, most]) > self.limit:
                if stop.is_set():
                    raise _Stopped
                if not self._reserved:
                    raise BudgetReachedError(
                        f"{self.spent:.6g} of the budget of {self.limit:g} is spent, and {name} may cost up to {most:.2g}"
                    )
                self._changed.wait(0.1)
            self._reserved.append(most)

    def settle(self, most: float, cost: float) -> None:
        """Put the cost in place of what was set aside."""
        with self._changed:
            self._reserved.remove(most)
            self.spent += cost
            self._changed.notify_all()


class ChatClient:
    """Calls an endpoint; ``api_key`` is the key itself, not the name of its variable."""

    def __init__(self, options: EndpointOptions, *, api_key: str) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                "an endpoint is asked with the openai client, which is not installed: pip install 'arm-lens[endpoint]'"
            ) from error
        self._errors: tuple[type[BaseException], ...] = (openai.OpenAIError, ValueError, UnusableResponse)
        self._gate, self._budget = Gate(options.requests_per_minute), Budget(options.budget)
        self._prices = options.prices or (math.nan, math.nan)
        given = urlsplit(options.base_url or own_address())
        user, password = (unquote(one or "") for one in (given.username, given.password))
        header = b64encode(f"{user}:{password}".encode()).decode() if user or password else ""
        self._secrets = Secrets(*({api_key, password, header} - {NO_KEY, ""}))
        # A user name and password go into a header, and not into an address, which is written to logs.
        foreign = options.is_foreign
        bearer = f"Bearer {api_key}" if foreign else None
        http = http_client(
            Deadline(options.timeout),
            self._gate,
            authorization=f"Basic {header}" if header else bearer,
            foreign=foreign,
        )
        weakref.finalize(self, http.close)
        self._client = openai.OpenAI(
            api_key=api_key, base_url=public_address(given.geturl()), max_retries=options.max_retries,
            timeout=options.timeout, http_client=http,
        )  # fmt: skip
        self._options, self._where = options, str(self._client.base_url)
        self._store = AnswerStore(options.cache)
        self._usage = Usage(cost=self.price(0, 0))
        self._refused: dict[str, None] = {}
        self._counting, self._asking, self._all_queued = threading.Lock(), threading.Lock(), threading.Event()

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far."""
        return replace(
            self._usage, requests=self._gate.requests, retries=self._gate.retries, refused=tuple(self._refused)
        )

    def ask(self, requests: Sequence[ChatRequest], *, progress: bool = False) -> list[Answer]:
        """The answers, in the order of the requests; the same request is sent once.

        Raises:
            EndpointError: naming the request; answers that arrived before are stored.
            PromptTooLongError: likewise.
            ValueError: before anything is sent, if there are images and it is not known what they may cost.
        """
        if self._budget.limit is not None and self._options.image_tokens is None:
            seeing = next((one for one in requests if text_and_images(one.body["messages"])[1]), None)
            if seeing is not None:
                raise ValueError(
                    f"{seeing.name} has an image in it, and endpoints count the tokens of images differently: for a budget, "
                    "pass image_tokens=..., the most that this one counts for an image"
                )
        with self._asking:
            keys = [request.key(str(self._client.base_url)) for request in requests]
            answers = self._store.get(list(dict.fromkeys(keys)))
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
            self._usage = replace(self._usage, cached=self._usage.cached + len(requests) - len(missing))
            bar = tqdm(total=len(answers) + len(missing), initial=len(answers), desc="asking", unit="answer",
                       disable=not progress, leave=False)  # fmt: skip
            try:
                with bar, closing(self._send_all(missing)) as arriving:
                    for key, answer in arriving:
                        answers[key] = answer
                        bar.update()
            except (EndpointError, PromptTooLongError) as error:
                kept, where = len(self._store.get(list({*keys}))), self._store.path or "memory"
                error.add_note(f"{kept} of {len({*keys})} answers are kept in {where}; asked again, they cost nothing.")
                raise
            return [answers[key] for key in keys]

    def _send_all(self, requests: Mapping[str, ChatRequest]) -> Generator[tuple[str, Answer], None, None]:
        self._gate.stop.clear()
        self._all_queued.clear()
        pool = ThreadPoolExecutor(self._options.concurrency, thread_name_prefix="endpoint")
        try:
            sent = {pool.submit(self._send, key, request): key for key, request in requests.items()}
            self._all_queued.set()
            for future in as_completed(sent):
                yield sent[future], future.result()
        finally:
            # After an error or Ctrl-C, answers that are on their way are waited for and stored; nothing more is sent.
            self._gate.stop.set()
            self._all_queued.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _send(self, key: str, request: ChatRequest) -> Answer:
        # A thread that Ctrl-C interrupts while it starts is unknown to the pool, and must not have sent anything.
        self._all_queued.wait()
        most, cost = self._most(request.body), 0.0
        self._budget.reserve(most, request.name, self._gate.stop)
        try:
            answer = self._create(request)
            cost = self.price(answer.prompt_tokens or 0, answer.completion_tokens or 0)
        finally:
            self._budget.settle(most, cost)
        with self._counting:
            self._usage = replace(
                self._usage,
                answers=self._usage.answers + 1,
                prompt_tokens=self._usage.prompt_tokens + (answer.prompt_tokens or 0),
                completion_tokens=self._usage.completion_tokens + (answer.completion_tokens or 0),
                cost=self._usage.cost + cost,
            )
        kept = self._store.put(key, answer)
        if self._budget.limit is not None and None in (answer.prompt_tokens, answer.completion_tokens):
            raise EndpointError(f"{self._where} does not say how many tokens it used: no budget can be kept")
        return kept

    def _create(self, request: ChatRequest) -> Answer:
        try:
            sent = {**request.body, "messages": with_images(request.body["messages"])}
        except PreferenceFieldError as error:
            raise EndpointError(f"{request.name}: {error}") from error
        while True:
            body = self._accepted(sent)
            try:
                response = self._client.chat.completions.with_raw_response.create(**body)
                return _answer(response.content, self._secrets)
            except self._errors as error:
                status, message = getattr(error, "status_code", None), message_of(error, self._secrets)
                if status == 400 and getattr(error, "code", None) == "content_filter":
                    return Answer("", "content_filter", 0, 0)  # an answer without a verdict
                refused = [field for field, word in OPTIONAL.items() if field in body and word in message]
                if status not in (400, 422) or is_too_long(error, self._secrets) or not refused:
                    # Not from the client's error, whose message may contain the key.
                    raise explained(
                        error, self._where, self._options, str(body["model"]), request.name, self._secrets
                    ) from None
                self._refused.update(dict.fromkeys(refused))

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body without what the endpoint has refused."""
        accepted = {field: value for field, value in body.items() if field not in self._refused}
        if "logprobs" not in accepted:
            accepted.pop("top_logprobs", None)
        if "max_tokens" in self._refused:
            accepted["max_completion_tokens"] = body["max_tokens"]
        return accepted

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost; NaN without prices."""
        prompt, completion = self._prices
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6

    def _most(self, body: Mapping[str, Any]) -> float:
        """What a request costs at most: no token of a text is shorter than a byte, and those of images are an option."""
        texts, images = text_and_images(body["messages"])
        length = sum(len(text.encode(errors="replace")) for text in texts) + images * (self._options.image_tokens or 0)
        return self.price(length + TOKENS_AROUND_A_MESSAGE * (len(body["messages"]) + 1), body["max_tokens"])


class _Part(BaseModel):
    """A part of a chat completion; fields that do not matter here are not looked at."""


class _Likely(_Part):
    token: str
    logprob: LogProb


class _Token(_Likely):
    top_logprobs: list[_Likely] | None = None

    @model_validator(mode="after")
    def _are_probabilities(self) -> _Token:
        given = {(one.token, one.logprob) for one in (self, *(self.top_logprobs or ()))}
        total = math.fsum(math.exp(logprob) for _, logprob in given)
        if total > MOST_PROBABILITY and len(given) > 1:
            raise ValueError(f"the probabilities of {len(given)} tokens add up to {total:.3g}, more than 1")
        return self


class _LogProbs(_Part):
    content: list[_Token] | None = None


class _Message(_Part):
    content: str | None = None


class _Choice(_Part):
    message: _Message
    finish_reason: str | None = None
    logprobs: _LogProbs | None = None


class _Usage(_Part):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class _Completion(_Part):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _whole_characters(value: Any) -> Any:
    """Replace halves of characters, which an answer may end in that was cut off."""
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole_characters(one) for one in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _answer(content: bytes, secrets: Secrets) -> Answer:
    """The parts of a chat completion that matter here; a ValueError if it is not one."""
    try:
        values = _whole_characters(parse_json(content, half_characters=True))
    except ValueError as error:
        raise ValueError(f"{secrets.hidden(content.decode(errors='replace'))[:200]!r} ({error})") from None
    if not isinstance(values, dict) or not values.get("choices"):
        raise ValueError(repr(values.get("error", values) if isinstance(values, dict) else values))
    try:
        completion = _Completion.model_validate(values, strict=True)
    except ValidationError as error:
        raise ValueError(in_a_line(error)) from None
    choice, usage = completion.choices[0], completion.usage or _Usage()
    given = (choice.logprobs and choice.logprobs.content) or []
    tokens: tuple[AnswerToken, ...] | None = tuple(
        AnswerToken(token.token, token.logprob, tuple((one.token, one.logprob) for one in token.top_logprobs or ()))
        for token in given
    )
    text = choice.message.content or ""
    public, finish = (secrets.hidden(one, least=LEAST_SECRET) for one in (text, choice.finish_reason or ""))
    names = [name for one in tokens or () for name in (one.text, *dict(one.top))]
    if public != text or any(secrets.hidden(name, least=LEAST_SECRET) != name for name in names):
        tokens = None  # a key may be in several of them
    return Answer(public, finish, usage.prompt_tokens, usage.completion_tokens, tokens or None)
