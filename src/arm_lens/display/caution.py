"""Warnings that point at the user's line, not at one of ours."""

from __future__ import annotations

import sys
import warnings

LIBRARIES = (__name__.partition(".")[0], "torch", "jaxtyping")
"""This package, and those whose decorators stand between its functions and the user."""


def caution(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line of the user, so that the warning names the call that brought it about."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)
