"""A small server that speaks the chat-completions protocol on the local machine, and misbehaves on demand.

It stands in for an endpoint in tests: real sockets, real HTTP. What it answers is decided by a function of the request;
what goes wrong is decided by faults, each of which one request uses up, and by switches that hold until changed.
"""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS_PER_MESSAGE = 3
PROMPT_TOKENS_PER_IMAGE = 50


@dataclass(frozen=True)
class Reply:
    """What the model behind the endpoint says."""

    text: str
    tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None
    """Each token of the text with the probabilities of the likeliest tokens in its place."""
    finish: str = "stop"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent as JSON in place of a completion."""
    hang: float = 0.0
    """Seconds before the answer."""
    drip: float = 0.0
    """Seconds between the bytes of the answer."""
    drop: bool = False
    """Close the connection without an answer."""
    raw: bytes | None = None
    """Sent in place of headers and body; then `again` is sent every `drip` seconds."""
    again: bytes = b""


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    time: float
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def question(self) -> str:
        return text_in(self.body["messages"][-1])

    @property
    def parts(self) -> list[tuple[str, Any]]:
        """Roles and what they said, in order: texts, and images as (media type, bytes, detail, picture)."""
        return [
            (message["role"], received(part) if part["type"] == "image_url" else part["text"])
            for message in self.body["messages"]
            for part in parts_in(message)
        ]


def parts_in(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message; those of a plain text are one."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_in(message: Mapping[str, Any]) -> str:
    """The texts of a message, without images."""
    return "".join(part["text"] for part in parts_in(message) if part["type"] == "text")


def received(part: Mapping[str, Any]) -> tuple[str, bytes, str | None, Any]:
    """An image as it arrived, decoded as an endpoint does."""
    from PIL import Image

    head, _, content = part["image_url"]["url"].partition(";base64,")
    raw = base64.b64decode(content, validate=True)
    return head.removeprefix("data:"), raw, part["image_url"].get("detail"), Image.open(io.BytesIO(raw)).convert("RGB")


class ChatServer:
    """``with ChatServer(answer) as server``: serves on ``server.url`` until the end of the block."""

    def __init__(
        self,
        answer: Callable[[Mapping[str, Any]], Reply],
        *,
        port: int = 0,
        key: str | None = None,
        models: Sequence[str] = ("judge",),
        refuse: Sequence[str] = (),
        context: int | None = None,
        counts_tokens: bool = True,
        delay: float = 0.0,
        dies_after: int | None = None,
        refuse_images: bool = False,
    ) -> None:
        self.answer, self.key, self.models = answer, key, set(models)
        self.refuse, self.context, self.counts_tokens = list(refuse), context, counts_tokens
        self.delay, self.dies_after, self.refuse_images = delay, dies_after, refuse_images
        self.faults: deque[Fault] = deque()
        self.received: list[Received] = []
        self.billed = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                chat.handle(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *arguments: None  # clients that hang up are part of the tests
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> ChatServer:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def dead(self) -> bool:
        return self.dies_after is not None and self.billed["requests"] >= self.dies_after

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            if self.dead:
                handler.close_connection = True
                return
            headers = {name.lower(): value for name, value in handler.headers.items()}
            self.received.append(Received(time.monotonic(), body, headers))
            fault = self.faults.popleft() if self.faults else Fault()
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            time.sleep(fault.hang + self.delay)
            if fault.drop:
                handler.close_connection = True
                return
            status, content = self.reply(handler, body, fault)
        finally:
            with self.lock:
                self.at_once -= 1
        if fault.raw is not None:
            handler.close_connection = True
            handler.wfile.write(fault.raw)
            while fault.again:
                handler.wfile.write(fault.again)
                time.sleep(fault.drip)
            return
        handler.send_response(status)
        for name, value in fault.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for part in [content[place : place + 1] for place in range(len(content))] if fault.drip else [content]:
            handler.wfile.write(part)
            time.sleep(fault.drip)

    def reply(self, handler: BaseHTTPRequestHandler, body: Mapping[str, Any], fault: Fault) -> tuple[int, bytes]:
        if fault.body is not None:
            return fault.status, fault.body
        words = sum(len(text_in(message).split()) for message in body["messages"])
        images = sum(part["type"] == "image_url" for message in body["messages"] for part in parts_in(message))
        refused = [name for name in self.refuse if name in body]
        if fault.status != 200:
            return fault.status, error(f"fault {fault.status}")
        if self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return 401, error("Incorrect API key provided", "invalid_api_key")
        if not handler.path.endswith("/v1/chat/completions") or body["model"] not in self.models:
            return 404, error(f"The model {body['model']!r} does not exist", "model_not_found")
        if refused:
            hint = " Use 'max_completion_tokens' instead." if refused[0] == "max_tokens" else ""
            return 400, error(f"Unsupported parameter: {refused[0]!r} is not supported with this model.{hint}")
        if self.context is not None and words > self.context:
            message = f"This model's maximum context length is {self.context} tokens; you sent {words}."
            return 400, error(message, "context_length_exceeded")
        if images and self.refuse_images:
            return 400, error("This model does not support images.")
        reply = self.answer(body)
        used = {
            "prompt_tokens": words
            + PROMPT_TOKENS_PER_MESSAGE * len(body["messages"])
            + PROMPT_TOKENS_PER_IMAGE * images,
            "completion_tokens": len(reply.tokens or reply.text.split()) or 1,
        }
        with self.lock:
            self.billed["requests"] += 1
            for name, count in used.items():
                self.billed[name] += count
        return 200, json.dumps(completion(body, reply, used if self.counts_tokens else None)).encode()


def error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}}).encode()


def completion(body: Mapping[str, Any], reply: Reply, usage: Mapping[str, int] | None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": reply.finish,
        "logprobs": None,
    }
    if body.get("logprobs") and reply.tokens is not None:
        choice["logprobs"] = {
            "content": [
                entry(token, likely[token]) | {"top_logprobs": top(likely, body["top_logprobs"])}
                for token, likely in reply.tokens
            ]
        }
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
    return whole if usage is None else whole | {"usage": {**usage, "total_tokens": sum(usage.values())}}


def entry(token: str, probability: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(probability), "bytes": list(token.encode())}


def top(likely: Mapping[str, float], count: int) -> list[dict[str, Any]]:
    first = sorted(likely, key=lambda token: -likely[token])[:count]
    return [entry(token, likely[token]) for token in first]
