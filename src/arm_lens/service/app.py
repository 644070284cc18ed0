"""The interface: scores and comparisons as JSON, a page to try them, its own description.

Texts are checked and encoded in one thread, and scored in another (`arm_lens.service.batching`); the event loop only reads
and writes. Every refusal is JSON that names the field, and every number is finite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.tokens import PromptError, PromptTooLongError
from arm_lens.judges.base import Comparison
from arm_lens.judges.checks import checked_text
from arm_lens.preferences import PreferenceFieldError, Prompt, text_of
from arm_lens.service import scoring
from arm_lens.service.batching import Batcher, QueueFullError
from arm_lens.service.guard import Guard, RefusedError, StrictJSONResponse
from arm_lens.service.images import ReadsImages, RequestImages
from arm_lens.service.metrics import Metrics
from arm_lens.service.options import ServiceOptions
from arm_lens.service.pages import page, page_of_interface
from arm_lens.service.served import Served

Text = Annotated[
    str | list[dict[str, Any]],
    Field(
        description="Plain text, or the messages of a conversation, each with a role and a content: a text, or a list of "
        'parts, {"type": "text", "text": ...} and {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.'
    ),
]
Criteria = Annotated[
    list[str] | None,
    Field(description="Names of reward models, see /v1/reward-models; by default all that can answer.", min_length=1),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Item(_Body):
    """A response to a prompt."""

    prompt: Text
    response: Text


class ScoreRequest(_Body):
    """Responses to score."""

    items: Annotated[list[Item], Field(min_length=1)]
    criteria: Criteria = None


class CompareRequest(_Body):
    """Two responses to one prompt."""

    prompt: Text
    a: Text
    b: Text
    criteria: Criteria = None


class Scores(BaseModel):
    """What a reward model says about a response."""

    reward: Annotated[float, Field(description="The judge's own scale; of a reward model P(Yes) over the vocabulary.")]
    two_way: Annotated[float | None, Field(description="P(Yes) / (P(Yes) + P(No)); null if the judge has none.")]
    gap: Annotated[float, Field(description="What responses are compared by; of a reward model the log-odds of Yes.")]


class Preferred(BaseModel):
    """Which of two responses a reward model prefers."""

    preferred: Literal["a", "b", "tie"]
    margin: Annotated[float, Field(description="How much better a is than b: the difference of gaps.")]
    a: Annotated[Scores | None, Field(description="null if the judge only compares.")]
    b: Scores | None


class ScoreResponse(BaseModel):
    """One object for each item, in order: scores by criterion."""

    results: list[dict[str, Scores]]


class CompareResponse(BaseModel):
    """Preferences by criterion."""

    results: dict[str, Preferred]


class RewardModelInfo(BaseModel):
    """A reward model that is served, and the language model that it was fitted on."""

    name: str
    kind: str
    criterion: str
    criterion_text: str
    layout: Literal["scalar", "ranked"]
    heads: Annotated[list[tuple[int, int]] | None, Field(description="Pairs of a layer and a head.")]
    gates: Annotated[list[list[float]] | None, Field(description="[layer][head], if heads are moved by soft gates.")]
    n_layers: int
    n_heads: int
    model: str
    dtype: str
    fingerprint: Annotated[str, Field(description="A digest of the language model's weights and answers.")]
    digest: Annotated[str, Field(description="A digest of the reward model.")]


class RewardModels(BaseModel):
    """All that is served, and the limits."""

    reward_models: list[RewardModelInfo]
    reads_images: Annotated[bool, Field(description="Whether prompts and responses may have images.")]
    limits: dict[str, int | float]


class FieldError(BaseModel):
    """What is wrong with which field."""

    field: str
    message: str


class Errors(BaseModel):
    """Why a request was refused."""

    errors: list[FieldError]


class Health(BaseModel):
    """That the service answers."""

    status: Literal["ok"] = "ok"
    waiting: Annotated[int, Field(description="Questions that wait.")]


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Errors, "description": "The body is not JSON."},
    401: {"model": Errors, "description": "The token is missing or wrong."},
    408: {"model": Errors, "description": "The body was sent too slowly."},
    413: {"model": Errors, "description": "The body is too large."},
    421: {"model": Errors, "description": "The host is not a name of this machine."},
    422: {"model": Errors, "description": "A field is missing or wrong, or a text is too long; the errors name it."},
    429: {
        "model": Errors,
        "description": "Too many questions wait; try again after the seconds in Retry-After.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
}
GUARDED: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 408, 413, 421)}

LOCAL: dict[int | str, dict[str, Any]] = {421: REFUSALS[421]}


class Service:
    """Judges behind the interface; `app` is an ASGI application.

    Args:
        served: the judges, on one language model.
        options: limits and batching.
        token: the bearer token that requests need; None for none.
        local: whether only requests to loopback names are answered, if there is no token.

    Raises:
        ValueError: if a request of the largest size would not fit into the queue.
    """

    def __init__(
        self,
        served: Sequence[Served],
        options: ServiceOptions | None = None,
        *,
        token: str | None = None,
        local: bool = True,
    ) -> None:
        self.options = options or ServiceOptions()
        self.served = {one.name: one for one in served}
        largest = max(self.options.max_items, 2) * len(self.served)
        if self.options.queue < largest:
            raise ValueError(
                f"a request of {self.options.max_items} items has up to {largest} questions to {len(self.served)} reward "
                f"models, and the queue has room for {self.options.queue}; pass queue={largest} or more, or fewer max_items"
            )
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher: Batcher[scoring.Unit, scoring.Scores] = Batcher(
            scoring.scored,
            max_batch=self.options.max_batch,
            max_wait=self.options.max_wait_ms / 1000,
            capacity=self.options.queue,
            observe=self.metrics.batch.observe,
        )
        reader = next((one.reader for one in self.served.values()), None)
        self.reads_images = reader is not None
        self._images = RequestImages(reader, self.options.max_images)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self.interface = self._interface()
        paths = [getattr(route, "path", "") for route in self.interface.routes]
        self.app = Guard(
            self.interface,
            token=token,
            local=local and token is None,
            max_body=self.options.max_body,
            body_seconds=self.options.body_seconds,
            observe=lambda path, status, seconds: self._count(path if path in paths else "other", status, seconds),
        )

    def close(self) -> None:
        """Answer what was accepted, and end the threads."""
        self.batcher.close()
        self._encoder.shutdown()

    def _count(self, path: str, status: int, seconds: float) -> None:
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)

    # ------------------------------------------------------------------------------------------ the answers

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """Score responses by every criterion that is named, or by all."""
        if len(request.items) > self.options.max_items:
            raise RefusedError(422, [("items", f"are {len(request.items)}; send at most {self.options.max_items}")])
        chosen = self._chosen(request.criteria, pairs=False)

        def units(images: ReadsImages) -> list[scoring.Unit]:
            found, errors = [], []
            for number, item in enumerate(request.items):
                name = f"items.{number}"
                try:
                    prompt, response = (
                        self._text(item.prompt, f"{name}.prompt", images),
                        self._text(item.response, f"{name}.response", images),
                    )
                    for one in chosen:
                        with _naming(name):
                            found += scoring.units_of_response(one, prompt, response, name)
                except RefusedError as error:
                    errors += error.errors
            if errors:
                raise RefusedError(422, errors)
            return found

        scores = await self._answers(units, len(request.items) * len(chosen))
        rows = [scores[start : start + len(chosen)] for start in range(0, len(scores), len(chosen))]
        names = [f"items.{number}" for number in range(len(rows))]
        _check(dict(zip(names, rows, strict=True)))
        return ScoreResponse(
            results=[{one.name: _shown(its) for one, its in zip(chosen, row, strict=True)} for row in rows]
        )

    async def compare(self, request: CompareRequest) -> CompareResponse:
        """Compare two responses by every criterion that is named, or by all."""
        chosen = self._chosen(request.criteria, pairs=True)

        def units(images: ReadsImages) -> list[scoring.Unit]:
            texts = [self._text(getattr(request, field), field, images) for field in ("prompt", "a", "b")]
            found = []
            for one in chosen:
                with _naming("a, b"):
                    found += scoring.units_of_pair(one, *texts)
            return found

        scores = await self._answers(units, 2 * len(chosen))
        pairs = {one.name: scores[2 * number : 2 * number + 2] for number, one in enumerate(chosen)}
        _check({"a": [pair[0] for pair in pairs.values()], "b": [pair[1] for pair in pairs.values()]})
        return CompareResponse(
            results={name: _preferred(self.served[name], *map(_sure, pair)) for name, pair in pairs.items()}
        )

    def _chosen(self, criteria: Sequence[str] | None, *, pairs: bool) -> list[Served]:
        if criteria is None:
            found = [one for one in self.served.values() if pairs or not one.judge.compares_only]
            if not found:
                raise RefusedError(
                    422, [("criteria", "every reward model that is served only compares; use /v1/compare")]
                )
            return found
        errors, chosen = [], {}
        for number, name in enumerate(criteria):
            if name not in self.served:
                known = ", ".join(map(repr, self.served))
                errors.append((f"criteria.{number}", f"{name[:80]!r} is not served; there are {known}"))
            elif name in chosen:
                errors.append((f"criteria.{number}", f"{name!r} is named twice"))
            elif self.served[name].judge.compares_only and not pairs:
                errors.append((f"criteria.{number}", f"{name!r} only compares two responses; use /v1/compare"))
            else:
                chosen[name] = self.served[name]
        if errors:
            raise RefusedError(422, errors)
        return list(chosen.values())

    def _text(self, value: object, field: str, images: ReadsImages) -> Prompt:
        """A text that may be judged."""
        try:
            text = checked_text(value, "it", images)
            count = len(text_of(text))
        except PreferenceFieldError as error:
            raise RefusedError(422, [(field, error.reason)]) from error
        if count > self.options.max_chars:
            raise RefusedError(422, [(field, f"has {count} characters; send at most {self.options.max_chars}")])
        return text

    async def _answers(
        self, units: Callable[[ReadsImages], list[scoring.Unit]], count: int
    ) -> list[scoring.Scores | Exception]:
        """The scores of so many questions, which are made in the encoder's thread once there is room for them."""
        try:
            self.batcher.reserve(count)
        except QueueFullError as error:
            raise RefusedError(429, [("items", str(error))], {"retry-after": str(error.seconds)}) from error
        return await asyncio.shield(self._answered(units, count))

    async def _answered(
        self, units: Callable[[ReadsImages], list[scoring.Unit]], count: int
    ) -> list[scoring.Scores | Exception]:
        """The same for questions that there is room for; goes on to its end if nobody waits for it any more."""
        with self._images.of_request() as images:
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._encoder, units, images)
            except BaseException:
                self.batcher.release(count)
                raise
            return await asyncio.wrap_future(self.batcher.submit(found))

    # ------------------------------------------------------------------------------------------ the interface

    def _interface(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        app = FastAPI(
            title="arm_lens",
            summary="Rewards by Activation Reward Models",
            version=version("arm-lens"),
            docs_url=None,
            redoc_url=None,
            lifespan=lifespan,
            default_response_class=StrictJSONResponse,
        )

        @app.exception_handler(RefusedError)
        async def refuse(_: Request, error: RefusedError) -> Response:
            return error.response()

        @app.exception_handler(RequestValidationError)
        async def explain(_: Request, error: RequestValidationError) -> Response:
            return RefusedError(422, _fields(error)).response()

        @app.exception_handler(HTTPException)
        async def refuse_http(_: Request, error: HTTPException) -> Response:
            field = {404: "path", 405: "method"}.get(error.status_code, "body")
            return RefusedError(error.status_code, [(field, str(error.detail))], dict(error.headers or {})).response()

        app.post("/v1/score", responses=REFUSALS, tags=["rewards"], response_model=ScoreResponse)(self.score)
        app.post("/v1/compare", responses=REFUSALS, tags=["rewards"], response_model=CompareResponse)(self.compare)

        @app.get("/v1/reward-models", responses=GUARDED, tags=["rewards"])
        async def reward_models() -> RewardModels:
            """What is served."""
            found = [RewardModelInfo(**one.facts()) for one in self.served.values()]
            limits = self.options.model_dump()
            return RewardModels(reward_models=found, reads_images=self.reads_images, limits=limits)

        @app.get("/health", responses=LOCAL, tags=["service"])
        async def health() -> Health:
            """Whether the service answers."""
            return Health(waiting=self.batcher.waiting)

        @app.get("/metrics", responses=GUARDED, tags=["service"], response_class=Response)
        async def metrics() -> Response:
            """Requests, latency, batches and queue, for Prometheus."""
            return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        @app.get("/", include_in_schema=False)
        async def index() -> HTMLResponse:
            return page()

        @app.get("/docs", include_in_schema=False)
        async def docs() -> HTMLResponse:
            return page_of_interface(app.openapi())

        return app


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Within, a text that cannot be judged is a refusal that names the field."""
    try:
        yield
    except (PromptError, ValueError) as error:
        reason = str(error).removeprefix(f"{field}: ")
        if isinstance(error, PromptTooLongError):  # its remedies are the server's
            reason = f"{reason.partition(';')[0]}; send shorter texts"
        raise RefusedError(422, [(field, reason)]) from error


def _check(answers: Mapping[str, Sequence[scoring.Scores | Exception]]) -> None:
    """Refuse a request if the model computes no number for one of its fields; any other error is a defect, and is raised."""
    errors = []
    for field, found in answers.items():
        for answer in found:
            if isinstance(answer, NotFiniteError):
                errors.append((field, str(answer)))
            elif isinstance(answer, Exception):
                raise answer
    if errors:
        raise RefusedError(422, errors)


def _sure(answer: scoring.Scores | Exception) -> scoring.Scores:
    assert isinstance(answer, scoring.Scores), answer  # `_check` has raised all others
    return answer


def _shown(answer: scoring.Scores | Exception) -> Scores:
    found = _sure(answer)
    return Scores(reward=found.reward, two_way=found.two_way, gap=found.gap)


def _preferred(served: Served, a: scoring.Scores, b: scoring.Scores) -> Preferred:
    """The comparison of the answers to a judge's two questions about a pair."""
    ranked = served.judge.compares_only
    margin = (a.gap - b.gap) / (2 if ranked else 1)  # a ranked judge's two questions are the two orders
    preferred = Comparison.of(margin).preferred
    assert preferred is not None  # every gap is finite
    return Preferred(
        preferred=preferred, margin=margin, a=None if ranked else _shown(a), b=None if ranked else _shown(b)
    )


FIELDS = {*ScoreRequest.model_fields, *CompareRequest.model_fields, *Item.model_fields}


def _fields(error: RequestValidationError) -> list[tuple[str, str]]:
    """The fields that are wrong, each with the reasons; what was sent is not repeated."""
    found: dict[str, list[str]] = {}
    for one in error.errors():
        path = [str(part) for part in one["loc"][1:] if isinstance(part, int) or part in FIELDS]
        reason = one["msg"]
        if one["type"] == "json_invalid":
            path, reason = [], f"is not JSON: {one['ctx']['error']} at character {one['loc'][-1]}"
        elif one["type"] == "extra_forbidden":
            path, reason = [*path, str(one["loc"][-1])[:80]], "is not a known field"
        found.setdefault(".".join(path) or "body", []).append(reason)
    return [(field, "; or ".join(dict.fromkeys(reasons))) for field, reasons in found.items()]
