"""Errors of an endpoint, in the words of a user who asked for a verdict."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges.endpoint.options import EndpointOptions, public_address

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|(prompt|input|request|message)s? (is |are )?too (long|large)|maximum.{0,20}tokens",
    re.IGNORECASE,
)


class EndpointError(RuntimeError):
    """An endpoint gave no usable answer."""


class BudgetReachedError(EndpointError):
    """The next request might cost more than is left of the budget; it was not sent."""


class UnusableResponse(BaseException):
    """Ends a request whose response must not be read further; not an Exception, after which the client would try again."""


class Secrets:
    """Keys and passwords, which no message and no stored answer may contain, also if an endpoint sends them back."""

    def __init__(self, *secrets: str) -> None:
        forms = {
            form
            for one in secrets
            for form in (one, quote(one, safe=""), json.dumps(one)[1:-1], repr(one)[1:-1])
            if form
        }
        self._forms = sorted(forms, key=len, reverse=True)

    def hidden(self, text: str, *, least: int = 1) -> str:
        """The text with ``[hidden]`` in place of each secret of at least so many characters."""
        for form in self._forms:
            if len(form) >= least:
                text = text.replace(form, "[hidden]")
        return text


def is_too_long(error: BaseException, secrets: Secrets) -> bool:
    """Whether an endpoint refused a request because its prompt does not fit into the model's context."""
    if getattr(error, "code", None) == "context_length_exceeded":
        return True
    status = getattr(error, "status_code", None)
    return status == 413 or (status in (400, 422) and _TOO_LONG.search(message_of(error, secrets)) is not None)


def explained(
    error: BaseException, where: str, options: EndpointOptions, model: str, name: str, secrets: Secrets
) -> Exception:
    """The error to raise in place of one of the client's, or of a ValueError from writing a request or reading an answer.

    ``where`` is the endpoint's address, ``model`` the model's name there, and ``name`` that of the question: ``example 3``.
    The message contains none of the ``secrets``.
    """
    found = _explained(error, where, options, model, name, secrets)
    return type(found)(secrets.hidden(str(found)))


def _explained(
    error: BaseException, where: str, options: EndpointOptions, model: str, name: str, secrets: Secrets
) -> Exception:
    import openai

    said = message_of(error, secrets)
    times = f"{options.max_retries + 1} times" if options.max_retries else "once"
    if isinstance(error, UnusableResponse):
        return EndpointError(f"{where} answered {name} with {error}")
    if is_too_long(error, secrets):
        return PromptTooLongError(f"{name} does not fit into the context of {model!r} at {where}: {said}")
    if isinstance(error, UnicodeEncodeError):
        return EndpointError(f"{name} holds a character that cannot be sent to an endpoint: {error}")
    if isinstance(error, openai.APITimeoutError):
        return EndpointError(f"{where} did not answer {name} within {options.timeout:g} seconds, asked {times}")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return EndpointError(f"cannot reach {where} (asked {times} for {name}): {cause}; is base_url right?")
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        key = f"the key in {options.api_key_env}" if options.api_key_env else "a request without a key"
        return EndpointError(f"{where} refused {key} ({error.status_code}): {said}")
    if isinstance(error, openai.NotFoundError):
        return EndpointError(f"{where} has no model {model!r}, or takes no chat completions there (404): {said}")
    if isinstance(error, openai.RateLimitError):
        wait = error.response.headers.get("retry-after")
        hint = f"it asks to wait {wait} seconds" if wait else "ask for fewer requests_per_minute"
        return EndpointError(f"{where} still turned {name} away (429), asked {times}: {said}; {hint}")
    if isinstance(error, openai.APIStatusError) and 300 <= error.status_code < 400:
        target = public_address(error.response.headers.get("location", "another address"))
        return EndpointError(
            f"{where} redirects {name} to {target} ({error.status_code}); redirects are not followed, since question and key "
            "would go there: if you trust that address, set base_url to it"
        )
    if isinstance(error, openai.APIStatusError):
        return EndpointError(f"{where} failed on {name} ({error.status_code}): {said}")
    return EndpointError(f"{where} answered {name} with something other than a chat completion: {said}")


def message_of(error: BaseException, secrets: Secrets) -> str:
    """The endpoint's message without the secrets, cut to 300 characters."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    if not message:
        message = json.dumps(body) if body else str(error)
    known = secrets.hidden(str(message))[:10_000]  # hidden before anything is cut, which leaves parts
    text = " ".join("".join(one if one.isprintable() else " " for one in known).split())
    return text if len(text) <= 300 else text[:297] + "..."
