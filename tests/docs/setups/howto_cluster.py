"""docs/howto/cluster.md: what its code takes for granted."""

from __future__ import annotations


def prepare(names, folder, cache):
    """Write the files of the page; gives what stands for the names of models."""
    return {}
