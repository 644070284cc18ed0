"""How an endpoint is called: where it is, how often it is asked, and what that may cost."""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from arm_lens.registry import OptionsModel


class EndpointOptions(OptionsModel):
    """How an OpenAI-compatible endpoint is called."""

    base_url: str | None = None
    """Such as ``http://localhost:8000/v1``; by default ``OPENAI_BASE_URL`` or OpenAI itself."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable with the key, which is never stored; None for an endpoint without keys."""
    max_retries: NonNegativeInt = 5
    """How often a request is repeated after a lost connection, a timeout, or the status 429 or 5xx."""
    timeout: PositiveFloat = 60.0
    """Seconds without a response before a request counts as lost."""
    requests_per_minute: PositiveFloat | None = None
    """At most, evenly spaced, repeated requests included."""
    concurrency: PositiveInt = 4
    """Requests at the same time."""
    prices: tuple[float, float] | None = None
    """The price of a million prompt tokens, and of a million completion tokens."""
    budget: PositiveFloat | None = None
    """The most that a judge may spend, in the unit of the prices; until its cost is known, each request counts as a token
    per byte and the longest answer."""
    cache: Path | None = None
    """A folder for the answers, so that no request is paid for twice and a run that was stopped goes on where it was. By
    default the judge remembers them in memory."""

    @model_validator(mode="after")
    def _priced(self) -> EndpointOptions:
        if self.budget is not None and self.prices is None:
            raise ValueError("a budget needs prices: (per million prompt tokens, per million completion tokens)")
        return self

    def shared_by(self, workers: int) -> EndpointOptions:
        """The options of each of several processes, so that together they call the endpoint no more than one would."""
        pace = self.requests_per_minute
        return self.model_copy(
            update={
                "requests_per_minute": None if pace is None else pace / workers,
                "concurrency": max(1, self.concurrency // workers),
            }
        )
