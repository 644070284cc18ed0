"""How an endpoint is called: where it is, how often it is asked, and what that may cost."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_serializer,
    field_validator,
    model_validator,
)

from arm_lens.registry import OptionsModel

ADDRESS = "an address such as https://api.example.org/v1, without ? and #"
USUAL_KEY, OPENAI = "OPENAI_API_KEY", "https://api.openai.com/v1"


def public_address(url: str) -> str:
    """A URL without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


class EndpointOptions(OptionsModel):
    """How an OpenAI-compatible endpoint is called.

    A user name and password in ``base_url`` are used, and never written anywhere: as JSON and on the screen, the options
    have the address alone.
    """

    model_config = ConfigDict(hide_input_in_errors=True)
    base_url: str | None = None
    """Such as ``http://localhost:8000/v1``; by default ``OPENAI_BASE_URL`` or OpenAI itself."""
    api_key_env: str | None = USUAL_KEY
    """The environment variable with the key, which is never stored; None for an endpoint without keys."""
    max_retries: NonNegativeInt = 5
    """How often a request is repeated after a lost connection, a timeout, or the status 429 or 5xx."""
    timeout: PositiveFloat = 60.0
    """Seconds that the endpoint may take for a whole response; after them a request counts as lost."""
    requests_per_minute: PositiveFloat | None = None
    """At most, evenly spaced, repeated requests included."""
    concurrency: PositiveInt = 4
    """Requests at the same time."""
    prices: tuple[float, float] | None = None
    """The price of a million prompt tokens, and of a million completion tokens."""
    budget: PositiveFloat | None = None
    """The most that a judge may spend, in the unit of the prices; until its cost is known, each request counts as a token
    per byte of text, ``image_tokens`` per image, and the longest answer."""
    images: bool = True
    """Whether the model reads images; if not, a question with an image is refused before anything is sent."""
    image_detail: Literal["auto", "low", "high"] | None = None
    """What OpenAI's models are told about how closely to look at images; None tells them nothing."""
    image_tokens: PositiveInt | None = None
    """The most prompt tokens that the endpoint counts for an image, which differs from model to model; a budget needs it if
    there are images."""
    max_image_bytes: PositiveInt = 20_000_000
    """The most bytes of an image as it is sent; a larger one is refused before anything is sent."""
    cache: Path | None = None
    """A folder for the answers, so that no request is paid for twice and a run that was stopped goes on where it was. By
    default the judge remembers them in memory."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not _is_complete(url):
            raise ValueError(f"expected {ADDRESS}")
        return url

    @field_serializer("base_url", when_used="json")
    def _public(self, url: str | None) -> str | None:
        return url and public_address(url)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, public_address(value) if name == "base_url" and value else value

    @field_validator("prices", mode="before")
    @classmethod
    def _are_prices(cls, prices: Any) -> Any:
        if prices is None:
            return None
        numbers = list(prices) if isinstance(prices, (list, tuple)) else []
        if len(numbers) != 2 or not all(_is_price(one) for one in numbers):
            raise ValueError(
                "expected two prices, of a million prompt tokens and of a million completion tokens, such as [0.15, 0.6]; "
                f"not {prices!r}"
            )
        return prices

    @model_validator(mode="after")
    def _priced(self) -> EndpointOptions:
        if self.budget is not None and self.prices is None:
            raise ValueError("a budget needs prices: (per million prompt tokens, per million completion tokens)")
        return self

    def keys(self) -> dict[str, str]:
        """The environment variable that is sent, with the host that gets it, unless the user's own environment says so.

        ``OPENAI_API_KEY`` is meant for OpenAI, and for the host that ``OPENAI_BASE_URL`` names.
        """
        if self.api_key_env is None:
            return {}
        if self.api_key_env == USUAL_KEY and not self.is_foreign:
            return {}
        return {self.api_key_env: _origin(self.base_url or own_address())[1]}

    @property
    def is_foreign(self) -> bool:
        """Whether the endpoint is neither OpenAI nor the one that ``OPENAI_BASE_URL`` names, by protocol, host and port."""
        return _origin(self.base_url or own_address()) not in {_origin(own_address()), _origin(OPENAI)}

    def shared_by(self, workers: int) -> EndpointOptions:
        """The options of each of several processes, so that together they call the endpoint no more than one would."""
        pace = self.requests_per_minute
        return self.model_copy(
            update={
                "requests_per_minute": None if pace is None else pace / workers,
                "concurrency": max(1, self.concurrency // workers),
            }
        )


def own_address() -> str:
    """The address that the user's own environment names, or OpenAI's.

    Raises:
        ValueError: naming the variable, if its value is not an address.
    """
    url = os.environ.get("OPENAI_BASE_URL") or OPENAI
    if not _is_complete(url):
        raise ValueError(f"the environment variable OPENAI_BASE_URL is not {ADDRESS}")
    return url


def _is_complete(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
        complete = parts.scheme in ("http", "https") and host.isprintable() and host != "" and parts.port != 0
    except ValueError:  # a port that is not a number, a host that no address can have
        return False
    return complete and not parts.query and not parts.fragment


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _is_price(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
