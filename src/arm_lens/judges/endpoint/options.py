"""How an endpoint is called: where it is, how often it is asked, and what that may cost."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from arm_lens.registry import OptionsModel


class EndpointOptions(OptionsModel):
    """How an OpenAI-compatible endpoint is called."""

    base_url: str | None = None
    """Such as ``http://localhost:8000/v1``; by default ``OPENAI_BASE_URL`` or OpenAI itself."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable with the key, which is never stored; None for an endpoint without keys."""
    max_retries: int = 5
    """How often a request is repeated after a lost connection, a timeout, or the status 429 or 5xx."""
    timeout: float = 60.0
    """Seconds without a sign of the endpoint before a request counts as lost."""
    requests_per_minute: float | None = None
    """At most, evenly spaced, repeated requests included."""
    concurrency: int = 4
    """Requests on their way at a time."""
    prices: tuple[float, float] | None = None
    """Of a million prompt tokens and of a million completion tokens."""
    budget: float | None = None
    """The most to spend, in the unit of the prices, as long as a judge lives; each request is priced at a token per byte and
    the longest answer until its cost is known."""
    cache: Path | None = None
    """A folder for the answers: asked again, they cost nothing, so that a run which was stopped goes on where it was. By
    default they are remembered as long as the judge."""

    @model_validator(mode="after")
    def _possible(self) -> EndpointOptions:
        for name, least in (("concurrency", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("timeout", "requests_per_minute", "budget"):
            amount = getattr(self, name)
            if amount is not None and not amount > 0:
                raise ValueError(f"{name} is {amount}; it must be more than 0")
        if self.budget is not None and self.prices is None:
            raise ValueError("a budget needs prices: (per million prompt tokens, per million completion tokens)")
        return self

    def shared_by(self, workers: int) -> EndpointOptions:
        """What each of several processes may do, so that the endpoint bears no more from all of them."""
        pace = self.requests_per_minute
        return self.model_copy(
            update={
                "requests_per_minute": None if pace is None else pace / workers,
                "concurrency": max(1, self.concurrency // workers),
            }
        )
