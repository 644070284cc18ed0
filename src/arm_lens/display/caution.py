"""Warnings that point at the user's line, not at one of ours."""

from __future__ import annotations

import sys
import warnings

PACKAGE = __name__.partition(".")[0]


def caution(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line outside this package, so that the warning names the call that brought it about."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == PACKAGE:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)
