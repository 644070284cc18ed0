"""What every request passes before the interface sees it: host, token, size and time of its body.

A body is read as a whole here, up to a size and within a time, so that neither a large nor a slow client occupies anything
else, and so that the service can always stop. The page at ``/``, the description of the interface and ``/health`` need no
token. Without a token only requests to loopback names are answered, unless the service is open to other machines: a web page
that resolves its own name to this machine must not reach the service through a browser.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arm_lens.service.options import is_loopback

OPEN = ("/", "/docs", "/openapi.json", "/health")
"""What needs no token."""
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}


class RefusedError(Exception):
    """A request that is not answered: its status, and what is wrong with which field."""

    def __init__(self, status: int, errors: Iterable[tuple[str, str]], headers: dict[str, str] | None = None) -> None:
        self.status, self.errors, self.headers = status, list(errors), headers or {}
        super().__init__(str(self.errors))

    def response(self) -> Response:
        """The answer: ``{"errors": [{"field": ..., "message": ...}]}``."""
        errors = [{"field": field, "message": message} for field, message in self.errors]
        return StrictJSONResponse({"errors": errors}, self.status, self.headers)


class StrictJSONResponse(JSONResponse):
    """JSON of ASCII characters without NaN or infinity: half of a character in what was sent cannot break the answer."""

    def render(self, content: Any) -> bytes:
        """The content as JSON."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


class Guard:
    """The ASGI application around the interface; see the module.

    Args:
        app: the interface.
        token: the bearer token, if requests need one.
        local: whether only requests to loopback names are answered.
        max_body: bytes of a body, at most.
        body_seconds: time for sending a body.
        observe: called with the path, the status and the seconds of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        local: bool,
        max_body: int,
        body_seconds: float,
        observe: Callable[[str, int, float], None],
    ) -> None:
        self.app, self._local, self._max_body, self._body_seconds = app, local, max_body, body_seconds
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._answered(scope, receive, sending)
        finally:
            self._observe(scope["path"], status, time.perf_counter() - start)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_headers(scope)
            body = await asyncio.wait_for(self._body(receive), self._body_seconds)
        except TimeoutError:
            refused = RefusedError(
                408, [("body", f"did not arrive within {self._body_seconds:g} s")], {"connection": "close"}
            )
            return await refused.response()(scope, receive, send)
        except RefusedError as error:
            return await error.response()(scope, receive, send)
        if body is None:  # the client is gone
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    def _check_headers(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").rpartition(":")[0] if ":" in headers.get("host", "") else headers.get("host", "")
        if self._local and not is_loopback(headers.get("host", "")) and not is_loopback(host):
            raise RefusedError(421, [("Host", "is not a name of this machine; use localhost or 127.0.0.1, or a token")])
        if self._expected is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._expected):
                said = "is missing" if not given else "is not the service's token"
                raise RefusedError(
                    401, [("Authorization", f"{said}; send 'Bearer TOKEN'")], {"www-authenticate": "Bearer"}
                )
        length = headers.get("content-length", "")
        if (
            length.isdecimal() and int(length) > self._max_body and "expect" in headers
        ):  # the client waits before it sends
            raise self._too_large()

    async def _body(self, receive: Receive) -> bytes | None:
        body, size = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message.get("body", b""))
            if size <= self._max_body:
                body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if size > self._max_body:  # read to its end, without which the client would not see the answer
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RefusedError:
        message = f"is larger than {self._max_body} bytes; send fewer items, or shorter texts"
        return RefusedError(413, [("body", message)], {"connection": "close"})
