"""TRL's format of preference data, which is the general one, and HH-RLHF's, a special case of it.

`arm_lens.preferences.rows` reads the rows: pairs, pairs with an implicit prompt, labelled responses.
"""

from __future__ import annotations

from typing import Any

from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.rows import PREFERENCE_FIELDS, read_row
from arm_lens.preferences.sources import is_missing
from arm_lens.preferences.types import Preference, PreferenceFieldError


def _read_trl(record: Record) -> list[Preference]:
    example = read_row(
        record.cells, criterion=record.criterion, default_id=record.default_id, text_cells=record.text_cells
    )
    return [example]


def _read_hh_rlhf(record: Record) -> list[Preference]:
    """A pair of transcripts that share all but the last answers."""
    texts: dict[str, Any] = {name: record.part(name).value for name in ("chosen", "rejected")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise PreferenceFieldError(name, "is not a transcript")
    if not is_missing(record.cells.get("prompt")):
        raise PreferenceFieldError("prompt", "is given although the transcripts include the prompt")
    pair = read_row(texts, criterion=record.criterion, default_id=record.default_id, text_cells=False)
    prompt, chosen, rejected = (Part(name, getattr(pair, name)) for name in ("prompt", "chosen", "rejected"))
    return [record.pair(prompt=prompt, chosen=chosen, rejected=rejected, id=record.text("id"), used=("id",))]


FORMATS = (
    Format(
        name="trl",
        title="TRL and Hugging Face: prompt, chosen, rejected; chosen, rejected; or prompt, completion, label",
        fields=PREFERENCE_FIELDS,
        read=_read_trl,
    ),
    Format(
        name="hh-rlhf",
        title="HH-RLHF (Bai et al. 2022, arXiv 2204.05862): transcripts; unless named, read as TRL's implicit prompts",
        fields=(frozenset({"chosen", "rejected"}),),
        by_name_only=True,
        read=_read_hh_rlhf,
    ),
)
