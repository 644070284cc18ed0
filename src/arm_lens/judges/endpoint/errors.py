"""What went wrong with an endpoint, in the words of somebody who only wanted a verdict."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from arm_lens.engine.tokens import PromptTooLongError

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|(prompt|input|request|message)s? (is |are )?too (long|large)|maximum.{0,20}tokens",
    re.IGNORECASE,
)


class EndpointError(RuntimeError):
    """An endpoint gave no usable answer."""


class BudgetReachedError(EndpointError):
    """The next request might cost more than is left of the budget; it was not sent."""


@dataclass(frozen=True)
class Address:
    """Where requests go and on what terms; what an error has to name."""

    url: str
    key_name: str | None
    """The environment variable that the key came from."""
    timeout: float
    """Seconds."""
    max_retries: int

    @property
    def name(self) -> str:
        """The address without user name and password, should it hold any."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def is_too_long(error: Exception) -> bool:
    """Whether an endpoint refused a request because its prompt does not fit into the model's context."""
    if getattr(error, "code", None) == "context_length_exceeded":
        return True
    status = getattr(error, "status_code", None)
    return status == 413 or (status in (400, 422) and _TOO_LONG.search(said(error)) is not None)


def explained(error: Exception, address: Address, model: str, name: str) -> Exception:
    """The error to raise in place of one of the client's.

    Args:
        error: the client's, or a ValueError from writing a request or reading an answer.
        address: of the endpoint.
        model: the model that was asked.
        name: what to call the question, such as ``example 3``.
    """
    import openai

    where, times = address.name, "once" if not address.max_retries else f"{address.max_retries + 1} times"
    if is_too_long(error):
        return PromptTooLongError(f"{name} does not fit into the context of {model!r} at {where}: {said(error)}")
    if isinstance(error, UnicodeEncodeError):
        return EndpointError(f"{name} holds a character that no endpoint can be sent: {error}")
    if isinstance(error, openai.APITimeoutError):
        return EndpointError(f"{where} did not answer {name} within {address.timeout:g} seconds, asked {times}")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return EndpointError(f"cannot reach {where} (asked {times} for {name}): {cause}; is base_url right?")
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        key = f"the key in {address.key_name}" if address.key_name else "a request without a key"
        return EndpointError(f"{where} refused {key} ({error.status_code}): {said(error)}")
    if isinstance(error, openai.NotFoundError):
        return EndpointError(f"{where} has no model {model!r}, or takes no chat completions there (404): {said(error)}")
    if isinstance(error, openai.RateLimitError):
        wait = error.response.headers.get("retry-after")
        hint = f"it asks to wait {wait} seconds" if wait else "ask for fewer requests_per_minute"
        return EndpointError(f"{where} still turned {name} away (429), asked {times}: {said(error)}; {hint}")
    if isinstance(error, openai.APIStatusError):
        return EndpointError(f"{where} failed on {name} ({error.status_code}): {said(error)}")
    return EndpointError(f"{where} answered {name} with something other than a chat completion: {said(error)}")


def said(error: Exception) -> str:
    """What the endpoint said, and not at length."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    if not message:
        message = json.dumps(body) if body else str(error)
    text = " ".join(str(message).split())
    return text if len(text) <= 300 else text[:297] + "..."
