"""How the marks of images (`arm_lens.preferences.images`) are found in texts, and written for people."""

from __future__ import annotations

import re
from typing import Any

MARK = re.compile("\ufdd0([0-9a-f]{32})\ufdd1")
"""A mark; its group is the image's digest."""
_WRITTEN_MARK = re.compile("(?:\ufdd0|\\\\ufdd0)([0-9a-f]{32})(?:\ufdd1|\\\\ufdd1)")
"""A mark in a text, or in what `repr` makes of a text."""

KNOWN: dict[str, Any] = {}
"""The images that this process has read, by digest."""


def describe_images(text: str) -> str:
    """A text, or the `repr` of one, as people read it: each image as ``[image 1a2b3c4d, 640 x 480]``.

    If an image is not known, its size is left out.
    """
    if "\ufdd0" not in text and "\\ufdd0" not in text:
        return text
    return _WRITTEN_MARK.sub(lambda mark: str(KNOWN.get(mark[1]) or f"[image {mark[1][:8]}]"), text)
