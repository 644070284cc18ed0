"""docs/data.md: the rows of a reader's own."""

from __future__ import annotations

import vision_models

from arm_lens import LabelledResponse

GIVEN = ("LabelledResponse",)


def prepare(page):
    """Draw the picture."""
    vision_models.picture(0).save(page.folder / "cat.png")
    page.names["LabelledResponse"] = LabelledResponse
