"""Errors of an endpoint, in the words of a user who asked for a verdict."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit, urlunsplit

from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges.endpoint.options import EndpointOptions

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|(prompt|input|request|message)s? (is |are )?too (long|large)|maximum.{0,20}tokens",
    re.IGNORECASE,
)


class EndpointError(RuntimeError):
    """An endpoint gave no usable answer."""


class BudgetReachedError(EndpointError):
    """The next request might cost more than is left of the budget; it was not sent."""


def public_address(url: str) -> str:
    """A URL without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def is_too_long(error: Exception) -> bool:
    """Whether an endpoint refused a request because its prompt does not fit into the model's context."""
    if getattr(error, "code", None) == "context_length_exceeded":
        return True
    status = getattr(error, "status_code", None)
    return status == 413 or (status in (400, 422) and _TOO_LONG.search(message_of(error)) is not None)


def explained(error: Exception, where: str, options: EndpointOptions, model: str, name: str) -> Exception:
    """The error to raise in place of one of the client's, or of a ValueError from writing a request or reading an answer.

    ``where`` is the endpoint's address, ``model`` the model's name there, and ``name`` that of the question: ``example 3``.
    """
    import openai

    times = f"{options.max_retries + 1} times" if options.max_retries else "once"
    if is_too_long(error):
        return PromptTooLongError(f"{name} does not fit into the context of {model!r} at {where}: {message_of(error)}")
    if isinstance(error, UnicodeEncodeError):
        return EndpointError(f"{name} holds a character that cannot be sent to an endpoint: {error}")
    if isinstance(error, openai.APITimeoutError):
        return EndpointError(f"{where} did not answer {name} within {options.timeout:g} seconds, asked {times}")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return EndpointError(f"cannot reach {where} (asked {times} for {name}): {cause}; is base_url right?")
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        key = f"the key in {options.api_key_env}" if options.api_key_env else "a request without a key"
        return EndpointError(f"{where} refused {key} ({error.status_code}): {message_of(error)}")
    if isinstance(error, openai.NotFoundError):
        return EndpointError(
            f"{where} has no model {model!r}, or takes no chat completions there (404): {message_of(error)}"
        )
    if isinstance(error, openai.RateLimitError):
        wait = error.response.headers.get("retry-after")
        hint = f"it asks to wait {wait} seconds" if wait else "ask for fewer requests_per_minute"
        return EndpointError(f"{where} still turned {name} away (429), asked {times}: {message_of(error)}; {hint}")
    if isinstance(error, openai.APIStatusError):
        return EndpointError(f"{where} failed on {name} ({error.status_code}): {message_of(error)}")
    return EndpointError(f"{where} answered {name} with something other than a chat completion: {message_of(error)}")


def message_of(error: Exception) -> str:
    """The endpoint's message, cut to 300 characters."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    if not message:
        message = json.dumps(body) if body else str(error)
    text = " ".join(str(message).split())
    return text if len(text) <= 300 else text[:297] + "..."
