"""What a service accepts and how it batches."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt


class ServiceOptions(BaseModel):
    """Limits of a service, and how it batches; all texts are counted in characters, all bodies in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    max_batch: PositiveInt = 128
    """Questions (an item and a reward model) that are answered together at most."""
    max_wait_ms: NonNegativeFloat = 2.0
    """How long a question waits for others at most, if the model is idle."""
    queue: PositiveInt = 4096
    """Questions that may wait; a request that would exceed it is refused with 429."""
    max_items: PositiveInt = 64
    """Items in a request."""
    max_chars: PositiveInt = 20_000
    """Characters of a prompt or response."""
    max_images: PositiveInt = 8
    """Images in a request, which count towards its bytes."""
    max_body: PositiveInt = 2**21
    """Bytes of a request's body."""
    body_seconds: NonNegativeFloat = 20.0
    """How long a client may take to send a body; slower ones are refused with 408."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a host."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def token_of(variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The bearer token in an environment variable; None if no variable is named.

    Raises:
        ValueError: if the variable is not set, is empty, or has characters that a header cannot have.
    """
    if not variable:
        return None
    token = environment.get(variable, "")
    if not token:
        raise ValueError(f"the environment variable {variable} is not set, or empty: export {variable}=...")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"the token in {variable} has characters that a header cannot have; use letters and digits")
    return token


def check_host(host: str, token: str | None, insecure: bool) -> None:
    """Raise a ValueError if other machines could reach a service that has no token, unless that is wanted."""
    if not is_loopback(host) and token is None and not insecure:
        raise ValueError(
            f"--host {host} is open to other machines, and there is no token: name the environment variable that has one, "
            "--token-env NAME, or allow everybody in by --insecure"
        )
