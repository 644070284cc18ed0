"""The map of a judge's heads as a picture, if figures can be drawn here: plotly, kaleido and a Chromium are optional."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from arm_lens.display.caution import caution
from arm_lens.heads import HeadSet


class NoPictureWarning(UserWarning):
    """A model card has its head map as text only, since no picture can be drawn here."""


def head_picture(heads: Mapping[str, HeadSet]) -> bytes | None:
    """A PNG of sets of heads by name; None if there are none.

    Warns:
        NoPictureWarning: if it cannot be drawn here; then there is none either.
    """
    if not heads:
        return None
    try:
        from arm_lens.plots import save_figure, selected_heads

        with tempfile.TemporaryDirectory() as folder:
            return save_figure(selected_heads(heads), Path(folder) / "heads.png").read_bytes()
    except (ImportError, RuntimeError) as error:
        caution(f"the model card shows its heads as text, without a picture: {error}", NoPictureWarning)
        return None
