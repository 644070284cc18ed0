"""docs/errors.md: what its code takes for granted."""

from __future__ import annotations


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    return {}
