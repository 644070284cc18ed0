"""What leaves for an endpoint, and what comes back: no header of somebody else's, and a bounded time and size.

The client adds headers from the environment: ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``, ``OPENAI_CUSTOM_HEADERS``. They are
meant for OpenAI and for the user's own ``OPENAI_BASE_URL``, and go to no other address.

An HTTP library has a timeout for each read from a socket, so a server that sends a byte now and then (of headers, of the
length of a chunk, or one "100 Continue" after the other) is never given up on. Here each read ends at the request's deadline.
A response has at most `MOST_BYTES`, and is not compressed, since a few kilobytes may expand to gigabytes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from arm_lens.judges.endpoint.errors import UnusableResponse

MOST_BYTES = 2**25
"""The largest response that is read."""
PIECE = 2**16
"""Bytes that are written at a time."""
HEADERS = frozenset(
    "host accept accept-encoding authorization connection content-length content-type user-agent".split()
)
"""The headers that any endpoint gets, in addition to the client's ``x-stainless-``, which describe the client."""


class Deadline(threading.local):
    """When the request that this thread waits for must be answered."""

    end = math.inf

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def start(self, request: Any) -> None:
        """A hook of the HTTP client: the request leaves now."""
        self.end = time.monotonic() + self.seconds


def http_client(deadline: Deadline, leave: Callable[[Any], None], *, authorization: str | None, foreign: bool) -> Any:
    """An HTTP client for the ``openai`` client.

    Args:
        deadline: of each request.
        leave: called with each request before it leaves.
        authorization: the header, if it is not the client's own.
        foreign: whether the endpoint is neither OpenAI nor the user's own.
    """
    import openai

    def own_headers(request: Any) -> None:
        for name in [one for one in request.headers if foreign and one.lower() not in HEADERS]:
            if not name.lower().startswith("x-stainless-"):
                del request.headers[name]
        if authorization is not None:
            request.headers["Authorization"] = authorization

    client: Any = openai.DefaultHttpxClient(
        event_hooks={"request": [leave, deadline.start, own_headers], "response": [_bounded]},
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
    )
    for transport in (client._transport, *client._mounts.values()):  # those of proxies
        if transport is not None:
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend, deadline)
    return client


@dataclass
class _Timed:
    """A part of the HTTP library's network, whose operations end at the deadline."""

    inner: Any
    deadline: Deadline

    def left(self, timeout: float | None) -> float:
        """The seconds that an operation may take."""
        left = self.deadline.end - time.monotonic()
        if left <= 0:
            library: Any = import_module(type(self.inner).__module__.partition(".")[0])
            raise library.ReadTimeout("the response took too long")
        return left if timeout is None else min(left, timeout)


class _Backend(_Timed):
    def connect_tcp(self, *place: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.connect_tcp(*place, timeout=self.left(timeout), **options), self.deadline)

    def connect_unix_socket(self, *place: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.connect_unix_socket(*place, timeout=self.left(timeout), **options), self.deadline)

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)


class _Stream(_Timed):
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content: bytes = self.inner.read(max_bytes, timeout=self.left(timeout))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE):
            self.inner.write(buffer[start : start + PIECE], timeout=self.left(timeout))

    def start_tls(self, *context: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.start_tls(*context, timeout=self.left(timeout), **options), self.deadline)

    def close(self) -> None:
        self.inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


def _bounded(response: Any) -> None:
    """A hook of the HTTP client that lets a response have a certain size."""
    if (coding := response.headers.get("content-encoding", "identity")) != "identity":
        response.close()
        raise UnusableResponse(f"a response in {coding[:20]!r}, though an uncompressed one was requested")
    response.stream = _stream_class(type(response).__module__.partition(".")[0])(response.stream)


@cache
def _stream_class(library_name: str) -> Callable[[Any], Any]:
    """A stream for the responses of an HTTP library: httpx, or the package that succeeded it in newer clients."""
    library: Any = import_module(library_name)

    class Bounded(library.SyncByteStream):  # type: ignore[misc]  # known at run time only
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self._stream:
                size += len(part)
                if size > MOST_BYTES:
                    raise UnusableResponse(f"more than {MOST_BYTES:,} bytes")
                yield part

        def close(self) -> None:
            self._stream.close()

    return Bounded
